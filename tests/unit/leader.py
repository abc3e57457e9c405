"""A leader whose every step a test takes by hand: an Executor on a log in memory that can hold, refuse and be shared.

Rule: nothing runs by itself. `step` appends one batch, `fetch` reads what a request names, `fold` brings the tail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from bus.clock import from_ns
from bus.domain.agent import Register
from bus.domain.tenant import Found
from bus.errors import BusError
from bus.events import Draft
from bus.execute import Call, Executor
from bus.log import Head, MemoryLog
from bus.model import Command, Limits, Reply
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.subjects import SYSTEM
from bus.world import Speculation, World

START_NS = 1_893_499_200_000_000_000  # 2030-01-01T12:00:00Z


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.ns = START_NS

    def monotonic_ns(self) -> int:
        return self.ns

    def server_ns(self) -> int:
        return self.ns

    def observe(self, server_ns: int) -> None: ...

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)

    @property
    def now(self) -> Any:
        return from_ns(self.ns)


class Ids:
    """Ids that a test can foretell; `prefix` keeps those of two leaders apart."""

    def __init__(self, prefix: str = "e") -> None:
        self._prefix = prefix
        self._count = 0

    def event_id(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"

    def short(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._prefix}{self._count}"


class HandLog(MemoryLog):
    """A log that notes every append and can be told to hold the next ones back, or to refuse them."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(CODEC, clock.server_ns)
        self.appends: list[int] = []
        """Events of every append that was tried."""
        self.errors: list[Exception | None] = []
        """What the next appends raise (None: nothing)."""
        self.head_error: Exception | None = None
        self._gate: anyio.Event | None = None

    def hold(self) -> None:
        self._gate = anyio.Event()

    def go_on(self) -> None:
        assert self._gate is not None
        self._gate.set()
        self._gate = None

    async def append(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[int]:
        self.appends.append(len(drafts))
        if self._gate is not None:
            await self._gate.wait()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return await super().append(drafts, expected)

    async def head(self) -> Head:
        if self.head_error is not None:
            raise self.head_error
        return await super().head()


class Asked:
    """One command that was submitted, and its answer when there is one."""

    def __init__(self) -> None:
        self.results: list[Reply | BusError] = []

    @property
    def waits(self) -> bool:
        return not self.results

    @property
    def reply(self) -> Any:
        (result,) = self.results
        assert isinstance(result, Reply), str(result)
        return result

    @property
    def error(self) -> BusError:
        (result,) = self.results
        assert isinstance(result, BusError), str(result)
        return result


class Leader:
    """One executor on `log`. It leads while `leads` is true."""

    def __init__(self, log: HandLog, clock: Clock, ids: Ids | None = None, limits: Limits | None = None) -> None:
        self.log = log
        self.clock = clock
        self.leads = True
        self.view = Speculation(World(FAMILIES))
        self.executor = Executor(log, self.view, clock, ids or Ids(), CODEC, limits or Limits(), lambda: self.leads)
        self.pipeline = self.executor.pipeline

    def ask(self, agent: str, request: Command, request_id: str | None = None, trace: str | None = None) -> Asked:
        asked = Asked()
        self.executor.submit(Call(OPERATION_OF[type(request)], request, agent, asked.results.append, request_id, trace))
        return asked

    def fold(self, upto: int | None = None) -> None:
        """Bring the records of the tail up to `upto` (default: all)."""
        for record in self.log.records[self.executor.world.position : upto]:
            self.executor.fold(CODEC.decode(record))

    async def step(self) -> None:
        await self.pipeline.step()

    async def drain(self) -> None:
        """Step until every command is answered."""
        while self.executor.waiting:
            while self.executor.waiting > len(self.pipeline):
                await self.executor.fetch()
            await self.pipeline.step()
            self.fold()

    async def do(self, agent: str, request: Command, request_id: str | None = None) -> Any:
        """Ask, drain, and return the reply."""
        asked = self.ask(agent, request, request_id)
        await self.drain()
        return asked.reply

    async def refused(self, agent: str, request: Command, request_id: str | None = None) -> BusError:
        asked = self.ask(agent, request, request_id)
        await self.drain()
        return asked.error


async def founded(*agents: str) -> Leader:
    """A leader on a new log with the owner `olga` and these agents; the log's notes begin after that."""
    clock = Clock()
    leader = Leader(HandLog(clock), clock)
    await leader.do(SYSTEM, Found(tenant="acme", owner="olga"))
    for name in agents:
        await leader.do("olga", Register(agent=name))
    leader.log.appends.clear()
    return leader


def rival(leader: Leader) -> Leader:
    """A second leader on the same log that has seen everything stored so far."""
    other = Leader(leader.log, leader.clock, Ids("r"))
    other.fold()
    return other
