"""How each kind of answer looks to people, and the items that answers bring to a stream.

Rules:
* An answer that has no renderer of its own is shown from its fields: a new operation needs nothing here.
* A line begins with the seq it is about, because that is what the next command takes (`--since`, `--reply-to`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import asdict

from bus.domain import agent, directive, inbox, journal, log, message, reminder
from bus.domain import task_requests as tasks
from bus.durations import span
from bus.model import Answer, Query, Reply, Request
from cli import keeping, remembering, storing
from cli.plain import seq_part, show_fields, show_reply, show_table, word
from cli.render import Cell, Part, Screen

DATA_LENGTH = 160
"""A log line shows so much of an event's body; `bus log show` shows all of it."""
DIGEST_LENGTH = 16
"""People compare so much of a digest; `--json` has all of it."""
ITEMS: dict[Any, str] = {message.Messages: "messages", inbox.Items: "items", log.LogPage: "events"}
"""Where the answers that can be followed keep what is new."""
STYLES = {"online": "green", "idle": "yellow", "away": "yellow", "offline": "dim", "claimed": "cyan", "done": "green"}
STYLES |= {"failed": "red", "blocked": "yellow", "cancelled": "dim"}


def documents(answer: Any) -> list[Any]:
    """The items of an answer, as JSON lines show them."""
    if isinstance(answer, tasks.TaskBoard):
        return _board_rows(answer)
    items = getattr(answer, ITEMS[type(answer)])
    return [log_line(item) for item in items] if isinstance(answer, log.LogPage) else list(items)


def log_line(row: log.LogRow) -> dict[str, Any]:
    """An event as a JSON line: the same eight keys always, and what is unusual about it."""
    line = {key: getattr(row, key) for key in ("seq", "time", "type", "namespace", "entity", "agent", "causes", "data")}
    return line | {key: value for key in ("correlation", "problem", "redacted") if (value := getattr(row, key))}


def show_items(screen: Screen, answer: Any) -> None:
    """The items of an answer alone, for a stream."""
    _ITEM_RENDERERS[type(answer)](screen, answer)


def show(screen: Screen, request: Request, answer: Any) -> None:
    """An answer, for people."""
    renderer = _RENDERERS.get(type(answer))
    if renderer is not None:
        renderer(screen, answer)
    elif type(answer) in _ITEM_RENDERERS:
        _ITEM_RENDERERS[type(answer)](screen, answer)
        if not getattr(answer, ITEMS[type(answer)]):
            screen.note("nothing unread" if isinstance(answer, inbox.Items) else f"no {ITEMS[type(answer)]}")
    elif isinstance(answer, Reply):
        show_reply(screen, answer)
    else:
        show_fields(screen, answer)
    if isinstance(request, Query) and request.as_of is not None and isinstance(answer, Answer):
        screen.note(f"as of #{answer.seq}, {screen.time(answer.time)}")
    if getattr(answer, "next", None) is not None and _is_full(request, answer):
        screen.note(_more(request, answer))


def _more(request: Any, answer: Any) -> str:
    """How to get at what is not on this page: a page without a cursor is the end of a conversation."""
    if hasattr(request, "before") and request.since is None:
        return f"there may be older ones: --before {_pages(answer)[-1][0].seq}"
    return f"there may be more: --since {answer.next}"


def _is_full(request: Any, answer: Any) -> bool:
    lists = _pages(answer)
    return bool(lists) and len(lists[-1]) >= getattr(request, "limit", 0) > 0


def _pages(answer: Any) -> list[Any]:
    """The lists of an answer; the last one is its page."""
    return [value for value in asdict(answer).values() if isinstance(value, list)]


# --- one by one -----------------------------------------------------------------------------------------------------


def _messages(screen: Screen, answer: message.Messages) -> None:
    for row in answer.messages:
        head: list[Part] = [seq_part(row.seq), "  ", (screen.time(row.time), "dim"), "  ", (row.agent, "bold")]
        if row.reply_to is not None:
            head.append((f" to #{row.reply_to}", "dim"))
        marks = [word for word, holds in (("edited", row.edited), ("pinned", row.pinned)) if holds]
        if marks:
            head.append((f" ({', '.join(marks)})", "yellow"))
        screen.message(head, row.text)
        for emoji, agents in row.reactions.items():
            screen.line((f"{emoji} {', '.join(agents)}", "dim"), indent=4)


def _items(screen: Screen, answer: inbox.Items) -> None:
    for item in answer.items:
        place = f" in {item.channel}" if item.channel else f" about {item.task}" if item.task else ""
        head: list[Part] = [seq_part(item.seq), "  ", (screen.time(item.time), "dim"), "  ", (item.agent, "bold")]
        screen.message([*head, place, (f" [{', '.join(item.reasons)}]", "dim")], item.text)
    if answer.remaining:
        screen.note(f"{answer.remaining} more wait: acknowledge these with `bus inbox ack {answer.upto}`")
    if answer.hint:
        screen.note(answer.hint)


