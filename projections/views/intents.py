"""Intents as they were: those that had not ended."""

from __future__ import annotations

from bus.domain import intent
from bus.domain.wording import key_of
from projections.query import Reader, answers, utc


@answers(intent.List, "intents")
def list_intents(reader: Reader, request: intent.List) -> intent.Intents:
    where, params = f"state = 'declared' and declared > {request.since or 0} and namespace = ?", [request.namespace]
    if request.agent is not None:
        where += " and agent = ?"
        params.append(request.agent)
    if request.prefix is not None:
        where += " and starts_with(intent, ?)"
        params.append(key_of(request.prefix))
    sql = f"""
        select intent, seq_from, declared, agent, said, text, lease_s, expires from {reader.at("intent")}
        where {where} order by declared limit {request.limit}"""
    found = [
        intent.IntentRow(
            key=key,
            seq=seq,
            declared=declared,
            agent=agent,
            said=said,
            text=text,
            lease_s=lease_s,
            expires=utc(expires),
        )
        for key, seq, declared, agent, said, text, lease_s, expires in reader.rows(sql, params)
    ]
    more = found[-1].declared if len(found) == request.limit else None
    return intent.Intents(seq=reader.seq, time=reader.time_of(reader.seq), intents=found, next=more)
