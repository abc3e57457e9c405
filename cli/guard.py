"""The guard of a worker: ends its commands when the worker was killed and could not do so itself.

Rules:
* It is a process of its own, in a session of its own, so that what ends the worker does not end it.
* On its standard input the worker says `?MARK` before it starts a command, `+PID` when it has begun and `-PID` when
  everything of it has ended. When that input ends, so does every process group that is left, and then the guard.
* The mark stands in the command's environment: one that was started by a worker which could say no more is found by it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable

from bus import config

MARK = "BUS_RESULT"
"""The variable whose value no two commands share."""


class Guard:
    """The worker's side of it."""

    def __init__(self, grace_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.guard", str(grace_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=config.child_environment(),
            start_new_session=True,
        )

    def expect(self, mark: str) -> None:
        """A command is about to be started, with MARK in its environment."""
        self._say(f"?{mark}\n")

    def began(self, pid: int) -> None:
        """The process group `pid` is to be ended when the worker is gone."""
        self._say(f"+{pid}\n")

    def ended(self, pid: int) -> None:
        """Nothing is left of it."""
        self._say(f"-{pid}\n")

    def close(self) -> None:
        """Let it go. What was begun and has not ended is ended by it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        # A guard that is gone guards nothing, but the work goes on.
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main() -> None:
    """Listen until the worker is gone, then end what it has left."""
    left: set[int] = set()
    mark = ""
    for line in sys.stdin:
        sign, word = line[0], line[1:].rstrip("\n")
        if sign == "?":
            mark = word
            continue
        (left.add if sign == "+" else left.discard)(int(word))
        mark = ""
    left |= _marked(mark) if mark else set()
    if left:
        import anyio

        anyio.run(_end, left, float(sys.argv[1]))


def _marked(mark: str) -> set[int]:
    """The process groups whose first process carries the mark."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and os.getpgid(process.pid) == process.pid:
                found.add(process.pid)
    return found


async def _end(pids: Iterable[int], grace_s: float) -> None:
    from cli.running import end_group

    for pid in pids:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGTERM)
    for pid in pids:
        await end_group(pid, grace_s)


if __name__ == "__main__":
    main()
