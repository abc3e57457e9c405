"""Directives as they were: one with its history, or those that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.domain import directive as ask
from bus.errors import NotFound
from projections.query import Reader, answers, utc
from projections.views.history import history_of


def _rows(reader: Reader, where: str, params: Sequence[Any], limit: int) -> list[ask.DirectiveRow]:
    """The directives that fulfil `where`, in the order in which they were given."""
    sql = f"""
        with page as (select * from {reader.at("directive")} where {where} order by kid limit {limit})
        select directive, seq_from, kid, giver, role, agent, state, overdue, priority, due, text, result, reason,
            (select list(item order by item) from {reader.at("directive_to")} t where t.kid = page.kid),
            (select list(item order by item) from {reader.at("directive_refs")} r where r.kid = page.kid)
        from page order by kid"""
    return [_row(row) for row in reader.rows(sql, params)]


def _row(row: tuple[Any, ...]) -> ask.DirectiveRow:
    name, seq, given, giver, role, agent, state, overdue, priority, due, text, result, reason, to, refs = row
    return ask.DirectiveRow(
        directive=name,
        seq=seq,
        given=given,
        giver=giver,
        to=to or [],
        role=role,
        agent=agent,
        state=state,
        overdue=overdue,
        priority=priority,
        due=utc(due) if due else None,
        text=text,
        result=result,
        reason=reason,
        refs=refs or [],
    )


@answers(ask.List, "directives")
def list_directives(reader: Reader, request: ask.List) -> ask.Directives:
    where, params = [f"namespace = ? and kid > {request.since or 0}"], [request.namespace]
    for column, value in (("state", request.state), ("giver", request.giver), ("role", request.role)):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    if request.to is not None:
        where.append(f"(agent = ? or kid in (select kid from {reader.at('directive_to')} where item = ?))")
        params += [request.to, request.to]
    if request.overdue is not None:
        where.append("overdue" if request.overdue else "not overdue")
    found = _rows(reader, " and ".join(where), params, request.limit)
    return ask.Directives(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        directives=found,
        next=found[-1].given if len(found) == request.limit else None,
    )


@answers(ask.Show)
def show(reader: Reader, request: ask.Show) -> ask.DirectiveDetail:
    kid = reader.kid("directive", request.namespace, request.directive)
    if kid is None:
        raise NotFound(
            "no such directive",
            entity=f"directive {request.directive}",
            expected=f"a directive of namespace {request.namespace} as of #{reader.seq}",
            hint="`bus directive list` shows them",
        )
    history = history_of(reader, request.namespace, request.directive, "directive")
    (directive,) = _rows(reader, f"kid = {kid}", (), 1)
    return ask.DirectiveDetail(seq=reader.seq, time=reader.time_of(reader.seq), directive=directive, history=history)
