"""Tasks: work that exactly one agent holds at a time, under a lease and a fence.

    open -> claimed -> done | failed        claimed -> open: released, expired, failed with retry
    open | claimed -> cancelled             done | failed | cancelled -> open: reopened
    failed -> open: retried, when the delay of its retry policy is over (until then it can also be cancelled)

Rules:
* A claim's seq is its fence. A write under another fence is refused, and says who holds the task now.
* A lease ends by an event: `task.expired`, written by `system` when it is overdue, or in the same batch as the command
  that meets it. Until then nothing can be written under its claim any more, and nobody else holds the task. Times are
  server times decided by the leader and stored in the facts; a fold never asks a clock.
* An event that makes no sense (a claim of what is held, a renewal under another fence, a result by somebody who does
  not hold the task) changes nothing.
* Renewing never extends a claim beyond its `until` (claim time + the cap of the configuration).
* A task is blocked while something it needs is not done (`bus.domain.needs`); blocked tasks cannot be claimed.
* A failed attempt is followed by another one until `retries` are used up; `failures` counts them, and reopening begins
  anew. Whether and when is decided with the failure and stands in `task.failed`; the end of a delay is an event.
* A message becomes at most one task: it is named after the message (`m-17`), so that whoever asks gets the same one.
* Here are the facts and the state that follows from them. What may be asked is in `bus.domain.task_requests`, what a
  claim is worth in `bus.domain.task_claims`, and what is decided in `bus.domain.task_opening` and `task_decisions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, UnsetType, field
from msgspec.structs import replace

from bus.events import Event, Fact
from bus.model import Instant, Seq, State

Seconds = Annotated[int, Meta(ge=1, le=1 << 32)]
Delay = Annotated[int, Meta(ge=0, le=1 << 32)]
Count = Annotated[int, Meta(ge=-(1 << 31), le=1 << 31)]

ENDED = ("done", "failed", "cancelled")


class TaskOpened(Fact, frozen=True, kw_only=True):
    """A task came into being."""

    type: ClassVar[str] = "task.opened"
    title: str
    body: str = ""
    priority: Count = 0
    labels: tuple[str, ...] = ()
    class_: str = field(default="", name="class")
    from_message: Seq | None = None
    channel: str = ""
    """The channel of that message."""
    skills: tuple[str, ...] = ()
    """What who takes it by `next` has to be able to do."""
    due: Instant | None = None
    """When it should be done."""
    retries: Count = 0
    """So many failed attempts are followed by another one."""
    retry_delay_s: Delay = 0
    """How long it rests after a failed attempt."""


class TaskAmended(Fact, frozen=True, kw_only=True):
    """Some of what describes the task changed; a field that is absent stays as it was."""

    type: ClassVar[str] = "task.amended"
    title: str | UnsetType = UNSET
    body: str | UnsetType = UNSET
    priority: Count | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET
    class_: str | UnsetType = field(default=UNSET, name="class")
    skills: tuple[str, ...] | UnsetType = UNSET
    due: Instant | UnsetType = UNSET


class TaskClaimed(Fact, frozen=True, kw_only=True):
    """The author holds the task until `expires`, renewable up to `until`. The fence is this event's seq."""

    type: ClassVar[str] = "task.claimed"
    lease_s: Seconds
    expires: Instant
    """End of the lease, in server time."""
    until: Instant
    """No renewal makes the lease end later than this."""


class TaskRenewed(Fact, frozen=True, kw_only=True):
    """The lease of the claim `fence` ends later."""

    type: ClassVar[str] = "task.renewed"
    fence: Seq
    """Seq of the claim."""
    expires: Instant
    """The new end of its lease, in server time."""
    lease_s: Seconds


class TaskReleased(Fact, frozen=True, kw_only=True):
    """The holder gave the task back."""

    type: ClassVar[str] = "task.released"
    reason: str = ""


class TaskExpired(Fact, frozen=True, kw_only=True):
    """The lease ended: `owner` holds it no more, and its fence is stale."""

    type: ClassVar[str] = "task.expired"
    owner: str
    """Who held it."""
    fence: Seq
    """Seq of the claim that ended."""


class TaskCompleted(Fact, frozen=True, kw_only=True):
    """The holder finished the task."""

    type: ClassVar[str] = "task.completed"
    result: str = ""
    refs: tuple[Seq, ...] = ()


class TaskFailed(Fact, frozen=True, kw_only=True):
    """The holder could not do it; with `retry` somebody may try again."""

    type: ClassVar[str] = "task.failed"
    reason: str = ""
    retry: bool = False
    retry_at: Instant | None = None
    """It stays failed until then, in server time; without it, it is open at once."""


class TaskRetried(Fact, frozen=True, kw_only=True):
    """The delay after a failed attempt is over: the task is open again."""

    type: ClassVar[str] = "task.retried"


class TaskCancelled(Fact, frozen=True, kw_only=True):
    """The task is no longer wanted."""

    type: ClassVar[str] = "task.cancelled"
    reason: str = ""
    owner: str | None = None
    """Who held it."""


class TaskReopened(Fact, frozen=True, kw_only=True):
    """An ended task is open again."""

    type: ClassVar[str] = "task.reopened"
    reason: str = ""


class TaskOffered(Fact, frozen=True, kw_only=True):
    """The holder offers the task to another agent, and keeps it until that one accepts."""

    type: ClassVar[str] = "task.offered"
    to: str
    notes: str = ""
    refs: tuple[Seq, ...] = ()


class TaskDeclined(Fact, frozen=True, kw_only=True):
    """The offer was turned down."""

    type: ClassVar[str] = "task.declined"
    reason: str = ""


