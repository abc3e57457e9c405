"""Entities in order: by rank (those waiting to be chosen, all or those an index finds) and by deadline. All of it
follows from their states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import takewhile
from typing import Any

from sortedcontainers import SortedList

from bus.model import Family, Index, State

Place = tuple[type[State], str, str]
"""(state type, namespace, key): the name of an entity inside a tenant."""


class Orders:
    """The entities of those families that rank theirs or give them deadlines."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {family.state: family for family in families if family.rank or family.deadline}
        self._ranked: dict[tuple[type[State], str], Any] = {}
        self._deadlines: Any = SortedList(key=lambda item: item[0])
        self._rank_of: dict[Place, tuple[Any, str]] = {}
        self._indexes: dict[tuple[type[State], str], Index] = {}
        self._deadline_of: dict[Place, tuple[datetime, Place]] = {}

    def put(self, place: Place, state: Any) -> None:
        """Sort the entity in by its present state (None: it does not exist any more)."""
        family = self._families.get(place[0])
        if family is None:
            return
        if family.rank is not None:
            rank = family.rank(state) if state is not None else None
            self._put_rank(place, None if rank is None else (rank, place[2]))
            if family.index is not None:
                index = self._indexes.get(place[:2])
                if index is None:
                    index = self._indexes[place[:2]] = family.index()
                index.put(place[2], None if rank is None else state)
        if family.deadline is not None:
            deadline = family.deadline(state) if state is not None else None
            self._put_deadline(place, None if deadline is None else (deadline, place))

    def _put_rank(self, place: Place, item: tuple[Any, str] | None) -> None:
        known = self._rank_of.get(place)
        if known == item:
            return
        ranked = self._ranked.setdefault(place[:2], SortedList())
        if known is not None:
            ranked.remove(known)
            del self._rank_of[place]
        if item is not None:
            ranked.add(item)
            self._rank_of[place] = item

    def _put_deadline(self, place: Place, item: tuple[datetime, Place] | None) -> None:
        known = self._deadline_of.get(place)
        if known == item:
            return
        if known is not None:
            self._deadlines.remove(known)
            del self._deadline_of[place]
        if item is not None:
            self._deadlines.add(item)
            self._deadline_of[place] = item

    def ranked(self, state: type[State], namespace: str, rank: Any = None) -> Iterator[tuple[Any, str]]:
        """(rank, key) of the entities that have a rank, or this one, lowest first."""
        known = self._ranked.get((state, namespace), ())
        if rank is None or not known:
            yield from known
        else:
            yield from takewhile(lambda item: item[0] == rank, known.irange((rank, "")))

    def found(self, state: type[State], namespace: str, asked: Any) -> Iterator[tuple[Any, str]]:
        """(rank, key) of the entities that the index of their family finds, lowest first."""
        index = self._indexes.get((state, namespace))
        if index is not None:
            yield from sorted([self._rank_of[(state, namespace, key)] for key in index.find(asked)])

    def due(self, now: datetime) -> Iterator[tuple[datetime, Place]]:
        """(deadline, place) of the entities whose deadline is not after `now`, earliest first."""
        yield from takewhile(lambda item: item[0] <= now, self._deadlines)

    def next_deadline(self) -> datetime | None:
        return self._deadlines[0][0] if self._deadlines else None
