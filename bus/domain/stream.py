"""Streams: what is noted about one thing, item after item, such as everything about `user:4321`.

Rules:
* The entity is what the items are about. A stream begins with its first item; nobody opens or closes one.
* An item is JSON, named by the seq of the event that appended it, and never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Raw, Struct

from bus.domain.kv import check_key
from bus.domain.merge import kept
from bus.events import Event, Fact
from bus.model import Answer, Command, Context, Decision, Emit, Family, Operation, PageQuery, Reply, Seq, State, View


class StreamAppended(Fact, frozen=True, kw_only=True):
    """The author noted something."""

    type: ClassVar[str] = "stream.appended"
    data: Raw
    """The item."""


class Stream(State, frozen=True, kw_only=True):
    """A stream. `opener` is the author of its first item."""

    table: ClassVar[str] = "stream"
    opener: str


def evolve(stream: Stream | None, event: Event) -> Stream | None:
    """The stream after `event`: it does not change with its items."""
    return Stream(opener=event.agent) if stream is None and isinstance(event.fact, StreamAppended) else stream


# --- requests -----------------------------------------------------------------------------------------------------

StreamName = Annotated[str, Meta(min_length=1, max_length=200, description="what it is about, such as user:4321")]


class Append(Command, frozen=True, kw_only=True):
    """Append an item to a stream."""

    stream: StreamName
    data: Annotated[Any, Meta(description="the item: any JSON")]


class Read(PageQuery, frozen=True, kw_only=True):
    """Read a stream: the newest items, or those after `since`. A stream without items is empty."""

    stream: StreamName
    before: Annotated[Seq | None, Meta(description="only items before this seq")] = None


class Appended(Reply, frozen=True, kw_only=True):
    """An item was appended; its seq names it."""

    stream: str


class StreamItem(Struct, frozen=True, kw_only=True):
    """An item of a stream."""

    seq: int
    time: datetime
    agent: str
    data: Any


class Items(Answer, frozen=True, kw_only=True):
    """Items, oldest first. `next` is the `since` that continues where this page ends."""

    items: list[StreamItem]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_append(view: View, request: Append, ctx: Context) -> Decision:
    entity = f"stream {request.stream}"
    check_key(request.stream, entity)
    return [Emit(Stream, request.stream, StreamAppended(data=kept(request.data, entity)))]


def _reply(view: View, request: Append, events: Sequence[Event]) -> Appended:
    return Appended(seq=events[-1].seq, stream=request.stream)


FAMILY = Family(
    name="stream",
    facts=(StreamAppended,),
    state=Stream,
    evolve=evolve,
    operations=(
        Operation("stream.append", Append, Appended, decide_append, _reply),
        Operation("stream.read", Read, Items),
    ),
)
