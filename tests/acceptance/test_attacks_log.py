"""What the daemon's own credentials cannot do to the log, and what an administrator's hand cannot do to its readers."""

from __future__ import annotations

import json
from typing import Any

import anyio
from nats.aio.client import Client

from bus.client import Bus
from bus.domain import channel, log
from bus.domain import task_requests as task
from tests.acceptance.support import WAIT_S, Rig, settled, until

TYPED = {"Bus-Schema": "1", "Bus-Entity": "dev", "Bus-Agent": "owner"}
POSTED = {"Bus-Type": "channel.posted", **TYPED}
DEEP = b'{"text": "x", "deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"

FORGED: list[dict[str, str]] = [
    {"Nats-Rollup": "all"},
    {"Nats-Rollup": "sub"},
    {"Nats-TTL": "1s"},
    {"Nats-TTL": "never"},
    {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "log.test.channel.1"},
    {"Nats-Incr": "+1"},
    {"Nats-Stream-Source": "LOG 1 > > log.test.channel.1"},
    {"Nats-Expected-Stream": "OTHER"},
    {"Nats-Expected-Last-Subject-Sequence": "99999"},
]
UNREADABLE: list[tuple[str, dict[str, str], bytes]] = [
    ("log.test.channel.7", POSTED, b"{"),
    ("log.test.channel.7", POSTED, b""),
    ("log.test.channel.7", POSTED, b"\xff\x00\xfe"),
    ("log.test.channel.7", POSTED, b'{"text": 5}'),
    ("log.test.channel.7", POSTED, b'{"text": "\\ud800"}'),
    ("log.test.channel.7", POSTED, b"\x00" * 1_000_000),
    ("log.test.channel.7", POSTED, DEEP),
    ("log.test.channel.7", {**POSTED, "Bus-Schema": "99"}, b'{"text": "from the future"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Schema": "²"}, b'{"text": "x"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Schema": "-1"}, b'{"text": "x"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Type": "channel.exploded"}, b"{}"),
    ("log.test.channel.7", {**POSTED, "Bus-Type": "task.opened"}, b'{"title": "in the wrong family"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Type": "x" * 60_000}, b"{}"),
    ("log.test.channel.7", {"Bus-Type": "channel.posted"}, b'{"text": "by nobody, nowhere"}'),
    ("log.test.channel.7", {}, b'{"text": "no headers"}'),
    ("log.test.nothing.7", {**TYPED, "Bus-Type": "nothing.happened"}, b"{}"),
    ("log.A-B.channel.x", POSTED, b'{"text": "no bucket"}'),
    ("log.test.channel.07", POSTED, b'{"text": "a bucket written in another way"}'),
    ("log.test.channel.7_0", POSTED, b'{"text": "a bucket written in another way"}'),
    ("log.ä.ö.ü", POSTED, b"{}"),
    ("log.test.inbox.7", {**TYPED, "Bus-Type": "inbox.shown"}, b'{"upto": 9007199254740993}'),
]
SENSELESS: list[tuple[str, dict[str, str], bytes]] = [
    ("log.test.channel.7", {**POSTED, "Bus-Causes": "1,x,,99999999999999999999"}, b'{"text": "causes"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Request": " a b c "}, b'{"text": "request"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Correlation": "%zz%ff", "Bus-At": "tomorrow"}, b'{"text": "odd"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Entity": "%00%FF"}, b'{"text": "\\u0000"}'),
    ("log.test.channel.7", {**POSTED, "Bus-Agent": "../\\'; drop table event --"}, b'{"text": "x"}'),
    ("log.test.task.7", {**TYPED, "Bus-Type": "task.completed", "Bus-Entity": "never-opened"}, b"{}"),
    (
        "log.test.task.7",
        {**TYPED, "Bus-Type": "task.claimed", "Bus-Entity": "never-opened"},
        b'{"lease_s": 1, "expires": "2030-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z"}',
    ),
    ("log._.log.7", {**TYPED, "Bus-Type": "log.sealed", "Bus-Entity": "other"}, b'{"upto": 0, "head": "x"}'),
    ("log._.tenant.98", {**TYPED, "Bus-Type": "tenant.founded"}, b'{"tenant": "second", "owner": "mallory"}'),
]


async def put(client: Client, subject: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Publish to the log and return the server's answer. Headers are sent byte for byte."""
    block = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    head = block.encode()
    command = f"HPUB {subject} {inbox} {len(head)} {len(head) + len(body)}\r\n".encode()
    await client._send_command(command + head + body + b"\r\n")
    await client.flush()
    message = await answers.next_msg(10)
    await answers.unsubscribe()
    answer: dict[str, Any] = json.loads(message.data)
    return answer


async def test_the_daemons_own_credentials_cannot_rewrite_the_log(rig: Rig) -> None:
    async with rig.connect() as bus:
        await bus.call(channel.Open(channel="dev"))
        before = await rig.log()
        async with rig.raw(rig.home.keyring.daemon()) as (client, errors):
            for headers in FORGED:
                answer = await put(client, "log.test.channel.1", headers, b"{}")
                assert "error" in answer, (headers, answer)
            for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "PEER.REMOVE"):
                errors.clear()
                await client.publish(f"$JS.API.STREAM.{verb}.LOG", b'{"seq": 1}', reply=client.new_inbox())
                await until(lambda: errors, what=f"the refusal of {verb}")
                assert "permissions violation" in errors[0]
            # An id that is known already is acknowledged as a duplicate, and nothing is stored.
            known = {"Nats-Msg-Id": before[0].headers["Nats-Msg-Id"]}
            assert (await put(client, "log.test.channel.1", known, b"{}"))["duplicate"]
        # Somebody may have been noticed as present meanwhile; nothing else was written, and nothing was changed.
        after = await rig.log()
        assert after[: len(before)] == before
        assert not [record for record in after if record.subject == "log.test.channel.1"]


async def test_an_administrator_cannot_delete_what_is_in_the_log(rig: Rig) -> None:
    before = await rig.log_when(bool)
    async with rig.raw(rig.home.keyring.admin()) as (client, _):
        for verb, body in {"PURGE": {}, "MSG.DELETE": {"seq": 1}, "MSG.DELETE ": {"seq": 1, "no_erase": True}}.items():
            request = f"$JS.API.STREAM.{verb.strip()}.LOG", json.dumps(body).encode()
            answer = await client.request(*request, timeout=WAIT_S)
            assert "error" in json.loads(answer.data), answer.data
    assert (await rig.log())[: len(before)] == before


async def test_batches_that_somebody_leaves_open_only_delay_others(rig: Rig) -> None:
    """The server allows so many open batches of a stream; whoever has the daemon's rights can use them all up."""
    async with rig.connect() as bus, rig.raw(rig.home.keyring.daemon()) as (client, _):
        await bus.call(channel.Open(channel="dev"))
        for number in range(60):
            headers = {"Nats-Batch-Id": f"left-open-{number}", "Nats-Batch-Sequence": "1"}
            await client.publish("log.test.channel.9", b"{}", headers=headers)
        await settled(client)
        posted: list[int] = []

        async def post(text: str) -> None:
            posted.append((await bus.call(channel.Post(channel="dev", text=text))).seq)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(post, str(number))
        assert len(set(posted)) == 50
    assert not [record for record in await rig.log() if record.subject == "log.test.channel.9"]


async def test_what_an_administrator_puts_into_the_log_stops_nobody(rig: Rig) -> None:
    async with rig.connect() as bus:
        await bus.call(channel.Join(channel="dev"))
        await bus.call(task.Open(task="t", title="x"))
        daemon, seqs = rig.pid("daemon"), []
        async with rig.raw(rig.home.keyring.daemon()) as (client, _):
            for subject, headers, body in (*UNREADABLE, *SENSELESS):
                answer = await put(client, subject, headers, body)
                assert "error" not in answer, (subject, headers, body[:50], answer)
                seqs.append(answer["seq"])
        # It goes on, also in the buckets that were written to.
        await serves(bus)
        assert rig.pid("daemon") == daemon
        # Everything is kept and shown; what could not be read says why.
        events = await listed(bus, seqs[0], seqs[-1])
        assert [event.seq for event in events] == list(range(seqs[0], seqs[-1] + 1))
        assert [event.seq for event in events if event.problem] == seqs[: len(UNREADABLE)]
        assert all(event.data is not None for event in events)
        for seq in seqs:
            assert (await bus.call(log.Show(event=seq))).event.seq == seq
        await until(lambda: rig.status()["skipped"] == len(UNREADABLE), what="the count of skipped events")
        await proved(bus)
        # The same after a restart, from the tables and from the log alone.
        rig.kill("daemon")
        await serves(bus)
        await proved(bus)
        await until(lambda: rig.status()["skipped"] == len(UNREADABLE), what="the count of skipped events")
        new = rig.pid("daemon")
        assert new != daemon


async def listed(bus: Bus, first: int, last: int) -> list[log.LogRow]:
    found: list[log.LogRow] = []
    while not found or found[-1].seq < last:
        found += (await bus.call(log.List(start=found[-1].seq + 1 if found else first, end=last))).events
    return found


async def proved(bus: Bus) -> None:
    moment = await bus.call(log.Tables(verify=True), timeout_s=60, on_progress=lambda progress: None)
    unequal = {name: table for name, table in moment.tables.items() if not table.equal}
    assert (unequal, moment.skipped) == ({}, len(UNREADABLE))


async def serves(bus: Bus) -> None:
    """Every bucket of a family can be written, wherever the administrator has been."""
    names = {f"t-{number}" for number in range(50)} | {"never-opened"}
    suffix = bus.seq
    for name in names:
        await bus.call(task.Open(task=f"{name}-{suffix}", title="x"))
    posted = await bus.call(channel.Post(channel="dev", text="still here"))
    page = await bus.call(channel.Read(channel="dev", limit=1))
    assert page.messages[-1].seq == posted.seq
