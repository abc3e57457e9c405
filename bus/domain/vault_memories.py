"""The memory tool: the six commands by which models keep notes under /memories, with the texts that they know.

Rules:
* It runs on the vault: `/memories/plan.md` is the file `memories/plan.md`, in everybody's sight, with all its versions.
* `text` of a reply, and the message of an error, is what the tool gives back to the model, word for word as the tool is
  documented.
* A path begins with /memories, and nothing leads out of there. The directory itself is always there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from bus.domain.vault import VaultFile, VaultWritten
from bus.domain.vault_files import (
    creation,
    files_at,
    lines_of,
    moving,
    present,
    removal,
    sole_place,
    what_is_at,
)
from bus.domain.vault_paths import bad_path, inner_path
from bus.errors import InvalidRequest, NotFound, Refused
from bus.events import BODY_BYTES, Event
from bus.model import Answer, Command, Context, Decision, Emit, Entry, Operation, Query, Reply, View

ROOT = "/memories"
AROUND = 2
"""So many lines before and behind an edit are shown."""
SHOWN = 16_000
"""What is longer is cut where it only shows what was asked for."""

MemoryPath = Annotated[str, Meta(min_length=1, max_length=400, description="a path such as /memories/plan.md")]
Part = Annotated[str, Meta(max_length=BODY_BYTES)]


class Show(Query, frozen=True, kw_only=True):
    """View a file with line numbers, or what is in a directory, two levels deep."""

    path: MemoryPath
    view_range: Annotated[
        Annotated[tuple[int, ...], Meta(min_length=2, max_length=2)] | None,
        Meta(description="the first and the last line to view, from 1 on; -1 is the end"),
    ] = None


class Create(Command, frozen=True, kw_only=True):
    """Create a file. One that is there already is not overwritten."""

    path: MemoryPath
    file_text: Annotated[Part, Meta(description="the text of the file")]


class StrReplace(Command, frozen=True, kw_only=True):
    """Replace a text, which must stand in the file exactly once."""

    path: MemoryPath
    old_str: Annotated[str, Meta(min_length=1, max_length=BODY_BYTES, description="the text to replace")]
    new_str: Annotated[Part, Meta(description="what stands there instead (default: nothing)")] = ""


class Insert(Command, frozen=True, kw_only=True):
    """Insert lines behind a line of a file."""

    path: MemoryPath
    insert_line: Annotated[int, Meta(description="the line behind which to insert; 0 is the beginning")]
    insert_text: Annotated[Part, Meta(description="what to insert")]


class Delete(Command, frozen=True, kw_only=True):
    """Delete a file, or a directory with everything in it."""

    path: MemoryPath


class Rename(Command, frozen=True, kw_only=True):
    """Rename or move a file or a directory. What is at the new path already is not overwritten."""

    old_path: MemoryPath
    new_path: MemoryPath


class Viewed(Answer, frozen=True, kw_only=True):
    """What the tool gives back."""

    text: str


class Done(Reply, frozen=True, kw_only=True):
    """What the tool gives back."""

    text: str


def place_of(path: str) -> str:
    """The path in the vault of what the tool calls `path`. Raises InvalidRequest."""
    if path != ROOT and not path.startswith(f"{ROOT}/"):
        raise bad_path(path, f"Path must start with {ROOT}, got: {path[:100]}", f"{ROOT}/…")
    return inner_path(path.removeprefix("/"))


def numbered(lines: Sequence[str], first: int) -> str:
    """Lines with their numbers, six characters wide, and a tab behind each number."""
    return "\n".join(f"{number:6d}\t{line}" for number, line in enumerate(lines, start=first))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def not_there(path: str, message: str, found: str) -> NotFound:
    """The error for a path at which there is not what there should be."""
    hint = f"View {ROOT} to see what there is"
    return NotFound(message, entity=path, expected="something that is there", found=found, hint=hint)


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_create(view: View, request: Create, ctx: Context) -> Decision:
    place = place_of(request.path)
    _check_below(request.path, place, "created")
    if (entry := present(view, ctx.namespace, place)) is not None:
        raise Refused(
            f"Error: File {request.path} already exists",
            code="exists",
            entity=request.path,
            expected="no file of that path",
            found=f"version #{entry.since}",
            hint="Change it with str_replace or insert, or take another path",
        )
    return [creation(view, ctx.namespace, place, request.file_text)]


def decide_str_replace(view: View, request: StrReplace, ctx: Context) -> Decision:
    path = request.path
    place, entry = _file(view, ctx, path, f"Error: The path {path} does not exist. Please provide a valid path.")
    content: str = entry.state.content
    at, lines = sole_place(content, request.old_str)
    if at is None:
        raise _no_place(path, request.old_str, lines)
    after = content[:at] + request.new_str + content[at + len(request.old_str) :]
    line = content.count("\n", 0, at) + 1
    if after == content:
        return Done(seq=entry.since, text=_edited(after, line, request.new_str))
    return [Emit(VaultFile, place, VaultWritten(content=after, line=line))]


def _no_place(path: str, old: str, lines: Sequence[int]) -> Refused:
    old = _cut(old)
    if not lines:
        return Refused(
            f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.",
            code="no_match",
            entity=path,
            expected="old_str once",
            found="nowhere",
            hint="View the file, and give the text as it stands there",
        )
    found = ", ".join(map(str, lines))
    return Refused(
        f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {found}. "
        "Please ensure it is unique",
        code="ambiguous",
        entity=path,
        expected="old_str once",
        found=f"in lines {found}",
        hint="Give more of what stands around it",
        lines=list(lines),
    )


def decide_insert(view: View, request: Insert, ctx: Context) -> Decision:
    path, at = request.path, request.insert_line
    place, entry = _file(view, ctx, path, f"Error: The path {path} does not exist")
    lines = lines_of(entry.state.content)
    if not 0 <= at <= len(lines):
        raise InvalidRequest(
            f"Error: Invalid `insert_line` parameter: {at}. "
            f"It should be within the range of lines of the file: [0, {len(lines)}]",
            code="bad_line",
            entity=path,
            expected=f"0 to {len(lines)}",
            found=str(at),
            hint="View the file to see its lines",
        )
    inserted = request.insert_text.removesuffix("\n").split("\n")
    after = "\n".join([*lines[:at], *inserted, *lines[at:]]) + "\n"
    return [Emit(VaultFile, place, VaultWritten(content=after, line=at + 1))]


def decide_delete(view: View, request: Delete, ctx: Context) -> Decision:
    path = request.path
    place = place_of(path)
    _check_below(path, place, "deleted")
    return removal(view, ctx.namespace, place, _files(view, ctx, path, place))


def decide_rename(view: View, request: Rename, ctx: Context) -> Decision:
    old, new = place_of(request.old_path), place_of(request.new_path)
    _check_below(request.old_path, old, "renamed")
    files = _files(view, ctx, request.old_path, old)
    if new == place_of(ROOT) or files_at(view, ctx.namespace, new):
        raise Refused(
            f"Error: The destination {request.new_path} already exists",
            code="exists",
            entity=request.new_path,
            expected="a path where nothing is",
            found=what_is_at(view, ctx.namespace, new),
            hint="Delete it first, or take another path",
        )
    return moving(view, ctx.namespace, old, new, files)


def _file(view: View, ctx: Context, path: str, message: str) -> tuple[str, Entry]:
    place = place_of(path)
    entry = present(view, ctx.namespace, place)
    if entry is None:
        raise not_there(path, message, what_is_at(view, ctx.namespace, place))
    return place, entry


def _files(view: View, ctx: Context, path: str, place: str) -> list[str]:
    files = files_at(view, ctx.namespace, place)
    if not files:
        raise not_there(path, f"Error: The path {path} does not exist", what_is_at(view, ctx.namespace, place))
    return files


def _check_below(path: str, place: str, what: str) -> None:
    """Refuse to touch the directory of the tool itself."""
    if place == place_of(ROOT):
        raise InvalidRequest(
            f"Error: The {ROOT} directory itself cannot be {what}",
            code="root",
            entity=path,
            expected=f"a path below {ROOT}",
            found=path,
            hint=f"For example: {ROOT}/plan.md",
        )


# --- replies ------------------------------------------------------------------------------------------------------


def _edited(content: str, line: int, text: str) -> str:
    first = max(1, line - AROUND)
    last = line + text.count("\n") + AROUND
    snippet = _cut(numbered(lines_of(content)[first - 1 : last], first))
    return f"The memory file has been edited. Here is the snippet showing the change (with line numbers):\n{snippet}"


def _str_replace_reply(view: View, request: StrReplace, events: Sequence[Event]) -> Done:
    fact = events[-1].fact
    assert isinstance(fact, VaultWritten)
    return Done(seq=events[-1].seq, text=_edited(fact.content, fact.line or 1, request.new_str))


def _create_reply(view: View, request: Create, events: Sequence[Event]) -> Done:
    return Done(seq=events[-1].seq, text=f"File created successfully at: {request.path}")


def _insert_reply(view: View, request: Insert, events: Sequence[Event]) -> Done:
    return Done(seq=events[-1].seq, text=f"The file {request.path} has been edited.")


def _delete_reply(view: View, request: Delete, events: Sequence[Event]) -> Done:
    return Done(seq=events[-1].seq, text=f"Successfully deleted {request.path}")


def _rename_reply(view: View, request: Rename, events: Sequence[Event]) -> Done:
    return Done(seq=events[-1].seq, text=f"Successfully renamed {request.old_path} to {request.new_path}")


MEMORIES = (
    Operation("memories.view", Show, Viewed),
    Operation("memories.create", Create, Done, decide_create, _create_reply),
    Operation("memories.str_replace", StrReplace, Done, decide_str_replace, _str_replace_reply),
    Operation("memories.insert", Insert, Done, decide_insert, _insert_reply),
    Operation("memories.delete", Delete, Done, decide_delete, _delete_reply),
    Operation("memories.rename", Rename, Done, decide_rename, _rename_reply),
)
