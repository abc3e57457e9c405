"""Vectors that callers bring: what a collection takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from bus.domain.vector import (
    METADATA_BYTES,
    Collection,
    CollectionOpened,
    Delete,
    Upsert,
    Vector,
    VectorDeleted,
    VectorUpserted,
    key_of,
)
from bus.errors import InvalidRequest, NotFound
from tests.unit.stage import Stage

NESTED: Any = []
for _ in range(100):
    NESTED = [NESTED]
ONE = Upsert(collection="texts", vector="a", numbers=(1.0, 2.0), metadata={"lang": "en"})


def test_the_first_vector_opens_the_collection(stage: Stage) -> None:
    assert stage.facts("atlas", ONE) == [
        ("texts", CollectionOpened(dimension=2, metric="cosine")),
        ("texts/a", VectorUpserted(numbers=(1.0, 2.0), metadata={"lang": "en"})),
    ]
    reply = stage.do("atlas", ONE)
    assert (reply.seq, reply.collection, reply.vector) == (stage.seq, "texts", "a")
    assert stage.state(Collection, "texts") == Collection(dimension=2, metric="cosine")
    expected = Vector(collection="texts", upserted=stage.seq, metadata='{"lang":"en"}')
    assert stage.state(Vector, "texts/a") == expected


def test_a_vector_is_replaced_deleted_and_put_back(stage: Stage) -> None:
    stage.do("atlas", ONE)
    again = Upsert(collection="texts", vector="a", numbers=(3.0, 4.0))
    assert stage.facts("nova", again) == [("texts/a", VectorUpserted(numbers=(3.0, 4.0)))]
    stage.do("nova", again)
    assert stage.facts("nova", Delete(collection="texts", vector="a")) == [("texts/a", VectorDeleted())]
    stage.do("nova", Delete(collection="texts", vector="a"))
    assert stage.state(Vector, "texts/a").state == "deleted"
    stage.refused("nova", Delete(collection="texts", vector="a"), "not_found", NotFound)
    stage.do("nova", again)
    assert stage.state(Vector, "texts/a") == Vector(collection="texts", upserted=stage.seq)


def test_vectors_of_one_name_in_two_collections_are_two(stage: Stage) -> None:
    stage.do("atlas", ONE)
    stage.do("atlas", Upsert(collection="code", vector="a", numbers=(1.0, 2.0, 3.0), metric="dot"))
    assert stage.state(Collection, "code").metric == "dot"
    assert stage.state(Vector, key_of("texts", "a")) != stage.state(Vector, key_of("code", "a"))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Upsert(collection="texts", vector="b", numbers=(1.0,)), "bad_dimension"),
        (Upsert(collection="texts", vector="b", numbers=(1.0, 2.0, 3.0)), "bad_dimension"),
        (Upsert(collection="texts", vector="b", numbers=(1.0, float("nan"))), "bad_vector"),
        (Upsert(collection="texts", vector="b", numbers=(float("inf"), 1.0)), "bad_vector"),
        (Upsert(collection="texts", vector="b", numbers=(1e30, 1.0)), "bad_vector"),
        (Upsert(collection="texts", vector="b", numbers=(0.0, 0.0)), "bad_vector"),
        (Upsert(collection="texts", vector="b", numbers=(1.0, 2.0), metric="dot"), "bad_metric"),
        (
            Upsert(collection="texts", vector="b", numbers=(1.0, 2.0), metadata={"a": "x" * METADATA_BYTES}),
            "too_large",
        ),
        (Upsert(collection="new", vector="b", numbers=(0.0, 0.0)), "bad_vector"),
        (Upsert(collection="texts", vector="b", numbers=(1.0, 2.0), metadata={"a": NESTED}), "too_deep"),
    ],
)
def test_what_is_no_vector_of_the_collection_is_refused(stage: Stage, request_: Upsert, code: str) -> None:
    stage.do("atlas", ONE)
    stage.refused("atlas", request_, code, InvalidRequest)


def test_nought_is_a_place_where_directions_do_not_count(stage: Stage) -> None:
    stage.do("atlas", Upsert(collection="map", vector="home", numbers=(0.0, 0.0), metric="euclidean"))


@pytest.mark.parametrize("missing", [{"collection": "none", "vector": "a"}, {"collection": "texts", "vector": "b"}])
def test_deleting_what_does_not_exist_is_an_error(stage: Stage, missing: dict[str, Any]) -> None:
    stage.do("atlas", ONE)
    stage.refused("atlas", Delete(**missing), "not_found", NotFound)


@pytest.mark.parametrize("odd", [{"dimension": 0}, {"dimension": 1 << 40}, {"metric": "manhattan"}])
def test_a_collection_that_no_vector_can_be_in_is_none(stage: Stage, odd: dict[str, Any]) -> None:
    stage.given("owner", "texts", CollectionOpened(**{"dimension": 2, "metric": "dot", **odd}))
    assert stage.state(Collection, "texts") is None
