"""Inboxes: what is addressed to an agent, with the reasons, oldest first.

Rules:
* Mentions, dms, replies and notices are rows of `addressed`, one per event, agent and reason. What a joined channel
  brings is not stored once per member: it follows from the messages and the intervals of membership.
* An agent's own events are not addressed to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bus.domain import dm, inbox, message, task
from bus.events import Event
from bus.subjects import TENANT
from projections.query import Reader, answers, listed, utc
from projections.schema import FactTable, FactView
from projections.views.events import stored_at
from projections.views.messages import place_of
from projections.views.notices import notices

ADDRESSED = FactTable(
    "addressed",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("agent", "VARCHAR"),
        ("reason", "VARCHAR"),
        ("author", "VARCHAR"),
        ("namespace", "VARCHAR"),
        ("task", "VARCHAR"),
        ("notice", "VARCHAR"),
        ("audience", "VARCHAR"),
    ),
)


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """A row for everybody to whom `event` is addressed."""
    fact = event.fact
    if isinstance(fact, message.Posted):
        if isinstance(fact, dm.DmPosted):
            yield from _row(event, fact.to, "dm")
        for name in fact.mentions:
            yield from _row(event, name, "mention")
        if fact.reply_to_agent is not None:
            yield from _row(event, fact.reply_to_agent, "reply")
    elif isinstance(fact, task.TaskOffered):
        yield from _row(event, fact.to, "notice", f"{event.agent} offers you task {event.entity}: {fact.notes}")
    elif isinstance(fact, task.TaskHandedOff):
        yield from _row(event, fact.to, "notice", f"{fact.frm} handed you task {event.entity}: {fact.notes}")
        yield from _row(event, fact.frm, "notice", f"{fact.to} took over task {event.entity}")
    elif isinstance(fact, task.TaskExpired):
        yield from _row(event, fact.owner, "notice", f"your lease on task {event.entity} has ended")
    elif isinstance(fact, task.TaskCancelled) and fact.owner is not None:
        told = f"{event.agent} cancelled task {event.entity}, which you held: {fact.reason}"
        yield from _row(event, fact.owner, "notice", told)
    else:
        for to, reason, notice in notices(event):
            yield from _row(event, to, reason, notice)


def _row(event: Event, to: str, reason: str, notice: str | None = None) -> Iterable[tuple[str, tuple[Any, ...]]]:
    if to != event.agent:
        task_id = event.entity if event.family == "task" else None
        yield (
            "addressed",
            (event.seq, stored_at(event), to, reason, event.agent, event.namespace, task_id, notice, f"|{to}|"),
        )


VIEW = FactView(tables=(ADDRESSED,), fold=fold, version=2)


def _unread(reader: Reader, after: int) -> tuple[str, list[Any]]:
    """A SQL query and its parameters: (seq, reason) of what is addressed to the reader's agent after `after`."""
    sql = f"select seq, reason from {reader.at('addressed')} where agent = ? and seq > {after}"
    joined = reader.rows(
        f"select namespace, channel, seq_from, seq_to from {reader.history('channel_members')} where item = ?",
        [reader.agent],
    )
    if not joined:
        return sql, [reader.agent]
    namespaces, names, starts, ends = (list(column) for column in zip(*joined, strict=True))
    places = [place_of("channel", *name) for name in zip(namespaces, names, strict=True)]
    sql += f"""
        union all
        select m.seq, 'channel' from {reader.at("message")} m
        join (select unnest(?) as place, unnest(?) as namespace, unnest(?) as channel, unnest(?) as seq_from,
            unnest(?) as seq_to) j
            on j.place = m.place and j.namespace = m.namespace and j.channel = m.conversation
                and j.seq_from < m.seq and m.seq < j.seq_to
        where m.family = 'channel' and m.agent <> ? and m.seq > {after}"""
    return sql, [reader.agent, places, namespaces, names, starts, ends, reader.agent]


@answers(inbox.Peek, "items")
def peek(reader: Reader, request: inbox.Peek) -> inbox.Items:
    kid = reader.kid("inbox", TENANT, reader.agent)
    marks = reader.rows(f"select acked from {reader.at('inbox')} where kid = {kid}") if kid is not None else []
    after = max(marks[0][0] if marks else 0, request.since or 0)
    unread, params = _unread(reader, after)
    sql = f"""
        select seq, list(distinct reason order by reason), count(*) over () from ({unread})
        group by seq order by seq limit {request.limit}"""
    page = reader.rows(sql, params)
    items = _items(reader, {seq: reasons for seq, reasons, _ in page})
    return inbox.Items(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        items=items,
        upto=items[-1].seq if items else after,
        remaining=page[0][2] - len(page) if page else 0,
    )


def _items(reader: Reader, reasons: Mapping[int, list[str]]) -> list[inbox.Item]:
    """What these events say to the agent, in their order."""
    if not reasons:
        return []
    first = min(reasons)
    within = f"seq between {first} and {max(reasons)} and seq in {listed(reasons)}"
    sql = f"""
        select seq, coalesce(m.time, a.time), coalesce(m.agent, a.author), coalesce(m.namespace, a.namespace),
            coalesce(t.edit, m.text, a.notice, ''), m.family, m.conversation, m.reply_to, a.task
        from (select * from {reader.at("message")} where {within}) m
        full join (select seq, any_value(time) as time, any_value(author) as author, any_value(namespace) as namespace,
            any_value(notice) as notice, any_value(task) as task
            from {reader.at("addressed")} where agent = ? and {within} group by seq) a using (seq)
        left join (select message, arg_max(edit, seq) as edit from {reader.at("message_touch")}
            where edit is not null and seq > {first} and message in {listed(reasons)} group by 1) t on t.message = seq
        order by seq"""
    return [
        inbox.Item(
            seq=seq,
            time=utc(time),
            reasons=reasons[seq],
            agent=agent,
            namespace=namespace,
            text=text,
            channel=conversation if family == "channel" else None,
            task=task_id,
            reply_to=reply_to,
        )
        for seq, time, agent, namespace, text, family, conversation, reply_to, task_id in reader.rows(
            sql, [reader.agent]
        )
    ]
