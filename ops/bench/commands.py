"""Section H: what a command takes, from start to exit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.crew import ROOT
from bench.figures import Figures, at_most, p50
from bench.ground import NAMESPACE, Ground


def command() -> list[str] | None:
    """How `bus` is run here (None: it is not there)."""
    beside = Path(sys.executable).parent / "bus"
    if beside.is_file():
        return [str(beside)]
    if (found := shutil.which("bus")) is not None:
        return [found]
    return [sys.executable, "-m", "cli.main"] if find_spec("cli.main") is not None else None


def starting(ground: Ground, times: int) -> Figures:
    """H. `bus --version` and `bus post` as whole processes."""
    figures = Figures("H")
    bus = command()
    if bus is None:
        figures.add("bus", 0, "ms", note="there is no command yet: not measured")
        return figures
    ground.up()
    home = {"BUS_HOME": str(ground.home.path), "BUS_NAMESPACE": NAMESPACE, "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **home}
    _took([*bus, "join", "dev"], environment)
    empty, version, post = [], [], []
    for _ in range(times):
        empty.append(_took([sys.executable, "-c", "pass"], environment))
        version.append(_took([*bus, "--version"], environment))
        post.append(_took([*bus, "post", "dev", "done"], environment))
    beside = "python -c pass"
    for name, took, limit in (("bus --version", version, 100), ("bus post", post, 350)):
        figures.add(
            f"{name}, whole process, p50",
            p50(took) * 1e3,
            "ms",
            limit=p50(empty) * 1e3,
            beside=beside,
            target=at_most(limit, "value"),
            note=f"best {min(took) * 1e3:.0f} ms",
        )
    return figures


def _took(arguments: Sequence[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return took
