"""The shapes every family is made of: requests, replies, states, decisions, operations.

One request struct is one operation on every door. A request says what is wanted and nothing about how it travels; its
docstring is the help text, its field descriptions are the options' help.

Rules:
* Requests are strict (an unknown field is an error); events are lenient (`bus.events`).
* `decide` is pure: it reads a View, and returns events to append, or a Reply when nothing needs to change, or raises a
  BusError. `evolve` is pure: (state, event) -> state.
* States are frozen, flat structs: str, int, float, bool, datetime, Literal, any of these or None, and the collections
  `frozenset[str]`, `frozenset[int]` and `dict[str, int]`, from which tables are derived.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bus.clock import Ids
from bus.events import Event, Fact

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
Seq = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
Position = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Text = Annotated[str, Meta(min_length=1, max_length=200_000)]
Label = Annotated[str, Meta(min_length=1, max_length=100)]
Key = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
Instant = Annotated[datetime, Meta(tz=True)]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
LeaseS = Annotated[int, Meta(ge=1, le=7 * 86_400, description="seconds until the lease ends unless renewed")]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every request."""

    namespace: Annotated[Name, Meta(description="team or project inside the tenant")] = "default"
    after: Annotated[Position, Meta(description="be answered from a state that contains this event")] = 0


class Command(Request, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every request that may append events."""

    fence: Annotated[
        Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
        | Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}:[1-9][0-9]{0,15}\Z")]
        | None,
        Meta(description="write only while this claim holds (TASK:SEQ, or SEQ of this task's claim); renews its lease"),
    ] = None
    causes: Annotated[tuple[Seq, ...], Meta(max_length=64, description="seqs of the events that led to this")] = ()
    correlation: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | None,
        Meta(description="one id for everything that belongs together"),
    ] = None


class Query(Request, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every request that only reads."""

    as_of: Annotated[
        int | str | None,
        Meta(description="the moment to read: a seq, an ISO instant, or a time ago such as -10m"),
    ] = None
    wait_s: Annotated[
        float, Meta(ge=0, le=30, description="if there is nothing yet, wait so many seconds for something")
    ] = 0


class PageQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of queries that answer a page: the cursor is a seq, never a clock."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="at most so many items")] = 50
    since: Annotated[Position | None, Meta(description="only items after this seq (the cursor of the last page)")] = (
        None
    )


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every command's reply: the seq of the event that records its effect."""

    seq: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every query's reply: the position it was answered at, and when that event was stored."""

    seq: int
    time: datetime | None
    stale_s: float | UnsetType = UNSET
    """Seconds since whoever answered knew everything that was stored; absent while that is a moment ago."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a family knows about one entity. `table` names the table that is derived from it."""

    table: ClassVar[str]


S = TypeVar("S", bound=State)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entity's state with the seq of its first event (`kid`: its key in tables) and of its last change."""

    kid: int
    since: int
    state: Any


class View(Protocol):
    """What `decide` may read: the present states, as far as they have been decided."""

    def get(self, state: type[S], namespace: str, key: str) -> S | None:
        """The state of one entity, or None when there is none."""
        ...

    def entry(self, state: type[State], namespace: str, key: str) -> Entry | None: ...

    def ranked(self, state: type[State], namespace: str, rank: Any = None) -> Iterator[tuple[str, Entry]]:
        """The entities whose family gives them a rank, or this one, by their keys, lowest first."""
        ...

    def found(self, state: type[State], namespace: str, asked: Any) -> Iterator[tuple[str, Entry]]:
        """Those of the ranked entities that the index of their family finds, and perhaps some others, lowest first."""
        ...

    def due(self, now: datetime) -> Iterator[tuple[type[State], str, str]]:
        """(state type, namespace, key) of every entity whose deadline is not after `now`, earliest first."""
        ...


class Limits(msgspec.Struct, frozen=True):
    """The tunables that decisions depend on. Seconds where the name ends in `_s`."""

    lease_default_s: int = 600
    """A claim that says nothing else lasts so long."""
    lease_cap_s: int = 86_400
    """A task is held at most so long by one claim, however often it is renewed."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, where, and when. `events` holds the events the request names (see Operation.reads)."""

    agent: str
    namespace: str
    now: datetime
    ids: Ids
    authority: frozenset[str] = frozenset()
    events: Mapping[int, Event] = {}
    limits: Limits = Limits()


class Emit(msgspec.Struct, frozen=True):
    """One event to append. `agent` and `namespace` default to those of the request."""

    state: type[State]
    entity: str
    fact: Fact
    agent: str | None = None
    namespace: str | None = None


Decision = Sequence[Emit] | Reply
Authority = Literal["owner", "auditor"]


class Operation(msgspec.Struct, frozen=True):
    """One operation of the bus. Commands carry `decide` and `reply`; queries are answered by a handler in a view."""

    name: str
    request: type[Request]
    reply_type: type[msgspec.Struct]
    decide: Callable[[View, Any, Context], Decision] | None = None
    reply: Callable[[View, Any, Sequence[Event]], Reply] | None = None
    reads: Callable[[Any], Sequence[int]] | None = None
    """Seqs of events that `decide` wants to see in `Context.events`; a missing one is simply absent."""
    authority: Authority | None = None
    internal: bool = False
    """Asked by the daemon itself, never through a door."""
    essential: bool = False
    """Still served when the log is nearly full: it frees something or ends something."""

    @property
    def kind(self) -> str:
        return "do" if self.decide is not None else "see"

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.name.partition(".")[2]

    @property
    def help(self) -> str:
        return (self.request.__doc__ or "").strip()


class Index(Protocol):
    """Finds the entities of one family and namespace that can matter to a decision, without looking at each."""

    def put(self, key: str, state: Any) -> None:
        """Know the entity by its present state (None: it is not to be found any more). Never raises, whatever an
        administrator wrote."""
        ...

    def find(self, asked: Any) -> Collection[str]:
        """The keys of all entities that can matter to what is asked, and perhaps of some others, each once."""
        ...


def _same(key: str) -> str:
    return key


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of entity: its facts, its state, how the state follows from the facts, and its operations."""

    name: str
    facts: tuple[type[Fact], ...]
    state: type[State]
    evolve: Callable[[Any, Event], Any]
    """(state or None, event) -> state or None; the same object when nothing changed. Never raises: an event that makes
    no sense in this state (an administrator wrote it) leaves the state as it is."""
    operations: tuple[Operation, ...] = ()
    bucket_key: Callable[[str], str] = _same
    """Which key is hashed into the bucket: entities that must be decided together share one."""
    rank: Callable[[Any], tuple[Any, ...] | None] | None = None
    """Sort key of the entity among those waiting to be chosen, or None when it is not waiting."""
    index: Callable[[], Index] | None = None
    """An empty index of the entities that have a rank, when decisions are not to look at all of them."""
    deadline: Callable[[Any], datetime | None] | None = None
    """When the entity needs the leader's attention, in server time."""
    overdue: Callable[[Any, str, datetime], Sequence[Emit]] | None = None
    """(state, entity, now) -> the events that its passed deadline calls for, written as `system`."""
