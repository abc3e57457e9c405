"""One simulated tenant: agents that ask and repeat, leaders that crash between any two steps, and one log.

    clients -> Host (Executor + MemoryLog + tail) -> checker

Rules:
* One integer decides everything. Nothing asks a real clock, and every choice comes from one Random.
* A crash is an exception that nothing may catch. It can come before an append, after it and before its
  acknowledgement, before any single reply, and before and after any fold. What is left is the log.
* A client that gets no answer asks again under the same request id, at whatever leader there is.
* With a rival there are two leaders that both believe they lead, and appends that are frozen while the other goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from random import Random
from typing import Any

from bus.clock import from_ns
from bus.domain import task_requests as ask
from bus.domain.agent import Register
from bus.domain.channel import Open
from bus.domain.tenant import Found
from bus.errors import BusError, Unavailable
from bus.events import Draft, Record
from bus.execute import Call, Executor
from bus.log import Chunk, Head, LogFull, MemoryLog, WrongExpectedSeq
from bus.model import Command, Limits, Reply
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.subjects import SYSTEM
from bus.world import Speculation, World
from tests.simulation.checker import Checker
from tests.simulation.clients import AGENTS, CHANNELS, OWNER, TASKS, Imagination, Memory
from tests.simulation.promises import SEVERAL, Promises

START_NS = 1_893_499_200_000_000_000


class Crash(BaseException):
    """The process is gone."""


class Broken(BaseException):
    """A promise was broken; nothing may catch this either."""


class Asked:
    """One request of a client until it is answered."""

    def __init__(self, who: str, request: Command, name: str) -> None:
        self.who = who
        self.request = request
        self.name = name
        self.answered = False
        self.sent = 0
        self.plain_at: int | None = None
        """Number in the order of submission to one host, when it was sent to one only."""


class Clock:
    """One host's idea of the server's time: late by a constant, never early."""

    def __init__(self, sim: Simulation, late_ns: int) -> None:
        self._sim = sim
        self._late_ns = late_ns

    def monotonic_ns(self) -> int:
        return self._sim.now_ns

    def server_ns(self) -> int:
        return self._sim.now_ns - self._late_ns

    def observe(self, server_ns: int) -> None: ...


class Ids:
    """Seeded ids."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def event_id(self) -> str:
        return f"{self._random.getrandbits(64):016x}"

    def short(self, prefix: str) -> str:
        return f"{prefix}-{self._random.getrandbits(40):010x}"


