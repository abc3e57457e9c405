"""The guard in real repositories: what others hold is not committed, and nothing else stands in the way of a commit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.commands import KEPT, WAIT_S, Done, Repo, fresh_repo, shared_repo
from tests.acceptance.support import wait_until

__all__ = ["fresh_repo", "shared_repo"]
GIT = KEPT | {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(where: Path, *words: str, agent: str = "nova", **env: str) -> Done:
    command = ["git", "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(
        command, cwd=where, env=GIT | {"BUS_AGENT": agent} | env, capture_output=True, timeout=2 * WAIT_S, check=False
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def well(where: Path, *words: str, **options: str) -> str:
    done = git(where, *words, **options)
    assert done.code == 0, done
    return done.out


def write(where: Path, *names: str, text: str = "new\n") -> None:
    """Change these files and stage them."""
    for name in names:
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        well(where, "add", name)


def commits(where: Path) -> int:
    return int(well(where, "rev-list", "--count", "HEAD"))


@pytest.fixture(scope="module", name="guarded")
def guarded_repo(repo: Repo) -> Repo:
    """A repository with files, a guard, and a bus on which atlas and nova are."""
    write(repo.path, "src/a.py", "src/b.py", "docs/c.md", "docs/d.md", text="one\ntwo\nthree\nfour\n")
    well(repo.path, "commit", "-m", "Begin")
    repo.ok("guard", "install")
    for name in ("atlas", "nova"):
        repo.ok("who", "--as", name)
    return repo


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing is held and nothing is staged when a test has ended."""
    yield
    if "guarded" in request.fixturenames:
        guarded: Repo = request.getfixturevalue("guarded")
        for name in ("atlas", "nova"):
            guarded.bus("reservation", "release", "--all", "--as", name)
        well(guarded.path, "reset", "-q", "--hard")


def hold(repo: Repo, *words: str, agent: str = "atlas") -> None:
    repo.ok("reserve", *words, "--as", agent)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_commit_of_what_another_holds_is_refused_and_says_who_why_and_until_when(guarded: Repo) -> None:
    hold(guarded, "src/", "--reason", "new tokens", "--lease", "1h")
    write(guarded.path, "src/a.py", "docs/c.md")
    before = commits(guarded.path)
    done = git(guarded.path, "commit", "-m", "Mine")
    assert done.code != 0
    (line,) = [line for line in done.err.splitlines() if "src/a.py" in line]
    assert "is held by atlas until 20" in line
    assert "new tokens" in line
    assert "docs/c.md" not in done.err
    assert commits(guarded.path) == before
    # The one who holds it commits it, and everybody does once it is given back.
    well(guarded.path, "commit", "-m", "Theirs", agent="atlas")
    write(guarded.path, "src/a.py", text="again\n")
    assert git(guarded.path, "commit", "-m", "Mine").code != 0
    guarded.ok("reservation", "release", "--all", "--as", "atlas")
    well(guarded.path, "commit", "-m", "Mine")


@pytest.mark.parametrize("change", ["deleted", "renamed away", "renamed onto", "added"])
def test_whatever_touches_a_path_counts(guarded: Repo, change: str) -> None:
    hold(guarded, "docs/d.md", "docs/new.md")
    if change == "deleted":
        well(guarded.path, "rm", "-q", "docs/d.md")
    elif change == "renamed away":
        well(guarded.path, "mv", "docs/d.md", "docs/other.md")
    elif change == "renamed onto":
        well(guarded.path, "mv", "docs/c.md", "docs/new.md")
    else:
        write(guarded.path, "docs/new.md")
    done = git(guarded.path, "commit", "-m", change)
    assert done.code != 0
    assert "is held by atlas" in done.err


