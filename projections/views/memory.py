"""Memories as they were: one with its history, those that fit, or the rules that hold.

Rules:
* What is asked about a namespace is answered with its entries and those of the whole tenant.
* A private entry is looked up under the agent that asks (`bus.domain.memory.key_of`), so no name leads to another's.
* Which entries contradict each other is one row, at one of the two; it is told of both, as long as both hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bus.domain import memory_requests as ask
from bus.domain.memory import CATEGORIES, Memory, key_of, name_of
from bus.errors import NotFound
from bus.model import Entry
from bus.subjects import TENANT
from projections.query import Reader, answers, escaped
from projections.schema import naive
from projections.views.history import history_of

HERE = f"namespace in (?, '{TENANT}')"
"""A SQL predicate with the namespace as its parameter."""
RULES = CATEGORIES[:-1]


def rows(
    reader: Reader, namespace: str, where: str, params: Sequence[Any], order: str, limit: int
) -> list[ask.MemoryRow]:
    """The entries of a namespace, and of the tenant, that fulfil `where`."""
    sql = f"""
        select kid, namespace, memory from {reader.at("memory")}
        where {HERE} and {where} order by {order} limit {limit}"""
    chosen = reader.rows(sql, [namespace, *params])
    return whole(reader, namespace, chosen)


def whole(reader: Reader, namespace: str, chosen: Iterable[tuple[int, str, str]]) -> list[ask.MemoryRow]:
    """The entries with these (kid, namespace, key), in this order."""
    chosen = list(chosen)
    known: dict[tuple[str, str], Entry] = {}
    for space in {space for _, space, _ in chosen}:
        found = reader.states(Memory, space, [key for _, within, key in chosen if within == space])
        known |= {(space, key): entry for key, entry in found.items()}
    clashes = contradictions(reader, namespace, {name_of(key) for _, _, key in chosen})
    return [
        row(space, key, known[(space, key)], clashes.get(name_of(key), {}))
        for _, space, key in chosen
        if (space, key) in known
    ]


def row(namespace: str, key: str, entry: Entry, clashes: Mapping[str, int]) -> ask.MemoryRow:
    """One entry as it is answered."""
    known: Memory = entry.state
    same = {name: getattr(known, name) for name in _SAME}
    return ask.MemoryRow(
        memory=name_of(key),
        seq=entry.since,
        written=entry.kid,
        namespace=namespace,
        tags=sorted(known.tags),
        metadata=msgspec.json.decode(known.metadata),
        refs=sorted(known.refs),
        links=sorted(known.links),
        contradicts=sorted(clashes),
        **same,
    )


_SAME = (
    *("author", "scope", "state", "category", "content", "subject", "priority", "salience", "confidence"),
    *("valid_from", "valid_to", "source", "trust_tier", "pinned", "supersedes", "superseded_by"),
)


def contradictions(reader: Reader, namespace: str, names: Collection[str]) -> dict[str, dict[str, int]]:
    """By name, the active entries that each of these is said to contradict, with the seq that said so."""
    if not reader.is_used("memory_contradictions"):
        return {}
    sql = f"select memory, item, value from {reader.at('memory_contradictions')} where {HERE}"
    found: dict[str, dict[str, int]] = {}
    for key, other, seq in reader.rows(sql, [namespace]):
        for one, against in ((name_of(key), other), (other, name_of(key))):
            if one in names:
                found.setdefault(one, {})[against] = seq
    holding = _active(reader, namespace, {other for others in found.values() for other in others})
    return {one: {other: seq for other, seq in others.items() if other in holding} for one, others in found.items()}


def _active(reader: Reader, namespace: str, names: Collection[str]) -> set[str]:
    """Those of these entries that hold."""
    if not names:
        return set()
    keys = [key_of(name, reader.agent) for name in sorted(names)]
    return {
        name_of(key)
        for space in (namespace, TENANT)
        for key, entry in reader.states(Memory, space, keys).items()
        if entry.state.state == "active"
    }


def _true_at(instant: datetime) -> tuple[str, list[Any]]:
    """A SQL predicate, and its parameters: what is true in the world at that instant."""
    at = naive(instant)
    return "(valid_from is null or valid_from <= ?) and (valid_to is null or valid_to > ?)", [at, at]


@answers(ask.Show)
def show(reader: Reader, request: ask.Show) -> ask.MemoryDetail:
    key = key_of(request.memory, reader.agent)
    for namespace in (request.namespace, TENANT):
        kid = reader.kid("memory", namespace, key)
        if kid is not None:
            (found,) = whole(reader, request.namespace, [(kid, namespace, key)])
            return ask.MemoryDetail(
                seq=reader.seq,
                time=reader.time_of(reader.seq),
                memory=found,
                history=history_of(reader, namespace, key, "memory"),
            )
    raise NotFound(
        "no such memory",
        entity=f"memory {request.memory}",
        expected=f"an entry of namespace {request.namespace} as of #{reader.seq} that you can read",
        hint="`bus memory list` shows them",
    )


@answers(ask.List, "memories")
def list_memories(reader: Reader, request: ask.List) -> ask.Memories:
    where, params = [f"kid > {request.since or 0}"], list[Any]()
    if request.state != "any":
        where.append("state = ?")
        params.append(request.state)
    for column in ("category", "subject", "scope", "author"):
        if (value := getattr(request, column)) is not None:
            where.append(f"{column} = ?")
            params.append(value)
    if request.pinned is not None:
        where.append("pinned" if request.pinned else "not pinned")
    if request.tag is not None:
        where.append(f"kid in (select kid from {reader.at('memory_tags')} where item = ?)")
        params.append(request.tag)
    if request.valid_at is not None:
        true, at = _true_at(request.valid_at)
        where.append(true)
        params += at
    found = rows(reader, request.namespace, " and ".join(where), params, "kid", request.limit)
    return ask.Memories(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        memories=found,
        next=found[-1].written if len(found) == request.limit else None,
    )


@answers(ask.Search, "memories")
def search(reader: Reader, request: ask.Search) -> ask.Memories:
    words = [f"%{escaped(word)}%" for word in request.text.split()]
    where = ["state = 'active'", *([r"(content ilike ? escape '\' or subject ilike ? escape '\')"] * len(words))]
    if request.before is not None:
        where.append(f"kid < {request.before}")
    params = [word for word in words for _ in range(2)]
    found = rows(reader, request.namespace, " and ".join(where), params, "kid desc", request.limit)
    return ask.Memories(seq=reader.seq, time=reader.time_of(reader.seq), memories=found)


@answers(ask.Assemble, "memories")
def assemble(reader: Reader, request: ask.Assemble) -> ask.Memories:
    time = reader.time_of(reader.seq)
    wanted = ", ".join(f"'{name}'" for name in CATEGORIES if name in (request.categories or RULES))
    where, params = [f"state = 'active' and category in ({wanted})"], list[Any]()
    moment = request.valid_at or time
    if moment is not None:
        true, at = _true_at(moment)
        where.append(true)
        params += at
    order = f"list_position([{wanted}], category), priority desc, seq_from desc"
    found = rows(reader, request.namespace, " and ".join(where), params, order, request.limit)
    return ask.Memories(seq=reader.seq, time=time, memories=found)
