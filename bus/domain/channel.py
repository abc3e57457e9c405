"""Channels: named conversations of a namespace that every agent of the tenant can read.

Rules:
* Joining a channel that does not exist opens it. Membership decides what reaches the inbox, not who may read or post.
* An archived channel can be read but not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.domain import message
from bus.errors import NotFound, Refused
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Name,
    Operation,
    PageQuery,
    Reply,
    View,
)

Topic = Annotated[str, Meta(max_length=1000)]
ChannelName = Annotated[Name, Meta(description="the channel")]


class ChannelOpened(Fact, frozen=True, kw_only=True):
    """A channel came into being."""

    type: ClassVar[str] = "channel.opened"
    topic: str = ""


class ChannelJoined(Fact, frozen=True, kw_only=True):
    """The author became a member."""

    type: ClassVar[str] = "channel.joined"


class ChannelLeft(Fact, frozen=True, kw_only=True):
    """The author is no longer a member."""

    type: ClassVar[str] = "channel.left"


class ChannelPosted(message.Posted, frozen=True, kw_only=True):
    """A message was posted."""

    type: ClassVar[str] = "channel.posted"


class ChannelEdited(message.Edited, frozen=True, kw_only=True):
    """A message's text was changed by its author."""

    type: ClassVar[str] = "channel.edited"


class ChannelPinned(message.Pinned, frozen=True, kw_only=True):
    """A message was pinned."""

    type: ClassVar[str] = "channel.pinned"


class ChannelUnpinned(message.Unpinned, frozen=True, kw_only=True):
    """A message was unpinned."""

    type: ClassVar[str] = "channel.unpinned"


class ChannelReacted(message.Reacted, frozen=True, kw_only=True):
    """The author reacted to a message, or took the reaction back."""

    type: ClassVar[str] = "channel.reacted"


class ChannelArchived(Fact, frozen=True, kw_only=True):
    """The channel can be read but not written from now on."""

    type: ClassVar[str] = "channel.archived"
    reason: str = ""


class Channel(message.Conversation, frozen=True, kw_only=True):
    """A channel now."""

    table: ClassVar[str] = "channel"
    topic: str = ""
    archived: bool = False
    members: frozenset[str] = frozenset()


def evolve(channel: Channel | None, event: Event) -> Channel | None:
    """The channel after `event`."""
    fact = event.fact
    if channel is None:
        return Channel(topic=fact.topic) if isinstance(fact, ChannelOpened) else None
    if isinstance(fact, ChannelPosted):
        return channel  # By far the most frequent, and it changes nothing.
    match fact:
        case ChannelLeft() if event.agent in channel.members:
            return replace(channel, members=channel.members - {event.agent})
        case _ if channel.archived:
            return channel
        case ChannelJoined() if event.agent not in channel.members:
            return replace(channel, members=channel.members | {event.agent})
        case ChannelPinned() | ChannelUnpinned():
            return message.evolve_pins(channel, fact)
        case ChannelArchived():
            return replace(channel, archived=True)
        case _:
            return channel


# --- requests -----------------------------------------------------------------------------------------------------


class Open(Command, frozen=True, kw_only=True):
    """Open a channel (finds it when it is open already)."""

    channel: ChannelName
    topic: Annotated[Topic, Meta(description="what it is for")] = ""


class Join(Command, frozen=True, kw_only=True):
    """Become a member: the channel's messages reach your inbox. Opens the channel when there is none."""

    channel: ChannelName


class Leave(Command, frozen=True, kw_only=True):
    """Stop being a member."""

    channel: ChannelName


class Post(message.PostBase, frozen=True, kw_only=True):
    """Post a message to a channel."""

    channel: ChannelName


class Edit(message.EditBase, frozen=True, kw_only=True):
    """Change the text of a message of yours; what it said before stays readable as of then."""

    channel: ChannelName


class Pin(message.PinBase, frozen=True, kw_only=True):
    """Pin a message."""

    channel: ChannelName


class Unpin(message.PinBase, frozen=True, kw_only=True):
    """Unpin a message."""

    channel: ChannelName


class React(message.ReactBase, frozen=True, kw_only=True):
    """React to a message."""

    channel: ChannelName


class Archive(Command, frozen=True, kw_only=True):
    """Close a channel for writing; it stays readable."""

    channel: ChannelName
    reason: Annotated[str, Meta(max_length=2000, description="why")] = ""


class Read(message.ReadBase, frozen=True, kw_only=True):
    """Read a channel: the newest messages, or those after `since`, a thread, or the pinned ones."""

    channel: ChannelName


class Search(message.SearchBase, frozen=True, kw_only=True):
    """Find messages by words, newest first, in one channel or in all of the namespace."""

    channel: Annotated[Name | None, Meta(description="only this channel")] = None


class List(PageQuery, frozen=True, kw_only=True):
    """List the channels of the namespace."""

    archived: Annotated[bool | None, Meta(description="only archived, or only open ones")] = None
    member: Annotated[Name | None, Meta(description="only channels this agent has joined")] = None


class ChannelReply(Reply, frozen=True, kw_only=True):
    channel: str


class ChannelRow(Struct, frozen=True, kw_only=True):
    channel: str
    seq: int
    topic: str
    archived: bool
    members: list[str]
    messages: int
    last: int | None
    """Seq of the newest message."""