def test_only_what_is_held_by_others_alone_is_refused(guarded: Repo) -> None:
    hold(guarded, "src/", "--mode", "shared")
    hold(guarded, "docs/", agent="nova")
    write(guarded.path, "src/b.py", "docs/c.md", "else.txt", "odd [name]*.txt", "tab\tand ü.txt", text="b\n")
    well(guarded.path, "commit", "-m", "All of it")
    hold(guarded, "odd*")
    write(guarded.path, "odd [name]*.txt", text="c\n")
    assert "odd [name]*.txt" in git(guarded.path, "commit", "-m", "Odd").err
    well(guarded.path, "commit", "-m", "Past it", "--no-verify")


def test_a_commit_from_a_directory_or_of_one_file_counts_its_own_paths_only(guarded: Repo) -> None:
    hold(guarded, "src/a.py")
    write(guarded.path, "src/a.py", "src/b.py", text="c\n")
    assert git(guarded.path / "src", "commit", "-m", "Both").code != 0
    well(guarded.path / "src", "commit", "-m", "One", "b.py")


def test_a_merge_counts_only_what_is_in_neither_side(guarded: Repo) -> None:
    well(guarded.path, "checkout", "-q", "-b", "side")
    write(guarded.path, "src/b.py", text="ONE\ntwo\nthree\nfour\n")
    well(guarded.path, "commit", "-m", "Side")
    well(guarded.path, "checkout", "-q", "-")
    write(guarded.path, "docs/c.md", text="main\n")
    well(guarded.path, "commit", "-m", "Main")
    hold(guarded, "src/b.py")
    well(guarded.path, "merge", "--no-edit", "--no-commit", "side")
    well(guarded.path, "commit", "--no-edit")
    well(guarded.path, "reset", "-q", "--hard", "HEAD~1")
    well(guarded.path, "merge", "--no-edit", "--no-commit", "side")
    write(guarded.path, "src/b.py", text="neither\n")
    assert "is held by atlas" in git(guarded.path, "commit", "--no-edit").err
    well(guarded.path, "merge", "--abort")


def test_it_guards_every_worktree(guarded: Repo, tmp_path: Path) -> None:
    side = tmp_path / "side"
    well(guarded.path, "worktree", "add", "-q", "-b", "elsewhere", str(side))
    hold(guarded, "src/")
    write(side, "src/a.py", text="from the side\n")
    assert "is held by atlas" in git(side, "commit", "-m", "Side").err
    assert guarded.ok("guard", "status", cwd=side)["installed"] is True
    # A reservation that is made there counts here.
    guarded.ok("reserve", "c.md", "--as", "atlas", cwd=side / "docs")
    write(guarded.path, "docs/c.md", text="here\n")
    assert "docs/c.md" in git(guarded.path, "commit", "-m", "Here").err


# --- the hook -------------------------------------------------------------------------------------------------------


def test_a_hook_that_was_there_runs_first_and_is_put_back_as_it_was(fresh: Repo) -> None:
    assert fresh.bus("init").code == 0
    hook = fresh.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    text = '#!/bin/sh\necho "first, as $(basename "$0")" >> ran\n[ ! -e stop ] || exit 7\n'
    hook.write_text(text)
    hook.chmod(0o750)
    state = fresh.ok("guard", "install")
    assert (state["installed"], Path(state["chained"]).read_text()) == (True, text)
    assert fresh.ok("guard", "install") == state, "twice is once"
    fresh.ok("reserve", "held.txt", "--as", "atlas")
    write(fresh.path, "free.txt")
    well(fresh.path, "commit", "-m", "Free")
    assert (fresh.path / "ran").read_text() == "first, as pre-commit\n"
    write(fresh.path, "held.txt")
    assert "is held by atlas" in git(fresh.path, "commit", "-m", "Held").err
    assert (fresh.path / "ran").read_text() == "first, as pre-commit\n" * 2
    (fresh.path / "stop").touch()
    done = git(fresh.path, "commit", "-m", "Stopped")
    assert done.code != 0
    assert "is held by" not in done.err, "what the first one refuses is not looked at"
    assert fresh.ok("guard", "uninstall")["installed"] is False
    assert (hook.read_text(), hook.stat().st_mode & 0o777) == (text, 0o750)
    assert [path.name for path in hook.parent.iterdir() if "guard" in path.name] == []
    assert fresh.bus("guard", "uninstall").code == 3, "that hook is not the guard's"


