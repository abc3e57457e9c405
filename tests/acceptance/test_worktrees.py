"""One bus per repository: its worktrees share it, git's cleaning does not touch it, and a copy is no second one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bus import config
from bus import home as homes
from bus.client import Bus
from bus.domain import channel
from bus.errors import Refused
from bus.home import adopt, open_home
from tests.acceptance.support import Rig, copy_live

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("BUS_", "GIT_"))} | {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=directory, env=ENVIRON, check=True, capture_output=True, text=True).stdout


def settings(directory: Path, agent: str = "owner", namespace: str | None = None) -> config.Settings:
    """What a command in this directory works with."""
    return config.load(agent=agent, namespace=namespace, cwd=directory, environ=ENVIRON)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit and some ignored files."""
    path = tmp_path / "project"
    path.mkdir()
    git(path, "init", "--initial-branch=main")
    (path / ".gitignore").write_text(".bus/\n*.log\n")
    (path / "file").write_text("text\n")
    git(path, "add", ".")
    git(path, "commit", "-m", "Begin")
    return path


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[[Path], Rig]]:
    """`make_rig(directory)` makes the bus of a directory, as `bus init` there would."""
    made: list[Rig] = []

    def make(directory: Path) -> Rig:
        rig = Rig(tmp_path, home=homes.create(settings(directory).home))
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.close()


async def say(directory: Path, text: str, agent: str = "owner", namespace: str | None = None) -> int:
    async with Bus.connect(agent, settings=settings(directory, agent, namespace)) as bus:
        await bus.call(channel.Open(channel="dev"))
        return (await bus.call(channel.Post(channel="dev", text=text))).seq


async def heard(directory: Path, after: int = 0, namespace: str | None = None) -> list[str]:
    """What was said, in an answer that contains event `after`."""
    async with Bus.connect(settings=settings(directory, namespace=namespace)) as bus:
        return [message.text for message in (await bus.call(channel.Read(channel="dev", after=after))).messages]


async def test_two_worktrees_share_one_bus(repository: Path, make_rig: Callable[[Path], Rig], tmp_path: Path) -> None:
    rig = make_rig(repository)
    git(repository, "worktree", "add", "-b", "side", str(tmp_path / "elsewhere" / "side"))
    side = tmp_path / "elsewhere" / "side"
    (side / "deep" / "down").mkdir(parents=True)
    await say(repository, "from the main worktree", "atlas")
    seq = await say(side / "deep" / "down", "from the other", "nova")
    both = ["from the main worktree", "from the other"]
    assert await heard(repository, seq) == await heard(side, seq) == both
    assert settings(side).namespace == settings(repository).namespace == "project"
    # One set of processes, however it was found.
    assert rig.pid("server") is not None
    assert len(list(tmp_path.rglob("home.toml"))) == 1
    # A worktree that is removed takes nothing with it.
    git(repository, "worktree", "remove", "--force", str(side))
    assert await heard(repository) == both


async def test_cleaning_and_stashing_leave_the_bus_whole(repository: Path, make_rig: Callable[[Path], Rig]) -> None:
    rig = make_rig(repository)
    await say(repository, "before")
    pids = [rig.pid(kind) for kind in ("supervisor", "server", "daemon")]
    (repository / "trash.log").write_text("ignored")
    (repository / "new").write_text("untracked")
    (repository / "file").write_text("changed")
    assert "trash.log" in git(repository, "clean", "-ffdx")
    (repository / "trash.log").write_text("ignored")
    (repository / "new").write_text("untracked")
    git(repository, "stash", "--all")
    assert git(repository, "status", "--porcelain", "--ignored") == ""
    git(repository, "gc", "--prune=now")
    seq = await say(repository, "after")
    assert await heard(repository, seq) == ["before", "after"]
    assert [rig.pid(kind) for kind in ("supervisor", "server", "daemon")] == pids
    # Nothing of it is in a commit or in a clone.
    git(repository, "stash", "pop")
    git(repository, "add", "--all", "--force")
    assert not [name for name in git(repository, "ls-files").splitlines() if "bus" in name or "home.toml" in name]
    clone = repository.parent / "clone"
    git(repository.parent, "clone", str(repository), str(clone))
    assert not list(clone.rglob("home.toml"))
    assert settings(clone).home == clone / ".git" / "bus"


async def test_a_submodule_has_a_bus_of_its_own(repository: Path, make_rig: Callable[[Path], Rig]) -> None:
    library = repository.parent / "library"
    git(repository.parent, "clone", str(repository), str(library))
    git(repository, "submodule", "add", str(library), "vendored")
    outer, inner = make_rig(repository), make_rig(repository / "vendored")
    assert outer.home.path != inner.home.path
    assert await heard(repository, await say(repository, "outside")) == ["outside"]
    assert await heard(repository / "vendored", await say(repository / "vendored", "inside")) == ["inside"]
    assert outer.pid("server") != inner.pid("server")


async def test_a_copied_home_refuses_until_it_is_adopted(repository: Path, make_rig: Callable[[Path], Rig]) -> None:
    rig = make_rig(repository)
    await say(repository, "the original")
    copy = repository.parent / "copy"
    copy_live(repository, copy)
    with pytest.raises(Refused, match="bus adopt") as refused:
        await heard(copy)
    assert refused.value.code == "home_copied"
    # The original does not notice, and is not confused.
    seq = await say(repository, "goes on")
    adopted = Rig(repository.parent, home=adopt(copy / ".git" / "bus"))
    try:
        other = await say(copy, "the adopted one", namespace="project")
        assert await heard(copy, other, "project") == ["the original", "the adopted one"]
        assert await heard(repository, seq) == ["the original", "goes on"]
        assert adopted.pid("server") != rig.pid("server")
    finally:
        adopted.close()


async def test_a_moved_repository_says_so_and_can_be_adopted(repository: Path, make_rig: Callable[[Path], Rig]) -> None:
    rig = make_rig(repository)
    await say(repository, "before the move")
    rig.close()
    moved = repository.parent / "moved"
    repository.rename(moved)
    with pytest.raises(Refused, match="bus adopt") as refused:
        open_home(moved / ".git" / "bus")
    assert refused.value.code == "home_moved"
    adopted = Rig(repository.parent, home=adopt(moved / ".git" / "bus"))
    try:
        assert await heard(moved, namespace="project") == ["before the move"]
    finally:
        adopted.close()
