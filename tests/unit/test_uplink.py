"""The way to a bus elsewhere, over a network made by hand: what happens when it breaks, and what is said without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import structlog

from bus.auth import Credentials
from bus.errors import BusError, NotAllowed, Unavailable
from bus.log import Chunk, MemoryLog
from bus.operation import CODEC
from bus.remote import Remote
from bus.wire import Message
from cli import uplink
from cli.uplink import Uplink, reach

CREDS = Credentials(name="_projector-far", public="U", text="secret", issued_s=0, agents=("nova",))
REMOTE = Remote(url="nats://127.0.0.1:1", creds=CREDS)
SUBJECT = "ask.nova.do.channel.post"


class Network:
    """Servers that are there or not, and connections to them. `log` is what they store."""

    def __init__(self) -> None:
        self.log = MemoryLog(CODEC, lambda: 0)
        self.error: BusError | None = None
        self.tries = 0
        self.asked: list[tuple[str, str]] = []
        self.inboxes: dict[str, Callable[[Message], None]] = {}
        self.status = 0
        self._broken = anyio.Event()
        self._on_state: Callable[[bool], None] | None = None

    @asynccontextmanager
    async def connect(
        self, url: str, *, name: str, inbox: str, creds: str, on_state: Callable[[bool], None] | None = None
    ) -> AsyncIterator[Network]:
        assert (url, name, inbox, creds) == (REMOTE.url, "_projector-far", "_INBOX._projector-far", "secret")
        self.tries += 1
        if self.error is not None:
            raise self.error
        self._on_state, self._broken = on_state, anyio.Event()
        yield self

    def cut(self) -> None:
        """Break the connection, and let there be no other."""
        self.error = Unavailable("no connection to the server", code="no_server")
        self._broken.set()
        assert self._on_state is not None
        self._on_state(False)

    def write(self, *texts: bytes) -> None:
        for text in texts:
            self.log.put("log.ns.channel.1", {}, text)

    # --- what a connection does ----------------------------------------------------------------------------------

    async def subscribe(self, subject: str, callback: Callable[[Message], None], on_lost: Any = None) -> None:
        self.inboxes[subject] = callback

    def send(self, subject: str, data: bytes, headers: Any = None, reply: str = "") -> None:
        self.asked.append((subject, reply))
        (callback,) = [call for inbox, call in self.inboxes.items() if reply.startswith(inbox.removesuffix("*"))]
        answer = Message(reply, "", {}, b"" if self.status else b"answer", self.status)
        asyncio.get_running_loop().call_soon(callback, answer)

    # --- and the log on it ---------------------------------------------------------------------------------------

    def of_connection(self, connection: Network, codec: Any) -> Network:
        return self

    async def tail(self, after: int) -> AsyncIterator[Chunk]:
        broken = self._broken
        while True:
            if after < len(self.log.records):
                records = self.log.records[after : after + 2]
                after += len(records)
                yield Chunk(records, 0)
                continue
            with anyio.move_on_after(0.01):
                await broken.wait()
            if broken.is_set():
                raise Unavailable("the connection is closed", code="closed")

    def read(self, after: int, upto: int) -> Any:
        return self.log.read(after, upto)

    async def get(self, seq: int) -> Any:
        return await self.log.get(seq)

    async def head(self) -> Any:
        return await self.log.head()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(uplink, "connect", made.connect)
    monkeypatch.setattr(uplink, "JetStreamLog", made.of_connection)
    monkeypatch.setattr(uplink, "RETRY_S", 0.0)
    monkeypatch.setattr(uplink, "REFUSED_S", 0.0)
    return made


@asynccontextmanager
async def up(network: Network, check: Any = None) -> AsyncIterator[Uplink]:
    async def fine(log: Any) -> None:
        assert log is network

    link = Uplink(REMOTE, check or fine)
    with structlog.testing.capture_logs():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            yield link
            tasks.cancel_scope.cancel()


async def test_the_tail_goes_on_without_gap_or_repeat_when_the_network_does(network: Network) -> None:
    got: list[int] = []
    async with up(network) as link, anyio.create_task_group() as tasks:

        async def follow() -> None:
            async for chunk in link.tail(1):
                got.extend(record.seq for record in chunk.records)

        async def until(number: int) -> None:
            with anyio.fail_after(10):
                while len(got) < number:
                    await anyio.sleep(0)

        tasks.start_soon(follow)
        network.write(b"1", b"2", b"3", b"4")
        await until(3)
        for more in (2, 3):
            network.cut()
            network.write(*[b"x"] * more)
            await anyio.sleep(0)
            assert not link.connected
            network.error = None
            await until(len(network.log.records) - 1)
        tasks.cancel_scope.cancel()
    assert got == list(range(2, len(network.log.records) + 1))


async def test_out_of_reach_everything_else_fails_at_once_and_says_why(network: Network) -> None:
    network.error = NotAllowed("the server does not accept these credentials", code="bad_credentials")
    async with up(network) as link:
        assert not await link.connect_within(0.01)
        for asking in (
            lambda: link.head(),
            lambda: link.get(1),
            lambda: anext(link.read(0, 1)),
            lambda: link.ask("nova", SUBJECT, b"", {}, 1.0),
        ):
            with pytest.raises(Unavailable) as caught:
                await asking()
            problem = caught.value.problem
            assert (problem.code, problem.entity) == ("out_of_reach", REMOTE.url)
            assert "does not accept" in str(problem.found)
            assert problem.hint
            assert problem.retry_after_s is not None
        network.error = None
        network.write(b"1")
        with anyio.fail_after(10):
            assert await link.connect_within(10)
        assert (await link.head()).seq == 1
        assert (await link.get(1)).data == b"1"  # type: ignore[union-attr]
        assert link.problem is None


async def test_what_is_asked_for_an_agent_is_answered_in_its_own_inbox(network: Network) -> None:
    async with up(network) as link:
        await link.connect_within(10)
        for agent in ("nova", "wren", "nova"):
            subject = f"ask.{agent}.see.channel.list"
            assert (await link.ask(agent, subject, b"{}", {}, 5.0)).data == b"answer"
        assert [subject.split(".")[1] for subject, _ in network.asked] == ["nova", "wren", "nova"]
        assert [reply.split(".")[:2] for _, reply in network.asked] == [
            ["_INBOX", "nova"],
            ["_INBOX", "wren"],
            ["_INBOX", "nova"],
        ]
        assert len(network.inboxes) == 2
        network.status = 503
        with pytest.raises(Unavailable) as caught:
            await link.ask("nova", SUBJECT, b"{}", {}, 5.0)
        assert caught.value.code == "no_responders"


async def test_a_log_that_is_another_one_ends_it(network: Network) -> None:
    class Other(Exception):
        pass

    async def check(log: Any) -> None:
        raise Other

    with pytest.RaisesGroup(Other):  # type: ignore[attr-defined]
        async with up(network, check):
            await anyio.sleep(10)


async def test_nothing_is_written_through_it(network: Network) -> None:
    async with up(network) as link:
        await link.connect_within(10)
        with pytest.raises(NotAllowed) as caught:
            await link.append([], {})
        assert caught.value.code == "read_only"
        with pytest.raises(NotAllowed):
            link.append_each([], {})


async def test_before_it_is_used_it_is_tried(network: Network) -> None:
    network.write(b"1", b"2")
    assert (await reach(REMOTE)).seq == 2
    network.error = NotAllowed("the server does not accept these credentials")
    with pytest.raises(NotAllowed) as caught:
        await reach(REMOTE)
    problem = caught.value.problem
    assert (problem.code, problem.entity) == ("bad_credentials", REMOTE.url)
    assert "_projector-far" in str(problem.found)
    assert "bus projector invite" in str(problem.hint)
    network.error = Unavailable("no connection to the server", code="no_server")
    with pytest.raises(Unavailable):
        await reach(REMOTE)
