"""Journals: what agents write down for whoever goes on with the work, and the card that wakes one up.

Rules:
* An agent has one journal per namespace and writes in its own only. Everybody in the tenant can read all of them.
* An entry says at least one thing: what it is focused on, what is done, what was decided, or what comes next.
* The wake card is at most 2,048 bytes of text, the most important first; what it leaves out, it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from bus.domain import inbox
from bus.errors import InvalidRequest
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Name,
    Operation,
    PageQuery,
    Query,
    Reply,
    Seq,
    State,
    View,
)

CARD_BYTES = 2048
"""A wake card's text is at most so long, in UTF-8."""
Line = Annotated[str, Meta(min_length=1, max_length=1000)]


class JournalWritten(Fact, frozen=True, kw_only=True):
    """The author wrote down where it stands."""

    type: ClassVar[str] = "journal.written"
    focus: str = ""
    """What it is working on."""
    done: tuple[str, ...] = ()
    """What it has finished."""
    decisions: tuple[str, ...] = ()
    """What was decided, and holds from now on."""
    next_steps: tuple[str, ...] = ()
    """What is to be done next."""


class Journal(State, frozen=True, kw_only=True):
    """An agent's journal in a namespace: the seq of its last entry, and what that is focused on."""

    table: ClassVar[str] = "journal"
    last: int
    focus: str = ""


def evolve(journal: Journal | None, event: Event) -> Journal | None:
    """The journal after `event`."""
    fact = event.fact
    # Only its owner writes in it, whatever an administrator made.
    if not isinstance(fact, JournalWritten) or event.agent != event.entity:
        return journal
    return Journal(last=event.seq, focus=fact.focus)


# --- requests -----------------------------------------------------------------------------------------------------


class Write(Command, frozen=True, kw_only=True):
    """Write down where you stand, for yourself and for whoever takes over."""

    focus: Annotated[str, Meta(max_length=1000, description="what you are working on")] = ""
    done: Annotated[tuple[Line, ...], Meta(max_length=50, description="what you have finished")] = ()
    decisions: Annotated[tuple[Line, ...], Meta(max_length=50, description="what was decided")] = ()
    next_steps: Annotated[tuple[Line, ...], Meta(max_length=50, description="what is to be done next")] = ()


class Read(PageQuery, frozen=True, kw_only=True):
    """Read journals: the newest entries, or those after `since`."""

    agent: Annotated[Name | None, Meta(description="only what this agent wrote")] = None
    before: Annotated[Seq | None, Meta(description="only entries before this seq")] = None


class Wake(Query, frozen=True, kw_only=True):
    """Show what a starting agent must know, on one small card: what it holds, what waits for it, where it was."""


class Written(Reply, frozen=True, kw_only=True):
    """An entry was written; its seq names it."""


class Entry(Struct, frozen=True, kw_only=True):
    """An entry of a journal."""

    seq: int
    time: datetime
    agent: str
    focus: str
    done: list[str]
    decisions: list[str]
    next_steps: list[str]


class Entries(Answer, frozen=True, kw_only=True):
    """Entries, oldest first. `next` is the `since` that continues where this page ends."""

    entries: list[Entry]
    next: int | None = None


class Claimed(Struct, frozen=True, kw_only=True):
    """A task that the agent holds."""

    namespace: str
    task: str
    title: str
    fence: int
    expires: datetime


class Instruction(Struct, frozen=True, kw_only=True):
    """A directive that the agent is to acknowledge or to complete."""

    namespace: str
    directive: str
    giver: str
    state: str
    overdue: bool
    priority: int
    due: datetime | None
    text: str


class Reminded(Struct, frozen=True, kw_only=True):
    """A reminder that has fired and is unread (`fired`), or that is going to fire."""

    namespace: str
    reminder: str
    setter: str
    at: datetime | None
    fired: int | None
    text: str


class Pin(Struct, frozen=True, kw_only=True):
    """A pinned message of a channel that the agent has joined."""

    namespace: str
    channel: str
    seq: int
    agent: str
    text: str


class WakeCard(Answer, frozen=True, kw_only=True):
    """What a starting agent must know. The lists hold the most important of each kind, `counts` how many there are in
    all; long texts are cut. `namespace` is the one that was asked in. `text` is the card for people and models, at most
    2,048 bytes."""

    agent: str
    namespace: str
    counts: dict[str, int]
    claims: list[Claimed]
    oldest: inbox.Item | None
    """The oldest item of the inbox that is unread."""
    directives: list[Instruction]
    reminders: list[Reminded]
    journal: Entry | None
    """Its last entry."""
    pins: list[Pin]
    text: str


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_write(view: View, request: Write, ctx: Context) -> Decision:
    lines = [request.focus, *request.done, *request.decisions, *request.next_steps]
    if not any(line.strip() for line in lines):
        raise InvalidRequest(
            "an entry says something",
            code="no_text",
            entity=f"journal {ctx.agent}",
            expected="a focus, something done, a decision or a next step",
            found="none of them",
            hint='For example: bus journal write --focus "the parser" --next-step "test it with odd input"',
        )
    written = JournalWritten(
        focus=request.focus, done=request.done, decisions=request.decisions, next_steps=request.next_steps
    )
    return [Emit(Journal, ctx.agent, written)]


def _reply(view: View, request: Write, events: Sequence[Event]) -> Written:
    return Written(seq=events[-1].seq)


FAMILY = Family(
    name="journal",
    facts=(JournalWritten,),
    state=Journal,
    evolve=evolve,
    operations=(
        Operation("journal.write", Write, Written, decide_write, _reply),
        Operation("journal.read", Read, Entries),
        Operation("journal.wake", Wake, WakeCard),
    ),
)
