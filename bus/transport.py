"""The connection to NATS. Only this module imports `nats`.

Rules:
* nats-py connects, authenticates, pings and reconnects; messages pass by it (`bus/wire.py`). Its own path awaits four
  coroutines and wakes a task per message: with nine headers it carried 53,000 a second where this carries 120,000.
* A callback runs inside the read loop: it is synchronous, cheap, and never waits. Between the socket and the callback
  nothing is queued, so nothing is dropped here; who needs a bound keeps it in the callback.
* Nothing outlives a connection. Without one, sending fails at once; what was not yet sent when a connection broke is
  thrown away; requests that wait for an answer fail. Only subscriptions come back with the next connection.
* Nothing here prints: errors without a requester are counted in `Connection.counters` and logged in one line.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from bus.clock import RandomIds
from bus.errors import BusError, InvalidRequest, NotAllowed, Unavailable
from bus.late import Logger, import_without, shielded
from bus.replies import Replies, answered, broken
from bus.subscription import Callback, Counters, Subscription
from bus.wire import Message, Parser, publish_command

# Two long imports for what nobody here needs: JetStream, and its own version (it tells the server 0.0.0).
import_without("nats.aio.client", "nats.js", "importlib.metadata")
from nats import errors as nats_errors  # noqa: E402
from nats.aio.client import Client, RawCredentials  # noqa: E402
from nats.aio.transport import TcpTransport  # noqa: E402

__all__ = ["Connection", "Counters", "Message", "Subscription", "connect"]

READ_BYTES = 1 << 18
BACKLOG_BYTES = 4 << 20
"""`publish` waits while more than this is sent but not yet taken by the kernel."""
REQUEST_S = 5.0
_DENIED = re.compile(r"Permissions Violation for (Publish|Subscription)(?: with Reply of| to) \"([^\"]*)\"", re.I)
_log = Logger(__name__)

Outgoing = tuple[str, bytes, Mapping[str, str] | None]
"""Subject, data, headers."""


class _Parser(Parser):
    async def parse(self, data: bytes = b"") -> None:
        try:
            await super().parse(data)
        except (ValueError, IndexError, msgspec.MsgspecError) as error:
            raise nats_errors.ProtocolError(repr(error)) from error  # The one error for which nats-py connects anew.


class _Tcp(TcpTransport):
    """nats-py's socket, read in larger pieces. `abort` throws away what is not yet sent; closing would wait until a
    stalled server has taken it, even seconds later."""

    def __bool__(self) -> bool:
        return True

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        self.abort()  # An attempt that failed half-way leaves its socket behind.
        await super().connect(uri, READ_BYTES, connect_timeout)

    async def read(self, buffer_size: int) -> bytes:
        return await super().read(READ_BYTES)  # type: ignore[no-any-return]

    def abort(self) -> None:
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    def backlog(self) -> int:
        return self._io_writer.transport.get_write_buffer_size() if self._io_writer is not None else 0


class _Client(Client):
    """nats-py's client with another way in and out for messages."""

    def __init__(self, counters: Counters, on_lost: Callable[[], None], on_denied: Callable[[str, str], None]) -> None:
        super().__init__()
        self.subscriptions: dict[str, Subscription] = {}
        self._transport = self.tcp = _Tcp()  # type: ignore[no-untyped-call]
        self._ps = _Parser(self.subscriptions, self.on_operation)  # type: ignore[assignment]
        self.counters = counters
        self._on_lost = on_lost
        self._on_denied = on_denied
        self._flushing = False
        self.problem: Exception = ConnectionError("the connection broke")

    def send(self, command: bytes) -> None:
        """Send with everything else of this turn of the event loop, in one write."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        self._flushing = False
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        if pending and self.is_connected:
            with suppress(OSError, RuntimeError):  # The read loop meets the same error and reports it.
                self.tcp.writelines(pending)  # type: ignore[no-untyped-call]

    def ping(self, future: asyncio.Future[Any]) -> None:
        """Complete `future` when the server has handled everything that was sent before. (nats-py's own flush lets its
        PING overtake what is pending.)"""
        self._pending.append(b"PING\r\n")
        self._pongs.append(future)
        self.write()

    def forget(self, sid: int) -> None:
        self._remove_sub(sid)
        if self.is_connected:
            self.send(b"UNSUB %d\r\n" % sid)

    async def on_operation(self, line: bytes) -> None:
        """An operation that is no message."""
        kind = line[:4].upper()
        if kind == b"PING":
            self.send(b"PONG\r\n")
        elif kind == b"PONG":
            self._pings_outstanding = 0
            self._status = Client.CONNECTED if self.is_connecting else self._status
            if self._pongs and not (future := self._pongs.pop(0)).done():
                future.set_result(True)
        elif kind == b"-ERR":
            await self._process_err(line[4:].decode("utf-8", "replace").strip(" '"))
        elif kind == b"INFO":
            await self._process_info(msgspec.json.decode(line[5:]))
        elif kind != b"+OK":
            raise ValueError("unknown operation")

    async def _process_err(self, err_msg: str) -> None:
        """An error the server reports. All but denials mean that it closes the connection: nats-py would give up for
        ever, but a server that restarts or renews its keys says such things too."""
        if (denied := _DENIED.search(err_msg)) is not None:
            self.counters.denied += 1
            self._on_denied(denied[1].lower(), denied[2])
            return
        self.counters.slow += "slow consumer" in err_msg.lower()
        await self._process_op_err(nats_errors.Error(err_msg))

    async def _process_op_err(self, e: Exception) -> None:
        if not (self.is_closed or self.is_reconnecting):
            await self.on_error(e)
            self._pending, self._pending_data_size = [], 0
            self.tcp.abort()
            self._on_lost()
        await super()._process_op_err(e)

    async def on_error(self, error: Exception) -> None:
        self.counters.errors += 1
        self.problem = error
        _log.debug("nats", error=str(error) or type(error).__name__)


class Connection:
    """One connection to NATS, kept alive. Made by `connect`; used from the event loop it was made in."""

    def __init__(self, inbox: str, on_state: Callable[[bool], None] | None) -> None:
        self.counters = Counters()
        self._on_state = on_state
        self._client = _Client(self.counters, self._lost, self._denied)
        self._replies = Replies(f"{inbox}.{RandomIds().short('c')}.")
        self._inboxes = 0
        self._up = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    @property
    def epoch(self) -> int:
        """How many times this connection was made so far. Messages may be missing between two epochs."""
        return self.counters.connects

    @property
    def max_payload(self) -> int:
        """The server's limit for headers and data of one message, in bytes."""
        return self._client.max_payload

    async def wait_connected(self) -> None:
        """Return as soon as there is a connection. Raises Unavailable when it was closed for good."""
        while not self.connected:
            if self._client.is_closed:
                raise Unavailable("the connection is closed", code="closed")
            await self._up.wait()
            await asyncio.sleep(0)  # It may be set for a connection that has broken again: then the loop has to go on.

    def new_inbox(self) -> str:
        """A subject to subscribe to, for replies to this connection only."""
        self._inboxes += 1
        return f"{self._replies.inbox}s.{self._inboxes}"

    async def rtt(self, timeout_s: float = REQUEST_S) -> float:
        """Seconds that the server takes to answer; everything sent before has been handled by it then."""
        self._check("PING")
        now = asyncio.get_running_loop().time
        start = now()
        waiting = self._replies.new("PING")
        self._client.ping(waiting.future)
        await self._replies.first(waiting, timeout_s)
        return now() - start

    def send(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, reply: str = "") -> None:
        """Publish without waiting for room. Raises Unavailable without a connection, InvalidRequest for what no
        server would take."""
        self._check(subject)
        self._client.send(publish_command(subject, reply, headers, data, self.max_payload))

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Like `send`, but waits while too much is on its way."""
        self.send(subject, data, headers, reply)
        if (client := self._client).pending_data_size + client.tcp.backlog() > BACKLOG_BYTES:
            client.write()
            try:
                await client.tcp.drain()  # type: ignore[no-untyped-call]
            except OSError:
                raise broken(subject) from None

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = REQUEST_S
    ) -> Message:
        """The first reply. Raises NotAllowed and Unavailable (code `no_responders`, `timeout` or `disconnected`; when
        `sent` in its details is true, it may have been carried out nevertheless)."""
        waiting = self._replies.new(subject)
        self.send(subject, data, headers, self._replies.inbox + waiting.token)
        return answered(await self._replies.first(waiting, timeout_s), subject)

    def request_many(self, messages: Sequence[Outgoing], timeout_s: float = REQUEST_S) -> AsyncGenerator[Message, None]:
        """Every reply to messages that are sent together, until the caller stops; `timeout_s` bounds each wait."""
        waiting = self._replies.new(messages[0][0])

        def send() -> None:
            for message in messages:
                self.send(*message, self._replies.inbox + waiting.token)

        return self._replies.each(waiting, timeout_s, send)

    async def subscribe(
        self, subject: str, callback: Callback, queue: str = "", on_lost: Callable[[], None] | None = None
    ) -> Subscription:
        """Call `callback` with every message, and `on_lost` when the connection breaks. Returns when the server has
        taken it (without a connection: it takes it with the next). Raises NotAllowed."""
        subscription = Subscription(self._client, subject, callback, on_lost)
        try:
            raw = await self._client.subscribe(subject, queue=queue)
        except nats_errors.ConnectionClosedError:
            raise Unavailable("the connection is closed", code="closed") from None
        except nats_errors.Error:
            raise InvalidRequest("bad subject", code="bad_subject", found=repr(subject)) from None
        subscription.sid = raw._id
        self._client.subscriptions[str(raw._id)] = subscription
        try:
            with suppress(Unavailable):  # Without a connection it comes with the next.
                await self.rtt()
            if subscription.denied:
                raise NotAllowed("this subscription is not allowed", entity=subject)
        except BaseException:  # else it would go on taking messages
            subscription.unsubscribe()
            raise
        return subscription

    def _check(self, subject: str) -> None:
        if not self._client.is_connected:
            raise Unavailable("not connected to the server", code="disconnected", entity=subject or None, sent=False)

    def _denied(self, kind: str, subject: str) -> None:
        _log.warning("not allowed", action=kind, subject=subject)
        if kind == "publish":
            self._replies.denied(subject)
        else:
            for subscription in self._client.subscriptions.values():
                subscription.denied |= subscription.subject == subject

    def _lost(self) -> None:
        self.counters.disconnects += 1
        if self._up.is_set():
            self._up = asyncio.Event()
        self._replies.lost()
        for subscription in list(self._client.subscriptions.values()):
            if subscription.on_lost is not None:
                subscription.on_lost()
        if self._on_state is not None:
            self._on_state(False)

    async def _found(self) -> None:
        self.counters.connects += 1
        self._up.set()
        if self._on_state is not None:
            self._on_state(True)

    async def _open(self, servers: list[str], name: str, timeout_s: float, options: dict[str, Any]) -> None:
        tries = len(servers)

        async def on_error(error: Exception) -> None:
            nonlocal tries
            tries -= 1
            await self._client.on_error(error)
            if tries == 0:
                raise _refusal(error, servers)  # Inside of nats-py's `connect`, which would try for ever.

        options |= {"name": name, "error_cb": on_error, "reconnected_cb": self._found}
        options |= {"connect_timeout": min(timeout_s, 2.0), "max_reconnect_attempts": -1, "reconnect_time_wait": 0.2}
        options |= {"max_outstanding_pings": 2, "ping_interval": 1}
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.connect(servers, **options)
                tries = 0
                # A server that looks for the account for a second asks whether we live before it lets us in.
                while self._client.is_connecting:  # noqa: ASYNC110 - both ends are to be watched
                    await asyncio.sleep(0.01)
                await self.subscribe(f"{self._replies.inbox}*", self._replies.receive)
        except TimeoutError as error:
            raise _refusal(error, servers) from None
        if not self.connected:
            raise _refusal(self._client.problem, servers)
        await self._found()

    async def _shut(self) -> None:
        """Send what is waiting and close, within a second, also when the server has stalled."""
        was_connected = self.connected
        async with shielded(1.0):
            self._client.write()
            await self._client.close()
            while (task := self._client._reconnection_task) is not None and not task.done():
                task.cancel()  # Again: asyncio forgets it when what was waited for ends in the same moment.
                await asyncio.sleep(0)
        self._client.tcp.abort()
        self._up.set()
        if was_connected:
            self._lost()


def _refusal(error: Exception, servers: list[str]) -> BusError:
    text = str(error) or type(error).__name__
    if "authorization" in text.lower() or "authentication" in text.lower():
        return NotAllowed("the server does not accept these credentials", code="bad_credentials", found=text)
    return Unavailable("no connection to the server", code="no_server", entity=",".join(servers), found=text)


@asynccontextmanager
async def connect(
    url: str,
    *,
    name: str,
    inbox: str,
    creds: str | None = None,
    on_state: Callable[[bool], None] | None = None,
    connect_timeout_s: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Connection]:
    """A connection to the servers of `url` (several: separated by commas), as long as the context lasts.

    `creds` is the text of a credentials file; `inbox` what reply subjects begin with; `on_state` is called with True at
    every connect and with False at every loss. Raises Unavailable when no server answers and NotAllowed when the
    credentials are not accepted. Once connected, it reconnects for ever.
    """
    connection = Connection(inbox, on_state)
    authentication = {"tls": tls, "user_credentials": RawCredentials(creds) if creds is not None else None}
    try:
        await connection._open(url.split(","), name, connect_timeout_s, authentication)
        yield connection
    finally:
        await connection._shut()
