"""Messages of channels and dms: what was said, what it was changed to, and who reacted.

Rules:
* A message is one row for ever; an edit and a reaction are rows of their own, so what a message said at any moment is
  the latest edit up to then.
* `place` is a 64-bit hash of the conversation's name: integers are scanned ten times faster than text. The name is
  compared too, so a collision costs time, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from bus.domain import channel, dm, message
from bus.errors import NotFound
from bus.events import Event
from bus.model import PageQuery
from bus.subjects import TENANT
from projections.query import Reader, answers, escaped, ints, listed, strings, utc
from projections.schema import FactTable, FactView
from projections.views.events import stored_at

MESSAGE = FactTable(
    "message",
    (
        ("seq", "BIGINT"),
        ("time", "TIMESTAMP"),
        ("place", "BIGINT"),
        ("namespace", "VARCHAR"),
        ("family", "VARCHAR"),
        ("conversation", "VARCHAR"),
        ("agent", "VARCHAR"),
        ("text", "VARCHAR"),
        ("reply_to", "BIGINT"),
        ("mentions", "VARCHAR"),
        ("refs", "VARCHAR"),
        ("attachments", "VARCHAR"),
        ("audience", "VARCHAR"),
    ),
)
TOUCH = FactTable(
    "message_touch",
    (
        ("seq", "BIGINT"),
        ("message", "BIGINT"),
        ("agent", "VARCHAR"),
        ("edit", "VARCHAR"),
        ("emoji", "VARCHAR"),
        ("removed", "BOOLEAN"),
        ("audience", "VARCHAR"),
    ),
)
WINDOW = 200_000
"""A tail is looked for in so many seqs first, then in eight times as many, and so on."""

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=10_000)
def place_of(family: str, namespace: str, conversation: str) -> int:
    """64-bit signed hash of a conversation's name (blake2b)."""
    name = f"{family}\0{namespace}\0{conversation}".encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)


@lru_cache(maxsize=10_000)
def audience_of(family: str, entity: str) -> str | None:
    """Who may see rows about this entity: None for every agent of the tenant, else `|a|b|`."""
    return f"|{'|'.join(dm.readers(entity))}|" if family == "dm" else None


def _json(values: Sequence[Any]) -> str | None:
    return _encode(values).decode() if values else None


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """The rows that a message, an edit or a reaction adds."""
    fact = event.fact
    if isinstance(fact, message.Posted):
        yield (
            "message",
            (
                event.seq,
                stored_at(event),
                place_of(event.family, event.namespace, event.entity),
                event.namespace,
                event.family,
                event.entity,
                event.agent,
                fact.text,
                fact.reply_to,
                _json(fact.mentions),
                _json(fact.refs),
                _json(fact.attachments),
                audience_of(event.family, event.entity),
            ),
        )
    elif isinstance(fact, message.Edited):
        yield "message_touch", (event.seq, fact.message, event.agent, fact.text, None, None, _audience(event))
    elif isinstance(fact, message.Reacted):
        row = (event.seq, fact.message, event.agent, None, fact.emoji, fact.removed, _audience(event))
        yield "message_touch", row


def _audience(event: Event) -> str | None:
    return audience_of(event.family, event.entity)


VIEW = FactView(tables=(MESSAGE, TOUCH), fold=fold)


# --- queries ------------------------------------------------------------------------------------------------------

_COLUMNS = "seq, time, agent, conversation, text, reply_to, mentions, refs, attachments"


class _Conversation(msgspec.Struct, frozen=True):
    """One conversation, or (`conversation` None) all of a family that the reader may see."""

    family: str
    namespace: str
    conversation: str | None

    def where(self) -> tuple[str, list[Any]]:
        if self.conversation is None:
            return "family = ? and namespace = ?", [self.family, self.namespace]
        place = place_of(self.family, self.namespace, self.conversation)
        return "place = ? and conversation = ?", [place, self.conversation]


