"""A host elsewhere that is cut off from its bus: what it answers, how old that is, and how it goes on afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from msgspec import UNSET

from bus import lifecycle, remote
from bus.client import Bus
from bus.domain import agent, channel, inbox, recall, session_requests
from bus.errors import Unavailable
from bus.remote import Remote
from bus.server import read_server
from tests.acceptance.far import AGENTS, Far, fresh, refused, verified
from tests.acceptance.support import Rig, running, until
from tests.contract.conftest import Proxy

QUICK_S = 3.0
"""How long a command waits that is expected to fail."""


@pytest.mark.parametrize("how", ["cut", "stalled"])
async def test_out_of_reach_it_answers_as_it_was_and_says_how_old_that_is(rig: Rig, far: Far, how: str) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect(timeout_s=QUICK_S) as nova:
        await nova.call(channel.Post(channel="work", text="before"))
        known = (await nova.call(channel.Read(channel="work"))).seq
        if how == "cut":
            far.cut()
        else:
            far.proxy.loses_answers = True
            far.proxy.stall()
        written = [(await owner.call(channel.Post(channel="work", text=f"meanwhile {n}"))).seq for n in range(5)]
        await until(lambda: (said := far.said()) is not None and not said.connected, what="the loss to be noticed")

        old: Any = await until(lambda: _stale(nova), what="an answer that says how old it is")
        assert [message.text for message in old.messages] == ["before"]
        assert old.seq >= known
        error = await refused(nova.call(channel.Post(channel="work", text="lost?")), Unavailable, "out_of_reach")
        assert all((error.problem.entity, error.problem.expected, error.problem.found, error.problem.hint))
        for shows in (inbox.Peek(), recall.Recall(query="parser"), session_requests.BuildContext(session="s")):
            await refused(nova.call(shows), Unavailable, "out_of_reach")
        error = await refused(nova.call(channel.List(after=written[-1])), Unavailable, "lagging")
        assert error.problem.expected == f"#{written[-1]}"
        past = await nova.call(channel.Read(channel="work", as_of=known))
        assert [message.text for message in past.messages] == ["before"]

        far.heal()
        far.proxy.loses_answers = False
        far.proxy.resume()
        new = await nova.call(channel.Read(channel="work", after=written[-1]), timeout_s=30)
        assert [message.seq for message in new.messages][-5:] == written
        assert (await nova.call(channel.Post(channel="work", text="after"), timeout_s=30)).seq > written[-1]
        await until(lambda: fresh(nova), what="an answer that is not old")
        texts = [record.data for record in await rig.log() if record.headers["Bus-Type"] == "channel.posted"]
        assert sum(b"lost?" in text for text in texts) <= 1


async def _stale(bus: Bus) -> Any:
    answer = await bus.call(channel.Read(channel="work"))
    return answer if answer.stale_s is not UNSET else None


async def test_a_follower_there_misses_nothing_and_repeats_nothing(rig: Rig, far: Far) -> None:
    await far.up()
    got: list[str] = []
    async with rig.connect() as owner, far.connect() as nova, anyio.create_task_group() as tasks:

        async def follow_it() -> None:
            async for answer in nova.follow(channel.Read(channel="work", since=0)):
                got.extend(message.text for message in answer.messages)

        tasks.start_soon(follow_it)
        wanted = []
        for number in range(60):
            wanted.append(f"message {number}")
            await owner.call(channel.Post(channel="work", text=wanted[-1]))
            if number % 20 == 9:
                await far.cut_off()
            if number % 20 == 14:
                far.heal()
        await until(lambda: len(got) >= 60, what="all messages")
        tasks.cancel_scope.cancel()
    assert got == wanted
    assert await verified(far)


async def test_started_out_of_reach_it_knows_what_it_knew(rig: Rig, far: Far) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect() as nova:
        posted = await owner.call(channel.Post(channel="work", text="known"))
        await nova.call(channel.List(after=posted.seq))
        await far.cut_off()
        stale_s = (await until(lambda: _stale(nova), what="an old answer")).stale_s
        await anyio.to_thread.run_sync(lifecycle.down, far.rig.home)
        newer = await owner.call(channel.Post(channel="work", text="not known"))
    async with far.connect() as nova:
        answer = await until(lambda: _stale(nova), what="an answer")
        assert [message.text for message in answer.messages] == ["known"]
        assert answer.stale_s > stale_s
        far.heal()
        answer = await nova.call(channel.Read(channel="work", after=newer.seq))
        assert [message.text for message in answer.messages] == ["known", "not known"]


async def test_it_never_answers_for_one_bus_from_the_tables_of_another(rig: Rig, far: Far, tmp_path: Path) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect() as nova:
        posted = await owner.call(channel.Post(channel="work", text="of the first bus"))
        await nova.call(channel.Read(channel="work", after=posted.seq))
    await anyio.to_thread.run_sync(lifecycle.down, far.rig.home)
    with running(tmp_path / "other") as other:
        async with other.connect() as owner:
            await owner.call(agent.Register(agent="nova"))
            await owner.call(channel.Open(channel="work"))
            await owner.call(channel.Post(channel="work", text="of the second bus"))
        server = read_server(other.home)
        assert server is not None
        proxy = Proxy(server.url)
        await proxy.start()
        proxy.up = False
        creds = other.home.keyring.projector("far", AGENTS)
        remote.follow(far.rig.home.path, Remote(url=proxy.url, creds=creds))
        await anyio.to_thread.run_sync(far.rig.up)
        async with far.connect(timeout_s=QUICK_S) as nova:
            await refused(nova.call(channel.Read(channel="work")), Unavailable, "no_responders")
            proxy.up = True
            answer = await nova.call(channel.Read(channel="work"), timeout_s=60)
            assert [message.text for message in answer.messages] == ["of the second bus"]
        assert await verified(far)
        await anyio.to_thread.run_sync(far.rig.close)
        await proxy.stop()
