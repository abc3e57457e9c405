"""The guard: a git hook that refuses a commit of paths that another agent holds exclusively.

Rules:
* It stands where git looks for the hook `pre-commit` (`core.hooksPath`, or the hooks that all worktrees share). A hook
  that was there is kept beside it and runs first; taking the guard away puts it back as it was.
* A commit touches what it adds, changes, deletes, and renames from or to. A merge touches what is in neither side.
* Who commits is the agent of `bus` (BUS_AGENT, or --as); what it holds itself never stands in its way.
* When the bus cannot be asked, the commit passes with a warning, or is refused: `unreachable` in `[guard]` of the
  configuration. A bus that was stopped on purpose is not started again for a commit.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

from bus import lifecycle
from bus.domain import reservation
from bus.domain.globs import normal, quoted
from bus.errors import BusError, InvalidRequest, NotFound, Refused, Unavailable
from bus.home import open_home
from bus.tunables import GuardLimits
from cli import asking
from cli.fields import Typed
from cli.generate import Command, make_command
from cli.groups import Group, make_group
from cli.options import Common
from cli.render import Screen, write_json
from cli.repository import git, place_needed

TEXT = "The guard: a git hook that refuses commits of paths that another agent holds."
VERBS = {
    "install": "set the hook in this repository, for all its worktrees",
    "uninstall": "take it away, and put back the hook that was there",
    "status": "whether it is set, and what it does when the bus is down",
    "check": "whether what is staged could be committed now (the hook runs this)",
}
HOOK, BEFORE = "pre-commit", "pre-commit.before-guard"
MARK = "# The guard of the bus."
CHECK_S = 10.0
"""A commit waits so long for the bus."""
PAGE_PATHS, PAGE_CHARS = 500, 200_000
SHOWN = 20
_SHELL = re.compile(r"#! *(/\S*/(?:ba|da|k)?sh|/usr/bin/env +(?:ba|da|k)?sh)((?: +-\w+)*)\s*")
_DIFF = ("diff", "--cached", "--name-only", "-z", "--no-renames", "--no-relative", "--no-ext-diff")


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """`bus guard status`. `chained` is the hook that was there before and runs first."""

    installed: bool
    hook: str
    chained: str | None
    unreachable: str


def group() -> Group:
    """`bus guard`."""
    acts: dict[str, tuple[Callable[[Common, Typed], None], str]] = {
        "install": (_install, "Refuse commits of paths that another agent holds, in all worktrees of this repository."),
        "uninstall": (_uninstall, "Take the guard away. A hook that was there before is put back as it was."),
        "status": (_status, "Show whether the guard is set, and what it does when the bus cannot be asked."),
        "check": (_check, "Check what is staged, as the hook does. Ends with 3 when another agent holds any of it."),
    }

    def made(verb: str) -> Command:
        act, text = acts[verb]
        return make_command(verb, (), act, text, f"bus guard {verb}")

    found = make_group("guard", {verb: partial(made, verb) for verb in VERBS}, TEXT)
    found.sections = lambda: (("Commands", list(VERBS.items())),)
    return found


# --- the hook -------------------------------------------------------------------------------------------------------


def hooks_directory() -> Path:
    """Where git looks for hooks here. Raises Refused when other repositories look there as well."""
    root = place_needed().root
    scope, _, shared = os.fsdecode(git("config", "--show-scope", "--get", "core.hooksPath") or b"").partition("\t")
    if scope in ("global", "system"):
        raise Refused(
            "other repositories use the same hooks",
            code="shared_hooks",
            entity=f"core.hooksPath {shared.strip()}",
            expected="hooks of this repository alone",
            found=f"the {scope} configuration of git",
            hint="Give it hooks of its own (git config --local core.hooksPath DIR), then install the guard",
        )
    # A relative path in core.hooksPath counts from the root of the worktree.
    output = git("rev-parse", "--path-format=absolute", "--git-path", "hooks", cwd=root)
    if output is None:
        raise Unavailable("git does not say where hooks are", code="git_refused", hint="git 2.31 or newer is needed")
    return Path(os.fsdecode(output).removesuffix("\n"))


def is_ours(hook: Path) -> bool:
    try:
        return MARK in hook.read_text(errors="replace")
    except OSError:
        return False


def hook_text(before: Path) -> str:
    """The hook: first the one that was there, under the name by which it knows itself, then the check."""
    first = ""
    if os.path.lexists(before):
        shell = _SHELL.fullmatch(_first_line(before))
        run = f'{shell[1]}{shell[2]} -c \'. "$0.before-guard"\' "$0" "$@"' if shell else '"$0.before-guard" "$@"'
        first = f'if [ -x "$0.before-guard" ]; then {run} || exit $?; fi\n'
    python = shlex.quote(sys.executable)
    return (
        f"#!/bin/sh\n{MARK} `bus guard uninstall` takes it away.\n{first}"
        f"if [ ! -x {python} ]; then\n"
        "    echo 'warning: this commit was not checked: the bus is not where it was (bus guard install)' >&2\n"
        f"    exit 0\nfi\nexec {python} -P -m cli.main guard check\n"
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""


def install(hooks: Path) -> None:
    """Set the hook; the one that is there is kept beside it. Doing it again changes nothing. Raises Refused."""
    hook, before = hooks / HOOK, hooks / BEFORE
    hooks.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(hook) and not is_ours(hook):
        if os.path.lexists(before):
            raise Refused(
                "another hook took the place of the guard",
                code="hook_replaced",
                entity=str(hook),
                expected="the guard's hook",
                found=f"another one, while {BEFORE} is kept beside it",
                hint=f"Remove {BEFORE} if {HOOK} does its work by now, or {HOOK} if not; then install again",
            )
        hook.rename(before)
    new = hooks / f".{HOOK}.guard"
    new.write_text(hook_text(before))
    new.chmod(0o755)
    new.replace(hook)


def uninstall(hooks: Path) -> None:
    """Take the hook away and put back what was there. Raises NotFound or Refused."""
    hook, before = hooks / HOOK, hooks / BEFORE
    if not os.path.lexists(hook) and not os.path.lexists(before):
        raise NotFound("the guard is not installed", code="no_guard", entity=str(hook), hint="`bus guard install`")
    if os.path.lexists(hook) and not is_ours(hook):
        raise Refused(
            "the hook there is not the guard's",
            code="hook_replaced",
            entity=str(hook),
            expected="the guard's hook",
            found="another one",
            hint="There is nothing to take away; a hook that runs the guard itself has to be changed by hand",
        )
    if os.path.lexists(before):
        before.replace(hook)
    else:
        hook.unlink()


def _install(common: Common, typed: Typed) -> None:
    install(hooks_directory())
    _status(common, typed)


def _uninstall(common: Common, typed: Typed) -> None:
    uninstall(hooks_directory())
    _status(common, typed)


def _status(common: Common, typed: Typed) -> None:
    hooks = hooks_directory()
    chained = str(hooks / BEFORE) if os.path.lexists(hooks / BEFORE) else None
    policy = asking.settings_of(common).file.guard.unreachable
    state = Guard(installed=is_ours(hooks / HOOK), hook=str(hooks / HOOK), chained=chained, unreachable=policy)
    if common.json:
        write_json(state)
        return
    screen = Screen(sys.stdout)
    screen.line("the guard is ", ("set", "green") if state.installed else ("not set", "yellow"), f": {state.hook}")
    if state.chained:
        screen.line(f"before it runs {state.chained}", indent=2)
    if state.installed:
        words = "passes with a warning" if policy == "allow" else "is refused"
        screen.line(f"when the bus cannot be asked, a commit {words}", indent=2)


# --- the check ------------------------------------------------------------------------------------------------------


def touched() -> list[str]:
    """The paths that a commit of what is staged would touch, from the repository's root."""
    root = place_needed().root
    found = _differing(root)
    heads = git("rev-parse", "--path-format=absolute", "--git-path", "MERGE_HEAD", cwd=root)
    merging = Path(os.fsdecode(heads or b"").removesuffix("\n"))
    if heads and merging.is_file():
        # What comes from the other side was committed there.
        for head in merging.read_text().split():
            found &= _differing(root, head)
    return sorted(found)


