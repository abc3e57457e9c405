"""The git repository around a command: where its root is, and paths as they are typed, seen from there.

Rules:
* `src` is typed in any directory and means `<that directory>/src`; the bus knows paths from the repository's root only.
  This is reading, not deciding: what is no path of the repository is refused by the bus, here it only has no reading.
* A directory that is there gets a slash, because for the bus a path without one is a single file.
* Outside of a repository paths stay as they are typed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from bus.errors import InvalidRequest, NotFound, Unavailable
from bus.model import Request

GIT_TIMEOUT_S = 20


class Place(NamedTuple):
    """The root of the worktree, and the names that lead from there to the working directory."""

    root: Path
    prefix: tuple[str, ...]


def git(*arguments: str, cwd: Path | None = None) -> bytes | None:
    """What git prints, or None when it fails. Raises Unavailable when there is none or it does not end."""
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, timeout=GIT_TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Unavailable("git does not run here", code="no_git", found=str(error), hint="Install git") from error
    return done.stdout if done.returncode == 0 else None


def place(cwd: Path | None = None) -> Place | None:
    """Where the working directory is, or None outside of a worktree."""
    try:
        output = git("rev-parse", "--show-toplevel", "--show-prefix", cwd=cwd)
    except Unavailable:
        return None
    if output is None:
        return None
    root, _, prefix = os.fsdecode(output).removesuffix("\n").partition("\n")
    return Place(Path(root), tuple(filter(None, prefix.split("/"))))


def place_needed() -> Place:
    """Where the working directory is. Raises NotFound outside of a worktree."""
    known = place()
    if known is None:
        raise NotFound(
            "this is no worktree of a git repository",
            code="no_worktree",
            entity=str(Path.cwd()),
            expected="a directory with files of a repository",
            found="none",
            hint="Go to the repository's directory first",
        )
    return known


def from_here(request: Request, cwd: Path | None = None) -> Request:
    """`request` with its paths seen from the root of the repository around the working directory."""
    if not request.__class__.__module__.endswith(".reservation"):
        return request  # Before the family is imported that most requests are not of.
    from bus.domain import reservation

    if not isinstance(request, reservation.Reserve | reservation.Release | reservation.Check) or not request.paths:
        return request
    known = place(cwd)
    return request if known is None else replace(request, paths=tuple(seen(known, path) for path in request.paths))


def seen(here: Place, path: str) -> str:
    """`path` as it is typed at `here`, from the root. Raises InvalidRequest when it lies outside."""
    if not path:
        return path
    names = _below(here.root, path) if path.startswith("/") else [*here.prefix, *path.split("/")]
    found: list[str] = []
    for name in names:
        if name == "..":
            if not found:
                raise _outside(here, path)
            found.pop()
        elif name not in ("", "."):
            found.append(name)
    if not found:
        return "."
    text = "/".join(found)
    return f"{text}/" if path.endswith("/") or here.root.joinpath(*found).is_dir() else text


def _below(root: Path, path: str) -> list[str]:
    """The names of an absolute path below the root, which may be reached by several names (links)."""
    for start in dict.fromkeys((str(root), os.path.realpath(root))):
        for whole in (os.path.normpath(path), os.path.realpath(path)):
            if whole == start or whole.startswith(f"{start.rstrip('/')}/"):
                return whole[len(start) :].split("/")
    raise _outside(Place(root, ()), path)


def _outside(here: Place, path: str) -> InvalidRequest:
    return InvalidRequest(
        "the path is outside of the repository",
        code="bad_path",
        entity=f"path {path[:80]!r}",
        expected=f"a path below {here.root}",
        found=path[:200],
        hint="Only files of this repository can be reserved here",
    )
