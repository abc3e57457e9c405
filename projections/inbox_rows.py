"""From the tables to what may stand in inboxes: what was written since the index was last looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from projections.batch import Batch
from projections.inbox_index import InboxIndex
from projections.slices import Chunks, Following
from projections.views.inbox import ADDRESSED
from projections.views.messages import MESSAGE, TOUCH, place_of

MEMBERS = "channel_members"
Rows = Mapping[str, Sequence[Sequence[Any]]]

_WANTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        MESSAGE.name: ("seq", "place", "agent", "audience"),
        TOUCH.name: ("seq", "message", "place"),
        ADDRESSED.name: ("seq", "agent", "reason", "place", "namespace"),
    }
)
"""By table: what is taken of a row."""
_PICK = {
    table.name: itemgetter(*(list(table.columns).index(column) for column in _WANTED[table.name]))
    for table in (MESSAGE, TOUCH, ADDRESSED)
}


class Inboxes(Following[InboxIndex]):
    """The index of all inboxes."""

    slice = 20_000

    def __init__(self) -> None:
        super().__init__(InboxIndex())

    def _read(self, chunks: Chunks, after: int, upto: int) -> int:
        self._take(_stored(chunks, after, upto), _ended(chunks, after, upto))
        return upto

    def _follow(self, batch: Batch) -> None:
        rows = {name: [*map(pick, batch.rows.get(name, ()))] for name, pick in _PICK.items()}
        self._take(rows | {MEMBERS: batch.rows.get(MEMBERS, ())}, batch.closes.get(MEMBERS, ()))

    def _take(self, rows: Rows, ended: Sequence[Sequence[Any]]) -> None:
        index = self._kept
        for seq, place, author, audience in rows[MESSAGE.name]:
            if audience is None:
                index.say(seq, place, author)
        for seq, message, place in rows[TOUCH.name]:
            index.touch(seq, message, place)
        for seq, agent, reason, place, namespace in rows[ADDRESSED.name]:
            index.address(seq, agent, reason, place, namespace)
        for channel, agent, seq in ended:
            index.leave(channel, agent, seq)
        for kid, begins, ends, namespace, channel, agent in rows[MEMBERS]:
            index.join(kid, agent, place_of("channel", namespace, channel), begins, ends)


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
