"""Memories: what the agents of a tenant know and hold to, beyond any one task.

    active -> active (appended to, revised) | retracted -> active (restored) | superseded

Rules:
* A shared entry can be read by every agent of the tenant, a private one by its author alone. The key of a private entry
  is `<author>+p-…`: its name is looked up under the agent that asks, so nobody else can name it, and who may see it
  follows from the key in every projection (`readers`).
* The same content (letter case and white space apart) on the same subject in the same scope is one entry. Scope and
  subject of an entry never change.
* Only its author, or an owner of the tenant, changes, supersedes, retracts or restores an entry. Whoever can read it
  may pin it, link it, and say that it contradicts another.
* When an entry is true in the world (`valid_from`, `valid_to`) has nothing to do with when the log learned of it.
* An embedding stays in the event that brought it; the state holds the seq of that. It goes with what the entry says: it
  is compared until the content changes, or another one comes.
* Here are the facts and the state. The requests are in `bus.domain.memory_requests`, what is decided in
  `bus.domain.memory_decisions`, the entries of a new tenant in `bus.domain.memory_seed`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from bus.domain.task import Count
from bus.events import Event, Fact, Unknown
from bus.model import Instant, Seq, State

CATEGORIES = ("operating_pattern", "routing_rule", "voice_rule", "discipline_rule", "convention", "do_not", "fact")
"""Rules in the order in which they are assembled, and at last what is no rule."""
TIERS = ("device_only", "trusted_cloud", "general_cloud")
"""Where an entry may be processed, the strictest first."""
OWN = "p-"
"""How the names of private entries begin."""
REVISABLE = (
    *("content", "category", "priority", "salience", "confidence", "tags", "metadata", "valid_from", "valid_to"),
    *("source", "refs", "trust_tier"),
)
"""What a revision may change, beside the embedding."""

_encode = msgspec.json.Encoder(order="sorted").encode


class MemoryWritten(Fact, frozen=True, kw_only=True):
    """An entry was written."""

    type: ClassVar[str] = "memory.written"
    content: str
    scope: str
    """`shared` or `private`."""
    subject: str = ""
    """What it is about, e.g. `user:4321`."""
    category: str = "fact"
    """What kind of knowledge it is: `fact`, or one of the kinds of rules."""
    priority: Count = 0
    salience: float = 0.5
    """How much it matters to its author, 0 to 1."""
    confidence: float = 1.0
    """How sure its author is, 0 to 1."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else, as JSON."""
    valid_from: Instant | None = None
    """Since when it is true in the world."""
    valid_to: Instant | None = None
    """Until when it is true in the world; not at that instant any more."""
    source: str = ""
    """Where it comes from."""
    refs: tuple[Seq, ...] = ()
    trust_tier: str | None = None
    """Where it may be processed: `device_only`, `trusted_cloud` or `general_cloud`."""
    embedding: tuple[float, ...] = ()
    """The author's vector for the content."""
    supersedes: str | None = None
    """The entry that it takes the place of."""


class MemoryAppended(Fact, frozen=True, kw_only=True):
    """A line was added to an entry's content."""

    type: ClassVar[str] = "memory.appended"
    text: str


class MemoryRevised(Fact, frozen=True, kw_only=True):
    """An entry changed; a field that is absent stays as it was."""

    type: ClassVar[str] = "memory.revised"
    content: str | UnsetType = UNSET
    category: str | UnsetType = UNSET
    """What kind of knowledge it is."""
    priority: Count | UnsetType = UNSET
    salience: float | UnsetType = UNSET
    """How much it matters to its author, 0 to 1."""
    confidence: float | UnsetType = UNSET
    """How sure its author is, 0 to 1."""
    tags: tuple[str, ...] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    """Anything else, as JSON."""
    valid_from: Instant | UnsetType = UNSET
    """Since when it is true in the world."""
    valid_to: Instant | UnsetType = UNSET
    """Until when it is true in the world; not at that instant any more."""
    source: str | UnsetType = UNSET
    """Where it comes from."""
    refs: tuple[Seq, ...] | UnsetType = UNSET
    trust_tier: str | UnsetType = UNSET
    """Where it may be processed."""
    embedding: tuple[float, ...] | UnsetType = UNSET
    """The author's vector for the content."""
    reason: str = ""


class MemorySuperseded(Fact, frozen=True, kw_only=True):
    """Another entry took the place of this one."""

    type: ClassVar[str] = "memory.superseded"
    by: str
    """The name of the other entry."""
    reason: str = ""


class MemoryRetracted(Fact, frozen=True, kw_only=True):
    """An entry does not hold any more."""

    type: ClassVar[str] = "memory.retracted"
    reason: str = ""


class MemoryRestored(Fact, frozen=True, kw_only=True):
    """A retracted entry holds again."""

    type: ClassVar[str] = "memory.restored"


class MemoryPinned(Fact, frozen=True, kw_only=True):
    """An entry was pinned."""

    type: ClassVar[str] = "memory.pinned"


class MemoryUnpinned(Fact, frozen=True, kw_only=True):
    """An entry was unpinned."""

    type: ClassVar[str] = "memory.unpinned"


class MemoryLinked(Fact, frozen=True, kw_only=True):
    """An entry was linked to another."""

    type: ClassVar[str] = "memory.linked"
    other: str
    """The name of the other entry."""


