"""What the events say about vectors, and what the queries about them have to be answered. Part of
`tests.property.told` and `tests.property.oracle`, with their rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from bus.domain import vector
from bus.errors import InvalidRequest, NotFound
from bus.events import Event

Place = tuple[str, str]


class Vectors:
    """What the events taken so far say: the opening of every collection, and the last word about every vector."""

    def __init__(self) -> None:
        self.opened: dict[Place, tuple[Event, Any]] = {}
        self.last: dict[Place, tuple[Event, Any]] = {}

    def collection(self, event: Event, verb: str, body: Any) -> None:
        self.opened.setdefault((event.namespace, event.entity), (event, body))

    def vector(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        self.last[place] = (event, {**(body if verb == "upserted" else self.last[place][1]), "verb": verb})
        if verb == "upserted":
            self.last[place][1]["upserted"] = event.seq

    def of(self, namespace: str, collection: str) -> dict[str, Any]:
        """The vectors that a collection has now, by name."""
        return {
            key.partition("/")[2]: body
            for (within, key), (_, body) in self.last.items()
            if (within, key.partition("/")[0], body["verb"]) == (namespace, collection, "upserted")
        }


def _score(metric: str, one: Any, other: Any) -> float:
    """As if the numbers were kept in 32 bits."""

    def kept(numbers: Any) -> Any:
        if metric == "cosine":
            numbers = [number / math.hypot(*numbers) for number in numbers]
        return np.array(numbers, np.float32)

    asked, said = np.array(other if metric != "cosine" else [n / math.hypot(*other) for n in other]), kept(one)
    return (
        -math.dist(said, asked)
        if metric == "euclidean"
        else float(sum(a * b for a, b in zip(said, asked, strict=True)))
    )


def cosine(one: Any, other: Any) -> float:
    """The cosine of two vectors, as if the first were kept in 32 bits."""
    return _score("cosine", one, other)


def _nearest(told: Any, me: str, request: vector.Nearest, head: Any, now: datetime) -> Any:
    opened = told.vectors.opened.get((request.namespace, request.collection))
    if opened is None:
        return NotFound
    _, said = opened
    if len(request.numbers) != said["dimension"]:
        return InvalidRequest
    fitting = {
        name: body
        for name, body in told.vectors.of(request.namespace, request.collection).items()
        if all(body.get("metadata", {}).get(key) == value for key, value in request.where.items())
    }
    rows = [
        vector.VectorRow(
            vector=name,
            seq=body["upserted"],
            score=round(_score(said["metric"], body["numbers"], request.numbers), 6),
            metadata=body.get("metadata", {}),
        )
        for name, body in fitting.items()
    ]
    rows.sort(key=lambda row: (-row.score, row.seq))
    return vector.Found(found=rows[: request.k], among=len(rows), **head)


def _show(told: Any, me: str, request: vector.Show, head: Any, now: datetime) -> Any:
    known = told.vectors.last.get((request.namespace, f"{request.collection}/{request.vector}"))
    if known is None:
        return NotFound
    body = known[1]
    return vector.VectorShown(
        collection=request.collection,
        vector=request.vector,
        state="active" if body["verb"] == "upserted" else "deleted",
        upserted=body["upserted"],
        metadata=body.get("metadata", {}),
        numbers=body["numbers"],
        **head,
    )


def _collections(told: Any, me: str, request: vector.Collections, head: Any, now: datetime) -> Any:
    rows = [
        vector.CollectionRow(
            collection=name,
            seq=event.seq,
            dimension=said["dimension"],
            metric=said["metric"],
            vectors=len(told.vectors.of(namespace, name)),
        )
        for (namespace, name), (event, said) in told.vectors.opened.items()
        if namespace == request.namespace and event.seq > (request.since or 0)
    ]
    page = sorted(rows, key=lambda row: row.seq)[: request.limit]
    return vector.CollectionList(collections=page, next=page[-1].seq if len(page) == request.limit else None, **head)


ANSWERS: Mapping[type, Callable[[Any, str, Any, Any, datetime], Any]] = {
    vector.Nearest: _nearest,
    vector.Show: _show,
    vector.Collections: _collections,
}
