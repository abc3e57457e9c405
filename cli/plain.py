"""How answers look that have no form of their own: fields, tables, and single values.

A module that knows how some answers look has a table `RENDERERS`, and for those that can be followed a table `LIVE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import asdict

from bus.model import Answer, Reply
from cli.render import Cell, Part, Screen

LINE_LENGTH = 160
Renderer = Callable[[Screen, Any], None]
Renderers = dict[type, Renderer]


class Live(NamedTuple):
    """How an answer is shown that can be followed: what is new in it, as people and as programs see it, and what is
    said when there is nothing."""

    show: Renderer
    items: Callable[[Any], list[Any]]
    none: str


def seq_part(seq: int) -> Part:
    return (f"#{seq}", "cyan")


def head_of(screen: Screen, row: Any) -> list[Part]:
    """Which event, when and by whom: how the line of something begins that somebody did."""
    return [seq_part(row.seq), "  ", (screen.time(row.time), "dim"), "  ", (row.agent, "bold")]


def show_history(screen: Screen, events: Sequence[Any], indent: int = 0) -> None:
    """What happened to one thing, a line for each event."""
    for event in events:
        data = (brief(event.data), "dim")
        screen.line(*head_of(screen, event), "  ", (event.type, "magenta"), "  ", data, indent=indent)


def brief(value: Any) -> str:
    """As much of a value, as JSON, as a line has room for; `--json` has all of it."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LINE_LENGTH else f"{text[: LINE_LENGTH - 1]}…"


def show_reply(screen: Screen, answer: Reply) -> None:
    parts: list[Part] = [seq_part(answer.seq)]
    for key, value in asdict(answer).items():
        if key != "seq" and not is_empty(value):
            parts += ["  ", (key, "dim"), " ", text_of(screen, value)]
    screen.line(*parts)


def show_fields(screen: Screen, answer: Any, skip: Sequence[str] = (), indent: int = 0) -> None:
    """Lists of structs as tables; everything else as `name  value`."""
    hidden = (*skip, "seq", "time", "next") if isinstance(answer, Answer) else skip
    for key, value in asdict(answer).items():
        if key in hidden or is_empty(value):
            continue
        if isinstance(value, list) and isinstance(value[0], msgspec.Struct):
            columns = list(value[0].__struct_fields__)
            show_table(screen, columns, [[text_of(screen, getattr(row, name)) for name in columns] for row in value])
        elif isinstance(value, msgspec.Struct):
            screen.line((key, "bold"), indent=indent)
            show_fields(screen, value, indent=indent + 4)
        else:
            text = text_of(screen, value)
            if "\n" in text:
                screen.line((key, "dim"), indent=indent)
                screen.block(text, indent=indent + 4)
            else:
                screen.line((key, "dim"), "  ", text, indent=indent)


def show_table(screen: Screen, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """A table without the columns in which there is nothing."""
    kept = [n for n in range(len(columns)) if any(row[n] not in ("", ("", "")) for row in rows)]
    screen.table([columns[n].rstrip("_") for n in kept], [[row[n] for n in kept] for row in rows])


def text_of(screen: Screen, value: Any) -> str:
    if isinstance(value, datetime):
        return screen.time(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value):
        return ", ".join(map(str, value))
    return "" if is_empty(value) else word(value)


def word(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def is_empty(value: Any) -> bool:
    return value is None or value is msgspec.UNSET or value in ("", [], (), {})
