"""Agents, who is there, and the two registries, as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.domain import agent, registry
from projections.query import Reader, answers, utc


def _agents(reader: Reader, where: str, params: Sequence[Any], limit: int) -> list[tuple[int, agent.AgentRow]]:
    sql = f"""
        with page as (select * from {reader.at("agent")} where {where} order by kid limit {limit})
        select kid, agent, seq_from, harness, device, model, personality, parent, active, presence,
            (select list(item order by item) from {reader.at("agent_authority")} a where a.kid = page.kid),
            (select list(item order by item) from {reader.at("agent_models")} m where m.kid = page.kid),
            (select list(item order by item) from {reader.at("agent_roles")} r where r.kid = page.kid)
        from page order by kid"""
    found = []
    for row in reader.rows(sql, params):
        kid, name, seq, harness, device, model, personality, parent, active, presence, *lists = row
        authority, models, roles = lists
        found.append(
            (
                kid,
                agent.AgentRow(
                    agent=name,
                    seq=seq,
                    harness=harness,
                    device=device,
                    model=model,
                    personality=personality,
                    parent=parent,
                    active=active,
                    presence=presence,
                    authority=authority or [],
                    models=models or [],
                    roles=roles or [],
                ),
            )
        )
    return found


@answers(agent.List, "agents")
def list_agents(reader: Reader, request: agent.List) -> agent.Agents:
    where = f"kid > {request.since or 0}"
    if request.active is not None:
        where += " and active" if request.active else " and not active"
    rows = _agents(reader, where, [], request.limit)
    return agent.Agents(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        agents=[row for _, row in rows],
        next=rows[-1][0] if len(rows) == request.limit else None,
    )


@answers(agent.Children)
def children(reader: Reader, request: agent.Children) -> agent.Agents:
    rows = _agents(reader, "parent = ?", [request.agent], 1000)
    return agent.Agents(seq=reader.seq, time=reader.time_of(reader.seq), agents=[row for _, row in rows])


@answers(agent.Who)
def who(reader: Reader, request: agent.Who) -> agent.Presences:
    sql = f"""
        with runs as (
            select kid, agent, harness, model, active, presence, seq_from,
                lag(presence) over (partition by kid order by seq_from) is distinct from presence as began
            from {reader.history("agent")}),
        since as (select kid, max(seq_from) as seq from runs where began group by kid),
        held as (select owner, list(task order by task) as tasks from {reader.at("task")}
            where state = 'claimed' group by owner)
        select a.agent, a.presence, e.time, a.harness, a.model, held.tasks
        from {reader.at("agent")} a join since using (kid) join event e on e.seq = since.seq
        left join held on held.owner = a.agent
        where a.active order by a.agent"""
    now = reader.now
    stored = reader.time_of(reader.seq)
    return agent.Presences(
        seq=reader.seq,
        time=stored,
        agents=[
            agent.Present(
                agent=name, presence=presence, since=utc(since), harness=harness, model=model, tasks=tasks or []
            )
            for name, presence, since, harness, model, tasks in reader.rows(sql)
        ],
        age_s=max(0.0, (now - stored).total_seconds()) if stored is not None else 0.0,
    )


def _only(active: bool | None) -> str:
    """A SQL predicate that goes on from another one."""
    return "" if active is None else " and active" if active else " and not active"


@answers(registry.ListModels, "models")
def list_models(reader: Reader, request: registry.ListModels) -> registry.Models:
    sql = f"""
        select kid, model, seq_from, provider, description, context_tokens, source, active from {reader.at("model")}
        where kid > {request.since or 0}{_only(request.active)} order by kid limit {request.limit}"""
    rows = reader.rows(sql)
    return registry.Models(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        models=[
            registry.ModelRow(
                model=name,
                seq=seq,
                provider=provider,
                description=text,
                context_tokens=tokens,
                source=source,
                active=active,
            )
            for _, name, seq, provider, text, tokens, source, active in rows
        ],
        next=rows[-1][0] if len(rows) == request.limit else None,
    )


@answers(registry.ListPersonalities, "personalities")
def list_personalities(reader: Reader, request: registry.ListPersonalities) -> registry.Personalities:
    sql = f"""
        select kid, personality, seq_from, description, prompt, source, active from {reader.at("personality")}
        where kid > {request.since or 0}{_only(request.active)} order by kid limit {request.limit}"""
    rows = reader.rows(sql)
    return registry.Personalities(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        personalities=[
            registry.PersonalityRow(
                personality=name, seq=seq, description=text, prompt=prompt, source=source, active=active
            )
            for _, name, seq, text, prompt, source, active in rows
        ],
        next=rows[-1][0] if len(rows) == request.limit else None,
    )
