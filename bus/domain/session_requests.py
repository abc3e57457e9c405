"""What may be asked about sessions, and what is answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from bus.domain.memory_requests import Embedding, Metadata
from bus.domain.recall import Kind
from bus.domain.task_requests import Happening
from bus.events import BODY_BYTES
from bus.model import Answer, Command, Key, Name, PageQuery, Query, Reply, Seq

SessionName = Annotated[Key, Meta(description="the session")]
Role = Literal["system", "user", "assistant", "tool"]
Scope = Literal["private", "shared"]
Strategy = Literal["window", "summary", "summary_buffer", "vector", "token_budget"]
HowShown = Annotated[
    Strategy,
    Meta(description="what a model is shown: the newest turns, a summary, both, the nearest turns, or what fits"),
]
Tier = Literal["system", "summary", "search", "recent"]
Title = Annotated[str, Meta(max_length=200, description="what it is about")]
Turns = Annotated[int, Meta(ge=1, le=10_000, description="newest turns that `window` and `vector` show")]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000, description="tokens of newest turns that `summary_buffer` keeps")]
Nearest = Annotated[int, Meta(ge=1, le=1000, description="turns nearest to the question that `vector` shows")]
CompactAt = Annotated[
    int, Meta(ge=0, le=100_000_000, description="compact it when it has more tokens (0: never; default: the settings)")
]
Budget = Annotated[int, Meta(ge=0, le=200_000)]


class Open(Command, frozen=True, kw_only=True):
    """Begin a session. If you can read one of that name already, you are told, and nothing changes."""

    session: SessionName
    scope: Annotated[Scope, Meta(description="who can read and write it: you alone, or every agent")] = "private"
    title: Title = ""
    strategy: HowShown = "summary_buffer"
    recent_turns: Turns = 20
    recent_tokens: Tokens = 4000
    nearest: Nearest = 8
    compact_at_tokens: CompactAt | None = None


class Configure(Command, frozen=True, kw_only=True):
    """Change how a session is shown to a model, or when it is compacted; what is not given stays as it is."""

    session: SessionName
    title: Title | None = None
    strategy: HowShown | None = None
    recent_turns: Turns | None = None
    recent_tokens: Tokens | None = None
    nearest: Nearest | None = None
    compact_at_tokens: CompactAt | None = None


class Add(Command, frozen=True, kw_only=True):
    """Add a turn to a session. If there is none of that name that you can read, it begins as a private one of yours."""

    session: SessionName
    role: Annotated[Role, Meta(description="who speaks")]
    content: Annotated[str, Meta(max_length=BODY_BYTES, description="what is said")]
    tokens: Annotated[
        Annotated[int, Meta(ge=0, le=10_000_000)] | None,
        Meta(description="how many tokens it has, if you have counted (default: a quarter of its bytes)"),
    ] = None
    metadata: Metadata = field(default_factory=dict)
    embedding: Embedding = ()


class Clear(Command, frozen=True, kw_only=True):
    """Let a session begin anew. Its turns are no part of it any more; as of earlier, and in its history, they are."""

    session: SessionName


class Compact(Command, frozen=True, kw_only=True):
    """Put a summary in the place of the oldest turns: one that is made in a moment, or one that you have written."""

    session: SessionName
    keep: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | None,
        Meta(description="newest turns to leave as they are (default: the last one)"),
    ] = None
    summary: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200_000)] | None,
        Meta(description="your summary, of everything up to `upto` (default: the bus makes one)"),
    ] = None
    upto: Annotated[Seq | None, Meta(description="seq of the last turn that your summary stands for")] = None


class Replace(Command, frozen=True, kw_only=True):
    """Put a summary in the place of turns (asked by the daemon)."""

    key: str
    start: int
    upto: int
    summary: str
    summariser: str


class Get(Query, frozen=True, kw_only=True):
    """Show a session: how it is kept, its summary, and how much is in it."""

    session: SessionName


class List(PageQuery, frozen=True, kw_only=True):
    """List the sessions that you can read, in the order in which they were opened."""

    scope: Annotated[Scope | None, Meta(description="only private, or only shared ones")] = None
    owner: Annotated[Name | None, Meta(description="only those that this agent began")] = None


class Messages(PageQuery, frozen=True, kw_only=True):
    """Read the turns of a session: the newest, or those after `since`; without those that a summary stands for."""

    session: SessionName
    before: Annotated[Seq | None, Meta(description="only turns before this seq")] = None
    replaced: Annotated[bool, Meta(description="also turns that a summary stands for")] = False


class ToString(PageQuery, frozen=True, kw_only=True):
    """Show a session as one text: its summary, then its newest turns, or those after `since`."""

    session: SessionName


class History(PageQuery, frozen=True, kw_only=True):
    """Show everything that happened in a session, also what was summarised or cleared: the newest, or after `since`."""

    session: SessionName
    before: Annotated[Seq | None, Meta(description="only what happened before this seq")] = None


class BuildContext(Query, frozen=True, kw_only=True):
    """Build what a model is shown of a session: system turns, summary, what a search finds, and the newest turns, each
    within its budget of tokens."""

    session: SessionName
    query: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4000)] | None,
        Meta(description="search for what bears on this, in words"),
    ] = None
    embedding: Annotated[Embedding | None, Meta(description="search the turns nearest to this vector instead")] = None
    strategy: Annotated[HowShown | None, Meta(description="show it so, instead of as the session says")] = None
    budget_tokens: Annotated[Budget, Meta(description="tokens in all")] = 16_000
    system_tokens: Annotated[Budget | None, Meta(description="at most so many of them for system turns")] = None
    summary_tokens: Annotated[Budget | None, Meta(description="at most so many for the summary")] = None
    search_tokens: Annotated[
        Budget | None, Meta(description="at most so many for what was found (default: a quarter of all)")
    ] = None
    recent_tokens: Annotated[Budget | None, Meta(description="at most so many for the newest turns")] = None
    k: Annotated[int, Meta(ge=1, le=100, description="find at most so many")] = 8
    kinds: Annotated[tuple[Kind, ...], Meta(max_length=10, description="find only these kinds")] = ()


class SessionReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What became of it. `existing`: the session was there already."""

    session: str
    existing: bool = False


class AddReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A turn was added; its seq names it. `opened`: the session began with it."""

    session: str
    tokens: int
    opened: bool = False


class SessionRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session. `seq` is that of the last change of how it is kept, `opened` that of its first event; `messages` and
    `message_tokens` count the turns that no summary stands for, `last` is the newest of them."""

    session: str
    seq: int
    opened: int
    owner: str
    scope: str
    strategy: str
    messages: int
    message_tokens: int
    last: int | None = None
    title: str = ""
    summary_tokens: int = 0


class Sessions(Answer, frozen=True, kw_only=True):
    """Sessions. `next` is the `since` that continues where this page ends."""

    sessions: list[SessionRow]
    next: int | None = None


class SessionDetail(Answer, frozen=True, kw_only=True):
    """A session and how it is kept. `summary` stands for the turns up to event `compacted`; `waiting`: a compaction was
    asked for and has not come yet."""

    session: SessionRow
    recent_turns: int
    recent_tokens: int
    nearest: int
    compact_at_tokens: int | None
    """Absent: as the settings of the bus say."""
    summary: str
    summarised: int | None
    """Seq of the event that brought the summary."""
    summariser: str
    compacted: int
    cleared: int
    """Turns up to this event are gone from the session."""
    waiting: bool


class Turn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn. `agent` is who added it; `replaced`: a summary stands for it."""

    seq: int
    time: datetime
    role: str
    agent: str
    content: str
    tokens: int
    metadata: dict[str, Any] = field(default_factory=dict)
    replaced: bool = False


class TurnPage(Answer, frozen=True, kw_only=True):
    """Turns, oldest first. `next` is the `since` that continues where this page ends."""

    messages: list[Turn]
    next: int | None = None


class SessionText(Answer, frozen=True, kw_only=True):
    """A session as text. `next` is the `since` that continues where it ends."""

    text: str
    next: int | None = None


class Happenings(Answer, frozen=True, kw_only=True):
    """What happened, oldest first. `next` is the `since` that continues where this page ends."""

    history: list[Happening]
    next: int | None = None


class Block(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of what a model is shown. `seqs` are the events it was made from. What carries `cache_control` ends a part
    that will be the same the next time: it need not be read anew."""

    tier: Tier
    role: str
    content: str
    tokens: int
    seqs: list[int]
    agent: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    cache_control: dict[str, str] | None = None


class LeftOut(Struct, frozen=True, kw_only=True):
    """What is not shown, and why: so many of a tier, with so many tokens."""

    tier: Tier
    items: int
    tokens: int
    why: str


class ModelContext(Answer, frozen=True, kw_only=True):
    """What a model is shown, in its order, and what is left out. `tokens` counts all blocks."""

    session: str
    strategy: str
    tokens: int
    budget_tokens: int
    blocks: list[Block]
    left_out: list[LeftOut]
