"""The versions of one entity: what it was from each of its events on, and who made it so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from projections.query import Reader, any_of, utc


class Version(NamedTuple):
    """A version, and what the wanted columns of its row say."""

    seq: int
    time: datetime
    agent: str
    type: str
    values: tuple[Any, ...]


def versions(
    reader: Reader, table: str, kid: int, columns: Sequence[str], since: int | None, before: int | None, limit: int
) -> list[Version]:
    """A page of the versions of the entity `kid` in `table`, oldest first: those after `since`, else the newest."""
    where = f"kid = {kid} and seq_from > {since or 0}"
    if before is not None:
        where += f" and seq_from < {before}"
    order = "desc" if since is None else "asc"
    sql = f"""
        select {", ".join(("seq_from", *columns))} from {reader.history(table)}
        where {where} order by seq_from {order} limit {limit}"""
    rows = {seq: tuple(values) for seq, *values in reader.rows(sql)}
    events = f"select seq, time, agent, type from {reader.at('event')} where seq in {any_of(rows)}"
    # Sorted here: the database would take longer to plan it than it takes.
    return [Version(seq, utc(time), agent, type_, rows[seq]) for seq, time, agent, type_ in sorted(reader.rows(events))]
