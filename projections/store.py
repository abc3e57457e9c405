"""The tables of one tenant in DuckDB. Only this file imports duckdb.

    Batch -> write (one transaction, fenced by the position) -> file -> read (a pool of cursors) -> Reader

Rules:
* One process owns the file, and in it one thread writes. Rows and position are committed together, so every event is
  in the tables exactly once. A write whose batch does not begin at the stored position is refused.
* The file is disposable: one that is damaged, was made by another version, or belongs to another log is set aside
  with a warning, and the tables are built anew from the log.
* Always fetch all rows of a statement on the writing connection: an open result makes the next flush fail.
* What no table can hold is replaced or left out, row by row; no event stops the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import duckdb
import structlog
from msgspec.structs import replace

from bus.errors import Defect, Unavailable
from bus.files import set_aside, sync
from bus.log import Log
from bus.model import Family
from bus.world import World
from projections import loading
from projections.batch import CHAIN_START, Batch, cleaned
from projections.cursors import READERS, Cursors
from projections.indexes import Indexes
from projections.query import quoted
from projections.reader import FETCH_ROWS, Reader, Stopped, stopped
from projections.schema import OPEN, FactView, ItemTable, Row, Schema, as_text
from projections.views import events

logger = structlog.get_logger(__name__)

FILE = "tables.duckdb"
MEMORY_MB = 256
INDEX_BYTES = 10
"""What the index of events takes for each of them, generously."""
ROOMLESS = 1_000_000
"""There is room for so many more in any case."""
READ_S = 30.0
ROW_GROUP = 16_384
"""The database skips rows by so many; of its own 122,880 it would read most to find one."""
MANY_ROWS = 500
"""So many rows of a table are given to the database as text: it reads text while Python goes on folding, but takes
values one by one only while no other thread runs Python."""
PIECE_ROWS, PIECE_CHARACTERS = 4_096, 4 << 20
"""It reads so much at a time: for reading a text it takes several times as much memory as the text."""
SqlError = duckdb.Error
DAMAGED = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)
REBUILD = "Restart the daemon; damaged tables are set aside and rebuilt from the log"
Options = dict[str, str | bool | int | float | list[str]]
# What the database raises for values that a column cannot hold.
UNFIT = (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError, OverflowError, TypeError, ValueError)

T = TypeVar("T")


class Store:
    """Tables in the file `path`, open until `close`. Raises Unavailable when another process has it open. `durable`
    False leaves writing to the operating system's leisure: for scratch files."""

    def __init__(self, path: Path, schema: Schema, *, durable: bool = True, memory_mb: int = MEMORY_MB) -> None:
        self.path = path
        self.schema = schema
        self.position = 0
        """Seq of the last event in the tables."""
        self.chain = CHAIN_START
        self.stored_ns = 0
        self.dropped = 0
        """Rows that no table could hold."""
        self._memory_mb = memory_mb
        self._room = 0
        # Readers are threads already; with two processors, a statement with threads of its own took no less time.
        self._options: Options = {"memory_limit": f"{memory_mb}MB", "threads": "1"}
        if not durable:
            self._options |= {"fsync_mode": "none", "checkpoint_threshold": "256MB"}
        self._con: Any = None
        self._appenders: dict[str, Any] = {}
        self._world: World | None = None
        self.indexes = Indexes(path.parent, schema)
        self._moved = anyio.Event()
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(READERS)
        self._cursors = Cursors()
        self._begin()

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, directory: Path, families: Iterable[Family], views: Iterable[FactView], log: Log | None = None
    ) -> AsyncIterator[Store]:
        """The store in `directory` for as long as the block runs. With `log`, a file that was made from another log, or
        from one that was longer, is set aside and the store begins empty."""
        schema = Schema(families, views, events.EVENT)
        store = await anyio.to_thread.run_sync(cls, directory / FILE, schema)
        try:
            if log is not None and (why := await loading.mismatch(store.chunks, store.position, log)):
                await anyio.to_thread.run_sync(store.restart, why)
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()

    # --- opening and closing -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if why := self._connect():
                self.restart(why)
        except (duckdb.Error, RuntimeError) as error:  # whatever a damaged file makes the database say
            if isinstance(error, duckdb.IOException) and "lock" in str(error):
                raise Unavailable(
                    "another process has the tables open",
                    code="locked",
                    entity=str(self.path),
                    hint="One daemon at a time can own them; stop the other one",
                ) from error
            self.restart(f"the file is damaged: {error}")

    def restart(self, why: str) -> None:
        """Set the file aside and begin with empty tables."""
        self._disconnect()
        aside = self.path.with_suffix(".aside")
        logger.warning("tables set aside; they are rebuilt from the log", reason=why, aside=str(aside))
        for suffix in ("", ".wal"):
            set_aside(Path(f"{self.path}{suffix}"), Path(f"{aside}{suffix}"))
        if why := self._connect():
            raise Defect("new tables are not as they should be", found=why)

    def _connect(self) -> str:
        """Open the file and make what is missing. -> why it cannot be used, or nothing."""
        # Only for a file that is attached can one say how large its row groups are.
        self._con = duckdb.connect(config=self._options | {"temp_directory": f"{self.path}.tmp"})
        self._all(f"attach {quoted(str(self.path))} as tables (row_group_size {ROW_GROUP})")
        self._all("use tables")
        known = self._all("select table_name from duckdb_tables() where not internal and database_name = 'tables'")
        if not known:
            self._create()
        elif ("meta",) not in known:
            return "the file is not one of Synbus"
        ((fingerprint, position, chain),) = self._all("select fingerprint, position, chain from meta")
        if fingerprint != self.schema.fingerprint:
            return "the tables were made by another version"
        self.position, self.chain = position, bytes.fromhex(chain)
        self._all("create index if not exists events on event (seq)")
        self._make_room()
        ((self.stored_ns,),) = self._all("select coalesce(max(stored_ns), 0) from event")
        self.indexes.news.know(dict(self._all(self.schema.newest)))
        self._appenders = {name: self._con.appender(name) for name in self.schema.tables}
        self._cursors.fill(self._cursor)
        return ""

    def _make_room(self) -> None:
        """Let the database have memory for the whole index of events, and for that of as many again: what has been used
        of an index stays in memory."""
        self._room = 2 * self.position
        self._all(f"set memory_limit = '{self._memory_mb + self._room * INDEX_BYTES // 1_000_000}MB'")

    def _create(self) -> None:
        self._con.execute("begin").fetchall()
        for table in self.schema.tables.values():
            self._con.execute(table.ddl).fetchall()
        self._con.execute("create table meta (fingerprint varchar, position bigint, chain varchar)").fetchall()
        self._all("insert into meta values (?, ?, ?)", [self.schema.fingerprint, 0, CHAIN_START.hex()])
        self._con.execute("commit").fetchall()

    def _disconnect(self) -> None:
        self._appenders = {}
        self._cursors.close()
        if self._con is not None:
            self._con.close()
            self._con = None

    async def close(self, *, keep: bool = True) -> None:
        """Finish what is being written, wait for readers (not for ever), close the file; whole, if it is to `keep`."""
        async with self._writing:
            if self._con is not None:
                with suppress(Unavailable, duckdb.Error):
                    await anyio.to_thread.run_sync(self._cursors.end)
                    # Said in so many words, because a database that is closed keeps its write-ahead log when that
                    # filled an index which has not been used since it was opened.
                    end = "checkpoint tables" if keep else "pragma disable_checkpoint_on_shutdown"
                    await anyio.to_thread.run_sync(self._all, end)
                await anyio.to_thread.run_sync(self._disconnect)

    async def replace_with(self, other: Path) -> None:
        """Put the file `other` (closed, same schema, same position) in place of this one. Readers wait meanwhile."""
        async with self._writing:
            await anyio.to_thread.run_sync(self._replace, other)

    def _replace(self, other: Path) -> None:
        position = self.position
        self._cursors.end()
        self._disconnect()
        Path(f"{self.path}.wal").unlink(missing_ok=True)
        sync(other)
        other.replace(self.path)
        if (why := self._connect()) or self.position != position:
            raise Defect("the new tables do not fit", expected=f"#{position}", found=why or f"#{self.position}")

    def _cursor(self) -> Any:
        """Another connection to the tables, for one thread at a time."""
        cursor = self._con.cursor()
        cursor.execute("use tables")
        return cursor

    def _all(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        return list(self._con.execute(sql, list(params) or None).fetchall())

    # --- writing -----------------------------------------------------------------------------------------------

    async def write(self, batch: Batch) -> None:
        """Commit one batch. Raises Unavailable when it could not be written now (no room, no memory); nothing of it is
        in the tables then. Raises Defect when it does not begin where the tables end, or the database gave up."""
        await anyio.to_thread.run_sync(self.commit, batch, limiter=self._writing)
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    def commit(self, batch: Batch) -> None:
        """`write` for a caller that is the only writer and runs in a thread of its own."""
        try:
            batch = self._put(batch)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException) and "orrupt" not in str(error):
                raise Unavailable("the tables cannot be written", code="storage", found=str(error)) from error
            raise Defect("the tables gave up", found=str(error), hint=REBUILD) from error
        self.indexes.written(batch)
        self.position, self.chain = batch.upto, batch.chain
        if self.position > self._room + ROOMLESS:
            self._make_room()
        self.stored_ns = max(self.stored_ns, batch.stored_ns)

    def _put(self, batch: Batch) -> Batch:
        """-> the batch with the rows that are in the tables now."""
        try:
            self._commit(batch)
        except UNFIT as error:
            logger.warning("rows had to be cleaned", after=batch.after, upto=batch.upto, error=str(error))
            batch = replace(batch, rows={name: self._fitting(name, cleaned(rows)) for name, rows in batch.rows.items()})
            self._commit(batch)
        return batch

    def _commit(self, batch: Batch) -> None:
        self._con.execute("begin").fetchall()
        try:
            for name, closes in batch.closes.items():
                self._end(name, closes)
            for name, found in batch.rows.items():
                self._insert(name, found)
            fence = "update meta set position = ?, chain = ? where position = ?"
            ((moved,),) = self._all(fence, [batch.upto, batch.chain.hex(), batch.after])
            if moved != 1:
                raise Defect(
                    "a batch does not continue the tables", expected=f"#{self.position}", found=f"#{batch.after}"
                )
            self._con.execute("commit").fetchall()
        except BaseException:
            self._con.execute("rollback").fetchall()
            for appender in self._appenders.values():
                appender.clear()
            raise

    def _insert(self, name: str, rows: Sequence[Row]) -> None:
        if len(rows) < MANY_ROWS:
            self._appenders[name].append_rows(rows)
            self._appenders[name].flush()
        elif len(rows) > PIECE_ROWS or len(text := as_text(rows)) > PIECE_CHARACTERS:
            half = len(rows) // 2
            self._insert(name, rows[:half])
            self._insert(name, rows[half:])
        else:
            self._all(self.schema.tables[name].insert, [[text]])

    def _end(self, name: str, closes: Sequence[Row]) -> None:
        """Close rows of earlier batches: (kid, seq_from, seq) of entities, (kid, item, seq) of items."""
        key = "item" if isinstance(self.schema.tables[name], ItemTable) else "seq_from"
        self._all(
            f'update "{name}" as t set seq_to = c.ends '
            "from (select unnest(?) as kid, unnest(?) as key, unnest(?) as ends) c "
            f"where t.kid = c.kid and t.{key} = c.key and t.seq_to = {OPEN}",
            [list(values) for values in zip(*closes, strict=True)],
        )

    def _fitting(self, name: str, rows: list[Row]) -> list[Row]:
        """The rows that the table accepts, found by halving; the others are dropped and counted."""
        appender = self._appenders[name]
        self._con.execute("begin").fetchall()
        try:
            appender.append_rows(rows)
            appender.flush()
        except UNFIT as error:
            appender.clear()
            if len(rows) == 1:
                self.dropped += 1
                row = repr(rows[0])[:500]
                logger.warning("a row was dropped: the table cannot hold it", table=name, row=row, error=str(error))
                return []
        else:
            return rows
        finally:
            self._con.execute("rollback").fetchall()
        half = len(rows) // 2
        return self._fitting(name, rows[:half]) + self._fitting(name, rows[half:])

    # --- reading -----------------------------------------------------------------------------------------------

    async def read(
        self,
        seq: int,
        agent: str,
        now: datetime,
        fn: Callable[[Reader], T],
        *,
        sees_all: bool = False,
        timeout_s: float = READ_S,
    ) -> T:
        """Run `fn` in a thread on the tables as of `seq`, as `agent` may see them. Raises Refused after `timeout_s`."""
        if seq > self.position:
            raise Unavailable("the tables have not caught up", code="lagging", expected=f"#{seq}", retry_after_s=1.0)
        reader = Reader(self.schema, seq, agent, now, self.indexes, self._world, sees_all=sees_all)
        with anyio.move_on_after(timeout_s):
            try:
                return await anyio.to_thread.run_sync(
                    self._run, reader, fn, abandon_on_cancel=True, limiter=self._reading
                )
            finally:
                reader.end()
        raise stopped(timeout_s)

    def _run(self, reader: Reader, fn: Callable[[Reader], T]) -> T:
        cursor = self._cursors.take(reader.check)
        reader.take(cursor)
        try:
            return fn(reader)
        except duckdb.InterruptException as error:
            raise Stopped from error
        except duckdb.Error as error:
            # An error of no particular kind is what a stream of rows raises when it meets a damaged block.
            if type(error) is not duckdb.Error and not isinstance(error, DAMAGED):
                raise
            raise Unavailable("the tables cannot be read", code="storage", found=str(error), hint=REBUILD) from error
        finally:
            reader.leave()
            self._cursors.give(cursor)

    async def index(self) -> None:
        """Take the next slice of what the tables contain into the indexes; wait for it, if there is none."""
        await self.reached(self.indexes.position + (not self.indexes.growing))
        await anyio.to_thread.run_sync(self.indexes.step, self.position, self.chunks)

    async def reached(self, seq: int) -> None:
        """Return when the tables contain event `seq`."""
        while self.position < seq:
            await self._moved.wait()

    # --- starting ----------------------------------------------------------------------------------------------

    async def load(self, world: World, remembers: loading.Remembers) -> None:
        """Put the world and the memory of requests in the state they had after event `position`. A file that turns out
        to be damaged is set aside; then both stay empty."""
        try:
            requests = await anyio.to_thread.run_sync(list, loading.recent_requests(self.chunks, self.position))
            await anyio.to_thread.run_sync(self.load_world, world)
        except duckdb.Error as error:
            await anyio.to_thread.run_sync(self.restart, f"the file is damaged: {error}")
            self._world, requests = world, []
        for agent, request, seq in requests:
            remembers.remember(agent, request, seq)

    def load_world(self, world: World) -> None:
        """Fill an empty world from the tables. From now on readers find entities by it (Reader.kid)."""
        loading.load_world(self.chunks, self.schema, world, self.position)
        self._world = world

    def chunks(self, sql: str) -> Iterator[list[Any]]:
        """The rows of a query over everything, in lists, by a cursor of its own: an open result would be in the way."""
        with self._cursor() as cursor:
            result = cursor.execute(sql)
            while rows := result.fetchmany(FETCH_ROWS):
                yield rows


def private_database(memory_mb: int) -> duckdb.DuckDBPyConnection:
    """An empty database in memory for a process of its own: one thread, no spilling to disk, no extensions."""
    extensions = ("autoinstall_known_extensions", "autoload_known_extensions", "allow_community_extensions")
    options: Options = {"threads": "1", "memory_limit": f"{memory_mb}MB", "temp_directory": ""}
    return duckdb.connect(":memory:", config=options | dict.fromkeys(extensions, "false"))
