"""Which tables have got rows of late: what is derived from the others need not look into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class News:
    """Up to which event each table has got rows, as far as it was told. Whoever tells may be in another thread: what is
    told before the tables are said to reach so far is known in time."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._latest: dict[str, int] = {}

    def know(self, latest: Mapping[str, int | None]) -> None:
        """The tables are these, and the last rows of each that has any are of these events."""
        self._latest, self._since = {table: seq for table, seq in latest.items() if seq is not None}, 0

    def tell(self, tables: Iterable[str], after: int, upto: int) -> None:
        """Of the events after one and up to another, only these tables have rows."""
        self._latest |= dict.fromkeys(tables, upto)
        if self._since is None:
            self._since = after

    def may_be_in(self, table: str, after: int) -> bool:
        """Whether a table may have rows of events after that one."""
        return self._since is None or after < self._since or self._latest.get(table, 0) > after
