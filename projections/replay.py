"""Replay: the same tables made again from the log alone, and the proof that they are the same.

Rules:
* A replay folds any prefix of the log into scratch tables, with the same folds and the same schema as the live ones.
* The digest of a table at S is sha256 over its rows valid at S, ordered by their key, each as canonical MessagePack,
  without `seq_to` (which depends on what came later). It is equal on every projector whatever was folded since.
* A seal in the log is checked against the hash chain over the raw records before it.
* A rebuild happens beside the live tables; they are exchanged between two batches, at the same position.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import anyio.to_thread
import msgspec
import structlog

from bus.clock import EPOCH
from bus.domain.log import LogSealed, TableDigest
from bus.errors import Defect, InvalidRequest
from bus.events import Codec, Record
from bus.log import Log
from bus.model import Family
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections.batch import CHAIN_START, Projection
from projections.reader import Reader
from projections.schema import FactTable, Row, Schema
from projections.store import FILE, Store
from projections.worker import Worker

logger = structlog.get_logger(__name__)

BATCH_EVENTS = 10_000
BATCH_BYTES = 32 << 20
DIGEST_SEQS = 50_000
"""Fact tables are read for their digest in so many seqs at a time: they lie in that order already."""
DIGEST_S = 600.0
CHAIN_KEPT = 1 << 20
"""So many digests of the chain are kept for the next seal; a seal of an older event cannot be checked."""

Progress = Callable[[int, int], None]
"""Called on the event loop with (events folded, events to fold)."""

_encode = msgspec.msgpack.Encoder().encode


class Replay:
    """Folds a log from its first event into scratch tables at `path`, which must not exist; `to` goes on from where it
    is. `close` it."""

    def __init__(
        self, log: Log, schema: Schema, path: Path, families: Iterable[Family] = FAMILIES, codec: Codec = CODEC
    ) -> None:
        self.world = World(families)
        self.store = Store(path, schema, durable=False)
        self.seals = 0
        """Seals that were checked against the chain."""
        self.broken: list[int] = []
        """Seqs of seals that do not fit the log before them: it was changed after it was sealed."""
        self._log = log
        self._codec = codec
        self._rows = Projection(schema)
        self._digests = bytearray()
        self._digests_after = 0
        self._writer = ThreadPoolExecutor(1, "replay")
        self._written: Future[None] | None = None

    @property
    def skipped(self) -> int:
        """Events that this version could not read."""
        return self._rows.skipped.total()

    async def to(self, upto: int, progress: Progress | None = None) -> None:
        """Fold on until the tables contain event `upto`. Raises InvalidRequest when the log ends before it."""
        head = await self._log.head()
        if upto > head.seq:
            raise InvalidRequest("there is no such event yet", code="future", expected=f"at most #{head.seq}")
        waiting: list[Record] = []
        size = 0
        source = cast("AsyncGenerator[Sequence[Record], None]", self._log.read(self._rows.position, upto))
        async with aclosing(source) as chunks:
            async for records in chunks:
                waiting += records
                size += sum(len(record.data) for record in records)
                if len(waiting) < BATCH_EVENTS and size < BATCH_BYTES:
                    continue
                await anyio.to_thread.run_sync(self._fold, waiting)
                waiting, size = [], 0
                if progress is not None:
                    progress(self._rows.position, upto)
        await anyio.to_thread.run_sync(self._fold, waiting)
        await anyio.to_thread.run_sync(self._settle)
        if self.store.position != upto:
            raise Defect("the log has a gap", expected=f"#{upto}", found=f"#{self.store.position}")
        if progress is not None:
            progress(upto, upto)

    async def close(self, *, keep: bool = True) -> None:
        """Finish what is being written and close the file. See Store.close."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._writer.shutdown)
            await self.store.close(keep=keep)

    def _fold(self, records: Sequence[Record]) -> None:
        """Fold one batch while the one before it is written."""
        if not records:
            return
        decode, fold, rows = self._codec.decode, self.world.fold, self._rows
        # Nothing made here forms a cycle; looking for cycles among all of it would take a fifth of the time.
        gc.disable()
        try:
            events = [decode(record) for record in records]
            self._digests += b"".join(rows.take(records, events, [fold(event) for event in events]))
            for event in events:
                if isinstance(event.fact, LogSealed):
                    self._check(event.seq, event.fact)
        finally:
            gc.enable()
        del self._digests[: max(0, len(self._digests) // 32 - CHAIN_KEPT) * 32]
        self._digests_after = rows.position - len(self._digests) // 32
        batch = rows.cut()
        self._settle()
        self._written = self._writer.submit(self.store.commit, batch)

    def _settle(self) -> None:
        """Wait for the write that is under way; its error is raised here."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def _check(self, seq: int, seal: LogSealed) -> None:
        start = (seal.upto - self._digests_after - 1) * 32
        if 0 <= start < len(self._digests) and seal.upto < seq:
            self.seals += 1
            fits = self._digests[start : start + 32].hex() == seal.head
        elif seal.upto == 0:
            fits = seal.head == CHAIN_START.hex()
        else:
            fits = 0 < seal.upto < seq
            logger.warning("a seal is too old to be checked", seq=seq, upto=seal.upto)
        if not fits:
            self.broken.append(seq)


@asynccontextmanager
async def fold_log(
    log: Log, schema: Schema, upto: int, directory: Path, progress: Progress | None = None
) -> AsyncIterator[Replay]:
    """The tables as the raw log up to event `upto` makes them, in a scratch file below `directory` (which
    exists) that is removed at the end."""
    with TemporaryDirectory(prefix="replay-", dir=directory) as scratch:
        replay = await anyio.to_thread.run_sync(Replay, log, schema, Path(scratch) / FILE)
        try:
            await replay.to(upto, progress)
            yield replay
        finally:
            await replay.close(keep=False)


def digest(reader: Reader, table: str) -> TableDigest:
    """Number and digest of the rows of `table` that are valid at the reader's moment."""
    known = reader.schema.tables[table]
    total, count = sha256(), 0
    for chunk in _ordered(reader, table, isinstance(known, FactTable)):
        count += len(chunk)
        total.update(b"".join([_encode(row) for row in chunk]))
    return TableDigest(rows=count, digest=total.hexdigest())


def _ordered(reader: Reader, table: str, is_fact: bool) -> Iterator[list[Row]]:
    if not is_fact:
        order = ", ".join(reader.schema.tables[table].key)
        yield from reader.chunks(f"select * from {reader.at(table)} order by {order}")
        return
    for start in range(0, reader.seq, DIGEST_SEQS):
        within = f"seq > {start} and seq <= {start + DIGEST_SEQS}"
        yield from reader.chunks(f"select * from {reader.at(table)} where {within} order by all nulls first")


async def digests(store: Store, seq: int) -> dict[str, TableDigest]:
    """Rows and digest of every table as of `seq`."""
    found: dict[str, TableDigest] = {}
    for table in store.schema.tables:

        def one(reader: Reader, table: str = table) -> TableDigest:
            return digest(reader, table)

        found[table] = await store.read(seq, "", EPOCH, one, sees_all=True, timeout_s=DIGEST_S)
    return found


async def compare(live: Store, scratch: Store, seq: int) -> dict[str, TableDigest]:
    """The digests of the live tables as of `seq` with those of the scratch tables beside them."""
    ours, theirs = await digests(live, seq), await digests(scratch, seq)
    return {
        name: TableDigest(
            rows=one.rows,
            digest=one.digest,
            equal=one.digest == theirs[name].digest,
            log_rows=theirs[name].rows,
            log_digest=theirs[name].digest,
        )
        for name, one in ours.items()
    }


async def rebuild(worker: Worker, log: Log, progress: Progress | None = None) -> None:
    """Make the live tables anew from the log and put them in place. Queries go on meanwhile. The world in memory is not
    touched: a daemon that loaded it from tables that were wrong has to be restarted afterwards."""
    store = worker.store
    scratch = fold_log(log, store.schema, store.position, store.path.parent, progress)
    async with scratch as replay, worker.paused() as position:
        await replay.to(position)
        if replay.store.chain != store.chain:
            raise Defect(
                "the log is not the one that the tables were made from",
                expected=store.chain.hex(),
                found=replay.store.chain.hex(),
                hint="Compare it with a backup; `bus verify` checks its seals",
            )
        await replay.close()
        await store.replace_with(replay.store.path)