class Channels(Answer, frozen=True, kw_only=True):
    channels: list[ChannelRow]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def _find(view: View, ctx: Context, name: str) -> Channel:
    channel = view.get(Channel, ctx.namespace, name)
    if channel is None:
        raise NotFound(
            "no such channel",
            entity=f"channel {name}",
            expected=f"a channel of namespace {ctx.namespace}",
            found="none of that name",
            hint=f"`bus join {name}` opens it",
        )
    return channel


def _writable(view: View, ctx: Context, name: str) -> Channel:
    channel = _find(view, ctx, name)
    if channel.archived:
        raise Refused(
            "the channel is archived",
            code="archived",
            entity=f"channel {name}",
            expected="an open channel",
            found="an archived one, which can only be read",
            hint="Write to another channel",
        )
    return channel


def _now(view: View, ctx: Context, name: str) -> ChannelReply:
    entry = view.entry(Channel, ctx.namespace, name)
    assert entry is not None
    return ChannelReply(seq=entry.since, channel=name)


def decide_open(view: View, request: Open, ctx: Context) -> Decision:
    if view.get(Channel, ctx.namespace, request.channel) is not None:
        _writable(view, ctx, request.channel)
        return _now(view, ctx, request.channel)
    return [Emit(Channel, request.channel, ChannelOpened(topic=request.topic))]


def decide_join(view: View, request: Join, ctx: Context) -> Decision:
    joined = Emit(Channel, request.channel, ChannelJoined())
    if view.get(Channel, ctx.namespace, request.channel) is None:
        return [Emit(Channel, request.channel, ChannelOpened()), joined]
    channel = _writable(view, ctx, request.channel)
    return _now(view, ctx, request.channel) if ctx.agent in channel.members else [joined]


def decide_leave(view: View, request: Leave, ctx: Context) -> Decision:
    channel = _find(view, ctx, request.channel)
    if ctx.agent not in channel.members:
        return _now(view, ctx, request.channel)
    return [Emit(Channel, request.channel, ChannelLeft())]


def decide_post(view: View, request: Post, ctx: Context) -> Decision:
    _writable(view, ctx, request.channel)
    answered = None
    if request.reply_to is not None:
        answered = message.message_event(ctx, request.reply_to, "channel", ctx.namespace, request.channel).agent
    fields = message.posted_fields(view, request, ctx, answered)
    return [Emit(Channel, request.channel, ChannelPosted(**fields))]


def decide_edit(view: View, request: Edit, ctx: Context) -> Decision:
    _writable(view, ctx, request.channel)
    message.own_message(ctx, request, "channel", ctx.namespace, request.channel)
    return [Emit(Channel, request.channel, ChannelEdited(message=request.message, text=request.text))]


def _touching(view: View, request: Any, ctx: Context) -> Channel:
    channel = _writable(view, ctx, request.channel)
    message.message_event(ctx, request.message, "channel", ctx.namespace, request.channel)
    return channel


def _unchanged(view: View, request: Any, ctx: Context) -> message.Touched:
    return message.Touched(seq=_now(view, ctx, request.channel).seq, message=request.message)


def decide_pin(view: View, request: Pin, ctx: Context) -> Decision:
    if request.message in _touching(view, request, ctx).pins:
        return _unchanged(view, request, ctx)
    return [Emit(Channel, request.channel, ChannelPinned(message=request.message))]


def decide_unpin(view: View, request: Unpin, ctx: Context) -> Decision:
    if request.message not in _touching(view, request, ctx).pins:
        return _unchanged(view, request, ctx)
    return [Emit(Channel, request.channel, ChannelUnpinned(message=request.message))]


def decide_react(view: View, request: React, ctx: Context) -> Decision:
    _touching(view, request, ctx)
    fact = ChannelReacted(message=request.message, emoji=request.emoji, removed=request.remove)
    return [Emit(Channel, request.channel, fact)]


def decide_archive(view: View, request: Archive, ctx: Context) -> Decision:
    if _find(view, ctx, request.channel).archived:
        return _now(view, ctx, request.channel)
    return [Emit(Channel, request.channel, ChannelArchived(reason=request.reason))]


def _reply(view: View, request: Any, events: Sequence[Event]) -> ChannelReply:
    return ChannelReply(seq=events[-1].seq, channel=request.channel)


_named = message.named_events

FAMILY = Family(
    name="channel",
    facts=(
        ChannelOpened,
        ChannelJoined,
        ChannelLeft,
        ChannelPosted,
        ChannelEdited,
        ChannelPinned,
        ChannelUnpinned,
        ChannelReacted,
        ChannelArchived,
    ),
    state=Channel,
    evolve=evolve,
    operations=(
        Operation("channel.open", Open, ChannelReply, decide_open, _reply),
        Operation("channel.join", Join, ChannelReply, decide_join, _reply),
        Operation("channel.leave", Leave, ChannelReply, decide_leave, _reply),
        Operation("channel.post", Post, message.PostReply, decide_post, message.post_reply, _named),
        Operation("channel.edit", Edit, message.Touched, decide_edit, message.touch_reply, _named),
        Operation("channel.pin", Pin, message.Touched, decide_pin, message.touch_reply, _named),
        Operation("channel.unpin", Unpin, message.Touched, decide_unpin, message.touch_reply, _named),
        Operation("channel.react", React, message.Touched, decide_react, message.touch_reply, _named),
        Operation("channel.archive", Archive, ChannelReply, decide_archive, _reply),
        Operation("channel.read", Read, message.Messages),
        Operation("channel.search", Search, message.Messages),
        Operation("channel.list", List, Channels),
    ),
)
