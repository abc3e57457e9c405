"""Inboxes: everything addressed to one agent, and how far it has read.

Rules:
* The inbox itself is not stored: it follows from mentions, dms, replies, joined channels, directives, reminders and
  what an agent is told of its tasks and directives. The family records only how far it was shown and how far it was
  acknowledged.
* `peek` shows the oldest unread first and is a query; what it showed is recorded as an exposure (`inbox.shown`).
* `ack` is separate and refuses to go beyond what was shown, so nothing is ever skipped. A reading that began further
  on is recorded, but does not count as having shown what it left out.
* `digest` says how much waits and where, for an agent that was away. It shows nothing of it, so nothing can be
  acknowledged for it: `peek` is what pages through an inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta, Struct
from msgspec.structs import replace

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

MANY = 200
"""When so many remain behind a page, a digest helps more than paging on."""
MANY_HINT = "`bus inbox digest` counts what waits by channel and reason"


class InboxShown(Fact, frozen=True, kw_only=True):
    """These events were put in front of the author."""

    type: ClassVar[str] = "inbox.shown"
    upto: Position
    """Everything addressed to the author up to here has been shown by now."""
    seqs: tuple[Seq, ...] = ()
    """What had not been shown before."""


class InboxAcked(Fact, frozen=True, kw_only=True):
    """The author has dealt with everything up to here."""

    type: ClassVar[str] = "inbox.acked"
    upto: Position
    """The last event that counts as read."""


class Inbox(State, frozen=True, kw_only=True):
    """How far an agent has been shown its inbox, and how far it has acknowledged it."""

    table: ClassVar[str] = "inbox"
    shown: int = 0
    acked: int = 0


def evolve(inbox: Inbox | None, event: Event) -> Inbox | None:
    """The marks after `event`; they never go back."""
    before = inbox or Inbox()
    match event.fact:
        case InboxShown(upto=upto) if upto > before.shown:
            return replace(before, shown=upto)
        case InboxAcked(upto=upto) if before.acked < upto <= before.shown:
            return replace(before, acked=upto)
        case _:
            return inbox


class Peek(PageQuery, frozen=True, kw_only=True):
    """Show the oldest unread items addressed to you, without marking them as read."""


class Digest(Query, frozen=True, kw_only=True):
    """Count what is unread, by conversation and by reason, without showing it."""

    since: Annotated[Position | None, Meta(description="only what came after this seq")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="at most so many piles, the largest first")] = 100


class Show(Command, frozen=True, kw_only=True):
    """Record what an inbox reading showed (asked by the daemon)."""

    upto: Position
    seqs: tuple[Seq, ...]
    start: Position = 0
    """The reading began after this seq."""


class Ack(Command, frozen=True, kw_only=True):
    """Mark everything up to a seq as read; not beyond what was shown."""

    upto: Annotated[Seq, Meta(description="the `upto` of the last peek, or less")]


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something addressed to an agent. `reasons`: dm, mention, reply, channel, directive, reminder, notice."""

    seq: int
    time: datetime
    reasons: list[str]
    agent: str
    namespace: str
    text: str
    channel: str | None = None
    task: str | None = None
    reply_to: int | None = None


class Items(Answer, frozen=True, kw_only=True):
    """Unread items, oldest first. Acknowledge with `upto`; `remaining` more wait behind them."""

    items: list[Item]
    upto: int
    remaining: int
    hint: str | None = None
    """What helps when much remains."""


class Pile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What waits in one place: a channel, a dm with an agent, or, with neither, what the bus says of a namespace.
    `reasons` counts events by reason; an event may have several. Reading on from `first` shows it in its place."""

    namespace: str
    channel: str | None = None
    dm: str | None = None
    unread: int
    reasons: dict[str, int]
    first: int
    last: int
    since: datetime
    """When the first of it was stored."""


class Counts(Answer, frozen=True, kw_only=True):
    """How much is unread in all, for which reasons, and where: the largest piles first."""

    unread: int
    reasons: dict[str, int]
    piles: list[Pile]


class Marks(Reply, frozen=True, kw_only=True):
    upto: int


def _entry(view: View, ctx: Context) -> tuple[Inbox, int]:
    entry = view.entry(Inbox, TENANT, ctx.agent)
    return (entry.state, entry.since) if entry is not None else (Inbox(), 0)


def decide_show(view: View, request: Show, ctx: Context) -> Decision:
    inbox, since = _entry(view, ctx)
    fresh = tuple(seq for seq in request.seqs if seq > inbox.shown)
    if not fresh:
        return Marks(seq=since, upto=inbox.shown)
    upto = inbox.shown if request.start > inbox.shown else min(request.upto, max(fresh))
    return [Emit(Inbox, ctx.agent, InboxShown(upto=upto, seqs=fresh), None, TENANT)]


def decide_ack(view: View, request: Ack, ctx: Context) -> Decision:
    inbox, since = _entry(view, ctx)
    if request.upto > inbox.shown:
        raise Refused(
            "the inbox has not been shown that far",
            code="not_shown",
            entity=f"inbox {ctx.agent}",
            expected=f"at most {inbox.shown}",
            found=str(request.upto),
            hint="Peek first and acknowledge its `upto`",
        )
    if request.upto <= inbox.acked:
        return Marks(seq=since, upto=inbox.acked)
    return [Emit(Inbox, ctx.agent, InboxAcked(upto=request.upto), None, TENANT)]


def _reply(view: View, request: Show | Ack, events: Sequence[Event]) -> Marks:
    fact = events[-1].fact
    assert isinstance(fact, InboxShown | InboxAcked)
    return Marks(seq=events[-1].seq, upto=fact.upto)


FAMILY = Family(
    name="inbox",
    facts=(InboxShown, InboxAcked),
    state=Inbox,
    evolve=evolve,
    operations=(
        Operation("inbox.peek", Peek, Items),
        Operation("inbox.digest", Digest, Counts),
        Operation("inbox.show", Show, Marks, decide_show, _reply, internal=True),
        Operation("inbox.ack", Ack, Marks, decide_ack, _reply, essential=True),
    ),
)
