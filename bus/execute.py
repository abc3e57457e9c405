"""The one decider: request -> decide -> append (`bus.pipeline`) -> ack -> reply.

Rules:
* A decision is made the moment the request arrives, on state that includes what is queued before it, so commands on
  one bucket pipeline into one batch. Every reply waits for the log's acknowledgement.
* No reply, no refusal and no event ever reveals state that is not stored: one that rests on such state waits behind it
  (a barrier in the queue) and is decided again.
* A request id is remembered with its digest and the seqs it led to. Asked again, it gets the same outcome and does
  nothing; the memory is rebuilt from the log, so it survives restarts and take-overs (`bus.requests`).
* What the log could not hold is refused before it is queued, because in the log it would fail a whole batch.
* Nothing here decides what is legal: that is `decide` in the families.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import structlog

from bus.authority import authority_of, check_authority, not_active
from bus.clock import Clock, Ids, from_ns
from bus.domain.task_claims import check_fence, with_renewals
from bus.errors import BusError, Defect, Refused, Unavailable
from bus.events import Codec, Draft, Event, RequestId
from bus.log import Log, log_nearly_full
from bus.model import Command, Context, Emit, Limits, Operation, Reply
from bus.pipeline import Pipeline, Unit
from bus.requests import REQUESTS_KEPT, Call, Known, Memory, RequestIds, request_digest, reused
from bus.subjects import SYSTEM, bucket_of, token
from bus.world import Change, Speculation, as_event, is_provisional

logger = structlog.get_logger(__name__)

__all__ = ["REQUESTS_KEPT", "Call", "Executor", "check_authority", "not_active", "request_digest"]

ATTEMPTS = 12
"""A request that lost so many conflicts is told to come again later."""
ENVELOPE_BYTES = 300
"""What an event takes in the log besides its body, at least."""


class Executor:
    """Decides and appends for one tenant. `may_lead` says, at the moment of an append, whether this daemon leads."""

    def __init__(
        self,
        log: Log,
        view: Speculation,
        clock: Clock,
        ids: Ids,
        codec: Codec,
        limits: Limits,
        may_lead: Callable[[], bool],
    ) -> None:
        self.log = log
        self.view = view
        self.world = view.world
        self.limits = limits
        self.nearly_full = False
        """Set while the log is above its soft limit: only essential operations are served."""
        self._room: int | None = None
        self._full: Callable[[], Refused] = log_nearly_full
        self._clock = clock
        self._ids = ids
        self._codec = codec
        self.pipeline: Pipeline[Call] = Pipeline(
            log, view, may_lead, clock, decide=self._decide, stored=self._stored, failed=self._failed
        )
        self._pending: dict[tuple[str, str], Call] = {}
        self._memory = Memory()
        self._fetches: deque[Call] = deque()
        self._fetching = 0
        self._fetch_wake = anyio.Event()

    # --- the door side -----------------------------------------------------------------------------------------

    def measured(self, room: int | None, full: Callable[[], Refused] = log_nearly_full) -> None:
        """So many bytes are left before only essential operations are served (None: there is no limit); `full` makes
        the refusal of the others. What is decided from now on is counted against them, because much may be written
        until the log is measured again."""
        self._room, self._full = room, full
        self.nearly_full = room is not None and room <= 0

    @property
    def waiting(self) -> int:
        """Commands that are not answered yet."""
        return len(self.pipeline) + len(self._fetches) + self._fetching

    @property
    def known_seq(self) -> int:
        """The newest event that decisions rest on."""
        return max(self.world.position, self.pipeline.stored_seq)

    def knows(self, seq: int) -> bool:
        """Whether decisions rest on event `seq`."""
        return seq <= self.known_seq

    async def reached(self, seq: int) -> None:
        """Return when decisions rest on event `seq`."""
        while self.known_seq < seq:
            await self.pipeline.next_move()

    def submit(self, call: Call) -> None:
        """Take a command. Returns at once; the answer comes through `call.answer`."""
        if call.name is not None and not self._is_new(call, call.name):
            return
        try:
            names_events = call.operation.reads is not None and call.operation.reads(call.request)
        except Exception as error:
            self._finish(call, _defect(call, error))
            return
        if names_events:
            self._fetch(call)
        else:
            self._decide(call)

    async def execute(
        self,
        operation: Operation,
        request: Command,
        agent: str,
        request_id: str | None = None,
        trace: str | None = None,
    ) -> Reply:
        """`submit` and wait. Raises the BusError that answers it."""
        done = anyio.Event()
        outcome: list[Reply | BusError] = []

        def answer(result: Reply | BusError) -> None:
            outcome.append(result)
            done.set()

        self.submit(Call(operation, request, agent, answer, request_id, trace))
        await done.wait()
        if isinstance(outcome[0], BusError):
            raise outcome[0]
        return outcome[0]

    def expire(self) -> None:
        """Queue the events that deadlines in the past call for. Called at intervals while this daemon leads; what is
        under way for an entity is waited for."""
        now = from_ns(self._clock.server_ns())
        for state, namespace, key in list(self.view.due(now)):
            family = self.world.families_of[state]
            self.view.touched = False
            entry = self.view.entry(state, namespace, key)
            if entry is None or self.view.touched or family.overdue is None:
                continue
            emits = family.overdue(entry.state, key, now)
            if emits:
                self.pipeline.enqueue(None, [self._draft(None, emit, SYSTEM, namespace) for emit in emits])

    # --- the log side ------------------------------------------------------------------------------------------

    def fold(self, event: Event) -> Change | None:
        """Take the next event of the log's tail into the world."""
        change = self.world.fold(event)
        self.view.folded(event, change)
        if event.request is not None:
            self.remember(event.agent, event.request, event.seq)
        self.pipeline.moved()
        return change

    def remember(self, agent: str, request: RequestId, seq: int) -> None:
        """Note that event `seq` came from this request."""
        self._memory.add(agent, request, seq)

    async def run_fetches(self) -> None:
        """Read the events that queued requests name, then decide those requests, for ever."""
        while True:
            if not self._fetches:
                self._fetch_wake = anyio.Event()
                await self._fetch_wake.wait()
            await self.fetch()

    async def fetch(self) -> None:
        """Read the events that the first queued request names, then decide it."""
        call = self._fetches.popleft()
        self._fetching = 1
        try:
            await self._fetch_one(call)
        except BusError as error:
            self._finish(call, error)
        except Exception as error:
            self._finish(call, _defect(call, error))
        finally:
            self._fetching = 0

    # --- deciding ----------------------------------------------------------------------------------------------

    def _is_new(self, call: Call, name: tuple[str, str]) -> bool:
        """Whether the request is to be decided; otherwise it is answered with, or joins, the one before it."""
        pending = self._pending.get(name)
        if pending is None and name not in self._memory:
            self._pending[name] = call
            return True
        if pending is None:
            self._fetch(call)
        elif pending.request_id == call.request_id:
            pending.answers += call.answers
        else:
            self._answer(call, reused(call.agent, name[1]))
        return False

    def _fetch(self, call: Call) -> None:
        self._fetches.append(call)
        self._fetch_wake.set()

    async def _fetch_one(self, call: Call) -> None:
        if call.name is not None and (known := self._memory.get(call.name)) is not None:
            self._finish(call, await self._repeated(call, known))
            return
        if call.operation.reads is not None:
            seqs = call.operation.reads(call.request)
            found = [event for seq in seqs if (event := await self._event(seq)) is not None]
            call.events = {event.seq: event for event in found}
        self._decide(call)

    async def _repeated(self, call: Call, known: Known) -> Reply | BusError:
        """The outcome of a request that has been stored before."""
        id_ = call.request_id
        assert id_ is not None
        if known.digest != id_.digest:
            return reused(call.agent, id_.id)
        events = [event for seq in sorted(known.seqs) if (event := await self._event(seq)) is not None]
        # The tail may have brought only the first events of an append; the others are right behind them.
        while (event := await self._event(events[-1].seq + 1)) is not None:
            if event.agent != call.agent or event.request != id_:
                break
            events.append(event)
        return self._reply(call, events)

    async def _event(self, seq: int) -> Event | None:
        record = await self.log.get(seq)
        return self._codec.decode(record) if record is not None else None

    def _decide(self, call: Call) -> None:
        """Decide on everything queued before; final unless it rests on what is not stored yet."""
        if call.name is not None and call.name in self._memory:
            self._fetch(call)  # Another leader stored it while it waited here.
            return
        call.attempts += 1
        if call.attempts > ATTEMPTS:
            self._finish(call, _contention(call))
            return
        view = self.view
        view.touched = False
        outcome = self._outcome(call)
        if isinstance(outcome, list):
            if view.touched and any(is_provisional(draft.fact) for draft in outcome):
                outcome = []
            self._fill(outcome)
            self.pipeline.enqueue(call, outcome)
            return
        if view.touched and call.attempts > 1:
            # It may meet unstored state every time; then what counts is whether it holds in the stored state.
            view.settled = True
            settled = self._outcome(call)
            view.settled = False
            if not isinstance(settled, list):
                self._finish(call, settled)
                return
        if view.touched:
            self.pipeline.enqueue(call, [])
        else:
            self._finish(call, outcome)

    def _fill(self, drafts: Sequence[Draft]) -> None:
        if self._room is not None:
            self._room -= sum(len(draft.body or b"") + ENVELOPE_BYTES for draft in drafts)
            self.nearly_full = self._room <= 0

    def _outcome(self, call: Call) -> list[Draft] | Reply | BusError:
        try:
            context = self._context(call)
            renewals = check_fence(self.view, call.request, context) if call.request.fence is not None else []
            assert call.operation.decide is not None
            decision = call.operation.decide(self.view, call.request, context)
            if isinstance(decision, Reply):
                return decision
            assert decision, "a decision without events"
            emits = with_renewals(renewals, decision) if renewals else decision
            return [self._draft(call, emit, call.agent, context.namespace) for emit in emits]
        except BusError as error:
            return error
        except Exception as error:
            return _defect(call, error)

    def _context(self, call: Call) -> Context:
        authority: frozenset[str] = frozenset()
        if not call.operation.internal or call.agent != SYSTEM:
            authority = authority_of(self.view, call.agent)
        check_authority(call.operation, authority, call.agent)
        if self.nearly_full and not (call.operation.essential or call.operation.internal):
            raise self._full()
        return Context(
            agent=call.agent,
            namespace=call.request.namespace,
            now=from_ns(self._clock.server_ns()),
            ids=self._ids if call.request_id is None else RequestIds(self._ids, call.agent, call.request_id),
            authority=authority,
            events=call.events,
            limits=self.limits,
        )

    def _draft(self, call: Call | None, emit: Emit, agent: str, namespace: str) -> Draft:
        family = self.world.families_of[emit.state]
        request = call.request if call is not None else None
        correlation = request.correlation if request is not None else None
        token(emit.entity)
        if correlation is not None:
            token(correlation)
        return Draft(
            id=self._ids.event_id(),
            namespace=emit.namespace or namespace,
            family=family.name,
            bucket=bucket_of(family.bucket_key(emit.entity)),
            entity=emit.entity,
            agent=emit.agent or agent,
            fact=emit.fact,
            request=call.request_id if call is not None and not emit.agent else None,
            causes=request.causes if request is not None else (),
            correlation=correlation,
            trace=call.trace if call is not None else None,
            body=self._codec.body(emit.fact),
        )

    # --- what became of it -------------------------------------------------------------------------------------

    def _stored(self, unit: Unit[Call], seqs: Sequence[int]) -> None:
        call = unit.call
        if call is None:
            return
        events = [as_event(draft, seq) for draft, seq in zip(unit.drafts, seqs, strict=True)]
        if call.request_id is not None:
            for event in events:
                if event.request is not None:
                    self.remember(call.agent, event.request, event.seq)
        self._finish(call, self._reply(call, events))

    def _reply(self, call: Call, events: Sequence[Event]) -> Reply | BusError:
        assert call.operation.reply is not None
        self.view.settled = True
        try:
            return call.operation.reply(self.view, call.request, events)
        except Exception as error:
            return _defect(call, error)
        finally:
            self.view.settled = False

    def _failed(self, call: Call, error: Exception) -> None:
        self._finish(call, error if isinstance(error, BusError) else _defect(call, error))

    def _finish(self, call: Call, result: Reply | BusError) -> None:
        if call.name is not None:
            self._pending.pop(call.name, None)
        self._answer(call, result)

    def _answer(self, call: Call, result: Reply | BusError) -> None:
        for answer in call.answers:
            try:
                answer(result)
            except Exception:  # who cannot be answered must not stop the others
                logger.exception("an answer was not delivered", operation=call.operation.name, agent=call.agent)


def _contention(call: Call) -> Unavailable:
    return Unavailable(
        "too many conflicting writes",
        code="contention",
        entity=call.operation.name,
        expected=f"a quiet moment within {ATTEMPTS} tries",
        found="none",
        hint="Ask again in a moment",
        retry_after_s=0.2,
    )


def _defect(call: Call, error: Exception) -> Defect:
    logger.error("defect", operation=call.operation.name, exc_info=error)
    return Defect(f"a defect in {call.operation.name}: {error!r}", hint="Please report it with the daemon's log")
