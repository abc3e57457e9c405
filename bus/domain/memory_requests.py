"""What may be asked about memories, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from bus.domain.task_requests import Happening, Priority
from bus.model import Answer, Command, Instant, Key, Label, Name, PageQuery, Query, Reply, Seq, Text

MemoryName = Annotated[Key, Meta(description="the entry")]
OtherName = Annotated[Key, Meta(description="the other entry")]
Category = Literal["fact", "operating_pattern", "routing_rule", "voice_rule", "discipline_rule", "convention", "do_not"]
Scope = Literal["shared", "private", "commissure"]
Tier = Literal["device_only", "trusted_cloud", "general_cloud"]
Subject = Annotated[str, Meta(max_length=200, description="what it is about, e.g. user:4321")]
Share = Annotated[float, Meta(ge=0, le=1)]
Salience = Annotated[Share, Meta(description="how much it matters, 0 to 1")]
Confidence = Annotated[Share, Meta(description="how sure you are of it, 0 to 1")]
Tags = Annotated[tuple[Label, ...], Meta(max_length=50, description="words to find it by")]
Metadata = Annotated[dict[str, Any], Meta(max_length=100, description="anything else, as JSON")]
From = Annotated[Instant | None, Meta(description="since when it is true, as an ISO instant")]
To = Annotated[Instant | None, Meta(description="until when it is true, as an ISO instant")]
Source = Annotated[str, Meta(max_length=500, description="where it comes from")]
Refs = Annotated[tuple[Seq, ...], Meta(max_length=100, description="seqs of events it rests on")]
Embedding = Annotated[tuple[float, ...], Meta(max_length=8192, description="your vector for the content")]
Why = Annotated[str, Meta(max_length=2000, description="why")]


class Write(Command, frozen=True, kw_only=True):
    """Remember something: a fact, or a rule that agents are to follow. What is remembered already is found instead."""

    content: Annotated[Text, Meta(description="what to remember")]
    subject: Subject = ""
    category: Annotated[Category, Meta(description="what kind of knowledge it is")] = "fact"
    scope: Annotated[Scope, Meta(description="who can read it: every agent, you alone, or the members of a bridge")] = (
        "shared"
    )
    priority: Priority = 0
    salience: Salience = 0.5
    confidence: Confidence = 1.0
    tags: Tags = ()
    metadata: Metadata = field(default_factory=dict)
    valid_from: From = None
    valid_to: To = None
    source: Source = ""
    refs: Refs = ()
    trust_tier: Annotated[Tier | None, Meta(description="where it may be processed")] = None
    embedding: Embedding = ()


class Append(Command, frozen=True, kw_only=True):
    """Add a line to what an entry says."""

    memory: MemoryName
    text: Annotated[Text, Meta(description="what to add")]


class Revise(Command, frozen=True, kw_only=True):
    """Change an entry; what it said before stays readable as of then."""

    memory: MemoryName
    content: Annotated[Text | None, Meta(description="what it says from now on")] = None
    category: Annotated[Category | None, Meta(description="what kind of knowledge it is")] = None
    priority: Priority | None = None
    salience: Annotated[Salience | None, Meta(description="how much it matters, 0 to 1")] = None
    confidence: Annotated[Confidence | None, Meta(description="how sure you are of it, 0 to 1")] = None
    tags: Annotated[Tags | None, Meta(description="words to find it by, instead of those it has")] = None
    metadata: Annotated[Metadata | None, Meta(description="anything else, instead of what it has")] = None
    valid_from: From = None
    valid_to: To = None
    source: Annotated[Source | None, Meta(description="where it comes from")] = None
    refs: Annotated[Refs | None, Meta(description="seqs of events it rests on, instead of those it has")] = None
    trust_tier: Annotated[Tier | None, Meta(description="where it may be processed")] = None
    embedding: Annotated[Embedding | None, Meta(description="your vector for the content")] = None
    reason: Why = ""


class Supersede(Command, frozen=True, kw_only=True):
    """Write an entry that takes the place of another; what is not given is as it was there."""

    memory: MemoryName
    content: Annotated[Text, Meta(description="what holds from now on")]
    category: Annotated[Category | None, Meta(description="what kind of knowledge it is")] = None
    priority: Priority | None = None
    salience: Annotated[Salience | None, Meta(description="how much it matters, 0 to 1")] = None
    confidence: Annotated[Confidence | None, Meta(description="how sure you are of it, 0 to 1")] = None
    tags: Annotated[Tags | None, Meta(description="words to find it by")] = None
    metadata: Annotated[Metadata | None, Meta(description="anything else, as JSON")] = None
    valid_from: From = None
    valid_to: To = None
    source: Source = ""
    refs: Refs = ()
    trust_tier: Annotated[Tier | None, Meta(description="where it may be processed")] = None
    embedding: Embedding = ()
    reason: Why = ""


class Retract(Command, frozen=True, kw_only=True):
    """Say that an entry does not hold any more; it stays readable as of earlier."""

    memory: MemoryName
    reason: Why = ""


class Restore(Command, frozen=True, kw_only=True):
    """Say that a retracted entry holds again."""

    memory: MemoryName


class Pin(Command, frozen=True, kw_only=True):
    """Pin an entry."""

    memory: MemoryName


class Unpin(Command, frozen=True, kw_only=True):
    """Unpin an entry."""

    memory: MemoryName


class Link(Command, frozen=True, kw_only=True):
    """Link an entry to another."""

    memory: MemoryName
    other: OtherName
    remove: Annotated[bool, Meta(description="take the link back")] = False


class Contradict(Command, frozen=True, kw_only=True):
    """Say that two entries cannot both be true; whoever is shown one of them is told, until it is resolved."""

    memory: MemoryName
    other: OtherName
    reason: Why = ""


class Resolve(Command, frozen=True, kw_only=True):
    """Settle a contradiction."""

    memory: MemoryName
    other: OtherName
    resolution: Annotated[str, Meta(max_length=2000, description="how it was settled")] = ""


class Seed(Command, frozen=True, kw_only=True):
    """Write what every tenant begins with, or its newer version (asked by the daemon)."""


class Show(Query, frozen=True, kw_only=True):
    """Show one entry with its history."""

    memory: MemoryName


class List(PageQuery, frozen=True, kw_only=True):
    """List entries in the order in which they were written."""

    state: Annotated[
        Literal["active", "retracted", "superseded", "any"], Meta(description="only those in this state")
    ] = "active"
    category: Annotated[Category | None, Meta(description="only of this kind")] = None
    subject: Annotated[Subject | None, Meta(description="only about this")] = None
    scope: Annotated[Literal["shared", "private"] | None, Meta(description="only shared, or only private ones")] = None
    author: Annotated[Name | None, Meta(description="only by this agent")] = None
    tag: Annotated[Label | None, Meta(description="only with this tag")] = None
    pinned: Annotated[bool | None, Meta(description="only pinned, or only other ones")] = None
    valid_at: Annotated[Instant | None, Meta(description="only what is true at this instant")] = None


class Search(Query, frozen=True, kw_only=True):
    """Find active entries by words that must all occur in what they say or in their subject, newest first."""

    text: Annotated[str, Meta(min_length=1, max_length=1000, description="words that must all occur")]
    before: Annotated[Seq | None, Meta(description="only entries that were written before this seq")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="at most so many")] = 50


class Assemble(Query, frozen=True, kw_only=True):
    """Put together the rules that hold for you: by category, the most important first, then the newest."""

    categories: Annotated[tuple[Category, ...], Meta(max_length=7, description="only of these kinds")] = ()
    valid_at: Annotated[Instant | None, Meta(description="at this instant (default: the moment that is read)")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="at most so many")] = 200


class MemoryReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What became of it. `existing`: the entry was there already."""

    memory: str
    existing: bool = False


class MemoryRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry. `contradicts` names the active entries that it is said to contradict, unresolved."""

    memory: str
    seq: int
    written: int
    """Seq of the event that wrote it."""
    namespace: str
    author: str
    scope: str
    state: str
    category: str
    content: str
    subject: str = ""
    priority: int = 0
    salience: float = 0.5
    confidence: float = 1.0
    tags: list[str] = []
    metadata: dict[str, Any] = field(default_factory=dict)
    valid_from: Instant | None = None
    valid_to: Instant | None = None
    source: str = ""
    refs: list[int] = []
    trust_tier: str | None = None
    pinned: bool = False
    supersedes: str | None = None
    superseded_by: str | None = None
    links: list[str] = []
    contradicts: list[str] = []


class Memories(Answer, frozen=True, kw_only=True):
    """Entries. `next` is the `since` that continues where this page ends."""

    memories: list[MemoryRow]
    next: int | None = None


class MemoryDetail(Answer, frozen=True, kw_only=True):
    """An entry and what happened to it."""

    memory: MemoryRow
    history: list[Happening]
