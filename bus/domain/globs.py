"""Paths and globs of a repository: which are valid, how they are written, and whether two of them can meet.

    src/auth.py    this path                   src/ or src/**    everything in src
    src/*.py       files directly in src       **/test_?.py      at any depth
    [a-m]*.md      one of these characters     [!a-m]*.md        one of all others

Rules:
* A pattern is relative to the root of the repository and has `/` between names. `*` and `?` stay within one name; `**`
  stands alone between slashes for any number of names, none included. Brackets also quote: `[*]` is a star.
* Two patterns overlap when a path is possible that both cover, whether or not there is one. That is decided exactly, by
  walking through both at once, never by listing paths.
* A pattern without wildcards covers that path alone. Whether it is a directory is not known here, so it also overlaps
  with patterns that spell out something below it: `src` with `src/auth.py` and `src/*.py`, but not with `**/*.md`.
* Capital and small letters, composed and decomposed characters are not told apart, because many file systems do not.
* A name with brackets may be meant as it stands (`[id].tsx`): the pattern covers the path that is spelled so as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Generic, NamedTuple, TypeVar

from bus.errors import InvalidRequest

MAX_LENGTH = 1000
MAX_NAMES = 64
MAX_NAME_LENGTH = 255
MAX_WILDCARDS = 32
MAX_CHARS = 256
"""The brackets of a pattern stand for at most so many characters, all together: each is looked at by itself, while
everybody else's decision waits."""
_WILDCARD = re.compile(r"\*\*|[*?\[]")
_BRACES = re.compile(r"(?<!\[)\{[^/{}]*,[^/{}]*\}")
_DRIVE = re.compile(r"[A-Za-z]:(/|$)")
_QUOTED = re.compile(r"[*?\[{]")
_UNWRITABLE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Anything(NamedTuple):
    """Stands for any number of items, none included."""


class Chars(NamedTuple):
    """One character: of these, or with `others` any but these."""

    chars: frozenset[str]
    others: bool


ANY = Anything()
ONE = Chars(frozenset(), True)
T = TypeVar("T")


class Sequel(NamedTuple, Generic[T]):
    """A sequence of items as it is walked through: bit n of a number stands for the place before its item n."""

    items: tuple[T | Anything, ...]
    singles: tuple[tuple[T, int], ...]
    """Every item but ANY, and the places before it."""
    passing: int
    """The places before an ANY."""


class Wild(NamedTuple):
    """A name with wildcards: how every name that it stands for begins and ends, and its characters one by one."""

    head: str
    tail: str
    chars: Sequel[str | Chars]


Name = str | Wild


class Shape(NamedTuple):
    """A pattern taken apart. Every path it covers begins with `head`, but for a slash at its end, and ends with `tail`;
    a plain one covers nothing else."""

    head: str
    tail: str
    names: Sequel[Name]
    is_plain: bool


Shapes = tuple[Shape, ...]


# --- writing patterns alike -----------------------------------------------------------------------------------------


def normal(text: str) -> str:
    """The pattern as it is stored: composed characters, single slashes, no `.`, and `**` for what ends in a slash.
    Raises InvalidRequest."""
    text = unicodedata.normalize("NFC", text)
    if not text.strip():
        raise _bad(text, "the path is empty", "a path or glob", "nothing", "`.` is the whole repository")
    if len(text) > MAX_LENGTH:
        raise _bad(text, "the path is too long", f"at most {MAX_LENGTH} characters", f"{len(text)}", "Use a glob")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise _bad(text, "the path has control characters", "a path that can be shown", repr(text), "Use `?` for them")
    if "\\" in text:
        hint = "Write / between names; [*] is a star that is meant as it stands"
        raise _bad(text, "the path has a backslash", "/ between names", text, hint)
    if text.startswith("/") or _DRIVE.match(text):
        hint = "Leave out what leads to the repository; the command line does so by itself"
        raise _bad(text, "the path is absolute", "a path relative to the root of the repository", text, hint)
    names = [name for name in text.split("/") if name not in ("", ".")]
    if ".." in names:
        raise _bad(text, "the path has `..`", "a path that goes down only", text, "Write it from the repository's root")
    if text.endswith(("/", "/.")) or not names:
        names.append("**")
    _check_wildcards(text, names)
    return "/".join(name for name, before in zip(names, ["", *names], strict=False) if (name, before) != ("**", "**"))


