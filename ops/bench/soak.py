"""Section S: many agents, everything at once, and something is killed every few seconds. What they are told is compared
with the log all the while (`bench.judging`)."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from bench.clients import now, raw_connection
from bench.crew import Crew
from bench.figures import Figures, at_most, p50, percentile
from bench.ground import NAMESPACE, STEADY_S, Ground
from bench.judging import Judge
from bench.soaking import ROOMS, room
from bus import lifecycle
from bus.client import Bus
from bus.domain import channel, log, task_requests
from bus.errors import BusError
from bus.jetstream import JetStreamLog
from bus.operation import CODEC
from tests.acceptance.rivals import tree

LOOK_S = 1.0
WAIT_S = 60.0
SHOWN = 3
"""So many contradictions stand beside the figures; all of them are printed before."""


class Sizes(msgspec.Struct, frozen=True):
    """How large the soak is. `pause_s` is what an agent thinks between two things that it does, on average."""

    agents: int = 30
    seconds: float = 300.0
    kill_every_s: float = 10.0
    pause_s: float = 0.05


SMALL = Sizes(agents=5, seconds=12.0, kill_every_s=2.0)


class Soak:
    """One bus, its agents, and what became of them."""

    def __init__(self, ground: Ground, sizes: Sizes) -> None:
        self.ground = ground
        self.sizes = sizes
        self.folder: Path = ground.home.path.parent / "diaries"
        self.folder.mkdir()
        self.names = [f"soaker-{number:02}" for number in range(sizes.agents)]
        self.rooms = {name: room(number) for number, name in enumerate(self.names)}
        self.judge = Judge(self.folder, tree(), self.rooms)
        self.killed: Counter[str] = Counter()
        self.backlog: Counter[str] = Counter()
        self.equal: bool | None = None
        self._crews: dict[str, Crew] = {}
        self._took_s = 0.0
        self._start = 0
        self._seeds = itertools.count(1)
        self._chance = random.Random(1)

    def run(self) -> None:
        self.ground.up()
        self.ground.register(self.names)
        anyio.run(self._prepare)
        try:
            for name in self.names:
                self._crews[name] = Crew("soak", [self._spec(name, self.sizes.seconds)])
            anyio.run(self._go_on)
            for crew in self._crews.values():
                crew.results()
            anyio.run(self._end)
        finally:
            for crew in self._crews.values():
                crew.kill()

    def _spec(self, name: str, seconds: float) -> dict[str, Any]:
        return {
            "home": str(self.ground.home.path),
            "agent": name,
            "agents": self.sizes.agents,
            "diary": str(self.folder / f"{name}.jsonl"),
            "seed": next(self._seeds),
            "pause_s": self.sizes.pause_s,
            "seconds": seconds,
        }

    async def _prepare(self) -> None:
        async with self._bus("owner") as bus:
            for number in range(ROOMS):
                await bus.call(channel.Open(channel=room(number)))
        for name, joined in self.rooms.items():
            async with self._bus(name) as bus:
                await bus.call(channel.Join(channel=joined))

    def _bus(self, name: str) -> Any:
        return Bus.connect(agent=name, home=self.ground.home.path, namespace=NAMESPACE, timeout_s=STEADY_S)

    async def _go_on(self) -> None:
        """Let them begin, kill what is to be killed, and judge, until the time is over."""
        start = now()
        for crew in self._crews.values():
            crew.go()
        await self._look()
        self._start = self.judge.position
        end, kill_at = start + self.sizes.seconds, start + self.sizes.kill_every_s
        victims = itertools.cycle(("agent", "daemon", "server", "agent", "supervisor"))
        while now() < end:
            await anyio.sleep(LOOK_S)
            await self._look()
            if kill_at <= now() < end - self.sizes.kill_every_s / 2:
                await anyio.to_thread.run_sync(self._kill, next(victims), end)
                kill_at += self.sizes.kill_every_s
        self._took_s = now() - start

    def _kill(self, victim: str, end: float) -> None:
        self.killed[victim] += 1
        if victim == "agent":
            name = self._chance.choice(self.names)
            self._crews[name].kill()
            self._crews[name] = Crew("soak", [self._spec(name, end - now())])
            self._crews[name].go()
        else:
            os.kill(self.ground.pid(victim), signal.SIGKILL)

    async def _look(self) -> None:
        """Judge what was written down until now; while nothing can be read, that waits."""
        self.judge.look()
        url = lifecycle.status(self.ground.home).url
        if url is None:
            return
        raw = {"url": url, "creds": str(self.ground.raw_creds_file())}
        try:
            with anyio.fail_after(WAIT_S):
                async with raw_connection(raw) as connection:
                    found = JetStreamLog(connection, CODEC)
                    head = (await found.head()).seq
                    records = [record async for chunk in found.read(self.judge.position, head) for record in chunk]
        except (BusError, OSError):
            return
        await anyio.to_thread.run_sync(self.judge.judge, records)

    async def _end(self) -> None:
        """Judge the rest, and compare the tables with the log."""
        async with self._bus("owner") as bus:
            board = await bus.call(task_requests.Board(limit=1))
            self.backlog.update({state: board.counts.get(state, 0) for state in ("open", "claimed")})
            moment = await bus.call(log.Tables(verify=True), timeout_s=STEADY_S, on_progress=lambda progress: None)
            self.equal = moment.equal
        position = -1
        while position < self.judge.position:
            position = self.judge.position
            await self._look()
        self.judge.finish()

    def figures(self) -> Figures:
        figures, judge = Figures("S"), self.judge
        stored = judge.position - self._start
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.killed.items()))
        figures.add(
            f"{self.sizes.agents} agents for {self._took_s:.0f} s",
            stored / self._took_s,
            "events/s",
            note=f"{stored:,} events, {judge.answers:,} answers, {judge.answers / self._took_s:,.0f}/s",
        )
        figures.add("  processes killed meanwhile", self.killed.total(), "", note=kills)
        for operation, took in sorted(judge.took_s.items()):
            figures.add(
                f"  {operation}, p50",
                p50(took) * 1e3,
                "ms",
                note=f"p99 {percentile(took, 0.99) * 1e3:.0f} ms, longest {max(took):.2f} s, {len(took):,} answers",
            )
        waiting = f"{self.backlog['open']} open tasks, {self.backlog['claimed']} claimed"
        figures.add("  backlog at the end: unread items", judge.unread, "", note=waiting)
        wrong = [*judge.wrong, *([] if self.equal else ["the tables are not what the log says"])]
        for sentence in wrong:
            print(sentence, file=sys.stderr)
        figures.add(
            "  contradictions between log, answers and tables",
            len(wrong),
            "",
            target=at_most(0, "value"),
            note="; ".join([f"{judge.unavailable} requests were given up", *(text[:200] for text in wrong[:SHOWN])]),
        )
        return figures


def soaked(ground: Ground, sizes: Sizes) -> Figures:
    """S. A soak, and its figures."""
    soak = Soak(ground, sizes)
    soak.run()
    return soak.figures()
