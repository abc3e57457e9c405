"""What is decided about tasks, and the table of the family. The rules are in `bus.domain.task`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from heapq import merge

from bus.domain import agent
from bus.domain import task_requests as ask
from bus.domain.task import (
    ENDED,
    Task,
    TaskAmended,
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
    evolve,
    is_ongoing,
)
from bus.domain.task_claims import (
    find,
    holding,
    illegal,
    lease,
    may_manage,
    met,
    overdue,
    passed,
    renewal,
    stamp,
    unmet,
)
from bus.domain.task_opening import decide_amend, decide_open
from bus.domain.task_replies import lease_now, lease_reply, task_reply
from bus.errors import InvalidRequest, NotFound, Refused
from bus.model import Context, Decision, Emit, Family, Operation, View


def decide_claim(view: View, request: ask.Claim, ctx: Context) -> Decision:
    task, emits = met(view, ctx, request.task)
    if task.state != "open":
        raise illegal(task, request.task, "open")
    waits_for = unmet(view, ctx.namespace, request.task)
    if waits_for:
        raise Refused(
            "the task is blocked",
            code="blocked",
            entity=f"task {request.task}",
            expected="everything it needs is done",
            found=f"not done: {', '.join(waits_for[:10])}",
            hint="Do these first, or change what it needs: bus task amend",
            needs=waits_for,
        )
    return [*emits, Emit(Task, request.task, TaskClaimed(**lease(ctx, request.lease_s)))]


def decide_next(view: View, request: ask.Next, ctx: Context) -> Decision:
    labels, classes, skills = set(request.labels), set(request.classes), set(request.skills)
    for key in _waiting(view, ctx):
        task, emits = met(view, ctx, key)
        fits = labels <= task.labels and (not classes or task.class_ in classes) and task.skills <= skills
        if task.state != "open" or not fits:
            continue
        if not unmet(view, ctx.namespace, key):
            return [*emits, Emit(Task, key, TaskClaimed(**lease(ctx, request.lease_s)))]
    raise NotFound(
        "no task is waiting that fits",
        code="none_waiting",
        entity=f"namespace {ctx.namespace}",
        expected="an open task that is not blocked"
        + (" and fits" if labels or classes else "")
        + (f" and takes no more than {', '.join(sorted(skills))}" if skills else ""),
        found="none",
        hint="Ask again later; `bus task board` shows what is held or blocked",
    )


def _waiting(view: View, ctx: Context) -> Iterator[str]:
    """Tasks that are open, and those that a passed deadline opens, best first."""
    ended = []
    for state, namespace, key in view.due(ctx.now):
        if state is Task and namespace == ctx.namespace:
            task, _ = met(view, ctx, key)
            ended.append((_rank(task), key))
    waiting = ((_rank(entry.state), key) for key, entry in view.ranked(Task, ctx.namespace))
    for _, key in merge(waiting, sorted(item for item in ended if item[0] is not None)):
        yield key


def decide_renew(view: View, request: ask.Renew, ctx: Context) -> Decision:
    task = holding(view, ctx, request.task)
    assert task.lease_s is not None
    assert task.expires is not None
    assert task.until is not None
    renewed = renewal(task, request.task, request.lease_s or task.lease_s, ctx.now)
    if renewed:
        return renewed
    if task.expires >= task.until:
        raise Refused(
            "the claim has reached its cap",
            code="lease_cap",
            entity=f"task {request.task}",
            expected=f"an end before {stamp(task.until)}",
            found=f"a lease until {stamp(task.expires)}",
            hint="Complete it, release it or hand it off",
        )
    entry = view.entry(Task, ctx.namespace, request.task)
    assert entry is not None
    return lease_now(entry.since, request.task, task, task.expires)


def decide_release(view: View, request: ask.Release, ctx: Context) -> Decision:
    holding(view, ctx, request.task)
    return [Emit(Task, request.task, TaskReleased(reason=request.reason))]


def decide_complete(view: View, request: ask.Complete, ctx: Context) -> Decision:
    holding(view, ctx, request.task)
    return [Emit(Task, request.task, TaskCompleted(result=request.result, refs=request.refs))]


def decide_fail(view: View, request: ask.Fail, ctx: Context) -> Decision:
    task = holding(view, ctx, request.task)
    left = task.failures < task.retries
    # Without a policy who holds it may say so; with one its retries are all there are.
    retry = request.retry is not False and (left or (request.retry is True and not task.retries))
    retry_at = ctx.now + timedelta(seconds=task.retry_delay_s) if retry and task.retry_delay_s else None
    return [Emit(Task, request.task, TaskFailed(reason=request.reason, retry=retry, retry_at=retry_at))]


def decide_cancel(view: View, request: ask.Cancel, ctx: Context) -> Decision:
    task, emits = met(view, ctx, request.task)
    if not is_ongoing(task):
        raise illegal(task, request.task, "open or claimed")
    may_manage(task, request.task, ctx)
    return [*emits, Emit(Task, request.task, TaskCancelled(reason=request.reason, owner=task.owner))]


def decide_reopen(view: View, request: ask.Reopen, ctx: Context) -> Decision:
    task = find(view, ctx.namespace, request.task)
    if task.state not in ENDED:
        raise illegal(task, request.task, "done, failed or cancelled")
    return [Emit(Task, request.task, TaskReopened(reason=request.reason))]


def decide_handoff(view: View, request: ask.Handoff, ctx: Context) -> Decision:
    task = holding(view, ctx, request.task)
    agent.find_active(view, request.to)
    if request.to == ctx.agent:
        raise InvalidRequest(
            "a task cannot be handed to its holder",
            code="same_agent",
            entity=f"task {request.task}",
            expected="another agent",
            found=request.to,
            hint="`bus renew` makes the lease longer",
        )
    if not request.direct:
        return [Emit(Task, request.task, TaskOffered(to=request.to, notes=request.notes, refs=request.refs))]
    lease_s = request.lease_s or task.lease_s
    assert lease_s is not None
    return [_hand_off(ctx, request.task, ctx.agent, request.to, lease_s, request.notes, request.refs)]


def _hand_off(ctx: Context, key: str, frm: str, to: str, lease_s: int, notes: str, refs: Sequence[int]) -> Emit:
    fact = TaskHandedOff(frm=frm, to=to, notes=notes, refs=tuple(refs), **lease(ctx, lease_s))
    return Emit(Task, key, fact)


def _offered(view: View, ctx: Context, key: str) -> Task:
    task = find(view, ctx.namespace, key)
    if task.state != "claimed" or task.offered_to != ctx.agent or overdue(task, ctx.now):
        raise Refused(
            "the task is not offered to you",
            code="not_offered",
            entity=f"task {key}",
            expected=f"offered to {ctx.agent}",
            found=f"offered to {task.offered_to}" if task.offered_to else f"no offer ({task.state})",
            hint="Ask its holder to offer it: bus task handoff",
            state=task.state,
            owner=task.owner,
        )
    return task


def decide_accept(view: View, request: ask.Accept, ctx: Context) -> Decision:
    task = _offered(view, ctx, request.task)
    assert task.owner is not None
    assert task.lease_s is not None
    lease_s = request.lease_s or task.lease_s
    return [_hand_off(ctx, request.task, task.owner, ctx.agent, lease_s, task.notes, ())]


def decide_decline(view: View, request: ask.Decline, ctx: Context) -> Decision:
    _offered(view, ctx, request.task)
    return [Emit(Task, request.task, TaskDeclined(reason=request.reason))]


# --- the family ---------------------------------------------------------------------------------------------------


def _rank(task: Task) -> tuple[int, int] | None:
    return (-task.priority, task.opened) if task.state == "open" else None


def _reads(request: ask.Open) -> Sequence[int]:
    return () if request.from_message is None else (request.from_message,)


FAMILY = Family(
    name="task",
    facts=(
        TaskOpened,
        TaskAmended,
        TaskClaimed,
        TaskRenewed,
        TaskReleased,
        TaskExpired,
        TaskCompleted,
        TaskFailed,
        TaskRetried,
        TaskCancelled,
        TaskReopened,
        TaskOffered,
        TaskDeclined,
        TaskHandedOff,
    ),
    state=Task,
    evolve=evolve,
    rank=_rank,
    deadline=lambda task: task.expires or task.retry_at,
    overdue=passed,
    operations=(
        Operation("task.open", ask.Open, ask.TaskReply, decide_open, task_reply, _reads),
        Operation("task.amend", ask.Amend, ask.TaskReply, decide_amend, task_reply),
        Operation("task.claim", ask.Claim, ask.LeaseReply, decide_claim, lease_reply),
        Operation("task.next", ask.Next, ask.LeaseReply, decide_next, lease_reply),
        Operation("task.renew", ask.Renew, ask.LeaseReply, decide_renew, lease_reply),
        Operation("task.release", ask.Release, ask.TaskReply, decide_release, task_reply, essential=True),
        Operation("task.complete", ask.Complete, ask.TaskReply, decide_complete, task_reply, essential=True),
        Operation("task.fail", ask.Fail, ask.TaskReply, decide_fail, task_reply, essential=True),
        Operation("task.cancel", ask.Cancel, ask.TaskReply, decide_cancel, task_reply),
        Operation("task.reopen", ask.Reopen, ask.TaskReply, decide_reopen, task_reply),
        Operation("task.handoff", ask.Handoff, ask.TaskReply, decide_handoff, task_reply),
        Operation("task.accept", ask.Accept, ask.LeaseReply, decide_accept, lease_reply),
        Operation("task.decline", ask.Decline, ask.TaskReply, decide_decline, task_reply),
        Operation("task.show", ask.Show, ask.TaskDetail),
        Operation("task.list", ask.List, ask.Tasks),
        Operation("task.waiting", ask.Waiting, ask.Tasks),
        Operation("task.board", ask.Board, ask.TaskBoard),
    ),
)