def _check_wildcards(text: str, names: Sequence[str]) -> None:
    if len(names) > MAX_NAMES:
        raise _bad(text, "the path is too deep", f"at most {MAX_NAMES} names", f"{len(names)}", "Use **")
    if (found := len(_WILDCARD.findall(text))) > MAX_WILDCARDS:
        raise _bad(text, "the glob is too complex", f"at most {MAX_WILDCARDS} wildcards", f"{found}", "Use a wider one")
    if braces := _BRACES.search(text):
        hint = "Give several paths; [{] is a brace that is meant as it stands"
        raise _bad(text, "globs have no braces here", "`*`, `?`, `[...]` and `**`", braces[0], hint)
    chars = 0
    for name in names:
        if len(name) > MAX_NAME_LENGTH:
            raise _bad(
                text, "a name is too long", f"at most {MAX_NAME_LENGTH} characters", f"{len(name)}", "Use a glob"
            )
        if "**" in name and name != "**":
            hint = "`*` is any part of a name, `**` any number of names"
            raise _bad(text, "`**` is part of a name", "`**` alone between slashes", name, hint)
        try:
            chars += _chars(_name(name))
        except ValueError as error:
            hint = "[[] is a bracket that is meant as it stands"
            raise _bad(text, "the glob is not valid", str(error), name, hint) from None
        if chars > MAX_CHARS:
            expected = f"at most {MAX_CHARS} characters that its brackets stand for"
            raise _bad(text, "the glob is too complex", expected, f"{chars}", "Use `?` for any character")


def _chars(name: Name) -> int:
    """How many characters the brackets of a name stand for."""
    parts = name.chars.items if isinstance(name, Wild) else ()
    return sum(len(part.chars) for part in parts if isinstance(part, Chars))


def is_normal(pattern: str) -> bool:
    """Whether a request may say this pattern, just so: taking it apart then takes no time to speak of. What an
    administrator wrote into the log may be anything."""
    try:
        return normal(pattern) == pattern
    except InvalidRequest:
        return False


def quoted(path: str) -> str:
    """The pattern that means the path of a file as it stands (but for characters that no pattern has: any will do)."""
    return _UNWRITABLE.sub("?", _QUOTED.sub(lambda found: f"[{found[0]}]", path))


def _bad(text: str, message: str, expected: str, found: str, hint: str) -> InvalidRequest:
    shown = text if len(text) <= 80 else f"{text[:80]}…"
    return InvalidRequest(message, code="bad_path", entity=f"path {shown!r}", expected=expected, found=found, hint=hint)


# --- taking patterns apart ------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def shapes(pattern: str) -> Shapes:
    """What a normal pattern covers. Most have one shape; brackets may be meant as they stand, and a few letters have
    two ways to be equal to others (ß is ss, or itself)."""
    found: dict[Shape, None] = {}
    for folded in dict.fromkeys((_folded(pattern), unicodedata.normalize("NFC", pattern.casefold()))):
        names = folded.split("/")
        try:
            found[_shape([ANY if name == "**" else _name(name) for name in names])] = None
        except ValueError:
            found[_shape(names)] = None  # An administrator wrote it; all it can mean is itself.
        if "[" in folded:
            found[_shape(names)] = None
    return tuple(found)


