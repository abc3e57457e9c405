"""Agents that flood, agents that are not there any more, and agents that never were."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from bus import auth, keyring
from bus.client import Bus
from bus.domain import agent, channel
from bus.errors import NotAllowed, Unavailable
from bus.server import read_server
from tests.acceptance.hostile import Mallory, acting, count, written
from tests.acceptance.support import Rig, running, settled, until

CONFIG = "[ask]\nrate_per_s = 500\nburst = 1000\npending_per_agent = 200\nmute_s = 0.5\n"
POST = {"channel": "dev", "text": "flood", "namespace": "test"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("agents"), CONFIG) as rig:
        yield rig


@pytest.fixture
async def owner(rig: Rig) -> AsyncIterator[Bus]:
    async with rig.connect() as bus:
        await bus.call(channel.Open(channel="dev"))
        await bus.call(agent.Register(agent="mallory"))
        daemon = rig.pid("daemon")
        yield bus
        assert (await bus.call(channel.Post(channel="dev", text="still here"))).seq
        assert rig.pid("daemon") == daemon


# --- floods -----------------------------------------------------------------------------------------------------------


async def test_who_floods_is_told_busy_then_cut_off_and_heard_again_when_it_stops(rig: Rig, owner: Bus) -> None:
    known = Counter(rig.status().get("counters", {}))
    async with acting(rig) as mallory:
        told: Counter[str] = Counter()
        inbox = mallory.client.new_inbox()

        async def answered(message: Msg) -> None:
            silent = (message.headers or {}).get("Status") == "503"
            told["no responder" if silent else json.loads(message.data).get("error", {}).get("code", "")] += 1

        await mallory.client.subscribe(inbox, cb=answered, pending_msgs_limit=1_000_000)
        honest = 0
        while not (told["busy"] and told["no responder"]):
            for _ in range(2000):
                await mallory.client.publish("ask.mallory.do.channel.post", json.dumps(POST).encode(), reply=inbox)
            # An honest agent is served meanwhile, by the same daemon.
            await owner.call(channel.Post(channel="dev", text=f"honest {honest}"), timeout_s=5)
            honest += 1
        print(f"{dict(told)}, {honest} honest requests answered meanwhile")

        async def served() -> bool:
            try:
                return "seq" in await mallory.ask("do.channel.post", POST)
            except NoRespondersError:
                return False

        await until(served, what="an end of the silence")
    await count(rig, "busy", known["busy"])
    await count(rig, "muted", known["muted"])


async def test_many_waiting_queries_of_one_agent_leave_room_for_others(rig: Rig, owner: Bus) -> None:
    """Queries that wait cost their asker, not everybody else."""
    async with acting(rig) as mallory:
        inbox = mallory.client.new_inbox()
        await mallory.client.subscribe(inbox)
        read = {"channel": "dev", "namespace": "test", "since": 1_000_000, "wait_s": 30}
        for _ in range(400):
            await mallory.client.publish("ask.mallory.see.channel.read", json.dumps(read).encode(), reply=inbox)
        await settled(mallory.client)
        with anyio.fail_after(10):
            for _ in range(20):
                await owner.call(channel.Post(channel="dev", text="x"))
                await owner.call(channel.Read(channel="dev", limit=1))
    await count(rig, "busy", 0)


# --- who is not there -------------------------------------------------------------------------------------------------


async def test_a_deactivated_agent_is_out_at_once(rig: Rig, owner: Bus) -> None:
    await owner.call(agent.Register(agent="trudy"))
    async with acting(rig, "trudy") as trudy:
        assert "seq" in await trudy.ask("do.channel.post", POST)
        out = await owner.call(agent.Deactivate(agent="trudy"))
        await until(lambda: _gone(trudy), what="no responder")
        after = out.seq
        # It waits for nobody: by now it would have been written.
        await owner.call(channel.Post(channel="dev", text="x"))
        assert await written(rig, after) == [("channel.posted", "owner")]
        await owner.call(agent.Reactivate(agent="trudy"))

        async def back() -> bool:
            try:
                return "seq" in await trudy.ask("do.channel.post", POST)
            except NoRespondersError:
                return False

        await until(back)


async def _gone(asker: Mallory) -> bool:
    """Whether nobody serves it any more. What it asks in the moment before is refused or met with silence."""
    gone = []
    for ask, body in (("do.channel.post", POST), ("see.channel.read", {"channel": "dev", "namespace": "test"})):
        try:
            error = await asker.refused(ask, body, timeout_s=0.5)
        except (NoRespondersError, TimeoutError) as error:
            gone.append(isinstance(error, NoRespondersError))
        else:
            assert error["code"] == "inactive"
    return gone == [True, True]


async def test_an_agent_that_was_never_registered_has_no_responder(rig: Rig, owner: Bus) -> None:
    after = owner.seq
    async with acting(rig, "ghost") as ghost:
        for ask in ("do.channel.post", "see.channel.read", "do.agent.register"):
            with pytest.raises(NoRespondersError):
                await ghost.ask(ask, {"agent": "ghost"})
    with pytest.raises(Unavailable, match="nobody answers for this agent"):
        async with rig.connect("ghost", timeout_s=1) as bus:
            await bus.call(channel.Post(channel="dev", text="x"))
    assert [pair for pair in await written(rig, after) if pair[1] == "ghost"] == []


async def test_revoked_credentials_are_worth_nothing(rig: Rig, owner: Bus) -> None:
    await owner.call(agent.Register(agent="eve"))
    server = read_server(rig.home)
    assert server is not None
    creds = rig.home.keyring.agent("eve")
    async with rig.raw(creds) as (client, errors):
        eve = Mallory(client, errors, "eve")
        assert "seq" in await eve.ask("do.channel.post", POST)
        # What was issued in the same second as the revocation is void too.
        account = rig.home.keyring.revoke("eve")
        await auth.push_account(server.url, rig.home.keyring.load(), account, keyring.now_s())
        await until(lambda: client.is_closed, what="the end of the connection")
    with pytest.raises(Exception, match="(?i)authorization"):  # noqa: RUF043
        async with rig.raw(creds):
            pass
    with pytest.raises(NotAllowed):
        rig.home.keyring.agent("eve")
