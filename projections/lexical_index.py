"""The words of everything that can be recalled, in memory: which text has which words, and what stands next to it.

    slot     one thing that can be recalled (an entry of the memory, a message, an entry of a journal)
    row      one wording of a slot, valid from a seq until before another
    posting  a word occurs so many times in a row
    thread   slots that follow one another: a channel, a conversation, a subject, a journal

Rules:
* It is derived from the tables and is put together in the order of the log. What a later event adds, or ends, makes no
  difference to what is found as of an earlier seq.
* The slots of a thread have the same readers, so what stands next to a slot tells nobody of what they may not see.
* A group is a namespace and an audience; who may look into a group is asked of the reader, never decided here.
* Everything here is pure: it reads nothing, and knows no clock and no lock.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from projections.columns import Column
from projections.lexical import words
from projections.schema import OPEN

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
KINDS = ("memory", "message", "journal")


class Wording(NamedTuple):
    """What one event made a thing say. `ident` is the seq of its first event; `text`, by which it is found, is None
    when it says nothing any more; `shown` is what people are shown of it."""

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
    shown: str = ""
    true_from: date | None = None
    """When it began to be true, if that was said. Otherwise it is of the day on which it was first said."""


class Said(NamedTuple):
    """What is kept of a wording, to be shown."""

    seq: int
    time: datetime
    text: str


class _Postings(NamedTuple):
    """In which rows a word occurs, and how often."""

    rows: array[int]
    counts: array[int]


class Index:
    """All words as of every event up to `position`."""

    def __init__(self) -> None:
        self.position = 0
        self.slot, self.begins, self.ends = Column(np.int32), Column(np.int64), Column(np.int64)
        self.length, self.day = Column(np.int64), Column(np.int32)
        self.kind, self.ident, self.group = Column(np.int8), Column(np.int64), Column(np.int32)
        self.author, self.before, self.behind = Column(np.int32), Column(np.int32), Column(np.int32)
        self.authors: dict[str, int] = {}
        self.said: list[Said] = []
        """By row."""
        self.places: list[tuple[str, str]] = []
        """By slot: the namespace and the key of its entity."""
        self._postings: dict[str, _Postings] = {}
        self._slots: dict[tuple[str, int], int] = {}
        self._days: dict[int, date] = {}
        self._open: dict[int, tuple[int, bytes]] = {}
        """By slot: its open row, and a digest of what that says."""
        self._groups: dict[tuple[str, str | None], int] = {}
        self._last: dict[tuple[Any, ...], int] = {}
        """By thread: its last slot."""

    # --- what is taken in --------------------------------------------------------------------------------------

    def put(self, wording: Wording) -> None:
        """Take in what one event said."""
        slot = self._slots.get((wording.kind, wording.ident))
        if wording.text is None:
            if slot is not None:
                self._end(slot, wording.seq)
            return
        if slot is None:
            slot = self._new(wording)
        day = (wording.true_from or self._days.setdefault(slot, wording.time.date())).toordinal()
        said = blake2b(f"{day} {wording.text}".encode("utf-8", "replace"), digest_size=16).digest()
        known = self._open.get(slot)
        if known is not None and known[1] == said:
            return  # Something else about it changed.
        self._end(slot, wording.seq)
        self._open[slot] = (self.slot.size, said)
        self._row(slot, wording, words(wording.text), day)

    def _new(self, wording: Wording) -> int:
        slot = self._slots[(wording.kind, wording.ident)] = self.ident.size
        place = (wording.namespace, wording.audience)
        group = self._groups.setdefault(place, len(self._groups))
        before = -1
        if wording.thread is not None:
            thread = (wording.kind, group, *wording.thread)
            before = self._last.get(thread, -1)
            self._last[thread] = slot
        if before >= 0:
            self.behind.set(before, slot)
        self.kind.append(KINDS.index(wording.kind))
        self.ident.append(wording.ident)
        self.places.append((wording.namespace, wording.entity))
        self.group.append(group)
        self.author.append(self.authors.setdefault(wording.author, len(self.authors)))
        self.before.append(before)
        self.behind.append(-1)
        return slot

    def _row(self, slot: int, wording: Wording, found: list[str], day: int) -> None:
        row = self.slot.size
        counts = Counter(found)
        for word, count in counts.items():
            postings = self._postings.get(word)
            if postings is None:
                postings = self._postings[word] = _Postings(array("i"), array("i"))
            postings.rows.append(row)
            postings.counts.append(count)
        self.slot.append(slot)
        self.said.append(Said(wording.seq, wording.time, wording.shown))
        self.begins.append(wording.seq)
        self.ends.append(OPEN)
        self.length.append(counts.total())
        self.day.append(day)

    def _end(self, slot: int, seq: int) -> None:
        known = self._open.pop(slot, None)
        if known is not None:
            self.ends.set(known[0], seq)

    # --- what is asked -----------------------------------------------------------------------------------------

    def visible(self, seq: int, namespaces: tuple[str, ...], may_see: Callable[[str | None], bool]) -> Flags:
        """By row: whether it is valid at `seq`, and in a group of these namespaces that may be looked into."""
        open_to = [namespace in namespaces and may_see(audience) for namespace, audience in self._groups]
        may = np.array(open_to, np.bool_)[self.group.values] if open_to else np.zeros(0, np.bool_)
        valid: Flags = (self.begins.values <= seq) & (self.ends.values > seq) & may[self.slot.values]
        return valid

    def occurrences(self, word: str) -> tuple[Ints, Ints]:
        """The rows in which a word occurs, and how often in each."""
        postings = self._postings.get(word)
        if postings is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        # Copied: as long as somebody looks at an array it cannot grow.
        return np.array(postings.rows, np.int64), np.array(postings.counts, np.int64)

    def neighbours(self) -> tuple[Ints, Ints]:
        """By slot, the one before it in its thread and the one behind it. The last place stands for none of them, and
        has itself on both sides."""
        none = np.array([-1], np.int32)
        return np.concatenate((self.before.values, none)), np.concatenate((self.behind.values, none))
