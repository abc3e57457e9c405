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
from collections.abc import Callable
from functools import lru_cache
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
