"""From the tables to what may stand in inboxes: what was written since the index was last looked at.

Rules:
* The index is filled in the order of the log, a slice at a time; a slice is read whole before any of it is taken in, so
  a reading that is stopped leaves nothing half done.
* Once somebody has asked, what is written to the tables is taken in as it is written, without reading it back. What
  does not continue the index is left alone, and read when somebody asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from threading import Lock
from types import MappingProxyType
from typing import Any

from projections.batch import Batch
from projections.inbox_index import InboxIndex
from projections.views.inbox import ADDRESSED
from projections.views.messages import MESSAGE, TOUCH, place_of

SLICE = 20_000
"""So many events are taken in at a time; whoever asks meanwhile waits for one slice at most."""
MEMBERS = "channel_members"
Rows = Mapping[str, Sequence[Sequence[Any]]]
Chunks = Callable[[str], Iterator[Sequence[Sequence[Any]]]]
"""Runs a query over all rows, whoever may see them, and gives what it finds in lists."""

_WANTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        MESSAGE.name: ("seq", "place", "agent", "audience"),
        TOUCH.name: ("seq", "place"),
        ADDRESSED.name: ("seq", "agent", "reason", "place", "namespace"),
    }
)
"""By table: what is taken of a row."""
_PICK = {
    table.name: itemgetter(*(list(table.columns).index(column) for column in _WANTED[table.name]))
    for table in (MESSAGE, TOUCH, ADDRESSED)
}


class Inboxes:
    """The index, and the lock that everybody holds who fills it or looks into it."""

    def __init__(self) -> None:
        self._index = InboxIndex()
        self._asked = False
        self._lock = Lock()

    @property
    def position(self) -> int:
        """The last event that has been taken in."""
        return self._index.position

    @contextmanager
    def upto(self, seq: int, chunks: Chunks) -> Iterator[InboxIndex]:
        """The index with everything up to `seq`, for the length of the block. The tables have to reach so far."""
        while not self.step(seq, chunks):
            pass
        with self._lock:
            yield self._index

    def step(self, seq: int, chunks: Chunks) -> bool:
        """Take in the next slice. -> whether everything up to `seq` is in now."""
        with self._lock:
            self._asked = True
            after = self._index.position
            upto = min(seq, after + SLICE)
            if after < upto:
                self._take(_stored(chunks, after, upto), _ended(chunks, after, upto), upto)
            return self._index.position >= seq

    def written(self, batch: Batch) -> None:
        """What the rows of a batch say is in the tables."""
        with self._lock:
            if self._asked and self._index.position == batch.after:
                rows = {name: [*map(pick, batch.rows.get(name, ()))] for name, pick in _PICK.items()}
                self._take(rows | {MEMBERS: batch.rows.get(MEMBERS, ())}, batch.closes.get(MEMBERS, ()), batch.upto)

    def _take(self, rows: Rows, ended: Sequence[Sequence[Any]], upto: int) -> None:
        index = self._index
        for seq, place, author, audience in rows[MESSAGE.name]:
            if audience is None:
                index.say(seq, place, author)
        for seq, place in rows[TOUCH.name]:
            index.touch(seq, place)
        for seq, agent, reason, place, namespace in rows[ADDRESSED.name]:
            index.address(seq, agent, reason, place, namespace)
        for channel, agent, seq in ended:
            index.leave(channel, agent, seq)
        for kid, begins, ends, namespace, channel, agent in rows[MEMBERS]:
            index.join(kid, agent, place_of("channel", namespace, channel), begins, ends)
        index.position = upto


def _stored(chunks: Chunks, after: int, upto: int) -> Rows:
    """What the events after one and up to another added, in the order of the log."""
    found: dict[str, list[Sequence[Any]]] = {}
    for table, columns in _WANTED.items():
        sql = f"select {', '.join(columns)} from {table} where seq > {after} and seq <= {upto} order by seq"
        found[table] = [row for chunk in chunks(sql) for row in chunk]
    sql = f"""
        select kid, seq_from, seq_to, namespace, channel, item from {MEMBERS}
        where seq_from > {after} and seq_from <= {upto} order by seq_from"""
    return {**found, MEMBERS: [row for chunk in chunks(sql) for row in chunk]}


def _ended(chunks: Chunks, after: int, upto: int) -> list[Sequence[Any]]:
    """The memberships of before that they ended."""
    sql = f"""
        select kid, item, seq_to from {MEMBERS}
        where seq_from <= {after} and seq_to > {after} and seq_to <= {upto}"""
    return [row for chunk in chunks(sql) for row in chunk]
