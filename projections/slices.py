"""Filling in slices: how what is derived from the tables, and kept in memory, follows them.

Rules:
* It is filled in the order of the log, a slice at a time; a slice is read whole before any of it is taken in, so a
  reading that is stopped leaves nothing half done.
* Whoever fills it, or looks into it, holds its lock.
* What follows the tables takes in what is written to them as it is written, without reading it back, once somebody has
  asked. What does not continue it is left alone, and read when somebody asks again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar, Generic, TypeVar

from projections.batch import Batch

Chunks = Callable[[str], Iterator[Sequence[Sequence[Any]]]]
"""Runs a query over all rows, whoever may see them, and gives what it finds in lists."""
T = TypeVar("T")


class Sliced(ABC, Generic[T]):
    """Something that is `kept` in memory, and everything up to event `position` is in it."""

    slice: ClassVar[int]
    """So many events are taken in at a time; whoever asks meanwhile waits for one slice at most."""

    def __init__(self, kept: T) -> None:
        self.position = 0
        self._kept = kept
        self._asked = False
        self._lock = Lock()

    @contextmanager
    def upto(self, seq: int, chunks: Chunks) -> Iterator[T]:
        """What is kept, with everything up to `seq`, for the length of the block. The tables have to reach so far."""
        while not self.step(seq, chunks):
            pass
        with self._lock:
            yield self._kept

    def step(self, seq: int, chunks: Chunks) -> bool:
        """Take in the next slice. -> whether everything up to `seq` is in now."""
        with self._lock:
            self._asked = True
            upto = min(seq, self.position + self.slice)
            if self.position < upto:
                self.position = self._read(chunks, self.position, upto)
            return self.position >= seq

    @abstractmethod
    def _read(self, chunks: Chunks, after: int, upto: int) -> int:
        """Take in what the tables got by the events after one and up to another. -> up to which it is: a slice may be
        cut short. The lock is held."""


class Following(Sliced[T]):
    """Something that also takes in what is being written."""

    def written(self, batch: Batch) -> None:
        """What the rows of a batch say is in the tables."""
        with self._lock:
            if self._asked and self.position == batch.after:
                self._follow(batch)
                self.position = batch.upto

    @abstractmethod
    def _follow(self, batch: Batch) -> None:
        """Take in a batch. The lock is held."""
