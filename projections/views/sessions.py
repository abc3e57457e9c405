"""Sessions as they were: one row per turn, for ever, and what the state says of which of them count.

Rules:
* A name is looked up under the agent that asks, then among the shared ones (`find`): no name leads to another's.
* Turns are found by `place`, a 64-bit hash of the session's key, as messages are. The key is compared too.
* Turns up to the last clearing are no part of a session; its history and moments before it show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from bus.domain import session_requests as ask
from bus.domain.memory import metadata_text
from bus.domain.session import Session, SessionAdded, own_key, readers
from bus.domain.tokens import tokens
from bus.errors import NotFound
from bus.events import Event
from bus.model import Entry
from projections.query import Reader, answers, any_of, utc
from projections.schema import FactTable, FactView, audience
from projections.views.events import stored_at
from projections.views.history import happenings
from projections.views.messages import place_of

TURN = FactTable(
    "session_turn",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("place", "BIGINT"),
        ("namespace", "VARCHAR"),
        ("session", "VARCHAR"),
        ("agent", "VARCHAR"),
        ("role", "VARCHAR"),
        ("tokens", "BIGINT"),
        ("dimension", "BIGINT"),
        ("content", "VARCHAR"),
        ("metadata", "VARCHAR"),
        ("audience", "VARCHAR"),
    ),
)
"""`session` is the key of the session, `dimension` that of the turn's embedding (0: it has none)."""
COLUMNS = "seq, time, role, agent, content, tokens, metadata"


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """The row of a turn."""
    fact = event.fact
    if isinstance(fact, SessionAdded):
        yield (
            "session_turn",
            (
                event.seq,
                stored_at(event),
                place_of("session", event.namespace, event.entity),
                event.namespace,
                event.entity,
                event.agent,
                fact.role,
                fact.tokens,
                len(fact.embedding),
                fact.content,
                metadata_text(fact.metadata) if fact.metadata else None,
                audience(readers(event.entity)),
            ),
        )


VIEW = FactView(tables=(TURN,), fold=fold, facts=(SessionAdded,))


class Known(NamedTuple):
    """A session that the reader can read."""

    namespace: str
    key: str
    entry: Entry

    @property
    def state(self) -> Session:
        state: Session = self.entry.state
        return state

    @property
    def place(self) -> int:
        return place_of("session", self.namespace, self.key)

    @property
    def turns(self) -> str:
        """A SQL predicate: the turns of this session. It has the parameters of `params`."""
        return f"place = {self.place} and namespace = ? and session = ?"

    @property
    def params(self) -> list[Any]:
        return [self.namespace, self.key]


def find(reader: Reader, namespace: str, name: str) -> Known:
    """The session that the reader's agent calls so. Raises NotFound."""
    keys = (own_key(name, reader.agent), name)
    found = reader.states(Session, namespace, keys)
    for key in keys:
        if key in found:
            return Known(namespace, key, found[key])
    raise NotFound(
        "no such session",
        entity=f"session {name}",
        expected=f"a session of namespace {namespace} as of #{reader.seq} that you can read",
        hint="`bus session list` shows them",
    )


def turn(row: Sequence[Any], compacted: int) -> ask.Turn:
    """The turn whose COLUMNS are `row`."""
    seq, time, role, agent, content, counted, metadata = row
    return ask.Turn(
        seq=seq,
        time=utc(time),
        role=role,
        agent=agent,
        content=content,
        tokens=counted,
        metadata=msgspec.json.decode(metadata) if metadata else {},
        replaced=role != "system" and seq <= compacted,
    )


def _page(
    reader: Reader, known: Known, request: ask.Messages | ask.ToString, before: int | None, *, replaced: bool
) -> tuple[list[ask.Turn], int | None]:
    """A page of turns, and where it ends. A system turn stays, whatever is summarised."""
    state = known.state
    where = f"{known.turns} and seq > {max(state.cleared, request.since or 0)}"
    if not replaced:
        where += f" and (seq > {state.compacted} or role = 'system')"
    if before is not None:
        where += f" and seq < {before}"
    order = "desc" if request.since is None else "asc"
    sql = f"""
        select {COLUMNS} from {reader.at("session_turn")} where {where} order by seq {order} limit {request.limit}"""
    found = [turn(row, state.compacted) for row in sorted(reader.rows(sql, known.params))]
    return found, found[-1].seq if found else request.since


