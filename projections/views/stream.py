"""Streams: one row per item, for ever, read from the newest backwards or from a seq on.

Rule: `place` is a 64-bit hash of the stream's name, as it is for messages: integers are scanned ten times faster than
text. The name is compared too, so a collision costs time, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus.domain import stream
from bus.domain.merge import text_of
from bus.events import Event
from projections.query import Reader, answers, utc
from projections.schema import FactTable, FactView
from projections.views.events import stored_at
from projections.views.history import shown
from projections.views.messages import place_of

ITEM = FactTable(
    "stream_item",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("place", "BIGINT"),
        ("namespace", "VARCHAR"),
        ("stream", "VARCHAR"),
        ("agent", "VARCHAR"),
        ("data", "VARCHAR"),
    ),
)


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """The row of an item."""
    fact = event.fact
    if isinstance(fact, stream.StreamAppended):
        place = place_of("stream", event.namespace, event.entity)
        yield (
            "stream_item",
            (event.seq, stored_at(event), place, event.namespace, event.entity, event.agent, text_of(fact.data)),
        )


VIEW = FactView(tables=(ITEM,), fold=fold, facts=(stream.StreamAppended,))


@answers(stream.Read, "items")
def read(reader: Reader, request: stream.Read) -> stream.Items:
    place = place_of("stream", request.namespace, request.stream)
    where = f"place = {place} and namespace = ? and stream = ? and seq > {request.since or 0}"
    if request.before is not None:
        where += f" and seq < {request.before}"
    order = "desc" if request.since is None else "asc"
    sql = f"""
        select seq, time, agent, data from {reader.at("stream_item")}
        where {where} order by seq {order} limit {request.limit}"""
    found = [
        stream.StreamItem(seq=seq, time=utc(time), agent=agent, data=shown(data))
        for seq, time, agent, data in sorted(reader.rows(sql, [request.namespace, request.stream]))
    ]
    more = found[-1].seq if found else request.since
    return stream.Items(seq=reader.seq, time=reader.time_of(reader.seq), items=found, next=more)
