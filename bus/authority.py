"""Who may ask: only registered, active agents, and some operations only with an authority that was granted.

Rule: it is judged by the folded state of the moment, so a deactivation takes effect at once.
"""

from __future__ import annotations

from bus.domain.agent import Agent
from bus.errors import NotAllowed
from bus.model import Operation, View
from bus.subjects import TENANT


def authority_of(view: View, agent: str) -> frozenset[str]:
    """What this agent has been granted. Raises NotAllowed unless it is registered and active."""
    known = view.get(Agent, TENANT, agent)
    if known is None or not known.active:
        raise not_active(agent, known)
    return known.authority


def not_active(name: str, known: Agent | None) -> NotAllowed:
    """The refusal for an agent that is not, or no more, registered."""
    if known is None:
        return NotAllowed(
            "this agent is not registered",
            code="unknown_agent",
            entity=f"agent {name}",
            expected="a registered agent",
            found="none of that name",
            hint=f"An owner can register it: bus agent register {name}",
        )
    return NotAllowed(
        "this agent is deactivated",
        code="inactive",
        entity=f"agent {name}",
        expected="an active agent",
        found="a deactivated one",
        hint=f"An owner can let it in again: bus agent reactivate {name}",
    )


def check_authority(operation: Operation, authority: frozenset[str], agent: str) -> None:
    """Raise NotAllowed unless the operation is open to every agent or this one holds the authority it needs."""
    if operation.authority is not None and operation.authority not in authority:
        raise NotAllowed(
            f"{operation.name} needs an authority",
            entity=f"agent {agent}",
            expected=operation.authority,
            found=", ".join(sorted(authority)) or "none",
            hint=f"An owner can grant it: bus agent grant {agent} {operation.authority}",
        )