def _tail(reader: Reader, where: str, params: Sequence[Any], upto: int, limit: int) -> list[tuple[Any, ...]]:
    """The newest `limit` rows with seq <= upto, oldest first, looked for in growing windows from the end."""
    window = WINDOW
    while True:
        floor = max(0, upto - window)
        sql = (
            f"select {_COLUMNS} from {reader.at('message')} where {where} and seq > {floor} and seq <= {upto} "
            f"order by seq desc limit {limit}"
        )
        rows = reader.rows(sql, params)
        if len(rows) == limit or floor == 0:
            return rows[::-1]
        window *= 8


def _read(reader: Reader, request: message.ReadBase, of: _Conversation) -> message.Messages:
    where, params = of.where()
    upto = min(reader.seq, request.before - 1) if request.before is not None else reader.seq
    if request.thread is not None:
        where += f""" and seq in (
            with recursive under(seq) as (
                select ?::bigint union
                select m.seq from {reader.at("message")} m join under on m.reply_to = under.seq)
            select seq from under)"""
        params.append(request.thread)
    pins = _pins(reader, of)
    if request.pinned:
        where += f" and seq in {listed(sorted(pins))}"
    if request.since is None:
        rows = _tail(reader, where, params, upto, request.limit)
    else:
        sql = (
            f"select {_COLUMNS} from {reader.at('message')} where {where} and seq > {request.since} and seq <= {upto} "
            f"order by seq limit {request.limit}"
        )
        rows = reader.rows(sql, params)
    return _page(reader, rows, pins, request)


def _search(reader: Reader, request: message.SearchBase, of: _Conversation) -> message.Messages:
    where, params = of.where()
    words = [f"%{escaped(word)}%" for word in request.text.split()]
    if words:
        # What counts is what a message says now. Few are ever edited; only those are looked up.
        says = " and ".join([r"{} ilike ? escape '\'"] * len(words))
        edits = f"""(select message, arg_max(edit, seq) as said from {reader.at("message_touch")}
            where edit is not null group by 1)"""
        where += f""" and ({says.replace("{}", "text")} and seq not in (select message from {edits})
            or seq in (select message from {edits} where {says.replace("{}", "said")}))"""
        params += words * 2
    upto = min(reader.seq, request.before - 1) if request.before is not None else reader.seq
    if request.since is not None:
        where += f" and seq > {request.since}"
    return _page(reader, _tail(reader, where, params, upto, request.limit), _pins(reader, of), request)


def _pins(reader: Reader, of: _Conversation) -> set[int]:
    sql = f"select item from {reader.at(f'{of.family}_pins')} where "
    if of.conversation is None:
        return {pin for (pin,) in reader.rows(f"{sql} namespace = ?", [of.namespace])}
    kid = reader.kid(of.family, of.namespace, of.conversation)
    return {pin for (pin,) in reader.rows(f"{sql} kid = {kid}")} if kid is not None else set()


def _page(reader: Reader, rows: Sequence[tuple[Any, ...]], pins: set[int], request: PageQuery) -> message.Messages:
    texts, reactions = _touches(reader, [row[0] for row in rows])
    found = []
    for seq, time, agent, conversation, text, reply_to, mentions, refs, attachments in rows:
        edit = texts.get(seq)
        found.append(
            message.MessageRow(
                seq=seq,
                time=utc(time),
                agent=agent,
                channel=_shown(conversation, reader.agent),
                text=edit[1] if edit else text,
                reply_to=reply_to,
                mentions=strings(mentions),
                refs=ints(refs),
                attachments=strings(attachments),
                edited=edit[0] if edit else None,
                pinned=seq in pins,
                reactions=reactions.get(seq, {}),
            )
        )
    last = found[-1].seq if found else request.since
    return message.Messages(seq=reader.seq, time=reader.time_of(reader.seq), messages=found, next=last)


def _shown(conversation: str, agent: str) -> str:
    """A channel's name as it is; a dm by the other agent's name."""
    if "+" not in conversation:
        return conversation
    return next((name for name in dm.readers(conversation) if name != agent), agent)