@answers(ask.Messages, "messages")
def messages(reader: Reader, request: ask.Messages) -> ask.TurnPage:
    known = find(reader, request.namespace, request.session)
    found, more = _page(reader, known, request, request.before, replaced=request.replaced)
    return ask.TurnPage(seq=reader.seq, time=reader.time_of(reader.seq), messages=found, next=more)


@answers(ask.ToString, "text")
def to_string(reader: Reader, request: ask.ToString) -> ask.SessionText:
    known = find(reader, request.namespace, request.session)
    found, more = _page(reader, known, request, None, replaced=False)
    summary = known.state.summary
    lines = [f"summary: {summary}"] if summary and not request.since else []
    lines += [f"{one.role}: {one.content}" for one in found]
    return ask.SessionText(seq=reader.seq, time=reader.time_of(reader.seq), text="\n".join(lines), next=more)


# --- sessions themselves ------------------------------------------------------------------------------------------


def _rows(reader: Reader, chosen: Sequence[Known]) -> list[ask.SessionRow]:
    """These sessions as they are listed."""
    # Wide rows are not read: only who counts of the turns of these sessions.
    sql = f"""
        select t.namespace, t.session, count(*), sum(t.tokens)::bigint, max(t.seq)
        from {reader.at("session_turn")} t join {reader.at("session")} s
        on s.namespace = t.namespace and s.session = t.session
        where t.place in {any_of(one.place for one in chosen)}
        and t.seq > s.cleared and (t.seq > s.compacted or t.role = 'system') group by 1, 2"""
    found = reader.rows(sql) if chosen else []
    counted: dict[tuple[str, str], tuple[int, int, int]] = {(row[0], row[1]): (row[2], row[3], row[4]) for row in found}
    return [_row(one, *counted.get((one.namespace, one.key), (0, 0, None))) for one in chosen]


def _row(known: Known, many: int, total: int, last: int | None) -> ask.SessionRow:
    state = known.state
    return ask.SessionRow(
        session=state.name,
        seq=known.entry.since,
        opened=known.entry.kid,
        owner=state.owner,
        scope=state.scope,
        strategy=state.strategy,
        messages=many,
        message_tokens=total,
        last=last,
        title=state.title,
        summary_tokens=tokens(state.summary),
    )


@answers(ask.Get)
def get(reader: Reader, request: ask.Get) -> ask.SessionDetail:
    known = find(reader, request.namespace, request.session)
    state = known.state
    same = (
        *("recent_turns", "recent_tokens", "nearest", "compact_at_tokens", "summary", "summarised", "summariser"),
        *("compacted", "cleared"),
    )
    return ask.SessionDetail(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        session=_rows(reader, [known])[0],
        waiting=state.asked is not None,
        **{name: getattr(state, name) for name in same},
    )


@answers(ask.List, "sessions")
def list_sessions(reader: Reader, request: ask.List) -> ask.Sessions:
    where, params = [f"namespace = ? and kid > {request.since or 0}"], list[Any]([request.namespace])
    for column in ("scope", "owner"):
        if (value := getattr(request, column)) is not None:
            where.append(f"{column} = ?")
            params.append(value)
    sql = f"""
        select session from {reader.at("session")}
        where {" and ".join(where)} order by kid limit {request.limit}"""
    keys = [key for (key,) in reader.rows(sql, params)]
    states = reader.states(Session, request.namespace, keys)
    rows = _rows(reader, [Known(request.namespace, key, states[key]) for key in keys])
    return ask.Sessions(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        sessions=rows,
        next=rows[-1].opened if len(rows) == request.limit else None,
    )


@answers(ask.History, "history")
def history(reader: Reader, request: ask.History) -> ask.Happenings:
    known = find(reader, request.namespace, request.session)
    until = f" and seq < {request.before}" if request.before is not None else ""
    order = "desc" if request.since is None else "asc"
    # Every event of a session adds a turn or changes its state, so its seqs are found without a look at the whole log.
    changed = f"select seq_from as seq from {reader.history('session')} where kid = {known.entry.kid}"
    sql = f"""
        select seq from ({changed} union select seq from {reader.at("session_turn")} where {known.turns})
        where seq > {request.since or 0}{until} order by seq {order} limit {request.limit}"""
    seqs = [seq for (seq,) in reader.rows(sql, known.params)]
    found = happenings(reader, seqs)
    more = found[-1].seq if found else request.since
    return ask.Happenings(seq=reader.seq, time=reader.time_of(reader.seq), history=found, next=more)
