"""Reservations as they were: who held what, and what stood in the way of whom.

Rule: whether two patterns overlap is said by `bus.domain.globs`, here as in the decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from bus.domain import reservation
from bus.domain.globs import normal, overlap, overlapping
from bus.domain.reservation import id_of
from bus.domain.reservation_decisions import clash
from projections.query import Reader, answers, utc


class Held(NamedTuple):
    """A path that is reserved, as the tables have it."""

    path: str
    agent: str
    mode: str
    reason: str
    expires: datetime
    key: str


def _held(reader: Reader, request: reservation.Check, paths: Sequence[str]) -> list[Held]:
    """What the one who asks conflicts with, were it to reserve all of these paths."""
    sql = f"""
        select p.item, r.agent, r.mode, r.reason, r.expires, r.reservation
        from {reader.at("reservation")} r join {reader.at("reservation_paths")} p using (kid)
        where r.namespace = ? and r.repository = ? and r.state = 'held' and r.agent <> ?
        order by r.reserved, p.item"""
    repository = request.repository or request.namespace
    rows = map(Held._make, reader.rows(sql, [request.namespace, repository, reader.agent]))
    overlap_with = overlapping(paths)
    return [held for held in rows if overlap_with(frozenset((held.path,))) and clash(request.mode, held.mode)]


@answers(reservation.Check)
def check(reader: Reader, request: reservation.Check) -> reservation.Conflicts:
    paths = sorted({normal(path) for path in request.paths})
    held = _held(reader, request, paths)
    free, conflicts = [], []
    for path in paths:
        known = next((one for one in held if overlap(path, one.path)), None)
        if known is None:
            free.append(path)
        else:
            conflicts.append(_conflict(path, known))
    return reservation.Conflicts(seq=reader.seq, time=reader.time_of(reader.seq), free=free, conflicts=conflicts)


def _conflict(path: str, known: Held) -> reservation.Conflict:
    return reservation.Conflict(
        path=path,
        held=known.path,
        agent=known.agent,
        mode=known.mode,
        reason=known.reason,
        expires=utc(known.expires),
        reservation=id_of(known.key),
    )


@answers(reservation.List, "reservations")
def list_reservations(reader: Reader, request: reservation.List) -> reservation.Reservations:
    where, params = f"state = 'held' and reserved > {request.since or 0} and namespace = ?", [request.namespace]
    for column, value in (("repository", request.repository), ("agent", request.agent)):
        if value is not None:
            where += f" and {column} = ?"
            params.append(value)
    sql = f"""
        with page as (
            select * from {reader.at("reservation")} where {where} order by reserved limit {request.limit})
        select reservation, seq_from, reserved, repository, agent, mode, reason, lease_s, expires,
            (select list(item order by item) from {reader.at("reservation_paths")} p where p.kid = page.kid)
        from page order by reserved"""
    found = [
        reservation.ReservationRow(
            reservation=id_of(key),
            seq=seq,
            reserved=reserved,
            repository=repository,
            agent=agent,
            mode=mode,
            paths=paths or [],
            reason=reason,
            lease_s=lease_s,
            expires=utc(expires),
        )
        for key, seq, reserved, repository, agent, mode, reason, lease_s, expires, paths in reader.rows(sql, params)
    ]
    more = found[-1].reserved if len(found) == request.limit else None
    return reservation.Reservations(seq=reader.seq, time=reader.time_of(reader.seq), reservations=found, next=more)
