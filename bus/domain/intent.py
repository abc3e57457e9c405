"""Intents: what agents are about to do, so that two do not begin the same.

    declared -> declared (again, by the same agent: extended) | withdrawn | expired        ended -> declared

Rules:
* The entity is the key: a topic or a path, written as `bus.domain.wording.key_of` writes it. Of all agents that declare
  one key, the first has it until it ends; the others are told who, in which event, and until when.
* Declaring again is no second intent: it makes the end later, never past `until` (declaration + the cap of leases).
* An intent ends by an event, as a claim does: `intent.expired`, written by `system` when it is overdue, or in the same
  batch as the command that meets it. An intent that is overdue counts as ended.
* An intent binds nobody. Others that are worded alike are a warning in the reply, never a reason to refuse.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.domain.task import Seconds
from bus.domain.task_claims import lease, stamp
from bus.domain.wording import ALIKE, Wordings, at_most, key_of, likeness
from bus.errors import NotFound, Refused
from bus.events import Event, Fact
from bus.model import (
    Answer,
    Command,
    Context,
    Decision,
    Emit,
    Family,
    Instant,
    LeaseS,
    Name,
    Operation,
    PageQuery,
    Reply,
    Seq,
    State,
    View,
)
from bus.subjects import SYSTEM

WARNINGS = 5
"""So many intents that are worded alike are named."""
COMPARED = 20
"""So many are compared letter by letter: those that seem to be the most alike."""


class IntentDeclared(Fact, frozen=True, kw_only=True):
    """The author is about to do this, until `expires`."""

    type: ClassVar[str] = "intent.declared"
    said: str
    """The key as it was typed."""
    text: str = ""
    lease_s: Seconds
    expires: Instant
    """End of the intent, in server time."""
    until: Instant
    """Declaring it again never makes it end later than this."""


class IntentExtended(Fact, frozen=True, kw_only=True):
    """The author declared again what it had declared."""

    type: ClassVar[str] = "intent.extended"
    declared: Seq
    """Seq of the declaration."""
    text: str = ""
    lease_s: Seconds
    expires: Instant
    """The new end, in server time."""


class IntentWithdrawn(Fact, frozen=True, kw_only=True):
    """The author is done with it, or will not do it."""

    type: ClassVar[str] = "intent.withdrawn"
    declared: Seq
    """Seq of the declaration that ended."""
    reason: str = ""


class IntentExpired(Fact, frozen=True, kw_only=True):
    """Nothing was heard of it in time."""

    type: ClassVar[str] = "intent.expired"
    agent: str
    """Who had declared it."""
    declared: Seq
    """Seq of the declaration that ended."""


class Intent(State, frozen=True, kw_only=True):
    """An intent now. `declared` is the seq of its last declaration; the times are None once it has ended."""

    table: ClassVar[str] = "intent"
    state: str = "declared"
    agent: str
    said: str
    text: str = ""
    declared: int
    lease_s: int
    expires: datetime | None = None
    until: datetime | None = None


def evolve(intent: Intent | None, event: Event) -> Intent | None:
    """The intent after `event`."""
    fact = event.fact
    if isinstance(fact, IntentDeclared):
        return intent if intent is not None and intent.state == "declared" else _declared(fact, event)
    if intent is None or intent.state != "declared":
        return intent
    match fact:
        case IntentExtended() if fact.declared == intent.declared and event.agent == intent.agent:
            after = replace(intent, text=fact.text, lease_s=fact.lease_s, expires=fact.expires)
            return intent if after == intent else after
        case IntentWithdrawn() if fact.declared == intent.declared and event.agent == intent.agent:
            return replace(intent, state="withdrawn", expires=None, until=None)
        case IntentExpired() if fact.declared == intent.declared:
            return replace(intent, state="expired", expires=None, until=None)
        case _:
            return intent


def _declared(fact: IntentDeclared, event: Event) -> Intent:
    return Intent(
        agent=event.agent,
        said=fact.said,
        text=fact.text,
        declared=event.seq,
        lease_s=fact.lease_s,
        expires=fact.expires,
        until=fact.until,
    )


# --- requests -----------------------------------------------------------------------------------------------------

KeyText = Annotated[str, Meta(max_length=1000, description="what it is about: a topic or a path")]


class Declare(Command, frozen=True, kw_only=True):
    """Say what you are about to do. If another agent is about to do the same, you are told who, and until when.
    Declaring again makes your intent last longer."""

    key: KeyText
    text: Annotated[str, Meta(max_length=2000, description="what exactly, in a sentence")] = ""
    lease_s: Annotated[LeaseS | None, Meta(description="seconds until it ends unless declared again")] = None


class Withdraw(Command, frozen=True, kw_only=True):
    """End an intent of yours: it is done, or you will not do it."""

    key: KeyText
    reason: Annotated[str, Meta(max_length=2000, description="why")] = ""


class List(PageQuery, frozen=True, kw_only=True):
    """List what agents are about to do, in the order in which they said so."""

    agent: Annotated[Name | None, Meta(description="only of this agent")] = None
    prefix: Annotated[KeyText | None, Meta(description="only keys that begin so")] = None


class Near(Struct, frozen=True, kw_only=True):
    """Another intent, worded alike. `likeness` goes from 0 to 1."""

    key: str
    agent: str
    text: str
    seq: int
    expires: datetime
    likeness: float


class DeclareReply(Reply, frozen=True, kw_only=True):
    """An intent: yours until `expires`. `declared` is the seq of the declaration."""

    key: str
    declared: int
    expires: datetime
    warnings: list[Near]


class WithdrawReply(Reply, frozen=True, kw_only=True):
    key: str
    state: str


class IntentRow(Struct, frozen=True, kw_only=True):
    """An intent as it was. `seq` is that of its last change, `declared` that of the declaration."""

    key: str
    seq: int
    declared: int
    agent: str
    said: str
    text: str
    lease_s: int
    expires: datetime


class Intents(Answer, frozen=True, kw_only=True):
    intents: list[IntentRow]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def overdue(intent: Intent, now: datetime) -> bool:
    return intent.expires is not None and intent.expires <= now


def expire(intent: Intent, key: str, now: datetime) -> Sequence[Emit]:
    """The end of an intent that is overdue."""
    if not overdue(intent, now):
        return []
    return [Emit(Intent, key, IntentExpired(agent=intent.agent, declared=intent.declared), SYSTEM)]


def decide_declare(view: View, request: Declare, ctx: Context) -> Decision:
    key = key_of(request.key)
    intent = view.get(Intent, ctx.namespace, key)
    ended = expire(intent, key, ctx.now) if intent is not None else []
    if intent is None or intent.state != "declared" or ended:
        declared = IntentDeclared(said=request.key, text=request.text, **lease(ctx, request.lease_s))
        return [*ended, Emit(Intent, key, declared)]
    if intent.agent != ctx.agent:
        raise _taken(intent, key, f"declared by {ctx.agent}, or by nobody")
    return _extended(view, request, ctx, key, intent)


def _extended(view: View, request: Declare, ctx: Context, key: str, intent: Intent) -> Decision:
    assert intent.expires is not None
    assert intent.until is not None
    lease_s = request.lease_s or intent.lease_s
    expires = max(intent.expires, min(ctx.now + timedelta(seconds=lease_s), intent.until))
    text = request.text or intent.text
    if (text, expires) == (intent.text, intent.expires):
        entry = view.entry(Intent, ctx.namespace, key)
        assert entry is not None
        return _reply(view, ctx.namespace, key, text, (entry.since, intent.declared), expires)
    fact = IntentExtended(declared=intent.declared, text=text, lease_s=lease_s, expires=expires)
    return [Emit(Intent, key, fact)]


def _taken(intent: Intent, key: str, expected: str) -> Refused:
    assert intent.expires is not None
    about = f": {intent.text[:200]}" if intent.text else ""
    return Refused(
        f"{intent.agent} is about to do this{about}",
        code="declared",
        entity=f"intent {key}",
        expected=expected,
        found=f"declared by {intent.agent} in event #{intent.declared}, until {stamp(intent.expires)}",
        hint=f"Do something else, ask {intent.agent}, or wait until it ends",
        agent=intent.agent,
        declared=intent.declared,
        text=intent.text,
        expires=intent.expires.isoformat(),
    )


def decide_withdraw(view: View, request: Withdraw, ctx: Context) -> Decision:
    key = key_of(request.key)
    entry = view.entry(Intent, ctx.namespace, key)
    if entry is None:
        raise NotFound(
            "no such intent",
            entity=f"intent {key}",
            expected=f"an intent of namespace {ctx.namespace}",
            found="none of that key",
            hint="`bus intent list` shows them",
        )
    intent: Intent = entry.state
    if ended := expire(intent, key, ctx.now):
        return ended
    if intent.state == "declared" and intent.agent != ctx.agent:
        raise _taken(intent, key, f"declared by {ctx.agent}")
    if intent.state == "declared":
        return [Emit(Intent, key, IntentWithdrawn(declared=intent.declared, reason=request.reason))]
    return WithdrawReply(seq=entry.since, key=key, state=intent.state)


class Wording(NamedTuple):
    """Asks for the intents of which the key, or the text, may be nearly the same as these words."""

    of: Literal["key", "text"]
    words: str


class IntentIndex:
    """Finds the intents of one namespace."""

    def __init__(self) -> None:
        self._keys, self._texts = Wordings(), Wordings()

    def put(self, key: str, intent: Intent | None) -> None:
        self._keys.put(key, key if intent is not None else None)
        self._texts.put(key, intent.text if intent is not None else None)

    def find(self, asked: Wording) -> Collection[str]:
        return (self._keys if asked.of == "key" else self._texts).likely(asked.words)


def near(view: View, namespace: str, key: str, text: str) -> list[Near]:
    """The other intents of the namespace that are worded alike, the most alike first."""
    asked = (Wording("key", key), Wording("text", text))
    likely = [one for wording in asked for one in _likely(view, namespace, key, wording)]
    # An intent may be among them twice: by its key and by its text.
    nearest = dict.fromkeys(other for _, _, other in nlargest(2 * COMPARED, likely))
    found = []
    for other in list(nearest)[:COMPARED]:
        intent = view.get(Intent, namespace, other)
        assert intent is not None
        assert intent.expires is not None
        by_key = 0.0 if _are_paths(key, other) else likeness(key, other)
        share = max(by_key, likeness(text, intent.text))
        if share >= ALIKE:
            found.append(
                Near(
                    key=other,
                    agent=intent.agent,
                    text=intent.text,
                    seq=intent.declared,
                    expires=intent.expires,
                    likeness=round(share, 2),
                )
            )
    return sorted(found, key=lambda one: (-one.likeness, one.seq))[:WARNINGS]


def _likely(view: View, namespace: str, key: str, asked: Wording) -> list[tuple[float, int, str]]:
    """The other intents that may be nearly the same: how alike at most, when they were declared, their keys."""
    is_key, bound = asked.of == "key", at_most(asked.words)
    return [
        (share, -entry.state.declared, other)
        for other, entry in view.found(Intent, namespace, asked)
        if (share := bound(other if is_key else entry.state.text)) >= ALIKE
        and other != key
        and not (is_key and _are_paths(key, other))
    ]


def _are_paths(one: str, other: str) -> bool:
    """Paths of one directory are written alike and mean different files."""
    return "/" in one and "/" in other


# --- replies ------------------------------------------------------------------------------------------------------


def _reply(view: View, namespace: str, key: str, text: str, seqs: tuple[int, int], expires: datetime) -> DeclareReply:
    seq, declared = seqs
    return DeclareReply(seq=seq, key=key, declared=declared, expires=expires, warnings=near(view, namespace, key, text))


def _declare_reply(view: View, request: Declare, events: Sequence[Event]) -> DeclareReply:
    event = events[-1]
    fact = event.fact
    assert isinstance(fact, IntentDeclared | IntentExtended)
    declared = event.seq if isinstance(fact, IntentDeclared) else fact.declared
    return _reply(view, event.namespace, event.entity, fact.text, (event.seq, declared), fact.expires)


def _withdraw_reply(view: View, request: Any, events: Sequence[Event]) -> WithdrawReply:
    event = events[-1]
    state = "expired" if isinstance(event.fact, IntentExpired) else "withdrawn"
    return WithdrawReply(seq=event.seq, key=event.entity, state=state)


def _rank(intent: Intent) -> tuple[int] | None:
    return (intent.declared,) if intent.state == "declared" else None


FAMILY = Family(
    name="intent",
    facts=(IntentDeclared, IntentExtended, IntentWithdrawn, IntentExpired),
    state=Intent,
    evolve=evolve,
    rank=_rank,
    index=IntentIndex,
    deadline=lambda intent: intent.expires,
    overdue=expire,
    operations=(
        Operation("intent.declare", Declare, DeclareReply, decide_declare, _declare_reply),
        Operation("intent.withdraw", Withdraw, WithdrawReply, decide_withdraw, _withdraw_reply, essential=True),
        Operation("intent.list", List, Intents),
    ),
)
