"""Inboxes: what is addressed to an agent, with the reasons, oldest first.

Rules:
* Mentions, dms, replies and notices are rows of `addressed`, one per event, agent and reason. What a joined channel
  brings is not stored once per member: it follows from the messages and the intervals of membership.
* An agent's own events are not addressed to it.
* What waits is counted and chosen over narrow columns of integers; only what a page shows is read whole. `inbox` and
  `place` are 64-bit hashes of the names of an agent and of a conversation (see `projections.views.messages`).
* A digest counts what waits without showing it, so nothing of it is recorded as shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bus.domain import dm, inbox, message, task
from bus.events import Event
from bus.subjects import TENANT
from projections.query import Reader, answers, listed, sought, utc
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
REASONS = 6
"""So many reasons there are beside a joined channel: dm, mention, reply, directive, reminder, notice."""


# --- what waits ---------------------------------------------------------------------------------------------------


class _Unread:
    """What is addressed to the reader's agent after a seq, as SQL: `mine` (seq, reason, place, namespace, heard) and
    `heard` (seq, place), which is what joined channels bring. What is in both is marked as `heard` in `mine`."""

    def __init__(self, reader: Reader, after: int) -> None:
        self.reader = reader
        is_heard = _heard(reader, after)
        self.mine = f"""
            select seq, reason, place, namespace, coalesce({is_heard}, false) as heard from {reader.at("addressed")}
            where inbox = {inbox_of(reader.agent)} and agent = ? and seq > {after}"""
        self.heard = f"""
            select seq, place from {reader.at("message")} where {is_heard} and seq > {after} and agent <> ?"""

    @property
    def params(self) -> list[Any]:
        """Of either of them."""
        return [self.reader.agent]

    def page(self, limit: int) -> tuple[int, dict[int, list[str]]]:
        """-> (how many events wait, the reasons of the oldest `limit` of them by seq)."""
        # As many rows as `limit` events may have: with them, the reasons of those events are complete.
        oldest = f"arg_min(struct_pack(seq := seq, reason := reason), seq, {limit * REASONS})"
        sql = f"select count(distinct seq) filter (not heard), {oldest} from ({self.mine})"
        ((apart, rows),) = self.reader.rows(sql, self.params)
        ((heard, seqs),) = self.reader.rows(f"select count(*), min(seq, {limit}) from ({self.heard})", self.params)
        reasons: dict[int, set[str]] = {seq: {"channel"} for seq in seqs or ()}
        for row in rows or ():
            reasons.setdefault(row["seq"], set()).add(row["reason"])
        return apart + heard, {seq: sorted(reasons[seq]) for seq in sorted(reasons)[:limit]}


def _heard(reader: Reader, after: int) -> str:
    """A SQL predicate over `seq` and `place`: whether the agent is a member of that channel then."""
    sql = f"""
        select namespace, channel, seq_from, seq_to from {reader.history("channel_members")}
        where item = ? and seq_to > {after}"""
    rooms: set[int] = set()
    spans: list[str] = []
    for namespace, name, begins, ends in reader.rows(sql, [reader.agent]):
        place = place_of("channel", namespace, name)
        # Whatever need not be compared is left out: it would be compared for every message there is.
        until = f" and seq < {ends}" if ends <= reader.seq else ""
        if begins > after or until:
            spans.append(f"(place = {place} and seq > {begins}{until})")
        else:
            rooms.add(place)
    among = [f"place in {listed(sorted(rooms))}"] if rooms else []
    return f"({' or '.join([*among, *spans])})" if rooms or spans else "false"


def _acked(reader: Reader) -> int:
    """Up to where the reader's agent has acknowledged."""
    known = reader.state(inbox.Inbox, TENANT, reader.agent)
    return known.state.acked if known is not None else 0


@answers(inbox.Peek, "items")
def peek(reader: Reader, request: inbox.Peek) -> inbox.Items:
    after = max(_acked(reader), request.since or 0)
    count, page = _Unread(reader, after).page(request.limit)
    items = _items(reader, page)
    remaining = count - len(items)
    return inbox.Items(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        items=items,
        upto=items[-1].seq if items else after,
        remaining=remaining,
        hint=inbox.MANY_HINT if remaining >= inbox.MANY else None,
    )


