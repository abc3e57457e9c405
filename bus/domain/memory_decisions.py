"""What is decided about memories, and the table of the family. The rules are in `bus.domain.memory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bus.domain.memory import (
    OWN,
    REVISABLE,
    Memory,
    MemoryAppended,
    MemoryContradicted,
    MemoryLinked,
    MemoryPinned,
    MemoryResolved,
    MemoryRestored,
    MemoryRetracted,
    MemoryRevised,
    MemorySuperseded,
    MemoryUnlinked,
    MemoryUnpinned,
    MemoryWritten,
    evolve,
    key_of,
    metadata_text,
    name_of,
    rank,
    sameness,
)
from bus.domain.memory_limits import check_content, check_given, invalid
from bus.domain.memory_requests import (
    Append,
    Assemble,
    Contradict,
    Link,
    List,
    Memories,
    MemoryDetail,
    MemoryReply,
    Pin,
    Resolve,
    Restore,
    Retract,
    Revise,
    Search,
    Seed,
    Show,
    Supersede,
    Unpin,
    Write,
)
from bus.domain.memory_seed import decide_seed, seed_reply
from bus.domain.recall import Hits, Recall
from bus.errors import NotAllowed, NotFound, Refused
from bus.events import Event, Fact
from bus.model import Command, Context, Decision, Emit, Family, Operation, Reply, View
from bus.subjects import TENANT


class _Known(NamedTuple):
    """An entry that the asker can read: where it is, what it is, and the seq of its last change."""

    namespace: str
    key: str
    state: Memory
    since: int

    @property
    def name(self) -> str:
        return name_of(self.key)

    def emit(self, fact: Fact) -> Emit:
        return Emit(Memory, self.key, fact, None, self.namespace)

    def unchanged(self) -> MemoryReply:
        return MemoryReply(seq=self.since, memory=self.name)


def _find(view: View, ctx: Context, name: str) -> _Known:
    """The entry that the asker calls so, here or among those of the whole tenant; NotFound otherwise."""
    key = key_of(name, ctx.agent)
    for namespace in (ctx.namespace, TENANT):
        entry = view.entry(Memory, namespace, key)
        if entry is not None:
            return _Known(namespace, key, entry.state, entry.since)
    raise NotFound(
        "no such memory",
        entity=f"memory {name}",
        expected=f"an entry of namespace {ctx.namespace} that you can read",
        found="none of that name",
        hint="`bus memory list` shows them",
    )


def _own(view: View, ctx: Context, name: str) -> _Known:
    """The same, and NotAllowed when the asker may not change it."""
    known = _find(view, ctx, name)
    if known.state.author != ctx.agent and "owner" not in ctx.authority:
        raise NotAllowed(
            "only its author or an owner may change an entry",
            entity=f"memory {name}",
            expected=known.state.author,
            found=ctx.agent,
            hint=f"Say what you know beside it: bus memory contradict {name} OTHER",
        )
    return known


def _active(known: _Known) -> _Known:
    state = known.state
    if state.state != "active":
        by = f" by {state.superseded_by}" if state.superseded_by else ""
        hint = f"bus memory restore {known.name}" if state.state == "retracted" else f"Change {state.superseded_by}"
        raise Refused(
            "the entry does not hold any more",
            code="not_active",
            entity=f"memory {known.name}",
            expected="an active entry",
            found=f"one that was {state.state}{by}",
            hint=hint,
        )
    return known


def _twin(view: View, ctx: Context, namespace: str, digest: str) -> _Known | None:
    """The active entry that says so already."""
    for key, entry in view.ranked(Memory, namespace, (digest,)):
        return _Known(namespace, key, entry.state, entry.since)
    return None


def _check_new(view: View, ctx: Context, known: _Known, content: str) -> None:
    """Refuse to make an entry say what another one says already."""
    state = known.state
    twin = _twin(view, ctx, known.namespace, sameness(state.scope, state.author, state.subject, content))
    if twin is not None and twin.key != known.key:
        raise Refused(
            "another entry says the same",
            code="duplicate",
            entity=f"memory {known.name}",
            expected="something that no active entry of the same subject and scope says",
            found=f"memory {twin.name}",
            hint=f"Retract this one instead: bus memory retract {known.name}",
        )


def _check_scope(scope: str) -> None:
    if scope == "commissure":
        raise Refused(
            "there are no bridges between agents yet",
            code="no_commissure",
            entity="scope commissure",
            expected="shared or private",
            found="commissure",
            hint="Write it for everybody (shared) or for yourself (private)",
        )


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_write(view: View, request: Write, ctx: Context) -> Decision:
    _check_scope(request.scope)
    check_given(request, request.subject or "(new)")
    digest = sameness(request.scope, ctx.agent, request.subject, request.content)
    twin = _twin(view, ctx, ctx.namespace, digest)
    if twin is not None:
        return MemoryReply(seq=twin.since, memory=twin.name, existing=True)
    given = {name: getattr(request, name) for name in (*REVISABLE, "embedding", "scope", "subject")}
    return [Emit(Memory, _new_key(ctx, request.scope), MemoryWritten(**given))]


def _new_key(ctx: Context, scope: str) -> str:
    name = ctx.ids.short(OWN.rstrip("-") if scope == "private" else "m")
    return key_of(name, ctx.agent)


def decide_append(view: View, request: Append, ctx: Context) -> Decision:
    known = _active(_own(view, ctx, request.memory))
    check_content(known.name, request.text)
    content = f"{known.state.content}\n{request.text}"
    check_content(known.name, content)
    _check_new(view, ctx, known, content)
    return [known.emit(MemoryAppended(text=request.text))]


def decide_revise(view: View, request: Revise, ctx: Context) -> Decision:
    known = _active(_own(view, ctx, request.memory))
    check_given(request, known.name, known.state)
    given = {name: value for name in REVISABLE if (value := getattr(request, name)) is not None}
    changed = {name: value for name, value in given.items() if _stored(value) != getattr(known.state, name)}
    if request.embedding or (request.embedding is not None and known.state.embedded is not None):
        changed["embedding"] = request.embedding
    if not changed:
        return known.unchanged()
    if "content" in changed:
        _check_new(view, ctx, known, changed["content"])
    return [known.emit(MemoryRevised(**changed, reason=request.reason))]


def _stored(value: Any) -> Any:
    """`value` as the state holds it."""
    if isinstance(value, dict):
        return metadata_text(value)
    return frozenset(value) if isinstance(value, tuple) else value


def decide_supersede(view: View, request: Supersede, ctx: Context) -> Decision:
    known = _active(_own(view, ctx, request.memory))
    before = known.state
    check_given(request, known.name)
    same = sameness(before.scope, before.author, before.subject, request.content)
    if (same,) == rank(before):
        hint = f"To change what else it says of itself: bus memory revise {known.name}"
        raise invalid(known.name, "the new entry says the same", "duplicate", "something else", known.name, hint)
    _check_new(view, ctx, known, request.content)
    kept = ("category", "priority", "salience", "confidence", "tags", "trust_tier")
    given = {name: _taken(getattr(request, name), getattr(before, name)) for name in kept}
    given |= {name: getattr(request, name) for name in ("content", "valid_from", "valid_to", "source", "refs")}
    written = MemoryWritten(
        scope=before.scope,
        subject=before.subject,
        metadata=request.metadata or {},
        embedding=request.embedding,
        supersedes=known.name,
        **given,
    )
    # An owner that takes over a shared entry is the author of the new one; private ones are their author's anyway.
    key = _new_key(ctx, before.scope)
    superseded = known.emit(MemorySuperseded(by=name_of(key), reason=request.reason))
    return [superseded, Emit(Memory, key, written, None, known.namespace)]


def _taken(given: Any, before: Any) -> Any:
    if given is not None:
        return given
    return tuple(sorted(before)) if isinstance(before, frozenset) else before


def decide_retract(view: View, request: Retract, ctx: Context) -> Decision:
    known = _own(view, ctx, request.memory)
    if known.state.state == "retracted":
        return known.unchanged()
    return [_active(known).emit(MemoryRetracted(reason=request.reason))]


def decide_restore(view: View, request: Restore, ctx: Context) -> Decision:
    known = _own(view, ctx, request.memory)
    if known.state.state == "active":
        return known.unchanged()
    if known.state.state != "retracted":
        _active(known)
    _check_new(view, ctx, known, known.state.content)
    return [known.emit(MemoryRestored())]


def decide_pin(view: View, request: Pin, ctx: Context) -> Decision:
    known = _find(view, ctx, request.memory)
    return known.unchanged() if known.state.pinned else [known.emit(MemoryPinned())]


def decide_unpin(view: View, request: Unpin, ctx: Context) -> Decision:
    known = _find(view, ctx, request.memory)
    return [known.emit(MemoryUnpinned())] if known.state.pinned else known.unchanged()


def _two(view: View, request: Link | Contradict | Resolve, ctx: Context) -> tuple[_Known, _Known]:
    """Two different entries that the asker can read."""
    one, other = _find(view, ctx, request.memory), _find(view, ctx, request.other)
    if one.key == other.key:
        hint = "Name two"
        raise invalid(one.name, "both are the same entry", "same_entry", "two entries", one.name, hint)
    return one, other


def decide_link(view: View, request: Link, ctx: Context) -> Decision:
    one, other = _two(view, request, ctx)
    if request.remove:
        return [one.emit(MemoryUnlinked(other=other.name))] if other.name in one.state.links else one.unchanged()
    if other.name in one.state.links:
        return one.unchanged()
    if other.state.scope == "private" and one.state.scope != "private":
        raise Refused(
            "everybody can read this entry, and would read of a private one",
            code="private",
            entity=f"memory {one.name}",
            expected="a shared entry to link it to",
            found=f"{other.name}, which is private",
            hint=f"Link them the other way: bus memory link {other.name} {one.name}",
        )
    return [one.emit(MemoryLinked(other=other.name))]


def decide_contradict(view: View, request: Contradict, ctx: Context) -> Decision:
    one, other = (_active(known) for known in _two(view, request, ctx))
    if other.state.scope == "private" and one.state.scope != "private":
        one, other = other, one  # A shared entry must not tell of a private one.
    if other.name in one.state.contradictions:
        return one.unchanged()
    if one.name in other.state.contradictions:
        return other.unchanged()
    return [one.emit(MemoryContradicted(other=other.name, reason=request.reason))]


def decide_resolve(view: View, request: Resolve, ctx: Context) -> Decision:
    one, other = _two(view, request, ctx)
    for holder, named in ((one, other), (other, one)):
        if named.name in holder.state.contradictions:
            return [holder.emit(MemoryResolved(other=named.name, resolution=request.resolution))]
    raise NotFound(
        "nobody says that they contradict each other",
        entity=f"memory {one.name}",
        expected=f"an unresolved contradiction with {other.name}",
        found=", ".join(sorted(one.state.contradictions)) or "none",
        hint=f"`bus memory show {one.name}` names those there are",
    )


def _reply(view: View, request: Command, events: Sequence[Event]) -> MemoryReply:
    return MemoryReply(seq=events[-1].seq, memory=name_of(events[-1].entity))


def _operation(verb: str, request: type[Command], decide: Any) -> Operation:
    return Operation(f"memory.{verb}", request, MemoryReply, decide, _reply)


FAMILY = Family(
    name="memory",
    facts=(
        MemoryWritten,
        MemoryAppended,
        MemoryRevised,
        MemorySuperseded,
        MemoryRetracted,
        MemoryRestored,
        MemoryPinned,
        MemoryUnpinned,
        MemoryLinked,
        MemoryUnlinked,
        MemoryContradicted,
        MemoryResolved,
    ),
    state=Memory,
    evolve=evolve,
    rank=rank,
    operations=(
        _operation("write", Write, decide_write),
        _operation("append", Append, decide_append),
        _operation("revise", Revise, decide_revise),
        _operation("supersede", Supersede, decide_supersede),
        Operation("memory.retract", Retract, MemoryReply, decide_retract, _reply, essential=True),
        _operation("restore", Restore, decide_restore),
        _operation("pin", Pin, decide_pin),
        _operation("unpin", Unpin, decide_unpin),
        _operation("link", Link, decide_link),
        _operation("contradict", Contradict, decide_contradict),
        _operation("resolve", Resolve, decide_resolve),
        Operation("memory.seed", Seed, Reply, decide_seed, seed_reply, internal=True),
        Operation("memory.show", Show, MemoryDetail),
        Operation("memory.list", List, Memories),
        Operation("memory.search", Search, Memories),
        Operation("memory.assemble", Assemble, Memories),
        Operation("memory.recall", Recall, Hits),
    ),
)
