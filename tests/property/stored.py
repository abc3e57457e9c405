"""What the events say about values and streams, and what the queries about them have to be answered. Part of
`tests.property.told` and `tests.property.oracle`, with their rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bus.clock import from_ns
from bus.domain import kv, stream
from bus.errors import NotFound
from bus.events import Event

Place = tuple[str, str]


class Stored:
    """What the events taken so far say: every version of every key, and every item of every stream."""

    def __init__(self) -> None:
        self.values: dict[Place, list[tuple[Event, dict[str, Any]]]] = {}
        self.items: dict[Place, list[tuple[Event, Any]]] = {}

    def kv(self, event: Event, verb: str, body: Any) -> None:
        has = verb in ("set", "merged")
        known = {"state": "set" if has else verb, "value": body["value"] if has else None, "expires": None}
        if has and "expires" in body:
            known["expires"] = datetime.fromisoformat(body["expires"])
        self.values.setdefault((event.namespace, event.entity), []).append((event, known))

    def stream(self, event: Event, verb: str, body: Any) -> None:
        self.items.setdefault((event.namespace, event.entity), []).append((event, body["data"]))


def page_of(found: list[Any], request: Any) -> tuple[list[Any], int | None]:
    """The newest of what has a seq, or what comes after `since`."""
    fitting = [one for one in found if (request.since or 0) < one.seq < (request.before or 1 << 60)]
    page = fitting[-request.limit :] if request.since is None else fitting[: request.limit]
    return page, page[-1].seq if page else request.since


def _get(told: Any, me: str, request: kv.Get, head: Any, now: datetime) -> Any:
    versions = told.stored.values.get((request.namespace, request.key))
    if versions is None or versions[-1][1]["state"] != "set":
        return NotFound
    event, known = versions[-1]
    return kv.Value(key=request.key, version=event.seq, value=known["value"], expires=known["expires"], **head)


def _history(told: Any, me: str, request: kv.History, head: Any, now: datetime) -> Any:
    versions = told.stored.values.get((request.namespace, request.key))
    if versions is None:
        return NotFound
    rows = [
        kv.KeyVersion(seq=event.seq, time=from_ns(event.time_ns), agent=event.agent, type=event.type, **known)
        for event, known in versions
    ]
    page, more = page_of(rows, request)
    return kv.Versions(versions=page, next=more, **head)


def _list(told: Any, me: str, request: kv.List, head: Any, now: datetime) -> kv.Values:
    rows = [
        kv.ValueRow(key=key, seq=event.seq, value=known["value"], expires=known["expires"])
        for (namespace, key), versions in told.stored.values.items()
        for event, known in [versions[-1]]
        if namespace == request.namespace
        and known["state"] == "set"
        and key.startswith(request.prefix or "")
        and event.seq > (request.since or 0)
    ]
    page = sorted(rows, key=lambda row: row.seq)[: request.limit]
    return kv.Values(values=page, next=page[-1].seq if len(page) == request.limit else None, **head)


def _stream(told: Any, me: str, request: stream.Read, head: Any, now: datetime) -> stream.Items:
    rows = [
        stream.StreamItem(seq=event.seq, time=from_ns(event.time_ns), agent=event.agent, data=data)
        for event, data in told.stored.items.get((request.namespace, request.stream), [])
    ]
    page, more = page_of(rows, request)
    return stream.Items(items=page, next=more, **head)


ANSWERS: Mapping[type, Callable[[Any, str, Any, Any, datetime], Any]] = {
    kv.Get: _get,
    kv.History: _history,
    kv.List: _list,
    stream.Read: _stream,
}
