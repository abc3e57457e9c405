"""How the log, and what is proved from it, looks to people."""

from __future__ import annotations

from typing import Any

import msgspec

from bus.domain import log
from cli.plain import Live, Renderers, brief, head_of, show_table, word
from cli.render import Cell, Part, Screen

DIGEST_LENGTH = 16
"""People compare so much of a digest; `--json` has all of it."""


def log_line(row: log.LogRow) -> dict[str, Any]:
    """An event as a JSON line: the same eight keys always, and what is unusual about it."""
    line = {key: getattr(row, key) for key in ("seq", "time", "type", "namespace", "entity", "agent", "causes", "data")}
    return line | {key: value for key in ("correlation", "problem", "redacted") if (value := getattr(row, key))}


def _log(screen: Screen, answer: log.LogPage) -> None:
    for row in answer.events:
        _event(screen, row)


def _event(screen: Screen, row: log.LogRow, indent: int = 0, *, body: bool = True) -> None:
    data = "" if not body else "(not for you)" if row.redacted else brief(row.data)
    head = head_of(screen, row)
    screen.line(*head, "  ", (row.type, "magenta"), f"  {row.namespace}/{row.entity}  ", (data, "dim"), indent=indent)
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


RENDERERS: Renderers = {log.EventDetail: _event_detail, log.Moment: _moment, log.Rows: _rows}
LIVE: dict[type, Live] = {log.LogPage: Live(_log, lambda answer: [log_line(row) for row in answer.events], "no events")}
