"""What is decided about agents, and the table of the family. The rules are in `bus.domain.agent`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.domain.agent import (
    Agent,
    AgentDeactivated,
    AgentReactivated,
    AgentRegistered,
    AgentRouted,
    Agents,
    AgentUpdated,
    AuthorityGranted,
    AuthorityWithdrawn,
    ChangePresence,
    Children,
    Deactivate,
    Grant,
    List,
    PresenceChanged,
    Presences,
    Reactivate,
    Register,
    Registered,
    Route,
    Update,
    Who,
    Withdraw,
    deactivated,
    evolve,
    find,
    find_active,
)
from bus.domain.registry import Personality
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.events import Event, Fact
from bus.model import Command, Context, Decision, Emit, Family, Operation, View
from bus.subjects import SYSTEM, TENANT

DESCRIBED = ("harness", "device", "model", "roles")
"""What `agent.register` and `agent.update` say of an agent."""


def _emit(name: str, fact: Fact, author: str | None = None) -> list[Emit]:
    return [Emit(Agent, name, fact, author, TENANT)]


def _may_change(ctx: Context, name: str) -> None:
    if name != ctx.agent and "owner" not in ctx.authority:
        raise NotAllowed(
            "only the agent itself or an owner may do this",
            entity=f"agent {name}",
            expected=f"{name}, or an owner of the tenant",
            found=ctx.agent,
            hint="Ask an owner",
        )


def _now(view: View, name: str) -> Registered:
    entry = view.entry(Agent, TENANT, name)
    assert entry is not None
    return Registered(seq=entry.since, agent=name)


def decide_register(view: View, request: Register, ctx: Context) -> Decision:
    if request.agent == SYSTEM:
        raise InvalidRequest(
            "this name is reserved",
            code="bad_name",
            entity=f"agent {SYSTEM}",
            expected=f"any name but {SYSTEM}",
            found=SYSTEM,
            hint="Choose another name",
        )
    known = view.get(Agent, TENANT, request.agent)
    if known is None:
        if "owner" not in ctx.authority:
            raise NotAllowed(
                "only an owner may register a new agent",
                entity=f"agent {request.agent}",
                expected="an owner of the tenant",
                found=ctx.agent,
                hint="Ask an owner to register it",
            )
        if request.parent is not None:
            find(view, request.parent)
        fact = AgentRegistered(
            harness=request.harness,
            device=request.device,
            model=request.model,
            parent=request.parent,
            roles=request.roles,
        )
        return _emit(request.agent, fact)
    if not known.active:
        raise deactivated(request.agent)
    given = _different(known, {k: getattr(request, k) or None for k in DESCRIBED})
    if not given:
        return _now(view, request.agent)
    _may_change(ctx, request.agent)
    return _emit(request.agent, AgentUpdated(**given))


def decide_update(view: View, request: Update, ctx: Context) -> Decision:
    name = request.agent or ctx.agent
    known = find_active(view, name)
    _may_change(ctx, name)
    given = _different(known, {k: getattr(request, k) for k in DESCRIBED})
    return _emit(name, AgentUpdated(**given)) if given else _now(view, name)


def _different(known: Agent, wanted: dict[str, Any]) -> dict[str, Any]:
    """What of `wanted` is given (not None) and is not so already."""
    given = {name: value for name, value in wanted.items() if value is not None}
    return {k: v for k, v in given.items() if (frozenset(v) if k == "roles" else v) != getattr(known, k)}


def decide_route(view: View, request: Route, ctx: Context) -> Decision:
    name = request.agent or ctx.agent
    known = find_active(view, name)
    _may_change(ctx, name)
    if request.personality and view.get(Personality, TENANT, request.personality) is None:
        raise NotFound(
            "no such personality",
            entity=f"personality {request.personality}",
            expected="a registered personality",
            found="none of that name",
            hint="`bus personality list` shows them",
        )
    _check_parent(view, name, request.parent)
    routed = AgentRouted(
        model=request.model, personality=request.personality, models=request.models, parent=request.parent
    )
    same = (known.model, known.personality, known.models, known.parent)
    if same == (routed.model, routed.personality, frozenset(routed.models), routed.parent):
        return _now(view, name)
    return _emit(name, routed)


def _check_parent(view: View, name: str, parent: str | None) -> None:
    """Refuse a parent that is, directly or through others, routed to by `name`."""
    way = [name]
    while parent is not None and parent not in way[1:]:
        way.append(parent)
        if parent == name:
            raise Refused(
                "the routing parents would form a circle",
                code="cycle",
                entity=f"agent {name}",
                expected="a parent that is not below it",
                found=" under ".join(way),
                hint="Choose another parent",
            )
        parent = find(view, parent).parent


def _guard_last_owner(view: View, name: str) -> None:
    owners = [key for key, entry in view.ranked(Agent, TENANT) if key != name and "owner" in entry.state.authority]
    if not owners:
        raise Refused(
            "this is the tenant's last owner",
            code="last_owner",
            entity=f"agent {name}",
            expected="another active owner",
            found="none",
            hint="Make somebody else an owner first: bus agent grant AGENT owner",
        )


def decide_deactivate(view: View, request: Deactivate, ctx: Context) -> Decision:
    known = find(view, request.agent)
    _may_change(ctx, request.agent)
    if not known.active:
        return _now(view, request.agent)
    if "owner" in known.authority:
        _guard_last_owner(view, request.agent)
    return _emit(request.agent, AgentDeactivated(reason=request.reason))


def decide_reactivate(view: View, request: Reactivate, ctx: Context) -> Decision:
    known = find(view, request.agent)
    return _now(view, request.agent) if known.active else _emit(request.agent, AgentReactivated())


def decide_grant(view: View, request: Grant, ctx: Context) -> Decision:
    known = find_active(view, request.agent)
    if request.authority in known.authority:
        return _now(view, request.agent)
    return _emit(request.agent, AuthorityGranted(authority=request.authority))


def decide_withdraw(view: View, request: Withdraw, ctx: Context) -> Decision:
    known = find(view, request.agent)
    if request.authority not in known.authority:
        return _now(view, request.agent)
    if request.authority == "owner":
        _guard_last_owner(view, request.agent)
    return _emit(request.agent, AuthorityWithdrawn(authority=request.authority))


def decide_presence(view: View, request: ChangePresence, ctx: Context) -> Decision:
    known = find(view, request.agent)
    if not known.active or known.presence == request.presence:
        return _now(view, request.agent)
    return _emit(request.agent, PresenceChanged(presence=request.presence), SYSTEM)


def _reply(view: View, request: Command, events: Sequence[Event]) -> Registered:
    return Registered(seq=events[-1].seq, agent=events[-1].entity)


def _rank(agent: Agent) -> tuple[int] | None:
    # Asked of the order are whether another owner is left and who has a role; nobody else need be in it.
    return (0,) if agent.active and (agent.roles or "owner" in agent.authority) else None


FAMILY = Family(
    name="agent",
    facts=(
        AgentRegistered,
        AgentUpdated,
        AgentRouted,
        AgentDeactivated,
        AgentReactivated,
        AuthorityGranted,
        AuthorityWithdrawn,
        PresenceChanged,
    ),
    state=Agent,
    evolve=evolve,
    rank=_rank,
    operations=(
        Operation("agent.register", Register, Registered, decide_register, _reply),
        Operation("agent.update", Update, Registered, decide_update, _reply),
        Operation("agent.route", Route, Registered, decide_route, _reply),
        Operation("agent.deactivate", Deactivate, Registered, decide_deactivate, _reply, essential=True),
        Operation("agent.reactivate", Reactivate, Registered, decide_reactivate, _reply, authority="owner"),
        Operation("agent.grant", Grant, Registered, decide_grant, _reply, authority="owner"),
        Operation("agent.withdraw", Withdraw, Registered, decide_withdraw, _reply, authority="owner"),
        Operation("agent.change_presence", ChangePresence, Registered, decide_presence, _reply, internal=True),
        Operation("agent.list", List, Agents),
        Operation("agent.who", Who, Presences),
        Operation("agent.children", Children, Agents),
    ),
)
