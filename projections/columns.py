"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST = 256


class Column:
    """Values of one kind, each a number or, with `width`, so many numbers. Room doubles when it is used up."""

    def __init__(self, kind: Any, width: int | None = None) -> None:
        self._all = np.zeros(_FIRST if width is None else (_FIRST, width), kind)
        self.size = 0

    def append(self, value: Any) -> None:
        if self.size == len(self._all):
            self._all = np.concatenate((self._all, np.zeros_like(self._all)))
        self._all[self.size] = value
        self.size += 1

    def set(self, place: int, value: Any) -> None:
        self._all[place] = value

    @property
    def values(self) -> NDArray[Any]:
        return self._all[: self.size]
