"""Following the log when the consumer misbehaves: a connection in the test's hand plays the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from bus import tail
from bus.errors import Defect, Unavailable
from bus.log import Chunk
from bus.wire import Message


class Subscribed:
    def __init__(self, receive: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        self.receive, self.lost = receive, on_lost
        self.open = True

    def unsubscribe(self) -> None:
        self.open = False


class Played:
    """Notes what the tail asks for. `refusals` are the answers to the next attempts to create a consumer."""

    connected = True
    length = 1_000

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.pulls: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.refusals: list[Any] = []
        self.subscribed: list[Subscribed] = []

    def new_inbox(self) -> str:
        return "_INBOX.test.s.1"

    async def subscribe(self, subject: str, callback: Any, on_lost: Any) -> Subscribed:
        self.subscribed.append(Subscribed(callback, on_lost))
        return self.subscribed[-1]

    async def request(self, subject: str, data: bytes, timeout_s: float) -> Message:
        if self.refusals:
            refusal = self.refusals.pop(0)
            if isinstance(refusal, Exception):
                raise refusal
            return Message(subject, "", {}, msgspec.json.encode({"error": refusal}))
        if ".STREAM.INFO." in subject:
            return Message(subject, "", {}, msgspec.json.encode({"state": {"last_seq": self.length}}))
        self.starts.append(msgspec.json.decode(data)["config"]["opt_start_seq"])
        return Message(subject, "", {}, b"{}")

    def send(self, subject: str, data: bytes, reply: str = "") -> None:
        if ".DELETE." in subject:
            self.deleted.append(subject)
        else:
            self.pulls.append(msgspec.json.decode(data))

    async def wait_connected(self) -> None:
        await anyio.sleep(0)

    def event(self, seq: int, number: int, pending: int = 0, version: int = 1) -> None:
        place = f"LOG.tail.1.{seq}.{number}.17.{pending}"
        reply = f"$JS.ACK.{place}" if version == 1 else f"$JS.ACK._.hash.{place}.random"
        self.subscribed[-1].receive(Message("log.ns.note.1", reply, {"Bus-Type": "t"}, b"{}"))

    def status(self, status: int, reason: str, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.subscribed[-1].receive(Message("_INBOX.test.s.1", "", named, b"", status, reason))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "SILENCE_S", 0.05)
    monkeypatch.setattr(tail, "REBUILD_S", 0.001)


@asynccontextmanager
async def following(played: Played, after: int = 0) -> AsyncIterator[list[Chunk]]:
    """The chunks that a tail hands on while the context lasts."""
    chunks: list[Chunk] = []

    async def follow() -> None:
        async with aclosing(tail.follow(played, after)) as source:  # type: ignore[arg-type]
            async for chunk in source:
                chunks.append(chunk)

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await until(lambda: bool(played.starts))
        yield chunks
        group.cancel_scope.cancel()
    assert not any(subscribed.open for subscribed in played.subscribed)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.001)


def seqs(chunks: list[Chunk]) -> list[int]:
    return [record.seq for chunk in chunks for record in chunk.records]


@pytest.mark.parametrize("version", [1, 2])
async def test_records_come_as_they_are_and_at_once(version: int) -> None:
    played = Played()
    async with following(played, after=41) as chunks:
        assert played.starts == [42]
        for number in range(1, 4):
            played.event(41 + number, number, pending=3 - number, version=version)
        await until(lambda: seqs(chunks) == [42, 43, 44])
        assert (len(chunks), chunks[0].pending) == (1, 0)
        record = chunks[0].records[0]
        assert (record.subject, record.time_ns, record.headers, record.data) == (
            "log.ns.note.1",
            17,
            {"Bus-Type": "t"},
            b"{}",
        )
    assert len(played.deleted) == 1


async def test_what_arrived_out_of_order_is_fetched_again() -> None:
    played = Played()
    async with following(played) as chunks:
        played.event(1, 1)
        played.event(2, 2)
        played.event(4, 4)
        await until(lambda: len(played.starts) == 2)
        assert (seqs(chunks), played.starts) == ([1, 2], [1, 3])
        played.event(3, 1)
        played.event(3, 2)
        await until(lambda: len(played.starts) == 3)
        assert (seqs(chunks), played.starts) == ([1, 2, 3], [1, 3, 4])


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "No Messages"), (409, "Consumer Deleted"), (409, "Leadership Change"), (503, ""), (400, "Bad Request")],
)
async def test_an_unexpected_status_starts_anew_behind_the_last_record(status: int, reason: str) -> None:
    played = Played()
    async with following(played) as chunks:
        played.event(1, 1)
        played.status(status, reason)
        played.event(2, 2)  # From a consumer that is not trusted any more.
        await until(lambda: len(played.starts) == 2)
        assert (seqs(chunks), played.starts) == ([1], [1, 2])


async def test_heartbeats_keep_it_and_silence_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough that a slow machine does not take a beat for silence, short enough to outlast it by beating.
    monkeypatch.setattr(tail, "SILENCE_S", 1.0)
    played = Played()
    async with following(played):
        for _ in range(30):
            played.status(100, "Idle Heartbeat")
            await anyio.sleep(0.05)
        assert len(played.starts) == 1
        await until(lambda: len(played.starts) == 2)


async def test_a_lost_connection_is_not_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "SILENCE_S", 60)
    played = Played()
    async with following(played) as chunks:
        played.event(1, 1)
        played.subscribed[-1].lost()
        await until(lambda: len(played.starts) == 2)
        assert (seqs(chunks), played.starts) == ([1], [1, 2])


async def test_it_keeps_trying_until_there_is_a_consumer() -> None:
    played = Played()
    played.refusals = [
        {"code": 404, "err_code": 10059, "description": "stream not found"},
        Unavailable("nobody", code="no_responders"),
        Unavailable("late", code="timeout"),
    ]
    async with following(played) as chunks:
        played.event(1, 1)
        await until(lambda: seqs(chunks) == [1])


async def test_a_log_that_was_set_back_is_not_followed() -> None:
    played = Played()
    played.length = 6
    with pytest.raises(Defect) as caught:
        await anext(tail.follow(played, 7))  # type: ignore[arg-type]
    assert caught.value.code == "log_set_back"
    assert not played.subscribed[0].open


async def test_it_asks_for_more_while_half_is_still_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "PULL_EVENTS", 10)
    monkeypatch.setattr(tail, "SILENCE_S", 60)
    played = Played()
    async with following(played) as chunks:
        await until(lambda: len(played.pulls) == 1)
        number = 0
        for pulls in range(1, 6):
            assert len(played.pulls) == pulls
            for _ in range(5 if pulls == 1 else 10):
                number += 1
                played.event(number, number)
            await until(lambda number=number: len(seqs(chunks)) == number)
            await until(lambda pulls=pulls: len(played.pulls) == pulls + 1)
        played.status(408, "Request Timeout", Nats_Pending_Messages="10")
        await until(lambda: len(played.pulls) == 7)
        played.status(409, "Message Size Exceeds MaxBytes", Nats_Pending_Messages="10")
        await until(lambda: len(played.pulls) == 8)
        assert len(played.starts) == 1
        assert all(len(chunk.records) <= 10 for chunk in chunks)
