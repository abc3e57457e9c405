"""Daemons that stand by: they answer queries, and one takes over whatever becomes of the leader."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bus.client import Bus
from bus.domain import agent, channel, inbox, log
from bus.domain import task_requests as task
from bus.errors import BusError
from bus.server import read_server
from tests.acceptance.checker import Diaries, check
from tests.acceptance.leaders import Leaders, follow
from tests.acceptance.support import Rig, running, until
from tests.contract.conftest import Proxy

CLIENTS = [f"load-{number}" for number in range(3)]
TAKEOVER_S = 30.0
"""Far more than a take-over may take on any machine; what it took is printed, and measured by the bench."""


@asynccontextmanager
async def proxied(rig: Rig) -> AsyncIterator[Proxy]:
    server = read_server(rig.home)
    assert server is not None
    proxy = Proxy(server.url)
    await proxy.start()
    yield proxy
    await proxy.stop()


class Asking:
    """Notes how the tries of a Bus end, one by one: `codes` are those without an answer."""

    def __init__(self, bus: Bus) -> None:
        self.codes: list[str] = []
        connection: Any = bus._connection
        request = connection.request

        async def noted(*arguments: Any, **options: Any) -> Any:
            try:
                return await request(*arguments, **options)
            except BusError as error:
                self.codes.append(error.code)
                raise

        connection.request = noted


async def test_whoever_answers_everybody_reads_what_they_wrote(rig: Rig) -> None:
    """Half of the queries reach a daemon that stands by. Of what an inbox shows there the leader hears first."""
    async with rig.connect() as bus, rig.connect("nova") as nova:
        await bus.call(channel.Open(channel="work"))
        await nova.call(channel.Join(channel="work"))
        rig.second_daemon()
        await follow(rig, 2)
        for number in range(60):
            posted = await bus.call(channel.Post(channel="work", text=f"message {number}"))
            read = await nova.call(channel.Read(channel="work", since=posted.seq - 1, after=posted.seq))
            assert [message.text for message in read.messages] == [f"message {number}"]
            items = await nova.call(inbox.Peek())
            assert [item.text for item in items.items] == [f"message {number}"]
            assert (await nova.call(inbox.Ack(upto=items.upto))).upto == items.upto
        shown = [record for record in await rig.log() if record.headers["Bus-Type"] == "inbox.shown"]
        assert [record.headers["Bus-Agent"] for record in shown] == ["nova"] * 60


async def test_a_frozen_member_is_bypassed(rig: Rig) -> None:
    async with rig.connect() as bus:
        await bus.call(channel.Open(channel="work"))
        second = rig.second_daemon()
        await follow(rig, 2)
        asking = Asking(bus)
        await until(lambda: swallowed(bus, asking, second.pid), what="a query that nobody answers")
        assert set(asking.codes) == {"timeout"}
        await until(lambda: quick(bus, asking), what="queries that nobody swallows")
        os.kill(second.pid, signal.SIGCONT)
        await follow(rig, 2)
        await bus.call(channel.Post(channel="work", text="all are well"))


async def swallowed(bus: Bus, asking: Asking, pid: int) -> bool:
    """Freeze a member and ask. It goes on getting its share of the queries until the server notices, if it was there
    to answer them at all; if not, it is let go on."""
    os.kill(pid, signal.SIGSTOP)
    for _ in range(100):
        await bus.call(channel.List())
        if asking.codes:
            return True
    os.kill(pid, signal.SIGCONT)
    await anyio.sleep(0.1)
    return False


async def quick(bus: Bus, asking: Asking) -> bool:
    """Whether thirty queries in a row are answered at the first try."""
    before = len(asking.codes)
    for _ in range(30):
        await bus.call(channel.List())
    return len(asking.codes) == before


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off"])
async def test_another_takes_over_from_a_leader_that_is(rig: Rig, how: str) -> None:
    """Nothing acknowledged is lost, nothing takes effect twice, nobody is refused for what is not so any more."""
    async with rig.connect() as bus, proxied(rig) as proxy:
        await bus.call(channel.Open(channel="load"))
        leaders = Leaders(rig)
        second = leaders.start_second("--url", proxy.url)
        await follow(rig, 2)
        if how == "cut off":  # The second one leads, and the first stands by.
            await leaders.kill()
            await follow(rig, 2)
        victim = await leaders.another(than=0)
        assert (victim == second.pid) == (how == "cut off")
        rig.kill("supervisor", signal.SIGSTOP)
        clients = [rig.client("load", name, seed=seed, flying=4, pause_s=0.01) for seed, name in enumerate(CLIENTS)]
        for client in clients:
            client.begin()
            # In a thread, because the proxy lives on this event loop.
            assert await anyio.to_thread.run_sync(client.line) == "ready"
            assert await anyio.to_thread.run_sync(client.line) == "caught up"
        diaries = Diaries(rig.folder)
        await acknowledged(diaries, 100)

        began = time.monotonic()
        if how == "cut off":
            proxy.loses_answers = True
            proxy.stall()
        else:
            os.kill(victim, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        await bus.call(channel.Post(channel="load", text="who answers now?"), timeout_s=TAKEOVER_S)
        print(f"a leader that is {how}: the next write was accepted after {time.monotonic() - began:.2f} s")
        assert await leaders.another(than=victim) != victim
        await acknowledged(diaries, 100)

        # The old one comes back, with whatever it had under way.
        proxy.loses_answers = False
        proxy.resume()
        rig.kill("supervisor", signal.SIGCONT)
        if how == "frozen":
            os.kill(victim, signal.SIGCONT)
        await follow(rig, 2)
        await acknowledged(diaries, 200)
        for client in clients:
            await anyio.to_thread.run_sync(client.end)
        told = diaries.read()
        assert check(await rig.log(), told) == []
        refusals = {line["error"]["code"] for line in told if "error" in line}
        assert refusals == set()
        assert (await bus.call(log.Tables(verify=True), timeout_s=60)).equal


async def acknowledged(diaries: Diaries, number: int) -> None:
    target = diaries.acknowledged + number
    await until(lambda: diaries.acknowledged >= target, timeout_s=60, what=f"{number} acknowledgements")


async def test_a_claim_that_was_acknowledged_is_refused_to_others_by_the_next_leader(rig: Rig) -> None:
    """And what was released is given: neither rests on an old state, however quickly the leader changes."""
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova:
        await atlas.call(task.Open(task="one", title="x"))
        leaders = Leaders(rig)
        leaders.start_second()
        await follow(rig, 2)
        for holder, other in ((atlas, nova), (nova, atlas), (atlas, nova)):
            claim = await holder.call(task.Claim(task="one"))
            await leaders.kill()
            with pytest.raises(BusError) as refused:
                await other.call(task.Claim(task="one"))
            assert (refused.value.code, refused.value.details["fence"]) == ("claimed", claim.fence)
            await holder.call(task.Release(task="one"))
            await follow(rig, 2)


async def test_an_agent_that_is_killed_is_away_and_then_offline(tmp_path: Path) -> None:
    """Whichever daemon heard it, and though the leader changes meanwhile. Nothing is written but the changes."""
    quick_times = "[presence]\nidle_after_s = 1.0\naway_after_s = 2.0\noffline_after_s = 3.0\n"
    with running(tmp_path, quick_times) as rig:
        async with rig.connect() as bus:
            await bus.call(channel.Open(channel="load"))
            leaders = Leaders(rig)
            leaders.start_second()
            await follow(rig, 2)
            client = rig.client("load", "nova", seed=1, flying=1)
            assert client.line() == "ready"
            client.begin()
            await until(lambda: present(bus, "nova", "online"), what="nova online")
            client.kill()
            await until(lambda: present(bus, "nova", "away"), what="nova away")
            await leaders.kill()
            await until(lambda: present(bus, "nova", "offline"), what="nova offline")
            await leaders.kill()
            assert await present(bus, "nova", "offline")
            await until(lambda: fresh(bus), what="an answer that is not old")
        changes = [
            (record.headers["Bus-Agent"], record.data)
            for record in await rig.log()
            if (record.headers["Bus-Type"], record.headers["Bus-Entity"]) == ("agent.presence_changed", "nova")
        ]
        words = [b'{"presence":"%s"}' % word for word in (b"online", b"idle", b"away", b"offline")]
        assert [(author, data) for author, data in changes if data != words[1]] == [
            ("system", words[0]),
            ("system", words[2]),
            ("system", words[3]),
        ]
        assert len(changes) <= 4


async def present(bus: Bus, name: str, presence: str) -> bool:
    there = {one.agent: one.presence for one in (await bus.call(agent.Who())).agents}
    return there.get(name) == presence


async def fresh(bus: Bus) -> bool:
    return (await bus.call(agent.Who())).age_s < 5.5
