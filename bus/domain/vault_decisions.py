"""What is decided about files of the vault (see `bus.domain.vault`), and the table of the family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bus.domain import vault
from bus.domain.kv import check_expected
from bus.domain.merge import DEPTH, is_deeper, kept, merged
from bus.domain.vault import VaultCreated, VaultDeleted, VaultFile, VaultRenamed, VaultWritten, evolve, size_of
from bus.domain.vault_files import creation, files_at, moving, present, removal, sole_place, what_is_at
from bus.domain.vault_memories import MEMORIES
from bus.domain.vault_paths import path_of
from bus.errors import InvalidRequest, NotFound, Refused
from bus.events import Event
from bus.model import Context, Decision, Emit, Entry, Family, Operation, View


def decide_create(view: View, request: vault.Create, ctx: Context) -> Decision:
    path = path_of(request.path)
    if (entry := present(view, ctx.namespace, path)) is not None:
        raise Refused(
            "there is such a file already",
            code="exists",
            entity=f"file {path}",
            expected="no file of that path",
            found=f"version #{entry.since}",
            hint="Write it instead, or take another path",
            version=entry.since,
        )
    return [creation(view, ctx.namespace, path, request.content)]


def decide_write(view: View, request: vault.Write, ctx: Context) -> Decision:
    path = path_of(request.path)
    entry = present(view, ctx.namespace, path)
    check_expected(f"file {path}", request.expect, entry.since if entry is not None else 0)
    if entry is None:
        return [creation(view, ctx.namespace, path, request.content)]
    return _written(path, entry, request.content, None, is_expected=request.expect is not None)


def _written(path: str, entry: Entry, content: str, line: int | None, *, is_expected: bool) -> Decision:
    if content == entry.state.content and not is_expected:
        return vault.FileReply(seq=entry.since, path=path, size=entry.state.size)
    return [Emit(VaultFile, path, VaultWritten(content=content, line=line))]


def decide_patch(view: View, request: vault.Patch, ctx: Context) -> Decision:
    path = path_of(request.path)
    entry = _find(view, ctx.namespace, path)
    check_expected(f"file {path}", request.expect, entry.since)
    if (request.old is None) == (request.merge is None):
        raise InvalidRequest(
            "a patch replaces text, or merges into a JSON document",
            code="bad_patch",
            entity=f"file {path}",
            expected="one of old and merge",
            found="neither" if request.old is None else "both",
            hint="Give --old and --new, or --merge",
        )
    content: str = entry.state.content
    line = None
    if request.old is not None:
        place = _only_place(path, content, request.old)
        line = content.count("\n", 0, place) + 1
        content = content[:place] + request.new + content[place + len(request.old) :]
    else:
        content = _merged(path, content, request.merge)
    return _written(path, entry, content, line, is_expected=request.expect is not None)


def _only_place(path: str, content: str, old: str) -> int:
    place, lines = sole_place(content, old)
    if place is None:
        raise Refused(
            "the text to replace stands there more than once" if lines else "the text to replace does not stand there",
            code="ambiguous" if lines else "no_match",
            entity=f"file {path}",
            expected=f"{old[:200]!r} once",
            found=f"in lines {', '.join(map(str, lines))}" if lines else "nowhere",
            hint="Give more of what stands around it" if lines else "Read the file again",
            lines=lines,
        )
    return place


def _merged(path: str, content: str, patch: Any) -> str:
    kept(patch, f"the patch of file {path}")
    try:
        document = msgspec.json.decode(content) if not is_deeper(content, DEPTH) else None
    except msgspec.MsgspecError:
        document = None
    if not isinstance(document, dict):
        raise Refused(
            "the file is no JSON document to merge into",
            code="not_a_document",
            entity=f"file {path}",
            expected=f"a JSON object, nested at most {DEPTH} deep",
            found=repr(content[:60]) if content else "nothing",
            hint="Replace text instead (--old, --new), or write the file anew",
        )
    result = merged(document, patch)
    if result == document:
        return content  # Its layout stays as it is.
    return msgspec.json.format(bytes(kept(result, f"file {path}")), indent=2).decode() + "\n"


def _find(view: View, namespace: str, path: str) -> Entry:
    entry = present(view, namespace, path)
    if entry is None:
        raise _missing(view, namespace, path)
    return entry


def _missing(view: View, namespace: str, path: str) -> NotFound:
    return NotFound(
        "no such file",
        entity=f"file {path}",
        expected=f"a file of namespace {namespace}",
        found=what_is_at(view, namespace, path),
        hint="`bus vault list` shows them",
    )


def _at(view: View, namespace: str, path: str) -> list[str]:
    files = files_at(view, namespace, path)
    if not files:
        raise _missing(view, namespace, path)
    return files


def decide_delete(view: View, request: vault.Delete, ctx: Context) -> Decision:
    path = path_of(request.path)
    return removal(view, ctx.namespace, path, _at(view, ctx.namespace, path))


def decide_rename(view: View, request: vault.Rename, ctx: Context) -> Decision:
    path, new_path = path_of(request.path), path_of(request.new_path)
    files = _at(view, ctx.namespace, path)
    if files_at(view, ctx.namespace, new_path):
        raise Refused(
            "something is there already",
            code="exists",
            entity=f"path {new_path}",
            expected="a path where nothing is",
            found=what_is_at(view, ctx.namespace, new_path),
            hint="Delete it first, or take another path",
        )
    return moving(view, ctx.namespace, path, new_path, files)


# --- replies ------------------------------------------------------------------------------------------------------


def _file_reply(view: View, request: Any, events: Sequence[Event]) -> vault.FileReply:
    event = events[-1]
    assert isinstance(event.fact, VaultCreated | VaultWritten)
    return vault.FileReply(seq=event.seq, path=event.entity, size=size_of(event.fact.content))


def _delete_reply(view: View, request: vault.Delete, events: Sequence[Event]) -> vault.DeleteReply:
    deleted = sum(isinstance(event.fact, VaultDeleted) for event in events)
    return vault.DeleteReply(seq=events[-1].seq, path=path_of(request.path), files=deleted)


def _rename_reply(view: View, request: vault.Rename, events: Sequence[Event]) -> vault.RenameReply:
    renamed = sum(isinstance(event.fact, VaultRenamed) for event in events)
    path, new_path = path_of(request.path), path_of(request.new_path)
    return vault.RenameReply(seq=events[-1].seq, path=path, new_path=new_path, files=renamed)


def _rank(file: VaultFile) -> tuple[()] | None:
    """Files that are there come in the order of their paths."""
    return () if file.state == "present" else None


FAMILY = Family(
    name="vault",
    facts=(VaultCreated, VaultWritten, VaultRenamed, VaultDeleted),
    state=VaultFile,
    evolve=evolve,
    rank=_rank,
    bucket_key=lambda key: "vault",
    operations=(
        Operation("vault.create", vault.Create, vault.FileReply, decide_create, _file_reply),
        Operation("vault.write", vault.Write, vault.FileReply, decide_write, _file_reply),
        Operation("vault.patch", vault.Patch, vault.FileReply, decide_patch, _file_reply),
        Operation("vault.delete", vault.Delete, vault.DeleteReply, decide_delete, _delete_reply),
        Operation("vault.rename", vault.Rename, vault.RenameReply, decide_rename, _rename_reply),
        Operation("vault.read", vault.Read, vault.File),
        Operation("vault.list", vault.List, vault.Files),
        Operation("vault.history", vault.History, vault.Versions),
        Operation("vault.diff", vault.Diff, vault.Difference),
        Operation("vault.expand", vault.Expand, vault.Expanded),
        *MEMORIES,
    ),
)
