"""From the tables to the vectors: what was upserted or deleted since the collections were last looked at.

Rules:
* Collections are filled in the order of the log, a slice at a time; a slice is read whole before any of it is taken in,
  so a reading that is stopped leaves nothing half done.
* The numbers are read from the events that brought them: no table repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from bus.domain.vector import Collection, VectorUpserted, check_numbers
from bus.errors import InvalidRequest
from projections.vectors import Collected, file_of

SLICE = 2_000
"""So many events are taken in at a time; whoever asks meanwhile waits for one slice at most."""
Place = tuple[str, str]
"""Namespace and collection."""
Chunks = Callable[[str], Iterator[Sequence[Sequence[Any]]]]
"""Runs a query over all rows and gives what it finds in lists."""

_upserted = msgspec.json.Decoder(VectorUpserted).decode


class Embeddings:
    """All collections, and the lock that everybody holds who fills them or looks into one. Graphs are kept in
    `directory`."""

    def __init__(self, directory: Path) -> None:
        self.position = 0
        """The last event that has been taken in."""
        self._directory = directory
        self._collections: dict[Place, Collected] = {}
        self._lock = Lock()

    @contextmanager
    def upto(self, seq: int, chunks: Chunks) -> Iterator[Mapping[Place, Collected]]:
        """The collections with everything up to `seq`, for the length of the block. The tables have to reach so far."""
        while not self.step(seq, chunks):
            pass
        with self._lock:
            yield self._collections

    def step(self, seq: int, chunks: Chunks) -> bool:
        """Take in the next slice. -> whether everything up to `seq` is in now."""
        with self._lock:
            after = self.position
            upto = min(seq, after + SLICE)
            if after < upto:
                self._take(_rows(chunks, after, upto))
                self.position = upto
            return self.position >= seq

    def grow(self) -> bool:
        """Bring some more rows into the graphs. -> whether there are more. For one thread at a time; it holds no lock,
        because others only read what is in already."""
        places = list(self._collections.items())
        more = [one.grow(file_of(self._directory, *place)) for place, one in places]
        return any(more)

    def _take(self, rows: Sequence[Sequence[Any]]) -> None:
        for kid, seq, namespace, collection, state, upserted, dimension, metric, data in rows:
            known = self._collections.get((namespace, collection))
            if known is None:
                known = self._collections[namespace, collection] = Collected(dimension, metric)
            if state != "active":
                known.put(kid, seq, None)
            elif upserted == seq:
                numbers = _upserted(data).numbers
                known.put(kid, seq, numbers if _comparable(numbers, collection, known) else None)


def _comparable(numbers: tuple[float, ...], collection: str, known: Collected) -> bool:
    """Whether these numbers may be in the collection: in the log stands what an administrator wrote, too."""
    try:
        check_numbers(numbers, collection, Collection(dimension=known.dimension, metric=known.metric))
    except InvalidRequest:
        return False
    return True


def _rows(chunks: Chunks, after: int, upto: int) -> list[Sequence[Any]]:
    """The versions of vectors that began with the events after one and up to another, in their order."""
    within = f"seq > {after} and seq <= {upto}"
    counted = [
        row for chunk in chunks(f"select count(*) from event where {within} and family = 'vector'") for row in chunk
    ]
    if counted == [(0,)]:
        return []
    sql = f"""
        select v.kid, v.seq_from, v.namespace, v.collection, v.state, v.upserted, c.dimension, c.metric, e.data
        from vector v join event e on e.seq = v.seq_from
        join collection c on c.namespace = v.namespace and c.collection = v.collection
        where v.seq_from > {after} and v.seq_from <= {upto} and e.{within.replace("and ", "and e.")}
        order by v.seq_from"""
    return [row for chunk in chunks(sql) for row in chunk]
