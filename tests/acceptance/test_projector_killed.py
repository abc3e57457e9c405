"""A host elsewhere, and processes that are killed and frozen: there, and where the bus is."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

from bus.client import Bus
from bus.domain import channel
from tests.acceptance.far import Far, verified
from tests.acceptance.leaders import Leaders, follow
from tests.acceptance.support import Rig, until


async def test_killed_again_and_again_its_tables_are_what_the_log_says(rig: Rig, far: Far) -> None:
    await far.up()
    writers = [rig.client("load", f"load-{number}", seed=number, flying=4, pause_s=0.005) for number in range(2)]
    async with rig.connect() as owner, far.connect(timeout_s=60.0) as nova:
        await owner.call(channel.Open(channel="load"))
        for writer in writers:
            writer.begin()
        for _ in range(3):
            goal = (await owner.call(channel.List(limit=1))).seq + 100
            await until(lambda goal=goal: _passed(nova, goal), timeout_s=60, what=f"#{goal} there")
            far.rig.kill("daemon")
        for writer in writers:
            writer.kill()
        head = (await rig.log())[-1].seq
        await until(lambda: _passed(nova, head), timeout_s=60, what="everything there")
        records = await rig.log()
        posts = [record.seq for record in records if record.headers["Bus-Type"] == "channel.posted"]
        seen: list[int] = []
        async for page in _pages(nova, "load"):
            seen += page
        assert seen == [seq for seq in posts if seq <= records[-1].seq]
    assert await verified(far)


async def _passed(bus: Bus, seq: int) -> bool:
    return (await bus.call(channel.List(limit=1))).seq >= seq


async def _pages(bus: Bus, name: str) -> AsyncIterator[list[int]]:
    since = 0
    while messages := (await bus.call(channel.Read(channel=name, since=since, limit=1000))).messages:
        yield [message.seq for message in messages]
        since = messages[-1].seq


async def test_a_leader_that_is_frozen_is_bypassed(rig: Rig, far: Far) -> None:
    await far.up()
    leaders = Leaders(rig)
    leaders.start_second()
    await follow(rig, 3)
    victim = await leaders.another(than=0)
    async with far.connect(timeout_s=30.0) as nova:
        await nova.call(channel.Post(channel="work", text="before"))
        os.kill(victim, signal.SIGSTOP)
        posted = await nova.call(channel.Post(channel="work", text="who answers now?"))
        assert (await nova.call(channel.Read(channel="work"))).messages[-1].seq == posted.seq
        assert await leaders.another(than=victim) != victim
        os.kill(victim, signal.SIGCONT)
        await follow(rig, 3)


async def test_a_projector_that_is_frozen_is_bypassed(rig: Rig, far: Far) -> None:
    """Here by a second one of the same home; and nobody elsewhere ever waits for it."""
    await far.up()
    second = far.rig.spawn("cli.projector", "--home", str(far.rig.home.path))
    await follow(rig, 3)
    async with rig.connect() as owner, far.connect(timeout_s=30.0) as nova:
        frozen = far.rig.kill("daemon", signal.SIGSTOP)
        assert frozen != second.pid
        for _ in range(30):
            posted = await owner.call(channel.Post(channel="work", text="nobody waits"), timeout_s=2.0)
        for _ in range(10):
            answer = await nova.call(channel.Read(channel="work", after=posted.seq))
            assert answer.messages[-1].seq == posted.seq
        os.kill(frozen, signal.SIGCONT)
        await nova.call(channel.Post(channel="work", text="all are well"))