def test_it_stands_where_git_looks_for_hooks(fresh: Repo, tmp_path: Path) -> None:
    assert fresh.bus("init").code == 0
    well(fresh.path, "config", "core.hooksPath", "tools/hooks")
    inside = fresh.path / "tools"
    inside.mkdir()
    assert fresh.ok("guard", "install", cwd=inside)["hook"] == str(inside / "hooks" / "pre-commit")
    fresh.ok("reserve", "held.txt", "--as", "atlas")
    write(fresh.path, "held.txt")
    assert "is held by atlas" in git(fresh.path, "commit", "-m", "Held").err
    fresh.ok("guard", "uninstall")
    well(fresh.path, "config", "--unset", "core.hooksPath")
    shared = tmp_path / "gitconfig"
    shared.write_text(f"[core]\n\thooksPath = {tmp_path}/everybody\n")
    done = fresh.bus("guard", "install", env={"GIT_CONFIG_GLOBAL": str(shared)})
    assert (done.code, "other repositories use the same hooks" in done.err) == (3, True)
    assert not (tmp_path / "everybody").exists()


def test_outside_of_a_repository_there_is_nothing_to_guard(tmp_path: Path, guarded: Repo) -> None:
    done = guarded.bus("guard", "install", cwd=tmp_path)
    assert (done.code, "no worktree of a git repository" in done.err) == (4, True)


# --- without a bus --------------------------------------------------------------------------------------------------


def test_when_the_bus_cannot_be_asked_a_commit_passes_with_a_warning_or_is_refused(fresh: Repo) -> None:
    assert fresh.bus("init").code == 0
    fresh.ok("guard", "install")
    fresh.ok("reserve", "held.txt", "--as", "atlas")
    assert fresh.bus("down").code == 0
    write(fresh.path, "held.txt")
    done = git(fresh.path, "commit", "-m", "Unchecked")
    assert done.code == 0
    assert "warning: this commit was not checked" in done.err
    assert fresh.alive() == [], "a bus that was stopped is not started for a commit"

    (fresh.home / "config.toml").write_text('[guard]\nunreachable = "refuse"\n')
    write(fresh.path, "held.txt", text="more\n")
    done = git(fresh.path, "commit", "-m", "Refused")
    assert done.code != 0
    assert "could not be asked" in done.err
    assert commits(fresh.path) == 1
    assert fresh.bus("up").code == 0
    assert "is held by atlas" in git(fresh.path, "commit", "-m", "Refused").err
    wait_until(lambda: fresh.alive(), what="a bus that runs")


# --- paths as they are typed ----------------------------------------------------------------------------------------


def test_paths_are_those_of_the_repository_wherever_they_are_typed(guarded: Repo, tmp_path: Path) -> None:
    source = guarded.path / "src"
    typed = ["a.py", "../docs", str(source / "b.py"), "./x/../*.md"]
    made = guarded.ok("reserve", *typed, "--as", "atlas", cwd=source)
    assert made["paths"] == ["docs/**", "src/*.md", "src/a.py", "src/b.py"]
    conflicts = guarded.ok("reservation", "check", "a.py", "new.py", "--as", "nova", cwd=source)
    assert [(one["path"], one["agent"]) for one in conflicts["conflicts"]] == [("src/a.py", "atlas")]
    assert conflicts["free"] == ["src/new.py"]
    for outside in ("../../x", "/etc/passwd", str(tmp_path), "../../..", "~/x/../../../.."):
        done = guarded.bus("reserve", outside, "--as", "nova", cwd=source)
        assert (done.code, "outside of the repository" in done.err) == (2, True), outside
    released = guarded.ok("reservation", "release", "--path", "a.py", "--as", "atlas", cwd=source)
    assert released["released"][0]["paths"] == ["src/a.py"]