def _shape(names: Sequence[Name | Anything]) -> Shape:
    known = list(takewhile(lambda name: isinstance(name, str), names))
    head = "/".join(map(str, known))
    last = names[-1]
    tail = last if isinstance(last, str) else last.tail if isinstance(last, Wild) else ""
    if len(known) == len(names):
        return Shape(head, tail, _sequel(names), True)
    first = names[len(known)]
    beginning = first.head if isinstance(first, Wild) else ""
    return Shape(f"{head}/{beginning}" if known else beginning, tail, _sequel(names), False)


def _sequel(items: Sequence[T | Anything]) -> Sequel[T]:
    singles: dict[T, int] = {}
    for place, item in enumerate(items):
        if not isinstance(item, Anything):
            singles[item] = singles.get(item, 0) | 1 << place
    passing = sum(1 << place for place, item in enumerate(items) if item is ANY)
    return Sequel(tuple(items), tuple(singles.items()), passing)


@lru_cache(maxsize=1 << 14)
def _name(text: str) -> Name:
    """One name of a pattern, taken apart. Raises ValueError saying what was expected."""
    chars: list[str | Chars | Anything] = []
    rest = text
    while rest:
        first, rest = rest[0], rest[1:]
        if first == "[":
            choice, rest = _choice(rest)
            chars.append(min(choice.chars) if len(choice.chars) == 1 and not choice.others else choice)
        elif first == "*":
            chars.append(ANY)
        else:
            chars.append(ONE if first == "?" else first)
    head = _beginning(chars)
    return head if len(head) == len(chars) else Wild(head, _beginning(reversed(chars))[::-1], _sequel(chars))


def _beginning(chars: Iterable[str | Chars | Anything]) -> str:
    return "".join(map(str, takewhile(lambda char: isinstance(char, str), chars)))


def _choice(text: str) -> tuple[Chars, str]:
    """What brackets stand for, and the text behind them; `text` begins behind the opening one."""
    others = text[:1] in ("!", "^")
    body = text[1:] if others else text
    end = body.find("]", 1)
    if end < 0:
        raise ValueError("a `]` for every `[`")
    inside, place = body[:end], 0
    chars: set[str] = set()
    while place < len(inside):
        low, dash, high = inside[place], inside[place + 1 : place + 2], inside[place + 2 : place + 3]
        is_range = dash == "-" and high != ""
        last = high if is_range else low
        if not 0 <= ord(last) - ord(low) < MAX_CHARS:
            raise ValueError(f"a range from low to high of at most {MAX_CHARS} characters")
        chars |= {_small(chr(code)) for code in range(ord(low), ord(last) + 1)}
        place += 3 if is_range else 1
    return Chars(frozenset(chars), others), body[end + 1 :]


def _folded(text: str) -> str:
    """`text` with each letter made small, as long as it was."""
    return text.lower() if text.isascii() else "".join(map(_small, unicodedata.normalize("NFC", text)))


@lru_cache(maxsize=1 << 16)
def _small(char: str) -> str:
    """One character made small, if that is one character."""
    char = unicodedata.normalize("NFC", char)
    return next((small for small in (char.casefold(), char.lower()) if len(small) == 1), char)


# --- meeting --------------------------------------------------------------------------------------------------------


def overlap(one: str, other: str) -> bool:
    """Whether a path is possible that both normal patterns cover."""
    return _overlap(shapes(one), shapes(other))


def overlapping(patterns: Iterable[str]) -> Callable[[frozenset[str]], tuple[str, str] | None]:
    """A function that finds the first of these patterns that overlaps with one of some others, and that other one."""
    mine = [(pattern, shapes(pattern)) for pattern in patterns]
    ends = [_end(shape) for _, known in mine for shape in known]

    def exactly(others: Iterable[str]) -> tuple[str, str] | None:
        for pattern, known in mine:
            for other in others:
                if _overlap(known, shapes(other)):
                    return pattern, other
        return None

    def found(others: frozenset[str]) -> tuple[str, str] | None:
        # What most patterns are told apart by, and much quicker than taking both apart.
        for head, tail, depth, below in _ends(others):
            for my_head, my_tail, my_depth, my_below in ends:
                if (head.startswith(my_head) or my_head.startswith(head)) and (
                    tail.endswith(my_tail) or my_tail.endswith(tail) or my_depth > below or depth > my_below
                ):
                    return exactly(others)
        return None

    return found


