"""What the queries about intents and reservations have to be answered, from what the events say.

Rule: what a pattern covers stands in a table here; which patterns overlap is not asked of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bus.domain import intent, reservation
from tests.property.told import Told

COVERED: Mapping[str, frozenset[str]] = {
    "src/**": frozenset(("src/a.py", "src/b.py", "src/x/b.md")),
    "docs/a.md": frozenset(("docs/a.md",)),
    "SRC/A.py": frozenset(("src/a.py",)),
    "src/*.py": frozenset(("src/a.py", "src/b.py")),
    "src/[!a].py": frozenset(("src/b.py",)),
    "docs/?.md": frozenset(("docs/a.md", "docs/b.md")),
    "**/b.md": frozenset(("src/x/b.md", "docs/b.md")),
}
"""Patterns, and which of the paths they cover that there are."""
KEYS: Mapping[str, str] = {"fix auth": "fix-auth", "Fix  Auth!": "fix-auth", "src/a": "src/a", "./src//b": "src/b"}
"""What is typed, and the key it is."""


def _page(rows: list[Any], request: Any, place: Callable[[Any], int]) -> tuple[list[Any], int | None]:
    page = sorted((row for row in rows if place(row) > (request.since or 0)), key=place)[: request.limit]
    return page, place(page[-1]) if len(page) == request.limit else None


def intents(told: Told, me: str, request: intent.List, head: Any, now: datetime) -> intent.Intents:
    rows = [
        intent.IntentRow(key=key, expires=datetime.fromisoformat(known["expires"]), **_same(known))
        for (namespace, key), known in told.intents.items()
        if namespace == request.namespace
        and request.agent in (None, known["agent"])
        and (request.prefix is None or key.startswith(request.prefix))
    ]
    page, more = _page(rows, request, lambda row: row.declared)
    return intent.Intents(intents=page, next=more, **head)


def _same(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in ("seq", "declared", "agent", "said", "text", "lease_s")}


def reservations(told: Told, me: str, request: reservation.List, head: Any, now: datetime) -> reservation.Reservations:
    rows = [
        reservation.ReservationRow(
            reservation=key.partition(":")[2],
            repository=key.partition(":")[0],
            paths=sorted(known["paths"]),
            expires=datetime.fromisoformat(known["expires"]),
            **{name: known[name] for name in ("seq", "reserved", "agent", "mode", "reason", "lease_s")},
        )
        for (namespace, key), known in told.reservations.items()
        if namespace == request.namespace
        and request.agent in (None, known["agent"])
        and request.repository in (None, key.partition(":")[0])
    ]
    page, more = _page(rows, request, lambda row: row.reserved)
    return reservation.Reservations(reservations=page, next=more, **head)


def conflicts(told: Told, me: str, request: reservation.Check, head: Any, now: datetime) -> reservation.Conflicts:
    free, found = [], []
    for path in sorted(set(request.paths)):
        in_the_way = [
            (known["reserved"], held, key, known)
            for (namespace, key), known in told.reservations.items()
            if (namespace, key.partition(":")[0]) == (request.namespace, request.repository or request.namespace)
            and known["agent"] != me
            and "exclusive" in (known["mode"], request.mode)
            for held in known["paths"]
            if COVERED[held] & COVERED[path]
        ]
        if not in_the_way:
            free.append(path)
            continue
        _, held, key, known = min(in_the_way, key=lambda one: one[:2])
        found.append(
            reservation.Conflict(
                path=path,
                held=held,
                reservation=key.partition(":")[2],
                expires=datetime.fromisoformat(known["expires"]),
                **{name: known[name] for name in ("agent", "mode", "reason")},
            )
        )
    return reservation.Conflicts(free=free, conflicts=found, **head)


ANSWERS: Mapping[type, Callable[[Told, str, Any, Any, datetime], Any]] = {
    intent.List: intents,
    reservation.List: reservations,
    reservation.Check: conflicts,
}
