"""The vault: text files by path, every version of which can be read again.

    created -> written | deleted | renamed        deleted, renamed -> created (again)

Rules:
* The entity is the path, as `bus.domain.vault_paths` writes it. A directory is what lies in it; there are no empty
  ones. Where a file is there is no directory, so all files of a namespace are decided together.
* A version is the seq of the last change; every one of them keeps the whole text.
* A request with `expect` takes effect only if that is the version. What would change nothing is no event.
* Deleting and renaming a directory is deleting and renaming every file in it, in one batch.
* What is decided, and the table of the family, is in `bus.domain.vault_decisions`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from bus.domain.kv import Expect
from bus.events import BODY_BYTES, Event, Fact
from bus.model import Answer, Command, PageQuery, Position, Query, Reply, Seq, State


class VaultCreated(Fact, frozen=True, kw_only=True):
    """A file came into being."""

    type: ClassVar[str] = "vault.created"
    content: str
    """Its text."""
    renamed_from: str | None = None
    """The path it had before."""


class VaultWritten(Fact, frozen=True, kw_only=True):
    """The text of a file changed."""

    type: ClassVar[str] = "vault.written"
    content: str
    """All of its text, from now on."""
    line: int | None = None
    """The first line of the part that was changed, when only a part was."""


class VaultRenamed(Fact, frozen=True, kw_only=True):
    """A file got another path, under which it goes on."""

    type: ClassVar[str] = "vault.renamed"
    new_path: str
    """That path."""


class VaultDeleted(Fact, frozen=True, kw_only=True):
    """A file was deleted."""

    type: ClassVar[str] = "vault.deleted"


class VaultFile(State, frozen=True, kw_only=True):
    """A path now. `size` is that of the text in UTF-8; there is neither once there is no file. `changed` is the seq of
    the last change."""

    table: ClassVar[str] = "vault"
    changed: int
    state: str = "present"
    content: str = ""
    size: int = 0


def evolve(file: VaultFile | None, event: Event) -> VaultFile | None:
    """The path after `event`."""
    fact = event.fact
    is_there = file is not None and file.state == "present"
    match fact:
        case VaultCreated() if not is_there:
            return VaultFile(changed=event.seq, content=fact.content, size=size_of(fact.content))
        case VaultWritten() if is_there:
            return VaultFile(changed=event.seq, content=fact.content, size=size_of(fact.content))
        case VaultRenamed() if is_there:
            return VaultFile(changed=event.seq, state="renamed")
        case VaultDeleted() if is_there:
            return VaultFile(changed=event.seq, state="deleted")
        case _:
            return file


def size_of(content: str) -> int:
    """Bytes of a text."""
    return len(content) if content.isascii() else len(content.encode("utf-8", "replace"))


# --- requests -----------------------------------------------------------------------------------------------------

PathText = Annotated[str, Meta(min_length=1, max_length=400, description="a path such as notes/plan.md")]
Content = Annotated[str, Meta(max_length=BODY_BYTES, description="the text of the file")]


class Create(Command, frozen=True, kw_only=True):
    """Create a file. If there is one already, you are told its version."""

    path: PathText
    content: Content


class Write(Command, frozen=True, kw_only=True):
    """Write the whole text of a file; it is created if need be."""

    path: PathText
    content: Content
    expect: Expect = None


class Patch(Command, frozen=True, kw_only=True):
    """Change a part of a file: `old` by `new`, where `old` stands exactly once, or members of a JSON document by
    `merge`."""

    path: PathText
    old: Annotated[
        Annotated[str, Meta(min_length=1, max_length=BODY_BYTES)] | None,
        Meta(description="the text to replace, which stands in the file once"),
    ] = None
    new: Annotated[str, Meta(max_length=BODY_BYTES, description="what stands there instead (default: nothing)")] = ""
    merge: Annotated[
        dict[str, Any] | None, Meta(description="a JSON merge patch: members are merged, null takes one away")
    ] = None
    expect: Expect = None


class Delete(Command, frozen=True, kw_only=True):
    """Delete a file, or a directory with everything in it. What was there can be read as of before."""

    path: PathText


class Rename(Command, frozen=True, kw_only=True):
    """Give a file, or a directory with everything in it, another path."""

    path: PathText
    new_path: Annotated[PathText, Meta(description="the path it gets, where nothing is yet")]


class Read(Query, frozen=True, kw_only=True):
    """Read a file, and its version. Characters that would act on a terminal are printed escaped; --json has the text
    as it is."""

    path: PathText


class List(PageQuery, frozen=True, kw_only=True):
    """List the files, in the order of their last change."""

    directory: Annotated[PathText | None, Meta(description="only files in this directory, and in those below")] = None


class History(PageQuery, frozen=True, kw_only=True):
    """Show the versions of a file: the newest ones, or those after `since`."""

    path: PathText
    before: Annotated[Seq | None, Meta(description="only versions before this seq")] = None


class Diff(Query, frozen=True, kw_only=True):
    """Show how the text of a file changed between two moments. Without `start` it is the last change."""

    path: PathText
    start: Annotated[Position | None, Meta(description="the moment to begin at, a seq")] = None
    end: Annotated[Position | None, Meta(description="the moment to end at, a seq (default: now)")] = None


class Expand(Query, frozen=True, kw_only=True):
    """Put files in place of the references to them: `@[notes/plan.md]` becomes the text of that file."""

    text: Annotated[str, Meta(min_length=1, max_length=200_000, description="a text with @[path] in it")]


class FileReply(Reply, frozen=True, kw_only=True):
    """A file is as it is now; `seq` is its version."""

    path: str
    size: int


class DeleteReply(Reply, frozen=True, kw_only=True):
    """So many files are gone."""

    path: str
    files: int


class RenameReply(Reply, frozen=True, kw_only=True):
    """So many files have another path."""

    path: str
    new_path: str
    files: int


class File(Answer, frozen=True, kw_only=True):
    """A file. `version` is the seq of its last change: what `expect` takes."""

    path: str
    version: int
    size: int
    content: str


class FileRow(Struct, frozen=True, kw_only=True):
    """A file as listed. `seq` is that of its last change."""

    path: str
    seq: int
    size: int


class Files(Answer, frozen=True, kw_only=True):
    files: list[FileRow]
    next: int | None = None


class FileVersion(Struct, frozen=True, kw_only=True):
    """What a path was from one event on: `bus vault read --as-of SEQ` shows the text."""

    seq: int
    time: datetime
    agent: str
    type: str
    state: str
    size: int


class Versions(Answer, frozen=True, kw_only=True):
    """Versions, oldest first. `next` is the `since` that continues where this page ends."""

    versions: list[FileVersion]
    next: int | None = None


class Difference(Answer, frozen=True, kw_only=True):
    """What changed after event `start` until event `end`, as a unified diff; empty when nothing did."""

    path: str
    start: int
    end: int
    diff: str


class Included(Struct, frozen=True, kw_only=True):
    """A file that was put in place of references to it. `seq` is its version."""

    path: str
    seq: int


class Expanded(Answer, frozen=True, kw_only=True):
    """A text with files put in place of references. `missing` are references to what is no file, and `skipped` files
    that would stand inside themselves, or too deeply in others; both stand in the text as they were written."""

    text: str
    included: list[Included]
    missing: list[str]
    skipped: list[str]
