"""Recall: one ranking over what is remembered, what was said, also in sessions, what was written into journals and
files, and what tasks are and became of them.

Rules:
* A question is answered with what the asker may see, and with nothing else: shared and its own private memories,
  messages of channels, its own direct messages, journals, tasks, files, turns of shared and its own private sessions.
* As of an earlier event it gives what it gave then. `valid_at` is the other clock: when memories are true in the world.
* What was put in front of an agent is an exposure (`exposure.shown`): the seqs, and a digest of the question, not its
  words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from bus.domain.memory_requests import Subject
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Instant,
    Operation,
    Query,
    Reply,
    Seq,
    State,
    View,
)
from bus.subjects import TENANT

Kind = Literal["memory", "message", "journal", "task", "document", "turn"]
KINDS: tuple[Kind, ...] = ("memory", "message", "journal", "task", "document", "turn")
ANSWERED = "answered"
"""What is said of a part of recall that did its work."""


class ExposureShown(Fact, frozen=True, kw_only=True):
    """These events were put in front of the author, as an answer to a question."""

    type: ClassVar[str] = "exposure.shown"
    question: str
    """sha256 of the question, in hex."""
    seqs: tuple[Seq, ...] = ()
    """What was shown, the best first."""


class Exposure(State, frozen=True, kw_only=True):
    """That an agent has been shown something. What, is in the events."""

    table: ClassVar[str] = "exposure"
    first: int


def evolve(exposure: Exposure | None, event: Event) -> Exposure | None:
    """The same ever after: what every recall changed would be a row for each."""
    if exposure is None and isinstance(event.fact, ExposureShown):
        return Exposure(first=event.seq)
    return exposure


# --- requests -----------------------------------------------------------------------------------------------------


class Recall(Query, frozen=True, kw_only=True):
    """Recall what bears on a question: memories, messages, journals, tasks, files and turns of sessions, the best
    first, each with why."""

    query: Annotated[str, Meta(min_length=1, max_length=4000, description="what you want to know, in words")]
    k: Annotated[int, Meta(ge=1, le=1000, description="at most so many")] = 10
    kinds: Annotated[tuple[Kind, ...], Meta(max_length=len(KINDS), description="only of these kinds")] = ()
    subject: Annotated[Subject | None, Meta(description="only memories about this")] = None
    where: Annotated[
        dict[str, Any], Meta(max_length=20, description="only memories whose metadata has these values")
    ] = field(default_factory=dict)
    scope: Annotated[Literal["shared", "private"] | None, Meta(description="only shared, or only private memories")] = (
        None
    )
    valid_at: Annotated[
        Instant | None, Meta(description="memories that are true at this instant (default: the moment that is read)")
    ] = None
    budget_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None, Meta(description="texts of about so many tokens in all")
    ] = None
    embedding: Annotated[
        Annotated[tuple[float, ...], Meta(min_length=1, max_length=8192)] | None,
        Meta(description="your vector for the question, to compare with those that memories were given"),
    ] = None
    explain: Annotated[bool, Meta(description="say which words of the question counted how much")] = False


class Note(Command, frozen=True, kw_only=True):
    """Record what a recall showed (asked by the daemon)."""

    question: str
    seqs: tuple[Seq, ...]


class Noted(Reply, frozen=True, kw_only=True):
    """It is recorded."""


class Term(Struct, frozen=True, kw_only=True):
    """A word of the question: how many texts have it, and what it adds to this one."""

    word: str
    texts: int
    weight: float


class Why(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a score is made of: the words of the text itself, those around it, what its vector adds, and what all that
    was multiplied by. `cosine` says how near the vector is, if it is one of the nearest; `rerank` is what the reranker
    said."""

    own: float
    near: float
    wide: float
    meaning: float = 0.0
    cosine: float | None = None
    rerank: float | None = None
    author: float = 1.0
    time: float = 1.0
    terms: list[Term] = []


class Hit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that bears on the question. `seq` names the message, the entry of a journal, the turn of a session, or
    the event that gave a memory this wording, told this of a task, or wrote this version of a file; the passage begins
    at `line`. `contradicts` names the memories that it is said to contradict, unresolved."""

    seq: int
    kind: str
    score: float
    why: Why
    namespace: str
    agent: str
    text: str
    time: datetime
    memory: str | None = None
    subject: str = ""
    category: str = ""
    scope: str = ""
    tags: list[str] = []
    metadata: dict[str, Any] = field(default_factory=dict)
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    trust_tier: str | None = None
    pinned: bool = False
    contradicts: list[str] = []
    channel: str | None = None
    dm: str | None = None
    task: str | None = None
    path: str | None = None
    line: int | None = None
    session: str | None = None


class Hits(Answer, frozen=True, kw_only=True):
    """What bears on the question, the best first. `words` is what was looked for, `texts` in how many texts. `legs`
    says of each part of recall whether it answered, or why not: `words`; `dense`, which compares vectors, if there is
    an embedder or the question came with one; `rerank`, if there is a reranker."""

    hits: list[Hit]
    words: list[str]
    texts: int
    legs: dict[str, str]


def digest(question: str) -> str:
    """What is recorded of a question."""
    return sha256(question.encode()).hexdigest()


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_note(view: View, request: Note, ctx: Context) -> Decision:
    return [Emit(Exposure, ctx.agent, ExposureShown(question=request.question, seqs=request.seqs), None, TENANT)]


def _reply(view: View, request: Note, events: Sequence[Event]) -> Noted:
    return Noted(seq=events[-1].seq)


FAMILY = Family(
    name="exposure",
    facts=(ExposureShown,),
    state=Exposure,
    evolve=evolve,
    operations=(Operation("exposure.note", Note, Noted, decide_note, _reply, internal=True),),
)