def _counts(screen: Screen, answer: inbox.Counts) -> None:
    columns = ("where", "unread", "reasons", "since", "first")
    rows: list[list[Cell]] = []
    for pile in answer.piles:
        place = pile.channel or (f"dm with {pile.dm}" if pile.dm else "the bus")
        reasons = ", ".join(f"{count} {reason}" for reason, count in pile.reasons.items())
        rows.append([(place, "bold"), str(pile.unread), reasons, screen.time(pile.since), f"#{pile.first}"])
    show_table(screen, columns, rows)
    if not answer.unread:
        screen.note("nothing unread")
        return
    screen.note(f"{answer.unread} unread; `bus inbox` shows the oldest, `bus inbox --since SEQ` looks ahead")


def _log(screen: Screen, answer: log.LogPage) -> None:
    for row in answer.events:
        _event(screen, row)


def _event(screen: Screen, row: log.LogRow, indent: int = 0, *, body: bool = True) -> None:
    data = "" if not body else "(not for you)" if row.redacted else msgspec.json.encode(row.data).decode()
    if len(data) > DATA_LENGTH:
        data = data[: DATA_LENGTH - 1] + "…"
    head: list[Part] = [seq_part(row.seq), "  ", (screen.time(row.time), "dim"), "  ", (row.agent, "bold"), "  "]
    screen.line(*head, (row.type, "magenta"), f"  {row.namespace}/{row.entity}  ", (data, "dim"), indent=indent)
    if row.problem:
        screen.line((f"cannot be read: {row.problem}", "red"), indent=indent + 4)


def _event_detail(screen: Screen, answer: log.EventDetail) -> None:
    _event(screen, answer.event, body=False)
    screen.line("subject  ", answer.subject, indent=4)
    for key, value in answer.headers.items():
        screen.line(f"{key}  ", value, indent=4)
    body = msgspec.json.format(msgspec.json.encode(answer.event.data)).decode()
    screen.block("(not for you)" if answer.event.redacted else body, indent=4)
    for title, rows in (("caused by", answer.causes), ("led to", answer.effects)):
        if rows:
            screen.line((title, "bold"), indent=2)
            for row in rows:
                _event(screen, row, indent=4)


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
    for event in answer.history:
        data = msgspec.json.encode(event.data).decode()
        head: list[Part] = [seq_part(event.seq), "  ", (screen.time(event.time), "dim"), "  ", (event.agent, "bold")]
        screen.line(*head, "  ", (event.type, "magenta"), "  ", (data, "dim"), indent=4)


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
        head: list[Part] = [seq_part(row.seq), "  ", (screen.time(row.time), "dim"), "  ", (row.agent, "bold")]
        screen.message(head, row.focus)
        for title, lines in (("done", row.done), ("decided", row.decisions), ("next", row.next_steps)):
            for line in lines:
                screen.message([(f"    {title}", "dim")], line)
    if not answer.entries:
        screen.note("no entries")


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


def _moment(screen: Screen, answer: log.Moment) -> None:
    columns = ("table", "rows", "digest", "equal")
    rows: list[list[Cell]] = [
        [(name, "bold"), str(table.rows), table.digest[:DIGEST_LENGTH], _verdict(table)]
        for name, table in answer.tables.items()
    ]
    show_table(screen, columns, rows)
    parts: list[Part] = [f"#{answer.seq}, {screen.time(answer.time)}: {answer.events} events"]
    if answer.skipped:
        parts.append((f", {answer.skipped} of them cannot be read", "yellow"))
    if answer.equal is not None:
        parts.append((", the log and the tables are equal", "green") if answer.equal else (", DIFFERENT", "bold red"))
    screen.line(*parts)
    for seal in answer.broken_seals:
        screen.line((f"the seal #{seal} does not fit: the log before it was changed after it was sealed", "bold red"))


def _verdict(table: log.TableDigest) -> Cell:
    if table.equal is None:
        return ""
    if table.equal:
        return ("yes", "green")
    return (f"NO: the log gives {table.log_rows} rows, {(table.log_digest or '')[:DIGEST_LENGTH]}", "bold red")


def _rows(screen: Screen, answer: log.Rows) -> None:
    screen.table(answer.columns, [[word(value) for value in row] for row in answer.rows])
    if answer.truncated:
        screen.note("there are more rows: --limit")
    if not answer.rows:
        screen.note("no rows")


_ITEM_RENDERERS: dict[type, Callable[[Screen, Any], None]] = {
    message.Messages: _messages,
    inbox.Items: _items,
    log.LogPage: _log,
    tasks.TaskBoard: _board_news,
}
_RENDERERS: dict[type, Callable[[Screen, Any], None]] = {
    log.EventDetail: _event_detail,
    log.Moment: _moment,
    log.Rows: _rows,
    tasks.LeaseReply: _lease,
    tasks.Tasks: _tasks,
    tasks.TaskDetail: _task,
    tasks.TaskBoard: _board,
    inbox.Counts: _counts,
    agent.Presences: _presences,
    directive.Directives: _directives,
    reminder.Reminders: _reminders,
    journal.Entries: _entries,
    **keeping.RENDERERS,
    **remembering.RENDERERS,
    **storing.RENDERERS,
    journal.WakeCard: lambda screen, answer: screen.block(answer.text.rstrip("\n")),
}
