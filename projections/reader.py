"""The tables as they were after one event, as far as one agent may see them.

Rules:
* Visibility is applied here and nowhere else: a query reads `reader.at(table)` or `reader.history(table)`, never a
  table by its name (the times of events apart, which tell nothing).
* Nothing a reader returns depends on what happened after its event: ends of rows that lie later read as open.
* A reader belongs to one thread at a time. `stop` may come from any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from bus.errors import InvalidRequest, Refused
from bus.world import World
from projections.schema import AUDIENCE, OPEN, Schema, Table

FETCH_ROWS = 10_000
STOP_AGAIN_S = 0.05


class Cursor(Protocol):
    """What a reader needs of a database connection."""

    def execute(self, query: str, parameters: Any = ..., /) -> Any: ...

    def interrupt(self) -> None: ...


class Stopped(Exception):
    """The reading was stopped from outside."""


class Reader:
    """Reads as of event `seq` (0: before the first) as `agent`. `now` is the server's time when the query was asked.
    `sees_all` is for proofs that compare whole tables; no answer to an agent is made with it."""

    def __init__(
        self,
        schema: Schema,
        seq: int,
        agent: str,
        now: datetime,
        *,
        sees_all: bool = False,
        world: World | None = None,
    ) -> None:
        self.schema = schema
        self.seq = seq
        self.agent = agent
        self.now = now
        self.sees_all = sees_all
        self._world = world
        self._cursor: Cursor | None = None
        self._lock = Lock()
        self._stopped = False

    # --- what queries use --------------------------------------------------------------------------------------

    def at(self, table: str) -> str:
        """A SQL subselect: the rows of `table` that are valid now and visible, without their end."""
        known = self._table(table)
        ends = " exclude (seq_to)" if known.has_end else ""
        return f'(select *{ends} from "{known.name}" where {known.valid_at(self.seq)}{self._visible(known)})'

    def history(self, table: str) -> str:
        """A SQL subselect: every visible row of `table` that began up to now. `seq_to` is open for what has not ended
        by now."""
        known = self._table(table)
        ends = f" replace (if(seq_to > {self.seq}, {OPEN}, seq_to) as seq_to)" if known.has_end else ""
        return f'(select *{ends} from "{known.name}" where {known.start} <= {self.seq}{self._visible(known)})'

    def visible(self) -> str:
        """A SQL predicate over a column `audience`: whether the agent may see the row."""
        me = self.agent.replace("'", "''")
        return "true" if self.sees_all else f"({AUDIENCE} is null or contains({AUDIENCE}, '|{me}|'))"

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        found: list[tuple[Any, ...]] = self._execute(sql, params).fetchall()
        return found

    def chunks(self, sql: str, params: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query in lists of at most FETCH_ROWS. To be read to the end before the next query."""
        result = self._execute(sql, params)
        while found := result.fetchmany(FETCH_ROWS):
            self.check()
            yield found

    def kid(self, table: str, namespace: str, key: str) -> int | None:
        """The 64-bit key of an entity (None: there was none): scanning for it is ten times faster than for its name."""
        known = self._table(table)
        entity = next((entity for entity in self.schema.entities.values() if entity is known), None)
        if entity is None:
            raise KeyError(f"{table} is no table of entities")
        if self._world is not None:
            entry = self._world.entry(entity.state_type, namespace, key)
            return entry.kid if entry is not None and entry.kid <= self.seq else None
        found = self.rows(f'select kid from {self.at(table)} where namespace = ? and "{table}" = ?', [namespace, key])
        return found[0][0] if found else None

    def time_of(self, seq: int) -> datetime | None:
        """When event `seq` was stored, by the server's clock (None: no such event)."""
        found = self.rows(f"select time from event where seq = {int(seq)}")
        return found[0][0].replace(tzinfo=UTC) if found else None

    def export(self, table: str, path: Path) -> None:
        """Write the rows of `at(table)` to a Parquet file."""
        quoted = str(path).replace("'", "''")
        self._execute(f"copy {self.at(table)} to '{quoted}' (format parquet)", ()).fetchall()

    # --- what the store uses -----------------------------------------------------------------------------------

    def take(self, cursor: Cursor) -> None:
        """From now on read through `cursor`."""
        with self._lock:
            self._cursor = cursor

    def leave(self) -> None:
        """The cursor may be given to somebody else."""
        with self._lock:
            self._cursor = None

    def stop(self) -> bool:
        """End the reading as soon as possible. -> whether it still goes on."""
        with self._lock:
            self._stopped = True
            if self._cursor is not None:
                self._cursor.interrupt()
            return self._cursor is not None

    def end(self) -> None:
        """Stop (on the event loop), again and again until the reading has ended: a statement may begin between the flag
        and the interrupt, and would not notice."""
        if self.stop():
            asyncio.get_running_loop().call_later(STOP_AGAIN_S, self.end)

    def _execute(self, sql: str, params: Sequence[Any]) -> Any:
        self.check()
        assert self._cursor is not None
        return self._cursor.execute(sql, list(params)) if params else self._cursor.execute(sql)

    def check(self) -> None:
        """Raise Stopped when the reading was stopped."""
        if self._stopped:
            raise Stopped

    def _table(self, name: str) -> Table:
        table = self.schema.tables.get(name)
        if table is None:
            raise InvalidRequest(
                "no such table",
                code="unknown_table",
                entity=f"table {name}",
                expected=", ".join(sorted(self.schema.tables)),
            )
        return table

    def _visible(self, table: Table) -> str:
        return f" and {self.visible()}" if table.has_audience else ""


def stopped(seconds: float) -> Refused:
    """The error for a read that took longer than it may."""
    return Refused(
        "the read took too long",
        code="timeout",
        expected=f"at most {seconds:g} s",
        hint="Ask for less: a filter, an earlier moment, a smaller page",
    )
