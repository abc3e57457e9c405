"""The layer that all doors share: authorise, dispatch, wait for the level asked for, answer.

    command -> Executor (decides, appends)          query -> handler of a view (reads tables at a position)

Rules:
* It decides nothing itself. What is legal is decided in the families, what is visible in the store's Reader.
* Every request is checked against the folded state of its agent, so that a deactivation takes effect at once.
* Read levels: `local` (what this daemon has), `after` (at least that event; one beyond the log's end is an error,
  never a wait), `as_of` (exactly that moment; one in the future is an error).
* A query with `wait_s` is held until it has something to say. Following is asking again from the last seq.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakValueDictionary

import anyio
import msgspec
import structlog
from msgspec.structs import replace

from bus import operation as operations
from bus.clock import Clock, from_ns, to_ns
from bus.domain import channel, dm, needs, recall, task_requests
from bus.domain import task_decisions as task
from bus.domain.agent import Agent, Presences
from bus.errors import BusError, Defect, InvalidRequest, NotAllowed, Unavailable
from bus.events import Event
from bus.execute import Call, check_authority, not_active
from bus.log import Log
from bus.model import Answer, Command, Operation, Query, Reply, Request
from bus.protocol import Progress, encode_answer
from bus.subjects import TENANT
from bus.world import Speculation
from cli.exposures import exposure
from cli.moments import parse_moment
from projections import query as queries
from projections.query import Reader

logger = structlog.get_logger(__name__)

AFTER_S = 2.5
"""A read waits at most so long for the tables to reach the event it must contain. Then it says that they lag, before
the asker gives up, so that it may ask another daemon."""
READS_PER_AGENT = 2
"""One agent's queries are read so many at a time. One event may wake a thousand that wait, and the readings of an agent
that has so many must not stand before those of everybody else."""
WAITING_FAMILIES = (task.FAMILY.name, needs.FAMILY.name)
"""Whose events can change which tasks wait: a worker must not be woken by every message."""
STALE_S = 15.0
"""An answer says how old it is when whoever gives it has not known everything that is stored for so long."""

Answered = Callable[[bytes], None]
Report = Callable[[Progress], None]
Elsewhere = Callable[[Any, str], Awaitable[Answer]]
Handle = Callable[[Any, Any], Any]
Helped = Callable[[Any, int, Callable[[Handle, Any], Awaitable[Any]]], Awaitable[Answer]]


class Decider(Protocol):
    """Where commands are decided, as far as this layer needs it: an executor, or the way to the one of a leader."""

    @property
    def log(self) -> Log: ...

    @property
    def view(self) -> Speculation: ...

    @property
    def known_seq(self) -> int:
        """The newest event that is known here."""
        ...

    def knows(self, seq: int) -> bool:
        """Whether a command that has to rest on event `seq` can be submitted now."""
        ...

    async def reached(self, seq: int) -> None:
        """Return when it can."""
        ...

    def submit(self, call: Call) -> None:
        """Take a command. Returns at once; the answer comes through `call.answers`."""
        ...


class Recorder(Protocol):
    """Where it is noted what agents were shown."""

    async def record(self, request: Command, agent: str) -> None:
        """Have a command carried out for an agent who was shown something. Raises when that is not certain."""
        ...

    def settle(self, agent: str) -> None:
        """Whatever is asked from now on is decided after what was recorded for `agent`."""
        ...


class Tables(Protocol):
    """The read side, as far as this layer needs it."""

    @property
    def position(self) -> int: ...

    async def read(self, seq: int, agent: str, now: datetime, fn: Callable[[Reader], Any]) -> Any:
        """Run `fn` on the tables as of `seq`, as `agent` may see them."""
        ...

    async def seq_at(self, time_ns: int) -> int:
        """The longest prefix of the log whose events were all stored by then."""
        ...

    async def reached(self, seq: int, timeout_s: float | None = None) -> bool:
        """Wait until the tables contain event `seq`. -> whether they do (False: the time was up)."""
        ...


class Api:
    """Answers requests. `replays` answers the ones that take long (replay, SQL); they may report progress. An answer of
    more than `reply_bytes` is asked for again with a smaller page. `recorder` has noted what an agent was shown.
    `elsewhere(request, agent)` answers the queries of which that cannot be noted here. After `stale_s` without knowing
    everything that is stored, an answer says so. `helped` answers what takes more than reading the tables."""

    def __init__(
        self,
        executor: Decider,
        tables: Tables,
        clock: Clock,
        replays: dict[type, Callable[..., Any]],
        reply_bytes: int,
        recorder: Recorder | None,
        elsewhere: Mapping[type, Elsewhere] | None = None,
        stale_s: float = STALE_S,
        helped: Mapping[type, Helped] | None = None,
    ) -> None:
        self._executor = executor
        self._elsewhere = elsewhere or {}
        self._helped = helped or {}
        self._stale_s = stale_s
        self._tables = tables
        self._clock = clock
        self._handlers = queries.answerers()
        self._replays = replays
        self._reply_bytes = reply_bytes
        self._recorder = recorder
        self._head = (0, clock.monotonic_ns())
        self._current_ns = clock.monotonic_ns()
        # Weak: what is not waited for any more is forgotten, whatever it was that somebody waited for.
        self._waiting: WeakValueDictionary[tuple[str, str, str] | None, anyio.Event] = WeakValueDictionary()
        self._turns: defaultdict[str, anyio.CapacityLimiter] = defaultdict(
            lambda: anyio.CapacityLimiter(READS_PER_AGENT)
        )

    # --- commands ----------------------------------------------------------------------------------------------

    def do(self, operation: Operation, request: Command, agent: str, answered: Answered, **known: Any) -> None:
        """Hand a command to the executor; `answered` is called with the encoded answer once it is stored. `known`:
        `request_id` and `trace`."""

        def answer(result: Reply | BusError) -> None:
            answered(encode_answer(result))

        if self._recorder is not None:
            self._recorder.settle(agent)
        self._executor.submit(Call(operation, request, agent, answer, **known))

    def knows(self, seq: int) -> bool:
        """Whether decisions made now rest on a state that contains event `seq`."""
        return self._executor.knows(seq)

    async def contain(self, seq: int) -> None:
        """Wait until decisions rest on event `seq`. Raises InvalidRequest when the log does not reach so far."""
        await self._check_exists(seq)
        with anyio.move_on_after(AFTER_S):
            await self._executor.reached(seq)
            return
        raise Unavailable("this daemon has not caught up", code="lagging", expected=f"#{seq}", retry_after_s=1.0)

    # --- queries -----------------------------------------------------------------------------------------------

    async def see(
        self, operation: Operation, request: Query, agent: str, report: Report | None = None
    ) -> msgspec.Struct:
        """Answer a query. Raises BusError."""
        self._authorise(operation, agent)
        elsewhere = self._elsewhere.get(type(request))
        if elsewhere is not None:
            return await elsewhere(request, agent)
        if request.after:
            await self._catch_up(request.after)
        seq = self._tables.position
        if request.as_of is not None:
            seq = await self._resolve(request.as_of)
        replay = self._replays.get(type(request))
        answer: Answer
        if replay is not None:
            answer = await replay(request, agent, seq, report)
        else:
            answer = await self._answer(operation, request, agent, seq)
        if request.as_of is None and self.age_s > self._stale_s:
            answer = replace(answer, stale_s=round(self.age_s, 1))
        return answer

    async def _answer(self, operation: Operation, request: Query, agent: str, seq: int) -> Any:
        handler = self._handlers[type(request)]
        until = self._clock.monotonic_ns() + int(request.wait_s * 1e9)
        topic = _topic(request, agent)
        while True:
            # Taken before reading: an event that comes between the reading and the waiting must not be missed.
            news = self._waiting.setdefault(topic, anyio.Event()) if request.wait_s else None
            self._authorise(operation, agent)  # Much may have happened since it asked.
            answer = await self._whole(handler.handle, request, agent, seq)
            left_s = (until - self._clock.monotonic_ns()) / 1e9
            if news is None or handler.items is None or getattr(answer, handler.items):
                break
            if left_s <= 0 or request.as_of is not None:
                break
            with anyio.move_on_after(left_s):
                await news.wait()
            seq = self._tables.position
        if self._recorder is not None:
            shown = exposure(request, answer)
            if shown is not None:
                await self._recorder.record(shown, agent)
        if isinstance(answer, Presences) and request.as_of is None:
            answer = replace(answer, age_s=min(answer.age_s, self.age_s))
        return answer

    def current_at(self, at_ns: int) -> None:
        """The tables contained everything that was stored at that (monotonic) time, and nothing is known of later."""
        self._head, self._current_ns = (self._tables.position, at_ns), at_ns

    def log_ended(self, seq: int, at_ns: int) -> None:
        """At that (monotonic) time the log ended with event `seq`."""
        self._look_back()
        self._head = (seq, at_ns)

    def _look_back(self) -> None:
        if self._tables.position >= self._head[0]:
            self._current_ns = max(self._current_ns, self._head[1])

    @property
    def age_s(self) -> float:
        """Seconds since the tables were known to contain everything that was stored."""
        self._look_back()
        return (self._clock.monotonic_ns() - self._current_ns) / 1e9

    async def _whole(self, handle: Handle, request: Query, agent: str, seq: int) -> Any:
        now = from_ns(self._clock.server_ns())

        async def read(handle: Handle, request: Query) -> Any:
            async with self._turns[agent]:
                return await self._tables.read(seq, agent, now, lambda reader: handle(reader, request))

        helped = self._helped.get(type(request))
        while True:
            answer = await (helped(request, seq, read) if helped is not None else read(handle, request))
            name = "k" if isinstance(request, recall.Recall) else "limit"
            limit = getattr(request, name, 1)
            if limit == 1 or len(encode_answer(answer)) <= self._reply_bytes:
                return answer
            request = replace(request, **{name: max(1, limit // 4)})

    def folded(self, events: Sequence[Event]) -> None:
        """The tables contain these events now: wake the queries that wait for something like them."""
        if not self._waiting:
            return
        self._wake(None)
        for event in events:
            self._wake((event.family, event.namespace, event.entity))
            if event.family in WAITING_FAMILIES:
                self._wake(_tasks_of(event.namespace))

    def _wake(self, topic: tuple[str, str, str] | None) -> None:
        news = self._waiting.pop(topic, None)
        if news is not None:
            news.set()

    # --- who, and when -----------------------------------------------------------------------------------------

    def _authorise(self, operation: Operation, agent: str) -> None:
        # Stored is enough: a deactivation counts from its acknowledgement on, before the tail brings it.
        view = self._executor.view
        view.settled = True
        state = view.get(Agent, TENANT, agent)
        view.settled = False
        if state is None or not state.active:
            raise not_active(agent, state)
        check_authority(operation, state.authority, agent)

    async def _check_exists(self, seq: int) -> None:
        if seq <= self._executor.known_seq:
            return
        try:
            head = (await self._executor.log.head()).seq
        except Unavailable:
            return  # Whether it exists cannot be known now; whoever waits for it is told that it has not come.
        if seq > head:
            raise InvalidRequest(
                "there is no such event yet",
                code="future",
                entity="the log",
                expected=f"at most #{head}",
                found=f"#{seq}",
                hint="It was replaced or restored, or this seq is of another bus",
            )

    async def _catch_up(self, after: int) -> None:
        if after <= self._tables.position:
            return
        await self._check_exists(after)
        if await self._tables.reached(after, AFTER_S):
            return
        raise Unavailable(
            "the tables have not caught up",
            code="lagging",
            expected=f"#{after}",
            found=f"#{self._tables.position}",
            retry_after_s=1.0,
        )

    async def _resolve(self, as_of: int | str) -> int:
        """The seq of the moment that `as_of` names; the tables contain it on return."""
        if isinstance(as_of, int):
            if as_of < 0:
                raise InvalidRequest("bad moment", code="bad_moment", expected="a seq from 0 on", found=str(as_of))
            await self._catch_up(as_of)
            return as_of
        now = from_ns(self._clock.server_ns())
        moment = parse_moment(as_of, now)
        if isinstance(moment, int):
            return await self._resolve(moment)
        if moment > now + timedelta(seconds=1):
            raise InvalidRequest(
                "that moment has not come yet", code="future", expected=f"at most {now.isoformat()}", found=as_of
            )
        # What was stored by then may still be on its way to the tables.
        await self._catch_up((await self._executor.log.head()).seq)
        # Times are shown in microseconds, the log counts nanoseconds: the time of an event has to name that event.
        return await self._tables.seq_at(to_ns(moment) + 999)


def _tasks_of(namespace: str) -> tuple[str, str, str]:
    return (task.FAMILY.name, namespace, "")


def _topic(request: Request, agent: str) -> tuple[str, str, str] | None:
    """The entity whose events can change the answer, all tasks of a namespace, or None when it may be any."""
    if isinstance(request, task_requests.Waiting):
        return _tasks_of(request.namespace)
    if isinstance(request, channel.Read):
        return ("channel", request.namespace, request.channel)
    if isinstance(request, dm.Read):
        return ("dm", TENANT, dm.pair(agent, request.to))
    return None


def as_error(name: str, error: Exception) -> BusError:
    """Any exception as the error that answers a request; what is not a BusError is a defect and is logged."""
    if isinstance(error, BusError):
        return error
    logger.error("defect", operation=name, exc_info=error)
    return Defect(f"a defect in {name}: {error!r}", hint="Please report it with the daemon's log")


def find_operation(name: str, kind: str) -> Operation:
    """The operation of that name that is asked by `kind` (`do` or `see`). Raises InvalidRequest or NotAllowed."""
    operation = operations.OPERATIONS.get(name)
    if operation is None or operation.kind != kind:
        raise InvalidRequest("no such operation", code="unknown_operation", found=name, hint="`bus help` lists them")
    if operation.internal:
        raise NotAllowed("only the daemon itself asks for this", code="internal", entity=name)
    return operation
