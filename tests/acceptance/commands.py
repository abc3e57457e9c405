"""The command `bus` for tests: installed, in a git repository, one process per command.

Rules: every wait has a condition; every process that a command starts belongs to one home and is stopped with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

BUS = str(Path(sys.executable).with_name("bus"))
WAIT_S = 30.0
KEPT = {
    name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH") if name in os.environ
}


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output; there must be nothing else on either output."""
        assert self.err == ""
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """JSON lines."""
        assert self.err == ""
        return [json.loads(line) for line in self.out.splitlines()]


class Repo:
    """A git repository and the commands that are run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(["git", "init", "-q", str(path)], check=True)
        self.home = path / ".git" / "bus"

    def bus(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None) -> Done:
        done = subprocess.run(
            [BUS, *words],
            input=stdin,
            capture_output=True,
            cwd=cwd or self.path,
            env=KEPT | (env or {}),
            timeout=2 * WAIT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *words: str, **options: Any) -> Any:
        done = self.bus(*words, "--json", **options)
        assert done.code == 0, done
        return done.json

    def seen(self, agent: str) -> Path:
        return self.home / "run" / "seen" / agent

    def status(self) -> Any:
        return self.bus("status", "--json").json

    def alive(self) -> list[int]:
        """Pids of processes that work for this home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.home) in word for word in process.cmdline()):
                    found.append(process.pid)
        return found


class Follower:
    """A command that goes on until it is interrupted."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._said = b""

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, words: tuple[str, ...]) -> Iterator[Follower]:
        with subprocess.Popen(
            [BUS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=KEPT
        ) as process:
            try:
                yield cls(process)
            finally:
                if process.poll() is None:
                    process.kill()

    def line(self, pattern: str) -> str:
        """The next line that matches; lines before it are dropped."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + WAIT_S
        while True:
            while b"\n" in self._said:
                first, _, self._said = self._said.partition(b"\n")
                if re.search(pattern, first.decode()):
                    return first.decode()
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no line like {pattern}; said {self._said!r}"
            if select.select([self.process.stdout], [], [], left_s)[0]:
                piece = os.read(self.process.stdout.fileno(), 65_536)
                assert piece, f"it ended: {self.process.wait()}"
                self._said += piece

    def interrupt(self) -> Done:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=WAIT_S)
        return Done(self.process.returncode, out.decode(), err.decode())


def listening(repo: Repo, *words: str) -> contextlib.AbstractContextManager[Follower]:
    """A command that goes on; it is killed in the end if it was not interrupted."""
    return Follower.started(repo.path, words)


@pytest.fixture(scope="module", name="repo")
def shared_repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """A repository with a bus that the tests of one file share."""
    made = Repo(tmp_path_factory.mktemp("cli") / "Project X")
    assert made.bus("init").code == 0
    yield made
    assert made.bus("down").code == 0
    assert not made.alive()


@pytest.fixture(name="fresh")
def fresh_repo(tmp_path: Path) -> Iterator[Repo]:
    """A repository without a bus; whatever a test starts there is stopped."""
    made = Repo(tmp_path / "repo")
    yield made
    if made.home.exists():
        made.bus("down")
    assert not made.alive()
