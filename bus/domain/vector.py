"""Vectors that their callers bring: named collections, in which those nearest to a vector are found.

Rules:
* The first vector of a collection fixes how many numbers each has and by which metric they are compared.
* A vector has a name in its collection, its numbers, and metadata. Upserting a name that is there replaces all of it.
* Numbers are finite. Under `cosine` one of them at least is not nought: without a direction nothing can be compared.
* The numbers stay in the event and in the table of embeddings; the state does not hold them.
* All vectors of a collection share a bucket: whether a name is there is decided together with what becomes of it. The
  collection itself is opened in the same batch as its first vector and never changes afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from bus.domain.merge import kept
from bus.errors import InvalidRequest, NotFound
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Key,
    Operation,
    PageQuery,
    Query,
    Reply,
    State,
    View,
)

Metric = Literal["cosine", "dot", "euclidean"]
METRICS = ("cosine", "dot", "euclidean")
DIMENSION = 8192
"""A vector has at most so many numbers."""
METADATA_BYTES = 16_000
FARTHEST = 1e15
"""No number is farther from nought: the sum of all squares has to fit a 32-bit float."""

_canonical = msgspec.json.Encoder(order="sorted").encode


# --- facts and states ---------------------------------------------------------------------------------------------


class CollectionOpened(Fact, frozen=True, kw_only=True):
    """A collection takes vectors of so many numbers from now on, compared by this metric."""

    type: ClassVar[str] = "collection.opened"
    dimension: int
    """How many numbers each vector has."""
    metric: str
    """How they are compared: `cosine`, `dot` or `euclidean`."""


class Collection(State, frozen=True, kw_only=True):
    """A collection of vectors."""

    table: ClassVar[str] = "collection"
    dimension: int
    metric: str


class VectorUpserted(Fact, frozen=True, kw_only=True):
    """A vector is in the collection, or is another one now."""

    type: ClassVar[str] = "vector.upserted"
    numbers: tuple[float, ...]
    """The vector."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What it is filtered by."""


class VectorDeleted(Fact, frozen=True, kw_only=True):
    """A vector is not in the collection any more."""

    type: ClassVar[str] = "vector.deleted"


class Vector(State, frozen=True, kw_only=True):
    """A vector: where it is, and since which event it has its numbers. `metadata` is JSON with sorted keys."""

    table: ClassVar[str] = "vector"
    collection: str
    state: str = "active"
    upserted: int
    metadata: str = "{}"


def evolve_collection(collection: Collection | None, event: Event) -> Collection | None:
    """The collection after `event`."""
    fact = event.fact
    if collection is not None or not isinstance(fact, CollectionOpened):
        return collection
    if not 1 <= fact.dimension <= DIMENSION or fact.metric not in METRICS:
        return None  # No vector can be in it, whoever wrote that.
    return Collection(dimension=fact.dimension, metric=fact.metric)


def evolve(vector: Vector | None, event: Event) -> Vector | None:
    """The vector after `event`."""
    match event.fact:
        case VectorUpserted(metadata=metadata):
            text = _canonical(metadata).decode()
            return Vector(collection=collection_of(event.entity), upserted=event.seq, metadata=text)
        case VectorDeleted() if vector is not None and vector.state == "active":
            return replace(vector, state="deleted")
        case _:
            return vector


def key_of(collection: str, vector: str) -> str:
    """The key of a vector: names of collections have no slash."""
    return f"{collection}/{vector}"


def collection_of(key: str) -> str:
    return key.partition("/")[0]


# --- requests -----------------------------------------------------------------------------------------------------

CollectionName = Annotated[Key, Meta(description="the collection")]
VectorName = Annotated[str, Meta(min_length=1, max_length=150, description="its name in the collection")]
Numbers = Annotated[tuple[float, ...], Meta(min_length=1, max_length=DIMENSION, description="the numbers, as JSON")]


class Upsert(Command, frozen=True, kw_only=True):
    """Put a vector into a collection, or replace the one of this name. The first one opens the collection."""

    collection: CollectionName
    vector: VectorName
    numbers: Numbers
    metadata: Annotated[dict[str, Any], Meta(max_length=100, description="what to filter by, as JSON")] = field(
        default_factory=dict
    )
    metric: Annotated[Metric | None, Meta(description="how the collection compares vectors (of a new one: cosine)")] = (
        None
    )


class Delete(Command, frozen=True, kw_only=True):
    """Take a vector out of a collection. As of earlier it is still found."""

    collection: CollectionName
    vector: VectorName


class Nearest(Query, frozen=True, kw_only=True):
    """Find the vectors of a collection that are nearest to one, the nearest first."""

    collection: CollectionName
    numbers: Numbers
    k: Annotated[int, Meta(ge=1, le=1000, description="at most so many")] = 10
    where: Annotated[
        dict[str, Any], Meta(max_length=20, description="only vectors whose metadata has these values")
    ] = field(default_factory=dict)


class Show(Query, frozen=True, kw_only=True):
    """Show one vector with its numbers."""

    collection: CollectionName
    vector: VectorName


class Collections(PageQuery, frozen=True, kw_only=True):
    """List the collections of the namespace."""


class Upserted(Reply, frozen=True, kw_only=True):
    collection: str
    vector: str


