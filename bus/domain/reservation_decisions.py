"""What is decided about reservations, and the table of the family. The rules are in `bus.domain.reservation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from bus.domain import reservation as ask
from bus.domain.globs import normal, overlap, overlapping
from bus.domain.reservation import (
    Reservation,
    ReservationExpired,
    ReservationReleased,
    ReservationRenewed,
    ReservationReserved,
    evolve,
    id_of,
    key_of,
    repository_of,
)
from bus.domain.reservation_index import Holding, Overlapping, ReservationIndex
from bus.domain.task_claims import lease, stamp
from bus.errors import InvalidRequest, NotFound, Refused, Unavailable
from bus.events import Event
from bus.model import Command, Context, Decision, Emit, Family, Operation, View
from bus.subjects import SYSTEM

MOST = 500
"""One agent holds at most so many reservations of a repository: all of them can be ended in one batch."""
NAMED = 20
"""So many conflicts are named in an error."""

Held = tuple[str, Reservation]
"""A reservation with its key."""


# --- what is held -------------------------------------------------------------------------------------------------


def overdue(held: Reservation, now: datetime) -> bool:
    return held.expires is not None and held.expires <= now


def expire(held: Reservation, key: str, now: datetime) -> Sequence[Emit]:
    """The end of a reservation that is overdue."""
    if not overdue(held, now):
        return []
    return [Emit(Reservation, key, ReservationExpired(agent=held.agent, paths=tuple(sorted(held.paths))), SYSTEM)]


def clash(mode: str, other: str) -> bool:
    """Whether two agents cannot hold the same path in these modes."""
    return not mode == other == "shared"


def _found(view: View, ctx: Context, asked: Holding | Overlapping) -> Iterator[Held]:
    """The reservations of a repository that matter and whose end has not been written, in the order in which they were
    made; perhaps some others of it as well."""
    prefix = key_of(asked.repository, "")
    for key, entry in view.found(Reservation, ctx.namespace, asked):
        if key.startswith(prefix):
            yield key, entry.state


def _mine(view: View, ctx: Context, repository: str) -> dict[str, Reservation]:
    """What the one who asks holds."""
    found = _found(view, ctx, Holding(repository, ctx.agent))
    return {key: held for key, held in found if held.agent == ctx.agent and not overdue(held, ctx.now)}


def _repository(request: ask.Reserve | ask.Renew | ask.Release, ctx: Context) -> str:
    return request.repository or ctx.namespace


def _lease_s(repository: str, lease_s: int | None, ctx: Context) -> int | None:
    if lease_s is not None and lease_s > ctx.limits.lease_cap_s:
        raise InvalidRequest(
            "the lease is longer than one may be",
            code="lease_too_long",
            entity=f"repository {repository}",
            expected=f"at most {ctx.limits.lease_cap_s} s",
            found=f"{lease_s} s",
            hint="Take less, and renew it while you need it",
        )
    return lease_s


# --- reserving ----------------------------------------------------------------------------------------------------


def decide_reserve(view: View, request: ask.Reserve, ctx: Context) -> Decision:
    repository = _repository(request, ctx)
    paths = sorted({normal(path) for path in request.paths})
    lease_s = _lease_s(repository, request.lease_s, ctx)
    mine = _mine(view, ctx, repository)
    for key, held in mine.items():
        if held.mode == request.mode and held.paths == set(paths):
            return _again(view, request, ctx, (key, held))
    overlap_with = overlapping(paths)
    ended: list[Emit] = []
    conflicts: list[dict[str, Any]] = []
    for key, held in _found(view, ctx, Overlapping(repository, paths)):
        is_over = overdue(held, ctx.now)
        if key in mine or not (is_over or clash(request.mode, held.mode)):
            continue
        if pair := overlap_with(held.paths):
            if is_over:
                ended += expire(held, key, ctx.now)
            else:
                conflicts.append(_conflict(pair, key, held))
    if conflicts:
        raise _reserved(request.mode, conflicts)
    _check_number(repository, len(mine), len(ended), ctx)
    fact = ReservationReserved(paths=tuple(paths), mode=request.mode, reason=request.reason, **lease(ctx, lease_s))
    return [*ended, Emit(Reservation, key_of(repository, ctx.ids.short("r")), fact)]


def _again(view: View, request: ask.Reserve, ctx: Context, held: Held) -> Decision:
    """Reserving what one holds renews it."""
    key, reservation = held
    if renewed := _renewal(key, reservation, request.lease_s, ctx):
        return renewed
    entry = view.entry(Reservation, ctx.namespace, key)
    assert entry is not None
    assert reservation.expires is not None
    return _reserve_answer(request, key, entry.since, reservation.expires)


def _conflict(pair: tuple[str, str], key: str, held: Reservation) -> dict[str, Any]:
    assert held.expires is not None
    return {
        "path": pair[0],
        "held": pair[1],
        "agent": held.agent,
        "mode": held.mode,
        "reason": held.reason,
        "expires": held.expires.isoformat(),
        "until": stamp(held.expires),
        "reservation": id_of(key),
        "seq": held.reserved,
    }


def _reserved(mode: str, conflicts: Sequence[dict[str, Any]]) -> Refused:
    first = conflicts[0]
    others = f" (and {len(conflicts) - 1} more reservations stand in the way)" if len(conflicts) > 1 else ""
    why = f": {first['reason'][:200]}" if first["reason"] else ""
    return Refused(
        f"{first['agent']} holds {first['held']}{why}",
        code="reserved",
        entity=f"path {first['path']}",
        expected="a path that nobody else holds" + (" exclusively" if mode == "shared" else ""),
        found=f"{first['held']}, {first['mode']}, held by {first['agent']} until {first['until']}{others}",
        hint=f"Wait until then, ask {first['agent']} to release it, or reserve less: `bus reservation check` says what",
        conflicts=list(conflicts[:NAMED]),
    )


def _check_number(repository: str, mine: int, ended: int, ctx: Context) -> None:
    if mine >= MOST:
        raise Refused(
            "you hold too many reservations",
            code="too_many",
            entity=f"repository {repository}",
            expected=f"at most {MOST} of one agent",
            found=f"{mine} of {ctx.agent}",
            hint="Release some, or reserve a glob instead of many paths",
        )
    if ended > MOST:
        raise Unavailable(
            "the ends of many leases are still being written",
            code="busy",
            entity=f"repository {repository}",
            expected=f"at most {MOST} leases that have ended",
            found=f"{ended}",
            hint="Ask again in a moment",
            retry_after_s=0.5,
        )


# --- renewing and releasing ---------------------------------------------------------------------------------------


def _renewal(key: str, held: Reservation, lease_s: int | None, ctx: Context) -> list[Emit]:
    """The event that makes a reservation end later, if that is later than it ends anyway."""
    assert held.expires is not None
    assert held.until is not None
    lease_s = lease_s or held.lease_s
    expires = min(ctx.now + timedelta(seconds=lease_s), held.until)
    if expires <= held.expires:
        return []
    return [Emit(Reservation, key, ReservationRenewed(lease_s=lease_s, expires=expires))]


def decide_renew(view: View, request: ask.Renew, ctx: Context) -> Decision:
    repository = _repository(request, ctx)
    lease_s = _lease_s(repository, request.lease_s, ctx)
    mine = _mine(view, ctx, repository)
    wanted = {key: mine.get(key) for key in _named(repository, request.reservations)} or dict(mine)
    held = {key: known or _not_holding(view, ctx, key) for key, known in wanted.items()}
    if not held:
        raise _nothing_held(repository, ctx)
    emits = [emit for key, one in held.items() for emit in _renewal(key, one, lease_s, ctx)]
    if emits:
        return emits
    key, first = next(iter(held.items()))
    assert first.expires is not None
    assert first.until is not None
    if first.expires >= first.until:
        raise Refused(
            "the reservation has reached its cap",
            code="lease_cap",
            entity=f"reservation {id_of(key)}",
            expected=f"an end before {stamp(first.until)}",
            found=f"a lease until {stamp(first.expires)}",
            hint="Release it; who needs it still can reserve it anew",
        )
    since = max(entry.since for one in held if (entry := view.entry(Reservation, ctx.namespace, one)) is not None)
    ends = [(one, known.expires) for one, known in held.items()]
    return ask.RenewReply(
        seq=since,
        renewed=[ask.Renewed(reservation=id_of(one), expires=at) for one, at in ends if at is not None],
    )


def decide_release(view: View, request: ask.Release, ctx: Context) -> Decision:
    repository = _repository(request, ctx)
    if not (request.reservations or request.paths or request.all):
        raise InvalidRequest(
            "nothing is named that is to be released",
            code="nothing_named",
            entity=f"repository {repository}",
            expected="ids of reservations, paths, or all",
            found="none of them",
            hint="`bus reservation list` shows what you hold; --all gives back everything",
        )
    mine = _mine(view, ctx, repository)
    going: dict[str, set[str]] = {key: set(held.paths) for key, held in mine.items()} if request.all else {}
    for key in _named(repository, request.reservations):
        going[key] = set((mine.get(key) or _not_holding(view, ctx, key)).paths)
    for text in request.paths:
        path = normal(text)
        found = [key for key, held in mine.items() if path in held.paths]
        for key in found or _not_held(path, mine, ctx):
            going.setdefault(key, set()).add(path)
    if not going:
        raise _nothing_held(repository, ctx)
    return [Emit(Reservation, key, ReservationReleased(paths=tuple(sorted(paths)))) for key, paths in going.items()]


def _named(repository: str, ids: Sequence[str]) -> list[str]:
    return [key_of(repository, one) for one in dict.fromkeys(ids)]


def _not_holding(view: View, ctx: Context, key: str) -> NoReturn:
    """There is no such reservation of the one who asks: say what there is."""
    held = view.get(Reservation, ctx.namespace, key)
    entity = f"reservation {id_of(key)}"
    if held is None:
        raise NotFound(
            "no such reservation",
            entity=entity,
            expected=f"a reservation of repository {repository_of(key)}",
            found="none of that id",
            hint="`bus reservation list` shows them; --repository names another repository",
        )
    if held.state != "held":
        found = f"{held.state}, when {held.agent} had it"
    elif overdue(held, ctx.now):
        found = f"a lease that ended at {stamp(held.expires)}"
    else:
        found = f"held by {held.agent} until {stamp(held.expires)}"
    raise Refused(
        "you do not hold this reservation",
        code="not_holder",
        entity=entity,
        expected=f"held by {ctx.agent}",
        found=found,
        hint="Stop writing to these paths, or reserve them again" if held.agent == ctx.agent else f"Ask {held.agent}",
        agent=held.agent,
        state=held.state,
    )


def _not_held(path: str, mine: dict[str, Reservation], ctx: Context) -> NoReturn:
    near = [other for held in mine.values() for other in held.paths if overlap(path, other)]
    raise Refused(
        "you do not hold this path",
        code="not_holder",
        entity=f"path {path}",
        expected=f"a path that {ctx.agent} has reserved, written alike",
        found=f"{', '.join(near[:3])}, which overlaps" if near else "none",
        hint="A reservation is given back as it was made: `bus reservation list` shows yours",
    )


def _nothing_held(repository: str, ctx: Context) -> NotFound:
    return NotFound(
        "you hold nothing there",
        code="nothing_held",
        entity=f"repository {repository}",
        expected=f"reservations of {ctx.agent}",
        found="none",
        hint="`bus reservation list` shows who holds what; --repository names another repository",
    )


# --- replies ------------------------------------------------------------------------------------------------------


def _reserve_answer(request: ask.Reserve, key: str, seq: int, expires: datetime) -> ask.ReserveReply:
    return ask.ReserveReply(
        seq=seq,
        reservation=id_of(key),
        repository=repository_of(key),
        paths=tuple(sorted({normal(path) for path in request.paths})),
        mode=request.mode,
        expires=expires,
    )


def _reserve_reply(view: View, request: ask.Reserve, events: Sequence[Event]) -> ask.ReserveReply:
    event = events[-1]
    assert isinstance(event.fact, ReservationReserved | ReservationRenewed)
    return _reserve_answer(request, event.entity, event.seq, event.fact.expires)


def _renew_reply(view: View, request: Command, events: Sequence[Event]) -> ask.RenewReply:
    facts = [(event.entity, event.fact) for event in events]
    ends = [(key, fact.expires) for key, fact in facts if isinstance(fact, ReservationRenewed)]
    return ask.RenewReply(
        seq=events[-1].seq,
        renewed=[ask.Renewed(reservation=id_of(key), expires=expires) for key, expires in ends],
    )


def _release_reply(view: View, request: Command, events: Sequence[Event]) -> ask.ReleaseReply:
    facts = [(event.entity, event.fact) for event in events]
    gone = [(key, fact.paths) for key, fact in facts if isinstance(fact, ReservationReleased)]
    return ask.ReleaseReply(
        seq=events[-1].seq,
        released=[ask.Released(reservation=id_of(key), paths=paths) for key, paths in gone],
    )


# --- the family ---------------------------------------------------------------------------------------------------


def _rank(held: Reservation) -> tuple[int] | None:
    return (held.reserved,) if held.state == "held" else None


FAMILY = Family(
    name="reservation",
    facts=(ReservationReserved, ReservationRenewed, ReservationReleased, ReservationExpired),
    state=Reservation,
    evolve=evolve,
    bucket_key=repository_of,
    rank=_rank,
    index=ReservationIndex,
    deadline=lambda held: held.expires,
    overdue=expire,
    operations=(
        Operation("reservation.reserve", ask.Reserve, ask.ReserveReply, decide_reserve, _reserve_reply),
        Operation("reservation.renew", ask.Renew, ask.RenewReply, decide_renew, _renew_reply),
        Operation("reservation.release", ask.Release, ask.ReleaseReply, decide_release, _release_reply, essential=True),
        Operation("reservation.check", ask.Check, ask.Conflicts),
        Operation("reservation.list", ask.List, ask.Reservations),
    ),
)
