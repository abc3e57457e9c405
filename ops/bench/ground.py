"""The ground a bench stands on: a bus of its own in a temporary directory, and the raw NATS beside it.

Rules:
* Everything is gone at the end: processes, streams, files.
* The raw limits are taken on the same server and in the same account. The stream `RAW` lies beside the log, under
  subjects that a daemon's credentials may publish to and the log does not take.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import psutil

from bus import auth, lifecycle
from bus.auth import Credentials
from bus.client import Bus
from bus.domain import agent
from bus.home import Home, create
from bus.keyring import now_s
from bus.transport import connect

NAMESPACE = "bench"
RAW = "RAW"
RAW_PREFIX = "log.bench.raw.0"
"""Four tokens are the log's subjects; one more is the raw stream's."""
IDLE_DAEMON = [sys.executable, "-c", "import sys; print('idle', flush=True); sys.stdin.read()"]
STEADY_S = 600.0
IDLE = 0.1
"""A daemon that takes less of a processor has nothing to do but to look whether there is anything."""


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds a process has used, and its resident bytes."""

    cpu_s: float
    rss: int


class Ground:
    """One bus in a temporary directory. Made by `ground`."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def up(self, *, idle: bool = False) -> None:
        """Start server and daemon; `idle`: a daemon that does nothing, so that the bench may write the log."""
        lifecycle.ensure_up(self.home, daemon=IDLE_DAEMON if idle else ())

    def down(self) -> None:
        lifecycle.down(self.home)

    @property
    def url(self) -> str:
        url = lifecycle.status(self.home).url
        assert url is not None
        return url

    def pid(self, name: str) -> int:
        """The pid of `daemon`, `server` or `supervisor`, as soon as it runs."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            pid: int | None = getattr(lifecycle.status(self.home), name)
            if pid is not None:
                return pid
            time.sleep(0.02)
        raise RuntimeError(f"no {name} runs")

    def usage(self, name: str) -> Usage:
        process = psutil.Process(self.pid(name))
        times = process.cpu_times()
        return Usage(times.user + times.system, process.memory_info().rss)

    def settle(self) -> None:
        """Return when the daemon has nothing to do any more: what it makes after a start or after many events is not
        to be measured beside what it answers."""
        before = self.usage("daemon").cpu_s
        deadline = time.monotonic() + STEADY_S
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self.usage("daemon").cpu_s
            if now - before < IDLE:
                return
            before = now
        raise RuntimeError("the daemon has not come to rest")

    def raw_credentials(self) -> Credentials:
        """A user with a daemon's rights, for publishing past the bus."""
        return auth.mint("daemon", "bench", self.home.keyring.load().daemon, self.home.file.account, now_s())

    def raw_creds_file(self) -> Path:
        path = self.home.path.parent / "raw.creds"
        path.write_text(self.raw_credentials().text)
        path.chmod(0o600)
        return path

    def new_raw_stream(self) -> None:
        """An empty raw stream with the settings of the log."""
        anyio.run(partial(self._api, f"$JS.API.STREAM.DELETE.{RAW}", {}))
        config = {
            "name": RAW,
            "subjects": [f"{RAW_PREFIX}.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "allow_atomic": True,
            "allow_direct": True,
            "duplicate_window": 120_000_000_000,
        }
        answer = anyio.run(partial(self._api, f"$JS.API.STREAM.CREATE.{RAW}", config))
        if "error" in answer:
            raise RuntimeError(answer["error"])

    def push_to(self, subject: str) -> None:
        """Make the server send what comes into the raw stream to `subject`."""
        config = {"deliver_subject": subject, "deliver_policy": "new", "ack_policy": "none", "name": "push"}
        answer = anyio.run(
            partial(self._api, f"$JS.API.CONSUMER.CREATE.{RAW}.push", {"stream_name": RAW, "config": config})
        )
        if "error" in answer:
            raise RuntimeError(answer["error"])

    async def _api(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        creds = self.home.keyring.admin()
        async with connect(self.url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection:
            answer = await connection.request(subject, msgspec.json.encode(body), timeout_s=20)
        return msgspec.json.decode(answer.data, type=dict[str, Any])

    def register(self, names: list[str]) -> None:
        """Make agents known, so that no measurement begins with a registration."""
        for name in names:
            self.home.keyring.agent(name)
        anyio.run(partial(self._register, names))

    async def _register(self, names: list[str]) -> None:
        async with Bus.connect(agent="owner", home=self.home.path, namespace=NAMESPACE, timeout_s=STEADY_S) as bus:
            for name in names:
                await bus.call(agent.Register(agent=name))


@contextmanager
def ground(directory: Path | None = None) -> Iterator[Ground]:
    """A new bus, not started."""
    root = Path(tempfile.mkdtemp(prefix="synbus-bench-", dir=directory))
    home = create(root / "bus")
    try:
        yield Ground(home)
    finally:
        lifecycle.down(home)
        shutil.rmtree(root, ignore_errors=True)


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