def _items(reader: Reader, reasons: Mapping[int, list[str]]) -> list[inbox.Item]:
    """What these events say to the agent, in their order."""
    if not reasons:
        return []
    sql = f"""
        select seq, time, agent, namespace, text, place, family, conversation, reply_to
        from {reader.at("message")} where seq in {sought(reasons)}"""
    said = {row[0]: row for row in reader.rows(sql)}
    edits = {
        seq: text
        for seq, _, text in touched(reader, {seq: row[5] for seq, row in said.items()}, "message, seq, edit")
        if text is not None
    }
    found = [
        inbox.Item(
            seq=seq,
            time=utc(time),
            reasons=reasons[seq],
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


def _notices(reader: Reader, reasons: Mapping[int, list[str]], seqs: Sequence[int]) -> list[inbox.Item]:
    """The same for events that are no messages."""
    if not seqs:
        return []
    sql = f"""
        select seq, time, author, namespace, task, notice from {reader.at("addressed")}
        where inbox = {inbox_of(reader.agent)} and agent = ? and seq in {sought(seqs)}"""
    rows = {row[0]: row for row in reader.rows(sql, [reader.agent])}
    return [
        inbox.Item(
            seq=seq, time=utc(time), reasons=reasons[seq], agent=author, namespace=namespace, text=text or "", task=task
        )
        for seq, time, author, namespace, task, text in rows.values()
    ]


# --- how much waits -----------------------------------------------------------------------------------------------


@answers(inbox.Digest)
def digest(reader: Reader, request: inbox.Digest) -> inbox.Counts:
    after = max(_acked(reader), request.since or 0)
    unread = _Unread(reader, after)
    piles: dict[tuple[str, int | None], _Pile] = {}
    sql = f"select place, count(*), min(seq), max(seq) from ({unread.heard}) group by 1"
    for place, count, first, last in reader.rows(sql, unread.params):
        piles[("", place)] = _Pile(count, first, last, {"channel": count})
    # What has no place is no message; it is told apart by its namespace.
    sql = f"""
        select if(place is null, namespace, ''), place, reason, count(distinct seq),
            count(distinct seq) filter (not heard), min(seq), max(seq)
        from ({unread.mine}) group by grouping sets ((1, 2, 3), (1, 2))"""
    for namespace, place, reason, count, apart, first, last in reader.rows(sql, unread.params):
        pile = piles.setdefault((namespace, place), _Pile(0, first, last, {}))
        pile.first, pile.last = min(pile.first, first), max(pile.last, last)
        if reason is None:
            pile.count += apart
        else:
            pile.reasons[reason] = count
    reasons: dict[str, int] = {}
    for pile in piles.values():
        for reason, count in pile.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    largest = sorted(piles.items(), key=lambda pile: (-pile[1].count, pile[1].first))[: request.limit]
    return inbox.Counts(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        unread=sum(pile.count for pile in piles.values()),
        reasons=dict(sorted(reasons.items())),
        piles=_named(reader, largest),
    )


class _Pile(msgspec.Struct):
    """What waits in one place: how many events, the first and the last of them, and how many for which reason."""

    count: int
    first: int
    last: int
    reasons: dict[str, int]


def _named(reader: Reader, piles: Sequence[tuple[tuple[str, int | None], _Pile]]) -> list[inbox.Pile]:
    """The piles with the names of their places, which the first message of each says."""
    if not piles:
        return []
    firsts = listed(pile.first for (_, place), pile in piles if place is not None)
    sql = f"select seq, namespace, family, conversation from {reader.at('message')} where seq in {firsts}"
    names = {seq: name for seq, *name in reader.rows(sql)}
    times = dict(
        reader.rows(
            f"select seq, time from {reader.at('event')} where seq in {sought(pile.first for _, pile in piles)}"
        )
    )
    found = []
    for (namespace, _), pile in piles:
        space, family, conversation = names.get(pile.first, (namespace, "", ""))
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
