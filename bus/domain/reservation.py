"""Reservations: paths and globs of a repository that an agent keeps for itself, or shares, for a while.

    held -> held (renewed, or some of its paths released) | released | expired

Rules:
* All reservations of one repository share a bucket, so that overlap is decided on all of them at once. Their key is
  `<repository>:<id>`. A repository has a name of its own; a namespace that has only one need not say it.
* An exclusive reservation overlaps with nobody else's, a shared one with nobody else's exclusive one; one's own never
  stand in the way. What overlap means is said in `bus.domain.globs`.
* Either all paths of a request are reserved or none. The one who is refused is told which path, who holds it, why, and
  until when.
* A reservation ends by an event, as a claim does: `reservation.expired`, written by `system` when it is overdue, or in
  the same batch as the reservation that takes over. One that is overdue counts as ended.
* Renewing never makes it end later than `until` (reservation + the cap of leases).
* Here are the facts, the state that follows from them, and the requests. What is decided is in
  `bus.domain.reservation_decisions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.domain.task import Seconds
from bus.events import Event, Fact
from bus.model import Answer, Command, Instant, Key, LeaseS, Name, PageQuery, Query, Reply, State

Mode = Literal["exclusive", "shared"]


class ReservationReserved(Fact, frozen=True, kw_only=True):
    """The author holds these paths until `expires`, renewable up to `until`."""

    type: ClassVar[str] = "reservation.reserved"
    paths: tuple[str, ...]
    """Paths and globs, relative to the root of the repository."""
    mode: str
    """`exclusive` or `shared`."""
    reason: str = ""
    lease_s: Seconds
    expires: Instant
    """End of the reservation, in server time."""
    until: Instant
    """No renewal makes it end later than this."""


class ReservationRenewed(Fact, frozen=True, kw_only=True):
    """The reservation ends later."""

    type: ClassVar[str] = "reservation.renewed"
    lease_s: Seconds
    expires: Instant
    """The new end, in server time."""


class ReservationReleased(Fact, frozen=True, kw_only=True):
    """The holder gave these paths back."""

    type: ClassVar[str] = "reservation.released"
    paths: tuple[str, ...]
    """The paths that were released; the reservation has ended when none is left."""


class ReservationExpired(Fact, frozen=True, kw_only=True):
    """The lease ended: `agent` holds these paths no more."""

    type: ClassVar[str] = "reservation.expired"
    agent: str
    """Who held them."""
    paths: tuple[str, ...]
    """What it still held."""


class Reservation(State, frozen=True, kw_only=True):
    """A reservation now. `reserved` is the seq of its first event; `expires` and `until` are None once it has ended."""

    table: ClassVar[str] = "reservation"
    state: str = "held"
    repository: str
    agent: str
    mode: str
    reason: str = ""
    reserved: int
    lease_s: int
    expires: datetime | None = None
    until: datetime | None = None
    paths: frozenset[str] = frozenset()


def key_of(repository: str, id_: str) -> str:
    """The key of a reservation of that repository."""
    return f"{repository}:{id_}"


def repository_of(key: str) -> str:
    """The repository that a key belongs to: what all its reservations are put together by."""
    return key.partition(":")[0]


def id_of(key: str) -> str:
    return key.partition(":")[2]


def evolve(reservation: Reservation | None, event: Event) -> Reservation | None:
    """The reservation after `event`."""
    fact = event.fact
    if reservation is None:
        return _reserved(fact, event) if isinstance(fact, ReservationReserved) else None
    if reservation.state != "held":
        return reservation
    match fact:
        case ReservationRenewed() if event.agent == reservation.agent:
            same = (fact.expires, fact.lease_s) == (reservation.expires, reservation.lease_s)
            return reservation if same else replace(reservation, expires=fact.expires, lease_s=fact.lease_s)
        case ReservationReleased() if event.agent == reservation.agent:
            left = reservation.paths - set(fact.paths)
            if left:
                return reservation if left == reservation.paths else replace(reservation, paths=left)
            return _ended(reservation, "released")
        case ReservationExpired() if fact.agent == reservation.agent:
            return _ended(reservation, "expired")
        case _:
            return reservation


def _reserved(fact: ReservationReserved, event: Event) -> Reservation:
    return Reservation(
        repository=repository_of(event.entity),
        agent=event.agent,
        mode=fact.mode,
        reason=fact.reason,
        reserved=event.seq,
        lease_s=fact.lease_s,
        expires=fact.expires,
        until=fact.until,
        paths=frozenset(fact.paths),
    )


def _ended(reservation: Reservation, state: str) -> Reservation:
    return replace(reservation, state=state, expires=None, until=None, paths=frozenset())


# --- requests -----------------------------------------------------------------------------------------------------

MOST_PATHS = 100
"""So many paths and globs are reserved at once."""
PathText = Annotated[str, Meta(max_length=4096)]
Repository = Annotated[Name | None, Meta(description="the repository (default: the namespace's, which has its name)")]
ModeText = Annotated[Mode, Meta(description="for you alone, or for all who share it")]
Lease = Annotated[LeaseS | None, Meta(description="seconds until it ends unless renewed")]


class Reserve(Command, frozen=True, kw_only=True):
    """Keep paths for yourself (or share them) until the lease ends: nobody else can reserve what overlaps, and the
    guard refuses their commits. `src/` is everything in a directory; globs know `*`, `?`, `[a-z]` and `**`.
    Reserving the same again renews it."""

    paths: Annotated[
        tuple[PathText, ...],
        Meta(min_length=1, max_length=MOST_PATHS, description="paths and globs, from the repository's root"),
    ]
    mode: ModeText = "exclusive"
    reason: Annotated[str, Meta(max_length=2000, description="why; others are told")] = ""
    lease_s: Lease = None
    repository: Repository = None


class Renew(Command, frozen=True, kw_only=True):
    """Make your reservations end later: those that are named, or all you hold in the repository."""

    reservations: Annotated[tuple[Key, ...], Meta(max_length=100, description="their ids (default: all of yours)")] = ()
    lease_s: Lease = None
    repository: Repository = None


class Release(Command, frozen=True, kw_only=True):
    """Give back what you hold: whole reservations, single paths, or everything. The reply says exactly what."""

    reservations: Annotated[tuple[Key, ...], Meta(max_length=100, description="ids of reservations")] = ()
    paths: Annotated[
        tuple[PathText, ...], Meta(max_length=100, description="paths and globs, written as you reserved them")
    ] = ()
    all: Annotated[bool, Meta(description="everything you hold in the repository")] = False
    repository: Repository = None


class Check(Query, frozen=True, kw_only=True):
    """Ask which paths or globs you could not reserve now, who holds them, why, and until when. Changes nothing."""

    paths: Annotated[
        tuple[PathText, ...],
        Meta(min_length=1, max_length=1000, description="paths and globs, from the repository's root"),
    ]
    mode: ModeText = "exclusive"
    repository: Repository = None


class List(PageQuery, frozen=True, kw_only=True):
    """List what is reserved, in the order in which it was."""

    repository: Annotated[Name | None, Meta(description="only of this repository")] = None
    agent: Annotated[Name | None, Meta(description="only what this agent holds")] = None


class ReserveReply(Reply, frozen=True, kw_only=True):
    """A reservation: yours until `expires`."""

    reservation: str
    repository: str
    paths: tuple[str, ...]
    mode: str
    expires: datetime


class Renewed(Struct, frozen=True, kw_only=True):
    """One reservation and its new end."""

    reservation: str
    expires: datetime


class RenewReply(Reply, frozen=True, kw_only=True):
    renewed: list[Renewed]


class Released(Struct, frozen=True, kw_only=True):
    """What was given back of one reservation."""

    reservation: str
    paths: tuple[str, ...]


class ReleaseReply(Reply, frozen=True, kw_only=True):
    released: list[Released]


class Conflict(Struct, frozen=True, kw_only=True):
    """Why `path` cannot be reserved: `agent` holds `held`, which overlaps."""

    path: str
    held: str
    agent: str
    mode: str
    reason: str
    expires: datetime
    reservation: str


class Conflicts(Answer, frozen=True, kw_only=True):
    """The paths that are free, and what stands in the way of the others: at most one conflict for each."""

    free: list[str]
    conflicts: list[Conflict]


class ReservationRow(Struct, frozen=True, kw_only=True):
    """A reservation as it was. `seq` is that of its last change, `reserved` that of its first event."""

    reservation: str
    seq: int
    reserved: int
    repository: str
    agent: str
    mode: str
    paths: list[str]
    reason: str
    lease_s: int
    expires: datetime


class Reservations(Answer, frozen=True, kw_only=True):
    reservations: list[ReservationRow]
    next: int | None = None
