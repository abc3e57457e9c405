"""The tenant itself: the genesis event, which names the tenant and its first owner.

Rule: it is the first event of a log, written by `system` when the leader finds the log empty, together with the
registration of the owner. There is exactly one: all of them would share a bucket, so even two daemons that find the log
empty at once found one tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bus.domain.agent import Agent, AgentRegistered
from bus.errors import InvalidRequest, Refused
from bus.events import Event, Fact
from bus.model import Command, Context, Decision, Emit, Family, Name, Operation, Reply, State, View
from bus.subjects import SYSTEM, TENANT


class TenantFounded(Fact, frozen=True, kw_only=True):
    """A tenant began."""

    type: ClassVar[str] = "tenant.founded"
    tenant: str
    """Its name."""
    owner: str
    """The agent that owns it."""


class Tenant(State, frozen=True, kw_only=True):
    """The tenant's name and first owner."""

    table: ClassVar[str] = "tenant"
    owner: str


def evolve(tenant: Tenant | None, event: Event) -> Tenant | None:
    """The tenant after `event`; a second founding changes nothing."""
    if tenant is None and isinstance(event.fact, TenantFounded):
        return Tenant(owner=event.fact.owner)
    return tenant


class Found(Command, frozen=True, kw_only=True):
    """Begin a tenant and register its owner (asked by the daemon on an empty log)."""

    tenant: Name
    owner: Name


class Founded(Reply, frozen=True, kw_only=True):
    tenant: str


def decide_found(view: View, request: Found, ctx: Context) -> Decision:
    known = view.entry(Tenant, TENANT, request.tenant)
    if known is not None:
        return Founded(seq=known.since, tenant=request.tenant)
    for other, _ in view.ranked(Tenant, TENANT):
        raise Refused(
            "the log belongs to another tenant",
            code="founded",
            entity=f"tenant {request.tenant}",
            expected="an empty log",
            found=f"the log of tenant {other}",
            hint="Check the home's configuration",
        )
    if request.owner == SYSTEM:
        raise InvalidRequest(
            "this name is reserved",
            code="bad_name",
            entity=f"agent {SYSTEM}",
            expected=f"any name but {SYSTEM}",
            found=SYSTEM,
            hint="Choose another owner",
        )
    owner = AgentRegistered(authority=("auditor", "owner"))
    return [
        Emit(Tenant, request.tenant, TenantFounded(tenant=request.tenant, owner=request.owner), SYSTEM, TENANT),
        Emit(Agent, request.owner, owner, SYSTEM, TENANT),
    ]


def _reply(view: View, request: Found, events: Sequence[Event]) -> Founded:
    return Founded(seq=events[-1].seq, tenant=request.tenant)


FAMILY = Family(
    name="tenant",
    facts=(TenantFounded,),
    state=Tenant,
    evolve=evolve,
    bucket_key=lambda key: "tenant",
    rank=lambda tenant: (0,),
    operations=(Operation("tenant.found", Found, Founded, decide_found, _reply, internal=True),),
)
