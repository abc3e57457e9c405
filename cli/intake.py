"""What agents ask: one subscription per active agent and kind, and bounds on what each may have under way.

Rules:
* Queries are taken by every daemon, commands by the leader alone: a command that still comes to a daemon which has lost
  the lease is not even looked at, because a refusal may rest on what is not so any more.
* The author of a request is the second token of its subject, which the broker enforces. Nothing else says who asks.
* Answers go only to subjects under `_INBOX.<that agent>.`; a request that wants its answer elsewhere is dropped and
  counted. (The requester chooses that subject, and this daemon may write where the requester may not.)
* Every agent has its own subscriptions, so that one that floods can be left to the broker: beyond the bounds it is
  told `busy`; if it goes on, it is not listened to for a while, twice as long each time.
* Nothing an agent sends stops this: a defect in one request is the answer to that request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from bus.clock import Clock
from bus.domain.agent import Agent
from bus.errors import BusError, InvalidRequest, Unavailable
from bus.model import Command, Operation, Query
from bus.protocol import (
    PROGRESS_HEADER,
    REQUEST_HEADER,
    TRACE_HEADER,
    Progress,
    check_request_id,
    decode_request,
    encode_answer,
    encode_progress,
)
from bus.subjects import ask_filter, is_name, may_reply_to, parse_ask
from bus.transport import Connection, Subscription
from bus.tunables import AskLimits
from bus.wire import Message
from bus.world import World
from cli.api import Api, as_error, find_operation

logger = structlog.get_logger(__name__)

MUTE_MAX_S = 60.0
QUEUE = "daemons"


class _Asker:
    """One agent: its subscriptions, what it has under way, and how often it went beyond the bounds."""

    __slots__ = ("bytes", "mute_s", "muted_until", "pending", "refusals", "subscriptions", "tokens", "tokens_at")

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        """By kind."""
        self.pending = 0
        self.refusals = 0
        self.tokens = 0.0
        self.bytes = 0.0
        self.tokens_at = 0.0
        self.muted_until = 0.0
        self.mute_s = 0.0


class Intake:
    """Receives requests for one daemon of a tenant and sends the answers. `heard` is called with the agent of each;
    `may_lead` says whether commands may be taken now. `only` are the agents it listens to, if not to all."""

    def __init__(
        self,
        connection: Connection,
        api: Api,
        world: World,
        limits: AskLimits,
        clock: Clock,
        tasks: TaskGroup,
        heard: Callable[[str], None],
        may_lead: Callable[[], bool],
        only: Collection[str] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._connection = connection
        self._api = api
        self._world = world
        self._limits = limits
        self._clock = clock
        self._tasks = tasks
        self._heard = heard
        self._may_lead = may_lead
        self._only = only
        self._kinds: set[str] = set()
        self._askers: dict[str, _Asker] = {}
        self._pending = 0
        self._operations: dict[str, Operation] = {}
        self._changed = anyio.Event()

    @property
    def pending(self) -> int:
        """Requests that are not answered yet."""
        return self._pending

    def agents_changed(self) -> None:
        """An agent was registered, deactivated or reactivated."""
        self._changed.set()

    def listen(self, kind: str) -> None:
        """Take requests of that kind (`do` or `see`) from now on."""
        self._kinds.add(kind)
        self._changed.set()

    def deafen(self, kind: str) -> None:
        """Take none of that kind any more, at once."""
        self._kinds.discard(kind)
        for asker in self._askers.values():
            if (subscription := asker.subscriptions.pop(kind, None)) is not None:
                subscription.unsubscribe()

    async def run(self) -> None:
        """Keep the subscriptions equal to the active agents, for ever. On cancellation they are all given up."""
        try:
            while True:
                self._changed = anyio.Event()
                wait_s = await self._adjust()
                with anyio.move_on_after(wait_s):
                    await self._changed.wait()
        finally:
            for asker in self._askers.values():
                self._unsubscribe(asker)

    async def _adjust(self) -> float:
        """Subscribe and unsubscribe what has changed. -> seconds until a muted agent is listened to again."""
        now = self._clock.monotonic_ns() / 1e9
        # Whoever can write to the log can write of an agent `*`: listening to that would be listening to everybody.
        active = {key for _, key, entry in self._world.entries(Agent) if entry.state.active and is_name(key)}
        if self._only is not None:
            active.intersection_update(self._only)
        for name in self._askers.keys() - active:
            self._unsubscribe(self._askers.pop(name))
        wait_s = 3600.0
        for name in sorted(active):
            asker = self._askers.get(name)
            if asker is None:
                asker = self._askers[name] = _Asker()
            if asker.muted_until > now:
                wait_s = min(wait_s, asker.muted_until - now)
            else:
                await self._subscribe(name, asker, now)
        return max(wait_s, 0.01)

    async def _subscribe(self, name: str, asker: _Asker, now: float) -> None:
        """Listen to what there is to listen to, and is not listened to yet."""
        if not asker.subscriptions:
            asker.tokens, asker.bytes = self._limits.burst, self._limits.burst_bytes
            asker.tokens_at, asker.refusals = now, 0
        for kind in sorted(self._kinds - asker.subscriptions.keys()):
            subscription = await self._connection.subscribe(ask_filter(name, kind), self._receive, queue=QUEUE)
            if kind not in self._kinds:  # The lease was lost meanwhile.
                subscription.unsubscribe()
                continue
            asker.subscriptions[kind] = subscription
        if asker.muted_until > now:  # It flooded as soon as it was listened to, and half of this came after that.
            self._unsubscribe(asker)

    def _unsubscribe(self, asker: _Asker) -> None:
        for subscription in asker.subscriptions.values():
            subscription.unsubscribe()
        asker.subscriptions = {}

    # --- one request -------------------------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        agent = message.subject.split(".", 2)[1]
        asker = self._askers.get(agent)
        if asker is None:
            return
        # Whatever comes counts, so that nobody can flood with what is no request.
        busy = self._admit(agent, asker, len(message.data))
        if not self._may_answer(agent, message.reply):
            return
        if busy is not None:
            self._send(message.reply, encode_answer(busy))
            return
        self._heard(agent)
        asker.pending += 1
        self._pending += 1
        answered = self._answerer(asker, message.reply)
        try:
            operation = self._operation(message.subject)
            request = decode_request(operation, message.data)
            if isinstance(request, Command):
                self._do(operation, request, agent, message, answered)
            else:
                assert isinstance(request, Query)
                report = self._reporter(message) if PROGRESS_HEADER in message.headers else None
                self._tasks.start_soon(self._see, operation, request, agent, answered, report)
        except Exception as error:
            answered(encode_answer(as_error(message.subject, error)))

    def _operation(self, subject: str) -> Operation:
        known = self._operations.get(subject)
        if known is None:
            try:
                ask = parse_ask(subject)
            except ValueError:
                self.counters["bad_subject"] += 1
                raise InvalidRequest(
                    "this subject names no operation",
                    code="bad_subject",
                    entity=subject[:100],
                    expected="ask.<agent>.<do|see>.<family>.<verb>",
                    found=f"{subject.count('.') + 1} tokens",
                    hint="`bus help` lists the operations",
                ) from None
            known = self._operations[subject] = find_operation(f"{ask.family}.{ask.verb}", ask.kind)
        return known

    def _may_answer(self, agent: str, reply: str) -> bool:
        if may_reply_to(agent, reply):
            return True
        self.counters["foreign_reply"] += 1
        logger.warning("dropped a request whose answer should go elsewhere", agent=agent, reply=reply[:100])
        return False

    def _admit(self, agent: str, asker: _Asker, size: int) -> BusError | None:
        """None, or the error that says that this agent (or everybody) has too much under way."""
        limits = self._limits
        now = self._clock.monotonic_ns() / 1e9
        passed_s = now - asker.tokens_at
        asker.tokens = min(limits.burst, asker.tokens + passed_s * limits.rate_per_s) - 1
        asker.bytes = min(limits.burst_bytes, asker.bytes + passed_s * limits.bytes_per_s) - size
        asker.tokens_at = now
        over = asker.pending >= limits.pending_per_agent
        floods = asker.tokens < 0 or asker.bytes < 0
        if not over and not floods and self._pending < limits.pending:
            if not asker.pending:
                asker.refusals = 0
            return None
        self.counters["busy"] += 1
        asker.refusals += 1
        if floods or asker.refusals > limits.pending_per_agent:
            self._mute(agent, asker, now)
        return Unavailable(
            "too much of yours is under way" if over else "too many requests",
            code="busy",
            entity=f"agent {agent}",
            expected=f"at most {limits.pending_per_agent} under way and {limits.rate_per_s:g} a second",
            retry_after_s=max(0.1, asker.muted_until - now),
        )

    def _mute(self, agent: str, asker: _Asker, now: float) -> None:
        if not asker.subscriptions:
            return
        # Somebody who was quiet for a while after the last time begins anew.
        again = now - asker.muted_until < MUTE_MAX_S
        asker.mute_s = min(MUTE_MAX_S, asker.mute_s * 2) if again and asker.mute_s else self._limits.mute_s
        asker.muted_until = now + asker.mute_s
        self._unsubscribe(asker)
        self.counters["muted"] += 1
        logger.warning("an agent floods and is not listened to", agent=agent, seconds=asker.mute_s)
        self._changed.set()

    def _answerer(self, asker: _Asker, reply: str) -> Callable[[bytes], None]:
        def answered(body: bytes) -> None:
            asker.pending -= 1
            self._pending -= 1
            self._send(reply, body)

        return answered

    def _reporter(self, message: Message) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            self._send(message.reply, encode_progress(progress))

        return report

    def _send(self, reply: str, body: bytes) -> None:
        if len(body) > self._connection.max_payload:
            error = InvalidRequest(
                "the answer is too large for one message",
                code="too_large",
                expected=f"at most {self._connection.max_payload} bytes",
                found=f"{len(body)} bytes",
                hint="Ask for less, or for a smaller page (--limit)",
            )
            body = encode_answer(error)
        try:
            self._connection.send(reply, body)
        except BusError:
            # The asker will ask again under the same request id and get the same outcome.
            self.counters["undelivered"] += 1

    def _do(
        self, operation: Operation, request: Command, agent: str, message: Message, answered: Callable[[bytes], None]
    ) -> None:
        if not self._may_lead():
            raise _not_leading()
        request_id = message.headers.get(REQUEST_HEADER)
        known: dict[str, Any] = {"trace": message.headers.get(TRACE_HEADER)}
        if request_id is not None:
            known["request_id"] = check_request_id(request_id)
        if self._api.knows(request.after):
            self._api.do(operation, request, agent, answered, **known)
        else:
            self._tasks.start_soon(self._do_after, operation, request, agent, answered, known)

    async def _do_after(
        self,
        operation: Operation,
        request: Command,
        agent: str,
        answered: Callable[[bytes], None],
        known: dict[str, Any],
    ) -> None:
        try:
            await self._api.contain(request.after)
        except Exception as error:
            answered(encode_answer(as_error(operation.name, error)))
        except BaseException:
            answered(encode_answer(_ending()))
            raise
        else:
            if self._may_lead():
                self._api.do(operation, request, agent, answered, **known)
            else:
                answered(encode_answer(_not_leading()))

    async def _see(
        self,
        operation: Operation,
        request: Query,
        agent: str,
        answered: Callable[[bytes], None],
        report: Callable[[Progress], None] | None,
    ) -> None:
        try:
            answer: msgspec.Struct | BusError = await self._api.see(operation, request, agent, report)
        except Exception as error:
            answer = as_error(operation.name, error)
        except BaseException:
            answered(encode_answer(_ending()))
            raise
        answered(encode_answer(answer))


def _not_leading() -> Unavailable:
    return Unavailable(
        "this daemon does not lead any more",
        code="not_leading",
        entity="the daemon",
        expected="the leader of the tenant",
        found="a daemon that stands by",
        hint="Ask again; another one is taking over",
        retry_after_s=0.1,
    )


def _ending() -> Unavailable:
    return Unavailable(
        "this daemon is ending",
        code="ending",
        entity="the daemon",
        expected="one that goes on",
        found="one that stops",
        hint="Ask again in a moment",
        retry_after_s=0.1,
    )