def _differing(root: Path, *commit: str) -> set[str]:
    output = git(*_DIFF, *commit, "--", cwd=root)
    if output is None:
        raise Unavailable("git does not say what is staged", code="git_refused", hint="See `git diff --cached`")
    return set(output.decode("utf-8", "surrogateescape").split("\0")) - {""}


def _check(common: Common, typed: Typed) -> None:
    paths = touched()
    try:
        conflicts = anyio.run(_conflicts, common, paths) if paths else {}
    except (BusError, OSError, TimeoutError) as error:
        _unchecked(common, error)
        return
    if conflicts:
        raise _held(conflicts, asking.settings_of(common).agent)
    if common.json:
        write_json({"checked": True, "paths": len(paths)})


async def _conflicts(common: Common, paths: Sequence[str]) -> dict[str, reservation.Conflict]:
    """Who holds which of these paths."""
    settings = asking.settings_of(common)
    if settings.url is None and lifecycle.was_stopped(open_home(settings.home)):
        raise Unavailable("the bus was stopped", code="stopped", hint="`bus up` starts it")
    found: dict[str, reservation.Conflict] = {}
    with anyio.fail_after(common.timeout_s or CHECK_S):
        async with asking.connected(common, CHECK_S) as asker:
            for page in _pages(paths):
                request = reservation.Check(paths=tuple(page), mode="shared")
                answer: reservation.Conflicts = await asker.call(request)
                found |= {page[conflict.path]: conflict for conflict in answer.conflicts}
    return found


