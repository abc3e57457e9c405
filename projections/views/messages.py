"""Messages of channels and dms: what was said, what it was changed to, and who reacted.

Rules:
* A message is one row for ever; an edit and a reaction are rows of their own, so what a message said at any moment is
  the latest edit up to then.
* `place` is a 64-bit hash of the conversation's name: integers are scanned ten times faster than text. The name is
  compared too, so a collision costs time, never correctness.
* How many messages channels have, and who is in them, is known in memory: to list one takes no look at all messages.
* What a page shows is chosen first, over few narrow columns; only then are the chosen messages read whole. The database
  decodes texts by the thousand, however few of them are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec

from bus.domain import channel, dm, message
from bus.errors import NotFound
from bus.events import Event
from bus.model import PageQuery, State
from bus.subjects import TENANT
from projections.query import Reader, answers, any_of, escaped, ints, strings, utc
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
        ("place", "BIGINT"),
        ("agent", "VARCHAR"),
        ("edit", "VARCHAR"),
        ("emoji", "VARCHAR"),
        ("removed", "BOOLEAN"),
        ("audience", "VARCHAR"),
    ),
)
WINDOW = 200_000
"""A tail is looked for in so many seqs first, then in eight times as many, and so on."""

_STATES: Mapping[str, type[State]] = MappingProxyType({"channel": channel.Channel, "dm": dm.Dm})

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


def _json(values: Sequence[Any]) -> str:
    return _encode(values).decode()


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """The rows that a message, an edit or a reaction adds."""
    fact = event.fact
    if isinstance(fact, message.Posted):
        row = (
            event.seq,
            stored_at(event),
            place_of(event.family, event.namespace, event.entity),
            event.namespace,
            event.family,
            event.entity,
            event.agent,
            fact.text,
            fact.reply_to,
            _json(fact.mentions) if fact.mentions else None,
            _json(fact.refs) if fact.refs else None,
            _json(fact.attachments) if fact.attachments else None,
            audience_of(event.family, event.entity),
        )
        return (("message", row),)
    if isinstance(fact, message.Edited):
        return (_touch(event, fact.message, edit=fact.text),)
    if isinstance(fact, message.Reacted):
        return (_touch(event, fact.message, emoji=fact.emoji, removed=fact.removed),)
    return ()


def _touch(
    event: Event, seq: int, *, edit: str | None = None, emoji: str | None = None, removed: bool | None = None
) -> tuple[str, tuple[Any, ...]]:
    place = place_of(event.family, event.namespace, event.entity)
    audience = audience_of(event.family, event.entity)
    return "message_touch", (event.seq, seq, place, event.agent, edit, emoji, removed, audience)


VIEW = FactView(tables=(MESSAGE, TOUCH), fold=fold, facts=(message.Posted, message.Edited, message.Reacted))


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
        return f"place = {place} and conversation = ?", [self.conversation]

    def place(self, conversation: str) -> int:
        return place_of(self.family, self.namespace, conversation)


def _newest(reader: Reader, where: str, params: Sequence[Any], upto: int, limit: int) -> list[int]:
    """The seqs of the newest `limit` messages with seq <= upto, looked for in growing windows from the end."""
    window = WINDOW
    while True:
        floor = max(0, upto - window)
        found = _chosen(reader, f"{where} and seq > {floor} and seq <= {upto}", params, "desc", limit)
        if len(found) == limit or floor == 0:
            return found
        window *= 8


def _chosen(reader: Reader, where: str, params: Sequence[Any], order: str, limit: int) -> list[int]:
    sql = f"select seq from {reader.at('message')} where {where} order by seq {order} limit {limit}"
    return [seq for (seq,) in reader.rows(sql, params)]


def _read(reader: Reader, request: message.ReadBase, of: _Conversation) -> message.Messages:
    pins = _pins(reader, of)
    upto = min(reader.seq, request.before - 1) if request.before is not None else reader.seq
    whole = None
    if request.thread is None and not request.pinned and of.conversation is not None:
        whole = of.place(of.conversation)
    if whole is not None and of.family == channel.FAMILY.name:
        with reader.inboxes() as index:
            seqs = index.messages(whole, request.since or 0, upto, request.limit, newest=request.since is None)
        return _page(reader, seqs, of, pins, request, whole)
    where, params = of.where()
    if request.thread is not None:
        where += f""" and seq in (
            with recursive under(seq) as (
                select ?::bigint union
                select m.seq from {reader.at("message")} m join under on m.reply_to = under.seq)
            select seq from under)"""
        params.append(request.thread)
    if request.pinned:
        where += f" and seq in {any_of(sorted(pins))}"
    if request.since is None:
        seqs = _newest(reader, where, params, upto, request.limit)
    else:
        where += f" and seq > {request.since} and seq <= {upto}"
        seqs = _chosen(reader, where, params, "asc", request.limit)
    return _page(reader, seqs, of, pins, request, whole)


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
    seqs = _newest(reader, where, params, upto, request.limit)
    return _page(reader, seqs, of, _pins(reader, of), request)


def _pins(reader: Reader, of: _Conversation) -> set[int]:
    if of.conversation is None:
        sql = f"select item from {reader.at(f'{of.family}_pins')} where namespace = ?"
        return {pin for (pin,) in reader.rows(sql, [of.namespace])}
    known = reader.state(_STATES[of.family], of.namespace, of.conversation)
    return set(known.state.pins) if known is not None else set()


def _rows(reader: Reader, seqs: Sequence[int], whole: int | None) -> list[tuple[Any, ...]]:
    """The messages with these seqs, oldest first. Of the conversation at the place `whole`, what lies between the first
    and the last of them is the page, which needs no join to be found."""
    if not seqs:
        return []
    within = f"seq in {any_of(seqs)}"
    if whole is not None:
        within = f"place = {whole} and seq between {min(seqs)} and {max(seqs)}"
    wanted = set(seqs)
    # Sorted here: the database would take longer to plan it than it takes.
    return sorted(
        row for row in reader.rows(f"select {_COLUMNS} from {reader.at('message')} where {within}") if row[0] in wanted
    )


def _page(
    reader: Reader, seqs: Sequence[int], of: _Conversation, pins: set[int], request: PageQuery, whole: int | None = None
) -> message.Messages:
    rows = _rows(reader, seqs, whole)
    texts, reactions = _touches(reader, {row[0]: of.place(row[3]) for row in rows})
    found = []
    for seq, time, agent, conversation, text, reply_to, mentions, refs, attachments in rows:
        edit = texts.get(seq)
        found.append(
            message.MessageRow(
                seq=seq,
                time=utc(time),
                agent=agent,
                channel=shown_name(conversation, reader.agent),
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


def shown_name(conversation: str, agent: str) -> str:
    """A channel's name as it is; a dm by the other agent's name."""
    if "+" not in conversation:
        return conversation
    return next((name for name in dm.readers(conversation) if name != agent), agent)


def touched(reader: Reader, places: Mapping[int, int], columns: str) -> list[tuple[Any, ...]]:
    """The edits and reactions of these messages (seq -> place), oldest first. `columns` begins with message and seq."""
    messages: dict[int, list[int]] = {}
    for seq, place in places.items():
        messages.setdefault(place, []).append(seq)
    with reader.inboxes() as index:
        found = [seq for place, seqs in messages.items() for seq in index.touches(place, seqs, reader.seq)]
    if not found:
        return []
    rows = reader.rows(f"select {columns} from {reader.at('message_touch')} where seq in {any_of(found)}")
    return sorted(rows, key=lambda row: row[1])


def _touches(
    reader: Reader, places: Mapping[int, int]
) -> tuple[dict[int, tuple[int, str]], dict[int, dict[str, list[str]]]]:
    """-> (latest edit by message, agents by emoji by message)."""
    texts: dict[int, tuple[int, str]] = {}
    reactions: dict[int, dict[str, list[str]]] = {}
    columns = "message, seq, agent, edit, emoji, removed"
    for seq, touch, agent, edit, emoji, removed in touched(reader, places, columns):
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
        select kid, seq_from, channel, topic, archived from {reader.at("channel")}
        where {" and ".join(where)} and kid > {request.since or 0} order by kid limit {request.limit}"""
    rows = reader.rows(sql, params)
    members = _members(reader, request.namespace, [name for _, _, name, *_ in rows])
    with reader.inboxes() as index:
        said = {name: index.said(place_of("channel", request.namespace, name), reader.seq) for _, _, name, *_ in rows}
    return channel.Channels(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        channels=[
            channel.ChannelRow(
                channel=name,
                seq=since,
                topic=topic,
                archived=archived,
                members=members[name],
                messages=said[name][0],
                last=said[name][1],
            )
            for _, since, name, topic, archived in rows
        ],
        next=rows[-1][0] if len(rows) == request.limit else None,
    )


def _members(reader: Reader, namespace: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Who has joined each of these channels."""
    known = reader.states(channel.Channel, namespace, names)
    return {name: sorted(known[name].state.members) for name in names}


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
            dm.DmRow(agent=shown_name(pair, reader.agent), seq=first, messages=count, last=last)
            for pair, first, count, last in rows
        ],
        next=rows[-1][1] if len(rows) == request.limit else None,
    )
