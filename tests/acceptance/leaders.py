"""Two daemons of one home that take turns: whichever leads can be killed, and there is always another.

Rule: a leader is known by what it says of itself in the home; nothing here guesses how long a take-over takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from bus.domain import channel
from tests.acceptance.support import WAIT_S, Child, Rig, until


async def follow(rig: Rig, number: int) -> None:
    """Wait until so many daemons follow the log, by what the server knows."""

    async def done() -> bool:
        async with rig.raw(rig.home.keyring.daemon()) as (client, _):
            answer = await client.request("$JS.API.STREAM.INFO.LOG", b"", timeout=WAIT_S)
            return int(json.loads(answer.data)["state"]["consumer_count"]) >= number

    await until(done, what=f"{number} daemons that follow the log")


class Leaders:
    """The daemon that the supervisor keeps, and a second one that is kept here."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.second: Child | None = None
        self.changes = 0
        """How often a leader was killed; what waits for the next one may have come to it before it is seen here."""

    def start_second(self, *flags: str) -> Child:
        self.second = self.rig.second_daemon(*flags)
        return self.second

    async def another(self, than: int) -> int:
        """The pid of the leader, as soon as it is not `than`."""
        pid: int = await until(
            lambda: self.rig.status().get("leading") and self.rig.status()["pid"] != than and self.rig.status()["pid"],
            what=f"another leader than {than}",
        )
        return pid

    async def kill(self) -> None:
        """Kill whoever leads, wait until another does, and see that there will be two again."""
        pid = await self.another(than=0)
        if self.second is not None and pid == self.second.pid:
            self.second.kill()
            self.start_second()
        else:
            os.kill(pid, signal.SIGKILL)
        self.changes += 1
        await self.another(than=pid)


@asynccontextmanager
async def again_and_again(
    rig: Rig, chance: random.Random, between: tuple[int, int], act: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """While the block runs, `act` whenever the log has grown by some more events."""
    async with rig.connect() as bus, anyio.create_task_group() as tasks:

        async def length() -> int:
            return int((await bus.call(channel.List(limit=1))).seq)

        async def go_on() -> None:
            while True:
                target = await length() + chance.randrange(*between)
                while await length() < target:
                    await anyio.sleep(0.01)
                await act()

        tasks.start_soon(go_on)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def changing(rig: Rig, seed: int, between: tuple[int, int] = (60, 150)) -> AsyncIterator[Leaders]:
    """While the block runs, the leader is killed again and again, whenever the log has grown by some more events."""
    leaders, chance = Leaders(rig), random.Random(seed)
    leaders.start_second()
    await follow(rig, 2)
    async with again_and_again(rig, chance, between, leaders.kill):
        yield leaders
