"""Agents: who exists in a tenant, what they may do, and whether they are there.

Rules:
* An agent's name is its identity; the broker vouches for it. It must be registered before it can ask for anything.
* Authority (`owner`, `auditor`) is granted and withdrawn by events; the founding of the tenant names the first owner.
* A deactivated agent is out at once; its history stays. The last owner cannot be deactivated or lose its authority.
* Heartbeats are no events; the transitions online, idle, away, offline are, written by `system`.
* What is decided, and the table of the family, is in `bus.domain.agent_decisions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from bus.errors import NotFound, Refused
from bus.events import Event, Fact, Unknown
from bus.model import (
    Answer,
    Authority,
    Command,
    Name,
    PageQuery,
    Query,
    Reply,
    State,
    View,
)
from bus.subjects import TENANT

Presence = Literal["online", "idle", "away", "offline"]
Word = Annotated[str, Meta(max_length=200)]
Roles = Annotated[tuple[Name, ...], Meta(max_length=32, description="what it does in the team, e.g. reviewer")]


class AgentRegistered(Fact, frozen=True, kw_only=True):
    """An agent came into being. `authority` is set only when a tenant is founded."""

    type: ClassVar[str] = "agent.registered"
    harness: str = ""
    device: str = ""
    model: str = ""
    parent: str | None = None
    authority: tuple[str, ...] = ()
    """What it may do beyond the everyday."""
    roles: tuple[str, ...] = ()
    """What it does in the team."""


class AgentUpdated(Fact, frozen=True, kw_only=True):
    """Some of an agent's descriptions changed; a field that is absent stays as it was."""

    type: ClassVar[str] = "agent.updated"
    harness: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    roles: tuple[str, ...] | UnsetType = UNSET
    """What it does in the team."""


class AgentRouted(Fact, frozen=True, kw_only=True):
    """How work is routed to an agent: its default model, personality, available models and routing parent."""

    type: ClassVar[str] = "agent.routed"
    model: str = ""
    personality: str = ""
    models: tuple[str, ...] = ()
    parent: str | None = None


class AgentDeactivated(Fact, frozen=True, kw_only=True):
    """An agent may no longer ask for anything."""

    type: ClassVar[str] = "agent.deactivated"
    reason: str = ""


class AgentReactivated(Fact, frozen=True, kw_only=True):
    """A deactivated agent may ask again."""

    type: ClassVar[str] = "agent.reactivated"


class AuthorityGranted(Fact, frozen=True, kw_only=True):
    """An agent may now do more than the everyday."""

    type: ClassVar[str] = "agent.authority_granted"
    authority: str
    """`auditor` or `owner`."""


class AuthorityWithdrawn(Fact, frozen=True, kw_only=True):
    """An agent lost an authority."""

    type: ClassVar[str] = "agent.authority_withdrawn"
    authority: str
    """`auditor` or `owner`."""


class PresenceChanged(Fact, frozen=True, kw_only=True):
    """An agent was seen again, or has not been seen for a while."""

    type: ClassVar[str] = "agent.presence_changed"
    presence: str
    """`online`, `idle`, `away` or `offline`."""


class Agent(State, frozen=True, kw_only=True):
    """What is known of one agent now."""

    table: ClassVar[str] = "agent"
    harness: str = ""
    device: str = ""
    model: str = ""
    personality: str = ""
    parent: str | None = None
    active: bool = True
    presence: str = "offline"
    authority: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()


def evolve(agent: Agent | None, event: Event) -> Agent | None:
    """The agent after `event`."""
    fact = event.fact
    if agent is None:
        if not isinstance(fact, AgentRegistered):
            return None
        return Agent(
            harness=fact.harness,
            device=fact.device,
            model=fact.model,
            parent=fact.parent,
            authority=frozenset(fact.authority),
            roles=frozenset(fact.roles),
        )
    changed = _changed(agent, fact)
    return agent if all(getattr(agent, name) == value for name, value in changed.items()) else replace(agent, **changed)


def _changed(agent: Agent, fact: Fact | Unknown) -> dict[str, Any]:
    """The fields of a registered agent that `fact` sets."""
    match fact:
        case AgentUpdated():
            given = {k: v for k in ("harness", "device", "model") if (v := getattr(fact, k)) is not UNSET}
            return given if fact.roles is UNSET else given | {"roles": frozenset(fact.roles)}
        case AgentRouted():
            return {
                "model": fact.model,
                "personality": fact.personality,
                "models": frozenset(fact.models),
                "parent": fact.parent,
            }
        case AgentDeactivated():
            return {"active": False, "presence": "offline"}
        case AgentReactivated():
            return {"active": True}
        case AuthorityGranted():
            return {"authority": agent.authority | {fact.authority}}
        case AuthorityWithdrawn():
            return {"authority": agent.authority - {fact.authority}}
        case PresenceChanged() if agent.active:
            return {"presence": fact.presence}
        case _:
            return {}


# --- requests -----------------------------------------------------------------------------------------------------


