"""What agents may ask about tasks, and the replies. The rules are in `bus.domain.task`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from bus.model import Answer, Command, Instant, Key, Label, LeaseS, Name, PageQuery, Position, Query, Reply, Seq

Title = Annotated[str, Meta(max_length=500, description="one line that says what is to be done")]
Body = Annotated[str, Meta(max_length=200_000, description="everything else there is to know")]
Priority = Annotated[int, Meta(ge=0, le=9, description="0 to 9; 9 comes first")]
Labels = Annotated[tuple[Label, ...], Meta(max_length=64, description="labels")]
Class = Annotated[str, Meta(max_length=100, description="kind of work")]
Skills = Annotated[
    tuple[Label, ...], Meta(max_length=64, description="what who takes it by `next` has to be able to do")
]
Due = Annotated[Instant, Meta(description="when it should be done, e.g. 2030-01-31T12:00:00Z")]
DueIn = Annotated[int, Meta(ge=1, le=100 * 365 * 86_400, description="the same, as seconds from now")]
Reason = Annotated[str, Meta(max_length=20_000, description="why")]
TaskId = Annotated[Key, Meta(description="the task's id")]
Refs = Annotated[tuple[Seq, ...], Meta(max_length=100, description="seqs of events that belong to it")]
Notes = Annotated[str, Meta(max_length=200_000, description="what the next holder should know")]
TaskState = Literal["open", "blocked", "claimed", "done", "failed", "cancelled"]


class Open(Command, frozen=True, kw_only=True):
    """Open a task. A message becomes one task, named after it (`m-17`): who asks again gets that one."""

    title: Title = ""
    task: Annotated[Key | None, Meta(description="its id (default: a new one)")] = None
    body: Body = ""
    priority: Priority = 0
    labels: Labels = ()
    needs: Annotated[tuple[Key, ...], Meta(max_length=100, description="tasks that must be done first")] = ()
    class_: Class = field(default="", name="class")
    from_message: Annotated[Seq | None, Meta(description="the channel message this task comes from")] = None
    skills: Skills = ()
    due: Due | None = None
    due_in_s: DueIn | None = None
    retries: Annotated[int, Meta(ge=0, le=1000, description="so many failed attempts are followed by another")] = 0
    retry_delay_s: Annotated[int, Meta(ge=0, le=7 * 86_400, description="how long it rests after a failed attempt")] = 0


class Amend(Command, frozen=True, kw_only=True):
    """Change what describes a task; what is not given stays."""

    task: TaskId
    title: Title | None = None
    body: Body | None = None
    priority: Priority | None = None
    labels: Labels | None = None
    needs: Annotated[tuple[Key, ...] | None, Meta(description="tasks that must be done first (replaces them)")] = None
    class_: Class | None = field(default=None, name="class")
    skills: Skills | None = None
    due: Due | None = None
    due_in_s: DueIn | None = None


class Claim(Command, frozen=True, kw_only=True):
    """Take a task. Exactly one agent holds it until the lease ends; the reply's fence protects what you write."""

    task: TaskId
    lease_s: Annotated[LeaseS | None, Meta(description="seconds until the lease ends unless renewed")] = None


Wanted = Annotated[tuple[Label, ...], Meta(max_length=64, description="only tasks with all of these")]
Classes = Annotated[tuple[Label, ...], Meta(max_length=64, description="only tasks of one of these classes")]
Able = Annotated[
    tuple[Label, ...],
    Meta(max_length=64, description="what you can do: a task that requires anything else is left to others"),
]


class Next(Command, frozen=True, kw_only=True):
    """Take the best task that is waiting and not blocked: highest priority first, then the oldest."""

    lease_s: Annotated[LeaseS | None, Meta(description="seconds until the lease ends unless renewed")] = None
    labels: Wanted = ()
    classes: Classes = ()
    skills: Able = ()


class Renew(Command, frozen=True, kw_only=True):
    """Make the lease of a task you hold end later."""

    task: TaskId
    lease_s: Annotated[LeaseS | None, Meta(description="seconds from now (default: as claimed)")] = None


class Release(Command, frozen=True, kw_only=True):
    """Give a task you hold back."""

    task: TaskId
    reason: Reason = ""


class Complete(Command, frozen=True, kw_only=True):
    """Finish a task you hold."""

    task: TaskId
    result: Annotated[str, Meta(max_length=200_000, description="what came of it")] = ""
    refs: Refs = ()


class Fail(Command, frozen=True, kw_only=True):
    """Say that a task you hold could not be done. While it has retries left, it is tried again."""

    task: TaskId
    reason: Reason = ""
    retry: Annotated[
        bool | None, Meta(description="whether somebody should try again (default: while the task has retries left)")
    ] = None