class MemoryUnlinked(Fact, frozen=True, kw_only=True):
    """A link was taken back."""

    type: ClassVar[str] = "memory.unlinked"
    other: str
    """The name of the other entry."""


class MemoryContradicted(Fact, frozen=True, kw_only=True):
    """Two entries cannot both be true."""

    type: ClassVar[str] = "memory.contradicted"
    other: str
    """The name of the other entry."""
    reason: str = ""


class MemoryResolved(Fact, frozen=True, kw_only=True):
    """A contradiction is settled."""

    type: ClassVar[str] = "memory.resolved"
    other: str
    """The name of the other entry."""
    resolution: str = ""
    """How it was settled."""


class Memory(State, frozen=True, kw_only=True):
    """An entry now. `editor` is who worded it last; `embedded` is the seq of the event that brought the vector it has;
    `links` and `contradictions` map the names of other entries to the seq that said so."""

    table: ClassVar[str] = "memory"
    author: str
    editor: str
    scope: str
    content: str
    subject: str = ""
    category: str = "fact"
    priority: int = 0
    salience: float = 0.5
    confidence: float = 1.0
    metadata: str = "{}"
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    source: str = ""
    trust_tier: str | None = None
    embedded: int | None = None
    state: str = "active"
    pinned: bool = False
    supersedes: str | None = None
    superseded_by: str | None = None
    tags: frozenset[str] = frozenset()
    refs: frozenset[int] = frozenset()
    links: dict[str, int] = field(default_factory=dict)
    contradictions: dict[str, int] = field(default_factory=dict)


def evolve(memory: Memory | None, event: Event) -> Memory | None:
    """The entry after `event`."""
    fact = event.fact
    if memory is None:
        return _written(event, fact) if isinstance(fact, MemoryWritten) else None
    changed = _changed(memory, event, fact)
    return memory if all(getattr(memory, k) == v for k, v in changed.items()) else replace(memory, **changed)


def _written(event: Event, fact: MemoryWritten) -> Memory:
    same = {name: getattr(fact, name) for name in REVISABLE if name not in _STORED}
    given = {name: getattr(fact, name) for name in ("scope", "subject", "supersedes")}
    stored = {name: made(getattr(fact, name)) for name, made in _STORED.items()}
    embedded = event.seq if fact.embedding else None
    return Memory(author=event.agent, editor=event.agent, embedded=embedded, **same, **given, **stored)


def _changed(memory: Memory, event: Event, fact: Fact | Unknown) -> dict[str, Any]:
    """The fields of an entry that `fact` sets."""
    match fact:
        case MemoryPinned() | MemoryUnpinned():
            return {"pinned": isinstance(fact, MemoryPinned)}
        case MemoryLinked(other=other):
            return {"links": {**memory.links, other: memory.links.get(other, event.seq)}}
        case MemoryUnlinked(other=other):
            return {"links": _without(memory.links, other)}
        case MemoryContradicted(other=other):
            known = memory.contradictions
            return {"contradictions": {**known, other: known.get(other, event.seq)}}
        case MemoryResolved(other=other):
            return {"contradictions": _without(memory.contradictions, other)}
        case MemoryRestored() if memory.state == "retracted":
            return {"state": "active"}
        case _ if memory.state != "active":
            return {}
        case MemoryAppended():
            return {"content": f"{memory.content}\n{fact.text}", "editor": event.agent, "embedded": None}
        case MemoryRevised():
            given = {name: value for name in REVISABLE if (value := getattr(fact, name)) is not UNSET}
            stored = {name: _STORED[name](value) if name in _STORED else value for name, value in given.items()}
            if fact.embedding is not UNSET or fact.content is not UNSET:
                stored["embedded"] = event.seq if fact.embedding else None
            return stored | {"editor": event.agent}
        case MemorySuperseded(by=by):
            return {"state": "superseded", "superseded_by": by}
        case MemoryRetracted():
            return {"state": "retracted"}
        case _:
            return {}


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Metadata as the state holds it: canonical JSON."""
    return _encode(metadata).decode()


_STORED: Mapping[str, Any] = MappingProxyType({"metadata": metadata_text, "tags": frozenset, "refs": frozenset})
"""What the state keeps in another form than the fact says it."""


def _without(known: dict[str, int], name: str) -> dict[str, int]:
    return {key: seq for key, seq in known.items() if key != name}


# --- names --------------------------------------------------------------------------------------------------------


def key_of(name: str, agent: str) -> str:
    """The key of the entry that this agent calls so."""
    return f"{agent}+{name}" if name.startswith(OWN) else name


def name_of(key: str) -> str:
    """What those who may read an entry call it."""
    return key.rpartition("+")[2]


def readers(key: str) -> tuple[str, ...] | None:
    """The agents that may read the entry of that key (None: every agent of the tenant)."""
    return tuple(key.split("+")[:1]) if "+" in key else None


# --- what counts as the same --------------------------------------------------------------------------------------


def sameness(scope: str, author: str, subject: str, content: str) -> str:
    """A digest that two entries share if they say the same of the same subject to the same readers."""
    said = " ".join(unicodedata.normalize("NFKC", content).casefold().split())
    whose = author if scope == "private" else ""
    return blake2b(_encode((whose, subject, said)), digest_size=16).hexdigest()


def rank(memory: Memory) -> tuple[str] | None:
    """What active entries are found by: what they say."""
    if memory.state != "active":
        return None
    return (sameness(memory.scope, memory.author, memory.subject, memory.content),)