class TaskHandedOff(Fact, frozen=True, kw_only=True):
    """The task passed to `to` in one step; the fence is this event's seq."""

    type: ClassVar[str] = "task.handed_off"
    frm: str = field(name="from")
    """Who held it before."""
    to: str
    lease_s: Seconds
    expires: Instant
    """End of the new lease, in server time."""
    until: Instant
    """No renewal makes the lease end later than this."""
    notes: str = ""
    refs: tuple[Seq, ...] = ()


class Task(State, frozen=True, kw_only=True):
    """A task now. `opened` and `fence` are seqs."""

    table: ClassVar[str] = "task"
    title: str
    opener: str
    opened: int
    body: str = ""
    priority: int = 0
    class_: str = ""
    state: str = "open"
    owner: str | None = None
    fence: int | None = None
    lease_s: int | None = None
    expires: datetime | None = None
    until: datetime | None = None
    offered_to: str | None = None
    notes: str = ""
    attempts: int = 0
    failures: int = 0
    retries: int = 0
    retry_delay_s: int = 0
    retry_at: datetime | None = None
    due: datetime | None = None
    result: str = ""
    reason: str = ""
    from_message: int | None = None
    channel: str = ""
    labels: frozenset[str] = frozenset()
    skills: frozenset[str] = frozenset()
    refs: frozenset[int] = frozenset()


DESCRIBING = ("title", "body", "priority", "labels", "class_", "skills", "due")
"""What of a task can be amended."""
FREE: dict[str, Any] = {
    "owner": None,
    "fence": None,
    "lease_s": None,
    "expires": None,
    "until": None,
    "offered_to": None,
}
"""What changes in a task when nobody holds it any more."""


def evolve(task: Task | None, event: Event) -> Task | None:
    """The task after `event`."""
    fact = event.fact
    if task is None:
        return _opened(fact, event) if isinstance(fact, TaskOpened) else None
    if isinstance(fact, TaskAmended):
        given = {name: value for name, value in _amended(fact).items() if value != getattr(task, name)}
        return replace(task, **given) if given else task
    if task.state == "claimed":
        return _of_claimed(task, event)
    match fact:
        case TaskClaimed() if task.state == "open":
            return _held(task, event.agent, event.seq, fact)
        case TaskCancelled() if is_ongoing(task):
            return replace(task, state="cancelled", reason=fact.reason, retry_at=None)
        case TaskRetried() if task.retry_at is not None:
            return replace(task, state="open", retry_at=None)
        case TaskReopened() if task.state in ENDED:
            return replace(task, state="open", reason=fact.reason, result="", failures=0, retry_at=None)
        case _:
            return task


def is_ongoing(task: Task) -> bool:
    """Whether something is still to come: it has not ended, or it will be tried again."""
    return task.state not in ENDED or task.retry_at is not None


def _of_claimed(task: Task, event: Event) -> Task:
    """A claimed task after `event`. What only the holder may write counts only from the holder."""
    fact = event.fact
    holder = event.agent == task.owner
    match fact:
        case TaskRenewed() if holder and fact.fence == task.fence:
            same = (fact.expires, fact.lease_s) == (task.expires, task.lease_s)
            return task if same else replace(task, expires=fact.expires, lease_s=fact.lease_s)
        case TaskCompleted() if holder:
            return replace(task, state="done", result=fact.result, refs=task.refs | set(fact.refs), **FREE)
        case TaskReleased() if holder:
            return replace(task, state="open", reason=fact.reason, **FREE)
        case TaskFailed() if holder:
            return _failed(task, fact)
        case TaskExpired() if fact.fence == task.fence:
            return replace(task, state="open", **FREE)
        case TaskCancelled():
            return replace(task, state="cancelled", reason=fact.reason, **FREE)
        case TaskOffered() if holder:
            refs = task.refs | set(fact.refs)
            same = (fact.to, fact.notes, refs) == (task.offered_to, task.notes, task.refs)
            return task if same else replace(task, offered_to=fact.to, notes=fact.notes, refs=refs)
        case TaskDeclined() if event.agent == task.offered_to:
            return replace(task, offered_to=None, reason=fact.reason)
        case TaskHandedOff() if fact.frm == task.owner:
            return replace(_held(task, fact.to, event.seq, fact), notes=fact.notes, refs=task.refs | set(fact.refs))
        case _:
            return task


def _failed(task: Task, fact: TaskFailed) -> Task:
    rests_until = fact.retry_at if fact.retry else None
    state = "open" if fact.retry and rests_until is None else "failed"
    failures = task.failures + 1
    return replace(task, state=state, reason=fact.reason, failures=failures, retry_at=rests_until, **FREE)


def _opened(fact: TaskOpened, event: Event) -> Task:
    return Task(
        title=fact.title,
        opener=event.agent,
        opened=event.seq,
        body=fact.body,
        priority=fact.priority,
        class_=fact.class_,
        from_message=fact.from_message,
        channel=fact.channel,
        retries=fact.retries,
        retry_delay_s=fact.retry_delay_s,
        due=fact.due,
        labels=frozenset(fact.labels),
        skills=frozenset(fact.skills),
    )


def _held(task: Task, owner: str, fence: int, lease: TaskClaimed | TaskHandedOff) -> Task:
    return replace(
        task,
        state="claimed",
        owner=owner,
        fence=fence,
        lease_s=lease.lease_s,
        expires=lease.expires,
        until=lease.until,
        offered_to=None,
        attempts=task.attempts + 1,
    )


def _amended(fact: TaskAmended) -> dict[str, Any]:
    values = {name: getattr(fact, name) for name in DESCRIBING}
    given = {name: value for name, value in values.items() if value is not UNSET}
    return given | {name: frozenset(given[name]) for name in ("labels", "skills") if name in given}
