"""Tasks on a stage: one that is open, one that is claimed, and what is known of it."""

from __future__ import annotations

from bus.domain import task_requests as ask
from bus.domain.task import Task
from tests.unit.stage import Stage

CAP_S = 86_400


def task(stage: Stage, key: str = "T") -> Task:
    known = stage.state(Task, key)
    assert isinstance(known, Task)
    return known


def opened(stage: Stage, key: str = "T", agent: str = "atlas", **fields: object) -> None:
    stage.do(agent, ask.Open(title="fix auth", task=key, **fields))  # type: ignore[arg-type]


def claimed(stage: Stage, key: str = "T", agent: str = "nova", lease_s: int = 600) -> int:
    opened(stage, key)
    fence = stage.do(agent, ask.Claim(task=key, lease_s=lease_s)).fence
    assert isinstance(fence, int)
    return fence
