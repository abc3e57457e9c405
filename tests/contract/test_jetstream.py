"""What only a real server shows: crashes, freezes, lost answers, denials, and rivals for the lease."""

from __future__ import annotations

import json
import random
from contextlib import aclosing, suppress
from typing import Any

import anyio
import msgspec
import pytest

from bus.clock import SystemClock
from bus.errors import BusError, Defect, NotAllowed, Refused, Unavailable
from bus.events import MSG_ID
from bus.jetstream import DAEMON_PUBLISH, EXPECTED, PROJECTOR_PUBLISH, JetStreamLog, parse_ns
from bus.lease import LeaderLease
from bus.log import WrongExpectedSeq
from bus.provision import create_log
from bus.subjects import STREAM, life_subject


async def stored(log: JetStreamLog) -> list[Any]:
    head = await log.head()
    return [record async for records in log.read(0, head.seq) for record in records]


async def restarted(log: JetStreamLog) -> None:
    """Return when the log answers again."""
    with anyio.fail_after(20):
        while True:
            with suppress(Unavailable):
                await log.head()
                return
            await anyio.sleep(0.02)


async def test_no_acked_event_is_lost_and_none_is_stored_twice_when_the_server_is_killed(
    make_server: Any, connecting: Any, notes: Any, wait_for: Any
) -> None:
    server = make_server()
    connection = await connecting(server.url)
    await create_log(connection)
    log = JetStreamLog(connection, notes.codec)
    acked: dict[int, str] = {}
    drafted: set[str] = set()
    running = True

    async def write(number: int) -> None:
        """One writer has some buckets for itself, so every append must succeed in the end."""
        rng = random.Random(number)
        while running:
            drafts = [notes.draft(number * 10 + rng.randrange(3)) for _ in range(rng.choice([1, 1, 3, 20]))]
            drafted.update(draft.id for draft in drafts)
            seqs = await notes.append(log, *drafts)
            acked.update({seq: draft.id for seq, draft in zip(seqs, drafts, strict=True)})

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(write, number)
            for _ in range(3):
                enough = len(acked) + 300
                await wait_for(lambda enough=enough: len(acked) > enough)
                server.kill()
                server.start()
            enough = len(acked) + 100
            await wait_for(lambda: len(acked) > enough)
            running = False
    records = await stored(log)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert {record.seq: record.headers[MSG_ID] for record in records} == acked
    assert len(set(acked.values())) == len(acked) == len(drafted)


async def test_a_tail_goes_on_without_gap_or_repeat_when_the_server_is_killed(
    make_server: Any, connecting: Any, notes: Any, wait_for: Any
) -> None:
    server = make_server()
    connection = await connecting(server.url)
    await create_log(connection)
    log = JetStreamLog(connection, notes.codec)
    seen: list[int] = []

    async def follow() -> None:
        async with aclosing(log.tail(0)) as chunks:
            async for chunk in chunks:
                seen.extend(record.seq for record in chunk.records)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            for _ in range(3):
                for _ in range(2):
                    await notes.append(log, *[notes.draft(bucket) for bucket in range(600)])
                server.kill()
                server.start()
                seqs = await notes.append(log, notes.draft(1))
                await wait_for(lambda last=seqs[-1]: seen[-1:] == [last])
            group.cancel_scope.cancel()
    assert seen == list(range(1, 3604))


async def test_a_frozen_server_stores_once_what_was_sent_before_and_after(
    make_server: Any, connecting: Any, notes: Any, wait_for: Any
) -> None:
    """The client gives the connection up after some seconds; the server wakes up with both attempts before it."""
    server = make_server()
    connection = await connecting(server.url)
    await create_log(connection)
    log = JetStreamLog(connection, notes.codec)
    await notes.append(log, notes.draft(1))
    server.freeze()
    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            group.start_soon(notes.append, log, notes.draft(1))
            group.start_soon(notes.append, log, *[notes.draft(bucket) for bucket in (2, 3, 2)])
            await wait_for(lambda: connection.counters.disconnects == 1)
            with pytest.raises(Unavailable) as caught:
                connection.send("log.ns.note.9", b"")
            assert caught.value.code == "disconnected"
            server.thaw()
    records = await stored(log)
    assert len({record.headers[MSG_ID] for record in records}) == len(records) == 5
    assert notes.last == {record.subject: record.seq for record in records}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("rival", [False, True])
