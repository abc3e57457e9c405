"""What is decided about sessions, and the table of the family. The rules are in `bus.domain.session`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bus.domain.memory import metadata_text
from bus.domain.memory_limits import METADATA_BYTES
from bus.domain.session import (
    SETTINGS,
    Session,
    SessionAdded,
    SessionCleared,
    SessionCompacted,
    SessionCompactionAsked,
    SessionConfigured,
    SessionOpened,
    evolve,
    own_key,
)
from bus.domain.session_requests import (
    Add,
    AddReply,
    BuildContext,
    Clear,
    Compact,
    Configure,
    Get,
    Happenings,
    History,
    List,
    Messages,
    ModelContext,
    Open,
    Replace,
    SessionDetail,
    SessionReply,
    Sessions,
    SessionText,
    ToString,
    TurnPage,
)
from bus.domain.tokens import tokens
from bus.domain.vector import check_finite
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.events import Event
from bus.model import Command, Context, Decision, Emit, Family, Operation, Reply, View


class _Known(NamedTuple):
    """A session that the asker can read: its key, what it is, and the seq of its last change."""

    key: str
    state: Session
    since: int

    def unchanged(self) -> SessionReply:
        return SessionReply(seq=self.since, session=self.state.name)


def _looked_up(view: View, ctx: Context, name: str) -> _Known | None:
    """The session that the asker calls so: one of its own before one of everybody's."""
    for key in (own_key(name, ctx.agent), name):
        entry = view.entry(Session, ctx.namespace, key)
        if entry is not None:
            return _Known(key, entry.state, entry.since)
    return None


def _find(view: View, ctx: Context, name: str) -> _Known:
    """The same; NotFound when there is none."""
    known = _looked_up(view, ctx, name)
    if known is None:
        raise NotFound(
            "no such session",
            entity=f"session {name}",
            expected=f"a session of namespace {ctx.namespace} that you can read",
            found="none of that name",
            hint="`bus session list` shows them; the first turn that is added begins one",
        )
    return known


def _own(view: View, ctx: Context, name: str) -> _Known:
    """The same; NotAllowed when the asker may not say how it is kept."""
    known = _find(view, ctx, name)
    if known.state.owner != ctx.agent and "owner" not in ctx.authority:
        raise NotAllowed(
            "only the agent that began a session, or an owner of the tenant, may do that",
            entity=f"session {name}",
            expected=known.state.owner,
            found=ctx.agent,
            hint=f"Ask {known.state.owner}, or begin a session of your own: bus session open",
        )
    return known


def _invalid(name: str, message: str, code: str, expected: str, found: str, hint: str) -> InvalidRequest:
    return InvalidRequest(message, code=code, entity=f"session {name}", expected=expected, found=found, hint=hint)


# --- decisions ----------------------------------------------------------------------------------------------------


def decide_open(view: View, request: Open, ctx: Context) -> Decision:
    name = request.session
    known = _looked_up(view, ctx, name)
    if known is not None and known.state.scope != request.scope:
        raise Refused(
            "a session of that name is there and has another scope",
            code="exists",
            entity=f"session {name}",
            expected=f"none, or a {request.scope} one",
            found=f"a {known.state.scope} one",
            hint="Choose another name, or use the one that is there",
        )
    if known is not None:
        return SessionReply(seq=known.since, session=name, existing=True)
    given = {setting: getattr(request, setting) for setting in SETTINGS}
    key = own_key(name, ctx.agent) if request.scope == "private" else name
    return [Emit(Session, key, SessionOpened(name=name, scope=request.scope, **given))]


def decide_configure(view: View, request: Configure, ctx: Context) -> Decision:
    known = _own(view, ctx, request.session)
    given = {name: value for name in SETTINGS if (value := getattr(request, name)) is not None}
    changed = {name: value for name, value in given.items() if value != getattr(known.state, name)}
    return [Emit(Session, known.key, SessionConfigured(**changed))] if changed else known.unchanged()


def decide_add(view: View, request: Add, ctx: Context) -> Decision:
    known = _looked_up(view, ctx, request.session)
    _check_turn(request, known.state.dimension if known is not None else 0)
    counted = request.tokens if request.tokens is not None else tokens(request.content)
    added = SessionAdded(
        role=request.role,
        content=request.content,
        tokens=counted,
        metadata=request.metadata,
        embedding=request.embedding,
    )
    if known is not None:
        return [Emit(Session, known.key, added)]
    key = own_key(request.session, ctx.agent)
    return [Emit(Session, key, SessionOpened(name=request.session)), Emit(Session, key, added)]


def _check_turn(request: Add, dimension: int) -> None:
    name, given = request.session, request.embedding
    if not request.content.strip() and not request.metadata:
        hint = "A turn that only calls tools carries them as metadata"
        raise _invalid(name, "a turn says something", "no_text", "a content or metadata", "neither", hint)
    if (size := len(metadata_text(request.metadata).encode("utf-8", "replace"))) > METADATA_BYTES:
        expected, hint = f"at most {METADATA_BYTES} bytes", "Keep large values elsewhere and refer to them"
        raise _invalid(name, "the metadata is too large", "too_large", expected, f"{size} bytes", hint)
    if given:
        check_finite(given, f"session {name}")
    if given and dimension not in (0, len(given)):
        expected, found = f"{dimension} numbers, as its first one has", str(len(given))
        hint = "All embeddings of a session come from one model"
        raise _invalid(name, "the embedding has another dimension", "bad_dimension", expected, found, hint)


