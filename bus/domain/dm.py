"""Direct messages: a conversation of two agents that nobody else can read.

Rules:
* The entity is the pair, `a+b` in alphabetical order; it begins with the first message. It belongs to the tenant, not
  to a namespace. Writing to oneself is allowed: a note.
* Who may see it is decided from the pair (`readers`), in every projection.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from bus.domain import agent, message
from bus.errors import NotFound
from bus.events import Event
from bus.model import Answer, Context, Decision, Emit, Family, Name, Operation, PageQuery, View
from bus.subjects import TENANT

With = Annotated[Name, Meta(description="the other agent")]


class DmPosted(message.Posted, frozen=True, kw_only=True):
    """A message was sent."""

    type: ClassVar[str] = "dm.posted"
    to: str = ""


class DmEdited(message.Edited, frozen=True, kw_only=True):
    """A message's text was changed by its author."""

    type: ClassVar[str] = "dm.edited"


class DmPinned(message.Pinned, frozen=True, kw_only=True):
    """A message was pinned."""

    type: ClassVar[str] = "dm.pinned"


class DmUnpinned(message.Unpinned, frozen=True, kw_only=True):
    """A message was unpinned."""

    type: ClassVar[str] = "dm.unpinned"


class DmReacted(message.Reacted, frozen=True, kw_only=True):
    """The author reacted to a message, or took the reaction back."""

    type: ClassVar[str] = "dm.reacted"


class Dm(message.Conversation, frozen=True, kw_only=True):
    """A conversation of two agents now."""

    table: ClassVar[str] = "dm"


def evolve(dm: Dm | None, event: Event) -> Dm | None:
    """The conversation after `event`."""
    fact = event.fact
    if dm is None:
        return Dm() if isinstance(fact, DmPosted) else None
    return message.evolve_pins(dm, fact)


def pair(one: str, other: str) -> str:
    """The key of the conversation of two agents."""
    return "+".join(sorted((one, other)))


def readers(key: str) -> tuple[str, ...]:
    """The agents that may read the conversation of that key."""
    return tuple(key.split("+"))


# --- requests -----------------------------------------------------------------------------------------------------


class Post(message.PostBase, frozen=True, kw_only=True):
    """Send a message to one agent; nobody else can read it."""

    to: Annotated[Name, Meta(description="who gets it")]


class Edit(message.EditBase, frozen=True, kw_only=True):
    """Change the text of a message you sent."""

    to: With


class Pin(message.PinBase, frozen=True, kw_only=True):
    """Pin a message of a direct conversation."""

    to: With


class Unpin(message.PinBase, frozen=True, kw_only=True):
    """Unpin a message of a direct conversation."""

    to: With


class React(message.ReactBase, frozen=True, kw_only=True):
    """React to a message of a direct conversation."""

    to: With


class Read(message.ReadBase, frozen=True, kw_only=True):
    """Read your direct conversation with an agent."""

    to: With


class Search(message.SearchBase, frozen=True, kw_only=True):
    """Find direct messages of yours by words, newest first."""

    to: Annotated[Name | None, Meta(description="only with this agent")] = None


class List(PageQuery, frozen=True, kw_only=True):
    """List your direct conversations."""


class DmRow(Struct, frozen=True, kw_only=True):
    agent: str
    """The other one."""
    seq: int
    messages: int
    last: int
    """Seq of the newest message."""


class Dms(Answer, frozen=True, kw_only=True):
    dms: list[DmRow]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def _emit(key: str, fact: Any) -> list[Emit]:
    return [Emit(Dm, key, fact, None, TENANT)]


def decide_post(view: View, request: Post, ctx: Context) -> Decision:
    agent.find_active(view, request.to)
    key = pair(ctx.agent, request.to)
    answered = None
    if request.reply_to is not None:
        answered = message.message_event(ctx, request.reply_to, "dm", TENANT, key).agent
    fields = message.posted_fields(view, request, ctx, answered)
    # A mention would show the text to somebody who may not read it.
    fields["mentions"] = tuple(name for name in fields["mentions"] if name in readers(key))
    return _emit(key, DmPosted(to=request.to, **fields))


def decide_edit(view: View, request: Edit, ctx: Context) -> Decision:
    key = pair(ctx.agent, request.to)
    message.own_message(ctx, request, "dm", TENANT, key)
    return _emit(key, DmEdited(message=request.message, text=request.text))


def _touching(view: View, request: Any, ctx: Context) -> tuple[str, Dm, message.Touched]:
    key = pair(ctx.agent, request.to)
    entry = view.entry(Dm, TENANT, key)
    if entry is None:
        raise NotFound(
            "no such message here",
            entity=f"dm with {request.to}",
            expected="a message of this conversation",
            found="a conversation without messages",
            hint=f"`bus dm post {request.to}` begins it",
        )
    message.message_event(ctx, request.message, "dm", TENANT, key)
    return key, entry.state, message.Touched(seq=entry.since, message=request.message)


def decide_pin(view: View, request: Pin, ctx: Context) -> Decision:
    key, dm, unchanged = _touching(view, request, ctx)
    return unchanged if request.message in dm.pins else _emit(key, DmPinned(message=request.message))


def decide_unpin(view: View, request: Unpin, ctx: Context) -> Decision:
    key, dm, unchanged = _touching(view, request, ctx)
    return _emit(key, DmUnpinned(message=request.message)) if request.message in dm.pins else unchanged


def decide_react(view: View, request: React, ctx: Context) -> Decision:
    key, _, _ = _touching(view, request, ctx)
    return _emit(key, DmReacted(message=request.message, emoji=request.emoji, removed=request.remove))


_named = message.named_events

FAMILY = Family(
    name="dm",
    facts=(DmPosted, DmEdited, DmPinned, DmUnpinned, DmReacted),
    state=Dm,
    evolve=evolve,
    operations=(
        Operation("dm.post", Post, message.PostReply, decide_post, message.post_reply, _named),
        Operation("dm.edit", Edit, message.Touched, decide_edit, message.touch_reply, _named),
        Operation("dm.pin", Pin, message.Touched, decide_pin, message.touch_reply, _named),
        Operation("dm.unpin", Unpin, message.Touched, decide_unpin, message.touch_reply, _named),
        Operation("dm.react", React, message.Touched, decide_react, message.touch_reply, _named),
        Operation("dm.read", Read, message.Messages),
        Operation("dm.search", Search, message.Messages),
        Operation("dm.list", List, Dms),
    ),
)