async def test_an_append_whose_answer_was_lost_is_found_again(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, notes: Any, wait_for: Any, size: int, rival: bool
) -> None:
    """Also when another has written to the same bucket behind it meanwhile."""
    direct = JetStreamLog(await fresh(), notes.codec)
    proxy = await make_proxy(tenant)
    connection = await connecting(proxy.url)
    log = JetStreamLog(connection, notes.codec)
    await notes.append(log, notes.draft(1))
    drafts = [notes.draft(1) for _ in range(size)]
    got: list[int] = []

    async def append() -> None:
        got.extend(await log.append(drafts, {notes.subject(1): 1}))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            proxy.loses_answers = True
            group.start_soon(append)
            while (await direct.head()).seq == 1:
                await anyio.sleep(0.01)
            if rival:
                await direct.append([notes.draft(1)], {notes.subject(1): 1 + size})
            proxy.loses_answers = False
            proxy.cut()
    assert got == list(range(2, 2 + size))
    records = await stored(direct)
    assert [record.headers[MSG_ID] for record in records[1 : 1 + size]] == [draft.id for draft in drafts]
    assert len(records) == 1 + size + rival


async def test_an_append_that_never_arrived_loses_against_a_rival(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, notes: Any, wait_for: Any
) -> None:
    direct = JetStreamLog(await fresh(), notes.codec)
    proxy = await make_proxy(tenant)
    connection = await connecting(proxy.url)
    log = JetStreamLog(connection, notes.codec)
    refused: list[WrongExpectedSeq] = []

    async def append() -> None:
        with pytest.raises(WrongExpectedSeq) as caught:
            await log.append([notes.draft(1)], {notes.subject(1): 0})
        refused.append(caught.value)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            proxy.stall()
            group.start_soon(append)
            await anyio.wait_all_tasks_blocked()
            await direct.append([notes.draft(1)], {notes.subject(1): 0})
            await direct.append([notes.draft(1)], {notes.subject(1): 1})
            proxy.cut()
            proxy.resume()
    assert refused[0].found_seq == 2
    assert len(await stored(direct)) == 2


async def test_nothing_is_delivered_late_when_the_connection_was_given_up(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, notes: Any, wait_for: Any
) -> None:
    """More is sent than the network takes: what has not left when the connection is given up is gone."""
    direct = JetStreamLog(await fresh(), notes.codec)
    proxy = await make_proxy(tenant)
    connection = await connecting(proxy.url)
    proxy.stall()
    sent = 0
    with anyio.fail_after(20), suppress(Unavailable):
        while connection.connected:
            await connection.publish(notes.subject(sent % 1024), b"x" * 500_000, {"Bus-Number": str(sent)})
            sent += 1
    assert sent > 8
    assert connection.counters.disconnects == 1
    proxy.resume()
    with anyio.fail_after(20):
        await connection.wait_connected()
        await connection.rtt()
    records = await stored(direct)
    assert [int(record.headers["Bus-Number"]) for record in records] == list(range(len(records)))
    assert len(records) < sent - 1


async def test_an_append_fails_when_there_is_no_server_and_nothing_is_in_doubt(
    make_server: Any, connecting: Any, notes: Any, wait_for: Any
) -> None:
    server = make_server()
    connection = await connecting(server.url)
    await create_log(connection)
    log = JetStreamLog(connection, notes.codec, patience_s=0.2)
    server.kill()
    await wait_for(lambda: not connection.connected)
    with anyio.fail_after(5), pytest.raises(Unavailable) as caught:
        await notes.append(log, notes.draft(1))
    assert caught.value.code == "disconnected"
    server.start()
    await restarted(log)
    assert await notes.append(log, notes.draft(1)) == [1]


