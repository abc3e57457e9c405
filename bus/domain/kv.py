"""Values: JSON by key, with compare-and-set, merge patches and expiry.

    set -> set (again, or merged) | deleted | expired        deleted, expired -> set

Rules:
* The entity is the key. Its version is the seq of its last change; 0 means that there is no value.
* A request with `expect` takes effect only if that is the version, and always makes a new one: of all that expect the
  same version, one succeeds. Without `expect`, what would change nothing is no event.
* A value with an end expires by an event, as a claim does: `kv.expired`, written by `system` when it is overdue, or in
  the same batch as the command that meets it. A value that is overdue counts as gone.
* Setting a value replaces its end as well; a merge keeps the end unless it gives another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, NamedTuple

from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from bus.domain.merge import kept, merged, read, text_of
from bus.domain.task_claims import stamp
from bus.errors import InvalidRequest, NotFound, Refused
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
    PageQuery,
    Position,
    Query,
    Reply,
    Seq,
    State,
    View,
)
from bus.subjects import SYSTEM, token


class Valued(Fact, frozen=True, kw_only=True):
    """Body of an event after which the key has this value."""

    value: Raw
    """The whole value."""
    expires: Instant | None = None
    """When it ends, in server time."""


class KvSet(Valued, frozen=True, kw_only=True):
    """The author gave the key a value."""

    type: ClassVar[str] = "kv.set"


class KvMerged(Valued, frozen=True, kw_only=True):
    """The author changed parts of the value."""

    type: ClassVar[str] = "kv.merged"


class KvDeleted(Fact, frozen=True, kw_only=True):
    """The author took the value away."""

    type: ClassVar[str] = "kv.deleted"


class KvExpired(Fact, frozen=True, kw_only=True):
    """The value has come to its end."""

    type: ClassVar[str] = "kv.expired"
    expires: Instant
    """When that was."""


class Kv(State, frozen=True, kw_only=True):
    """A key now. `value` is JSON, empty once there is none; `changed` is the seq of its last change."""

    table: ClassVar[str] = "kv"
    changed: int
    state: str = "set"
    value: str = ""
    expires: datetime | None = None


def evolve(kv: Kv | None, event: Event) -> Kv | None:
    """The key after `event`."""
    fact = event.fact
    if isinstance(fact, Valued):
        return Kv(changed=event.seq, value=text_of(fact.value), expires=fact.expires)
    if kv is None or kv.state != "set":
        return kv
    match fact:
        case KvDeleted():
            return Kv(changed=event.seq, state="deleted")
        case KvExpired() if fact.expires == kv.expires:
            return Kv(changed=event.seq, state="expired")
        case _:
            return kv


# --- requests -----------------------------------------------------------------------------------------------------

KeyText = Annotated[str, Meta(min_length=1, max_length=200, description="the key, such as build:status")]
Expect = Annotated[
    Position | None,
    Meta(description="only if its last change is this seq; 0: only if there is none"),
]
Json = Annotated[Any, Meta(description="the value: any JSON")]


class Write(Command, frozen=True, kw_only=True):
    """The fields of every request that gives a key a value."""

    expires_in_s: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 31)] | None, Meta(description="seconds until the value is gone")
    ] = None
    expires_at: Annotated[
        Instant | None, Meta(description="when the value is gone, as an ISO instant such as 2030-01-31T12:00:00Z")
    ] = None
    expect: Expect = None


class Set(Write, frozen=True, kw_only=True):
    """Give a key a value. With `expect` it is a compare-and-set: if somebody was faster, you are told the version."""

    key: KeyText
    value: Json


class Merge(Write, frozen=True, kw_only=True):
    """Change parts of a value by a JSON merge patch: members are merged, null takes one away."""

    key: KeyText
    patch: Annotated[Any, Meta(description='what to change: JSON such as {"state": "red", "note": null}')]


class Delete(Command, frozen=True, kw_only=True):
    """Take the value of a key away. Its history stays."""

    key: KeyText
    expect: Expect = None


class Get(Query, frozen=True, kw_only=True):
    """Show the value of a key, and its version."""

    key: KeyText


class History(PageQuery, frozen=True, kw_only=True):
    """Show the versions of a key: the newest ones, or those after `since`."""

    key: KeyText
    before: Annotated[Seq | None, Meta(description="only versions before this seq")] = None


class List(PageQuery, frozen=True, kw_only=True):
    """List the keys that have a value, in the order of their last change."""

    prefix: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="only keys that begin with this")
    ] = None


class ValueReply(Reply, frozen=True, kw_only=True):
    """A key has a value; `seq` is its version."""

    key: str
    expires: datetime | None


class MergeReply(ValueReply, frozen=True, kw_only=True):
    """A key has a value; `seq` is its version, `value` the whole of it."""

    value: Any


class DeleteReply(Reply, frozen=True, kw_only=True):
    """A key has no value any more."""

    key: str
    state: str


class Value(Answer, frozen=True, kw_only=True):
    """The value of a key. `version` is the seq of its last change: what `expect` takes."""

    key: str
    version: int
    value: Any
    expires: datetime | None


class ValueRow(Struct, frozen=True, kw_only=True):
    """A key and its value. `seq` is that of its last change."""

    key: str
    seq: int
    value: Any
    expires: datetime | None


class Values(Answer, frozen=True, kw_only=True):
    values: list[ValueRow]
    next: int | None = None


class KeyVersion(Struct, frozen=True, kw_only=True):
    """What a key was from one event on. `value` is null once there was none; `state` tells the two apart."""

    seq: int
    time: datetime
    agent: str
    type: str
    state: str
    value: Any
    expires: datetime | None


class Versions(Answer, frozen=True, kw_only=True):
    """Versions, oldest first. `next` is the `since` that continues where this page ends."""

    versions: list[KeyVersion]
    next: int | None = None


# --- decisions ----------------------------------------------------------------------------------------------------


def check_key(key: str, entity: str) -> None:
    """Raise InvalidRequest unless `key` can be one: printable, and not too long for the log."""
    if not key.isprintable():
        raise InvalidRequest(
            "a key is text that can be printed",
            code="bad_key",
            entity=entity[:100],
            expected="no control characters, line breaks or invisible signs",
            found=repr(key[:40]),
            hint="Leave them out",
        )
    token(key)


def check_expected(entity: str, expect: int | None, version: int) -> None:
    """Refuse a change that expects another version than there is."""
    if expect is None or expect == version:
        return
    raise Refused(
        "somebody changed it before you" if version else "there is nothing to change",
        code="conflict",
        entity=entity,
        expected=f"version #{expect}" if expect else "nothing there yet",
        found=f"version #{version}" if version else "nothing there",
        hint="Look at it again, and decide anew",
        version=version,
    )


def expire(kv: Kv, key: str, now: datetime) -> Sequence[Emit]:
    """The end of a value that is overdue."""
    if kv.expires is None or kv.expires > now:
        return []
    return [Emit(Kv, key, KvExpired(expires=kv.expires), SYSTEM)]


class _Met(NamedTuple):
    """A key as a command meets it: its value (None: there is none), its version, and what its end calls for first."""

    kv: Kv | None
    version: int
    ended: Sequence[Emit]


def _met(view: View, ctx: Context, key: str, expect: int | None) -> _Met:
    check_key(key, f"key {key}")
    entry = view.entry(Kv, ctx.namespace, key)
    met = _Met(None, 0, [])
    if entry is not None and entry.state.state == "set":
        ended = expire(entry.state, key, ctx.now)
        met = _Met(None, 0, ended) if ended else _Met(entry.state, entry.since, [])
    check_expected(f"key {key}", expect, met.version)
    return met


def _end(request: Write, ctx: Context, key: str) -> datetime | None:
    """When the value that is written ends, as far as the request says it."""
    if request.expires_in_s is not None and request.expires_at is not None:
        raise _bad_end(key, "one of the two", "both", "Give --expires-in or --expires-at")
    if request.expires_in_s is not None:
        return ctx.now + timedelta(seconds=request.expires_in_s)
    if request.expires_at is not None and request.expires_at <= ctx.now:
        found = f"{request.expires_at.isoformat()}, and it is {stamp(ctx.now)}"
        raise _bad_end(key, "an instant in the future", found, "Take a later one, or delete the value")
    return request.expires_at


def _bad_end(key: str, expected: str, found: str, hint: str) -> InvalidRequest:
    message = "a value ends after some time, or at an instant that is yet to come"
    return InvalidRequest(message, code="bad_expiry", entity=f"key {key}", expected=expected, found=found, hint=hint)


def decide_set(view: View, request: Set, ctx: Context) -> Decision:
    key = request.key
    met = _met(view, ctx, key, request.expect)
    fact = KvSet(value=kept(request.value, f"key {key}"), expires=_end(request, ctx, key))
    if request.expect is None and _is_same(met.kv, fact):
        return ValueReply(seq=met.version, key=key, expires=fact.expires)
    return [*met.ended, Emit(Kv, key, fact)]


def decide_merge(view: View, request: Merge, ctx: Context) -> Decision:
    key = request.key
    met = _met(view, ctx, key, request.expect)
    kept(request.patch, f"the patch of key {key}")
    value = merged(read(met.kv.value) if met.kv is not None else None, request.patch)
    expires = _end(request, ctx, key) or (met.kv.expires if met.kv is not None else None)
    fact = KvMerged(value=kept(value, f"key {key}"), expires=expires)
    if request.expect is None and _is_same(met.kv, fact):
        return MergeReply(seq=met.version, key=key, expires=expires, value=value)
    return [*met.ended, Emit(Kv, key, fact)]


def _is_same(kv: Kv | None, fact: Valued) -> bool:
    return kv is not None and kv == replace(kv, value=text_of(fact.value), expires=fact.expires)


def decide_delete(view: View, request: Delete, ctx: Context) -> Decision:
    key = request.key
    met = _met(view, ctx, key, request.expect)
    if met.kv is not None:
        return [Emit(Kv, key, KvDeleted())]
    if met.ended:
        return met.ended
    entry = view.entry(Kv, ctx.namespace, key)
    if entry is None:
        raise NotFound(
            "no such key",
            entity=f"key {key}",
            expected=f"a key of namespace {ctx.namespace}",
            found="none of that name",
            hint="`bus kv list` shows them",
        )
    return DeleteReply(seq=entry.since, key=key, state=entry.state.state)


# --- replies ------------------------------------------------------------------------------------------------------


def _value_reply(view: View, request: Set, events: Sequence[Event]) -> ValueReply:
    fact = events[-1].fact
    assert isinstance(fact, Valued)
    return ValueReply(seq=events[-1].seq, key=request.key, expires=fact.expires)


def _merge_reply(view: View, request: Merge, events: Sequence[Event]) -> MergeReply:
    fact = events[-1].fact
    assert isinstance(fact, Valued)
    value = read(text_of(fact.value))
    return MergeReply(seq=events[-1].seq, key=request.key, expires=fact.expires, value=value)


def _delete_reply(view: View, request: Delete, events: Sequence[Event]) -> DeleteReply:
    state = "expired" if isinstance(events[-1].fact, KvExpired) else "deleted"
    return DeleteReply(seq=events[-1].seq, key=request.key, state=state)


FAMILY = Family(
    name="kv",
    facts=(KvSet, KvMerged, KvDeleted, KvExpired),
    state=Kv,
    evolve=evolve,
    deadline=lambda kv: kv.expires,
    overdue=expire,
    operations=(
        Operation("kv.set", Set, ValueReply, decide_set, _value_reply),
        Operation("kv.merge", Merge, MergeReply, decide_merge, _merge_reply),
        Operation("kv.delete", Delete, DeleteReply, decide_delete, _delete_reply, essential=True),
        Operation("kv.get", Get, Value),
        Operation("kv.history", History, Versions),
        Operation("kv.list", List, Values),
    ),
)
