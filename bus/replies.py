"""Requests that wait for their replies, by the last token of the subject that the replies come to.

Rules: every wait ends: with a reply, with an error, or at its time limit. A reply that comes later is counted, and
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from bus.errors import BusError, NotAllowed, Unavailable
from bus.wire import NO_RESPONDERS, Message


class Waiting:
    """One request: `future` is for its next reply, `token` the end of the subject that replies come to."""

    __slots__ = ("error", "future", "queue", "subject", "token")

    def __init__(self, subject: str, token: str) -> None:
        self.subject = subject
        self.token = token
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue: deque[Message] | None = None
        self.error: BusError | None = None

    def fail(self, error: BusError) -> None:
        self.error = error
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # Marks it as seen: it may be that nobody waits for it any more.


class Replies:
    """All requests of one connection. `inbox` (it ends with a dot) is what their reply subjects begin with."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self.late = 0
        self._tokens = 0
        self._waiting: dict[str, Waiting] = {}

    def new(self, subject: str) -> Waiting:
        """A request that is about to be sent; it waits from `first` or `each` on."""
        self._tokens += 1
        return Waiting(subject, str(self._tokens))

    async def first(self, waiting: Waiting, timeout_s: float) -> Any:
        """The first reply. Raises what ended the wait: Unavailable or NotAllowed."""
        self._waiting[waiting.token] = waiting
        timer = asyncio.get_running_loop().call_later(timeout_s, _expire, waiting, timeout_s)
        try:
            return await waiting.future
        finally:
            timer.cancel()
            del self._waiting[waiting.token]

    async def each(self, waiting: Waiting, timeout_s: float, send: Callable[[], None]) -> AsyncGenerator[Message, None]:
        """Call `send` and yield every reply, until the caller stops. `timeout_s` bounds the wait for each."""
        self._waiting[waiting.token] = waiting
        queue = waiting.queue = deque()
        loop = asyncio.get_running_loop()
        try:
            send()
            while waiting.error is None:
                timer = loop.call_later(timeout_s, _expire, waiting, timeout_s)
                try:
                    await waiting.future
                finally:
                    timer.cancel()
                while queue:
                    yield answered(queue.popleft(), waiting.subject)
                waiting.future = loop.create_future()
            raise waiting.error
        finally:
            del self._waiting[waiting.token]

    def receive(self, message: Message) -> None:
        waiting = self._waiting.get(message.subject[len(self.inbox) :])
        if waiting is None:
            self.late += 1
            return
        if waiting.queue is not None:
            waiting.queue.append(message)
        if not waiting.future.done():
            waiting.future.set_result(message)

    def lost(self) -> None:
        """The connection broke: no reply can come any more."""
        for waiting in self._waiting.values():
            waiting.fail(broken(waiting.subject))

    def denied(self, subject: str) -> None:
        """The server did not let us publish to `subject`."""
        for waiting in self._waiting.values():
            if subject in (waiting.subject, self.inbox + waiting.token):
                waiting.fail(NotAllowed("this agent may not ask that", entity=subject))


def answered(message: Message, subject: str) -> Message:
    """`message`, unless it is the server's word that nobody listens to `subject`."""
    if message.status == NO_RESPONDERS:
        raise Unavailable("nobody serves this", code="no_responders", entity=subject, sent=False)
    return message


def broken(subject: str) -> Unavailable:
    return Unavailable("the connection broke", code="disconnected", entity=subject, sent=True)


def _expire(waiting: Waiting, timeout_s: float) -> None:
    expected = f"within {timeout_s:g} s"
    hint = "`bus status` shows what runs; asking again with the same request has no second effect"
    error = Unavailable("no answer", code="timeout", entity=waiting.subject, expected=expected, hint=hint, sent=True)
    waiting.fail(error)
