"""What the tables of entities and their items have to say at every seq, from a plain dictionary of states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus.domain import dm, memory, session
from bus.events import Event, Record, Unknown
from bus.operation import CODEC, FAMILIES


@dataclass
class Known:
    """An entity in the plain dictionary: its first and last change, its state, and since when it has each item."""

    kid: int
    since: int
    state: Any
    items: dict[str, dict[Any, tuple[int, Any]]]


def oracle(records: Sequence[Record]) -> Iterator[tuple[Event, dict[Any, Known]]]:
    """Every event, and everything that is known after it."""
    families = {family.name: family for family in FAMILIES}
    known: dict[Any, Known] = {}
    for record in records:
        event = CODEC.decode(record)
        family = families.get(event.family)
        if family is not None and not isinstance(event.fact, Unknown):
            place = (family.state, event.namespace, event.entity)
            before = known.get(place)
            state = family.evolve(before.state if before else None, event)
            if state is not None and (before is None or state is not before.state):
                items = _items(state, before, event.seq)
                known[place] = Known(before.kid if before else event.seq, event.seq, state, items)
        yield event, dict(known)


def _items(state: Any, before: Known | None, seq: int) -> dict[str, dict[Any, tuple[int, Any]]]:
    found: dict[str, dict[Any, tuple[int, Any]]] = {}
    for name, value in msgspec.structs.asdict(state).items():
        if isinstance(value, frozenset | dict):
            old = before.items[name] if before else {}
            new = value if isinstance(value, dict) else dict.fromkeys(value)
            found[name] = {i: old[i] if i in old and old[i][1] == v else (seq, v) for i, v in new.items()}
    return found


def expected(known: dict[Any, Known], table: str) -> set[Any]:
    """The rows of an entity's or item's table, without `seq_to`."""
    rows: set[Any] = set()
    for (state, namespace, key), one in known.items():
        readers = _audience(state, key)
        values = msgspec.structs.asdict(one.state)
        if state.table == table:
            scalars = [_stored(v) for v in values.values() if not isinstance(v, frozenset | dict)]
            rows.add((one.kid, one.since, namespace, key, *scalars, *readers))
        for name, items in one.items.items():
            if f"{state.table}_{name}" == table:
                values = {
                    item: (value,) if isinstance(getattr(one.state, name), dict) else ()
                    for item, (_, value) in items.items()
                }
                rows |= {
                    (one.kid, since, namespace, key, item, *values[item], *readers)
                    for item, (since, _) in items.items()
                }
    return rows


def _audience(state: Any, key: str) -> tuple[str | None, ...]:
    """The last column of a table whose rows not everybody may see."""
    if state in (memory.Memory, session.Session):
        return (f"|{key.split('+')[0]}|" if "+" in key else None,)
    return ("|" + "|".join(key.split("+")) + "|",) if state is dm.Dm else ()


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
