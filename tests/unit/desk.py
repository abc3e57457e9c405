"""The layer that all doors share, on a desk: a leader stepped by hand, real tables folded by hand, and one Api.

Rule: tables contain only what `fold` brought them, so a test decides how far they are behind the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bus.clock import EPOCH, SystemClock
from bus.domain import channel
from bus.domain.recall import Recall
from bus.errors import BusError
from bus.model import Query
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.tunables import Endpoint, RecallOptions
from bus.world import World
from cli.api import Api, Helped
from projections.batch import Projection
from projections.recalling import Recalling
from projections.schema import discover
from projections.store import Store
from tests.unit.leader import Leader, founded


class Tables:
    """A store with a hook. `after_read` runs before a reading is handed over."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads: list[int] = []
        """The seqs that were read at."""
        self.after_read: Callable[[], Awaitable[None]] | None = None
        self._read = anyio.Event()

    @property
    def position(self) -> int:
        return self.store.position

    async def read(self, seq: int, agent: str, now: datetime, fn: Callable[[Any], Any]) -> Any:
        answer = await self.store.read(seq, agent, now, fn)
        self.reads.append(seq)
        self._read.set()
        self._read = anyio.Event()
        if self.after_read is not None:
            hook, self.after_read = self.after_read, None
            await hook()
        return answer

    async def until_read(self, times: int) -> None:
        """Return when so many readings are done and whoever asked for the last has made what it could of it."""
        while len(self.reads) < times:
            await self._read.wait()
        await anyio.wait_all_tasks_blocked()

    async def seq_at(self, time_ns: int) -> int:
        return await self.store.read(self.position, "", EPOCH, lambda reader: reader.seq_at(time_ns))

    async def reached(self, seq: int, timeout_s: float | None = None) -> bool:
        with anyio.move_on_after(timeout_s):
            await checkpoint()
            await self.store.reached(seq)
            return True
        return False


class Desk:
    """Agents ask here."""

    def __init__(
        self, leader: Leader, store: Store, reply_bytes: int, helped: Mapping[type, Helped] | None = None
    ) -> None:
        self.leader = leader
        self.clock = leader.clock
        self.tables = Tables(store)
        self.replayed: list[tuple[Any, ...]] = []
        self.record_error: BusError | None = None
        self.settled: list[tuple[str, int]] = []
        """For whom what was recorded had to be settled, and how much had been asked to be decided then."""
        replays = {op.request: self._replay for op in OPERATION_OF.values() if op.family == "replay"}
        self.api = Api(leader.executor, self.tables, leader.clock, replays, reply_bytes, self, helped=helped)
        self._world = World(FAMILIES)
        self._rows = Projection(store.schema)

    async def record(self, request: Any, agent: str) -> None:
        if self.record_error is not None:
            raise self.record_error
        self.leader.ask(agent, request)

    def settle(self, agent: str) -> None:
        self.settled.append((agent, self.leader.executor.waiting))

    async def _replay(self, request: Any, agent: str, seq: int, report: Any) -> Any:
        self.replayed.append((request, agent, seq, report))
        return request

    async def fold(self, upto: int | None = None) -> None:
        """Bring the tables up to `upto` (default: the log's end) and wake who waits for that."""
        events = []
        for record in self.leader.log.records[self.tables.position : upto]:
            events.append(event := CODEC.decode(record))
            self._rows.take([record], [event], [self._world.fold(event)])
        if events:
            await self.tables.store.write(self._rows.cut())
            self.api.folded(events)

    async def do(self, agent: str, *requests: Any) -> Any:
        """Let commands be stored and folded. -> the last reply."""
        for request in requests:
            reply = await self.leader.do(agent, request)
        await self.fold()
        return reply

    async def see(self, agent: str, request: Query, report: Any = None) -> Any:
        with anyio.fail_after(20):
            return await self.api.see(OPERATION_OF[type(request)], request, agent, report)


@asynccontextmanager
async def desk(folder: Path, *agents: str, reply_bytes: int = 1_000_000) -> AsyncIterator[Desk]:
    """A desk with the owner `olga` and these agents; everything so far is in the tables."""
    leader = await founded(*agents)
    async with Store.opened(folder, FAMILIES, discover()) as store:
        one = Desk(leader, store, reply_bytes)
        await one.fold()
        yield one


@asynccontextmanager
async def helped_desk(
    folder: Path, options: RecallOptions, leader: Leader, endpoint: Endpoint | None = None
) -> AsyncIterator[tuple[Desk, Recalling]]:
    """A desk at which recall has help; everything that is in the log is in the tables."""
    async with Store.opened(folder, FAMILIES, discover()) as store, anyio.create_task_group() as parts:
        recalling = Recalling(options, endpoint or Endpoint(), store, SystemClock())
        one = Desk(leader, store, 1_000_000, {Recall: recalling.answer})
        await one.fold()
        parts.start_soon(recalling.run)
        yield one, recalling
        parts.cancel_scope.cancel()


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Desk]:
    """A desk with atlas and nova, and a channel `dev` with one message."""
    async with desk(folder, "atlas", "nova") as one:
        await one.do("nova", channel.Join(channel="dev"), channel.Post(channel="dev", text="first"))
        yield one


async def caught(asking: Any, kind: type[BusError], code: str) -> BusError:
    with pytest.raises(kind) as error:
        await asking
    assert error.value.code == code
    return error.value


class Later:
    """A query that is asked now and answered some time."""

    def __init__(self, one: Desk, who: str, request: Any) -> None:
        self.outcome: Any = None
        self._one, self._who, self._request = one, who, request

    async def __call__(self) -> None:
        try:
            self.outcome = await self._one.see(self._who, self._request)
        except BusError as error:
            self.outcome = error
