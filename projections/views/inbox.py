"""Inboxes: what is addressed to an agent, with the reasons, oldest first.

Rules:
* Mentions, dms, replies and notices are rows of `addressed`, one per event, agent and reason. What a joined channel
  brings is not stored once per member: it follows from the messages and the intervals of membership.
* An agent's own events are not addressed to it.
* What waits is counted and chosen in memory (`projections.inbox_index`); only what a page shows is read. `inbox` and
  `place` are 64-bit hashes of the names of an agent and of a conversation (see `projections.views.messages`).
* A digest counts what waits without showing it, so nothing of it is recorded as shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bus.domain import dm, inbox, message, task
from bus.events import Event
from bus.subjects import TENANT
from projections.inbox_index import Pile, Unread
from projections.query import Reader, answers, any_of, utc
from projections.schema import FactTable, FactView
from projections.views.events import stored_at
from projections.views.messages import place_of, shown_name, touched
from projections.views.notices import NOTICED, notices

ADDRESSED = FactTable(
    "addressed",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("inbox", "BIGINT"),
        ("agent", "VARCHAR"),
        ("reason", "VARCHAR"),
        ("place", "BIGINT"),
        ("author", "VARCHAR"),
        ("namespace", "VARCHAR"),
        ("task", "VARCHAR"),
        ("notice", "VARCHAR"),
        ("audience", "VARCHAR"),
    ),
)


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """A row for everybody to whom `event` is addressed, and for each reason."""
    rows = [_row(event, *told) for told in _told(event) if told[0] != event.agent]
    # Whatever an administrator wrote: nobody is told of one thing twice.
    return dict.fromkeys(rows) if len(rows) > 1 else rows


def _told(event: Event) -> Iterable[tuple[str, str, str | None]]:
    """(to whom, why, the notice that is shown where it is not the message itself)"""
    fact, key = event.fact, event.entity
    if isinstance(fact, message.Posted):
        return _addressed(fact)
    if isinstance(fact, task.TaskOffered):
        return [(fact.to, "notice", f"{event.agent} offers you task {key}: {fact.notes}")]
    if isinstance(fact, task.TaskHandedOff):
        return [
            (fact.to, "notice", f"{fact.frm} handed you task {key}: {fact.notes}"),
            (fact.frm, "notice", f"{fact.to} took over task {key}"),
        ]
    if isinstance(fact, task.TaskExpired):
        return [(fact.owner, "notice", f"your lease on task {key} has ended")]
    if isinstance(fact, task.TaskCancelled) and fact.owner is not None:
        return [(fact.owner, "notice", f"{event.agent} cancelled task {key}, which you held: {fact.reason}")]
    return notices(event)


def _addressed(fact: message.Posted) -> list[tuple[str, str, str | None]]:
    told: list[tuple[str, str, str | None]] = [(name, "mention", None) for name in fact.mentions]
    if isinstance(fact, dm.DmPosted):
        told.append((fact.to, "dm", None))
    if fact.reply_to_agent is not None:
        told.append((fact.reply_to_agent, "reply", None))
    return told


def _row(event: Event, to: str, reason: str, notice: str | None) -> tuple[str, tuple[Any, ...]]:
    row = (
        event.seq,
        stored_at(event),
        inbox_of(to),
        to,
        reason,
        place_of(event.family, event.namespace, event.entity) if notice is None else None,
        event.agent,
        event.namespace,
        event.entity if event.family == "task" else None,
        notice,
        f"|{to}|",
    )
    return "addressed", row


def inbox_of(agent: str) -> int:
    """64-bit hash of an agent's name."""
    return place_of("inbox", TENANT, agent)


_TASKS = (task.TaskOffered, task.TaskHandedOff, task.TaskExpired, task.TaskCancelled)
VIEW = FactView(tables=(ADDRESSED,), fold=fold, facts=(message.Posted, *_TASKS, *NOTICED), version=2)
MESSAGES = frozenset({"dm", "mention", "reply", "channel"})
"""The reasons for which messages are addressed to somebody."""
NEAR = 500
"""Messages of so many seqs are sooner read all than looked for one by one, which takes a join."""


# --- what waits ---------------------------------------------------------------------------------------------------


def _unread(reader: Reader, request: inbox.Peek | inbox.Digest) -> tuple[int, Unread]:
    """-> (the seq that everything counts as read up to, what waits behind it)."""
    after = max(acked_upto(reader), request.since or 0)
    with reader.inboxes() as index:
        return after, index.unread(reader.agent, after, reader.seq)


