"""An intake without a network: a connection that delivers by hand, and an Api that does what a test tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import structlog

from bus.domain import channel
from bus.errors import BusError
from bus.model import Reply
from bus.protocol import encode_answer
from bus.tunables import AskLimits
from bus.wire import Message
from cli.intake import QUEUE, Intake
from tests.unit.leader import Leader, founded

DONE = encode_answer(Reply(seq=1))


class Subscription:
    def __init__(self, line: Line, subject: str, callback: Callable[[Message], None]) -> None:
        self.subject, self.callback, self._line = subject, callback, line

    def unsubscribe(self) -> None:
        if self in self._line.subscriptions:
            self._line.subscriptions.remove(self)


class Line:
    """A connection. `sent` is every (subject, body) that went out."""

    def __init__(self) -> None:
        self.max_payload = 1_000_000
        self.sent: list[tuple[str, bytes]] = []
        self.subscriptions: list[Subscription] = []
        self.error: BusError | None = None
        self.on_subscribed: Callable[[str], None] | None = None

    async def subscribe(self, subject: str, callback: Callable[[Message], None], queue: str = "") -> Subscription:
        assert queue == QUEUE
        self.subscriptions.append(subscription := Subscription(self, subject, callback))
        if self.on_subscribed is not None:
            self.on_subscribed(subject)
        await anyio.lowlevel.checkpoint()
        return subscription

    def send(self, subject: str, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((subject, data))

    def deliver(self, message: Message) -> bool:
        """-> whether anybody listens."""
        fitting = [s for s in self.subscriptions if message.subject.startswith(s.subject.removesuffix(">"))]
        for subscription in fitting:
            subscription.callback(message)
        return bool(fitting)


class Clerk:
    """An Api that notes what is asked. It answers at once, unless `holds`; `error` is raised by everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, dict[str, Any]]] = []
        self.held: list[Callable[[bytes], None]] = []
        self.reports: list[Any] = []
        self.holds = False
        self.error: Exception | None = None
        self.body = DONE
        self.answer: Any = channel.Channels(seq=1, time=None, channels=[])
        self.known = 100
        self.gate = anyio.Event()

    def do(self, operation: Any, request: Any, agent: str, answered: Callable[[bytes], None], **known: Any) -> None:
        self.asked.append((agent, operation.name, request, known))
        if self.error is not None:
            raise self.error
        if self.holds:
            self.held.append(answered)
        else:
            answered(self.body)

    def knows(self, seq: int) -> bool:
        return seq <= self.known

    async def contain(self, seq: int) -> None:
        if self.error is not None:
            raise self.error
        await self.gate.wait()

    async def see(self, operation: Any, request: Any, agent: str, report: Any = None) -> Any:
        self.asked.append((agent, operation.name, request, {}))
        self.reports.append(report)
        if self.error is not None:
            raise self.error
        if self.holds:
            await self.gate.wait()
        return self.answer


class Office:
    """One intake at work."""

    def __init__(self, leader: Leader, intake: Intake, line: Line, clerk: Clerk, heard: list[str]) -> None:
        self.leader, self.intake, self.line, self.clerk = leader, intake, line, clerk
        self.clock = leader.clock
        self.heard = heard

    def ask(
        self,
        agent: str,
        operation: str = "do.channel.post",
        body: bytes = b'{"channel":"dev","text":"hi"}',
        reply: str | None = None,
        **headers: str,
    ) -> bool:
        """Send one request. -> whether anybody listened."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        to = f"_INBOX.{agent}.1" if reply is None else reply
        return self.line.deliver(Message(f"ask.{agent}.{operation}", to, named, body))

    async def settle(self) -> None:
        """Let the intake look at its agents, and every task go as far as it can."""
        self.intake.agents_changed()
        await anyio.wait_all_tasks_blocked()

    def answers(self) -> list[Any]:
        """What was sent since the last time, decoded."""
        found = [msgspec.json.decode(body) for _, body in self.line.sent]
        self.line.sent.clear()
        return found

    def error(self) -> dict[str, Any]:
        """The one answer that was sent, which is an error that leaves nothing out."""
        (answer,) = self.answers()
        problem: dict[str, Any] = answer["error"]
        assert problem["message"]
        return problem

    def listens_to(self) -> set[str]:
        subjects = [s.subject for s in self.line.subscriptions]
        assert len(set(subjects)) == len(subjects)
        return set(subjects)


@asynccontextmanager
async def office(*agents: str, **limits: Any) -> AsyncIterator[Office]:
    """The intake of a leader that listens to the owner `olga` and these agents. In the end it is cancelled."""
    leader = await founded(*agents)
    line, clerk = Line(), Clerk()
    heard: list[str] = []
    with structlog.testing.capture_logs():
        async with anyio.create_task_group() as tasks:
            # A line and a clerk are all an intake needs of a connection and an Api.
            parts: Any = (line, clerk, leader.view.world, AskLimits(**limits), leader.clock, tasks)
            intake = Intake(*parts, heard.append, lambda: leader.leads)
            intake.listen("see")
            intake.listen("do")
            tasks.start_soon(intake.run)
            await anyio.wait_all_tasks_blocked()
            yield Office(leader, intake, line, clerk, heard)
            tasks.cancel_scope.cancel()
