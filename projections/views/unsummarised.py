"""What of sessions no summary stands for yet: how much it is, and which turns are to be summarised now."""

from __future__ import annotations

from typing import NamedTuple

from bus.domain.session import Session, speaker
from projections import conversation
from projections.conversation import Turn
from projections.extract import Said
from projections.query import Reader, any_of
from projections.views.sessions import Known


class Look(NamedTuple):
    """What was found of a session: its state, how many tokens its turns have, and what is to be summarised of them."""

    state: Session | None
    tokens: int
    turns: list[Turn]
    said: list[Said]


def totals(reader: Reader) -> list[tuple[str, str, int]]:
    """(namespace, key, tokens of the turns that no summary stands for) of every session."""
    sql = f"""
        select s.namespace, s.session, coalesce(sum(t.tokens), 0)::bigint
        from {reader.at("session")} s left join {reader.at("session_turn")} t
        on t.namespace = s.namespace and t.session = s.session
        and t.role <> 'system' and t.seq > greatest(s.cleared, s.compacted) group by 1, 2"""
    return [(namespace, key, total) for namespace, key, total in reader.rows(sql)]


def looked(reader: Reader, place: tuple[str, str], usual: int) -> Look:
    """What is to be summarised of the session in that namespace, with that key. `usual`: how many tokens one may have
    that does not say so itself."""
    entry = reader.state(Session, *place)
    if entry is None:
        return Look(None, 0, [], [])
    known = Known(*place, entry)
    table = reader.at("session_turn")
    where = f"{known.turns} and role <> 'system' and seq > {known.state.begins}"
    sql = f"select seq, role, tokens from {table} where {where} order by seq"
    turns = [Turn(*row) for row in reader.rows(sql, known.params)]
    chosen = conversation.to_compact(known.state, turns, usual)
    said: list[Said] = []
    if chosen:
        wanted = any_of(turn.seq for turn in chosen)
        words = f"select seq, role, agent, content from {table} where {known.turns} and seq in {wanted}"
        rows = sorted(reader.rows(words, known.params))
        said = [Said(speaker(role, agent), content) for _, role, agent, content in rows]
    return Look(known.state, sum(turn.tokens for turn in turns), chosen, said)
