"""How values and streams look to people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bus.domain import kv, stream
from cli.plain import seq_part, show_table
from cli.render import Cell, Part, Screen

VALUE_LENGTH = 160
"""A list shows so much of a value."""


def _value(screen: Screen, answer: kv.Value) -> None:
    # A pipe gets the value and nothing else.
    screen.block(msgspec.json.format(msgspec.json.encode(answer.value)).decode())
    end = f", until {screen.time(answer.expires)}" if answer.expires is not None else ""
    screen.note(f"version #{answer.version}{end}")


def _values(screen: Screen, answer: kv.Values) -> None:
    rows: list[list[Cell]] = [
        [
            (row.key, "bold"),
            (f"#{row.seq}", "cyan"),
            screen.time(row.expires) if row.expires is not None else "",
            _brief(row.value),
        ]
        for row in answer.values
    ]
    show_table(screen, ("key", "version", "until", "value"), rows)
    if not rows:
        screen.note("no values")


def _versions(screen: Screen, answer: kv.Versions) -> None:
    for row in answer.versions:
        screen.line(
            *_head(screen, row), "  ", (row.type, "magenta"), "  ", _brief(row.value) if row.state == "set" else ""
        )


def _items(screen: Screen, answer: stream.Items) -> None:
    for row in answer.items:
        screen.line(*_head(screen, row), "  ", msgspec.json.encode(row.data).decode())
    if not answer.items:
        screen.note("no items")


def _head(screen: Screen, row: Any) -> list[Part]:
    """Which event, when and by whom."""
    return [seq_part(row.seq), "  ", (screen.time(row.time), "dim"), "  ", (row.agent, "bold")]


def _brief(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 1]}…"


RENDERERS: dict[type, Callable[[Screen, Any], None]] = {
    kv.Value: _value,
    kv.Values: _values,
    kv.Versions: _versions,
    stream.Items: _items,
}
