"""What waits to be taken: the tasks that `task.next` would choose from, in its order.

Rule: it is what `bus.domain.task_decisions` decides, read from tables; a lease that is overdue counts from the event
that says so.
"""

from __future__ import annotations

from bus.domain import task_requests as ask
from projections.query import Reader, answers
from projections.views.tasks import whole


def _marks(values: tuple[str, ...]) -> str:
    """Places for these parameters, as what may follow `in`; no values contain nothing."""
    return f"({', '.join('?' for _ in values) or 'null'})"


@answers(ask.Waiting, "tasks")
def waiting(reader: Reader, request: ask.Waiting) -> ask.Tasks:
    where: list[str] = ["state = 'open'"]
    params: list[str] = []
    if request.classes:
        where.append(f"class in {_marks(request.classes)}")
        params += request.classes
    for label in set(request.labels):
        where.append(f"kid in (select kid from {reader.at('task_labels')} where item = ?)")
        params.append(label)
    able = f"where item not in {_marks(request.skills)}" if request.skills else ""
    where.append(f"kid not in (select kid from {reader.at('task_skills')} {able})")
    params += request.skills
    sql = f"""
        with own as (
            select kid, task, state, priority, opened, class from {reader.at("task")} where namespace = ?),
        blocked as (
            select n.needs as task from {reader.at("needs_needs")} n left join own on own.task = n.item
            where n.namespace = ? and own.state is distinct from 'done')
        select task from own where {" and ".join(where)} and task not in (select task from blocked)
        order by priority desc, opened limit {request.limit}"""
    chosen: list[str] = [task for (task,) in reader.rows(sql, [*[request.namespace] * 2, *params])]
    tasks = whole(reader, request.namespace, chosen)
    return ask.Tasks(seq=reader.seq, time=reader.time_of(reader.seq), tasks=[tasks[task] for task in chosen])
