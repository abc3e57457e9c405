"""The words of everything that can be recalled, in memory: which text has which words, and what stands next to it.

    slot     one thing that can be recalled: an entry of the memory, a message, an entry of a journal, what a task is
             or what became of it, a passage of a version of a file
    row      one wording of a slot, valid from a seq until before another
    posting  a word occurs so many times in a row
    thread   slots that follow one another: a channel, a conversation, a subject, a journal, a task, a version of a file

Rules:
* It is derived from the tables and is put together in the order of the log. What a later event adds, or ends, makes no
  difference to what is found as of an earlier seq.
* Slots are in the order of the events that they are named by: a thing says something from that event on.
* Texts are not kept: what was chosen is read from the tables.
* The slots of a thread have the same readers, so what stands next to a slot tells nobody of what they may not see.
* A group is a namespace and an audience; who may look into a group is asked of the reader, never decided here.
* Everything here is pure: it reads nothing, and knows no clock and no lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from projections.columns import Column
from projections.lexical import words
from projections.postings import Counts, Postings, Rows
from projections.schema import OPEN

Ints = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]
KINDS = ("memory", "message", "journal", "task", "document", "turn")
NOBODY = 0
"""The slot of nothing: whatever stands first or last in a thread, or alone, has it beside itself."""
CLOSED = -1
"""No row."""
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T", bound=Hashable)


class Wording(NamedTuple):
    """What one event made a thing say. `ident` is the seq of its first event; `text`, by which it is found, is None
    when it says nothing any more, in none of its parts."""

    seq: int
    time: datetime
    kind: str
    ident: int
    entity: str
    namespace: str
    audience: str | None
    thread: tuple[str, ...] | None
    """What it belongs to (None: it stands alone)."""
    author: str
    text: str | None
    part: int = 0
    """Which part of what came into being with that event."""
    true_from: date | None = None
    """When it began to be true, if that was said. Otherwise it is of the day on which it was first said."""
    tier: str | None = None
    """Where it may be processed, if that was said."""


class Numbered(Generic[T]):
    """Things by a number that each gets when it is first met."""

    def __init__(self) -> None:
        self.things: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, thing: T) -> int:
        number = self._numbers.setdefault(thing, len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number

    def known(self, thing: T) -> int | None:
        return self._numbers.get(thing)


class Index:
    """All words as of every event that was taken in."""

    def __init__(self) -> None:
        # What is used as an index has the width of one, so that it need not be converted.
        self.slot, self.begins, self.ends = Column(np.intp), Column(np.int64), Column(np.int64)
        self.length, self.day, self.time = Column(np.int32), Column(np.int32), Column(np.int64)
        self.kind, self.ident, self.group = Column(np.int8), Column(np.int64), Column(np.int32)
        self.author, self.entity, self.part = Column(np.int32), Column(np.int32), Column(np.int32)
        self.before, self.behind = Column(np.intp), Column(np.intp)
        self.authors, self.entities = Numbered[str](), Numbered[str]()
        self.groups = Numbered[tuple[str, str | None]]()
        self._postings = Postings()
        self._first_day, self._open, self._said = Column(np.int32), Column(np.int32), Column(np.int64)
        """By slot: the day on which it was first said, the row that is open, and a digest of what that says."""
        self._last: dict[tuple[Any, ...], int] = {}
        """By thread: its last slot."""
        for column in (self.kind, self.ident, self.group, self.author, self.entity, self.part):
            column.append(0)
        for column in (self.before, self.behind, self._first_day, self._said):
            column.append(NOBODY)
        self._open.append(CLOSED)

    # --- what is taken in --------------------------------------------------------------------------------------

    def put(self, wording: Wording) -> None:
        """Take in what one event said."""
        if wording.text is None:
            for slot in self.slots_of(wording.kind, wording.ident):
                self._end(slot, wording.seq)
            return
        if wording.ident == wording.seq:
            slot = self._new(wording)
        elif known := self.slots_of(wording.kind, wording.ident):
            slot = known[wording.part]
        else:
            return  # No table could hold how it began.
        day = wording.true_from.toordinal() if wording.true_from is not None else int(self._first_day.values[slot])
        said = blake2b(f"{day} {wording.text}".encode("utf-8", "replace"), digest_size=8).digest()
        digest = int.from_bytes(said, signed=True)
        if self._open.values[slot] != CLOSED and self._said.values[slot] == digest:
            return  # Something else about it changed.
        self._end(slot, wording.seq)
        self._open.set(slot, self.slot.size)
        self._said.set(slot, digest)
        self._row(slot, wording, words(wording.text), day)

    def slots_of(self, kind: str, ident: int) -> range:
        """The slots of a thing, one for each part; none if it has said nothing yet."""
        first, last = (int(np.searchsorted(self.ident.values, ident, side)) for side in ("left", "right"))
        return range(first, last) if first < last and self.kind.values[first] == KINDS.index(kind) else range(0)

    def _new(self, wording: Wording) -> int:
        slot = self.ident.size
        group = self.groups.number((wording.namespace, wording.audience))
        before = NOBODY
        if wording.thread is not None:
            thread = (wording.kind, group, *wording.thread)
            before = self._last.get(thread, NOBODY)
            self._last[thread] = slot
        if before != NOBODY:
            self.behind.set(before, slot)
        self.kind.append(KINDS.index(wording.kind))
        self.ident.append(wording.ident)
        self.group.append(group)
        self.author.append(self.authors.number(wording.author))
        self.entity.append(self.entities.number(wording.entity))
        self.part.append(wording.part)
        self.before.append(before)
        self.behind.append(NOBODY)
        self._first_day.append(wording.time.date().toordinal())
        self._open.append(CLOSED)
        self._said.append(0)
        return slot

    def _row(self, slot: int, wording: Wording, found: list[str], day: int) -> None:
        self._postings.put(self.slot.size, Counter(found))
        self.slot.append(slot)
        self.begins.append(wording.seq)
        self.ends.append(OPEN)
        self.length.append(len(found))
        self.day.append(day)
        self.time.append((wording.time - _EPOCH) // _MICROSECOND)

    def _end(self, slot: int, seq: int) -> None:
        row = int(self._open.values[slot])
        if row != CLOSED:
            self.ends.set(row, seq)
            self._open.set(slot, CLOSED)

    # --- what is asked -----------------------------------------------------------------------------------------

    def visible(self, seq: int, namespaces: tuple[str, ...], may_see: Callable[[str | None], bool]) -> Flags:
        """By row: whether it is valid at `seq`, and in a group of these namespaces that may be looked into."""
        valid = np.zeros(self.slot.size, np.bool_)
        begun = int(np.searchsorted(self.begins.values, seq, "right"))
        np.greater(self.ends.values[:begun], seq, out=valid[:begun])
        may = np.array([space in namespaces and may_see(audience) for space, audience in self.groups.things], np.bool_)
        if not may.all():
            valid[:begun] &= may[self.group.values][self.slot.values[:begun]]
        return valid

    def occurrences(self, word: str) -> tuple[Rows, Counts]:
        """The rows in which a word occurs, and how often in each."""
        return self._postings.occurrences(word)

    def time_of(self, row: int) -> datetime:
        """When what a row says was said."""
        return (_EPOCH + int(self.time.values[row]) * _MICROSECOND).replace(tzinfo=UTC)
