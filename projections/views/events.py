"""The fact table `event`: one row per event of the log, readable or not.

Rules:
* It is always there; the fold writes it before any view. `stored_ns` is the largest server time up to and including
  this event, so "as of a time" is a prefix of the log even where the server's clock was set back.
* The body stands in `data` as text; bytes that are no UTF-8 are replaced. `problem` says why a body cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from bus.domain import dm, memory, session
from bus.domain.memory_decisions import FAMILY as MEMORY
from bus.domain.session_decisions import FAMILY as SESSION
from bus.events import Event, Unknown
from projections.schema import FactTable, Row, audience

EVENT = FactTable(
    "event",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("stored_ns", "BIGINT"),
        ("namespace", "VARCHAR"),
        ("family", "VARCHAR"),
        ("bucket", "BIGINT"),
        ("entity", "VARCHAR"),
        ("type", "VARCHAR"),
        ("schema", "BIGINT"),
        ("agent", "VARCHAR"),
        ("id", "VARCHAR"),
        ("request", "VARCHAR"),
        ("request_digest", "VARCHAR"),
        ("causes", "BIGINT[]"),
        ("correlation", "VARCHAR"),
        # `at` is a reserved word of the database; users would have to quote it.
        ("happened", "VARCHAR"),
        ("data", "VARCHAR"),
        ("problem", "VARCHAR"),
        ("audience", "VARCHAR"),
    ),
)

_EPOCH = datetime(1970, 1, 1)
_READERS: Mapping[str, Callable[[str], Sequence[str] | None]] = MappingProxyType(
    {dm.FAMILY.name: dm.readers, MEMORY.name: memory.readers, SESSION.name: session.readers}
)
"""By family: who may see the events about an entity, by its key."""


def stored_at(event: Event) -> datetime:
    """When the log stored the event, as tables keep it: naive UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=event.time_ns // 1000)


def row(event: Event, stored_ns: int) -> Row:
    """The event's row. `stored_ns` is the largest server time of the log up to this event."""
    request, fact = event.request, event.fact
    return (
        event.seq,
        stored_at(event),
        stored_ns,
        event.namespace,
        event.family,
        event.bucket,
        event.entity,
        event.type,
        event.schema,
        event.agent,
        event.id,
        request.id if request is not None else None,
        request.digest if request is not None else None,
        event.causes or None,
        event.correlation,
        event.at,
        event.data.decode("utf-8", "replace"),
        fact.reason if type(fact) is Unknown else None,
        audience(_READERS[event.family](event.entity)) if event.family in _READERS else None,
    )
