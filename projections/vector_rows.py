"""From the tables to the vectors: what was upserted or deleted since the collections were last looked at.

Rules:
* The numbers are read from the events that brought them: no table repeats them.
* The vectors that memories were given by their authors are here too, those of each dimension by themselves: what has
  another dimension is of another model. One goes with what its entry says: it ends when the content changes or the
  entry does not hold any more, and is back when that is restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bus.domain.vector import DIMENSION, Collection, VectorUpserted, check_finite, check_numbers
from bus.errors import InvalidRequest
from projections.news import News
from projections.query import place_of_memories
from projections.slices import Chunks, Sliced
from projections.vectors import Collected, file_of

Place = tuple[str, str]
"""Namespace and collection."""

_upserted = msgspec.json.Decoder(VectorUpserted).decode


class _Brought(msgspec.Struct, frozen=True):
    """What is read of an event that gave a memory a vector."""

    embedding: tuple[float, ...] = ()


_brought = msgspec.json.Decoder(_Brought).decode


class _Vector(NamedTuple):
    """The last vector that a memory was given: a row of those of its dimension, and the event that brought it."""

    held: Collected
    row: int
    seq: int


class Embeddings(Sliced[dict[Place, Collected]]):
    """All collections. Graphs are kept in `directory`."""

    slice = 2_000

    def __init__(self, directory: Path, news: News) -> None:
        super().__init__({})
        self._directory = directory
        self._news = news
        self._of_memory: dict[int, _Vector] = {}
        """By memory: what it was given."""

    def _read(self, chunks: Chunks, after: int, upto: int) -> int:
        rows = _rows(chunks, after, upto) if self._news.may_be_in("vector", after) else []
        of_memories = _of_memories(chunks, after, upto) if self._news.may_be_in("memory", after) else []
        self._take(rows)
        self._bring(of_memories)
        return upto

    def grow(self) -> bool:
        """Bring some more rows into the graphs. -> whether there are more. For one thread at a time; it holds no lock,
        because others only read what is in already."""
        places = list(self._kept.items())
        more = [one.grow(file_of(self._directory, *place)) for place, one in places]
        return any(more)

    def _take(self, rows: Sequence[Sequence[Any]]) -> None:
        for kid, seq, namespace, collection, key, state, upserted, dimension, metric, data in rows:
            known = self._kept.get((namespace, collection))
            if known is None:
                known = self._kept[namespace, collection] = Collected(dimension, metric)
            known.keys[kid] = key
            if state != "active":
                known.put(kid, seq, None)
            elif upserted == seq:
                numbers = _upserted(data).numbers
                known.put(kid, seq, numbers if _comparable(numbers, collection, known) else None)

    def _bring(self, rows: Sequence[Sequence[Any]]) -> None:
        for kid, seq, state, embedded, data in rows:
            known = self._of_memory.get(kid)
            if known is not None and (state != "active" or embedded != known.seq) and known.held.has(kid):
                known.held.put(kid, seq, None)
            if state != "active" or embedded is None:
                continue
            numbers = _brought(data).embedding if data is not None else ()
            if is_embedding(numbers):
                place = place_of_memories(len(numbers))
                held = self._kept.setdefault(place, Collected(len(numbers), "cosine"))
                self._of_memory[kid] = _Vector(held, held.size, seq)
                held.put(kid, seq, numbers)
            elif known is not None and known.seq == embedded and not known.held.has(kid):
                known.held.put(kid, seq, known.held.row(known.row))


def is_embedding(numbers: Sequence[float]) -> bool:
    """Whether a memory's vector can be compared: in the log stands what an administrator wrote, too."""
    try:
        check_finite(numbers, "")
    except InvalidRequest:
        return False
    return len(numbers) <= DIMENSION


def _comparable(numbers: tuple[float, ...], collection: str, known: Collected) -> bool:
    """Whether these numbers may be in the collection: in the log stands what an administrator wrote, too."""
    try:
        check_numbers(numbers, collection, Collection(dimension=known.dimension, metric=known.metric))
    except InvalidRequest:
        return False
    return True


def _rows(chunks: Chunks, after: int, upto: int) -> list[Sequence[Any]]:
    """The versions of vectors that began with the events after one and up to another, in their order."""
    sql = f"""
        select v.kid, v.seq_from, v.namespace, v.collection, vector, v.state, upserted, dimension, metric, e.data
        from vector v join event e on e.seq = v.seq_from
        join collection c on c.namespace = v.namespace and c.collection = v.collection
        where v.seq_from > {after} and v.seq_from <= {upto} and e.seq > {after} and e.seq <= {upto}
        order by v.seq_from"""
    return [row for chunk in chunks(sql) for row in chunk]


def _of_memories(chunks: Chunks, after: int, upto: int) -> list[Sequence[Any]]:
    """The same of memories: which event brought the vector that each has, and that event if it is this one."""
    sql = f"""
        select m.kid, m.seq_from, m.state, m.embedded, e.data
        from memory m left join event e on e.seq = m.seq_from and e.seq = m.embedded
        where m.seq_from > {after} and m.seq_from <= {upto} order by m.seq_from"""
    return [row for chunk in chunks(sql) for row in chunk]
