"""Wording: when two people mean the same with different words, as far as letters can tell.

Rules:
* A key is made small, its white space and punctuation become single dashes, and `.` and `..` between slashes are
  resolved: `Fix  Auth!` is `fix-auth`, `./src//Login.py` is `src/login.py`. Making a key of a key changes nothing.
* Two texts are as alike as the share of trigrams (three letters in a row, word by word) that they have in common.
* Most texts have next to nothing in common. That is seen at once by their marks, of which each trigram sets a bit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from math import ceil
from typing import NamedTuple
from zlib import crc32

from bus.errors import InvalidRequest
from bus.subjects import token

ALIKE = 0.55
"""From so much on, two texts are nearly the same."""
COMPARED = 200
"""So many characters of a text are compared."""
_DASHES = re.compile(r"-+")
_BITS = 512
ROUNDING = 1e-9
"""A share is calculated no more exactly than that."""


class Marks(NamedTuple):
    """What is quickly compared of a text: a bit for each trigram, how many have none of their own, and their number."""

    bits: int
    hidden: int
    number: int


def key_of(text: str) -> str:
    """`text` as the key of what it is about. Raises InvalidRequest when nothing is left of it, or too much."""
    names: list[str] = []
    for part in _small(text).replace("\\", "/").split("/"):
        if part == "..":
            if not names:
                raise _bad(text, "the key leads out of the repository", "a path inside it", "`..`")
            names.pop()
        elif name := _dashed(part):
            names.append(name)
    key = "/".join(names)
    if not key:
        raise _bad(text, "the key is empty", "at least one letter or digit", repr(text[:40]))
    token(key)
    return key


def _bad(text: str, message: str, expected: str, found: str) -> InvalidRequest:
    hint = "Name what you are about to touch: a topic such as fix-auth, or a path"
    entity = f"key {text[:40]!r}"
    return InvalidRequest(message, code="bad_key", entity=entity, expected=expected, found=found, hint=hint)


def _small(text: str) -> str:
    """`text` without differences of case and form; invisible characters are left out."""
    visible = (char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", "".join(visible).casefold())


def _dashed(name: str) -> str:
    """`name` with a dash for each run of white space and punctuation. A dot between two letters is part of the name."""
    signs = [char if unicodedata.category(char)[0] in "LMNS" else "-" for char in name]
    for place in range(1, len(name) - 1):
        if name[place] == "." and "-" not in (signs[place - 1], signs[place + 1]):
            signs[place] = "."
    return _DASHES.sub("-", "".join(signs)).strip("-")


@lru_cache(maxsize=1 << 13)
def trigrams(text: str) -> frozenset[str]:
    """The trigrams of a text's words, each word with two blanks before it and one behind."""
    words = _dashed(_small(text[:COMPARED])).replace("/", "-").replace(".", "-").split("-")
    padded = [f"  {word} " for word in words if word]
    return frozenset(word[start : start + 3] for word in padded for start in range(len(word) - 2))


def likeness(one: str, other: str) -> float:
    """How alike two texts are, from 0 to 1: the trigrams they share among those they have."""
    mine, theirs = trigrams(one), trigrams(other)
    return 2 * len(mine & theirs) / (len(mine) + len(theirs)) if mine or theirs else 0.0


@lru_cache(maxsize=1 << 13)
def marks(text: str) -> Marks:
    """The marks of a text."""
    found = trigrams(text)
    bits = 0
    for one in found:
        bits |= 1 << crc32(one.encode()) % _BITS
    return Marks(bits, len(found) - bits.bit_count(), len(found))


def at_most(text: str) -> Callable[[str], float]:
    """A function that says how alike another text can be to this one: never less than it is."""
    bits, hidden, number = marks(text)

    def bound(other: str) -> float:
        theirs, _, count = marks(other)
        most = (bits & theirs).bit_count() + hidden
        return 2 * most / (number + count) if most else 0.0

    return bound


class Wordings:
    """Texts by name, of which many are compared with another at once.

    Each text has a slot. For each mark there is a number with a bit for each slot: whether the text there has it.
    """

    def __init__(self) -> None:
        self._having = [0] * _BITS
        self._known: dict[str, tuple[int, int]] = {}
        self._names: dict[int, str] = {}
        self._free: list[int] = []

    def put(self, name: str, text: str | None) -> None:
        """Know the text by that name (None: no more)."""
        if name not in self._known and text is None:
            return
        slot, before = self._known.get(name) or (self._free.pop() if self._free else len(self._names), 0)
        after = marks(text).bits if text is not None else 0
        for mark in _places(before ^ after):
            self._having[mark] ^= 1 << slot
        if text is not None:
            self._known[name] = slot, after
            self._names[slot] = name
        else:
            del self._known[name], self._names[slot]
            self._free.append(slot)

    def likely(self, text: str) -> Collection[str]:
        """The names of all texts that may be nearly the same as this one, and of few others."""
        bits, hidden, number = marks(text)
        # Of all that share so many marks, the most alike is a text that has no others.
        least = ceil((ALIKE * number - 2 * hidden) / (2 - ALIKE) - ROUNDING)
        if not number or least <= 0:
            return self._known if number else ()
        having = (self._having[mark] for mark in _places(bits))
        return [self._names[slot] for slot in _places(_in_at_least(least, having))]


def _in_at_least(least: int, numbers: Iterable[int]) -> int:
    """The bits that are set in at least so many of the numbers. They are counted all at once: bit n of `counts[i]` is
    bit i of how often bit n was set."""
    counts: list[int] = []
    for carried in numbers:
        for place, bits in enumerate(counts):
            counts[place], carried = bits ^ carried, bits & carried
        if carried:
            counts.append(carried)
    more, equal = 0, -1
    for place in reversed(range(max(len(counts), least.bit_length()))):
        bits = counts[place] if place < len(counts) else 0
        if least >> place & 1:
            equal &= bits
        else:
            more |= equal & bits
            equal &= ~bits
    return more | equal


def _places(bits: int) -> Iterator[int]:
    """The places of the bits that are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
