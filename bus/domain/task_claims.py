"""What a claim of a task is worth: who holds it, until when, and what a write under its fence may do.

Rules: see `bus.domain.task`. A lease that is overdue counts as ended, whether or not its end has been written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from bus.domain import needs
from bus.domain.task import (
    ENDED,
    FREE,
    Task,
    TaskAmended,
    TaskExpired,
    TaskOffered,
    TaskRenewed,
    TaskRetried,
    is_ongoing,
)
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.model import Command, Context, Emit, View
from bus.subjects import SYSTEM


def find(view: View, namespace: str, key: str) -> Task:
    """The task of that id; NotFound when there is none."""
    task = view.get(Task, namespace, key)
    if task is None:
        raise NotFound(
            "no such task",
            entity=f"task {key}",
            expected=f"a task of namespace {namespace}",
            found="none of that id",
            hint="`bus task list` shows them",
        )
    return task


def unmet(view: View, namespace: str, key: str) -> list[str]:
    """The tasks that `key` needs and that are not done."""
    wanted = sorted(needs.of(view, namespace, key))
    return [n for n in wanted if (task := view.get(Task, namespace, n)) is None or task.state != "done"]


def overdue(task: Task, now: datetime) -> bool:
    return task.state == "claimed" and task.expires is not None and task.expires <= now


def expire(task: Task, key: str, now: datetime) -> Sequence[Emit]:
    """The end of a lease that is overdue."""
    if not overdue(task, now):
        return []
    assert task.owner is not None
    assert task.fence is not None
    return [Emit(Task, key, TaskExpired(owner=task.owner, fence=task.fence), SYSTEM)]


def passed(task: Task, key: str, now: datetime) -> Sequence[Emit]:
    """What a deadline that has passed calls for: the end of the lease, or the next attempt."""
    if task.retry_at is not None and task.retry_at <= now:
        return [Emit(Task, key, TaskRetried(), SYSTEM)]
    return expire(task, key, now)


def met(view: View, ctx: Context, key: str) -> tuple[Task, list[Emit]]:
    """The task as this command meets it: what its passed deadline calls for comes first in the same batch."""
    task = find(view, ctx.namespace, key)
    emits = list(passed(task, key, ctx.now))
    return (replace(task, state="open", retry_at=None, **FREE), emits) if emits else (task, emits)


def may_manage(task: Task, key: str, ctx: Context) -> None:
    """Refuse those who neither opened nor hold the task, nor are an owner of the tenant."""
    if ctx.agent in (task.opener, task.owner) or "owner" in ctx.authority:
        return
    who = f"{task.opener}, who opened it" + (f", {task.owner}, who holds it" if task.owner else "")
    raise NotAllowed(
        "this task is not yours to change",
        entity=f"task {key}",
        expected=f"{who}, or an owner of the tenant",
        found=ctx.agent,
        hint=f"Ask {task.opener}",
    )


def illegal(task: Task, key: str, expected: str) -> Refused:
    if task.state == "claimed":
        assert task.expires is not None
        return Refused(
            f"held by {task.owner}",
            code="claimed",
            entity=f"task {key}",
            expected=expected,
            found=f"claimed until {stamp(task.expires)}",
            hint=f"Ask {task.owner} to hand it off, or wait until the lease ends; `bus next` takes another task",
            owner=task.owner,
            fence=task.fence,
            expires=task.expires.isoformat(),
        )
    found, hint = task.state, "`bus task reopen` opens it again" if task.state in ENDED else "`bus claim` takes it"
    if task.retry_at is not None:
        found += f", and tried again at {stamp(task.retry_at)}"
        hint = "Wait until then, or open it now: bus task reopen"
    return Refused(
        f"the task is {task.state}",
        code="state",
        entity=f"task {key}",
        expected=expected,
        found=found,
        hint=hint,
        state=task.state,
    )


def stamp(instant: datetime | None) -> str:
    """An instant as messages show it: UTC, to the second."""
    assert instant is not None
    return f"{instant.isoformat()[:19]}Z"  # A fifth of what a format takes, and most who race are told one.


def holding(view: View, ctx: Context, key: str) -> Task:
    """The task, if the one who asks holds it now; Refused otherwise, saying what became of it."""
    task = find(view, ctx.namespace, key)
    if task.state == "claimed" and task.owner == ctx.agent and not overdue(task, ctx.now):
        return task
    raise Refused(
        "you do not hold this task",
        code="not_holder",
        entity=f"task {key}",
        expected=f"held by {ctx.agent}",
        found=_present(task, ctx),
        hint=_way_back(task),
        owner=task.owner,
        state=task.state,
    )


def _present(task: Task, ctx: Context) -> str:
    """Who holds the task, in words for somebody who does not."""
    if task.state != "claimed":
        return task.state
    if task.owner == ctx.agent and overdue(task, ctx.now):
        return f"a lease that ended at {stamp(task.expires)}"
    return f"held by {task.owner} under fence {task.fence}"


def _way_back(task: Task) -> str:
    return "Stop working on it" if not is_ongoing(task) else "Stop working on it, or claim it again when it is open"


def check_fence(view: View, request: Command, ctx: Context) -> list[Emit]:
    """Refuse a write under a stale fence; otherwise the renewal it brings once a third of the lease is gone."""
    key, fence = _parse_fence(request)
    task = find(view, ctx.namespace, key)
    if task.fence != fence or task.owner != ctx.agent or overdue(task, ctx.now):
        raise Refused(
            "the claim you write under no longer holds",
            code="stale_fence",
            entity=f"task {key}",
            expected=f"the fence of a claim {ctx.agent} holds",
            found=f"fence {fence}, and the task is {_present(task, ctx)}",
            hint=_way_back(task),
            owner=task.owner,
            state=task.state,
            fence=task.fence,
        )
    assert task.lease_s is not None
    assert task.expires is not None
    if task.expires - ctx.now > timedelta(seconds=task.lease_s * 2 / 3):
        return []
    return renewal(task, key, task.lease_s, ctx.now)


def _parse_fence(request: Command) -> tuple[str, int]:
    """The task and the seq that `request.fence` names."""
    if isinstance(request.fence, str):
        key, _, text = request.fence.partition(":")
        return key, int(text)
    assert request.fence is not None
    task: str | None = getattr(request, "task", None)
    if task is None:
        raise InvalidRequest(
            "a fence without its task",
            code="bad_fence",
            entity=f"fence {request.fence}",
            expected="TASK:SEQ",
            found=str(request.fence),
            hint=f"Write the task before it: --fence TASK:{request.fence}",
        )
    return task, request.fence


def renewal(task: Task, key: str, lease_s: int, now: datetime) -> list[Emit]:
    """The event that makes the lease end later, if that is later than it ends anyway."""
    assert task.until is not None
    assert task.expires is not None
    assert task.fence is not None
    expires = min(now + timedelta(seconds=lease_s), task.until)
    if expires <= task.expires:
        return []
    return [Emit(Task, key, TaskRenewed(fence=task.fence, expires=expires, lease_s=lease_s))]


def with_renewals(renewals: Sequence[Emit], decision: Sequence[Emit]) -> list[Emit]:
    """The renewals a write under a fence brings, before what was decided, unless that ends or replaces the lease."""
    ends = {e.entity for e in decision if e.state is Task and not isinstance(e.fact, TaskAmended | TaskOffered)}
    return [*(emit for emit in renewals if emit.entity not in ends), *decision]


def lease(ctx: Context, lease_s: int | None) -> dict[str, Any]:
    lease_s = min(lease_s or ctx.limits.lease_default_s, ctx.limits.lease_cap_s)
    until = ctx.now + timedelta(seconds=ctx.limits.lease_cap_s)
    return {
        "lease_s": lease_s,
        "expires": min(ctx.now + timedelta(seconds=lease_s), until),
        "until": until,
    }
