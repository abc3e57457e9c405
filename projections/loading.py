"""The way back: from the tables to the states that decisions rest on, when a daemon starts.

Rule: what is loaded equals what folding the log up to the same event gives. Nothing here changes a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

from bus.events import MSG_ID, RequestId
from bus.execute import REQUESTS_KEPT
from bus.log import Log
from bus.model import Entry, State
from bus.subjects import log_subject
from bus.world import World
from projections.schema import OPEN, EntityTable, ItemTable, Schema
from projections.slices import Chunks


class Remembers(Protocol):
    """Who wants to know past requests (see bus.execute.Executor)."""

    def remember(self, agent: str, request: RequestId, seq: int) -> None: ...


EVENTS_PER_REQUEST = 2
"""So many events a request has on average, generously; the memory of requests is looked for in so many rows."""


def load_world(chunks: Chunks, schema: Schema, world: World, position: int) -> None:
    """Fill an empty world with every state as of event `position`, which is where the tables end. When that fails, the
    world is still empty."""
    entries = [found for table in schema.entities.values() for found in _entries(chunks, table)]
    by_subject = "select namespace, family, bucket, max(seq) from event group by all"
    tips = {log_subject(*place): seq for rows in chunks(by_subject) for *place, seq in rows}
    unread = skipped(chunks).total()
    for state, namespace, key, entry in entries:
        world.load(state, namespace, key, entry)
    world.tips.update(tips)
    world.skipped, world.position = unread, position


def skipped(chunks: Chunks) -> Counter[str]:
    """How many events could not be read, by reason."""
    sql = "select problem, count(*) from event where problem is not null group by 1"
    return Counter({problem: count for rows in chunks(sql) for problem, count in rows})


def _entries(chunks: Chunks, table: EntityTable) -> Iterator[tuple[type[State], str, str, Entry]]:
    collections: dict[int, dict[str, Any]] = {}
    for items in table.items:
        for kid, collection in _collections(chunks, items).items():
            collections.setdefault(kid, {})[items.attribute] = collection
    for rows in chunks(f'select * from "{table.name}" where seq_to = {OPEN}'):
        for row in rows:
            kid, since, _, namespace, key = row[:5]
            yield table.state_type, namespace, key, Entry(kid, since, table.state(row, collections.get(kid, {})))


def _collections(chunks: Chunks, table: ItemTable) -> dict[int, Any]:
    value = ", value" if table.is_mapping else ""
    found: dict[int, Any] = {}
    for rows in chunks(f'select kid, item{value} from "{table.name}" where seq_to = {OPEN}'):
        for row in rows:
            found.setdefault(row[0], []).append(row[1:] if table.is_mapping else row[1])
    return {kid: dict(items) if table.is_mapping else frozenset(items) for kid, items in found.items()}


async def mismatch(chunks: Chunks, position: int, log: Log) -> str:
    """Why tables that end at `position` cannot have been made from `log` (nothing: they can)."""
    head = await log.head()
    if position > head.seq:
        return f"the tables reach #{position}, the log ends at #{head.seq}"
    for rows in chunks(f"select seq, id from event where seq in (1, {position})"):
        for seq, id_ in rows:
            record = await log.get(seq)
            if record is None or record.headers.get(MSG_ID, "") != id_:
                return f"event #{seq} of the log is another one"
    return ""


def recent_requests(chunks: Chunks, position: int) -> Iterator[tuple[str, RequestId, int]]:
    """(agent, request, seq) of the events that came from the newest requests, oldest first."""
    window = REQUESTS_KEPT * EVENTS_PER_REQUEST
    newest = (
        f"select agent, request, request_digest, seq from event where request is not null and seq <= {position} "
        f"order by seq desc limit {window}"
    )
    found = [row for rows in chunks(newest) for row in rows]
    # The oldest request in a full window may have begun before it; half a request must not be answered from.
    cut = found[-1][:2] if len(found) == window else None
    for agent, request, digest, seq in reversed(found):
        if (agent, request) != cut:
            yield agent, RequestId(request, digest), seq
