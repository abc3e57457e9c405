"""Simulations: many tenants, each from one integer seed. A failure prints the seed; SYNBUS_SIM_SEED runs it alone, and
SYNBUS_SIM_SEEDS sets how many are run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
import structlog

from tests.simulation.sim import Simulation

SEEDS = int(os.environ.get("SYNBUS_SIM_SEEDS", "200"))
FIRST = int(os.environ.get("SYNBUS_SIM_SEED", "0"))
BLOCK = 25
ACTIONS = 500


def alarm(_: Any, level: str, event: dict[str, Any]) -> Any:
    """Warnings of conflicts are what is wanted here; anything worse is a defect."""
    if level in ("error", "critical"):
        raise AssertionError(f"{event}")
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def listened() -> Iterator[None]:
    structlog.configure(processors=[alarm])
    yield
    structlog.reset_defaults()


async def simulate(seed: int) -> Simulation:
    simulation = Simulation(seed, rival=seed % 2 == 1)
    try:
        await simulation.run(ACTIONS)
    except BaseException as error:
        error.add_note(f"seed {seed}: SYNBUS_SIM_SEED={seed} SYNBUS_SIM_SEEDS=1 pytest tests/simulation")
        raise
    return simulation


def fingerprint(simulation: Simulation) -> str:
    digest = sha256()
    for record in simulation.log.records:
        digest.update(repr((record.time_ns, record.subject, sorted(record.headers.items()), record.data)).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("block", range(FIRST, FIRST + SEEDS, BLOCK))
async def test_whatever_fails_the_log_keeps_its_promises(block: int) -> None:
    for seed in range(block, min(block + BLOCK, FIRST + SEEDS)):
        await simulate(seed)


async def test_one_seed_decides_everything() -> None:
    for seed in (FIRST, FIRST + 1):
        assert fingerprint(await simulate(seed)) == fingerprint(await simulate(seed))


async def test_simulations_do_meet_what_they_are_for() -> None:
    """Crashes, conflicts, refusals, expiries and several holders of one task: without them the rest proves little."""
    simulations = [await simulate(seed) for seed in range(12)]
    types = {line.type for simulation in simulations for line in simulation.checker.lines}
    assert {"task.claimed", "task.expired", "task.handed_off", "task.renewed", "needs.linked", "dm.posted"} <= types
    assert sum(simulation.crashes for simulation in simulations) > 5
    assert sum(simulation.promises.judged for simulation in simulations) > 100
    assert sum(len(simulation.checker.holders) for simulation in simulations) > 50
