"""What a task needs: the tasks that must be done before it can be claimed.

Rules:
* The entity is the task; all of a namespace share one bucket, so that the graph is decided as one and stays free of
  cycles even if two daemons should decide at once.
* A task is blocked while any task it needs is not done. That is derived, never stored.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from bus.errors import Refused
from bus.events import Event, Fact
from bus.model import Family, State, View


class NeedsLinked(Fact, frozen=True, kw_only=True):
    """From now on the task needs exactly these."""

    type: ClassVar[str] = "needs.linked"
    needs: tuple[str, ...] = ()
    """Ids of the tasks that must be done first."""


class Needs(State, frozen=True, kw_only=True):
    """What a task needs now."""

    table: ClassVar[str] = "needs"
    needs: frozenset[str] = frozenset()


def evolve(needs: Needs | None, event: Event) -> Needs | None:
    """The needs after `event`."""
    if not isinstance(event.fact, NeedsLinked):
        return needs
    wanted = frozenset(event.fact.needs)
    return needs if needs is not None and needs.needs == wanted else Needs(needs=wanted)


def of(view: View, namespace: str, task: str) -> frozenset[str]:
    """The tasks that `task` needs."""
    known = view.get(Needs, namespace, task)
    return known.needs if known is not None else frozenset()


def check_acyclic(view: View, namespace: str, task: str, needs: Collection[str]) -> None:
    """Refuse when `task` would, directly or through others, need itself. The error shows the way round."""
    came_from: dict[str, str] = dict.fromkeys(sorted(needs), task)
    stack = sorted(needs)
    while stack:
        current = stack.pop()
        if current == task:
            way = [task]
            while (step := came_from[way[-1]]) != task:
                way.append(step)
            round_trip = " needs ".join([task, *reversed(way[1:]), task])
            raise Refused(
                "tasks would need each other in a circle",
                code="cycle",
                entity=f"task {task}",
                expected="needs that do not lead back to it",
                found=round_trip,
                hint="Leave one of these out",
            )
        for need in of(view, namespace, current):
            if need not in came_from:
                came_from[need] = current
                stack.append(need)


FAMILY = Family(
    name="needs",
    facts=(NeedsLinked,),
    state=Needs,
    evolve=evolve,
    bucket_key=lambda key: "needs",
)