async def test_a_server_without_the_log_is_unavailable(tenant: str, fresh: Any, notes: Any, api: Any) -> None:
    connection = await fresh()
    await api(connection, f"$JS.API.STREAM.DELETE.{STREAM}")
    log = JetStreamLog(connection, notes.codec, patience_s=0.2)
    with anyio.fail_after(5), pytest.raises(Unavailable) as caught:
        await notes.append(log, notes.draft(1))
    assert caught.value.code == "no_responders"
    with pytest.raises(Unavailable):
        await log.head()


@pytest.mark.parametrize(
    ("operation", "request_"),
    [("STREAM.MSG.DELETE", {"seq": 1}), ("STREAM.MSG.DELETE", {"seq": 1, "no_erase": True}), ("STREAM.PURGE", None)],
)
async def test_nobody_deletes_an_event(fresh: Any, notes: Any, api: Any, operation: str, request_: Any) -> None:
    connection = await fresh()
    log = JetStreamLog(connection, notes.codec)
    await notes.append(log, notes.draft(1))
    assert "error" in await api(connection, f"$JS.API.{operation}.{STREAM}", request_)
    assert (await log.get(1)).seq == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "sub"},
        {"Nats-Rollup": "all"},
        {"Nats-TTL": "1s"},
        {"Nats-Incr": "+1"},
        {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "log.ns.note.2"},
    ],
)
async def test_no_header_undoes_the_log(fresh: Any, notes: Any, headers: dict[str, str]) -> None:
    connection = await fresh()
    log = JetStreamLog(connection, notes.codec)
    await notes.append(log, notes.draft(1))
    answer = await connection.request(notes.subject(1), b"", headers)
    assert "error" in msgspec.json.decode(answer.data)
    assert len(await stored(log)) == 1


async def test_a_log_that_is_shorter_than_what_was_read_is_not_followed(fresh: Any, notes: Any) -> None:
    log = JetStreamLog(await fresh(), notes.codec)
    await notes.append(log, notes.draft(1))
    with anyio.fail_after(10), pytest.raises(Defect) as caught:
        await anext(log.tail(2))
    assert caught.value.code == "log_set_back"


async def test_creating_the_log_twice_changes_nothing_but_its_size(fresh: Any, notes: Any) -> None:
    connection = await fresh()
    log = JetStreamLog(connection, notes.codec)
    await notes.append(log, notes.draft(1))
    await create_log(connection)
    await create_log(connection, max_bytes=1 << 30)
    assert (await JetStreamLog(connection, notes.codec).head()).max_bytes == 1 << 30
    assert (await log.head()).seq == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"allow_msg_ttl": True}, "allow_msg_ttl=True"),
        ({"max_age": 3_600_000_000_000}, "max_age=3600000000000"),
        ({"max_msgs": 5}, "max_msgs=5"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject=5"),
        ({"subjects": ["log.>"]}, "subjects=['log.>']"),
        ({"discard": "old"}, "discard=old"),
        ({"republish": {"src": ">", "dest": "copy.>"}}, "republish="),
    ],
)
async def test_a_log_that_was_changed_by_hand_is_named(
    fresh: Any, notes: Any, api: Any, change: dict[str, Any], named: str
) -> None:
    connection = await fresh()
    config = (await api(connection, f"$JS.API.STREAM.INFO.{STREAM}"))["config"]
    changed = await api(connection, f"$JS.API.STREAM.UPDATE.{STREAM}", config | change)
    if "error" in changed:
        pytest.fail(f"the server did not make the change: {changed['error']}")
    with pytest.raises(Refused) as caught:
        await create_log(connection)
    assert caught.value.code == "bad_stream"
    assert named in (caught.value.problem.found or "")


