"""Directives: instructions to an agent, or to whoever of a role takes them on.

    given -> acknowledged -> done        given | acknowledged -> declined | cancelled

Rules:
* A directive to a role goes to every active agent that has the role when it is given, but not to its giver. The first
  of them to acknowledge it (or to complete it at once) has it; one that declines leaves it to the others, and only when
  all have declined is it declined.
* It is in the inboxes of those it goes to; its giver is told what became of it.
* When it is overdue an event of `system` says so, `directive.fell_due`, and both sides are told. It can still be done.
* Only its giver, or an owner, cancels it. Nobody instructs itself: that is a task, or a reminder.
* What is decided, and the table of the family, is in `bus.domain.directive_decisions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.domain.task_requests import Happening, Priority
from bus.events import Event, Fact
from bus.model import Answer, Command, Instant, Key, Name, PageQuery, Query, Reply, Seq, State, Text

DirectiveState = Literal["given", "acknowledged", "done", "declined", "cancelled"]
DirectiveId = Annotated[Key, Meta(description="the directive's id")]
Reason = Annotated[str, Meta(max_length=20_000, description="why")]
LIVE = ("given", "acknowledged")
Count = Annotated[int, Meta(ge=-(1 << 31), le=1 << 31)]


class DirectiveGiven(Fact, frozen=True, kw_only=True):
    """An agent, or whoever of a role takes it on, is to do something."""

    type: ClassVar[str] = "directive.given"
    to: tuple[str, ...]
    """The agents it goes to."""
    text: str
    role: str | None = None
    """The role it was given to; `to` are the agents that had it then."""
    priority: Count = 0
    due: Instant | None = None
    """When it is to be done by, in server time."""


class DirectiveAcknowledged(Fact, frozen=True, kw_only=True):
    """The author has taken the directive on."""

    type: ClassVar[str] = "directive.acknowledged"
    giver: str
    """Who gave the directive."""


class DirectiveCompleted(Fact, frozen=True, kw_only=True):
    """The author has done what the directive says."""

    type: ClassVar[str] = "directive.completed"
    giver: str
    """Who gave the directive."""
    result: str = ""
    refs: tuple[Seq, ...] = ()


class DirectiveDeclined(Fact, frozen=True, kw_only=True):
    """The author will not do it; others that it goes to may."""

    type: ClassVar[str] = "directive.declined"
    giver: str
    """Who gave the directive."""
    reason: str = ""


class DirectiveCancelled(Fact, frozen=True, kw_only=True):
    """The directive is no longer wanted."""

    type: ClassVar[str] = "directive.cancelled"
    to: tuple[str, ...]
    """The agents that had to do with it."""
    reason: str = ""


class DirectiveFellDue(Fact, frozen=True, kw_only=True):
    """The time has passed by which the directive was to be done."""

    type: ClassVar[str] = "directive.fell_due"
    giver: str
    """Who gave the directive."""
    to: tuple[str, ...]
    """The agents that have to do with it."""
    due: Instant
    """When it was to be done by."""


class Directive(State, frozen=True, kw_only=True):
    """A directive now. `agent` is who took it on, `to` are those that may still take it on, or took it on."""

    table: ClassVar[str] = "directive"
    giver: str
    text: str
    role: str | None = None
    priority: int = 0
    due: datetime | None = None
    state: str = "given"
    agent: str | None = None
    overdue: bool = False
    result: str = ""
    reason: str = ""
    to: frozenset[str] = frozenset()
    refs: frozenset[int] = frozenset()


def evolve(directive: Directive | None, event: Event) -> Directive | None:
    """The directive after `event`."""
    fact = event.fact
    if directive is None:
        if not isinstance(fact, DirectiveGiven):
            return None
        same = {name: getattr(fact, name) for name in ("text", "role", "priority", "due")}
        return Directive(giver=event.agent, to=frozenset(fact.to), **same)
    if directive.state not in LIVE:
        return directive
    match fact:
        case DirectiveAcknowledged() if directive.state == "given" and event.agent in directive.to:
            return replace(directive, state="acknowledged", agent=event.agent)
        case DirectiveCompleted() if _may_end(directive, event.agent):
            refs = frozenset(fact.refs)
            return replace(directive, state="done", agent=event.agent, overdue=False, result=fact.result, refs=refs)
        case DirectiveDeclined() if _may_end(directive, event.agent):
            left = directive.to - {event.agent}
            state, overdue = ("given", directive.overdue) if left else ("declined", False)
            return replace(directive, state=state, agent=None, overdue=overdue, reason=fact.reason, to=left)
        case DirectiveCancelled():
            return replace(directive, state="cancelled", overdue=False, reason=fact.reason)
        case DirectiveFellDue() if not directive.overdue:
            return replace(directive, overdue=True)
        case _:
            return directive


def _may_end(directive: Directive, name: str) -> bool:
    """Whether this agent may complete or decline the directive: who took it on, or anybody it goes to until then."""
    return name == directive.agent if directive.agent is not None else name in directive.to


# --- requests -----------------------------------------------------------------------------------------------------


class Give(Command, frozen=True, kw_only=True):
    """Instruct an agent, or whoever of a role takes it on first."""

    text: Annotated[Text, Meta(description="what is to be done")]
    to: Annotated[Name | None, Meta(description="the agent that is to do it")] = None
    role: Annotated[Name | None, Meta(description="a role: one of the agents that have it is to do it")] = None
    priority: Priority = 0
    due: Annotated[Instant | None, Meta(description="when it is to be done by, as an ISO instant")] = None
    due_in_s: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 40)] | None, Meta(description="seconds from now by which it is to be done")
    ] = None
    directive: Annotated[Key | None, Meta(description="its id (default: a new one)")] = None


class Acknowledge(Command, frozen=True, kw_only=True):
    """Take a directive on: its giver knows that you will do it."""

    directive: DirectiveId


class Complete(Command, frozen=True, kw_only=True):
    """Say that what a directive asks for is done."""

    directive: DirectiveId
    result: Annotated[str, Meta(max_length=200_000, description="what came of it")] = ""
    refs: Annotated[tuple[Seq, ...], Meta(max_length=100, description="seqs of events that belong to it")] = ()


class Decline(Command, frozen=True, kw_only=True):
    """Say that you will not do what a directive asks for."""

    directive: DirectiveId
    reason: Reason = ""


class Cancel(Command, frozen=True, kw_only=True):
    """Withdraw a directive that you gave."""

    directive: DirectiveId
    reason: Reason = ""


class List(PageQuery, frozen=True, kw_only=True):
    """List directives, in the order in which they were given."""

    state: Annotated[DirectiveState | None, Meta(description="only in this state")] = None
    to: Annotated[Name | None, Meta(description="only those that go to this agent, or that it took on")] = None
    giver: Annotated[Name | None, Meta(description="only those that this agent gave")] = None
    role: Annotated[Name | None, Meta(description="only those to this role")] = None
    overdue: Annotated[bool | None, Meta(description="only overdue ones, or only others")] = None


class Show(Query, frozen=True, kw_only=True):
    """Show one directive with its history."""

    directive: DirectiveId


class DirectiveReply(Reply, frozen=True, kw_only=True):
    """`state`: what the command did; `declined` means by you, others that it goes to may still do it."""

    directive: str
    state: DirectiveState
    to: tuple[str, ...] = ()
    """Whom it goes to, when it was given."""


class DirectiveRow(Struct, frozen=True, kw_only=True):
    """A directive as it was. `seq` is that of its last change, `given` that of its first event."""

    directive: str
    seq: int
    given: int
    giver: str
    to: list[str]
    role: str | None
    agent: str | None
    """Who took it on."""
    state: DirectiveState
    overdue: bool
    priority: int
    due: datetime | None
    text: str
    result: str
    reason: str
    refs: list[int]


class Directives(Answer, frozen=True, kw_only=True):
    directives: list[DirectiveRow]
    next: int | None = None


class DirectiveDetail(Answer, frozen=True, kw_only=True):
    directive: DirectiveRow
    history: list[Happening]