class Deleted(Reply, frozen=True, kw_only=True):
    collection: str
    vector: str


class VectorRow(Struct, frozen=True, kw_only=True):
    """A vector that was found. `score`: the cosine, the dot product, or minus the euclidean distance; greater is
    nearer. `seq` names the event that gave it its numbers."""

    vector: str
    seq: int
    score: float
    metadata: dict[str, Any]


class Found(Answer, frozen=True, kw_only=True):
    """The nearest vectors, the nearest first; of equals, the older first. `among` is how many fitted the filter."""

    found: list[VectorRow]
    among: int


class VectorShown(Answer, frozen=True, kw_only=True):
    """A vector as it was: `upserted` is the seq that gave it its numbers."""

    collection: str
    vector: str
    state: str
    upserted: int
    metadata: dict[str, Any]
    numbers: list[float]


class CollectionRow(Struct, frozen=True, kw_only=True):
    """A collection. `seq` is that of its opening."""

    collection: str
    seq: int
    dimension: int
    metric: str
    vectors: int


class CollectionList(Answer, frozen=True, kw_only=True):
    """Collections, oldest first. `next` is the `since` that continues where this page ends."""

    collections: list[CollectionRow]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def check_numbers(numbers: Sequence[float], name: str, collection: Collection) -> None:
    """Raise InvalidRequest for what is no vector of the collection."""
    entity = f"collection {name}"
    if len(numbers) != collection.dimension:
        raise InvalidRequest(
            "vectors of this collection have another dimension",
            code="bad_dimension",
            entity=entity,
            expected=f"{collection.dimension} numbers",
            found=str(len(numbers)),
            hint="Use the model that made the others, or another collection",
        )
    check_finite(numbers, entity, may_be_nought=collection.metric != "cosine")


def check_finite(numbers: Sequence[float], entity: str, *, may_be_nought: bool = False) -> None:
    """Raise InvalidRequest for what cannot be compared with any vector."""
    odd = next((number for number in numbers if not math.isfinite(number) or abs(number) > FARTHEST), None)
    if odd is not None or not (may_be_nought or any(numbers)):
        raise InvalidRequest(
            "this is no vector",
            code="bad_vector",
            entity=entity,
            expected=f"finite numbers up to {FARTHEST:g}" + ("" if may_be_nought else ", not all of them 0"),
            found=repr(odd) if odd is not None else "only 0",
            hint="Look at what made the vector",
        )


def decide_upsert(view: View, request: Upsert, context: Context) -> Decision:
    known = view.get(Collection, context.namespace, request.collection)
    collection = known or Collection(dimension=len(request.numbers), metric=request.metric or "cosine")
    check_numbers(request.numbers, request.collection, collection)
    if (size := len(bytes(kept(request.metadata, f"vector {request.vector}")))) > METADATA_BYTES:
        raise InvalidRequest(
            "the metadata is too large",
            code="too_large",
            entity=f"vector {request.vector}",
            expected=f"at most {METADATA_BYTES} bytes",
            found=f"{size} bytes",
            hint="Keep large values elsewhere and refer to them",
        )
    if request.metric is not None and request.metric != collection.metric:
        raise InvalidRequest(
            "the collection compares vectors by another metric",
            code="bad_metric",
            entity=f"collection {request.collection}",
            expected=collection.metric,
            found=request.metric,
            hint="Leave the metric out, or use another collection",
        )
    emits = []
    if known is None:
        opened = CollectionOpened(dimension=collection.dimension, metric=collection.metric)
        emits.append(Emit(Collection, request.collection, opened))
    fact = VectorUpserted(numbers=request.numbers, metadata=request.metadata)
    return [*emits, Emit(Vector, key_of(request.collection, request.vector), fact)]


def decide_delete(view: View, request: Delete, context: Context) -> Decision:
    key = key_of(request.collection, request.vector)
    vector = view.get(Vector, context.namespace, key)
    if vector is None or vector.state != "active":
        raise NotFound(
            "no such vector",
            entity=f"vector {request.vector}",
            expected=f"a vector of collection {request.collection} in namespace {context.namespace}",
            found="none" if vector is None else "it was deleted",
            hint="`bus vector collections` shows the collections",
        )
    return [Emit(Vector, key, VectorDeleted())]


def _upserted(view: View, request: Upsert, events: Sequence[Event]) -> Upserted:
    return Upserted(seq=events[-1].seq, collection=request.collection, vector=request.vector)


def _deleted(view: View, request: Delete, events: Sequence[Event]) -> Deleted:
    return Deleted(seq=events[-1].seq, collection=request.collection, vector=request.vector)


COLLECTION = Family(name="collection", facts=(CollectionOpened,), state=Collection, evolve=evolve_collection)
FAMILY = Family(
    name="vector",
    facts=(VectorUpserted, VectorDeleted),
    state=Vector,
    evolve=evolve,
    bucket_key=collection_of,
    operations=(
        Operation("vector.upsert", Upsert, Upserted, decide_upsert, _upserted),
        Operation("vector.delete", Delete, Deleted, decide_delete, _deleted),
        Operation("vector.query", Nearest, Found),
        Operation("vector.show", Show, VectorShown),
        Operation("vector.collections", Collections, CollectionList),
    ),
)