class HostLog:
    """The log as one host reaches it: appends may crash it, freeze, or be refused."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.frozen: asyncio.Event | None = None

    async def append(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[int]:
        return await self._append(drafts, expected, None)

    async def append_each(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> AsyncGenerator[int, None]:
        known, last = dict(expected), None
        for draft in drafts:
            (last,) = await self._append([draft], known, last)
            known[draft.subject] = last
            yield last

    async def _append(self, drafts: Sequence[Draft], expected: Mapping[str, int], follows: int | None) -> list[int]:
        sim = self._sim
        sim.point("before the append")
        await self._freeze(sim.faults * 2)
        if sim.random.random() < sim.faults / 2:
            raise sim.random.choice((LogFull("full"), Unavailable("refused")))
        # A real log looks at what an event follows only as long as nothing was in doubt.
        if follows not in (None, len(sim.log.records)) and sim.random.random() < 0.7:
            raise WrongExpectedSeq(drafts[0].subject, expected[drafts[0].subject], None)
        for subject, seq in expected.items():
            if subject not in (draft.subject for draft in drafts):
                continue
            last = sim.last.get(subject, 0)
            if last != seq:
                # A real log cannot always say what it found.
                raise WrongExpectedSeq(subject, seq, last if sim.random.random() < 0.7 else None)
        seqs = await sim.log.append(drafts, expected)
        sim.appended(drafts, seqs)
        sim.point("stored, not acknowledged")
        await self._freeze(sim.faults * 2)
        return seqs

    async def _freeze(self, chance: float) -> None:
        if self._sim.random.random() < chance:
            self.frozen = asyncio.Event()
            await self.frozen.wait()
            self.frozen = None
            self._sim.point("thawed")

    async def get(self, seq: int) -> Record | None:
        return await self._sim.log.get(seq)

    async def head(self) -> Head:
        return await self._sim.log.head()

    def tail(self, after: int) -> Any:
        raise NotImplementedError(Chunk)

    def read(self, after: int, upto: int) -> Any:
        raise NotImplementedError


class Host:
    """One daemon: what it knows is gone when it crashes."""

    def __init__(self, sim: Simulation) -> None:
        self.log = HostLog(sim)
        self.leads = True
        self.clock = Clock(sim, sim.random.randrange(2_000_000_000))
        self.view = Speculation(World(FAMILIES))
        self.executor = Executor(
            self.log, self.view, self.clock, Ids(sim.random), CODEC, Limits(lease_cap_s=120), lambda: self.leads
        )
        self.step: asyncio.Task[None] | None = None
        self.submitted = 0

    @property
    def world(self) -> World:
        return self.view.world


class Simulation:
    """Run with `await Simulation(seed, rival).run(actions)`."""

    def __init__(self, seed: int, rival: bool) -> None:
        self.random = Random(seed)
        self.rival = rival
        self.faults = self.random.choice((0.0, 0.02, 0.05, 0.1))
        self.now_ns = START_NS
        self.log = MemoryLog(CODEC, lambda: self.now_ns)
        self.checker = Checker(one_leader=not rival)
        self.promises = Promises(self.log, self.checker, one_leader=not rival)
        self.last: dict[str, int] = {}
        """Seq of the last event per subject."""
        self.hosts: list[Host] = []
        self.crashes = 0
        self.answers = 0
        self._appends = 0
        self._names = 0
        self._asked: list[Asked] = []
        self._memories = {name: Memory() for name in AGENTS}
        self._imagination = Imagination(self.random, lambda: len(self.log.records))
        self._safe = True

    # --- faults ------------------------------------------------------------------------------------------------

    def point(self, where: str) -> None:
        """A moment between two steps: the process may end here."""
        if not self._safe and self.random.random() < self.faults / 4:
            raise Crash(where)

    def appended(self, drafts: Sequence[Draft], seqs: Sequence[int]) -> None:
        self._appends += 1
        records = self.log.records[seqs[0] - 1 : seqs[-1]]
        several = {a.name for a in self._asked if isinstance(a.request, SEVERAL)} if self.rival else set()
        twice = any(draft.request is not None and draft.request.id in several for draft in drafts)
        self.checker.take(records, self._appends, twice)
        for draft, record in zip(drafts, records, strict=True):
            assert record.headers["Nats-Msg-Id"] == draft.id
            assert record.subject == draft.subject
            self.last[record.subject] = record.seq

    def _crashed(self, host: Host) -> None:
        """Start again from the log alone."""
        self.crashes += 1
        if host.step is not None:
            host.step.cancel()
        self.hosts[self.hosts.index(host)] = self._started()

    def _started(self) -> Host:
        host = Host(self)
        for record in self.log.records:
            host.executor.fold(CODEC.decode(record))
        return host

    # --- steps -------------------------------------------------------------------------------------------------

    async def run(self, actions: int) -> None:
        await self._found()
        self._safe = False
        choices = (self._new_request, self._repeat, self._step, self._tail, self._time, self._thaw, self._odd)
        weights = (30, 5, 30, 25, 4, 10, 5)
        for _ in range(actions):
            (action,) = self.random.choices(choices, weights)
            await action(self.random.choice(self.hosts))
        await self._finish()

    async def _found(self) -> None:
        self.hosts.append(self._started())
        await self._settled(SYSTEM, Found(tenant="acme", owner=OWNER))
        for name in AGENTS[1:]:
            await self._settled(OWNER, Register(agent=name))
        for name in CHANNELS:
            await self._settled(OWNER, Open(channel=name))
        for name in TASKS:
            await self._settled(self.random.choice(AGENTS), ask.Open(title=name, task=name))
        if self.rival:
            self.hosts.append(self._started())

    async def _settled(self, who: str, request: Command) -> None:
        faults, self.faults = self.faults, 0.0
        asked = self._ask(who, request, self._name())
        host = self.hosts[0]
        self._send(host, asked)
        await host.executor.pipeline.step()
        self._fold(host, len(self.log.records))
        assert asked.answered
        self.faults = faults

    def _name(self) -> str:
        self._names += 1
        return f"r{self._names}"

    def _ask(self, who: str, request: Command, name: str) -> Asked:
        asked = Asked(who, request, name)
        self._asked.append(asked)
        return asked

    async def _new_request(self, host: Host) -> None:
        who = self.random.choice(AGENTS)
        if len([asked for asked in self._asked if asked.who == who and not asked.answered]) >= 3:
            return
        name = self._name()
        self._send(host, self._ask(who, self._imagination.command(who, self._memories[who], name), name))

    async def _repeat(self, host: Host) -> None:
        waiting = [asked for asked in self._asked[-40:] if not asked.answered]
        known = self._asked[-20:]
        if waiting and self.random.random() < 0.8:
            self._send(host, self.random.choice(waiting))
        elif known:
            self._send(host, self.random.choice(known))

    def _send(self, host: Host, asked: Asked) -> None:
        """Submit, with everything that is promised by the answer noted at the moment it is given."""
        asked.sent += 1
        host.submitted += 1
        asked.plain_at = host.submitted if asked.sent == 1 else None
        position = host.world.position

        def answer(result: Reply | BusError) -> None:
            self.point("before the reply")
            try:
                self._answered(host, asked, position, result)
            except Exception as error:
                raise Broken(f"{asked.name}: {asked.who} asked {asked.request}") from error

        operation = OPERATION_OF[type(asked.request)]
        call = Call(operation, asked.request, asked.who, answer, asked.name)
        try:
            host.executor.submit(call)
        except Crash:
            self._crashed(host)

    def _answered(self, host: Host, asked: Asked, position: int, result: Reply | BusError) -> None:
        self.answers += 1
        now = from_ns(host.clock.server_ns())
        if isinstance(result, BusError):
            self.promises.refused(host, asked, position, now, result)
            if not isinstance(result, Unavailable):
                asked.answered = True
            return
        self.promises.replied(host, asked, result)
        if isinstance(result, ask.LeaseReply):
            self._memories[asked.who].fences.append((result.task, result.fence))
            self._imagination.fences.append((result.task, result.fence))
        asked.answered = True

    async def _step(self, host: Host) -> None:
        """Let the host's pipeline and fetches go on as far as they can."""
        executor = host.executor
        try:
            while executor.waiting > len(executor.pipeline):
                await executor.fetch()
        except Crash:
            self._crashed(host)
            return
        if host.step is None and len(executor.pipeline):
            host.step = asyncio.ensure_future(executor.pipeline.step())
        await self._settle()

    async def _settle(self) -> None:
        """Run everything that is ready, and notice who crashed."""
        for _ in range(6):
            await asyncio.sleep(0)
        for host in list(self.hosts):
            if host.step is not None and host.step.done():
                error = host.step.exception() if not host.step.cancelled() else None
                host.step = None
                if isinstance(error, Crash):
                    self._crashed(host)
                elif error is not None:
                    raise error

    async def _tail(self, host: Host) -> None:
        try:
            self._fold(host, host.world.position + self.random.randint(1, 6))
        except Crash:
            self._crashed(host)
        await self._settle()

    def _fold(self, host: Host, upto: int) -> None:
        for record in self.log.records[host.world.position : upto]:
            self.point("before a fold")
            host.executor.fold(CODEC.decode(record))
            self.point("after a fold")

    async def _time(self, host: Host) -> None:
        self.now_ns += self.random.choice((1000, 10**9, 5 * 10**9, 40 * 10**9))
        if host.leads:
            host.executor.expire()

    async def _thaw(self, host: Host) -> None:
        if host.log.frozen is not None:
            host.log.frozen.set()
        await self._settle()

    async def _odd(self, host: Host) -> None:
        """What happens seldom: the lease is lost or comes back, the process is killed, the state is compared."""
        kind = self.random.randrange(6)
        if kind == 0 or not host.leads:
            host.leads = not host.leads
        elif kind == 1 and self.random.random() < self.faults * 5:
            self._crashed(host)
        else:
            self.promises.same_world(host)

    # --- the end -----------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """No more faults: every request that is repeated is answered, and everything comes to rest."""
        self._safe, self.faults = True, 0.0
        for _ in range(400):
            for host in self.hosts:
                host.leads = True
                await self._thaw(host)
                self._fold(host, len(self.log.records))
                await self._step(host)
            if not any(host.executor.waiting or host.step for host in self.hosts):
                waiting = [asked for asked in self._asked if not asked.answered]
                if not waiting:
                    break
                for asked in waiting:
                    self._send(self.hosts[0], asked)
        assert not [asked.name for asked in self._asked if not asked.answered], "some requests were never answered"
        assert len(self.checker.lines) == len(self.log.records)
        for host in self.hosts:
            self._fold(host, len(self.log.records))
            assert host.executor.known_seq == len(self.log.records)
            self.promises.same_world(host)
        self.promises.kept()
