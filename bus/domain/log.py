"""Requests about the log itself: listing it, showing one event, replaying it, proving it.

Rules:
* They need the authority `auditor`: the log shows who did what. Even an auditor sees no text of other agents' dms.
* A seal records the head of a running hash chain over everything before it, so that a later change of stored messages
  can be proved (`log.sealed`, written by `system`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from bus.errors import Refused
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Operation,
    PageQuery,
    Position,
    Query,
    Reply,
    Seq,
    State,
    View,
)
from bus.subjects import TENANT

CHAIN = "chain"
"""The key of the one entity of this family."""


class LogSealed(Fact, frozen=True, kw_only=True):
    """The hash chain over the log had this end."""

    type: ClassVar[str] = "log.sealed"
    upto: Position
    """The last event that the chain covers; it begins with the first."""
    head: str
    """The end of the chain: sha256, hex."""


class Seal(State, frozen=True, kw_only=True):
    """The newest seal."""

    table: ClassVar[str] = "seal"
    upto: int
    head: str


def evolve(seal: Seal | None, event: Event) -> Seal | None:
    """The newest seal after `event`."""
    fact = event.fact
    if not isinstance(fact, LogSealed) or (seal is not None and fact.upto <= seal.upto):
        return seal
    return Seal(upto=fact.upto, head=fact.head)


class SealChain(Command, frozen=True, kw_only=True):
    """Write the head of the hash chain into the log (asked by the daemon)."""

    upto: Position
    head: str


class Sealed(Reply, frozen=True, kw_only=True):
    upto: int


class List(PageQuery, frozen=True, kw_only=True):
    """List events, oldest first."""

    start: Annotated[Seq | None, Meta(description="from this seq on")] = None
    end: Annotated[Seq | None, Meta(description="up to this seq")] = None
    type: Annotated[
        Annotated[str, Meta(max_length=100)] | None, Meta(description="only this type, e.g. task.claimed")
    ] = None
    family: Annotated[Annotated[str, Meta(max_length=100)] | None, Meta(description="only this family")] = None
    entity: Annotated[Annotated[str, Meta(max_length=200)] | None, Meta(description="only this entity")] = None
    agent: Annotated[Annotated[str, Meta(max_length=100)] | None, Meta(description="only by this author")] = None
    in_namespace: Annotated[Annotated[str, Meta(max_length=100)] | None, Meta(description="only in this namespace")] = (
        None
    )
    newest: Annotated[bool, Meta(description="the newest ones instead of the oldest")] = False


class Show(Query, frozen=True, kw_only=True):
    """Show one event: subject, headers, body, what caused it and what it caused."""

    event: Annotated[Seq, Meta(description="its seq")]


class Tables(Query, frozen=True, kw_only=True):
    """Report the state of a moment: every table's rows and digest."""

    from_log: Annotated[bool, Meta(description="fold the raw log instead of reading the tables")] = False
    verify: Annotated[bool, Meta(description="do both and compare every digest")] = False


class Table(PageQuery, frozen=True, kw_only=True):
    """Read the rows of one table as they were."""

    table: Annotated[str, Meta(pattern=r"^[a-z_]{1,64}\Z", description="the table's name")]
    from_log: Annotated[bool, Meta(description="fold the raw log instead of reading the tables")] = False


class Sql(Query, frozen=True, kw_only=True):
    """Ask the tables of a moment in SQL, in a locked instance of its own."""

    sql: Annotated[str, Meta(min_length=1, max_length=100_000, description="one select over the tables")]
    limit: Annotated[int, Meta(ge=1, le=100_000, description="at most so many rows")] = 1000
    timeout_s: Annotated[float, Meta(gt=0, le=300, description="give up after so many seconds")] = 30
    from_log: Annotated[bool, Meta(description="fold the raw log instead of reading the tables")] = False


class LogRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as listed. `problem` says why its body could not be read; `redacted` that you may not see it."""

    seq: int
    time: datetime
    type: str
    namespace: str
    entity: str
    agent: str
    causes: list[int] = []
    data: Any = None
    correlation: str | None = None
    problem: str | None = None
    redacted: bool = False


class LogPage(Answer, frozen=True, kw_only=True):
    events: list[LogRow]
    next: int | None = None


class EventDetail(Answer, frozen=True, kw_only=True):
    event: LogRow
    subject: str
    headers: dict[str, str]
    causes: list[LogRow]
    effects: list[LogRow]


class TableDigest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rows and digest of one table. With `verify`, `log_*` is what the fold of the raw log gave."""

    rows: int
    digest: str
    equal: bool | None = None
    log_rows: int | None = None
    log_digest: str | None = None


class Moment(Answer, frozen=True, kw_only=True):
    tables: dict[str, TableDigest]
    equal: bool | None = None
    events: int
    skipped: int
    """Events up to here that this version could not read."""
    seals: int | None = None
    """Seals checked against the raw log."""
    broken_seals: tuple[int, ...] = ()
    """Seqs of seals that do not fit the log before them: it was changed after it was sealed."""


class Rows(Answer, frozen=True, kw_only=True):
    columns: list[str]
    rows: list[list[Any]]
    next: int | None = None
    truncated: bool = False


def decide_seal(view: View, request: SealChain, ctx: Context) -> Decision:
    known = view.get(Seal, TENANT, CHAIN)
    if known is not None and known.upto >= request.upto:
        raise Refused(
            "sealed already",
            code="sealed",
            entity="the log",
            expected=f"a seal beyond #{known.upto}",
            found=f"#{request.upto}",
            hint="Seal again when the log has grown",
        )
    return [Emit(Seal, CHAIN, LogSealed(upto=request.upto, head=request.head), None, TENANT)]


def _reply(view: View, request: SealChain, events: Sequence[Event]) -> Sealed:
    return Sealed(seq=events[-1].seq, upto=request.upto)


FAMILY = Family(
    name="log",
    facts=(LogSealed,),
    state=Seal,
    evolve=evolve,
    operations=(
        Operation("log.seal", SealChain, Sealed, decide_seal, _reply, internal=True),
        Operation("log.list", List, LogPage, authority="auditor"),
        Operation("log.show", Show, EventDetail, authority="auditor"),
        Operation("replay.tables", Tables, Moment, authority="auditor"),
        Operation("replay.table", Table, Rows, authority="auditor"),
        Operation("replay.sql", Sql, Rows, authority="auditor"),
    ),
)