class Register(Command, frozen=True, kw_only=True):
    """Register an agent, or find it when the same name, harness and device are registered already."""

    agent: Annotated[Name, Meta(description="the agent's name")]
    harness: Annotated[Word, Meta(description="what runs it, e.g. claude-code")] = ""
    device: Annotated[Word, Meta(description="where it runs")] = ""
    model: Annotated[Word, Meta(description="its default model")] = ""
    parent: Annotated[Name | None, Meta(description="the agent that routes work to it")] = None
    roles: Roles = ()


class Registered(Reply, frozen=True, kw_only=True):
    agent: str


class Update(Command, frozen=True, kw_only=True):
    """Change what is known of an agent (itself, or any as owner)."""

    agent: Annotated[Name | None, Meta(description="default: the one who asks")] = None
    harness: Annotated[Word | None, Meta(description="what runs it")] = None
    device: Annotated[Word | None, Meta(description="where it runs")] = None
    model: Annotated[Word | None, Meta(description="its default model")] = None
    roles: Roles | None = None


class Route(Command, frozen=True, kw_only=True):
    """Set how work is routed to an agent: default model, personality, available models, routing parent."""

    agent: Annotated[Name | None, Meta(description="default: the one who asks")] = None
    model: Annotated[Word, Meta(description="default model")] = ""
    personality: Annotated[Word, Meta(description="a registered personality")] = ""
    models: Annotated[tuple[Word, ...], Meta(max_length=64, description="models it may use")] = ()
    parent: Annotated[Name | None, Meta(description="the agent that routes work to it")] = None


class Deactivate(Command, frozen=True, kw_only=True):
    """Shut an agent out at once; what it wrote stays."""

    agent: Annotated[Name, Meta(description="who is shut out")]
    reason: Annotated[str, Meta(max_length=2000, description="why")] = ""


class Reactivate(Command, frozen=True, kw_only=True):
    """Let a deactivated agent in again."""

    agent: Annotated[Name, Meta(description="who is let in")]


class Grant(Command, frozen=True, kw_only=True):
    """Give an agent an authority: `auditor` reads the raw log, SQL and verification; `owner` also decides on agents."""

    agent: Annotated[Name, Meta(description="who gets it")]
    authority: Annotated[Authority, Meta(description="what it may do beyond the everyday")]


class Withdraw(Command, frozen=True, kw_only=True):
    """Take an authority from an agent."""

    agent: Annotated[Name, Meta(description="who loses it")]
    authority: Annotated[Authority, Meta(description="what it may no longer do")]


class ChangePresence(Command, frozen=True, kw_only=True):
    """Record that an agent came or went (asked by the daemon)."""

    agent: Name
    presence: Presence


class List(PageQuery, frozen=True, kw_only=True):
    """List the agents of the tenant."""

    active: Annotated[bool | None, Meta(description="only active, or only deactivated ones")] = None


class Who(Query, frozen=True, kw_only=True):
    """Show who is there: presence, since when, what they hold, and how old this information is."""


class Children(Query, frozen=True, kw_only=True):
    """List the agents whose routing parent is this one."""

    agent: Annotated[Name, Meta(description="the routing parent")]


class AgentRow(Struct, frozen=True, kw_only=True):
    agent: str
    seq: int
    harness: str
    device: str
    model: str
    personality: str
    parent: str | None
    active: bool
    presence: str
    authority: list[str]
    models: list[str]
    roles: list[str]


class Agents(Answer, frozen=True, kw_only=True):
    agents: list[AgentRow]
    next: int | None = None


class Present(Struct, frozen=True, kw_only=True):
    agent: str
    presence: str
    since: datetime
    harness: str
    model: str
    tasks: list[str]


class Presences(Answer, frozen=True, kw_only=True):
    agents: list[Present]
    age_s: float
    """How old this is: seconds since everything that was stored then was known here. For a moment of the past, seconds
    since the newest event this answer rests on was stored."""


# --- what every decision asks -------------------------------------------------------------------------------------


def find(view: View, name: str) -> Agent:
    """The agent of that name; NotFound with a hint when there is none."""
    agent = view.get(Agent, TENANT, name)
    if agent is None:
        raise NotFound(
            "no such agent",
            entity=f"agent {name}",
            expected="a registered agent",
            found="none of that name",
            hint="`bus who` lists them",
        )
    return agent


def find_active(view: View, name: str) -> Agent:
    """Like `find`, and Refused when the agent is deactivated."""
    agent = find(view, name)
    if not agent.active:
        raise deactivated(name)
    return agent


def having(view: View, role: str) -> list[str]:
    """The active agents that have this role, in the order of their names."""
    return [name for name, entry in view.ranked(Agent, TENANT) if role in entry.state.roles]


def deactivated(name: str) -> Refused:
    return Refused(
        "the agent is deactivated",
        code="inactive",
        entity=f"agent {name}",
        expected="an active agent",
        found="a deactivated one",
        hint=f"An owner can let it in again: bus agent reactivate {name}",
    )
