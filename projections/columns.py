"""Columns: arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST = 256


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
