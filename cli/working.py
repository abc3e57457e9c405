"""How agents, tasks, directives, reminders and journals look to people."""

from __future__ import annotations

from collections.abc import Sequence

from bus.domain import agent, directive, journal, reminder
from bus.domain import task_requests as tasks
from bus.durations import span
from cli.plain import Live, Renderers, head_of, seq_part, show_fields, show_history, show_table
from cli.render import Cell, Part, Screen

STYLES = {"online": "green", "idle": "yellow", "away": "yellow", "offline": "dim", "claimed": "cyan", "done": "green"}
STYLES |= {"failed": "red", "blocked": "yellow", "cancelled": "dim"}


def _lease(screen: Screen, answer: tasks.LeaseReply) -> None:
    parts: list[Part] = [
        seq_part(answer.seq),
        "  task ",
        (answer.task, "bold"),
        f" is yours until {screen.time(answer.expires)}",
    ]
    screen.line(*parts)
    if answer.title:
        screen.line((answer.title, "bold"), indent=4)
    if answer.body:
        screen.block(answer.body, indent=4)
    marks = [f"fence {answer.fence}", f"priority {answer.priority}"]
    screen.line((", ".join([*marks, *(f"label {label}" for label in answer.labels)]), "dim"), indent=4)


def _task_cells(screen: Screen, row: tasks.TaskRow) -> list[Cell]:
    holder = f"{row.owner} until {screen.time(row.expires)}" if row.owner else ""
    offered = f" (offered to {row.offered_to})" if row.offered_to else ""
    state = (row.state, STYLES.get(row.state, ""))
    return [(row.task, "bold"), state, str(row.priority), row.title, holder + offered, ", ".join(row.labels)]


def _task_table(screen: Screen, rows: Sequence[tasks.TaskRow]) -> None:
    columns = ("task", "state", "priority", "title", "held by", "labels")
    show_table(screen, columns, [_task_cells(screen, row) for row in rows])


def _tasks(screen: Screen, answer: tasks.Tasks) -> None:
    _task_table(screen, answer.tasks)
    if not answer.tasks:
        screen.note("no tasks")


def _task(screen: Screen, answer: tasks.TaskDetail) -> None:
    row = answer.task
    screen.line((row.task, "bold"), "  ", row.title)
    show_fields(screen, row, skip=("task", "title"), indent=4)
    screen.line(("history", "bold"), indent=2)
    show_history(screen, answer.history, indent=4)


def _board(screen: Screen, answer: tasks.TaskBoard) -> None:
    if answer.changed is not None:
        _board_news(screen, answer)
        if not answer.changed:
            screen.note("nothing has changed")
        return
    for state, rows in answer.columns.items():
        if count := answer.counts.get(state, len(rows)):
            screen.line((f"{state} ({count})", f"bold {STYLES.get(state, '')}".strip()))
            for row in rows:
                holder = f"  {row.owner} until {screen.time(row.expires)}" if row.owner else ""
                screen.line((row.task, "cyan"), f"  {row.priority}  {row.title}", (holder, "dim"), indent=2)
    if not any(answer.counts.values()):
        screen.note("no tasks")


def _board_rows(answer: tasks.TaskBoard) -> list[tasks.TaskRow]:
    if answer.changed is not None:
        return answer.changed
    return [row for rows in answer.columns.values() for row in rows]


def _board_news(screen: Screen, answer: tasks.TaskBoard) -> None:
    """The board once, and then a line for each task that changes."""
    if answer.changed is None:
        _board(screen, answer)
        return
    for row in answer.changed:
        holder = f"  {row.owner} until {screen.time(row.expires)}" if row.owner else ""
        state: Part = (row.state, STYLES.get(row.state, ""))
        screen.line(
            seq_part(row.seq), "  ", (row.task, "bold"), "  ", state, f"  {row.priority}  {row.title}", (holder, "dim")
        )


def _directives(screen: Screen, answer: directive.Directives) -> None:
    columns = ("directive", "state", "priority", "from", "to", "due", "text")
    rows: list[list[Cell]] = []
    for row in answer.directives:
        due = screen.time(row.due) if row.due else ""
        state = f"{row.state}, overdue" if row.overdue else row.state
        who = row.agent or (f"{row.role}: " if row.role else "") + ", ".join(row.to)
        cells: list[Cell] = [(row.directive, "bold"), (state, "red" if row.overdue else STYLES.get(row.state, ""))]
        rows.append([*cells, str(row.priority), row.giver, who, due, row.text])
    show_table(screen, columns, rows)
    if not rows:
        screen.note("no directives")


def _reminders(screen: Screen, answer: reminder.Reminders) -> None:
    columns = ("reminder", "state", "for", "at", "every", "text")
    rows: list[list[Cell]] = []
    for row in answer.reminders:
        every = f"{row.every} {row.timezone}".strip()
        cells: list[Cell] = [(row.reminder, "bold"), (row.state, STYLES.get(row.state, "")), row.to]
        rows.append([*cells, screen.time(row.at) if row.at else "", every, row.text])
    show_table(screen, columns, rows)
    if not rows:
        screen.note("no reminders")


def _entries(screen: Screen, answer: journal.Entries) -> None:
    for row in answer.entries:
        head: list[Part] = head_of(screen, row)
        screen.message(head, row.focus)
        for title, lines in (("done", row.done), ("decided", row.decisions), ("next", row.next_steps)):
            for line in lines:
                screen.message([(f"    {title}", "dim")], line)
    if not answer.entries:
        screen.note("no entries")


def _presences(screen: Screen, answer: agent.Presences) -> None:
    columns = ("agent", "presence", "since", "harness", "model", "holds")
    rows: list[list[Cell]] = [
        [
            (one.agent, "bold"),
            (one.presence, STYLES.get(one.presence, "")),
            screen.time(one.since),
            one.harness,
            one.model,
            ", ".join(one.tasks),
        ]
        for one in answer.agents
    ]
    show_table(screen, columns, rows)
    screen.note(f"the newest event is {span(answer.age_s)} old")


RENDERERS: Renderers = {
    tasks.LeaseReply: _lease,
    tasks.Tasks: _tasks,
    tasks.TaskDetail: _task,
    tasks.TaskBoard: _board,
    agent.Presences: _presences,
    directive.Directives: _directives,
    reminder.Reminders: _reminders,
    journal.Entries: _entries,
    journal.WakeCard: lambda screen, answer: screen.block(answer.text.rstrip("\n")),
}
LIVE: dict[type, Live] = {tasks.TaskBoard: Live(_board_news, _board_rows, "no tasks")}
