"""Which version each version of an entity came after, in memory: who asks for a history would pay a statement to find
the events it consists of.

Rules:
* An event begins one version of one entity at most, so one number for each event is enough for all tables.
* Only tables that everybody may read are followed: who may see a version of the others, their rows say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from projections.batch import Batch
from projections.columns import Column
from projections.schema import OPEN, Schema
from projections.slices import Chunks, Following


class Succession:
    """By seq, from 1 on: the event that began the version which this event ended (0: it ended none)."""

    def __init__(self) -> None:
        self._ended = Column(np.int64)

    def extend(self, versions: Iterable[tuple[int, int]], upto: int) -> None:
        """The versions (first event, event that ended it) which ended in the events up to that one."""
        after = self._ended.size
        ended = np.zeros(upto - after, np.int64)
        for begin, end in versions:
            ended[end - after - 1] = begin
        self._ended.extend(ended)

    def back(self, last: int, first: int) -> list[int]:
        """The events that began the versions of one entity, from its `last` one back to its `first`. It ends early
        where a version is in no table."""
        ended, seqs = self._ended.values, [last]
        while seqs[-1] > first and (seq := int(ended[seqs[-1] - 1])):
            seqs.append(seq)
        return seqs


class Versions(Following[Succession]):
    """The versions of all entities that everybody may see."""

    slice = 200_000

    def __init__(self, schema: Schema) -> None:
        super().__init__(Succession())
        self._tables = [table.name for table in schema.entities.values() if not table.has_audience]

    def _read(self, chunks: Chunks, after: int, upto: int) -> int:
        ended = f"where seq_to > {after} and seq_to <= {upto}"
        sql = " union all ".join(f'select seq_from, seq_to from "{name}" {ended}' for name in self._tables)
        self._kept.extend(((begin, end) for rows in chunks(sql) for begin, end in rows), upto)
        return upto

    def _follow(self, batch: Batch) -> None:
        self._kept.extend(self._ended(batch), batch.upto)

    def _ended(self, batch: Batch) -> Iterator[tuple[int, int]]:
        for name in self._tables:
            for _, begin, end in batch.closes.get(name, ()):
                yield begin, end
            for row in batch.rows.get(name, ()):
                if row[2] != OPEN:
                    yield row[1], row[2]
