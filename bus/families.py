"""Where the families are: who asks for one thing imports the family that this is of, and no other.

Rules:
* A new family is one file in `bus/domain` and one line here; `bus.operation` has them all.
* A request is defined in the module of its family, or in one whose name begins with the family's (`task_requests`);
  others are found as well, but only by looking through more families.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from bus.model import Family, Operation, Request

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "tenant": "tenant",
        "agent": "agent_decisions",
        "model": "registry",
        "personality": "registry",
        "channel": "channel",
        "dm": "dm",
        "inbox": "inbox",
        "task": "task_decisions",
        "needs": "needs",
        "intent": "intent",
        "reservation": "reservation_decisions",
        "directive": "directive_decisions",
        "reminder": "reminder",
        "journal": "journal",
        "memory": "memory_decisions",
        "exposure": "recall",
        "session": "session_decisions",
        "kv": "kv",
        "stream": "stream",
        "vault": "vault_decisions",
        "memories": "vault_decisions",
        "vector": "vector",
        "log": "log",
        "replay": "log",
    }
)
"""What the names of operations begin with, or a family that has none: the module in `bus.domain` that defines it."""
_PACKAGE = "bus.domain."
UNASKED = frozenset({"tenant", "needs", "exposure"})
"""Those with no operation for an agent."""


@cache
def families_in(module: str) -> tuple[Family, ...]:
    """The families that a module of `bus.domain` defines, in its order."""
    return tuple(value for value in vars(import_module(_PACKAGE + module)).values() if isinstance(value, Family))


def operations_of(family: str) -> tuple[Operation, ...]:
    """The operations whose names begin with that; none when there is no such family."""
    module = MODULES.get(family)
    found = families_in(module) if module is not None else ()
    return tuple(operation for one in found for operation in one.operations if operation.family == family)


def operation_named(name: str) -> Operation | None:
    """The operation of that name."""
    return next((one for one in operations_of(name.partition(".")[0]) if one.name == name), None)


@cache
def operation_of(request: type[Request]) -> Operation:
    """The operation that is asked for with such a request. Raises LookupError when there is none."""
    family = request.__module__.removeprefix(_PACKAGE).partition("_")[0]
    # What it is imported with is likely to be its family.
    others = sorted(MODULES, key=lambda name: _PACKAGE + MODULES[name] not in sys.modules)
    for name in (family, *others):
        for operation in operations_of(name):
            if operation.request is request:
                return operation
    raise LookupError(f"{request} is a request of no operation")
