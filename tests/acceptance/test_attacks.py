"""What a hostile agent can try with its credentials and any NATS client, and that it gets nothing for it.

After every test the daemon is the same process as before, and an honest agent is served.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from nats.errors import NoRespondersError

from bus.domain import agent, channel
from bus.errors import InvalidRequest
from tests.acceptance.hostile import Mallory, acting, count, written
from tests.acceptance.support import Rig, running, settled, until

CONFIG = "[ask]\nrate_per_s = 500\nburst = 1000\npending_per_agent = 200\nmute_s = 0.5\n"
BAD_NAMES = ["*", ">", "a.b", "a b", "A", "", "-x", "ä", "a" * 64, "a" * 10_000, "_daemon-main", "a\nb", "a\0", "%2A"]
DEEP = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD_BODIES = [
    *(b"{", b"\xff\xfe\x00", b"[]", b'"x"', b"null", b"1", b"{}", b"NaN", b'{"text": "\\ud800"}', DEEP),
    *(b'{"text": 5, "channel": "dev"}', b'{"text": "", "channel": "dev"}', b'{"text": "x", "channel": "dev", "x": 1}'),
    *(b'{"text": "x", "channel": ["dev"]}', b'{"text": "x", "channel": "dev", "after": -1}', b'{"text": 1e999}'),
    *(b'{"text": "x", "channel": "dev", "fence": "T"}', b'{"text": "x", "channel": "dev", "causes": [0]}'),
    b'{"text": "x", "channel": "dev", "after": 99999999999999999999}',
    b'{"text": "x", "channel": "dev", "after": 1000000}',
    b'{"text": "x", "channel": "dev", "mentions": ["*"]}',
    b'{"text": "' + b"x" * 300_000 + b'", "channel": "dev"}',
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("attacks"), CONFIG) as rig:
        yield rig


@pytest.fixture(autouse=True)
async def unharmed(rig: Rig) -> AsyncIterator[None]:
    async with rig.connect(namespace="default") as bus:
        await bus.call(channel.Open(channel="dev"))
        await bus.call(agent.Register(agent="mallory"))
        daemon = rig.pid("daemon")
        yield
        posted = await bus.call(channel.Post(channel="dev", text="still here"))
        page = await bus.call(channel.Read(channel="dev", limit=1))
        assert page.messages[0].seq == posted.seq
        assert rig.pid("daemon") == daemon


@pytest.fixture
async def mallory(rig: Rig) -> AsyncIterator[Mallory]:
    async with acting(rig) as mallory:
        yield mallory


# --- as somebody else, and what is not asking ------------------------------------------------------------------------


async def test_it_cannot_ask_as_another_nor_touch_what_is_not_asking(rig: Rig, mallory: Mallory) -> None:
    after = len(await rig.log())
    body = b'{"text": "owned", "channel": "dev"}'
    elsewhere = [
        "ask.owner.do.channel.post",
        "ask.system.do.channel.post",
        "ask.*.do.x.y",
        "ask.>",
        "ask.mallory.do..",
        "_INBOX.owner.x",
    ]
    elsewhere += ["log.test.channel.1", "log._.agent.1", "$KV.leader.leader", "$JS.API.STREAM.INFO.LOG", "$JS.API.INFO"]
    elsewhere += [f"$JS.API.STREAM.{verb}.LOG" for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE")]
    elsewhere += ["$JS.API.CONSUMER.CREATE.LOG.x", "$JS.API.DIRECT.GET.LOG", "$SYS.REQ.CLAIMS.UPDATE", "$JS.ACK.LOG.x"]
    for subject in elsewhere:
        await mallory.denied(mallory.client.publish(subject, body), subject)
        await mallory.denied(mallory.client.publish(subject, body, reply=mallory.client.new_inbox()), subject)
    for subject in (">", "*", "ask.>", "ask.mallory.>", "log.>", "_INBOX.>", "_INBOX.*.>", "_INBOX.owner.>", "$KV.>"):
        await mallory.denied(mallory.client.subscribe(subject), subject)
    assert await written(rig, after) == []


async def test_answers_go_to_nobody_else(rig: Rig, mallory: Mallory) -> None:
    """The daemon may write where the asker may not, so an answer aimed elsewhere is dropped and counted."""
    async with (
        rig.raw(rig.home.keyring.daemon()) as (daemon, _),
        rig.raw(rig.home.keyring.agent("owner")) as (owner, _),
    ):
        victim, asks = await owner.subscribe("_INBOX.owner.>"), await daemon.subscribe("ask.owner.>")
        await settled(owner)
        await settled(daemon)
        after, known = len(await rig.log()), rig.status().get("counters", {}).get("foreign_reply", 0)
        aims = ["_INBOX.owner.x", "ask.owner.do.channel.archive", "log.test.channel.5", "_INBOX.mallory", "_INBOX"]
        aims += ["$KV.leader.leader", "$JS.API.STREAM.PURGE.LOG", "_INBOX.malloryx.1", "anything", "_INBOX.mallory_.1"]
        for reply in aims:
            for ask in ("do.channel.post", "see.channel.read", "do.no.such"):
                body = b'{"channel": "dev", "text": "aimed"}' if ask.startswith("do") else b'{"channel": "dev"}'
                await mallory.client.publish(f"ask.mallory.{ask}", body, reply=reply)
        # Requests of one connection are served in order: when this one is answered, the others have been dropped.
        assert "seq" in await mallory.ask("do.channel.post", {"channel": "dev", "text": "honest"})
        assert await written(rig, after) == [("channel.posted", "mallory")]
        await settled(owner)
        assert (victim.pending_msgs, asks.pending_msgs) == (0, 0)
    await count(rig, "foreign_reply", known + 3 * len(aims) - 1)


async def test_what_only_the_daemon_may_ask_is_refused(rig: Rig, mallory: Mallory) -> None:
    after = len(await rig.log())
    for ask, body in {
        "do.tenant.found": {"tenant": "local", "owner": "mallory"},
        "do.inbox.show": {"upto": 1, "seqs": [1]},
        "do.log.seal": {"upto": 1, "head": "00"},
        "do.agent.change_presence": {"agent": "owner", "presence": "offline"},
        "do.agent.grant": {"agent": "mallory", "authority": "owner"},
        "do.agent.register": {"agent": "second"},
        "do.agent.deactivate": {"agent": "owner"},
        "see.log.list": {},
        "see.log.show": {"event": 1},
        "see.replay.tables": {},
        "see.replay.table": {"table": "agent"},
        "see.replay.sql": {"sql": "select 1"},
    }.items():
        assert (await mallory.refused(ask, body))["kind"] == "NotAllowed", ask
    for ask in (
        "do.no.such",
        "see.task.claim",
        "do.task.list",
        "do.task.*",
        "do.task.%2A",
        "do.task.>",
        "see.Task.list",
    ):
        assert (await mallory.refused(ask, {}))["code"] == "unknown_operation", ask
    assert await written(rig, after) == []


async def test_subjects_that_are_no_request_are_counted_and_change_nothing(rig: Rig, mallory: Mallory) -> None:
    after, known = len(await rig.log()), rig.status().get("counters", {}).get("bad_subject", 0)
    bad = ["do.task", "do.task.claim.x", "see.task.list.x.y.z", "do." + "x" * 2000 + ".y.z"]
    for ask in bad:
        await mallory.client.publish(f"ask.mallory.{ask}", b"{}", reply=mallory.client.new_inbox())
    await settled(mallory.client)
    with pytest.raises(NoRespondersError):
        await mallory.ask("perhaps.task.claim", {})
    await count(rig, "bad_subject", known + len(bad) - 1)
    # A subject that the server itself finds too long ends the connection of who sends it, and nothing else.
    async with acting(rig) as other:
        await other.client.publish("ask.mallory.do." + "x" * 10_000, b"{}")
        await until(lambda: other.client.is_closed)
    assert await written(rig, after) == []


# --- names, bodies, ids, headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:12]))
async def test_names_that_could_mean_more_are_never_taken(rig: Rig, mallory: Mallory, name: str) -> None:
    after = len(await rig.log())
    with pytest.raises(InvalidRequest):
        rig.home.keyring.agent(name)
    async with acting(rig, "owner") as owner:
        for ask, body in (
            ("do.agent.register", {"agent": name}),
            ("do.channel.open", {"channel": name}),
            ("do.channel.open", {"channel": "x", "namespace": name}),
            ("do.dm.post", {"to": name, "text": "x"}),
            ("do.task.open", {"task": name + ".", "title": "x"}),
        ):
            assert (await owner.refused(ask, body))["kind"] == "InvalidRequest", (ask, body)
    assert await written(rig, after) == []


@pytest.mark.parametrize("reserved", ["system"])
async def test_the_name_of_the_bus_itself_is_never_taken(rig: Rig, reserved: str) -> None:
    with pytest.raises(InvalidRequest):
        rig.home.keyring.agent(reserved)
    async with acting(rig, "owner") as owner:
        assert (await owner.refused("do.agent.register", {"agent": reserved}))["kind"] == "InvalidRequest"


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:40]))
async def test_a_body_that_cannot_be_meant_is_refused_in_words(rig: Rig, mallory: Mallory, body: bytes) -> None:
    after = len(await rig.log())
    error = await mallory.refused("do.channel.post", body)
    assert error["kind"] == "InvalidRequest"
    assert error["message"]
    assert await written(rig, after) == []


async def test_queries_that_cannot_be_meant_are_refused_in_words(mallory: Mallory) -> None:
    for query in (
        *({"as_of": moment} for moment in ("now", "-10y", "2999-01-01T00:00:00Z", -1, 10**9, "", "'; drop", "-9" * 99)),
        *({"wait_s": 1e9}, {"wait_s": -1}, {"limit": 0}, {"limit": 10**9}, {"since": -1}, {"namespace": "*"}),
        *({"before": 0}, {"thread": "1"}, {"after": 10**9}),
    ):
        assert (await mallory.refused("see.channel.read", {"channel": "dev", **query}))["kind"] == "InvalidRequest"


async def test_what_is_too_large_ends_at_the_door(rig: Rig) -> None:
    after = len(await rig.log())
    async with acting(rig) as other:
        with pytest.raises(Exception, match="maximum payload"):
            await other.ask("do.channel.post", b"x" * 1_100_000)
    async with acting(rig) as other:
        assert (await other.refused("do.channel.post", b"x" * 1_000_000))["kind"] == "InvalidRequest"
    assert await written(rig, after) == []


@pytest.mark.parametrize("id_", ["", "a b", "x" * 65, "ä", "*", "../x", "a.b"])
async def test_a_bad_request_id_is_refused(rig: Rig, mallory: Mallory, id_: str) -> None:
    after = len(await rig.log())
    reply = mallory.client.new_inbox()
    inbox = await mallory.client.subscribe(reply)
    block = f"NATS/1.0\r\nBus-Request: {id_}\r\n\r\n".encode()
    await mallory.send_raw("ask.mallory.do.channel.post", reply, block, b'{"channel": "dev", "text": "x"}')
    answer = json.loads((await inbox.next_msg(10)).data)
    assert answer["error"]["code"] == "bad_request_id", answer
    assert await written(rig, after) == []


async def test_a_request_id_belongs_to_one_request_of_one_agent(rig: Rig, mallory: Mallory) -> None:
    async with acting(rig, "owner") as owner:
        theirs = await owner.ask("do.channel.post", {"channel": "dev", "text": "one"}, Bus_Request="the-id")
        mine = await mallory.ask("do.channel.post", {"channel": "dev", "text": "one"}, Bus_Request="the-id")
        assert mine["seq"] != theirs["seq"]
        assert mine == await mallory.ask("do.channel.post", {"channel": "dev", "text": "one"}, Bus_Request="the-id")
        other = {"channel": "dev", "text": "two"}
        assert (await mallory.refused("do.channel.post", other, Bus_Request="the-id"))["code"] == "request_reused"
        assert (await mallory.refused("do.channel.leave", {"channel": "dev"}, Bus_Request="the-id"))[
            "kind"
        ] == "Refused"


BLOCKS = [
    b"NATS/1.0\r\nBus-Request: i1\r\nBus-Agent: owner\r\nBus-Type: agent.authority_granted\r\nNats-Msg-Id: m\r\n\r\n",
    b"NATS/1.0\r\nBus-Request: i2\r\nNats-Rollup: all\r\nNats-TTL: 1s\r\nNats-Stream-Source: LOG 1\r\n\r\n",
    b"NATS/1.0\r\ntraceparent: 00-x\nNats-Rollup: all\nBus-Agent: owner\r\n\r\n",
    b"NATS/1.0\r\ntraceparent: 00-x\rBus-Agent: owner\r\n\r\n",
    b"NATS/1.0\r\ntraceparent: " + b"x" * 700_000 + b"\r\n\r\n",
    b"NATS/1.0\r\ntraceparent: " + b"x" * 898_000 + b"\r\n\r\n",
    b"NATS/1.0\r\ntraceparent: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nno colon here\r\n: empty\r\n\xff: \xfe\r\n\r\n",
    b"NATS/1.0 503\r\nStatus: 503\r\n\r\n",
    b"NATS/1.0\r\n\r\n",
    b"garbage\r\n\r\n",
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: repr(block[8:50]))
async def test_headers_say_nothing_in_anothers_name(rig: Rig, mallory: Mallory, block: bytes) -> None:
    after = len(await rig.log())
    reply = mallory.client.new_inbox()
    inbox = await mallory.client.subscribe(reply)
    body = json.dumps({"channel": "dev", "text": "x" * 150_000}).encode()
    await mallory.send_raw("ask.mallory.do.channel.post", reply, block, body)
    answer = json.loads((await inbox.next_msg(10)).data)
    assert answer.get("error", {}).get("kind") != "Defect", answer
    records = [record for record in await rig.log(after) if record.headers["Bus-Type"] != "agent.presence_changed"]
    assert [record.headers["Bus-Agent"] for record in records] == ["mallory"] * ("seq" in answer)
    for record in records:
        assert record.headers["Bus-Type"] == "channel.posted"
        assert not {"Nats-Rollup", "Nats-TTL", "Nats-Stream-Source", "Status"} & set(record.headers)
        assert record.headers["Nats-Msg-Id"] != "m"