def acked_upto(reader: Reader) -> int:
    """Up to where the reader's agent has acknowledged."""
    known = reader.state(inbox.Inbox, TENANT, reader.agent)
    return known.state.acked if known is not None else 0


@answers(inbox.Peek, "items")
def peek(reader: Reader, request: inbox.Peek) -> inbox.Items:
    after, unread = _unread(reader, request)
    items = _items(reader, unread.oldest(request.limit))
    remaining = unread.total - len(items)
    return inbox.Items(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        items=items,
        upto=items[-1].seq if items else after,
        remaining=remaining,
        hint=inbox.MANY_HINT if remaining >= inbox.MANY else None,
    )


def _items(reader: Reader, reasons: Mapping[int, set[str]]) -> list[inbox.Item]:
    """What these events say to the agent, in their order."""
    said = _messages(reader, [seq for seq, why in reasons.items() if why & MESSAGES])
    edits = {
        seq: text
        for seq, _, text in touched(reader, {seq: row[5] for seq, row in said.items()}, "message, seq, edit")
        if text is not None
    }
    found = [
        inbox.Item(
            seq=seq,
            time=utc(time),
            reasons=sorted(reasons[seq]),
            agent=agent,
            namespace=namespace,
            text=edits.get(seq, text),
            channel=conversation if family == "channel" else None,
            reply_to=reply_to,
        )
        for seq, time, agent, namespace, text, _, family, conversation, reply_to in said.values()
    ]
    found += _notices(reader, reasons, [seq for seq in reasons if seq not in said])
    return sorted(found, key=lambda item: item.seq)


def _messages(reader: Reader, seqs: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    """The messages among these events, by seq."""
    if not seqs:
        return {}
    near = seqs[-1] - seqs[0] < NEAR
    within = f"between {seqs[0]} and {seqs[-1]}" if near else f"in {any_of(seqs)}"
    wanted = set(seqs)
    sql = f"""
        select seq, time, agent, namespace, text, place, family, conversation, reply_to
        from {reader.at("message")} where seq {within}"""
    return {row[0]: row for row in reader.rows(sql) if row[0] in wanted}


def _notices(reader: Reader, reasons: Mapping[int, set[str]], seqs: Sequence[int]) -> list[inbox.Item]:
    """The same for events that are no messages."""
    if not seqs:
        return []
    sql = f"""
        select seq, time, author, namespace, task, notice from {reader.at("addressed")}
        where inbox = {inbox_of(reader.agent)} and agent = ? and seq between {seqs[0]} and {seqs[-1]}"""
    wanted = set(seqs)
    rows = {row[0]: row for row in reader.rows(sql, [reader.agent]) if row[0] in wanted}
    return [
        inbox.Item(
            seq=seq,
            time=utc(time),
            reasons=sorted(reasons[seq]),
            agent=author,
            namespace=namespace,
            text=text or "",
            task=task,
        )
        for seq, time, author, namespace, task, text in rows.values()
    ]


# --- how much waits -----------------------------------------------------------------------------------------------


@answers(inbox.Digest)
def digest(reader: Reader, request: inbox.Digest) -> inbox.Counts:
    _, unread = _unread(reader, request)
    piles = unread.piles()
    reasons: dict[str, int] = {}
    for pile in piles:
        for reason, count in pile.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    largest = sorted(piles, key=lambda pile: (-pile.count, pile.first))[: request.limit]
    return inbox.Counts(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        unread=sum(pile.count for pile in piles),
        reasons=dict(sorted(reasons.items())),
        piles=_named(reader, largest),
    )


def _named(reader: Reader, piles: Sequence[Pile]) -> list[inbox.Pile]:
    """The piles with the names of their places, which the first message of each says."""
    if not piles:
        return []
    firsts = any_of(pile.first for pile in piles if pile.heap.place is not None)
    sql = f"select seq, namespace, family, conversation from {reader.at('message')} where seq in {firsts}"
    names = {seq: name for seq, *name in reader.rows(sql)}
    times = dict(
        reader.rows(f"select seq, time from {reader.at('event')} where seq in {any_of(pile.first for pile in piles)}")
    )
    found = []
    for pile in piles:
        space, family, conversation = names.get(pile.first, (pile.heap.namespace, "", ""))
        found.append(
            inbox.Pile(
                namespace=space,
                channel=conversation if family == "channel" else None,
                dm=shown_name(conversation, reader.agent) if family == "dm" else None,
                unread=pile.count,
                reasons=dict(sorted(pile.reasons.items())),
                first=pile.first,
                last=pile.last,
                since=utc(times[pile.first]),
            )
        )
    return found