class Cancel(Command, frozen=True, kw_only=True):
    """Withdraw a task that is no longer wanted."""

    task: TaskId
    reason: Reason = ""


class Reopen(Command, frozen=True, kw_only=True):
    """Open an ended task again."""

    task: TaskId
    reason: Reason = ""


class Handoff(Command, frozen=True, kw_only=True):
    """Pass a task you hold to another agent: as an offer it has to accept, or directly."""

    task: TaskId
    to: Annotated[Name, Meta(description="who gets it")]
    notes: Notes = ""
    refs: Refs = ()
    direct: Annotated[bool, Meta(description="pass it at once, without asking")] = False
    lease_s: Annotated[LeaseS | None, Meta(description="the new lease in seconds (default: as claimed)")] = None


class Accept(Command, frozen=True, kw_only=True):
    """Take over a task that was offered to you."""

    task: TaskId
    lease_s: Annotated[LeaseS | None, Meta(description="the new lease in seconds (default: as claimed)")] = None


class Decline(Command, frozen=True, kw_only=True):
    """Turn down a task that was offered to you."""

    task: TaskId
    reason: Reason = ""


class Show(Query, frozen=True, kw_only=True):
    """Show one task with its history."""

    task: TaskId


class List(PageQuery, frozen=True, kw_only=True):
    """List tasks, in the order in which they were opened."""

    state: Annotated[TaskState | None, Meta(description="only in this state")] = None
    owner: Annotated[Name | None, Meta(description="only held by this agent")] = None
    opener: Annotated[Name | None, Meta(description="only opened by this agent")] = None
    label: Annotated[Label | None, Meta(description="only with this label")] = None
    class_: Annotated[Label | None, Meta(description="only of this class")] = field(default=None, name="class")
    overdue: Annotated[bool, Meta(description="only what is past its due date or the end of its lease")] = False


class Waiting(Query, frozen=True, kw_only=True):
    """List the tasks that `next` would take, the best first."""

    labels: Wanted = ()
    classes: Classes = ()
    skills: Able = ()
    limit: Annotated[int, Meta(ge=1, le=1000, description="at most so many")] = 20


class Board(PageQuery, frozen=True, kw_only=True):
    """Show the namespace's tasks by state, with counts; or, after a seq, those that have changed since."""

    limit: Annotated[int, Meta(ge=1, le=200, description="at most so many tasks a column, or changes")] = 20
    since: Annotated[
        Position | None, Meta(description="only what changed after this seq (the `next` of the last answer)")
    ] = None


class TaskReply(Reply, frozen=True, kw_only=True):
    task: str
    state: str
    retry_at: datetime | None = None
    """When a task that failed is tried again."""


class LeaseReply(Reply, frozen=True, kw_only=True):
    """A claim: write under `fence` until `expires`, which is `lease_s` from now unless that is beyond the cap."""

    task: str
    fence: int
    expires: datetime
    lease_s: int
    until: datetime | None = None
    """Of a new claim: no renewal makes it end later."""
    title: str
    body: str
    labels: tuple[str, ...]
    priority: int


class TaskRow(Struct, frozen=True, kw_only=True):
    """A task as it was. `seq` is that of its last change, `opened` that of its first event."""

    task: str
    seq: int
    opened: int
    title: str
    body: str
    priority: int
    class_: str = field(name="class")
    state: TaskState
    opener: str
    owner: str | None
    fence: int | None
    expires: datetime | None
    offered_to: str | None
    attempts: int
    failures: int
    retries: int
    retry_at: datetime | None
    due: datetime | None
    from_message: int | None
    channel: str
    result: str
    reason: str
    notes: str
    labels: list[str]
    skills: list[str]
    needs: list[str]
    refs: list[int]


class Happening(Struct, frozen=True, kw_only=True):
    """One event of a history."""

    seq: int
    time: datetime
    type: str
    agent: str
    data: Any


class TaskDetail(Answer, frozen=True, kw_only=True):
    task: TaskRow
    history: list[Happening]


class Tasks(Answer, frozen=True, kw_only=True):
    tasks: list[TaskRow]
    next: int | None = None


class TaskBoard(Answer, frozen=True, kw_only=True):
    """A whole board; or, when asked for what changed after a seq, those tasks as they are now. Go on from `next`."""

    counts: dict[str, int]
    columns: dict[str, list[TaskRow]]
    changed: list[TaskRow] | None = None
    next: int

    @property
    def news(self) -> Collection[Any]:
        """What whoever follows has not seen: a board is always new."""
        return self.counts if self.changed is None else self.changed
