"""A yard in which workers run their commands, and what is seen of them there."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.commands import WAIT_S, Done, Follower, Repo
from tests.acceptance.support import wait_until

WAIT_FOR_GO = "while [ ! -e go ]; do sleep 0.05; done"


class Yard:
    """A namespace of its own, and a directory in which the commands run."""

    def __init__(self, repo: Repo, folder: Path) -> None:
        self.repo, self.folder = repo, folder
        self.space = folder.name[-40:].lower().strip("_-")
        self.common = ("--namespace", self.space, "--home", str(repo.home))

    def ok(self, *words: str) -> Any:
        return self.repo.ok(*words, *self.common)

    def open(self, *keys: str, **options: str) -> None:
        given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        for key in keys:
            self.ok("task", "open", f"do {key}", "--task", key, *given)

    def task(self, key: str) -> Any:
        return self.ok("task", "show", key)["task"]

    def work(self, script: str, *options: str) -> Done:
        """A worker that runs a shell script for each task, until it ends by itself."""
        return self.repo.bus(*self._words(script, options), cwd=self.folder)

    def _words(self, script: str, options: tuple[str, ...]) -> tuple[str, ...]:
        return ("work", "--as", "nova", "--json", "--shell", "--exec", script, *options, *self.common)

    def working(self, script: str, *options: str) -> contextlib.AbstractContextManager[Follower]:
        """The same, under way."""
        return Follower.started(self.folder, self._words(script, options))

    def pid(self, name: str = "pid") -> int:
        """What a command wrote into a file as soon as it stands there."""
        path = self.folder / name
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), what=f"the file {name}")
        return int(path.read_text())

    def types(self) -> list[str]:
        lines = self.repo.bus("log", "--from", "1", "--in-namespace", self.space, "--json").lines
        return [line["type"] for line in lines]


def events(done: Done) -> list[tuple[str, str | None]]:
    return [(line["event"], line.get("task")) for line in done.lines]


def ended(follower: Follower) -> Done:
    out, err = follower.process.communicate(timeout=WAIT_S)
    return Done(follower.process.returncode, out.decode(), err.decode())


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
