"""What the machine is worth at this moment: its processors are often threads of one core, or shared with others."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil

from bench.ground import cores

SPIN_S = 0.2
TRIES = 3
"""Somebody else may be in the way of any of them."""
LOOP = 10_000


def about_machine() -> dict[str, Any]:
    """How many processors there are, how much memory, and how busy it was; `worth_cores` is how much as many busy
    processes get done together, in times of what one does alone."""
    load = psutil.getloadavg()[0]
    with ProcessPoolExecutor(cores()) as pool:
        tries = [(_spun(pool, 1), _spun(pool, cores())) for _ in range(TRIES)]
    alone, together = map(max, zip(*tries, strict=True))
    return {
        "cores": cores(),
        "worth_cores": round(together / alone, 2),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(load, 2),
    }


def _spun(pool: ProcessPoolExecutor, processes: int) -> int:
    return sum(pool.map(_spin, [SPIN_S] * processes))


def _spin(seconds: float) -> int:
    """Count for so long. -> how far it came"""
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for number in range(LOOP):
            rounds += number & 1
    return rounds
