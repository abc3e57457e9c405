"""The cursors by which tables are read: so many threads read at a time.

Rule: while a file is exchanged, and after it was closed, there are none; who wants one waits, but not for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from bus.errors import Unavailable

READERS = 2
CLOSE_S = 5.0
WAIT_S = 0.05


class Cursors:
    """A pool of READERS cursors, empty until `fill`."""

    def __init__(self) -> None:
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def fill(self, make: Callable[[], Any]) -> None:
        for _ in range(READERS):
            self._idle.put(make())

    def take(self, check: Callable[[], None]) -> Any:
        """An idle cursor. `check` is called now and then while there is none, and may raise."""
        while True:
            with suppress(Empty):
                return self._idle.get(timeout=WAIT_S)
            check()

    def give(self, cursor: Any) -> None:
        """Take a cursor back."""
        self._idle.put(cursor)

    def end(self) -> None:
        """Return when nobody reads, and let nobody begin. Raises Unavailable when somebody goes on reading."""
        idle: list[Any] = []
        try:
            while len(idle) < READERS:
                idle.append(self._idle.get(timeout=CLOSE_S))
        except Empty:
            for cursor in idle:
                self._idle.put(cursor)
            raise Unavailable("the tables are being read", code="busy", retry_after_s=CLOSE_S) from None
        for cursor in idle:
            cursor.close()

    def close(self) -> None:
        """Close those that are idle."""
        while not self._idle.empty():
            self._idle.get().close()
