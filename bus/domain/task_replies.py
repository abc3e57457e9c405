"""What commands on tasks are replied, made from the events they led to and from what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from bus.domain import task_requests as ask
from bus.domain.task import (
    Task,
    TaskCancelled,
    TaskClaimed,
    TaskCompleted,
    TaskDeclined,
    TaskExpired,
    TaskFailed,
    TaskHandedOff,
    TaskOffered,
    TaskOpened,
    TaskReleased,
    TaskRenewed,
    TaskReopened,
    TaskRetried,
)
from bus.domain.task_claims import find
from bus.events import Event, Fact
from bus.model import View


def _own(events: Sequence[Event], passing: type[Fact] | None = None) -> Event:
    """The event the reply is about: the last one on a task that is more than `passing`, or else the last one."""
    on_task = (
        e for e in reversed(events) if e.family == "task" and (passing is None or not isinstance(e.fact, passing))
    )
    return next(on_task, events[-1])


def task_reply(view: View, request: Any, events: Sequence[Event]) -> ask.TaskReply:
    """The reply to a command on a task: its state right after the command, not what it may have become since (but for
    an amendment, which leaves the state as it is)."""
    event = _own(events, TaskRenewed)
    fact = event.fact
    retry_at = None
    match fact:
        case TaskFailed():
            retry_at = fact.retry_at
            state = "open" if fact.retry and retry_at is None else "failed"
        case TaskOpened() | TaskReleased() | TaskReopened() | TaskExpired() | TaskRetried():
            state = "open"
        case TaskOffered() | TaskHandedOff() | TaskDeclined():
            state = "claimed"
        case TaskCompleted():
            state = "done"
        case TaskCancelled():
            state = "cancelled"
        case _:
            state = find(view, event.namespace, event.entity).state
    return ask.TaskReply(seq=events[-1].seq, task=event.entity, state=state, retry_at=retry_at)


def task_now(view: View, namespace: str, key: str) -> ask.TaskReply:
    """The reply to a command that changes nothing."""
    entry = view.entry(Task, namespace, key)
    assert entry is not None
    return ask.TaskReply(seq=entry.since, task=key, state=entry.state.state, retry_at=entry.state.retry_at)


def lease_reply(view: View, request: Any, events: Sequence[Event]) -> ask.LeaseReply:
    event = _own(events)
    fact = event.fact
    assert isinstance(fact, TaskClaimed | TaskRenewed | TaskHandedOff)
    task = find(view, event.namespace, event.entity)
    fence = fact.fence if isinstance(fact, TaskRenewed) else event.seq
    reply = lease_now(event.seq, event.entity, replace(task, fence=fence, lease_s=fact.lease_s), fact.expires)
    return reply if isinstance(fact, TaskRenewed) else replace(reply, until=fact.until)


def lease_now(seq: int, key: str, task: Task, expires: datetime) -> ask.LeaseReply:
    """The reply that shows a claim."""
    assert task.fence is not None
    assert task.lease_s is not None
    return ask.LeaseReply(
        seq=seq,
        task=key,
        fence=task.fence,
        expires=expires,
        lease_s=task.lease_s,
        title=task.title,
        body=task.body,
        labels=tuple(sorted(task.labels)),
        priority=task.priority,
    )
