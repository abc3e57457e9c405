"""Reservations as they were: who held what, and what stood in the way of whom.

Rule: whether two patterns overlap is said by `bus.domain.globs`, here as in the decisions.
"""

from __future__ import annotations

from msgspec.structs import replace

from bus.domain import reservation
from bus.domain.globs import normal, overlap
from bus.domain.reservation import id_of
from bus.domain.reservation_decisions import clash
from projections.query import Reader, answers, utc


def _held(reader: Reader, namespace: str, repository: str, asker: str, mode: str) -> list[reservation.Conflict]:
    """Everything that `asker` could conflict with, path by path; `path` is left empty."""
    sql = f"""
        select p.item, r.agent, r.mode, r.reason, r.expires, r.reservation
        from {reader.at("reservation")} r join {reader.at("reservation_paths")} p using (kid)
        where r.namespace = ? and r.repository = ? and r.state = 'held' and r.agent <> ?
        order by r.reserved, p.item"""
    return [
        reservation.Conflict(
            path="",
            held=held,
            agent=agent,
            mode=its_mode,
            reason=reason,
            expires=utc(expires),
            reservation=id_of(key),
        )
        for held, agent, its_mode, reason, expires, key in reader.rows(sql, [namespace, repository, asker])
        if clash(mode, its_mode)
    ]


@answers(reservation.Check)
def check(reader: Reader, request: reservation.Check) -> reservation.Conflicts:
    repository = request.repository or request.namespace
    held = _held(reader, request.namespace, repository, reader.agent, request.mode)
    free, conflicts = [], []
    for path in sorted({normal(path) for path in request.paths}):
        known = next((one for one in held if overlap(path, one.held)), None)
        if known is None:
            free.append(path)
        else:
            conflicts.append(replace(known, path=path))
    return reservation.Conflicts(seq=reader.seq, time=reader.time_of(reader.seq), free=free, conflicts=conflicts)


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