def _touches(reader: Reader, seqs: Sequence[int]) -> tuple[dict[int, tuple[int, str]], dict[int, dict[str, list[str]]]]:
    """-> (latest edit by message, agents by emoji by message)."""
    texts: dict[int, tuple[int, str]] = {}
    reactions: dict[int, dict[str, list[str]]] = {}
    if seqs:
        sql = (
            f"select message, seq, agent, edit, emoji, removed from {reader.at('message_touch')} "
            f"where seq > {min(seqs)} and message in {listed(seqs)} order by seq"
        )
        for seq, touch, agent, edit, emoji, removed in reader.rows(sql):
            if edit is not None:
                texts[seq] = (touch, edit)
                continue
            agents = reactions.setdefault(seq, {}).setdefault(emoji, [])
            if removed and agent in agents:
                agents.remove(agent)
            elif not removed and agent not in agents:
                agents.append(agent)
    return texts, {seq: {e: who for e, who in by.items() if who} for seq, by in reactions.items()}


def _known_channel(reader: Reader, namespace: str, name: str) -> None:
    if reader.kid("channel", namespace, name) is None:
        raise NotFound(
            "no such channel",
            entity=f"channel {name}",
            expected=f"a channel of namespace {namespace} as of #{reader.seq}",
            hint="`bus channel list` shows them",
        )


@answers(channel.Read, "messages")
def read_channel(reader: Reader, request: channel.Read) -> message.Messages:
    _known_channel(reader, request.namespace, request.channel)
    return _read(reader, request, _Conversation("channel", request.namespace, request.channel))


@answers(channel.Search, "messages")
def search_channels(reader: Reader, request: channel.Search) -> message.Messages:
    if request.channel is not None:
        _known_channel(reader, request.namespace, request.channel)
    return _search(reader, request, _Conversation("channel", request.namespace, request.channel))


@answers(dm.Read, "messages")
def read_dm(reader: Reader, request: dm.Read) -> message.Messages:
    return _read(reader, request, _Conversation("dm", TENANT, dm.pair(reader.agent, request.to)))


@answers(dm.Search, "messages")
def search_dms(reader: Reader, request: dm.Search) -> message.Messages:
    pair = dm.pair(reader.agent, request.to) if request.to is not None else None
    return _search(reader, request, _Conversation("dm", TENANT, pair))


@answers(channel.List, "channels")
def list_channels(reader: Reader, request: channel.List) -> channel.Channels:
    where, params = ["namespace = ?"], [request.namespace]
    if request.archived is not None:
        where.append("archived" if request.archived else "not archived")
    if request.member is not None:
        where.append(f"kid in (select kid from {reader.at('channel_members')} where item = ?)")
        params.append(request.member)
    sql = f"""
        with page as (
            select kid, seq_from, channel, topic, archived from {reader.at("channel")}
            where {" and ".join(where)} and kid > {request.since or 0} order by kid limit {request.limit}),
        said as (
            select conversation, count(*) as messages, max(seq) as last from {reader.at("message")}
            where family = 'channel' and namespace = ? group by 1),
        joined as (select kid, list(item order by item) as members from {reader.at("channel_members")} group by 1)
        select kid, seq_from, channel, topic, archived, members, messages, last
        from page left join said on said.conversation = page.channel left join joined using (kid) order by kid"""
    rows = reader.rows(sql, [*params, request.namespace])
    return channel.Channels(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        channels=[
            channel.ChannelRow(
                channel=name,
                seq=since,
                topic=topic,
                archived=archived,
                members=members or [],
                messages=messages or 0,
                last=last,
            )
            for _, since, name, topic, archived, members, messages, last in rows
        ],
        next=rows[-1][0] if len(rows) == request.limit else None,
    )


@answers(dm.List, "dms")
def list_dms(reader: Reader, request: dm.List) -> dm.Dms:
    sql = f"""
        select conversation, min(seq), count(*), max(seq) from {reader.at("message")}
        where family = 'dm' and audience like ? group by 1
        having min(seq) > {request.since or 0} order by 2 limit {request.limit}"""
    rows = reader.rows(sql, [f"%|{reader.agent}|%"])
    return dm.Dms(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        dms=[
            dm.DmRow(agent=_shown(pair, reader.agent), seq=first, messages=count, last=last)
            for pair, first, count, last in rows
        ],
        next=rows[-1][1] if len(rows) == request.limit else None,
    )