def _pages(paths: Sequence[str]) -> Iterator[dict[str, str]]:
    """The paths in pieces that fit into a request: as the bus writes them -> as git does."""
    page: dict[str, str] = {}
    for path in paths:
        try:
            page[normal(quoted(path))] = path
        except InvalidRequest as error:
            # Nobody can have reserved it by its name.
            _warn(f"not checked: {error}")
        if len(page) >= PAGE_PATHS or sum(map(len, page)) >= PAGE_CHARS:
            yield page
            page = {}
    if page:
        yield page


def _held(conflicts: dict[str, reservation.Conflict], agent: str) -> Refused:
    lines = []
    for path, one in sorted(conflicts.items())[:SHOWN]:
        why = f": {one.reason}" if one.reason else ""
        lines.append(f"{path}  is held by {one.agent} until {one.expires:%Y-%m-%dT%H:%M:%SZ} ({one.held}){why}")
    if len(conflicts) > SHOWN:
        lines.append(f"… and {len(conflicts) - SHOWN} more")
    holders = sorted({one.agent for one in conflicts.values()})
    return Refused(
        "\n".join(["this commit touches what others hold", *lines]),
        code="reserved",
        expected=f"paths that nobody but {agent} holds exclusively",
        found=f"{len(conflicts)} held by {', '.join(holders)}",
        hint=f"Wait, or ask {' or '.join(holders)} to release them. You commit as {agent}: if that is not you, set "
        "BUS_AGENT. `git commit --no-verify` goes past the guard.",
        conflicts=[msgspec.to_builtins(one) | {"path": path} for path, one in sorted(conflicts.items())],
    )


def _unchecked(common: Common, error: Exception) -> None:
    """The bus could not be asked: let the commit pass, or refuse it, as the configuration says."""
    policy = GuardLimits().unreachable
    try:
        policy = asking.settings_of(common).file.guard.unreachable
    except BusError as problem:
        _warn(str(problem))
    said = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
    if policy == "refuse":
        raise Unavailable(
            "the bus could not be asked whether this commit may be made",
            code="unchecked",
            expected="an answer",
            found=said,
            hint='Start the bus, or set unreachable = "allow" in [guard] of its configuration',
        ) from error
    _warn(f"this commit was not checked, because the bus could not be asked: {said}")
    if common.json:
        write_json({"checked": False, "found": said})


def _warn(text: Any) -> None:
    Screen(sys.stderr).line(("warning: ", "yellow"), text)
