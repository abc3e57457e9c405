"""What the acceptance tests share: homes whose processes are gone when the test is, and a stand-in for the daemon."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bus import home as homes
from bus import lifecycle
from bus.home import Home
from tests.acceptance.far import Far, elsewhere
from tests.acceptance.support import Rig, running

WAIT_S = 20.0
DAEMON = [sys.executable, "-c", "import sys; print('a daemon', flush=True); sys.stdin.read()"]
"""It does what the supervisor expects of a daemon: it lives until its standard input ends."""


class Bus:
    """One home, and its processes as the operating system sees them."""

    def __init__(self, path: Path, config: str = "") -> None:
        self.home = homes.create(path)
        (path / "config.toml").write_text(config)

    @classmethod
    def of(cls, home: Home) -> Bus:
        bus = cls.__new__(cls)
        bus.home = home
        return bus

    def up(self, **options: Any) -> Any:
        return lifecycle.ensure_up(self.home, **{"daemon": DAEMON, **options})

    def servers(self) -> list[int]:
        return self._pids(str(self.home.run / "nats-server.conf"))

    def supervisors(self) -> list[int]:
        return self._pids("cli.supervisor")

    def daemons(self) -> list[int]:
        mine = self._pids(str(self.home.path))
        return [pid for pid in mine if pid not in (*self.supervisors(), *self.servers())]

    def _pids(self, word: str) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if word in line and any(str(self.home.path) in part for part in line):
                    found.append(process.pid)
        return found

    def clean_up(self) -> None:
        if self.home.path.exists():
            lifecycle.down(self.home, timeout_s=3)
        wait_until(lambda: not (self.servers() or self.supervisors() or self.daemons()))


def wait_until(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> None:
    """Return once `condition` holds; fail when it takes much too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Commands are interrupted in tests. Whoever runs the tests in the background of a script lets processes ignore
    that, and they would hand it on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def make_bus(tmp_path: Path) -> Iterator[Callable[..., Bus]]:
    """`make_bus(config="")` is a bus with a home of its own, not started."""
    made: list[Bus] = []

    def make(config: str = "", home: Home | None = None) -> Bus:
        bus = Bus(tmp_path / f"bus{len(made)}", config) if home is None else Bus.of(home)
        made.append(bus)
        return bus

    yield make
    for bus in made:
        bus.clean_up()
        shutil.rmtree(bus.home.path, ignore_errors=True)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A bus of the test's own."""
    with running(tmp_path) as rig:
        yield rig


@pytest.fixture
async def far(rig: Rig) -> AsyncIterator[Far]:
    """A host elsewhere that follows that bus."""
    async with elsewhere(rig) as host:
        yield host