def decide_clear(view: View, request: Clear, ctx: Context) -> Decision:
    return [Emit(Session, _own(view, ctx, request.session).key, SessionCleared())]


def decide_compact(view: View, request: Compact, ctx: Context) -> Decision:
    known = _own(view, ctx, request.session)
    if request.summary is None and request.upto is None:
        return [Emit(Session, known.key, SessionCompactionAsked(keep=request.keep or 1))]
    given = [name for name in ("summary", "upto", "keep") if getattr(request, name) is not None]
    if given != ["summary", "upto"]:
        expected = "summary and upto, or neither and perhaps keep"
        hint = "For example: bus session compact s-1 --summary - --upto 41"
        raise _invalid(request.session, "it is not clear what to compact", "what", expected, " and ".join(given), hint)
    assert request.summary is not None
    assert request.upto is not None
    if not request.summary.strip():
        hint = "Leave it out, and the bus makes one"
        raise _invalid(request.session, "a summary says something", "no_text", "a letter or more", "none", hint)
    event = ctx.events.get(request.upto)
    here = event is not None and (event.namespace, event.entity) == (ctx.namespace, known.key)
    if event is None or not here or not isinstance(event.fact, SessionAdded):
        raise NotFound(
            "no such turn in this session",
            entity=f"session {request.session}",
            expected="seq of the last turn that the summary stands for",
            found=f"#{request.upto}, which is none",
            hint=f"`bus session messages {request.session}` shows them",
        )
    _check_order(known, request.upto, known.state.begins)
    fact = SessionCompacted(
        summary=request.summary, upto=request.upto, start=known.state.begins, summariser=f"agent:{ctx.agent}"
    )
    return [Emit(Session, known.key, fact)]


def decide_replace(view: View, request: Replace, ctx: Context) -> Decision:
    entry = view.entry(Session, request.namespace, request.key)
    if entry is None:
        raise NotFound("no such session", entity="a session", expected="one with turns", found="none", hint="Leave it")
    known = _Known(request.key, entry.state, entry.since)
    if (known.state.compacted, known.state.summariser) == (request.upto, request.summariser):
        return known.unchanged()
    _check_order(known, request.upto, request.start)
    same = {name: getattr(request, name) for name in ("summary", "upto", "start", "summariser")}
    return [Emit(Session, request.key, SessionCompacted(**same))]


def _check_order(known: _Known, upto: int, start: int) -> None:
    """Refuse a summary that rests on something else than the turns after the last one."""
    state = known.state
    if start != state.begins or upto <= state.begins:
        raise Refused(
            "the turns that it stands for are summarised or cleared already",
            code="compacted",
            entity=f"session {state.name}",
            expected=f"a summary of turns after #{state.begins}",
            found=f"one of those after #{start}, up to #{upto}",
            hint="Read the session again, and summarise what is left",
        )


def _named(request: Compact) -> Sequence[int]:
    return () if request.upto is None else (request.upto,)


def _name(view: View, event: Event) -> str:
    session = view.get(Session, event.namespace, event.entity)
    assert session is not None
    return session.name


def _reply(view: View, request: Command, events: Sequence[Event]) -> SessionReply:
    return SessionReply(seq=events[-1].seq, session=_name(view, events[-1]))


def _added(view: View, request: Add, events: Sequence[Event]) -> AddReply:
    fact = events[-1].fact
    assert isinstance(fact, SessionAdded)
    opened = isinstance(events[0].fact, SessionOpened)
    return AddReply(seq=events[-1].seq, session=_name(view, events[-1]), tokens=fact.tokens, opened=opened)


def _operation(verb: str, request: type[Command], decide: Any, reply_type: type[Reply] = SessionReply) -> Operation:
    return Operation(f"session.{verb}", request, reply_type, decide, _added if reply_type is AddReply else _reply)


FAMILY = Family(
    name="session",
    facts=(
        SessionOpened,
        SessionConfigured,
        SessionAdded,
        SessionCompactionAsked,
        SessionCompacted,
        SessionCleared,
    ),
    state=Session,
    evolve=evolve,
    operations=(
        _operation("open", Open, decide_open),
        _operation("add", Add, decide_add, AddReply),
        _operation("configure", Configure, decide_configure),
        Operation("session.compact", Compact, SessionReply, decide_compact, _reply, _named),
        _operation("clear", Clear, decide_clear),
        Operation("session.replace", Replace, SessionReply, decide_replace, _reply, internal=True),
        Operation("session.get", Get, SessionDetail),
        Operation("session.messages", Messages, TurnPage),
        Operation("session.to_string", ToString, SessionText),
        Operation("session.context", BuildContext, ModelContext),
        Operation("session.list", List, Sessions),
        Operation("session.history", History, Happenings),
    ),
)
