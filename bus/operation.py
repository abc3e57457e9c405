"""The table of operations: everything that can be asked, by name, and the codec of everything that can be written.

Rule: who serves imports this. Who asks for one thing needs `bus.families` only.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus.events import Codec
from bus.families import MODULES, families_in
from bus.model import Family, Operation, State

FAMILIES: tuple[Family, ...] = tuple(
    family for module in dict.fromkeys(MODULES.values()) for family in families_in(module)
)
FAMILY_OF: Mapping[str, Family] = {family.name: family for family in FAMILIES}
FAMILY_OF_STATE: Mapping[type[State], Family] = {family.state: family for family in FAMILIES}
OPERATIONS: Mapping[str, Operation] = {op.name: op for family in FAMILIES for op in family.operations}
OPERATION_OF: Mapping[type, Operation] = {op.request: op for op in OPERATIONS.values()}
CODEC = Codec(fact for family in FAMILIES for fact in family.facts)