async def test_an_event_that_somebody_wrote_by_hand_is_read_like_any_other(fresh: Any, notes: Any) -> None:
    connection = await fresh()
    log = JetStreamLog(connection, notes.codec)
    odd = {"Bus-Type": "no such type", "Nats-Subject": "log.x.y.1", "Empty": "", "Colon": "a: b:c"}
    await connection.request("log.ns.note.3", b"\xff\x00\r\nNATS/1.0\r\n", odd)
    record = (await stored(log))[0]
    assert record.data == b"\xff\x00\r\nNATS/1.0\r\n"
    assert {name: record.headers[name] for name in odd} == odd
    fetched = await log.get(1)
    assert (fetched.subject, fetched.data) == (record.subject, record.data)
    assert notes.codec.decode(record).seq == 1


async def test_an_id_that_is_used_again_is_a_defect_and_not_a_success(fresh: Any, notes: Any) -> None:
    log = JetStreamLog(await fresh(), notes.codec)
    draft = notes.draft(1)
    await notes.append(log, draft)
    again = msgspec.structs.replace(draft, bucket=2)
    for drafts in ([again], [notes.draft(3), again]):
        with pytest.raises(BusError) as caught:
            await log.append(drafts, {draft.subject: 0 for draft in drafts})
        assert caught.value.code == "duplicate_id"
    assert (await log.head()).seq == 1


async def test_every_message_carries_the_expectation_of_its_own_bucket_once(fresh: Any, notes: Any) -> None:
    log = JetStreamLog(await fresh(), notes.codec)
    await notes.append(log, notes.draft(1))
    await notes.append(log, *[notes.draft(bucket) for bucket in (1, 2, 1, 2)])
    records = await stored(log)
    assert [record.headers.get(EXPECTED) for record in records] == ["0", "1", "0", None, None]


async def test_the_rights_that_are_asked_for_are_enough_and_reading_needs_fewer(
    make_server: Any, connecting: Any, notes: Any
) -> None:
    def user(name: str, publish: tuple[str, ...], *subscribe: str) -> str:
        may = {"publish": publish, "subscribe": [f"_INBOX.{name}.>", *subscribe]}
        return f"{{ user: {name}, password: x, permissions: {json.dumps(may)} }}"

    daemon_user = user("daemon", (*DAEMON_PUBLISH, life_subject("*")), life_subject("*"))
    users = ["{ user: admin, password: x }", daemon_user, user("projector", PROJECTOR_PUBLISH)]
    server = make_server("authorization { users: [\n" + "\n".join(users) + "\n] }")

    async def log_of(name: str) -> tuple[Any, JetStreamLog]:
        connection = await connecting(server.url.replace("//", f"//{name}:x@"), inbox=f"_INBOX.{name}")
        return connection, JetStreamLog(connection, notes.codec)

    await create_log((await log_of("admin"))[0])
    connection, daemon = await log_of("daemon")
    await notes.append(daemon, notes.draft(1))
    await notes.append(daemon, notes.draft(1), notes.draft(2))
    assert len(await stored(daemon)) == 3
    lease = LeaderLease(connection, "m1", SystemClock())
    assert await lease.step()
    assert await lease.step()
    await lease.release()
    reader, projector = await log_of("projector")
    assert await stored(projector) == await stored(daemon)
    assert await projector.get(2) == await daemon.get(2)
    with pytest.raises(NotAllowed):
        await notes.append(projector, notes.draft(1))
    assert (connection.counters.denied, reader.counters.denied) == (0, 1)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-21T05:47:59.123456789Z", 1_795_240_079_123_456_789),
        ("2026-11-21T05:47:59.1Z", 1_795_240_079_100_000_000),
        ("2026-11-21T07:47:59.000000001+02:00", 1_795_240_079_000_000_001),
    ],
)
def test_instants_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert parse_ns(text) == ns


@pytest.mark.parametrize("text", ["", "2026-11-21", "2026-11-21T05:47:59", "2026-11-21T05:47:59.1234567890Z", "now"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an instant"):
        parse_ns(text)