@lru_cache(maxsize=1 << 14)
def _ends(patterns: frozenset[str]) -> tuple[tuple[str, str, int, int], ...]:
    return tuple(_end(shape) for pattern in patterns for shape in shapes(pattern))


def _end(shape: Shape) -> tuple[str, str, int, int]:
    """Head, tail, how many names it spells out, and how many a pattern has to spell out to be below it."""
    depth = len(shape.names.items)
    return shape.head, shape.tail, depth, depth if shape.is_plain else MAX_NAMES


def _overlap(mine: Shapes, theirs: Shapes) -> bool:
    for a in mine:
        for b in theirs:
            # What most patterns are told apart by, and much quicker.
            if not (a.head.startswith(b.head) or b.head.startswith(a.head)):
                continue
            tails = a.tail.endswith(b.tail) or b.tail.endswith(a.tail)
            if tails and _meet(a.names, b.names, _names_meet):
                return True
            if (a.is_plain and _is_above(a, b)) or (b.is_plain and _is_above(b, a)):
                return True
    return False


def _is_above(one: Shape, other: Shape) -> bool:
    """Whether `one`, which is plain, may be a directory of what `other` spells out."""
    mine, theirs = one.names.items, other.names.items[: len(one.names.items)]
    if len(theirs) < len(mine) or len(theirs) == len(other.names.items):
        return False
    return all(not isinstance(b, Anything) and _names_meet(str(a), b) for a, b in zip(mine, theirs, strict=True))


def _names_meet(one: Name, other: Name) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    a, b = _letters(one) if isinstance(one, str) else one, _letters(other) if isinstance(other, str) else other
    # What most names are told apart by, and much quicker.
    heads = a.head.startswith(b.head) or b.head.startswith(a.head)
    tails = a.tail.endswith(b.tail) or b.tail.endswith(a.tail)
    return heads and tails and _meet(a.chars, b.chars, _chars_meet)


@lru_cache(maxsize=1 << 14)
def _letters(text: str) -> Wild:
    return Wild(text, text, _sequel(text))


def _chars_meet(one: str | Chars, other: str | Chars) -> bool:
    if isinstance(one, str):
        return one == other if isinstance(other, str) else (one in other.chars) != other.others
    if isinstance(other, str):
        return (other in one.chars) != one.others
    if one.others and other.others:
        return True  # There are always more characters than those that are left out.
    if one.others or other.others:
        these, without = (other, one) if one.others else (one, other)
        return not these.chars <= without.chars
    return not one.chars.isdisjoint(other.chars)


def _meet(one: Sequel[T], other: Sequel[T], meets: Callable[[T, T], bool]) -> bool:
    """Whether there is something that both stand for. Walks through the items of `one`, knowing the places that may be
    reached in `other` by then. Every item stands for something, so an ANY can pass over any of them."""
    if not one.passing and not other.passing and len(one.items) != len(other.items):
        return False
    places = _passed(1, other.passing)
    for item in one.items:
        if isinstance(item, Anything):
            lowest = places & -places
            places = (2 << len(other.items)) - lowest
        else:
            fitting = 0
            for known, where in other.singles:
                if where & places and meets(item, known):
                    fitting |= where & places
            places = _passed(places & other.passing | fitting << 1, other.passing)
        if not places:
            return False
    return places >> len(other.items) != 0


def _passed(places: int, passing: int) -> int:
    """`places`, and those behind every ANY that stands at one of them."""
    while (more := places | (places & passing) << 1) != places:
        places = more
    return places
