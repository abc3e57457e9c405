"""The questions about the log and its past that take longer than a read: one event whole, a table, a proof, SQL.

Rules:
* They are for auditors (`cli.api` has checked that). Even so, what they return is what this auditor may see; only
  digests and counts are of everything.
* Work that folds the log or runs somebody's SQL happens beside the live tables, never in them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bus.clock import EPOCH, Clock, from_ns
from bus.domain import log
from bus.errors import NotFound
from bus.log import Log
from bus.protocol import Progress
from projections import audit
from projections.reader import Reader
from projections.replay import Replay, compare, digests, fold_log
from projections.store import Store
from projections.views.history import cut, listed

Report = Callable[[Progress], None] | None
EFFECTS = 200
"""At most so many effects of an event are shown."""
BRIEF = 1_000
"""So many characters of the body of each."""


class Replays:
    """Handlers by request type, for `cli.api.Api`: handler(request, agent, seq, report) -> answer."""

    def __init__(self, log_: Log, store: Store, clock: Clock, scratch: Path) -> None:
        self._log = log_
        self._store = store
        self._clock = clock
        self._scratch = scratch
        self.handlers: dict[type, Callable[..., Any]] = {
            log.Show: self.show,
            log.Table: self.table,
            log.Tables: self.tables,
            log.Sql: self.sql,
        }

    async def show(self, request: log.Show, agent: str, seq: int, report: Report) -> log.EventDetail:
        """One event with its headers as they are stored, what caused it and what it caused."""
        record = await self._log.get(request.event) if request.event <= seq else None
        if record is None:
            raise NotFound("no such event", entity=f"#{request.event}", expected=f"at most #{seq}")

        def read(reader: Reader) -> log.EventDetail:
            event = listed(reader, f"seq = {request.event}", [], "asc", 1)[0]
            caused = ", ".join(map(str, event.causes)) or "null"
            return log.EventDetail(
                seq=seq,
                time=reader.time_of(seq),
                event=event,
                subject=record.subject,
                headers={str(cut(name)): str(cut(value)) for name, value in record.headers.items()},
                causes=listed(reader, f"seq in ({caused})", [], "asc", EFFECTS, BRIEF),
                effects=listed(reader, f"list_contains(causes, {request.event})", [], "asc", EFFECTS, BRIEF),
            )

        return await self._store.read(seq, agent, self._now(), read)

    async def table(self, request: log.Table, agent: str, seq: int, report: Report) -> log.Rows:
        """The rows of one table as they were, in the order of its key."""

        def read(reader: Reader) -> log.Rows:
            table = reader.at(request.table)
            key = ", ".join(f'"{name}"' for name in reader.schema.tables[request.table].key)
            columns = [name for name, *_ in reader.rows(f"describe select * from {table}")]
            offset = request.since or 0
            rows = reader.rows(
                f"select * from {table} order by {key} nulls first limit {request.limit} offset {offset}"
            )
            return log.Rows(
                seq=seq,
                time=reader.time_of(seq),
                columns=columns,
                rows=[[audit.plain(value) for value in row] for row in rows],
                next=offset + len(rows) if len(rows) == request.limit else None,
            )

        async with self._tables(request.from_log, seq, report) as store:
            return await store.read(seq, agent, self._now(), read)

    async def sql(self, request: log.Sql, agent: str, seq: int, report: Report) -> log.Rows:
        """SQL over the tables as they were, in a locked process of its own."""
        async with self._tables(request.from_log, seq, report) as store:
            result = await audit.ask(
                store,
                request.sql,
                agent=agent,
                seq=seq,
                limit=request.limit,
                timeout_s=request.timeout_s,
                directory=self._scratch,
            )
        return log.Rows(
            seq=seq, time=await self._time(seq), columns=result.columns, rows=result.rows, truncated=result.truncated
        )

    async def tables(self, request: log.Tables, agent: str, seq: int, report: Report) -> log.Moment:
        """Rows and digests of every table, from the tables, from the raw log, or both compared."""
        if not (request.from_log or request.verify):
            return await self._moment(seq, await digests(self._store, seq))
        async with self._fold(seq, report) as replay:
            if not request.verify:
                return await self._moment(seq, await digests(replay.store, seq), skipped=replay.skipped)
            tables = await compare(self._store, replay.store, seq)
            equal = all(table.equal for table in tables.values()) and not replay.broken
            return await self._moment(
                seq, tables, skipped=replay.skipped, equal=equal, seals=replay.seals, broken_seals=tuple(replay.broken)
            )

    async def _moment(self, seq: int, tables: dict[str, log.TableDigest], **known: Any) -> log.Moment:
        if "skipped" not in known:
            sql = "select count(*) from event where problem is not null and seq <= ?"
            known["skipped"] = (await self._store.read(seq, "", EPOCH, lambda reader: reader.rows(sql, [seq])))[0][0]
        return log.Moment(seq=seq, time=await self._time(seq), tables=tables, events=seq, **known)

    async def _time(self, seq: int) -> Any:
        return await self._store.read(seq, "", EPOCH, lambda reader: reader.time_of(seq))

    @asynccontextmanager
    async def _tables(self, from_log: bool, seq: int, report: Report) -> AsyncIterator[Store]:
        """The live tables, or scratch ones folded from the raw log."""
        if not from_log:
            yield self._store
            return
        async with self._fold(seq, report) as replay:
            yield replay.store

    @asynccontextmanager
    async def _fold(self, seq: int, report: Report) -> AsyncIterator[Replay]:
        def progress(done: int, total: int) -> None:
            if report is not None:
                report(Progress(done=done, total=total, what="events folded"))

        async with fold_log(self._log, self._store.schema, seq, self._scratch, progress) as replay:
            yield replay

    def _now(self) -> Any:
        return from_ns(self._clock.server_ns())
