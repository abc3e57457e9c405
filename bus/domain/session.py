"""Sessions: what was said in a conversation, turn by turn, and as much of it as a model can be shown.

    opened -> turns added -> compacted (the oldest turns by a summary) -> turns added -> … -> cleared -> turns added

Rules:
* A session belongs to the agent that began it. A private one can be read and written by its owner alone, a shared one
  by every agent of the tenant. The key of a private session is its owner and a digest of its name: a name is looked up
  under the agent that asks, and no listing of the log tells it to anybody else.
* A turn is named by the seq of the event that added it and never changes. A summary takes the place of turns when
  something is put in front of a model; the turns themselves stay readable.
* A summary is always of all turns up to one of them. It is refused when the session was cleared, or got another
  summary, after what it rests on: each turn is summarised once.
* How a session is compacted and shown to a model (its strategy) is part of its state: a change is an event.
* Here are the facts and the state. The requests are in `bus.domain.session_requests`, what is decided in
  `bus.domain.session_decisions`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, ClassVar

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from bus.domain.task import Count
from bus.events import Event, Fact
from bus.model import Position, Seq, State

STRATEGIES = ("window", "summary", "summary_buffer", "vector", "token_budget")
SUMMARISING = ("summary", "summary_buffer")
"""The strategies that show a summary, and whose sessions are compacted by themselves."""
SETTINGS = ("title", "strategy", "recent_turns", "recent_tokens", "nearest", "compact_at_tokens")
"""What may be set when a session is opened, and changed."""


class SessionOpened(Fact, frozen=True, kw_only=True):
    """A session began; its author is its owner."""

    type: ClassVar[str] = "session.opened"
    name: str
    """What it is called by those who may read it."""
    scope: str = "private"
    """`private` or `shared`."""
    title: str = ""
    strategy: str = "summary_buffer"
    """How it is shown to a model: `window`, `summary`, `summary_buffer`, `vector` or `token_budget`."""
    recent_turns: Count = 20
    """So many of the newest turns are shown by `window` and `vector`."""
    recent_tokens: Count = 4000
    """The newest turns of so many tokens are shown by `summary_buffer`, and kept when it is compacted."""
    nearest: Count = 8
    """So many of the turns nearest to the question are shown by `vector`."""
    compact_at_tokens: Count | None = None
    """It is compacted when it has more tokens than this: 0 never, absent as the settings of the bus say."""


class SessionConfigured(Fact, frozen=True, kw_only=True):
    """How a session is shown or compacted changed; a field that is absent stays as it was."""

    type: ClassVar[str] = "session.configured"
    title: str | UnsetType = UNSET
    strategy: str | UnsetType = UNSET
    """How it is shown to a model."""
    recent_turns: Count | UnsetType = UNSET
    """So many of the newest turns are shown by `window` and `vector`."""
    recent_tokens: Count | UnsetType = UNSET
    """The newest turns of so many tokens are shown by `summary_buffer`."""
    nearest: Count | UnsetType = UNSET
    """So many of the turns nearest to the question are shown by `vector`."""
    compact_at_tokens: Count | UnsetType = UNSET
    """It is compacted when it has more tokens than this."""


class SessionAdded(Fact, frozen=True, kw_only=True):
    """A turn was added."""

    type: ClassVar[str] = "session.added"
    role: str
    """Who speaks: `system`, `user`, `assistant` or `tool`."""
    content: str
    """What is said."""
    tokens: Count
    """How many tokens it has, as counted by the author or estimated from its length."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else, as JSON, such as the calls of tools."""
    embedding: tuple[float, ...] = ()
    """The author's vector for the content."""


class SessionCompactionAsked(Fact, frozen=True, kw_only=True):
    """The author wants the turns before this to be summarised."""

    type: ClassVar[str] = "session.compaction_asked"
    keep: Count = 1
    """So many of the newest turns are left as they are."""


class SessionCompacted(Fact, frozen=True, kw_only=True):
    """A summary took the place of turns."""

    type: ClassVar[str] = "session.compacted"
    summary: str
    """What is shown instead of them, and of the summary before."""
    upto: Seq
    """The last turn that it stands for."""
    start: Position = 0
    """The turns after this event were summarised, those before were already, or were cleared."""
    summariser: str = ""
    """Who made it: the id of a summariser, or `agent:` and a name."""


class SessionCleared(Fact, frozen=True, kw_only=True):
    """The session began anew: nothing before this is a part of it any more."""

    type: ClassVar[str] = "session.cleared"


class Session(State, frozen=True, kw_only=True):
    """A session now. `cleared` and `compacted` are seqs: turns up to the first are gone from it, turns up to the second
    are in the summary, which event `summarised` brought. `asked`: the event that asked for a compaction which has not
    come yet. `dimension` is that of its turns' embeddings, once one has any."""

    table: ClassVar[str] = "session"
    owner: str
    name: str
    scope: str
    title: str = ""
    strategy: str = "summary_buffer"
    recent_turns: int = 20
    recent_tokens: int = 4000
    nearest: int = 8
    compact_at_tokens: int | None = None
    cleared: int = 0
    compacted: int = 0
    summary: str = ""
    summarised: int | None = None
    summariser: str = ""
    asked: int | None = None
    keep: int = 1
    dimension: int = 0

    @property
    def begins(self) -> int:
        """The turns after this event are neither gone nor summarised."""
        return max(self.cleared, self.compacted)


def evolve(session: Session | None, event: Event) -> Session | None:
    """The session after `event`."""
    fact = event.fact
    if session is None:
        if not isinstance(fact, SessionOpened):
            return None
        given = {name: getattr(fact, name) for name in SETTINGS}
        return Session(owner=event.agent, name=fact.name, scope=fact.scope, **given)
    match fact:
        case SessionConfigured():
            changed = {name: value for name in SETTINGS if (value := getattr(fact, name)) is not UNSET}
            same = all(getattr(session, name) == value for name, value in changed.items())
            return session if same else replace(session, **changed)
        case SessionAdded() if fact.embedding and not session.dimension:
            return replace(session, dimension=len(fact.embedding))
        case SessionCompactionAsked():
            return replace(session, asked=event.seq, keep=fact.keep)
        case SessionCompacted() if session.begins < fact.upto < event.seq:
            return replace(
                session,
                compacted=fact.upto,
                summary=fact.summary,
                summarised=event.seq,
                summariser=fact.summariser,
                asked=None,
            )
        case SessionCleared():
            return replace(session, cleared=event.seq, summary="", summarised=None, summariser="", asked=None)
        case _:
            return session


# --- names --------------------------------------------------------------------------------------------------------


def own_key(name: str, agent: str) -> str:
    """The key of the private session that this agent calls so."""
    return f"{agent}+{blake2b(f'{agent} {name}'.encode(), digest_size=10).hexdigest()}"


def readers(key: str) -> tuple[str, ...] | None:
    """The agents that may read the session of that key (None: every agent of the tenant)."""
    return tuple(key.split("+")[:1]) if "+" in key else None


def speaker(role: str, agent: str) -> str:
    """Who says a turn: the agent that added it, when it speaks itself, else the role."""
    return agent if role == "assistant" else role
