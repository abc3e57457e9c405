"""The way from a projector to the bus that it follows: the log there, to read, and asking there for its agents.

    connect -> look whether it is the log that the tables were made from -> up, until the connection breaks -> connect …

Rules:
* It is a log that may be out of reach, also at the start: the tail waits and goes on without gap or repeat, everything
  else fails at once and says why.
* What is asked for an agent is answered in that agent's own inbox, because a daemon answers nowhere else.
* Nothing is written here: a projector has no right to.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import NoReturn

import anyio
import structlog

from bus import operation
from bus.clock import RandomIds
from bus.errors import BusError, NotAllowed, Unavailable
from bus.events import Draft, Record
from bus.jetstream import JetStreamLog
from bus.log import Chunk, Head, Log
from bus.remote import INVITE, Remote
from bus.replies import Replies, answered
from bus.subjects import inbox_prefix
from bus.transport import Connection, connect
from bus.wire import Message

logger = structlog.get_logger(__name__)

RETRY_S = 0.5
REFUSED_S = 5.0
"""Credentials that were refused are tried again, because they may be those of a server that just starts."""


class _Line:
    """One connection, as long as it lasts."""

    def __init__(self, connection: Connection) -> None:
        self.log = JetStreamLog(connection, operation.CODEC)
        self._connection = connection
        self._inboxes: dict[str, Replies] = {}

    async def ask(self, agent: str, subject: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Message:
        replies = self._inboxes.get(agent)
        if replies is None:
            replies = Replies(f"{inbox_prefix(agent)}.{RandomIds().short('p')}.")
            await self._connection.subscribe(f"{replies.inbox}*", replies.receive, on_lost=replies.lost)
            self._inboxes[agent] = replies
        waiting = replies.new(subject)
        self._connection.send(subject, body, headers, replies.inbox + waiting.token)
        return answered(await replies.first(waiting, timeout_s), subject)


class Uplink:
    """The bus elsewhere. `check` looks at its log whenever it has come into reach, and raises when it is another."""

    def __init__(self, remote: Remote, check: Callable[[Log], Awaitable[None]]) -> None:
        self.problem: BusError | None = None
        """Why there is no connection, as far as that is known."""
        self._remote = remote
        self._check = check
        self._line: _Line | None = None
        self._came = anyio.Event()

    @property
    def connected(self) -> bool:
        return self._line is not None

    async def run(self) -> None:
        """Connect, again and again, for ever."""
        while True:
            try:
                await self._hold()
            except BusError as error:
                if str(error) != str(self.problem):
                    logger.warning("the bus is out of reach", url=self._remote.url, error=str(error))
                self.problem = error
            await anyio.sleep(REFUSED_S if isinstance(self.problem, NotAllowed) else RETRY_S)

    async def _hold(self) -> None:
        """Be connected until that breaks. Raises what was in the way."""
        lost = anyio.Event()
        creds = self._remote.creds

        def on_state(connected: bool) -> None:
            if not connected:
                lost.set()

        async with connect(
            self._remote.url, creds=creds.text, name=creds.name, inbox=creds.inbox, on_state=on_state
        ) as connection:
            line = _Line(connection)
            await self._check(line.log)
            self._line, self.problem = line, None
            self._came.set()
            logger.info("connected", url=self._remote.url)
            try:
                await lost.wait()
            finally:
                self._line, self._came = None, anyio.Event()
        raise Unavailable("the connection broke", code="disconnected", entity=self._remote.url)

    async def connect_within(self, seconds: float) -> bool:
        """Wait for a connection, but not longer. -> whether there is one"""
        with anyio.move_on_after(seconds):
            await self._came.wait()
        return self.connected

    async def ask(self, agent: str, subject: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Message:
        """The reply to what `agent` asks there. Raises Unavailable."""
        return await self._there().ask(agent, subject, body, headers, timeout_s)

    # --- the log -----------------------------------------------------------------------------------------------

    async def tail(self, after: int) -> AsyncGenerator[Chunk, None]:
        while True:
            await self._came.wait()
            if (line := self._line) is None:
                continue
            try:
                async with aclosing(line.log.tail(after)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        after = chunk.records[-1].seq
            except Unavailable as error:
                logger.info("the tail waits", after=after, reason=str(error))

    async def read(self, after: int, upto: int) -> AsyncGenerator[Sequence[Record], None]:
        async with aclosing(self._there().log.read(after, upto)) as chunks:
            async for records in chunks:
                yield records

    async def get(self, seq: int) -> Record | None:
        return await self._there().log.get(seq)

    async def head(self) -> Head:
        return await self._there().log.head()

    async def append(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[int]:
        self._refuse()

    def append_each(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> AsyncGenerator[int, None]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotAllowed(
            "a projector writes nothing",
            code="read_only",
            entity=self._remote.creds.name,
            expected="the leader of the tenant",
            found="a projector",
            hint="Ask for a command instead",
        )

    def _there(self) -> _Line:
        if self._line is None:
            raise Unavailable(
                "the bus is out of reach from this host",
                code="out_of_reach",
                entity=self._remote.url,
                expected="a connection",
                found=str(self.problem) if self.problem is not None else "none yet",
                hint="Most can still be read, as it was: `bus projector status` says how old it is",
                retry_after_s=RETRY_S,
                sent=False,
            )
        return self._line


async def reach(remote: Remote) -> Head:
    """Look whether the log can be read there. Raises NotAllowed or Unavailable, and says what to do."""
    creds = remote.creds
    try:
        async with connect(remote.url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection:
            return await JetStreamLog(connection, operation.CODEC).head()
    except NotAllowed as error:
        raise NotAllowed(
            "the bus does not accept these credentials",
            code="bad_credentials",
            entity=remote.url,
            expected="credentials of a projector that were issued there and not revoked",
            found=f"{creds.name}: {error}",
            hint=f"Follow with others: {INVITE}",
        ) from error
