"""Whatever is killed at whatever moment: what was acknowledged is in the log, once, and the tables are what it says.

`SYNBUS_CRASH_ROUNDS` is the number of kills; the proof takes 100.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import ExitStack

from bus.client import Bus
from bus.domain import channel, log
from tests.acceptance.checker import Diaries, check
from tests.acceptance.support import Child, Record, Rig, until

ROUNDS = int(os.environ.get("SYNBUS_CRASH_ROUNDS", "12"))
VICTIMS = ("server", "daemon", "supervisor", "client")
CLIENTS = [f"load-{number}" for number in range(4)]


class Crashes:
    """A bus under load, and what is known of it after each round."""

    def __init__(self, rig: Rig, chance: random.Random) -> None:
        self.rig = rig
        self.chance = chance
        self.diaries = Diaries(rig.folder)
        self.records: list[Record] = []
        self.clients: dict[str, Child] = {}
        self.killed: Counter[str] = Counter()

    def start(self, name: str) -> None:
        client = self.rig.client("load", name, seed=self.chance.randrange(1 << 30), flying=4, pause_s=0.02)
        self.clients[name] = client
        client.begin()
        assert [client.line(60), client.line(60)] == ["ready", "caught up"]

    async def acknowledged(self, number: int) -> None:
        """Wait until so many more effects were acknowledged."""
        target = self.diaries.acknowledged + number
        await until(lambda: self.diaries.acknowledged >= target, timeout_s=60, what=f"{number} acknowledgements")

    def crash(self, victim: str) -> None:
        self.killed[victim] += 1
        if victim == "client":
            name = self.chance.choice(CLIENTS)
            self.clients[name].kill()
            self.start(name)
        else:
            self.rig.kill(victim)

    async def judge(self, bus: Bus) -> None:
        """Nothing acknowledged is lost, nothing took effect twice, and the tables follow from the log."""
        with ExitStack() as still:
            # Else the log would grow most while it is looked at, and a hundred proofs of all of it would take hours.
            for client in self.clients.values():
                still.enter_context(client.frozen())
            told = list(self.diaries.read())
            self.records += await self.rig.log(after=len(self.records))
            assert check(self.records, told) == []
            moment = await bus.call(log.Tables(verify=True), timeout_s=120, on_progress=lambda progress: None)
            assert moment.equal, {name: table for name, table in moment.tables.items() if not table.equal}
            assert moment.skipped == 0


async def test_nothing_acknowledged_is_lost_and_nothing_takes_effect_twice(rig: Rig) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {ROUNDS} rounds")
    chance = random.Random(seed)
    crashes = Crashes(rig, chance)
    async with rig.connect() as bus:
        await bus.call(channel.Open(channel="load"))
        for name in CLIENTS:
            crashes.start(name)
        for number in range(ROUNDS):
            await crashes.acknowledged(chance.randrange(1, 80))
            crashes.crash(VICTIMS[number % len(VICTIMS)])
            await crashes.acknowledged(20)
            await crashes.judge(bus)
        for client in crashes.clients.values():
            client.end()
        await crashes.judge(bus)
        assert list(rig.home.path.rglob("replay-*")) == []  # Nothing is left of the proofs that were cut short.
        # The server says the same of the whole log as it said piece by piece, through all crashes.
        assert await rig.log() == crashes.records
    told = crashes.diaries.read()
    asked = Counter(line["request"] for line in told if "reply" not in line and "error" not in line)
    print(f"{dict(crashes.killed)}, {len(crashes.records)} events, {crashes.diaries.acknowledged} acknowledged")
    print(f"{sum(count > 1 for count in asked.values())} asked again by restarted clients")
