"""The table of operations: everything that can be asked, by name, and the codec of everything that can be written.

Rule: a new family is one file in `bus/domain` and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus.domain import (
    agent_decisions,
    channel,
    directive_decisions,
    dm,
    inbox,
    intent,
    journal,
    kv,
    log,
    memory_decisions,
    needs,
    recall,
    registry,
    reminder,
    reservation_decisions,
    stream,
    task_decisions,
    tenant,
    vault_decisions,
    vector,
)
from bus.events import Codec
from bus.model import Family, Operation, State

FAMILIES: tuple[Family, ...] = (
    tenant.FAMILY,
    agent_decisions.FAMILY,
    registry.MODELS,
    registry.PERSONALITIES,
    channel.FAMILY,
    dm.FAMILY,
    inbox.FAMILY,
    task_decisions.FAMILY,
    needs.FAMILY,
    intent.FAMILY,
    reservation_decisions.FAMILY,
    directive_decisions.FAMILY,
    reminder.FAMILY,
    journal.FAMILY,
    memory_decisions.FAMILY,
    recall.FAMILY,
    kv.FAMILY,
    stream.FAMILY,
    vault_decisions.FAMILY,
    vector.COLLECTION,
    vector.FAMILY,
    log.FAMILY,
)
FAMILY_OF: Mapping[str, Family] = {family.name: family for family in FAMILIES}
FAMILY_OF_STATE: Mapping[type[State], Family] = {family.state: family for family in FAMILIES}
OPERATIONS: Mapping[str, Operation] = {op.name: op for family in FAMILIES for op in family.operations}
OPERATION_OF: Mapping[type, Operation] = {op.request: op for op in OPERATIONS.values()}
CODEC = Codec(fact for family in FAMILIES for fact in family.facts)
