"""How values, streams, files and vectors look to people."""

from __future__ import annotations

import msgspec

from bus.domain import kv, stream, vault, vector
from bus.domain import vault_memories as tool
from cli.plain import Renderers, brief, head_of, show_table
from cli.render import Cell, Screen, size


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
            brief(row.value),
        ]
        for row in answer.values
    ]
    show_table(screen, ("key", "version", "until", "value"), rows)
    if not rows:
        screen.note("no values")


def _versions(screen: Screen, answer: kv.Versions) -> None:
    for row in answer.versions:
        screen.line(
            *head_of(screen, row), "  ", (row.type, "magenta"), "  ", brief(row.value) if row.state == "set" else ""
        )


def _items(screen: Screen, answer: stream.Items) -> None:
    for row in answer.items:
        screen.line(*head_of(screen, row), "  ", msgspec.json.encode(row.data).decode())
    if not answer.items:
        screen.note("no items")


def _file(screen: Screen, answer: vault.File) -> None:
    screen.block(answer.content.removesuffix("\n"))
    screen.note(f"{answer.path}, version #{answer.version}, {size(answer.size)}")


def _files(screen: Screen, answer: vault.Files) -> None:
    rows: list[list[Cell]] = [
        [(row.path, "bold"), (f"#{row.seq}", "cyan"), size(row.size)]
        for row in sorted(answer.files, key=lambda row: row.path)
    ]
    show_table(screen, ("path", "version", "size"), rows)
    if not rows:
        screen.note("no files")


def _file_versions(screen: Screen, answer: vault.Versions) -> None:
    for row in answer.versions:
        there = size(row.size) if row.state == "present" else ""
        screen.line(*head_of(screen, row), "  ", (row.type, "magenta"), "  ", (there, "dim"))


def _difference(screen: Screen, answer: vault.Difference) -> None:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in answer.diff.split("\n")[:-1]:
        screen.line((line, styles.get(line[:1], "")))
    if not answer.diff:
        screen.note(f"{answer.path} is the same at #{answer.start} and #{answer.end}")


def _expanded(screen: Screen, answer: vault.Expanded) -> None:
    screen.block(answer.text.removesuffix("\n"))
    for what, names in (("missing", answer.missing), ("not put into itself", answer.skipped)):
        if names:
            screen.note(f"{what}: {', '.join(names)}")


def _tool_text(screen: Screen, answer: tool.Viewed | tool.Done) -> None:
    screen.block(answer.text.removesuffix("\n"))


def _found(screen: Screen, answer: vector.Found) -> None:
    rows: list[list[Cell]] = [
        [(near.vector, "bold"), f"{near.score:.4f}", (f"#{near.seq}", "cyan"), brief(near.metadata)]
        for near in answer.found
    ]
    show_table(screen, ("vector", "score", "seq", "metadata"), rows)
    screen.note(f"among {answer.among} vectors" if answer.among else "no vectors fit")


def _collections(screen: Screen, answer: vector.CollectionList) -> None:
    rows: list[list[Cell]] = [
        [(row.collection, "bold"), str(row.vectors), str(row.dimension), row.metric] for row in answer.collections
    ]
    show_table(screen, ("collection", "vectors", "dimension", "metric"), rows)
    if not rows:
        screen.note("no collections")


RENDERERS: Renderers = {
    kv.Value: _value,
    kv.Values: _values,
    kv.Versions: _versions,
    stream.Items: _items,
    vault.File: _file,
    vault.Files: _files,
    vault.Versions: _file_versions,
    vault.Difference: _difference,
    vault.Expanded: _expanded,
    tool.Viewed: _tool_text,
    tool.Done: _tool_text,
    vector.Found: _found,
    vector.CollectionList: _collections,
}
