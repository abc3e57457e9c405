"""Tasks as they were: one, or many; `blocked` is derived here, as it is in the decisions.

Rules:
* What a page shows is chosen first, over few columns; only then are the chosen tasks read whole, by their names: most
  of them have not changed since and are still in memory.
* The history of a task is the events that changed it or what it needs: those that began a version of its rows. The
  newest of them are shown, and of long bodies only the beginning, so that an answer has room for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, cast

from bus.domain import task_requests as ask
from bus.domain.needs import Needs
from bus.domain.task import Task
from bus.errors import NotFound
from bus.model import Entry
from projections.query import Reader, answers, any_of
from projections.schema import naive
from projections.views.history import history_of


def own(reader: Reader) -> str:
    """A SQL query with the namespace as its parameter: what its tasks are chosen and ordered by."""
    return f"""
        select kid, task, state, priority, opened, seq_from, owner, opener, class from {reader.at("task")}
        where namespace = ?"""


def with_blocked(reader: Reader) -> str:
    """The same, twice with the namespace as its parameter, and `state` says whether a task is blocked."""
    return f"""
        with own as ({own(reader)}),
        blocked as (
            select distinct n.needs as task from {reader.at("needs_needs")} n left join own on own.task = n.item
            where n.namespace = ? and own.state is distinct from 'done')
        select own.* replace (if(own.state = 'open' and blocked.task is not null, 'blocked', own.state) as state)
        from own left join blocked using (task)"""


def whole(reader: Reader, namespace: str, names: Iterable[str]) -> dict[str, ask.TaskRow]:
    """These tasks, by name."""
    known = reader.states(Task, namespace, names)
    links = reader.states(Needs, namespace, known)
    waiting = (
        links[name].state.needs for name, entry in known.items() if name in links and entry.state.state == "open"
    )
    done = _done(reader, namespace, set(chain.from_iterable(waiting)))
    return {
        name: _row(name, entry, sorted(links[name].state.needs) if name in links else [], done)
        for name, entry in known.items()
    }


def _done(reader: Reader, namespace: str, names: Collection[str]) -> set[str]:
    """Those of these tasks that are done."""
    kids = {kid: name for name in names if (kid := reader.kid("task", namespace, name)) is not None}
    if not kids:
        return set()
    sql = f"select kid from {reader.at('task')} where kid in {any_of(kids)} and state = 'done'"
    return {kids[kid] for (kid,) in reader.rows(sql)}


def _row(name: str, entry: Entry, needs: list[str], done: Collection[str]) -> ask.TaskRow:
    task: Task = entry.state
    is_blocked = task.state == "open" and any(need not in done for need in needs)
    return ask.TaskRow(
        task=name,
        seq=entry.since,
        opened=task.opened,
        title=task.title,
        body=task.body,
        priority=task.priority,
        class_=task.class_,
        state=cast("ask.TaskState", "blocked" if is_blocked else task.state),
        opener=task.opener,
        owner=task.owner,
        fence=task.fence,
        expires=task.expires,
        offered_to=task.offered_to,
        attempts=task.attempts,
        failures=task.failures,
        retries=task.retries,
        retry_at=task.retry_at,
        due=task.due,
        from_message=task.from_message,
        channel=task.channel,
        result=task.result,
        reason=task.reason,
        notes=task.notes,
        labels=sorted(task.labels),
        skills=sorted(task.skills),
        needs=needs,
        refs=sorted(task.refs),
    )


@answers(ask.Show)
def show(reader: Reader, request: ask.Show) -> ask.TaskDetail:
    task = whole(reader, request.namespace, [request.task]).get(request.task)
    if task is None:
        raise NotFound(
            "no such task",
            entity=f"task {request.task}",
            expected=f"a task of namespace {request.namespace} as of #{reader.seq}",
            hint="`bus task list` shows them",
        )
    history = history_of(reader, request.namespace, request.task, "task", "needs")
    return ask.TaskDetail(seq=reader.seq, time=reader.time_of(reader.seq), task=task, history=history)


@answers(ask.List, "tasks")
def list_tasks(reader: Reader, request: ask.List) -> ask.Tasks:
    # Only these two depend on other tasks.
    derived = request.state in ("open", "blocked")
    params: list[Any] = [request.namespace] * 2 if derived else [request.namespace]
    where = [f"opened > {request.since or 0}"]
    for column, value in (
        ("state", request.state),
        ("owner", request.owner),
        ("opener", request.opener),
        ("class", request.class_),
    ):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    if request.label is not None:
        where.append(f"kid in (select kid from {reader.at('task_labels')} where item = ?)")
        params.append(request.label)
    if request.overdue:
        now = reader.now if request.as_of is None else reader.time_of(reader.seq)
        if now is None:
            return ask.Tasks(seq=reader.seq, time=None, tasks=[])
        where.append(f"kid in {_overdue(reader)}")
        params += [naive(now)] * 2
    tasks = with_blocked(reader) if derived else own(reader)
    sql = f"select task from ({tasks}) where {' and '.join(where)} order by opened limit {request.limit}"
    page = whole(reader, request.namespace, [task for (task,) in reader.rows(sql, params)])
    found = sorted(page.values(), key=lambda task: task.opened)
    more = found[-1].opened if len(found) == request.limit else None
    return ask.Tasks(seq=reader.seq, time=reader.time_of(reader.seq), tasks=found, next=more)


def _overdue(reader: Reader) -> str:
    """The keys of the tasks that are past their due date or the end of their lease, with now twice as parameter."""
    return f"""(select kid from {reader.at("task")}
        where (due <= ? and (state in ('open', 'claimed') or retry_at is not null))
            or (state = 'claimed' and expires <= ?))"""
