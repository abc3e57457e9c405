"""Columns: arrays that grow at their end, and rows turned into the columns that the database takes in at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST = 256
_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
NEVER = int(np.iinfo(np.int64).min)
"""What numpy takes for no time."""


class Column:
    """Values of one kind, each a number or, with `width`, so many numbers. Room doubles when it is used up; room that
    was never written to takes no memory."""

    def __init__(self, kind: Any, width: int | None = None, *, room: int = _FIRST) -> None:
        self._all = np.zeros(room if width is None else (room, width), kind)
        self.size = 0

    def append(self, value: Any) -> None:
        if self.size == len(self._all):
            self._grow(self.size + 1)
        self._all[self.size] = value
        self.size += 1

    def extend(self, values: Any) -> None:
        size = self.size + len(values)
        if size > len(self._all):
            self._grow(size)
        self._all[self.size : size] = values
        self.size = size

    def _grow(self, size: int) -> None:
        grown = np.zeros((max(size, 2 * len(self._all)), *self._all.shape[1:]), self._all.dtype)
        grown[: self.size] = self.values
        self._all = grown

    def set(self, place: int, value: Any) -> None:
        self._all[place] = value

    @property
    def values(self) -> NDArray[Any]:
        return self._all[: self.size]


def columns(rows: Sequence[Sequence[Any]], kinds: Sequence[str]) -> dict[str, Any]:
    """Rows as arrays, one for each column, whose SQL types are `kinds`. Raises OverflowError, TypeError or ValueError
    for a value that is none of its type."""
    made = zip(zip(*rows, strict=True), kinds, strict=True)
    return {f"c{place}": _MAKE.get(kind, _objects)(values) for place, (values, kind) in enumerate(made)}


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    made = np.empty(len(values), np.object_)
    made[:] = values
    return made


def times(values: Sequence[datetime | None]) -> NDArray[Any]:
    """Naive times as microseconds."""
    # Ten times as fast as what numpy does with a list of them.
    made = [NEVER if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    return np.array(made, np.int64).view("datetime64[us]")


def _numbers(kind: Any) -> Callable[[Sequence[Any]], NDArray[Any]]:
    def made(values: Sequence[Any]) -> NDArray[Any]:
        if None not in values:
            return np.array(values, kind)
        missing = [value is None for value in values]
        return np.ma.masked_array(np.array([0 if value is None else value for value in values], kind), missing)

    return made


_MAKE: Mapping[str, Callable[[Sequence[Any]], NDArray[Any]]] = MappingProxyType(
    {
        "BIGINT": _numbers(np.int64),
        "DOUBLE": _numbers(np.float64),
        "BOOLEAN": _numbers(np.bool_),
        "TIMESTAMP": times,
    }
)
