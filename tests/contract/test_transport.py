"""The connection against a real server: who is told what when something is missing, denied, broken or odd."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Any

import anyio
import pytest

from bus.errors import InvalidRequest, NotAllowed, Unavailable
from bus.transport import Connection, Message, connect

USERS = """
authorization { users: [
  { user: open, password: x }
  { user: narrow, password: x, permissions: {
      publish: { allow: ["ask.narrow.>"] }, subscribe: { allow: ["_INBOX.narrow.>", "mine.>"] } } }
] }
"""


def echo(connection: Connection) -> Any:
    return lambda message: connection.send(message.reply, message.data, message.headers)


async def test_a_request_is_answered_with_headers_and_any_bytes(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)
    await connection.subscribe("svc", echo(connection))
    for data in (b"", b"\r\n", b"PING\r\n\x00\xff", b"x" * 1_000_000):
        headers = {"One": "1", "Unicode": "grün: ja", "Empty": ""}
        answer = await connection.request("svc", data, headers)
        assert (answer.data, answer.headers, answer.status) == (data, headers, 0)
    assert (await connection.request("svc", b"bare")).headers == {}


async def test_requests_at_once_get_their_own_answers(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)
    await connection.subscribe("svc", echo(connection))
    answers = await asyncio.gather(*[connection.request("svc", b"%d" % number) for number in range(2000)])
    assert [int(answer.data) for answer in answers] == list(range(2000))


async def test_nobody_there_nobody_answering_and_nobody_any_more(make_server: Any, connecting: Any) -> None:
    server = make_server()
    connection = await connecting(server.url)
    with pytest.raises(Unavailable) as caught:
        await connection.request("nobody", b"")
    assert (caught.value.code, caught.value.details) == ("no_responders", {"sent": False})
    await connection.subscribe("silent", lambda message: None)
    with pytest.raises(Unavailable) as caught:
        await connection.request("silent", b"", timeout_s=0.05)
    assert (caught.value.code, caught.value.details) == ("timeout", {"sent": True})

    async def cut_off() -> None:
        with pytest.raises(Unavailable) as caught:
            await connection.request("silent", b"", timeout_s=30)
        assert (caught.value.code, caught.value.details) == ("disconnected", {"sent": True})
        with pytest.raises(Unavailable) as caught:
            await connection.request("silent", b"", timeout_s=30)
        assert (caught.value.code, caught.value.details) == ("disconnected", {"sent": False})

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(cut_off)
            await anyio.wait_all_tasks_blocked()
            server.kill()


async def test_several_replies_come_until_the_caller_stops(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)

    def serve(message: Message) -> None:
        for number in range(5):
            connection.send(message.reply, b"%d" % number)

    await connection.subscribe("many", serve)
    async with aclosing(connection.request_many([("many", b"", None)])) as replies:
        got = []
        async for reply in replies:
            got.append(reply.data)
            if reply.data == b"3":
                break
    assert got == [b"0", b"1", b"2", b"3"]
    got.clear()
    replies = connection.request_many([("many", b"", None)], timeout_s=0.1)
    with pytest.raises(Unavailable) as caught:
        got += [reply.data async for reply in replies]
    assert caught.value.code == "timeout"
    with pytest.raises(Unavailable) as caught:
        _ = [reply async for reply in connection.request_many([("nobody", b"", None)])]
    assert caught.value.code == "no_responders"


async def test_what_is_not_allowed_is_said_at_once(make_server: Any, connecting: Any) -> None:
    server = make_server(USERS)
    url = server.url.replace("//", "//narrow:x@")
    connection = await connecting(url, inbox="_INBOX.narrow")
    start = time.monotonic()
    for subject in ("ask.Other.do", "$JS.API.STREAM.INFO.LOG", "_INBOX.other.x"):
        with pytest.raises(NotAllowed):
            await connection.request(subject, b"", timeout_s=30)
    for subject in ("ask.>", ">", "_INBOX.>"):
        with pytest.raises(NotAllowed):
            await connection.subscribe(subject, lambda message: None)
    assert time.monotonic() - start < 5
    assert connection.counters.denied == 6
    assert connection.connected
    await connection.subscribe("mine.a", lambda message: None)
    with pytest.raises(Unavailable) as caught:
        await connection.request("ask.narrow.do", b"")
    assert caught.value.code == "no_responders"


async def test_a_foreign_inbox_and_wrong_credentials_are_refused(make_server: Any) -> None:
    server = make_server(USERS)
    with anyio.fail_after(5), pytest.raises(NotAllowed):
        async with connect(server.url.replace("//", "//narrow:x@"), name="test", inbox="_INBOX.other"):
            pass
    with anyio.fail_after(5), pytest.raises(NotAllowed) as caught:
        async with connect(server.url.replace("//", "//narrow:wrong@"), name="test", inbox="_INBOX.narrow"):
            pass
    assert caught.value.code == "bad_credentials"


async def test_where_nothing_listens_the_answer_comes_at_once() -> None:
    with anyio.fail_after(2), pytest.raises(Unavailable) as caught:
        async with connect("nats://127.0.0.1:1", name="test", inbox="_INBOX.test"):
            pass
    assert caught.value.code == "no_server"


async def test_the_second_of_two_servers_will_do(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(f"nats://127.0.0.1:1,{nats_server.url}")
    assert connection.connected


async def test_a_server_that_does_not_greet_is_not_waited_for(make_server: Any) -> None:
    server = make_server()
    server.freeze()
    with anyio.fail_after(5), pytest.raises(Unavailable):
        async with connect(server.url, name="test", inbox="_INBOX.test", connect_timeout_s=0.3):
            pass
    server.thaw()


async def test_subscriptions_come_back_and_states_are_told(make_server: Any, connecting: Any, wait_for: Any) -> None:
    server = make_server()
    states: list[bool] = []
    lost: list[int] = []
    connection = await connecting(server.url, on_state=states.append)
    await connection.subscribe("svc", echo(connection), on_lost=lambda: lost.append(1))
    gone = await connection.subscribe("gone", echo(connection))
    gone.unsubscribe()
    assert (connection.epoch, states) == (1, [True])
    server.kill()
    await wait_for(lambda: not connection.connected)
    during = await connection.subscribe("during", echo(connection))
    server.start()
    with anyio.fail_after(10):
        await connection.wait_connected()
    await wait_for(lambda: connection.epoch == 2)
    assert (states, lost) == ([True, False, True], [1])
    assert (await connection.request("svc", b"again")).data == b"again"
    assert (await connection.request("during", b"new")).data == b"new"
    assert during.received == 1
    with pytest.raises(Unavailable):
        await connection.request("gone", b"")


async def test_a_frozen_server_is_given_up_within_seconds(make_server: Any, connecting: Any, wait_for: Any) -> None:
    server = make_server()
    connection = await connecting(server.url)
    server.freeze()
    start = time.monotonic()
    await wait_for(lambda: not connection.connected)
    assert time.monotonic() - start < 5
    server.thaw()
    await wait_for(lambda: connection.epoch == 2)
    await connection.rtt()


async def test_closing_does_not_wait_for_a_frozen_server(make_server: Any) -> None:
    server = make_server()
    async with connect(server.url, name="test", inbox="_INBOX.test") as connection:
        server.freeze()
        for _ in range(30):
            connection.send("somewhere", b"x" * 1_000_000)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    server.thaw()
    with pytest.raises(Unavailable) as caught:
        await connection.wait_connected()
    assert caught.value.code == "closed"


async def test_closing_ends_an_attempt_to_connect_that_missed_its_cancellation(make_server: Any, wait_for: Any) -> None:
    async def deaf(times: int) -> None:
        for _ in range(times):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    server = make_server()
    async with connect(server.url, name="test", inbox="_INBOX.test") as connection:
        server.kill()
        await wait_for(lambda: not connection.connected)
        trying = connection._client._reconnection_task
        assert trying is not None
        trying.cancel()
        connection._client._reconnection_task = task = asyncio.create_task(deaf(2))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert task.done()


async def test_what_was_sent_before_closing_arrives(nats_server: Any, connecting: Any, wait_for: Any) -> None:
    receiver = await connecting(nats_server.url)
    got: list[bytes] = []
    await receiver.subscribe("last.words", lambda message: got.append(message.data))
    async with connect(nats_server.url, name="test", inbox="_INBOX.test") as connection:
        for number in range(1000):
            connection.send("last.words", b"%d" % number)
    await wait_for(lambda: len(got) == 1000)


async def test_publishing_waits_instead_of_filling_the_process(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)
    other = await connecting(nats_server.url)
    subscription = await other.subscribe("flood", lambda message: None)
    for _ in range(40):  # Less than the server holds for a slow reader.
        await connection.publish("flood", b"x" * 1_000_000)
        assert connection._client.pending_data_size < 6 << 20
    with anyio.fail_after(10):
        await connection.rtt()
        await other.rtt()
    assert subscription.received == 40


async def test_a_subscriber_that_fails_disturbs_nobody(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)
    await connection.subscribe("bad", lambda message: 1 / 0)
    await connection.subscribe("svc", echo(connection))
    connection.send("bad", b"")
    assert (await connection.request("svc", b"x")).data == b"x"
    assert connection.counters.callback_errors == 1
    assert connection.connected


async def test_odd_subjects_and_headers_of_others_do_not_break_the_connection(
    nats_server: Any, connecting: Any, wait_for: Any
) -> None:
    connection = await connecting(nats_server.url)
    got: list[Message] = []
    await connection.subscribe("odd.>", got.append)
    reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    writer.write("PUB odd.a\u00a0b\u2028c 2\r\nhi\r\n".encode())
    writer.write(b"PUB odd.\xff\xfe 2\r\nhi\r\n")
    head = b"NATS/1.0\r\nNoSpace:v\r\nno colon\r\nBad: \xff\r\nMany: a: b: c\r\n\r\n"
    writer.write(b"HPUB odd.headers %d %d\r\n%s\r\n" % (len(head), len(head), head))
    await writer.drain()
    await wait_for(lambda: len(got) == 3)
    assert got[0].subject == "odd.a\u00a0b\u2028c"
    assert got[2].headers["NoSpace"] == "v"
    assert got[2].headers["Many"] == "a: b: c"
    assert connection.epoch == 1
    writer.close()
    await writer.wait_closed()


async def test_nothing_that_is_sent_can_contain_a_second_command(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)
    for subject in ("", "a b", "a\r\nPUB b 0", "a\tb"):
        with pytest.raises(InvalidRequest):
            connection.send(subject, b"")
    for headers in ({"A": "x\r\nB: y"}, {"A\n": "x"}, {"A": "x\n"}, {"A": "\r"}):
        with pytest.raises(InvalidRequest):
            connection.send("a", b"", headers)
    with pytest.raises(InvalidRequest):
        connection.send("a", b"", reply="b c")
    with pytest.raises(InvalidRequest) as caught:
        connection.send("a", b"x" * connection.max_payload, {"A": "b"})
    assert caught.value.code == "too_large"
    await connection.rtt()
    assert connection.epoch == 1


async def test_a_queue_group_shares_the_work(nats_server: Any, connecting: Any) -> None:
    connection = await connecting(nats_server.url)
    subscriptions = [await connection.subscribe("work", echo(connection), queue="q") for _ in range(2)]
    await asyncio.gather(*[connection.request("work", b"") for _ in range(200)])
    counts = [subscription.received for subscription in subscriptions]
    assert sum(counts) == 200
    assert min(counts) > 20
