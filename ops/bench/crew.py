"""Client processes: started together, let go together, asked for their results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one client did: when (monotonic seconds, comparable between processes), its CPU seconds, how long each
    operation took, and whatever else its role reports."""

    start_s: float
    end_s: float
    cpu_s: float
    count: int
    took_s: list[float] = []
    extra: dict[str, Any] = {}


class Crew:
    """Processes of `bench.worker`, one per spec. Each has connected when the constructor returns."""

    def __init__(self, role: str, specs: Sequence[dict[str, Any]]) -> None:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "ops")])
        environment = {**os.environ, "PYTHONPATH": paths}
        self.processes = []
        for spec in specs:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.worker", role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                cwd=ROOT,
            )
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(spec) + b"\n")
            process.stdin.flush()
            self.processes.append(process)
        try:
            for process in self.processes:
                self._line(process)
        except BaseException:
            self.kill()
            raise

    def go(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def results(self) -> list[Result]:
        """Wait for all of them to end."""
        try:
            found = [msgspec.json.decode(self._line(process), type=Result) for process in self.processes]
            for process in self.processes:
                process.wait()
        except BaseException:
            self.kill()
            raise
        return found

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client ended with status {process.wait()}")
        return line


def run(role: str, specs: Sequence[dict[str, Any]]) -> list[Result]:
    crew = Crew(role, specs)
    crew.go()
    return crew.results()


def run_one(role: str, **spec: Any) -> Result:
    return run(role, [spec])[0]


def rate(results: Sequence[Result]) -> float:
    """Operations a second of all together."""
    span_s = max(result.end_s for result in results) - min(result.start_s for result in results)
    return sum(result.count for result in results) / span_s


def latencies(results: Sequence[Result]) -> list[float]:
    return [took for result in results for took in result.took_s]
