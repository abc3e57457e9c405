"""What agents notice of kills and of a full disk: nothing, a little patience, or a clear refusal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bus import lifecycle
from bus.client import Bus
from bus.domain import agent, channel, dm, inbox, log
from bus.domain import task_requests as task
from bus.errors import BusError, Refused, Unavailable
from bus.model import Command
from tests.acceptance.support import Rig, running

SMALL = "[log]\nmax_bytes = 1000000\nsoft_limit_ratio = 0.6\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Rig]:
    """A bus whose log may hold one megabyte."""
    with running(tmp_path, SMALL) as rig:
        yield rig


async def test_following_misses_nothing_and_repeats_nothing(rig: Rig) -> None:
    """A follower of a channel and one of an inbox, while the daemon, the server and the supervisor are killed."""
    kills = {30: "daemon", 60: "server", 90: "supervisor", 110: "server"}
    total = 140
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova, rig.connect("iris") as iris:
        await atlas.call(channel.Open(channel="live"))
        await iris.call(channel.Join(channel="live", after=atlas.seq))
        read: list[str] = []
        shown: list[str] = []

        async def follow(bus: Bus, request: Any, items: str, got: list[str]) -> None:
            async for page in bus.follow(request):
                got += [item.text for item in getattr(page, items)]
                if len(got) >= total:
                    return

        with anyio.fail_after(90):
            async with anyio.create_task_group() as tasks:
                start = atlas.seq
                tasks.start_soon(follow, nova, channel.Read(channel="live", since=start, after=start), "messages", read)
                tasks.start_soon(follow, iris, inbox.Peek(after=start), "items", shown)
                for number in range(total):
                    await atlas.call(channel.Post(channel="live", text=str(number)))
                    if number in kills:
                        rig.kill(kills[number])
        assert read == shown == [str(number) for number in range(total)]


async def test_a_request_that_is_repeated_after_a_restart_has_the_same_outcome(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova, rig.connect() as owner:
        await atlas.call(channel.Open(channel="dev"))
        requests: list[tuple[Bus, Command]] = [
            (atlas, channel.Join(channel="new")),
            (atlas, channel.Post(channel="dev", text="hello @nova")),
            (atlas, dm.Post(to="nova", text="psst")),
            (atlas, task.Open(title="no id of its own")),
            (atlas, task.Open(task="t", title="with an id")),
            (nova, task.Claim(task="t", lease_s=600)),
            (nova, task.Renew(task="t", lease_s=700)),
            (nova, task.Handoff(task="t", to="atlas", direct=True)),
            (atlas, task.Complete(task="t", result="done")),
            (nova, task.Reopen(task="t")),
            (nova, task.Next(lease_s=600)),
            (owner, agent.Register(agent="late")),
            (owner, agent.Grant(agent="late", authority="auditor")),
        ]
        replies = []
        for number, (bus, request) in enumerate(requests):
            bus.seq = max(bus.seq, atlas.seq, nova.seq)
            replies.append(await bus.call(request, request_id=f"r{number}"))
        for victim in ("daemon", "server"):
            before = len(await _written(rig))
            rig.kill(victim)
            for number, (bus, request) in reversed(list(enumerate(requests))):
                assert await bus.call(request, request_id=f"r{number}") == replies[number], request
            assert len(await _written(rig)) == before
        with pytest.raises(Refused) as reused:
            await atlas.call(channel.Post(channel="dev", text="something else"), request_id="r1")
        assert reused.value.code == "request_reused"
        assert (await owner.call(log.Tables(verify=True))).equal


async def _written(rig: Rig) -> list[Any]:
    return [record for record in await rig.log() if record.headers["Bus-Type"] != "agent.presence_changed"]


async def test_a_full_log_takes_only_what_ends_something(small: Rig) -> None:
    async with small.connect("atlas") as atlas:
        await atlas.call(channel.Join(channel="dev"))
        for name in ("a", "b", "c"):
            await atlas.call(task.Open(task=name, title="x"))
            await atlas.call(task.Claim(task=name, lease_s=3600))
        acked = await _filled(atlas)
        # What ends something is still taken, though nothing else is.
        assert (await atlas.call(task.Release(task="a"))).state == "open"
        assert (await atlas.call(task.Complete(task="b", result="done"))).state == "done"
        assert (await atlas.call(task.Fail(task="c"))).state == "failed"
        for refused in (channel.Post(channel="dev", text="x"), task.Open(title="x"), task.Claim(task="a")):
            with pytest.raises(Refused, match="full"):
                await atlas.call(refused)
        # Everything acknowledged is there, and can be read.
        records = {record.seq: record.data.decode() for record in await small.log()}
        assert [seq for seq, text in acked.items() if text not in records[seq]] == []
        assert (await atlas.call(channel.Read(channel="dev", limit=1))).messages[0].seq == max(acked)
        assert (await atlas.call(task.Show(task="b"))).task.state == "done"
        # A new daemon measures anew, and comes to the same end.
        small.kill("daemon")
        assert len(await _filled(atlas)) < len(acked) / 2


async def _filled(bus: Bus) -> dict[int, str]:
    """Post, several at a time, until it is refused. -> what was acknowledged"""
    acked: dict[int, str] = {}
    refusals: list[BusError] = []

    async def fill() -> None:
        while not refusals:
            text = random.randbytes(3_000).hex()
            try:
                acked[(await bus.call(channel.Post(channel="dev", text=text))).seq] = text
            except BusError as error:
                refusals.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(fill)
    assert {(type(error), error.code) for error in refusals} == {(Refused, "quota")}
    assert refusals[0].problem.hint
    return acked


async def test_a_bus_that_was_stopped_is_left_stopped_by_who_was_connected(rig: Rig) -> None:
    """`bus down` must not be undone by a program that only follows; whoever comes anew starts the bus for both."""
    async with rig.connect("atlas") as atlas:
        await atlas.call(channel.Open(channel="live"))
        await anyio.to_thread.run_sync(lifecycle.down, rig.home)
        with pytest.raises(Unavailable) as refused:
            await atlas.call(channel.Post(channel="live", text="hello?"), timeout_s=3)
        assert refused.value.code == "stopped"
        assert lifecycle.status(rig.home).supervisor is None
        async with rig.connect("nova") as nova:
            posted = await nova.call(channel.Post(channel="live", text="up again"))
        answer = await atlas.call(channel.Read(channel="live", after=posted.seq))
        assert [message.text for message in answer.messages] == ["up again"]
