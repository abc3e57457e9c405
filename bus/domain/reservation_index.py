"""The reservations of a namespace as decisions look for them: by who holds them, and by what they may overlap with.

Rules:
* Two patterns overlap only if their names meet place by place, up to the first `**` of either or the end of the shorter
  one, which may be a directory of the other (`bus.domain.globs`). Names that meet begin alike, up to a wildcard.
  Most are told apart by that without being looked at; the others are compared.
* What no request could have reserved, because it is too much or too complex, is not taken apart: it is compared always.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from bus.domain.globs import MAX_NAMES, Anything, Shape, is_normal, overlapping, shapes
from bus.domain.reservation import MOST_PATHS, Reservation, repository_of

FEW = 16
"""So many are rather compared than told apart by another name."""


class Holding(NamedTuple):
    """Asks for what an agent holds in a repository."""

    repository: str
    agent: str


class Overlapping(NamedTuple):
    """Asks for what overlaps with one of these normal patterns."""

    repository: str
    patterns: Collection[str]


Mark = tuple[str, str, str]
"""What a reservation is found by: of which kind, in which repository, and a text."""


class ReservationIndex:
    """Finds the reservations of one namespace."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, frozenset[str]]] = {}
        self._keys: dict[Mark, set[str]] = {}
        self._order: list[Mark] = []

    def put(self, key: str, held: Reservation | None) -> None:
        before = self._known.get(key)
        after = (held.agent, held.paths) if held is not None else None
        if before == after:
            return
        if before is not None:
            del self._known[key]
            for mark in set(_marks(key, *before)):
                self._discard(mark, key)
        if after is not None:
            self._known[key] = after
            for mark in set(_marks(key, *after)):
                self._add(mark, key)

    def _add(self, mark: Mark, key: str) -> None:
        if mark not in self._keys:
            self._keys[mark] = set()
            insort(self._order, mark)
        self._keys[mark].add(key)

    def _discard(self, mark: Mark, key: str) -> None:
        self._keys[mark].discard(key)
        if not self._keys[mark]:
            del self._keys[mark]
            del self._order[bisect_left(self._order, mark)]

    def find(self, asked: Holding | Overlapping) -> Collection[str]:
        if isinstance(asked, Holding):
            return self._keys.get(("agent", *asked), ())
        overlap = overlapping(asked.patterns)
        found: set[str] = set()
        for pattern in asked.patterns:
            for shape in shapes(pattern):
                found |= self._likely(asked.repository, shape)
        return [key for key in found if overlap(self._known[key][1])]

    def _likely(self, repository: str, shape: Shape) -> set[str]:
        found: set[str] | None = None
        for place, text in enumerate(_beginnings(shape)):
            fitting = self._fitting(repository, place, text) | self._ended(repository, place)
            found = fitting if found is None else found & fitting
            if len(found) <= FEW:
                break
        return self._ended(repository, MAX_NAMES) if found is None else found

    def _fitting(self, repository: str, place: int, text: str) -> set[str]:
        """What has a name at that place that this text begins with, or that begins with it."""
        first = (f"name {place}", repository, text)
        found: set[str] = set()
        for end in range(len(text)):
            found.update(self._keys.get((*first[:2], text[:end]), ()))
        for mark in islice(self._order, bisect_left(self._order, first), None):
            if mark[:2] != first[:2] or not mark[2].startswith(text):
                break
            found |= self._keys[mark]
        return found

    def _ended(self, repository: str, place: int) -> set[str]:
        """What has no more names at that place, or `**`."""
        return set().union(*(self._keys.get(("end", repository, str(end)), ()) for end in range(place + 1)))


def _marks(key: str, agent: str, paths: Collection[str]) -> Iterator[Mark]:
    repository = repository_of(key)
    yield "agent", repository, agent
    if len(paths) > MOST_PATHS or not all(map(is_normal, paths)):
        yield "end", repository, "0"
        return
    for pattern in paths:
        for shape in shapes(pattern):
            names = _beginnings(shape)
            for place, text in enumerate(names):
                yield f"name {place}", repository, text
            yield "end", repository, str(len(names))


def _beginnings(shape: Shape) -> list[str]:
    """How the names before the first `**` begin: up to a wildcard, or to the slash that ends a name without one."""
    found: list[str] = []
    for name in shape.names.items:
        if isinstance(name, Anything):
            break
        found.append(f"{name}/" if isinstance(name, str) else name.head)
    return found
