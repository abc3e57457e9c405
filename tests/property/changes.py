"""What a followed board has to say has changed, worked out with loops from what the events say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus.domain import task_requests
from bus.events import Event, Unknown
from tests.property.told import Told

Row = Callable[[Told, tuple[str, str]], task_requests.TaskRow]


def board(told: Told, request: task_requests.Board, head: Any, since: int, row: Row) -> task_requests.TaskBoard:
    upto, rows, end = since, list[task_requests.TaskRow](), len(told.events)
    while not rows and upto < end:
        changes, links = (_began(told, family, request, upto) for family in ("task", "needs"))
        after, upto = upto, min((part[-1].seq for part in (changes, links) if len(part) == request.limit), default=end)
        names = {event.entity for event in (*changes, *links) if event.seq <= upto}
        was, then = (Told(told.events[:seq]).tasks for seq in (after, upto))
        turned = {
            event.entity
            for event in changes
            if event.seq <= upto
            for place in [(event.namespace, event.entity)]
            if (place in was and was[place]["state"] == "done") != (then[place]["state"] == "done")
        }
        names |= {name for (space, name), needs in told.needs.items() if space == request.namespace and needs & turned}
        known = [row(told, (request.namespace, name)) for name in names]
        rows = [one for one in known if one.seq <= upto]
    rows.sort(key=lambda one: one.seq)
    return task_requests.TaskBoard(counts={}, columns={}, changed=rows, next=upto if rows else since, **head)


def _began(told: Told, family: str, request: task_requests.Board, after: int) -> list[Event]:
    """The first changes behind a seq."""
    return [
        event
        for event in told.events[after:]
        if (event.namespace, event.family) == (request.namespace, family) and not isinstance(event.fact, Unknown)
    ][: request.limit]
