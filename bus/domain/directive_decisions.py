"""What is decided about directives, and the table of the family. The rules are in `bus.domain.directive`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bus.domain import agent, recurrence
from bus.domain import directive as ask
from bus.domain.directive import (
    LIVE,
    Directive,
    DirectiveAcknowledged,
    DirectiveCancelled,
    DirectiveCompleted,
    DirectiveDeclined,
    DirectiveFellDue,
    DirectiveGiven,
    DirectiveReply,
    evolve,
)
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.events import Event
from bus.model import Context, Decision, Emit, Family, Operation, View
from bus.subjects import SYSTEM


def decide_give(view: View, request: ask.Give, ctx: Context) -> Decision:
    key = request.directive or ctx.ids.short("d")
    if view.get(Directive, ctx.namespace, key) is not None:
        raise Refused(
            "the directive exists already",
            code="exists",
            entity=f"directive {key}",
            expected="an id that is free",
            found="a directive of that id",
            hint="Choose another id, or leave it out",
        )
    if not request.text.strip():
        raise InvalidRequest(
            "a directive needs a text",
            code="no_text",
            entity=f"directive {key}",
            expected="what is to be done",
            found="an empty text",
            hint='For example: bus directive give "run the tests" --to nova',
        )
    given = DirectiveGiven(
        to=_addressees(view, request, ctx, key),
        text=request.text,
        role=request.role,
        priority=request.priority,
        due=_due(request, ctx, key),
    )
    return [Emit(Directive, key, given)]


def _addressees(view: View, request: ask.Give, ctx: Context, key: str) -> tuple[str, ...]:
    """The agents that the directive goes to."""
    if (request.to is None) == (request.role is None):
        raise InvalidRequest(
            "it is not clear who is to do it",
            code="addressee",
            entity=f"directive {key}",
            expected="an agent or a role",
            found="neither" if request.to is None else "both",
            hint="Give either --to AGENT or --role ROLE",
        )
    if request.to is not None:
        agent.find_active(view, request.to)
        if request.to == ctx.agent:
            raise InvalidRequest(
                "nobody instructs itself",
                code="same_agent",
                entity=f"directive {key}",
                expected="another agent",
                found=request.to,
                hint="`bus task open` and `bus remind` are for what you want to do yourself",
            )
        return (request.to,)
    assert request.role is not None
    others = tuple(name for name in agent.having(view, request.role) if name != ctx.agent)
    if not others:
        raise NotFound(
            "nobody else has this role",
            code="nobody",
            entity=f"role {request.role}",
            expected="another active agent that has it",
            found="none",
            hint=f"An agent takes a role: bus agent update --role {request.role}",
        )
    return others


def _due(request: ask.Give, ctx: Context, key: str) -> datetime | None:
    if request.due is not None and request.due_in_s is not None:
        raise InvalidRequest(
            "it is not clear when it is due",
            code="when",
            entity=f"directive {key}",
            expected="at most one of due and due_in_s",
            found="both",
            hint="Give either --due or --due-in",
        )
    if request.due is not None:
        return recurrence.reachable(request.due, ctx, f"directive {key}")
    return None if request.due_in_s is None else recurrence.ahead(request.due_in_s, ctx, f"directive {key}")


def _find(view: View, ctx: Context, key: str) -> Directive:
    directive = view.get(Directive, ctx.namespace, key)
    if directive is None:
        raise NotFound(
            "no such directive",
            entity=f"directive {key}",
            expected=f"a directive of namespace {ctx.namespace}",
            found="none of that id",
            hint="`bus directive list` shows them",
        )
    return directive


def _live(directive: Directive, key: str) -> Directive:
    if directive.state not in LIVE:
        raise Refused(
            f"the directive is {directive.state}",
            code="state",
            entity=f"directive {key}",
            expected="one that is given or acknowledged",
            found=directive.state,
            hint=f"Ask {directive.giver} to give it anew",
            state=directive.state,
        )
    return directive


def _mine(view: View, ctx: Context, key: str) -> Directive:
    """The directive, if the one who asks is to do it; refused otherwise, saying who is."""
    directive = _find(view, ctx, key)
    if ctx.agent not in directive.to and directive.state != "declined":
        raise NotAllowed(
            "this directive does not go to you",
            code="not_addressed",
            entity=f"directive {key}",
            expected=", ".join(sorted(directive.to)[:10]) or "nobody",
            found=ctx.agent,
            hint=f"Ask {directive.giver}, who gave it",
        )
    _live(directive, key)
    if directive.agent not in (None, ctx.agent):
        raise Refused(
            f"{directive.agent} has taken it on",
            code="taken",
            entity=f"directive {key}",
            expected="a directive that nobody has taken on",
            found=f"acknowledged by {directive.agent}",
            hint=f"Leave it to {directive.agent}, who may still decline it",
            agent=directive.agent,
        )
    return directive


def _now(view: View, ctx: Context, key: str) -> DirectiveReply:
    entry = view.entry(Directive, ctx.namespace, key)
    assert entry is not None
    return DirectiveReply(seq=entry.since, directive=key, state=entry.state.state)


def decide_acknowledge(view: View, request: ask.Acknowledge, ctx: Context) -> Decision:
    directive = _mine(view, ctx, request.directive)
    if directive.agent == ctx.agent:
        return _now(view, ctx, request.directive)
    return [Emit(Directive, request.directive, DirectiveAcknowledged(giver=directive.giver))]


def decide_complete(view: View, request: ask.Complete, ctx: Context) -> Decision:
    giver = _mine(view, ctx, request.directive).giver
    completed = DirectiveCompleted(giver=giver, result=request.result, refs=request.refs)
    return [Emit(Directive, request.directive, completed)]


def decide_decline(view: View, request: ask.Decline, ctx: Context) -> Decision:
    giver = _mine(view, ctx, request.directive).giver
    return [Emit(Directive, request.directive, DirectiveDeclined(giver=giver, reason=request.reason))]


def decide_cancel(view: View, request: ask.Cancel, ctx: Context) -> Decision:
    directive = _find(view, ctx, request.directive)
    if ctx.agent != directive.giver and "owner" not in ctx.authority:
        raise NotAllowed(
            "this directive is not yours to cancel",
            entity=f"directive {request.directive}",
            expected=f"{directive.giver}, who gave it, or an owner of the tenant",
            found=ctx.agent,
            hint=f"Ask {directive.giver}, or decline it",
        )
    if directive.state == "cancelled":
        return _now(view, ctx, request.directive)
    cancelled = DirectiveCancelled(to=_concerned(_live(directive, request.directive)), reason=request.reason)
    return [Emit(Directive, request.directive, cancelled)]


def _concerned(directive: Directive) -> tuple[str, ...]:
    """Who has to do with it now: the agent that took it on, or all that may."""
    return tuple(sorted(directive.to)) if directive.agent is None else (directive.agent,)


def deadline(directive: Directive) -> datetime | None:
    return directive.due if directive.state in LIVE and not directive.overdue else None


def overdue(directive: Directive, key: str, now: datetime) -> Sequence[Emit]:
    """The event that says that it was to be done by now."""
    due = deadline(directive)
    if due is None or due > now:
        return []
    fell_due = DirectiveFellDue(giver=directive.giver, to=_concerned(directive), due=due)
    return [Emit(Directive, key, fell_due, SYSTEM)]


def _reply(view: View, request: Any, events: Sequence[Event]) -> DirectiveReply:
    event = events[-1]
    match event.fact:
        case DirectiveGiven(to=to):
            return DirectiveReply(seq=event.seq, directive=event.entity, state="given", to=to)
        case DirectiveAcknowledged():
            state: ask.DirectiveState = "acknowledged"
        case DirectiveCompleted():
            state = "done"
        case DirectiveDeclined():
            state = "declined"
        case _:
            state = "cancelled"
    return DirectiveReply(seq=event.seq, directive=event.entity, state=state)


FAMILY = Family(
    name="directive",
    facts=(
        DirectiveGiven,
        DirectiveAcknowledged,
        DirectiveCompleted,
        DirectiveDeclined,
        DirectiveCancelled,
        DirectiveFellDue,
    ),
    state=Directive,
    evolve=evolve,
    deadline=deadline,
    overdue=overdue,
    operations=(
        Operation("directive.give", ask.Give, DirectiveReply, decide_give, _reply),
        Operation("directive.acknowledge", ask.Acknowledge, DirectiveReply, decide_acknowledge, _reply),
        Operation("directive.complete", ask.Complete, DirectiveReply, decide_complete, _reply, essential=True),
        Operation("directive.decline", ask.Decline, DirectiveReply, decide_decline, _reply, essential=True),
        Operation("directive.cancel", ask.Cancel, DirectiveReply, decide_cancel, _reply, essential=True),
        Operation("directive.list", ask.List, ask.Directives),
        Operation("directive.show", ask.Show, ask.DirectiveDetail),
    ),
)
