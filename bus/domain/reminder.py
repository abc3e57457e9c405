"""Reminders: a text that reaches an agent's inbox at a set time, once, or again and again.

    waiting -> done: fired for the last time        waiting -> cancelled

Rules:
* A reminder fires by an event of `system`, `reminder.fired`, which names the time it was due at: a second one for the
  same time changes nothing. What fell due while nothing ran fires when a daemon leads again, as soon as it can.
* One that comes again and has missed several times fires once, and goes on with the next time after now.
* Times are server times decided by the leader and stored in the facts (see `bus.domain.recurrence`).
* Whoever set it, whom it reminds, and an owner may cancel it. Everybody in the tenant can see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.domain import agent, recurrence
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Instant,
    Key,
    Name,
    Operation,
    PageQuery,
    Reply,
    State,
    View,
)
from bus.subjects import SYSTEM

ReminderState = Literal["waiting", "done", "cancelled"]
ReminderId = Annotated[Key, Meta(description="the reminder's id")]


class ReminderSet(Fact, frozen=True, kw_only=True):
    """A reminder was set."""

    type: ClassVar[str] = "reminder.set"
    to: str
    """Whom it reminds."""
    text: str
    at: Instant
    """When it fires first, in server time."""
    every: str = ""
    """A duration or a cron expression, when it comes again."""
    timezone: str = ""
    """The time zone of the cron expression (default: UTC)."""


class ReminderFired(Fact, frozen=True, kw_only=True):
    """A reminder was due and has reached the inbox."""

    type: ClassVar[str] = "reminder.fired"
    to: str
    """Whom it reminds."""
    text: str
    at: Instant
    """When it was due; later events show what it waited for a daemon."""
    next: Instant | None = None
    """When it fires again."""


class ReminderCancelled(Fact, frozen=True, kw_only=True):
    """A reminder fires no more."""

    type: ClassVar[str] = "reminder.cancelled"
    reason: str = ""


class Reminder(State, frozen=True, kw_only=True):
    """A reminder now: it fires at `due` for `agent`. `fired` is the seq of the event by which it fired last."""

    table: ClassVar[str] = "reminder"
    setter: str
    agent: str
    text: str
    state: str = "waiting"
    due: datetime | None = None
    every: str = ""
    timezone: str = ""
    fired: int | None = None


def evolve(reminder: Reminder | None, event: Event) -> Reminder | None:
    """The reminder after `event`."""
    fact = event.fact
    if reminder is None:
        if not isinstance(fact, ReminderSet):
            return None
        same = {name: getattr(fact, name) for name in ("text", "every", "timezone")}
        return Reminder(setter=event.agent, agent=fact.to, due=fact.at, **same)
    match fact:
        case ReminderFired() if reminder.state == "waiting" and fact.at == reminder.due:
            state = "done" if fact.next is None else "waiting"
            return replace(reminder, state=state, due=fact.next, fired=event.seq)
        case ReminderCancelled() if reminder.state == "waiting":
            return replace(reminder, state="cancelled", due=None)
        case _:
            return reminder


# --- requests -----------------------------------------------------------------------------------------------------


class Set(Command, frozen=True, kw_only=True):
    """Be reminded at a time, in a while, or every so often: once each time in the inbox, also after downtime."""

    text: Annotated[str, Meta(min_length=1, max_length=2000, description="what to be reminded of")]
    to: Annotated[Name | None, Meta(description="whom to remind (default: the one who asks)")] = None
    at: Annotated[Instant | None, Meta(description="when, as an ISO instant such as 2030-01-31T12:00:00Z")] = None
    in_s: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 40)] | None, Meta(description="seconds from now until it fires")
    ] = None
    every: Annotated[
        Annotated[str, Meta(min_length=1, max_length=recurrence.LONGEST)] | None,
        Meta(description='a duration of at least a minute, or a cron expression such as "0 9 * * 1-5"'),
    ] = None
    timezone: Annotated[
        str, Meta(max_length=100, description="time zone of a cron expression, such as Europe/Berlin (default: UTC)")
    ] = ""
    reminder: Annotated[Key | None, Meta(description="its id (default: a new one)")] = None


class Cancel(Command, frozen=True, kw_only=True):
    """Cancel a reminder that has not fired yet, or that would fire again."""

    reminder: ReminderId
    reason: Annotated[str, Meta(max_length=2000, description="why")] = ""


class List(PageQuery, frozen=True, kw_only=True):
    """List reminders, in the order in which they were set."""

    state: Annotated[ReminderState | None, Meta(description="only in this state")] = None
    to: Annotated[Name | None, Meta(description="only those that remind this agent")] = None
    setter: Annotated[Name | None, Meta(description="only those that this agent has set")] = None


class ReminderReply(Reply, frozen=True, kw_only=True):
    """`at`: when it fires next; none when it does not."""

    reminder: str
    to: str
    at: datetime | None


class ReminderRow(Struct, frozen=True, kw_only=True):
    """A reminder as it was. `seq` is that of its last change, `set` that of its first event, `fired` that of the last
    event that put it into the inbox."""

    reminder: str
    seq: int
    set: int
    to: str
    setter: str
    state: ReminderState
    at: datetime | None
    every: str
    timezone: str
    fired: int | None
    text: str


class Reminders(Answer, frozen=True, kw_only=True):
    reminders: list[ReminderRow]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_set(view: View, request: Set, ctx: Context) -> Decision:
    key = request.reminder or ctx.ids.short("r")
    entity = f"reminder {key}"
    if view.get(Reminder, ctx.namespace, key) is not None:
        raise Refused(
            "the reminder exists already",
            code="exists",
            entity=entity,
            expected="an id that is free",
            found="a reminder of that id",
            hint="Choose another id, or leave it out",
        )
    if not request.text.strip():
        raise InvalidRequest(
            "a reminder needs a text",
            code="no_text",
            entity=entity,
            expected="what to be reminded of",
            found="an empty text",
            hint='For example: bus remind "look at the build" --in 20m',
        )
    to = request.to or ctx.agent
    agent.find_active(view, to)
    at = _first(request, ctx, entity)
    fact = ReminderSet(to=to, text=request.text, at=at, every=(request.every or "").strip(), timezone=request.timezone)
    return [Emit(Reminder, key, fact)]


def _first(request: Set, ctx: Context, entity: str) -> datetime:
    """When the reminder fires first."""
    given = [name for name in ("at", "in_s", "every") if getattr(request, name) is not None]
    if len(given) != 1 or (request.timezone and request.every is None):
        raise InvalidRequest(
            "it is not clear when to remind",
            code="when",
            entity=entity,
            expected="exactly one of at, in_s and every, and a time zone with every only",
            found=" and ".join([*given, *(["timezone"] if request.timezone else [])]) or "none of them",
            hint="For example: --in 20m, --at 2030-01-31T12:00:00Z, or --every 1d",
        )
    if request.every is not None:
        return recurrence.first(request.every, request.timezone, ctx, entity)
    if request.at is not None:
        return recurrence.reachable(request.at, ctx, entity)
    assert request.in_s is not None
    return recurrence.ahead(request.in_s, ctx, entity)


def decide_cancel(view: View, request: Cancel, ctx: Context) -> Decision:
    entry = view.entry(Reminder, ctx.namespace, request.reminder)
    if entry is None:
        raise NotFound(
            "no such reminder",
            entity=f"reminder {request.reminder}",
            expected=f"a reminder of namespace {ctx.namespace}",
            found="none of that id",
            hint="`bus reminder list` shows them",
        )
    reminder: Reminder = entry.state
    if ctx.agent not in (reminder.setter, reminder.agent) and "owner" not in ctx.authority:
        raise NotAllowed(
            "this reminder is not yours to cancel",
            entity=f"reminder {request.reminder}",
            expected=f"{reminder.setter}, who set it, {reminder.agent}, whom it reminds, or an owner of the tenant",
            found=ctx.agent,
            hint=f"Ask {reminder.setter}",
        )
    if reminder.state == "done":
        raise Refused(
            "the reminder has fired",
            code="state",
            entity=f"reminder {request.reminder}",
            expected="one that waits",
            found="done",
            hint="`bus inbox` shows it",
            state=reminder.state,
        )
    if reminder.state == "cancelled":
        return ReminderReply(seq=entry.since, reminder=request.reminder, to=reminder.agent, at=None)
    return [Emit(Reminder, request.reminder, ReminderCancelled(reason=request.reason))]


def fire(reminder: Reminder, key: str, now: datetime) -> Sequence[Emit]:
    """What is due goes to the inbox, once, however many times were missed."""
    due = reminder.due
    if due is None or due > now:
        return []
    again = recurrence.following(reminder.every, reminder.timezone, due, now) if reminder.every else None
    fired = ReminderFired(to=reminder.agent, text=reminder.text, at=due, next=again)
    return [Emit(Reminder, key, fired, SYSTEM)]


def _reply(view: View, request: Set | Cancel, events: Sequence[Event]) -> ReminderReply:
    event = events[-1]
    reminder = view.get(Reminder, event.namespace, event.entity)
    assert reminder is not None
    at = event.fact.at if isinstance(event.fact, ReminderSet) else None
    return ReminderReply(seq=event.seq, reminder=event.entity, to=reminder.agent, at=at)


FAMILY = Family(
    name="reminder",
    facts=(ReminderSet, ReminderFired, ReminderCancelled),
    state=Reminder,
    evolve=evolve,
    deadline=lambda reminder: reminder.due,
    overdue=fire,
    operations=(
        Operation("reminder.set", Set, ReminderReply, decide_set, _reply),
        Operation("reminder.cancel", Cancel, ReminderReply, decide_cancel, _reply, essential=True),
        Operation("reminder.list", List, Reminders),
    ),
)
