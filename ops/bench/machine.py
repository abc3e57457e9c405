"""What the machine is worth at this moment: its processors are often threads of one core, or shared with others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psutil

from bench import crew
from bench.clients import Spec, Watch, now
from bench.crew import Result
from bench.ground import cores

SPIN_S = 0.3
TRIES = 3
"""Somebody else may be in the way of any of them."""
LOOP = 10_000


def about_machine() -> dict[str, Any]:
    """Of how many processors, how much memory, how busy it was; and how much as many busy processes as processors get
    done, in times of what one alone does."""
    load = psutil.getloadavg()[0]
    tries = [(_spun(1), _spun(cores())) for _ in range(TRIES)]
    alone, together = map(max, zip(*tries, strict=True))
    return {
        "cores": cores(),
        "worth_cores": round(together / alone, 2),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(load, 2),
    }


def _spun(processes: int) -> int:
    return sum(result.count for result in crew.run("spin", [{}] * processes))


async def spin(_: Spec) -> AsyncIterator[Result | None]:
    """Count as long as there is time."""
    yield None
    watch = Watch()
    rounds = 0
    while now() - watch.start_s < SPIN_S:
        for number in range(LOOP):
            rounds += number & 1
    yield watch.result(count=rounds)
