"""Tasks as they were: one, many, or the whole board; `blocked` is derived here, as it is in the decisions.

Rules:
* What a page shows is chosen first, over few columns; only then are the chosen tasks read whole, by their keys.
* The history of a task is the events that changed it or what it needs: those that began a version of its rows. The
  newest of them are shown, and of long bodies only the beginning, so that an answer has room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bus.domain import task_requests as ask
from bus.errors import NotFound
from projections.query import Reader, answers, listed, sought, utc
from projections.schema import naive
from projections.views.history import shown

HISTORY = 300
BRIEF = 1_000
_STATES = ("open", "blocked", "claimed", "done", "failed", "cancelled")
_ONGOING = ("open", "blocked", "claimed")
_COLUMNS = """seq_from, task, opened, title, body, priority, class, state, opener, owner, fence, expires, offered_to,
    attempts, failures, retries, retry_at, due, from_message, channel, result, reason, notes"""


def _own(reader: Reader) -> str:
    """A SQL query with the namespace as its parameter: what its tasks are chosen and ordered by."""
    return f"""
        select kid, task, state, priority, opened, seq_from, owner, opener, class from {reader.at("task")}
        where namespace = ?"""


def _shown(reader: Reader) -> str:
    """The same, twice with the namespace as its parameter, and `state` says whether a task is blocked."""
    return f"""
        with own as ({_own(reader)}),
        blocked as (
            select distinct n.needs as task from {reader.at("needs_needs")} n left join own on own.task = n.item
            where n.namespace = ? and own.state is distinct from 'done')
        select own.* replace (if(own.state = 'open' and blocked.task is not null, 'blocked', own.state) as state)
        from own left join blocked using (task)"""


class _Items:
    """The collections of some tasks, and whether what they need is done."""

    def __init__(self, reader: Reader, namespace: str, tasks: Mapping[int, str]) -> None:
        self.labels = _collected(reader, "task_labels", tasks)
        self.skills = _collected(reader, "task_skills", tasks)
        self.refs = _collected(reader, "task_refs", tasks)
        links = {kid: reader.kid("needs", namespace, task) for kid, task in tasks.items()}
        found = _collected(reader, "needs_needs", [link for link in links.values() if link is not None])
        self.needs: dict[int, list[str]] = {kid: found[link] for kid, link in links.items() if link in found}
        wanted = {need: reader.kid("task", namespace, need) for needs in self.needs.values() for need in needs}
        self._done: set[int | None] = set()
        if kids := [kid for kid in wanted.values() if kid is not None]:
            sql = f"select kid from {reader.at('task')} where kid in {listed(kids)} and state = 'done'"
            self._done = {kid for (kid,) in reader.rows(sql)}
        self._wanted = wanted

    def is_blocked(self, kid: int) -> bool:
        return any(self._wanted[need] not in self._done for need in self.needs.get(kid, ()))


def _collected(reader: Reader, table: str, kids: Iterable[int]) -> dict[int | None, list[Any]]:
    """The elements of a collection by the key of their owner, sorted."""
    found: dict[int | None, list[Any]] = {}
    if kids := list(kids):
        sql = f"select kid, item from {reader.at(table)} where kid in {listed(kids)} order by kid, item"
        for kid, item in reader.rows(sql):
            found.setdefault(kid, []).append(item)
    return found


def whole(reader: Reader, namespace: str, kids: Iterable[int]) -> dict[int, ask.TaskRow]:
    """The tasks with these keys, by key."""
    if not (kids := list(kids)):
        return {}
    rows = reader.rows(f"select kid, {_COLUMNS} from {reader.at('task')} where kid in {sought(kids)}")
    items = _Items(reader, namespace, {row[0]: row[2] for row in rows})
    return {kid: _row(kid, row, items) for kid, *row in rows}


def _row(kid: int, row: Sequence[Any], items: _Items) -> ask.TaskRow:
    (seq, task, opened, title, body, priority, class_, state, opener, owner, fence, expires, offered_to) = row[:13]
    attempts, failures, retries, retry_at, due, from_message, channel, result, reason, notes = row[13:]
    return ask.TaskRow(
        task=task,
        seq=seq,
        opened=opened,
        title=title,
        body=body,
        priority=priority,
        class_=class_,
        state="blocked" if state == "open" and items.is_blocked(kid) else state,
        opener=opener,
        owner=owner,
        fence=fence,
        expires=utc(expires) if expires else None,
        offered_to=offered_to,
        attempts=attempts,
        failures=failures,
        retries=retries,
        retry_at=utc(retry_at) if retry_at else None,
        due=utc(due) if due else None,
        from_message=from_message,
        channel=channel,
        result=result,
        reason=reason,
        notes=notes,
        labels=items.labels.get(kid, []),
        skills=items.skills.get(kid, []),
        needs=items.needs.get(kid, []),
        refs=items.refs.get(kid, []),
    )


@answers(ask.Show)
def show(reader: Reader, request: ask.Show) -> ask.TaskDetail:
    kid = reader.kid("task", request.namespace, request.task)
    if kid is None:
        raise NotFound(
            "no such task",
            entity=f"task {request.task}",
            expected=f"a task of namespace {request.namespace} as of #{reader.seq}",
            hint="`bus task list` shows them",
        )
    # All versions up to now: the newest is the task.
    versions = reader.rows(f"select {_COLUMNS} from {reader.history('task')} where kid = {kid} order by seq_from")
    task = _row(kid, versions[-1], _Items(reader, request.namespace, {kid: request.task}))
    changed = [row[0] for row in versions]
    if (link := reader.kid("needs", request.namespace, request.task)) is not None:
        links = reader.rows(f"select seq_from from {reader.history('needs')} where kid = {link}")
        changed += [seq for (seq,) in links]
    latest = sorted(changed)[-HISTORY:]
    sql = f"select seq, time, type, agent, data from {reader.at('event')} where seq in {sought(latest)} order by seq"
    history = [
        ask.Happening(seq=seq, time=utc(time), type=type_, agent=agent, data=shown(data, BRIEF))
        for seq, time, type_, agent, data in reader.rows(sql)
    ]
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
    tasks = _shown(reader) if derived else _own(reader)
    sql = f"select kid from ({tasks}) where {' and '.join(where)} order by opened limit {request.limit}"
    page = whole(reader, request.namespace, [kid for (kid,) in reader.rows(sql, params)])
    found = sorted(page.values(), key=lambda task: task.opened)
    more = found[-1].opened if len(found) == request.limit else None
    return ask.Tasks(seq=reader.seq, time=reader.time_of(reader.seq), tasks=found, next=more)


def _overdue(reader: Reader) -> str:
    """The keys of the tasks that are past their due date or the end of their lease, with now twice as parameter."""
    return f"""(select kid from {reader.at("task")}
        where (due <= ? and (state in ('open', 'claimed') or retry_at is not null))
            or (state = 'claimed' and expires <= ?))"""


@answers(ask.Board)
def board(reader: Reader, request: ask.Board) -> ask.TaskBoard:
    most = request.limit
    sql = f"""
        select state, count(*), min_by(kid, (-priority, opened), {most}), max_by(kid, seq_from, {most})
        from ({_shown(reader)}) group by 1"""
    counts = dict.fromkeys(_STATES, 0)
    kids: dict[str, list[int]] = {}
    for state, count, best, newest in reader.rows(sql, [request.namespace] * 2):
        counts[state] = count
        kids[state] = best if state in _ONGOING else newest
    tasks = whole(reader, request.namespace, [kid for column in kids.values() for kid in column])
    columns = {state: [tasks[kid] for kid in kids.get(state, ())] for state in _STATES}
    return ask.TaskBoard(seq=reader.seq, time=reader.time_of(reader.seq), counts=counts, columns=columns)
