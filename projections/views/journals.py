"""Journals: one row per entry, for ever, read from the newest backwards or from a seq on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bus.domain import journal
from bus.events import Event
from projections.query import Reader, answers, strings, utc
from projections.schema import FactTable, FactView
from projections.views.events import stored_at

ENTRY = FactTable(
    "journal_entry",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("namespace", "VARCHAR"),
        ("agent", "VARCHAR"),
        ("focus", "VARCHAR"),
        ("done", "VARCHAR"),
        ("decisions", "VARCHAR"),
        ("next_steps", "VARCHAR"),
    ),
)
COLUMNS = "seq, time, agent, focus, done, decisions, next_steps"


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """The row of an entry that its author wrote into its own journal."""
    fact = event.fact
    if isinstance(fact, journal.JournalWritten) and event.agent == event.entity:
        lists = (_json(lines) for lines in (fact.done, fact.decisions, fact.next_steps))
        yield "journal_entry", (event.seq, stored_at(event), event.namespace, event.agent, fact.focus, *lists)


def _json(lines: Sequence[str]) -> str | None:
    return msgspec.json.encode(lines).decode() if lines else None


VIEW = FactView(tables=(ENTRY,), fold=fold, facts=(journal.JournalWritten,))


def entry(row: Sequence[Any]) -> journal.Entry:
    """The entry whose COLUMNS are `row`."""
    seq, time, agent, focus, done, decisions, next_steps = row
    return journal.Entry(
        seq=seq,
        time=utc(time),
        agent=agent,
        focus=focus,
        done=strings(done),
        decisions=strings(decisions),
        next_steps=strings(next_steps),
    )


@answers(journal.Read, "entries")
def read(reader: Reader, request: journal.Read) -> journal.Entries:
    where, params = [f"namespace = ? and seq > {request.since or 0}"], [request.namespace]
    if request.agent is not None:
        where.append("agent = ?")
        params.append(request.agent)
    if request.before is not None:
        where.append(f"seq < {request.before}")
    order = "desc" if request.since is None else "asc"
    sql = f"""
        select {COLUMNS} from {reader.at("journal_entry")} where {" and ".join(where)}
        order by seq {order} limit {request.limit}"""
    entries = [entry(row) for row in sorted(reader.rows(sql, params))]
    more = entries[-1].seq if entries else request.since
    return journal.Entries(seq=reader.seq, time=reader.time_of(reader.seq), entries=entries, next=more)
