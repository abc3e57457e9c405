"""What the contract tests share: one kind of event, fresh logs of both kinds, and a network that can break."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar

import msgspec
import pytest

from bus.clock import RandomIds
from bus.events import Codec, Draft, Fact
from bus.jetstream import JetStreamLog
from bus.log import Log, MemoryLog
from bus.provision import create_log
from bus.subjects import log_subject
from bus.transport import Connection, connect

WAIT_S = 20.0


class Noted(Fact, frozen=True, kw_only=True):
    type: ClassVar[str] = "note.noted"
    text: str


CODEC = Codec([Noted])
_ids = RandomIds()


class Notes:
    """Makes drafts, and remembers for each bucket the last seq that was acknowledged."""

    codec = CODEC

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def draft(self, bucket: int, text: str = "") -> Draft:
        return Draft(
            id=_ids.event_id(),
            namespace="ns",
            family="note",
            bucket=bucket,
            entity=f"note n{bucket}",
            agent="atlas",
            fact=Noted(text=text),
        )

    def subject(self, bucket: int) -> str:
        return log_subject("ns", "note", bucket)

    def expected(self, drafts: Sequence[Draft]) -> dict[str, int]:
        return {draft.subject: self.last.get(draft.subject, 0) for draft in drafts}

    async def append(self, log: Log, *drafts: Draft, expected: Mapping[str, int] | None = None) -> list[int]:
        seqs = await log.append(drafts, self.expected(drafts) if expected is None else expected)
        self.last |= {draft.subject: seq for draft, seq in zip(drafts, seqs, strict=True)}
        return seqs


class Proxy:
    """A loopback network between a client and a server: it can be cut, stalled, or lose what the server answers."""

    def __init__(self, url: str) -> None:
        self._target = url
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.loses_answers = False
        self.up = True

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{self._target.rpartition(':')[0]}:{port}"

    def stall(self) -> None:
        """Take no more requests from the client."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.up = False
        self.resume()
        self.cut()
        while self._writers:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.up:
                target_reader, target = await asyncio.open_connection("127.0.0.1", int(self._target.rpartition(":")[2]))
                self._writers.add(target)
                try:
                    answers = asyncio.ensure_future(self._pump(target_reader, writer, answers=True))
                    await self._pump(reader, target, answers=False)
                    await answers
                finally:
                    self._writers.discard(target)
        except OSError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not answers:
                    await self._open.wait()
                elif self.loses_answers:
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


async def api(connection: Connection, subject: str, request: Any = None) -> dict[str, Any]:
    answer = await connection.request(subject, msgspec.json.encode(request) if request is not None else b"")
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    return decoded


async def wait_for(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fail when it takes much too long."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.01)


Connecting = Callable[..., Awaitable[Connection]]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def connecting() -> AsyncIterator[Connecting]:
    """`await connecting(url)` connects until the end of the test."""
    async with AsyncExitStack() as stack:

        async def make(url: str, **options: Any) -> Connection:
            options = {"name": "test", "inbox": "_INBOX.test"} | options
            return await stack.enter_async_context(connect(url, **options))

        yield make


@pytest.fixture
def tenant(nats_server: Any) -> str:
    """The URL of a tenant that has no streams yet."""
    return str(nats_server.tenant())


@pytest.fixture
async def fresh(tenant: str, connecting: Connecting) -> Callable[..., Awaitable[Connection]]:
    """`await fresh(max_bytes=-1)` is a connection to the tenant, with empty streams."""

    async def make(max_bytes: int = -1) -> Connection:
        connection = await connecting(tenant)
        await create_log(connection, max_bytes)
        return connection

    return make


@pytest.fixture(params=["memory", "jetstream"])
async def make_log(request: pytest.FixtureRequest, fresh: Any) -> Callable[..., Awaitable[Log]]:
    """`await make_log(max_bytes=-1)` is an empty log."""

    async def make(max_bytes: int = -1) -> Log:
        if request.param == "memory":
            return MemoryLog(CODEC, time.time_ns, max_bytes)
        return JetStreamLog(await fresh(max_bytes), CODEC)

    return make


@pytest.fixture
async def make_proxy() -> AsyncIterator[Callable[[str], Awaitable[Proxy]]]:
    proxies: list[Proxy] = []

    async def make(url: str) -> Proxy:
        proxy = Proxy(url)
        proxies.append(proxy)
        await proxy.start()
        return proxy

    yield make
    for proxy in proxies:
        await proxy.stop()


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return wait_for


@pytest.fixture(name="api")
def _api() -> Callable[..., Awaitable[dict[str, Any]]]:
    return api
