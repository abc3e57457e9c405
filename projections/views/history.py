"""The log as a list: every event there ever was, with what you may not see left out; and the history of one thing.

Rules:
* An event addressed to others only is listed, because it happened and takes a seq, but its body is not shown.
* Whatever an administrator wrote, every event can be listed: text that is no part of a valid event is cut to a length
  that an answer has room for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from bus.domain import log
from bus.domain.merge import is_deeper
from bus.domain.task_requests import Happening
from projections.query import Reader, answers, any_of, utc

DEPTH = 100
"""A body that is nested more deeply is shown as text: no program could read the answer."""
TEXT = 1_000
"""Longer texts of headers, and of bodies that are no JSON, are cut."""
HISTORY = 300
"""Who looks at one thing is shown so many of its events, the newest."""
BRIEF = 1_000
"""And so much of the body of each."""
COLUMNS = "seq, time, type, namespace, entity, agent, causes, correlation, data, problem, audience"


def listed(
    reader: Reader, where: str, params: Sequence[Any], order: str, limit: int, body: int | None = None
) -> list[log.LogRow]:
    """Events up to the reader's moment that fulfil `where`. A body of more than `body` characters is cut."""
    sql = f"""
        select {COLUMNS} from event where seq <= {reader.seq} and {where}
        order by seq {order} limit {limit}"""
    return [_row(row, reader.may_see(row[-1]), body) for row in reader.rows(sql, params)]


def cut(text: str | None, most: int = TEXT) -> str | None:
    """`text`, or as much of it as an answer has room for."""
    return text if text is None or len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def shown(data: str, most: int | None = None) -> Any:
    """A body as it is answered: its JSON, or, when it has more than `most` characters, the beginning of its text."""
    if (most is None or len(data) <= most) and not is_deeper(data, DEPTH):
        try:
            return msgspec.json.decode(data)
        except msgspec.MsgspecError:
            pass
    return cut(data, TEXT if most is None else most)


def history_of(reader: Reader, namespace: str, key: str, *tables: str) -> list[Happening]:
    """The newest events by which the entities of that key in these tables have changed, oldest first."""
    changed = sorted(seq for table in tables for seq in reader.versions(table, namespace, key))
    return happenings(reader, changed[-HISTORY:])


def happenings(reader: Reader, seqs: Collection[int]) -> list[Happening]:
    """These events as a history shows them, oldest first; none of them is later than the reader's moment."""
    if not seqs:
        return []
    # Who may see them is asked here, and here they are sorted: the database would take longer to plan it than it takes.
    sql = f"select seq, time, type, agent, data, audience from event where seq in {any_of(seqs)}"
    return [
        Happening(seq=seq, time=utc(time), type=type_, agent=agent, data=shown(data, BRIEF))
        for seq, time, type_, agent, data, audience in sorted(reader.rows(sql))
        if reader.may_see(audience)
    ]


def _row(row: tuple[Any, ...], visible: bool, most: int | None) -> log.LogRow:
    seq, time, type_, namespace, entity, agent, causes, correlation, data, problem, _ = row
    return log.LogRow(
        seq=seq,
        time=utc(time),
        type=cut(type_) or "",
        namespace=cut(namespace) or "",
        entity=cut(entity) or "",
        agent=cut(agent) or "",
        causes=list(causes or ())[:TEXT],
        data=shown(data, most) if visible else None,
        correlation=cut(correlation),
        problem=cut(problem),
        redacted=not visible,
    )


@answers(log.List, "events")
def list_events(reader: Reader, request: log.List) -> log.LogPage:
    start = max(request.start or 1, (request.since or 0) + 1)
    where, params = [f"seq >= {start}"], []
    if request.end is not None:
        where.append(f"seq <= {request.end}")
    for column, value in (
        ("type", request.type),
        ("family", request.family),
        ("entity", request.entity),
        ("agent", request.agent),
        ("namespace", request.in_namespace),
    ):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    order = "desc" if request.newest else "asc"
    events = listed(reader, " and ".join(where), params, order, request.limit)
    events.sort(key=lambda event: event.seq)
    more = events[-1].seq if events else request.since
    return log.LogPage(seq=reader.seq, time=reader.time_of(reader.seq), events=events, next=more)
