"""Vectors: the nearest ones, one by one, and the collections they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bus.domain import vector
from bus.domain.vector import Collection, Vector, VectorUpserted, check_numbers, key_of
from bus.errors import NotFound
from projections.query import Reader, answers, any_of, has_values

DIGITS = 6
"""Scores are shown with so many: numbers are kept in 32 bits, which have no more to say."""

_canonical = msgspec.json.Encoder(order="sorted").encode
_upserted = msgspec.json.Decoder(VectorUpserted).decode


@answers(vector.Nearest)
def nearest(reader: Reader, request: vector.Nearest) -> vector.Found:
    known = reader.state(Collection, request.namespace, request.collection)
    if known is None:
        raise _missing(reader, request.namespace, f"collection {request.collection}", "such a collection")
    check_numbers(request.numbers, request.collection, known.state)
    kids = _fitting(reader, request) if request.where else None
    with reader.collections() as collections:
        held = collections.get((request.namespace, request.collection))
        rows, among = held.nearest(request.numbers, request.k, reader.seq, kids) if held is not None else ([], 0)
        keys = {row.kid: held.keys[row.kid] for row in rows} if held is not None else {}
    said = _said(reader, request.namespace, keys)
    found = [
        vector.VectorRow(
            vector=_name(said[row.kid][0]),
            seq=row.seq,
            score=round(row.score, DIGITS),
            metadata=_read(said[row.kid][1]),
        )
        for row in rows
    ]
    return vector.Found(seq=reader.seq, time=reader.time_of(reader.seq), found=found, among=among)


def _said(reader: Reader, namespace: str, keys: Mapping[int, str]) -> dict[int, tuple[str, str]]:
    """By kid: the key of each of these vectors, and its metadata."""
    known = reader.states(Vector, namespace, keys.values())
    # Those that changed since are read from the tables, as are names that a table shows otherwise than they are.
    found = {entry.kid: (key, entry.state.metadata) for key, entry in known.items() if keys.get(entry.kid) == key}
    if more := keys.keys() - found.keys():
        sql = f"select kid, vector, metadata from {reader.at('vector')} where kid in {any_of(more)}"
        found |= {kid: (key, metadata) for kid, key, metadata in reader.rows(sql)}
    return found


def _fitting(reader: Reader, request: vector.Nearest) -> list[int]:
    """The keys of the vectors whose metadata has the values that are asked for."""
    # The text is canonical, so what is asked for stands in it as it is; whether it stands at the top is seen then.
    parts = [_canonical({name: value}).decode()[1:-1] for name, value in request.where.items()]
    said = " and ".join(["contains(metadata, ?)"] * len(parts))
    sql = f"""select kid, metadata from {reader.at("vector")}
        where namespace = ? and collection = ? and state = 'active' and {said}"""
    rows = reader.rows(sql, [request.namespace, request.collection, *parts])
    return [kid for kid, metadata in rows if has_values(_read(metadata), request.where)]


def _read(metadata: str) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.json.decode(metadata)
    return read


def _name(key: str) -> str:
    return key.partition("/")[2]


@answers(vector.Show)
def show(reader: Reader, request: vector.Show) -> vector.VectorShown:
    known = reader.state(Vector, request.namespace, key_of(request.collection, request.vector))
    if known is None:
        expected = f"one in collection {request.collection}"
        raise _missing(reader, request.namespace, f"vector {request.vector}", expected)
    ((data,),) = reader.rows(f"select data from {reader.at('event')} where seq = {known.state.upserted}")
    return vector.VectorShown(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        collection=request.collection,
        vector=request.vector,
        state=known.state.state,
        upserted=known.state.upserted,
        metadata=_read(known.state.metadata),
        numbers=list(_upserted(data).numbers),
    )


@answers(vector.Collections, "collections")
def collections(reader: Reader, request: vector.Collections) -> vector.CollectionList:
    sql = f"""
        with page as (
            select kid, collection, dimension, metric from {reader.at("collection")}
            where namespace = ? and kid > {request.since or 0} order by kid limit {request.limit}),
        held as (
            select collection, count(*) as vectors from {reader.at("vector")}
            where namespace = ? and state = 'active' group by 1)
        select kid, collection, dimension, metric, vectors from page left join held using (collection) order by kid"""
    rows = reader.rows(sql, [request.namespace, request.namespace])
    found = [
        vector.CollectionRow(collection=name, seq=kid, dimension=dimension, metric=metric, vectors=vectors or 0)
        for kid, name, dimension, metric, vectors in rows
    ]
    more = rows[-1][0] if len(rows) == request.limit else None
    return vector.CollectionList(seq=reader.seq, time=reader.time_of(reader.seq), collections=found, next=more)


def _missing(reader: Reader, namespace: str, entity: str, expected: str) -> NotFound:
    return NotFound(
        "there is none",
        entity=entity,
        expected=f"{expected} in namespace {namespace} as of #{reader.seq}",
        found="none",
        hint="`bus vector collections` shows the collections",
    )
