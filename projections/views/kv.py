"""Values by key, as they were."""

from __future__ import annotations

from typing import Any

from bus.domain import kv
from bus.errors import NotFound
from projections.query import Reader, answers, utc
from projections.views.history import shown
from projections.views.versions import versions


@answers(kv.Get)
def get(reader: Reader, request: kv.Get) -> kv.Value:
    entry = reader.state(kv.Kv, request.namespace, request.key)
    if entry is None or entry.state.state != "set":
        raise _missing(reader, request, "none" if entry is None else f"{entry.state.state} by event #{entry.since}")
    return kv.Value(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        key=request.key,
        version=entry.since,
        value=shown(entry.state.value),
        expires=entry.state.expires,
    )


def _missing(reader: Reader, request: kv.Get | kv.History, found: str) -> NotFound:
    return NotFound(
        "the key has no value",
        entity=f"key {request.key}",
        expected=f"a value in namespace {request.namespace} as of #{reader.seq}",
        found=found,
        hint="`bus kv list` shows the keys that have one",
    )


@answers(kv.History, "versions")
def history(reader: Reader, request: kv.History) -> kv.Versions:
    kid = reader.kid("kv", request.namespace, request.key)
    if kid is None:
        raise _missing(reader, request, "none")
    page = versions(reader, "kv", kid, ("state", "value", "expires"), request.since, request.before, request.limit)
    found = [
        kv.KeyVersion(seq=seq, time=time, agent=agent, type=type_, **_said(*values))
        for seq, time, agent, type_, values in page
    ]
    more = found[-1].seq if found else request.since
    return kv.Versions(seq=reader.seq, time=reader.time_of(reader.seq), versions=found, next=more)


def _said(state: str, value: str, expires: Any) -> dict[str, Any]:
    here = shown(value) if state == "set" else None
    return {"state": state, "value": here, "expires": utc(expires) if expires is not None else None}


@answers(kv.List, "values")
def list_values(reader: Reader, request: kv.List) -> kv.Values:
    where, params = f"state = 'set' and seq_from > {request.since or 0} and namespace = ?", [request.namespace]
    if request.prefix is not None:
        where += " and starts_with(kv, ?)"
        params.append(request.prefix)
    sql = f"""
        select kv, seq_from, value, expires from {reader.at("kv")}
        where {where} order by seq_from limit {request.limit}"""
    found = [
        kv.ValueRow(key=key, seq=seq, value=shown(value), expires=utc(expires) if expires is not None else None)
        for key, seq, value, expires in reader.rows(sql, params)
    ]
    more = found[-1].seq if len(found) == request.limit else None
    return kv.Values(seq=reader.seq, time=reader.time_of(reader.seq), values=found, next=more)
