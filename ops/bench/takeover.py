"""Section T: how long nobody's writes are accepted when the leader is gone, frozen or cut off.

Rules:
* A second daemon stands by, the first one's supervisor is frozen, so that only a take-over ends the silence.
* Four agents post without a pause; the silence is the longest time between two answers to any of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise

import anyio
import msgspec
import psutil

from bench.crew import ROOT
from bench.figures import Figures, at_most, p50
from bench.ground import NAMESPACE, STEADY_S, Ground
from bus import lifecycle
from bus.client import Bus
from bus.domain import channel
from bus.lifecycle import DaemonFile

HOWS = ("killed", "frozen", "cut off")
TARGET_S = 5.0
POSTERS = 4
WAIT_S = 60.0
STAND_BY_S = 3.0
"""What a daemon needs to start and to stand by."""


class Line:
    """A loopback network between a daemon and its server that can be cut without either being told."""

    def __init__(self, port: int) -> None:
        self.whole = asyncio.Event()
        self.whole.set()
        self._target = port

    @asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # It is left to the end of the loop, which would complain.
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self.whole.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


def silences(ground: Ground, times: int) -> Figures:
    """T. The silence after each way of losing a leader."""
    figures = Figures("T")
    ground.up()
    ground.register([f"poster-{number}" for number in range(POSTERS)])
    for how in HOWS:
        took = [anyio.run(partial(_silence, ground, how)) for _ in range(times)]
        figures.add(
            f"no write accepted, leader {how}, longest of {times}",
            max(took),
            "s",
            target=at_most(TARGET_S, "value"),
            note=f"p50 {p50(took):.2f} s",
        )
    return figures


async def _silence(ground: Ground, how: str) -> float:
    answered: list[float] = []
    async with AsyncExitStack() as stack:
        line = Line(int(ground.url.rpartition(":")[2]))
        url = await stack.enter_async_context(line.url())
        second = _second(ground, url)
        stack.callback(_end, second)
        supervisor = lifecycle.status(ground.home).supervisor
        assert supervisor is not None
        await _until(lambda: _supervised(supervisor) is not None)
        await anyio.sleep(STAND_BY_S)
        victim = await _leader(ground)
        while how == "cut off" and victim != second.pid:  # The one behind the line has to lead, however long it takes.
            if second.poll() is not None:
                raise RuntimeError(f"the daemon behind the line ended with status {second.returncode}")
            os.kill(victim, signal.SIGKILL)
            await _until(lambda gone=victim: _supervised(supervisor) not in (None, gone))
            await anyio.sleep(STAND_BY_S)
            victim = await _leader(ground)
        os.kill(supervisor, signal.SIGSTOP)
        stack.callback(os.kill, supervisor, signal.SIGCONT)
        async with anyio.create_task_group() as tasks:
            for number in range(POSTERS):
                tasks.start_soon(_post, ground, f"poster-{number}", answered)
            await _until(lambda: len(answered) > 100)
            if how == "cut off":
                line.whole.clear()
            else:
                os.kill(victim, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            await _until(lambda: _said(ground) not in (None, victim))
            enough = len(answered) + 100
            await _until(lambda: len(answered) > enough)
            tasks.cancel_scope.cancel()
        if how == "frozen":
            os.kill(victim, signal.SIGCONT)
        line.whole.set()
    return max(after - before for before, after in pairwise(answered))


async def _post(ground: Ground, name: str, answered: list[float]) -> None:
    async with Bus.connect(agent=name, home=ground.home.path, namespace=NAMESPACE, timeout_s=STEADY_S) as bus:
        await bus.call(channel.Join(channel="dev"))
        while True:
            await bus.call(channel.Post(channel="dev", text="still there"))
            answered.append(time.monotonic())
            await anyio.sleep(0.005)


def _second(ground: Ground, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "cli.daemon", "--home", str(ground.home.path), "--url", url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _said(ground: Ground) -> int | None:
    """The pid of the daemon that said last that it leads, if it lives."""
    with suppress(OSError, msgspec.MsgspecError, psutil.Error):
        said = msgspec.json.decode((ground.home.run / "daemon.json").read_bytes(), type=DaemonFile)
        lives = psutil.Process(said.pid).status() != psutil.STATUS_ZOMBIE
        return said.pid if said.leading and lives else None
    return None


def _supervised(supervisor: int) -> int | None:
    """The pid of the daemon that the supervisor keeps; what ends again and again it does not start at once again."""
    for child in psutil.Process(supervisor).children():
        with suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "cli.daemon" in child.cmdline():
                return child.pid
    return None


async def _leader(ground: Ground) -> int:
    await _until(lambda: _said(ground) is not None)
    pid = _said(ground)
    assert pid is not None
    return pid


async def _until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(WAIT_S):
        while not condition():
            await anyio.sleep(0.01)
