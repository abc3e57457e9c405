"""`Bus`: one agent's way to ask for anything.

    async with Bus.connect(agent="atlas") as bus:
        claim = await bus.call(task.Claim(task="T-17"))

Rules:
* A command carries one request id through all its retries, so it takes effect at most once however often the network,
  the daemon or the server fail; a query is simply asked again.
* A Bus remembers the newest seq it has seen and asks to be answered from there on: it reads its own writes, whichever
  daemon answers.
* An embedded bus that is down is started; a new name is registered and gets credentials on first use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bus import config, families, remote
from bus.clock import RandomIds, SystemClock
from bus.domain import agent as agents
from bus.errors import BusError, InvalidRequest, NotFound, Unavailable
from bus.home import Home, open_home
from bus.lifecycle import ensure_up, was_stopped
from bus.model import Operation, PageQuery, Query, Request
from bus.protocol import PROGRESS_HEADER, REQUEST_HEADER, Progress, decode_answer, decode_progress, encode_request
from bus.subjects import ask_subject, check_name, inbox_prefix
from bus.transport import Connection, connect

TRY_S = {"do": 1.0, "see": 3.0}
"""A request that got no answer for so long is asked again, because whoever took it may be frozen. A command that is
still under way joins itself, so asking again costs little; a query would be read twice."""
FOLLOW_S = 3.0
"""How long a following query is held; short, because a daemon that is killed cannot say that it will not answer."""
BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.25)
DOWN_S = 1.0
"""An embedded bus that was gone for so long is looked after."""
SILENT_TRIES = 4
"""So is one whose server takes requests that nobody answers, so many times in a row."""


class Bus:
    """A connection of one agent to its tenant's bus. Make one with `Bus.connect`."""

    def __init__(self, settings: config.Settings, agent: str, timeout_s: float) -> None:
        self.agent = agent
        self.namespace = settings.namespace
        self.seq = 0
        """The newest event this Bus has seen or written."""
        self.timeout_s = timeout_s
        self._settings = settings
        self._clock = SystemClock()
        self._ids = RandomIds()
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None
        self._reviving = asyncio.Lock()
        self._opened = False

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        agent: str | None = None,
        *,
        home: str | Path | None = None,
        namespace: str | None = None,
        url: str | None = None,
        creds: str | Path | None = None,
        timeout_s: float = 30.0,
        settings: config.Settings | None = None,
    ) -> AsyncIterator[Bus]:
        """Connect as `agent`. What is not given comes from the environment and the home's configuration.

        `timeout_s` bounds every call, retries included. Raises NotFound when there is no bus here, Unavailable when it
        does not come up, NotAllowed when it does not accept the agent.
        """
        settings = settings or config.load(home=home, agent=agent, namespace=namespace, url=url, creds=creds)
        bus = cls(settings, check_name(agent or settings.agent, "agent"), timeout_s)
        try:
            await bus._open()
            yield bus
        finally:
            await bus._stack.aclose()

    # --- asking ------------------------------------------------------------------------------------------------

    async def call(
        self,
        request: Request,
        *,
        request_id: str | None = None,
        timeout_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Any:
        """Ask for `request` and return its reply struct. Raises the BusError that answers it.

        A command that is given the `request_id` of an earlier one has the outcome of that one and does nothing new.
        """
        operation = families.operation_of(type(request))
        if request.namespace == "default":
            request = replace(request, namespace=self.namespace)
        if request.after < self.seq and (not isinstance(request, Query) or request.as_of is None):
            request = replace(request, after=self.seq)
        headers = {REQUEST_HEADER: request_id or self._ids.event_id()} if operation.kind == "do" else {}
        if on_progress is not None:
            headers[PROGRESS_HEADER] = "1"
        wait_s = request.wait_s if isinstance(request, Query) else 0.0
        answer = await self._ask(
            operation, encode_request(request), headers, timeout_s or self.timeout_s, wait_s, on_progress
        )
        if not isinstance(request, Query) or request.as_of is None:
            self.seq = max(self.seq, answer.seq)
        return answer

    async def follow(self, request: PageQuery) -> AsyncIterator[Any]:
        """Ask `request` again and again from where the last answer ended: no gap, no repeat, for ever, also across
        restarts. The first answer is what there is; each further one has something new in it."""
        since = request.since
        while True:
            answer = await self.call(replace(request, since=since, wait_s=0.0 if since is None else FOLLOW_S))
            newest = getattr(answer, "upto", None) or getattr(answer, "next", None)
            if newest is not None and newest != since:
                yield answer
            since = newest if newest is not None else max(since or 0, answer.seq)

    async def _ask(
        self,
        operation: Operation,
        body: bytes,
        headers: dict[str, str],
        timeout_s: float,
        wait_s: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> Any:
        subject = ask_subject(self.agent, operation.kind, operation.name)
        deadline = self._clock.monotonic_ns() + int((timeout_s + wait_s) * 1e9)
        tries = 0
        while True:
            left_s = (deadline - self._clock.monotonic_ns()) / 1e9
            try:
                connection = await self._connected()
                if on_progress is not None:
                    return await self._long(connection, operation, subject, body, headers, on_progress, left_s)
                message = await connection.request(
                    subject, body, headers, max(0.05, min(TRY_S[operation.kind] + wait_s, left_s))
                )
                return decode_answer(operation, message.data)
            except Unavailable as error:
                pause_s = error.problem.retry_after_s or BACKOFF_S[min(tries, len(BACKOFF_S) - 1)]
                tries += 1
                if self._clock.monotonic_ns() + pause_s * 1e9 > deadline:
                    raise self._explained(error) from None
                await asyncio.sleep(pause_s)
                if tries >= SILENT_TRIES and error.code in ("no_responders", "timeout"):
                    await self._look_after()

    async def _long(
        self,
        connection: Connection,
        operation: Operation,
        subject: str,
        body: bytes,
        headers: dict[str, str],
        on_progress: Callable[[Progress], None],
        timeout_s: float,
    ) -> Any:
        async for message in connection.request_many([(subject, body, headers)], max(0.05, timeout_s)):
            progress = decode_progress(message.data)
            if progress is None:
                return decode_answer(operation, message.data)
            on_progress(progress)
        raise Unavailable("no answer came", code="timeout")

    def _explained(self, error: Unavailable) -> BusError:
        if error.code == "no_responders":
            return Unavailable(
                "nobody answers for this agent",
                code="no_responders",
                entity=f"agent {self.agent}",
                hint="It may be deactivated or unknown there, or no daemon leads: see `bus status`",
            )
        return error

    # --- connecting --------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        settings = self._settings
        if settings.url is not None and settings.creds is not None:
            try:
                text = await asyncio.to_thread(settings.creds.read_text)
            except OSError as error:
                raise NotFound(
                    "the credentials cannot be read", entity=str(settings.creds), found=str(error)
                ) from error
            await self._connect(settings.url, text)
            return
        home = open_home(settings.home)
        if (followed := remote.read(home)) is not None:
            followed.check_agent(self.agent)
        server = await asyncio.to_thread(ensure_up, home, timeout_s=settings.file.process.start_timeout_s)
        known = home.keyring.known(self.agent)
        self._opened = True
        await self._connect(server.url, known if known is not None else await self._first_use(server.url, home))

    async def _first_use(self, url: str, home: Home) -> str:
        """Register a new name in the owner's name; only then write its credentials, so that a crash in between is
        mended by the next use. (Agents of a home that follows a bus elsewhere are registered there.)"""
        owner = home.file.owner
        if self.agent != owner and not home.follows:
            asker = Bus(self._settings, owner, self.timeout_s)
            try:
                await asker._connect(url, home.keyring.agent(owner).text)
                await asker.call(agents.Register(agent=self.agent))
                self.seq = asker.seq
            finally:
                await asker._stack.aclose()
        return home.keyring.agent(self.agent).text

    async def _connect(self, url: str, creds: str) -> None:
        self._connection = await self._stack.enter_async_context(
            connect(url, creds=creds, name=f"agent {self.agent}", inbox=inbox_prefix(self.agent))
        )

    async def _connected(self) -> Connection:
        """The connection; when it is lost, wait a little for it, then see to it that an embedded bus runs."""
        connection = self._connection
        if connection is not None and connection.connected:
            return connection
        if connection is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(DOWN_S):
                    await connection.wait_connected()
                return connection
        if self._settings.url is None:
            async with self._reviving:
                if self._connection is connection:
                    self._leave_stopped()
                    self._connection = None
                    await self._stack.aclose()
                    await self._open()
        elif connection is None:
            await self._open()
        if self._connection is None:
            raise Unavailable("not connected", code="disconnected")
        return self._connection

    def _leave_stopped(self) -> None:
        """Raise Unavailable when the bus was stopped on purpose: one that only watches must not start it again."""
        home = open_home(self._settings.home)
        if self._opened and was_stopped(home):
            raise Unavailable(
                "the bus was stopped", code="stopped", entity=str(home.path), hint="`bus up` or any command starts it"
            )

    async def _look_after(self) -> None:
        """See to it that an embedded bus runs whole: a server outlives its supervisor, with us connected to it."""
        if self._settings.url is None:
            home = open_home(self._settings.home)
            async with self._reviving:
                with suppress(Unavailable):  # Whoever asks goes on trying as long as it wants to.
                    await asyncio.to_thread(ensure_up, home, timeout_s=self._settings.file.process.start_timeout_s)


def operation_named(name: str) -> Operation:
    """The operation of that name. Raises InvalidRequest with the near ones."""
    operation = families.operation_named(name)
    if operation is None or operation.internal:
        family = name.partition(".")[0]
        near = sorted(known.name for known in families.operations_of(family) if not known.internal)
        raise InvalidRequest(
            "no such operation", code="unknown_operation", found=name, hint=f"Near: {', '.join(near)}" if near else None
        )
    return operation
