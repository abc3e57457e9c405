"""What channels and direct messages have in common: the shape of a message and the rules about touching one.

Rules:
* A message is named by the seq of the event that posted it.
* Only its author may edit it. A reply answers a message of the same conversation.
* `@name` in a text mentions that agent when it is registered and active; explicit mentions must be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.domain import agent
from bus.errors import NotAllowed, NotFound
from bus.events import Event, Fact, Unknown
from bus.model import Answer, Command, Context, Digest, Name, PageQuery, Reply, Seq, State, Text, View
from bus.subjects import TENANT

_MENTION = re.compile(r"(?<![\w@/.])@([a-z0-9][a-z0-9_-]{0,62})(?![\w-])")
Emoji = Annotated[str, Meta(min_length=1, max_length=40)]
Message = Annotated[Seq, Meta(description="seq of the message")]


class Posted(Fact, frozen=True, kw_only=True):
    """Body of a posted message. `reply_to_agent` is the author of the message that `reply_to` names."""

    text: str
    reply_to: Seq | None = None
    reply_to_agent: str | None = None
    """Author of the message that is answered."""
    mentions: tuple[str, ...] = ()
    refs: tuple[Seq, ...] = ()
    attachments: tuple[str, ...] = ()


class Edited(Fact, frozen=True, kw_only=True):
    """Body of an edit."""

    message: Seq
    text: str
    """What the message says from now on."""


class Pinned(Fact, frozen=True, kw_only=True):
    """Body of a pin."""

    message: Seq


class Unpinned(Fact, frozen=True, kw_only=True):
    """Body of an unpin."""

    message: Seq


class Reacted(Fact, frozen=True, kw_only=True):
    """Body of a reaction."""

    message: Seq
    emoji: str
    removed: bool = False
    """Whether the reaction is taken back."""


class Conversation(State, frozen=True, kw_only=True):
    """Base of the states of channels and dms."""

    pins: frozenset[int] = frozenset()


C = TypeVar("C", bound=Conversation)


def evolve_pins(conversation: C, fact: Fact | Unknown) -> C:
    """The conversation with the pins it has after `fact`."""
    match fact:
        case Pinned() if fact.message not in conversation.pins:
            return replace(conversation, pins=conversation.pins | {fact.message})
        case Unpinned() if fact.message in conversation.pins:
            return replace(conversation, pins=conversation.pins - {fact.message})
        case _:
            return conversation


class PostBase(Command, frozen=True, kw_only=True):
    """The fields of every request that posts."""

    text: Annotated[Text, Meta(description="what to say; @name mentions an agent")]
    reply_to: Annotated[Seq | None, Meta(description="seq of the message this answers")] = None
    mentions: Annotated[tuple[Name, ...], Meta(max_length=100, description="agents to notify")] = ()
    refs: Annotated[tuple[Seq, ...], Meta(max_length=100, description="seqs of events this is about")] = ()
    attachments: Annotated[tuple[Digest, ...], Meta(max_length=100, description="sha256:… of stored files")] = ()


class EditBase(Command, frozen=True, kw_only=True):
    message: Message
    text: Annotated[Text, Meta(description="what it says from now on")]


class PinBase(Command, frozen=True, kw_only=True):
    message: Message


class ReactBase(Command, frozen=True, kw_only=True):
    message: Message
    emoji: Annotated[Emoji, Meta(description="an emoji or a short word")]
    remove: Annotated[bool, Meta(description="take the reaction back")] = False


class ReadBase(PageQuery, frozen=True, kw_only=True):
    """The fields of every request that reads messages. Without `since` or `before` it is the newest ones."""

    before: Annotated[Seq | None, Meta(description="only messages before this seq")] = None
    thread: Annotated[Seq | None, Meta(description="only this message and the replies under it")] = None
    pinned: Annotated[bool, Meta(description="only pinned messages")] = False


class SearchBase(PageQuery, frozen=True, kw_only=True):
    text: Annotated[str, Meta(min_length=1, max_length=1000, description="words that must all occur")]
    before: Annotated[Seq | None, Meta(description="only messages before this seq")] = None


class MessageRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as it read at the moment asked for. `channel` is the channel's name, or the other agent of a dm."""

    seq: int
    time: datetime
    agent: str
    channel: str
    text: str
    reply_to: int | None = None
    mentions: list[str] = []
    refs: list[int] = []
    attachments: list[str] = []
    edited: int | None = None
    """Seq of the latest edit."""
    pinned: bool = False
    reactions: dict[str, list[str]] = {}


class Messages(Answer, frozen=True, kw_only=True):
    """Messages, oldest first. `next` is the `since` that continues where this page ends."""

    messages: list[MessageRow]
    next: int | None = None


class Touched(Reply, frozen=True, kw_only=True):
    """An edit, pin or reaction was recorded."""

    message: int


class PostReply(Reply, frozen=True, kw_only=True):
    """A message was posted; its seq names it."""

    mentions: tuple[str, ...] = ()


def named_events(request: Any) -> Sequence[int]:
    """The events a request names that its decision has to look at."""
    seq = getattr(request, "message", None) or getattr(request, "reply_to", None)
    return () if seq is None else (seq,)


def message_event(ctx: Context, seq: int, family: str, namespace: str, entity: str) -> Event:
    """The event that posted message `seq` in this conversation; NotFound otherwise."""
    event = ctx.events.get(seq)
    here = event is not None and (event.family, event.namespace, event.entity) == (family, namespace, entity)
    if event is None or not here or not isinstance(event.fact, Posted):
        raise NotFound(
            "no such message here",
            entity=f"{family} {entity}",
            expected="a message of this conversation",
            found=f"#{seq}, which is none",
            hint="Reading it shows the seqs of its messages",
        )
    return event


def posted_fields(view: View, request: PostBase, ctx: Context, reply_to_agent: str | None) -> dict[str, Any]:
    """The fields of the Posted fact that `request` becomes."""
    for name in request.mentions:
        agent.find_active(view, name)
    mentions = list(dict.fromkeys(request.mentions))
    if "@" in request.text:
        for name in _MENTION.findall(request.text):
            known = view.get(agent.Agent, TENANT, name)
            if known is not None and known.active and name not in mentions:
                mentions.append(name)
    return {
        "text": request.text,
        "reply_to": request.reply_to,
        "reply_to_agent": reply_to_agent,
        "mentions": tuple(mentions),
        "refs": request.refs,
        "attachments": request.attachments,
    }


def own_message(ctx: Context, request: EditBase, family: str, namespace: str, entity: str) -> Event:
    """The message that `request` edits; NotAllowed when somebody else wrote it."""
    event = message_event(ctx, request.message, family, namespace, entity)
    if event.agent != ctx.agent:
        raise NotAllowed(
            "only its author may edit a message",
            entity=f"message #{event.seq}",
            expected=event.agent,
            found=ctx.agent,
            hint="Reply to it instead: --reply-to",
        )
    return event


def post_reply(view: View, request: Any, events: Sequence[Event]) -> PostReply:
    event = events[-1]
    fact = event.fact
    return PostReply(seq=event.seq, mentions=fact.mentions if isinstance(fact, Posted) else ())


def touch_reply(view: View, request: Any, events: Sequence[Event]) -> Touched:
    return Touched(seq=events[-1].seq, message=request.message)
