"""The worker: follows the log, folds each event into the world and into rows, and writes the rows in batches.

    log.tail -> decode -> fold (world) -> rows -> [gathering batch] -> store.write (thread) -> whoever waits

Rules:
* Following and writing run side by side. What is gathered is written as soon as the writer has rested; what may gather
  meanwhile is bounded, in events and in bytes. Far behind, batches are large, because a commit costs the same for many.
* The world runs ahead of the tables by what is being written. Queries are answered from the tables only.
* No event stops it: what cannot be read is counted and kept, what a fold fails on is logged and changes nothing. A
  write that fails for want of room or memory is tried again until it succeeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog

from bus.clock import EPOCH, Clock
from bus.errors import Unavailable
from bus.events import Codec, Event
from bus.log import Chunk, Log
from bus.operation import CODEC
from bus.world import Change
from projections import loading
from projections.batch import Batch, Projection
from projections.reader import Reader
from projections.store import Store

logger = structlog.get_logger(__name__)

LIVE_EVENTS = 1_000
"""Most events of a batch while the worker keeps up. Further behind than this, it is catching up."""
BEHIND_EVENTS = 10_000
BATCH_BYTES = 32 << 20
"""Most bytes of bodies that gather for one batch, whatever their number."""
SLICE_EVENTS = 200
"""After so many events everything else on the loop gets its turn."""
GATHER_S = 0.25
"""A batch that is to become large waits at most so long."""
REST_RATIO = 9
"""While events come faster than they are written, the writer rests so many times as long as its commit took: commits
back to back would take a core and the disk from the decisions, and a large batch costs hardly more than a small one.
An event that comes alone never waits, and whoever waits for an event to be in the tables ends the rest."""
REST_MAX_S = 0.2
RETRY_S = 0.1
RETRY_MAX_S = 5.0

T = TypeVar("T")
Written = Callable[[Sequence[Event]], None]


class Worker:
    """Keeps `store` up with `log`. `fold` takes an event into the world and says what it changed."""

    def __init__(
        self, log: Log, store: Store, fold: Callable[[Event], Change | None], clock: Clock, codec: Codec = CODEC
    ) -> None:
        self.store = store
        self.failed: Counter[str] = Counter()
        """Events that a fold failed on: `world`, or the name of the view's first table."""
        self.problem: str | None = None
        """Why the last write failed, until one succeeds."""
        self._log = log
        self._fold = fold
        self._clock = clock
        self._codec = codec
        self._gathered = Projection(store.schema, store.position, store.stored_ns, store.chain)
        self._pending = 0
        self._head = store.position
        self._news = anyio.Event()
        self._room = anyio.Event()
        self._gate = anyio.Lock()
        self._awaited = 0
        self._hurry = anyio.Event()
        self._written: list[Written] = []

    # --- what others see ---------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Seq of the last event in the tables."""
        return self.store.position

    @property
    def lag_seq(self) -> int:
        """How many events of the log, as far as it is known, are not in the tables yet."""
        return max(0, self._head - self.store.position)

    @property
    def chain(self) -> tuple[int, str]:
        """The hash chain as far as it is stored: (seq of its last event, digest in hex)."""
        return self.store.position, self.store.chain.hex()

    @property
    def skipped(self) -> Counter[str]:
        """How many events cannot be read by this version, by reason."""
        return self._gathered.skipped

    @property
    def skipped_total(self) -> int:
        return self._gathered.skipped.total()

    def on_written(self, callback: Written) -> None:
        """Call `callback` on the event loop with the events of every batch, once the tables contain them."""
        self._written.append(callback)

    async def reached(self, seq: int, timeout_s: float | None = None) -> bool:
        """Wait until the tables contain event `seq`. -> whether they do (False: the time was up)."""
        self._awaited += 1
        self._hurry.set()
        try:
            with anyio.move_on_after(timeout_s):
                await self.store.reached(seq)
                return True
            return False
        finally:
            self._awaited -= 1

    async def read(self, seq: int, agent: str, now: datetime, fn: Callable[[Reader], T]) -> T:
        """See Store.read."""
        return await self.store.read(seq, agent, now, fn)

    async def seq_at(self, time_ns: int) -> int:
        """See Reader.seq_at; as far as the tables reach."""
        return await self.store.read(self.position, "", EPOCH, lambda reader: reader.seq_at(time_ns))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[int]:
        """No batch is written while the block runs; it begins with the position of the tables."""
        async with self._gate:
            yield self.store.position

    # --- following ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow and write, for ever, from where the tables end now."""
        store = self.store
        self._gathered = Projection(store.schema, store.position, store.stored_ns, store.chain)
        skipped = await anyio.to_thread.run_sync(loading.skipped, self.store.chunks)
        for reason, count in skipped.items():
            self._gathered.skip(reason, count)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            tasks.start_soon(self._write)
            tasks.start_soon(self._index)

    async def _follow(self) -> None:
        tail = cast("AsyncGenerator[Chunk, None]", self._log.tail(self._gathered.position))
        async with aclosing(tail) as chunks:
            async for chunk in chunks:
                await self._take(chunk)

    async def _take(self, chunk: Chunk) -> None:
        records = chunk.records
        self._pending = chunk.pending
        self._head = max(self._head, records[-1].seq + chunk.pending)
        self._clock.advance(records[-1].time_ns)
        for start in range(0, len(records), SLICE_EVENTS):
            while self._is_full():
                self._room = anyio.Event()
                await self._room.wait()
            part = records[start : start + SLICE_EVENTS]
            events = [self._codec.decode(record) for record in part]
            self._gathered.take(part, events, [self._change(event) for event in events])
            self._news.set()
            await anyio.lowlevel.checkpoint()

    def _change(self, event: Event) -> Change | None:
        try:
            return self._fold(event)
        except Exception:  # one event must not stop the worker, whatever it makes of a defect of ours
            self.failed["world"] += 1
            logger.exception("event could not be folded", seq=event.seq, type=event.type)
            return None

    @property
    def _most(self) -> int:
        return LIVE_EVENTS if self._pending < LIVE_EVENTS else BEHIND_EVENTS

    def _is_full(self) -> bool:
        return len(self._gathered.events) >= self._most or self._gathered.bytes >= BATCH_BYTES

    async def _index(self) -> None:
        """Keep the words of everything up with the tables, so that a recall finds little left to take in. While they
        catch up with the log nobody is answered, so they come first."""
        while True:
            while self.lag_seq > LIVE_EVENTS:
                await self.store.reached(self._head)
            try:
                await self.store.index()
            except Exception:  # Whoever recalls takes in what is missing, and is told what is wrong.
                logger.exception("words could not be taken in")
                await anyio.sleep(RETRY_MAX_S)

    # --- writing -----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            await self._gather()
            async with self._gate:
                batch = self._gathered.cut()
                self._room.set()
                start_ns = self._clock.monotonic_ns()
                await self._store(batch)
                took_s = (self._clock.monotonic_ns() - start_ns) / 1e9
            self.failed.update(self._gathered.failed)
            self._gathered.failed.clear()
            for written in self._written:
                written(batch.events)
            await self._rest(took_s)

    async def _rest(self, took_s: float) -> None:
        """Let events gather after a commit that took so long, unless there is nothing to gain or somebody waits."""
        await anyio.lowlevel.checkpoint()  # Whoever waited for what is written now does not wait any more.
        if len(self._gathered.events) > 1 and not self._awaited:
            self._hurry = anyio.Event()
            with anyio.move_on_after(min(REST_MAX_S, REST_RATIO * took_s)):
                await self._hurry.wait()

    async def _gather(self) -> None:
        """Return when there is something to write, and enough of it if more is on its way."""
        while not self._gathered.events:
            self._news = anyio.Event()
            await self._news.wait()
        with anyio.move_on_after(GATHER_S):
            while self._pending >= LIVE_EVENTS and not self._is_full():
                self._news = anyio.Event()
                await self._news.wait()

    async def _store(self, batch: Batch) -> None:
        pause_s = RETRY_S
        while True:
            try:
                await self.store.write(batch)
            except Unavailable as error:
                self.problem = str(error)
                logger.warning("tables not written, trying again", error=self.problem, pause_s=pause_s)
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                self.problem = None
                return
