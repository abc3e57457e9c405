"""The tree of files that the paths of a vault make: what is where, and what creating, deleting and renaming lead to."""

from __future__ import annotations

from collections.abc import Sequence

from bus.domain.vault import VaultCreated, VaultDeleted, VaultFile, VaultRenamed
from bus.domain.vault_paths import above, inner_path
from bus.errors import InvalidRequest, Refused
from bus.model import Emit, Entry, View

AT_ONCE = 400
"""So many files at most are renamed or deleted in one batch."""
BYTES_AT_ONCE = 8_000_000
"""And their texts, which a rename writes again, have at most so many bytes."""
LINES_NAMED = 100


def present(view: View, namespace: str, path: str) -> Entry | None:
    """The file at `path`, if there is one."""
    entry = view.entry(VaultFile, namespace, path)
    return entry if entry is not None and entry.state.state == "present" else None


def files_at(view: View, namespace: str, path: str) -> list[str]:
    """The file at `path`, or those in the directory that it is; none when nothing is there."""
    return [path] if present(view, namespace, path) is not None else _below(view, namespace, path)


def _below(view: View, namespace: str, path: str) -> list[str]:
    found, start = list[str](), f"{path}/"
    for key, _ in view.ranked(VaultFile, namespace):
        if key.startswith(start):
            found.append(key)
        elif key > start:
            break  # They come in the order of their paths.
    return found


def what_is_at(view: View, namespace: str, path: str) -> str:
    """What there is, in words."""
    if (entry := present(view, namespace, path)) is not None:
        return f"a file, version #{entry.since}"
    files = _below(view, namespace, path)
    if files:
        return f"a directory with {len(files)} file{'s' if len(files) > 1 else ''}"
    place = _file_above(view, namespace, path)
    return f"nothing, {place} being a file" if place is not None else "nothing"


def _file_above(view: View, namespace: str, path: str) -> str | None:
    return next((place for place in above(path) if present(view, namespace, place) is not None), None)


def check_room(view: View, namespace: str, path: str) -> None:
    """Refuse a new file at `path` when that is a directory, or lies in a file."""
    if (place := _file_above(view, namespace, path)) is not None:
        raise Refused(
            "a file is no directory",
            code="not_a_directory",
            entity=f"path {path}",
            expected=f"a directory at {place}, or nothing",
            found="a file",
            hint="Take another path, or rename that file first",
        )
    if _below(view, namespace, path):
        raise Refused(
            "there is a directory of that path",
            code="is_a_directory",
            entity=f"path {path}",
            expected="nothing, or a file",
            found=what_is_at(view, namespace, path),
            hint="Take a path inside it, or another one",
        )


def creation(view: View, namespace: str, path: str, content: str) -> Emit:
    """The event of a new file at `path`, where there is none."""
    check_room(view, namespace, path)
    return Emit(VaultFile, path, VaultCreated(content=content))


def removal(view: View, namespace: str, path: str, files: Sequence[str]) -> list[Emit]:
    """The events that delete `files`, which are at `path`."""
    _check_amount(view, namespace, path, files)
    return [Emit(VaultFile, file, VaultDeleted()) for file in files]


def moving(view: View, namespace: str, path: str, new_path: str, files: Sequence[str]) -> list[Emit]:
    """The events that give `files`, which are at `path`, their place at `new_path`, where nothing is."""
    if f"{new_path}/".startswith(f"{path}/"):
        raise Refused(
            "nothing can be renamed into itself",
            code="into_itself",
            entity=f"path {path}",
            expected="a path that does not lie in it",
            found=new_path,
            hint="Take another path",
        )
    check_room(view, namespace, new_path)
    _check_amount(view, namespace, path, files)
    emits: list[Emit] = []
    for file in files:
        place = inner_path(new_path + file[len(path) :])
        entry = present(view, namespace, file)
        assert entry is not None
        created = VaultCreated(content=entry.state.content, renamed_from=file)
        emits += [Emit(VaultFile, file, VaultRenamed(new_path=place)), Emit(VaultFile, place, created)]
    return emits


def _check_amount(view: View, namespace: str, path: str, files: Sequence[str]) -> None:
    entries = (present(view, namespace, file) for file in files)
    size = sum(entry.state.size for entry in entries if entry is not None)
    if len(files) > AT_ONCE or size > BYTES_AT_ONCE:
        raise InvalidRequest(
            "the directory is too large for one batch",
            code="too_large",
            entity=f"path {path}",
            expected=f"at most {AT_ONCE} files and {BYTES_AT_ONCE} bytes",
            found=f"{len(files)} files, {size} bytes",
            hint="Do it with the directories in it, one by one",
        )


def sole_place(content: str, old: str) -> tuple[int | None, list[int]]:
    """-> (where `old` stands, if it does so exactly once; otherwise the lines in which it begins, not all if many)"""
    first = content.find(old)
    if first == -1 or content.find(old, first + 1) == -1:
        return (None if first == -1 else first), []
    lines, place, line, counted = list[int](), first, 1, 0
    while place != -1 and len(lines) < LINES_NAMED:
        line += content.count("\n", counted, place)
        counted = place
        if line not in lines[-1:]:
            lines.append(line)
        end = content.find("\n", place)
        place = -1 if end == -1 else content.find(old, end + 1)
    return None, lines


def lines_of(content: str) -> list[str]:
    """The lines of a text; the last one may or may not end in a line break."""
    lines = content.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
