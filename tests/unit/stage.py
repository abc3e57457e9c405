"""A stage for the pure core: given these events, when this command, then these events or that refusal. No I/O.

Rules: time stands still unless a test moves it; every refusal that is met must say for which entity, what was expected,
what was found, and what to do next.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.domain.agent import Agent, AgentRegistered
from bus.domain.task_claims import check_fence, with_renewals
from bus.errors import BusError, Refused
from bus.events import Draft, Event, Fact
from bus.execute import check_authority
from bus.model import Command, Context, Emit, Limits, Reply, State
from bus.operation import FAMILY_OF, FAMILY_OF_STATE, OPERATION_OF
from bus.subjects import SYSTEM, TENANT, bucket_of
from bus.world import Speculation, World, as_event

START = datetime(2030, 1, 1, 12, tzinfo=UTC)


class CountingIds:
    """Ids that a test can foretell: e1, e2, … and t-1, t-2, …"""

    def __init__(self) -> None:
        self._events = self._names = 0

    def event_id(self) -> str:
        self._events += 1
        return f"e{self._events}"

    def short(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}-{self._names}"


class Stage:
    """A world with one owner, `olga`, and the agents atlas, nova and iris."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.world = World(FAMILY_OF.values())
        self.view = Speculation(self.world)
        self.now = START
        self.limits = limits or Limits()
        self.events: dict[int, Event] = {}
        self._ids = CountingIds()
        self.given(SYSTEM, "olga", AgentRegistered(authority=("auditor", "owner")), TENANT)
        for name in ("atlas", "nova", "iris"):
            self.given("olga", name, AgentRegistered(harness="codex"), TENANT)

    @property
    def seq(self) -> int:
        return self.world.position

    def given(self, agent: str, entity: str, fact: Fact, namespace: str = "default") -> int:
        """This happened: fold one event, and return its seq."""
        family = FAMILY_OF[fact.type.partition(".")[0]]
        draft = Draft(
            id=self._ids.event_id(),
            namespace=namespace,
            family=family.name,
            bucket=bucket_of(family.bucket_key(entity)),
            entity=entity,
            agent=agent,
            fact=fact,
        )
        event = as_event(draft, self.seq + 1)
        self.events[event.seq] = event
        self.view.folded(event, self.world.fold(event))
        return event.seq

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def at(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def decide(self, agent: str, request: Command) -> list[Emit] | Reply:
        """What `agent` asking `request` leads to, before anything is appended."""
        operation = OPERATION_OF[type(request)]
        known = self.view.get(Agent, TENANT, agent)
        authority = known.authority if known is not None else frozenset()
        if not operation.internal:
            check_authority(operation, authority, agent)
        reads = operation.reads(request) if operation.reads is not None else ()
        context = Context(
            agent=agent,
            namespace=request.namespace,
            now=self.now,
            ids=self._ids,
            authority=authority,
            events={seq: self.events[seq] for seq in reads if seq in self.events},
            limits=self.limits,
        )
        renewals = check_fence(self.view, request, context) if request.fence is not None else []
        assert operation.decide is not None
        decision = operation.decide(self.view, request, context)
        return decision if isinstance(decision, Reply) else with_renewals(renewals, decision)

    def facts(self, agent: str, request: Command) -> list[tuple[str, Fact]]:
        """(entity, fact) of every event `request` leads to; none when it changes nothing."""
        decision = self.decide(agent, request)
        return [] if isinstance(decision, Reply) else [(emit.entity, emit.fact) for emit in decision]

    def do(self, agent: str, request: Command) -> Any:
        """Decide, fold, and return the reply."""
        decision = self.decide(agent, request)
        if isinstance(decision, Reply):
            return decision
        events = []
        for emit in decision:
            author = emit.agent or agent
            assert emit.fact.type.startswith(FAMILY_OF_STATE[emit.state].name + ".")
            seq = self.given(author, emit.entity, emit.fact, emit.namespace or request.namespace)
            events.append(self.events[seq])
        operation = OPERATION_OF[type(request)]
        assert operation.reply is not None
        reply = operation.reply(self.view, request, events)
        assert isinstance(reply, operation.reply_type)
        return reply

    def refused(self, agent: str, request: Command, code: str, kind: type[BusError] = Refused) -> BusError:
        """The complete error that `request` meets; it must be of that kind and code."""
        with pytest.raises(kind) as caught:
            self.decide(agent, request)
        error = caught.value
        assert (type(error), error.code) == (kind, code), str(error)
        problem = error.problem
        for part in (problem.message, problem.entity, problem.expected, problem.found, problem.hint):
            assert part, f"{problem} leaves something out"
        return error

    def state(self, state: type[State], key: str, namespace: str = "default") -> Any:
        return self.view.get(state, namespace, key)
