"""One command that a worker runs: started, listened to, stopped, and the result that it leaves in a file.

Rules:
* It is the first of a process group of its own. When `ended` returns, or `close` has, nobody of that group is left: who
  does not go when asked (SIGTERM) is killed after a grace period.
* Its input is a file and its output is always read, so neither side can wait for the other. Of the output only the end
  is kept.
* A guard knows of it as long as anything of it may be there, and ends it when this process is killed.
* Nothing here knows of tasks or of the bus.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import anyio
import anyio.to_thread
import msgspec
from msgspec import Meta

from bus.model import Seq
from cli.guard import MARK, Guard

KEPT_BYTES = 64_000
"""So much of the end of an output is kept."""
NEWS_BYTES = 2_000
"""So much of it is told at once."""
RESULT_CHARS = 100_000
"""A longer result is cut."""
RESULT_BYTES = 4 * RESULT_CHARS
READ_BYTES = 65_536
PAUSE_S = 0.02
"""How often it is looked whether a process group that was told to end has done so."""
KILLED_S = 2.0
"""Who was killed is waited for so long; what then remains is only the entry of a process that nobody collects."""
DRAIN_S = 1.0
"""After the end of a command its output is read for so long, in case somebody outside its group still holds it."""


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a command wrote into its result file."""

    result: str = ""
    refs: Annotated[tuple[Seq, ...], Meta(max_length=100)] = ()


class Output:
    """The end of what a command has printed."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._count = self._told = 0

    def add(self, data: bytes) -> None:
        self._count += len(data)
        self._kept += data
        del self._kept[:-KEPT_BYTES]

    def tail(self, most: int = NEWS_BYTES) -> str:
        """The last of it, whole lines where there are some."""
        return self._text(min(most, self._count))

    def news(self) -> str:
        """What has come since this was asked last; only its end when that is much."""
        fresh = self._count - self._told
        self._told = self._count
        return self._text(min(fresh, NEWS_BYTES), fresh) if fresh else ""

    def _text(self, most: int, of: int | None = None) -> str:
        left_out = (self._count if of is None else of) - most
        text = bytes(self._kept[len(self._kept) - most :]).decode(errors="replace").strip()
        if not left_out:
            return text
        _, newline, rest = text.partition("\n")
        return f"… ({left_out} bytes before this)\n{rest if newline else text}"


class Running:
    """A command under way. `start` it, let `listen` and `obey` run beside `ended`, and always `close` it."""

    def __init__(self, words: Sequence[str], grace_s: float, guard: Guard) -> None:
        self.output = Output()
        self._words, self._grace_s, self._guard = words, grace_s, guard
        self._told = anyio.Event()
        self._silent = anyio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def start(self, stdin: Path, environment: Mapping[str, str]) -> None:
        """Raises OSError when it cannot be started."""
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        self._guard.expect(environment[MARK])
        try:
            with stdin.open("rb") as file:
                self._process = subprocess.Popen(
                    self._words, stdin=file, stdout=write, stderr=write, env=dict(environment), start_new_session=True
                )
            self._guard.began(self._process.pid)
        finally:
            os.close(write)

    def stop(self) -> bool:
        """Tell it to end. -> whether it was still running"""
        if self._process is None or self._process.poll() is not None:
            return False
        self._told.set()
        return True

    async def listen(self) -> None:
        """Read its output until nobody writes to it any more."""
        while True:
            await anyio.wait_readable(self._pipe)
            try:
                data = os.read(self._pipe, READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                break
            self.output.add(data)
        self._silent.set()

    async def obey(self) -> None:
        """End it when it is told to."""
        await self._told.wait()
        assert self._process is not None
        await end_group(self._process.pid, self._grace_s)

    async def ended(self) -> int:
        """Wait for its end. -> its exit code, or the negative number of the signal that ended it"""
        assert self._process is not None
        # In a thread of its own, however many commands run; it returns at the latest when `close` kills the command.
        limiter = anyio.CapacityLimiter(1)
        code = await anyio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True, limiter=limiter)
        await end_group(self._process.pid, self._grace_s)
        with anyio.move_on_after(DRAIN_S):
            await self._silent.wait()
        return code

    async def close(self) -> None:
        """See to it that nothing of it is left."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await anyio.to_thread.run_sync(self._process.wait)
        if self._process is not None:
            self._guard.ended(self._process.pid)
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


async def end_group(pid: int, grace_s: float) -> None:
    """Ask the processes of a group to end, and kill those that have not done so after `grace_s`."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_S)):
        if not _signalled(pid, number):
            return
        with anyio.move_on_after(patience_s):
            while _signalled(pid, 0):  # noqa: ASYNC110 - the system tells nobody of the end of a group
                await anyio.sleep(PAUSE_S)
            return


def _signalled(pid: int, number: int) -> bool:
    """Send a signal (0: none) to a process group. -> whether there is anybody in it"""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def ending(code: int) -> str:
    """How a command ended, in words."""
    if code >= 0:
        return f"exit {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def read_result(path: Path) -> Result | None:
    """What the command wrote to the file: JSON with `result` and `refs`, or any text. None when it wrote nothing."""
    try:
        with path.open("rb") as file:
            data = file.read(RESULT_BYTES)
    except OSError:
        return None
    if not data.strip():
        return None
    try:
        found = msgspec.json.decode(data, type=Result)
    except (msgspec.MsgspecError, UnicodeError):
        found = Result(data.decode(errors="replace").strip())
    if len(found.result) <= RESULT_CHARS:
        return found
    return msgspec.structs.replace(found, result=f"{found.result[:RESULT_CHARS]}… (cut)")
