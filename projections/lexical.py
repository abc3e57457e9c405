"""Words: what a text is found by, and what a question looks for.

Rules:
* English words are stemmed; words that stand in almost every text are left out.
* Code is found whole and in parts: `parseUserInput`, `bus/task_claims.py`, `TS2345` and `ECONNREFUSED` are each kept as
  they are written, without letter case, and cut at signs, changes of case and digits.
* The same function reads texts and questions, so what is typed as it stands in a text finds it.
* Everything here is pure, and depends on nothing but its arguments.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import Stemmer

WORD = 60
"""Longer runs of signs are no words: they are cut into their parts, and the parts to this length."""
KNOWN = 1 << 14
"""Runs of signs whose words are at hand."""
_CHUNK = re.compile(r"[^\s\"“”‘’«»<>(){}\[\],;!?|*=`´…]+")
_PART = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_EDGES = "._-/\\:#@$%&+~'’^—–"
_COMMON = """
a an the i me my we us our ours you your yours he him his she her hers it its they them their theirs this that
these those is am are was were be been being do does did doing done have has had having what when where which who
whom whose how why will would can could should shall may might must of in on at by for with about against between
into through during before after to from up down out over under and or but if then than so as not no nor too very
s t just there here any some such own same more most other each few both all i'm you're he's she's it's we're
they're i've you've we've they've i'd you'd he'd she'd we'd they'd i'll you'll he'll she'll we'll they'll isn't
aren't wasn't weren't hasn't haven't hadn't doesn't don't didn't won't wouldn't can't cannot couldn't shouldn't
mustn't let's that's who's what's here's there's when's where's why's how's
"""
_STOP = frozenset(_COMMON.split())

_stem = Stemmer.Stemmer("english", 0).stemWord


def words(text: str) -> list[str]:
    """The words that `text` is found by, in their order; one that occurs twice stands here twice."""
    found: list[str] = []
    for chunk in _CHUNK.findall(text if text.isascii() else unicodedata.normalize("NFKC", text)):
        found += _read(chunk)
    return found


@lru_cache(maxsize=KNOWN)
def _read(chunk: str) -> tuple[str, ...]:
    """The words of one run of signs without white space."""
    parts = _PART.findall(chunk)
    if len(parts) == 1 and parts[0].isascii() and parts[0].isalpha() and _is_plain(parts[0]):
        return _plain(parts[0])
    found: list[str] = []
    whole = chunk.strip(_EDGES).casefold()
    if len(parts) > 1 and len(whole) <= WORD and not whole.startswith("http"):
        found.append(whole)
    for part in parts:
        found += _part(part)
    return tuple(dict.fromkeys(found))


def _is_plain(part: str) -> bool:
    return part.islower() or part.isupper() or part.istitle()


def _plain(part: str) -> tuple[str, ...]:
    """One English word."""
    word = part.casefold()[:WORD]
    return () if word in _STOP else (_stem(word),)


def _part(part: str) -> list[str]:
    """What lies between two signs: a word, or a name that is cut where its case changes or digits begin."""
    if "'" in part or "’" in part:
        word = part.replace("’", "'").casefold()
        return [] if word in _STOP else list(_plain(word.partition("'")[0]))
    pieces = _PIECE.findall(part) if part.isascii() else ()
    if len(pieces) < 2:
        return list(_plain(part))
    found = [part.casefold()[:WORD]]
    for piece in pieces:
        found += _plain(piece)
    return found


# --- names and dates in a question --------------------------------------------------------------------------------

_NAMED = re.compile(r"[a-z0-9][a-z0-9_-]*")


def names(text: str) -> frozenset[str]:
    """What in `text` may be the name of an agent."""
    return frozenset(
        name.rstrip("-_") for name in _NAMED.findall(text.casefold().replace("'s", " ").replace("’s", " "))
    )


class Span(NamedTuple):
    """Time that a question names: from the first day to the last. `year` is None when the question names none."""

    year: int | None
    month: int
    day: int | None

    def contains(self, day: date) -> bool:
        return day.month == self.month and self.year in (None, day.year) and (self.day is None or self.day == day.day)


_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
)
_NUMBER = {name: number for number, name in enumerate(_MONTHS, 1)}
_NUMBER |= {name[:3]: number for name, number in _NUMBER.items()} | {"sept": 9}
_NAME = "|".join(sorted((name.title() for name in _NUMBER), key=len, reverse=True))
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_DATES = (
    re.compile(r"\b(?P<year>\d{4})-(?P<number>[01]\d)(?:-(?P<day>[0-3]\d))?\b"),
    re.compile(rf"\b{_DAY} (?:of )?(?P<month>{_NAME})\b\.?,?(?: (?P<year>\d{{4}}))?"),
    re.compile(rf"\b(?P<month>{_NAME})\b\.? {_DAY}(?!\d)(?:,? (?P<year>\d{{4}}))?"),
    re.compile(rf"\b(?P<month>{_NAME})\b\.?,?(?: (?:of )?(?P<year>\d{{4}}))?"),
)


def spans(text: str) -> list[Span]:
    """The months and days that `text` names. A month is written with a capital letter: `may` and `march` are words."""
    found: list[Span] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            given = match.groupdict()
            if match.start() == 0 and match[0] in ("May", "March"):
                continue  # The first word has a capital letter whatever it means.
            month = int(given["number"]) if given.get("number") else _NUMBER[(given.get("month") or "").casefold()]
            year, day = given["year"], given.get("day")
            found.append(Span(int(year) if year else None, month, int(day) if day else None))
        text = pattern.sub(" ", text)
    return list(dict.fromkeys(found))
