"""What the events say about sessions, and what the queries about them have to be answered. Part of
`tests.property.told` and `tests.property.oracle`, with their rules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from bus.clock import from_ns
from bus.domain import recall, task_requests
from bus.domain import session_requests as session
from bus.errors import InvalidRequest, NotFound
from bus.events import Event
from projections.lexical import words
from tests.property.remembered import ANSWERS as RECALLED
from tests.property.remembered import may_read, ranked
from tests.property.stored import page_of

Place = tuple[str, str]
Known = dict[str, Any]
BLANK: dict[str, Any] = {"title": "", "strategy": "summary_buffer", "recent_turns": 20, "recent_tokens": 4000}
BLANK |= {"nearest": 8, "compact_at_tokens": None}
BLANK |= {"cleared": 0, "compacted": 0, "summary": "", "summarised": None, "summariser": "", "asked": None}
SHOWS_SUMMARY = ("summary", "summary_buffer")


class Talked:
    """What the events taken so far say."""

    def __init__(self) -> None:
        self.sessions: dict[Place, Known] = {}

    def session(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        if verb == "opened":
            known = self.sessions[place] = BLANK | {"scope": "private", "owner": event.agent, "opened": event.seq}
            known |= {"events": [], "dimension": 0} | body
            known["turns"] = []
        known = self.sessions[place]
        known["events"].append(event)
        if verb == "configured":
            known |= body
        elif verb == "added":
            known["turns"].append((event, body))
        elif verb == "compaction_asked":
            known["asked"] = event.seq
        elif verb == "compacted":
            known |= {"compacted": body["upto"], "summarised": event.seq, "asked": None}
            known |= {name: body.get(name, "") for name in ("summary", "summariser")}
        elif verb == "cleared":
            known |= {"cleared": event.seq, "summary": "", "summarised": None, "summariser": "", "asked": None}
        first = verb == "added" and body.get("embedding") and not known["dimension"]
        if first:
            known["dimension"] = len(body["embedding"])
        if verb != "added" or first:
            known["seq"] = event.seq


def _find(told: Any, me: str, request: Any) -> Known | None:
    """The session that `me` calls so; its own before everybody's."""
    found = [
        (place[1], known)
        for place, known in told.talked.sessions.items()
        if place[0] == request.namespace and known["name"] == request.session and may_read(me, place[1])
    ]
    found.sort(key=lambda one: "+" not in one[0])
    return found[0][1] if found else None


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / 4)


def _turn(known: Known, event: Event, body: Any) -> session.Turn:
    return session.Turn(
        seq=event.seq,
        time=from_ns(event.time_ns),
        role=body["role"],
        agent=event.agent,
        content=body["content"],
        tokens=body["tokens"],
        metadata=body.get("metadata", {}),
        replaced=body["role"] != "system" and event.seq <= known["compacted"],
    )


def _turns(known: Known) -> Iterator[session.Turn]:
    """The turns that are a part of a session."""
    for event, body in known["turns"]:
        if event.seq > known["cleared"]:
            yield _turn(known, event, body)


def _row(known: Known) -> session.SessionRow:
    there = [turn for turn in _turns(known) if not turn.replaced]
    return session.SessionRow(
        session=known["name"],
        messages=len(there),
        message_tokens=sum(turn.tokens for turn in there),
        last=there[-1].seq if there else None,
        summary_tokens=_tokens(known["summary"]),
        **{name: known[name] for name in ("seq", "opened", "owner", "scope", "strategy", "title")},
    )


def _get(told: Any, me: str, request: session.Get, head: Any, now: datetime) -> Any:
    known = _find(told, me, request)
    if known is None:
        return NotFound
    same = ("recent_turns", "recent_tokens", "nearest", "compact_at_tokens", "summary", "summarised", "summariser")
    same += ("compacted", "cleared")
    return session.SessionDetail(
        session=_row(known),
        waiting=known["asked"] is not None,
        **{name: known[name] for name in same},
        **head,
    )


def _list(told: Any, me: str, request: session.List, head: Any, now: datetime) -> session.Sessions:
    rows = [
        _row(known)
        for place, known in told.talked.sessions.items()
        if place[0] == request.namespace
        and may_read(me, place[1])
        and request.scope in (None, known["scope"])
        and request.owner in (None, known["owner"])
        and known["opened"] > (request.since or 0)
    ]
    page = sorted(rows, key=lambda row: row.opened)[: request.limit]
    return session.Sessions(sessions=page, next=page[-1].opened if len(page) == request.limit else None, **head)


def _messages(told: Any, me: str, request: session.Messages, head: Any, now: datetime) -> Any:
    known = _find(told, me, request)
    if known is None:
        return NotFound
    page, more = page_of([turn for turn in _turns(known) if request.replaced or not turn.replaced], request)
    return session.TurnPage(messages=page, next=more, **head)


def _text(told: Any, me: str, request: session.ToString, head: Any, now: datetime) -> Any:
    known = _find(told, me, request)
    if known is None:
        return NotFound
    asked = session.Messages(session=request.session, limit=request.limit, since=request.since)
    page, more = page_of([turn for turn in _turns(known) if not turn.replaced], asked)
    text = [f"summary: {known['summary']}"] if known["summary"] and not request.since else []
    text += [f"{turn.role}: {turn.content}" for turn in page]
    return session.SessionText(text="\n".join(text), next=more, **head)


def _history(told: Any, me: str, request: session.History, head: Any, now: datetime) -> Any:
    known = _find(told, me, request)
    if known is None:
        return NotFound
    rows = [
        task_requests.Happening(
            seq=event.seq,
            time=from_ns(event.time_ns),
            type=event.type,
            agent=event.agent,
            data=json.loads(event.data),
        )
        for event in known["events"]
    ]
    page, more = page_of(rows, request)
    return session.Happenings(history=page, next=more, **head)


# --- what a model is shown ------------------------------------------------------------------------------------------


class _Shown:
    """The tiers of one context, worked out one after the other."""

    def __init__(
        self, told: Any, me: str, request: session.BuildContext, known: Known, head: Any, now: datetime
    ) -> None:
        self.told, self.me, self.request, self.known, self.head, self.now = told, me, request, known, head, now
        self.strategy = request.strategy or known["strategy"]
        self.left = request.budget_tokens
        self.left_out: list[session.LeftOut] = []
        self.searches = request.query is not None or request.embedding is not None
        wanted = request.search_tokens
        self.search = request.budget_tokens // 4 if wanted is None else wanted

    def out(self, tier: Any, items: int, tokens: int, why: str) -> None:
        self.left_out.append(session.LeftOut(tier=tier, items=items, tokens=tokens, why=why))

    def took(self, blocks: list[session.Block]) -> list[session.Block]:
        self.left -= sum(block.tokens for block in blocks)
        return blocks

    def room(self, wanted: int | None) -> int:
        return self.left if wanted is None else min(self.left, wanted)

    def block(self, tier: Any, turn: session.Turn, **more: Any) -> session.Block:
        same = {name: getattr(turn, name) for name in ("role", "content", "tokens", "agent", "metadata")}
        return session.Block(tier=tier, seqs=[turn.seq], **same, **more)

    def system(self) -> list[session.Block]:
        room, chosen = self.room(self.request.system_tokens), []
        for turn in _turns(self.known):
            if turn.role == "system" and turn.tokens <= room:
                room -= turn.tokens
                chosen.append(turn)
            elif turn.role == "system":
                self.out("system", 1, turn.tokens, f"it does not fit into the {room} tokens that are left for it")
        marks: list[Any] = [None] * (len(chosen) - 1) + [{"type": "ephemeral"}] * bool(chosen)
        return self.took([self.block("system", t, cache_control=m) for t, m in zip(chosen, marks, strict=True)])

    def summary(self) -> list[session.Block]:
        text, room = self.known["summary"], self.room(self.request.summary_tokens)
        if self.strategy not in SHOWS_SUMMARY or not text:
            return []
        if _tokens(text) > room:
            why = f"it does not fit into the {room} tokens that are left for it"
            self.out("summary", 1, _tokens(text), why)
            return []
        made = session.Block(
            tier="summary",
            role="system",
            content=text,
            tokens=_tokens(text),
            seqs=[self.known["summarised"]],
            cache_control={"type": "ephemeral"},
        )
        return self.took([made])

    def recent(self) -> list[session.Block]:
        turns = [t for t in _turns(self.known) if t.role != "system"]
        if self.strategy in SHOWS_SUMMARY:
            turns = [turn for turn in turns if not turn.replaced]
        last = turns[-1].tokens if turns else 0
        room = self.room(self.request.recent_tokens)
        room = min(room, max(self.left - self.search * self.searches, min(last, self.left)))
        if self.strategy == "summary_buffer":
            room = min(room, max(last, self.known["recent_tokens"]))
        most = {"window": self.known["recent_turns"], "vector": self.known["recent_turns"], "summary": 1}.get(
            self.strategy, 5000
        )

        def kept(budget: float) -> list[session.Turn]:
            count = 0
            while count < min(most, len(turns)) and sum(t.tokens for t in turns[-count - 1 :]) <= budget:
                count += 1
            while count and turns[-count].role == "tool":
                count -= 1
            return turns[len(turns) - count :]

        chosen = kept(room)
        if len(chosen) < len(turns):
            full = len(chosen) == len(kept(math.inf))
            why = f"the strategy shows the newest {most}" if full else f"more than {room} tokens"
            rest = turns[: len(turns) - len(chosen)]
            self.out("recent", len(rest), sum(turn.tokens for turn in rest), why)
        return self.took([self.block("recent", turn) for turn in chosen])

    def found(self, shown: set[int]) -> Iterator[session.Block]:
        request, turns = self.request, {turn.seq: turn for turn in _turns(self.known)}
        k = self.known["nearest"] if self.strategy == "vector" else request.k
        if request.embedding is not None:
            near = []
            for event, body in self.known["turns"]:
                numbers = body.get("embedding", ())
                if event.seq in turns and event.seq not in shown and len(numbers) == len(request.embedding):
                    cosine = sum(a * b for a, b in zip(numbers, request.embedding, strict=True)) / math.hypot(*numbers)
                    near.append((-cosine / math.hypot(*request.embedding), -event.seq))
            for _, seq in sorted(near)[:k]:
                yield self.block("search", turns[-seq])
        elif request.query is None:
            if self.strategy == "vector":
                self.out("search", 0, 0, "there is no question to look for")
        elif not (terms := list(dict.fromkeys(words(request.query)))):
            self.out("search", 0, 0, "the question has no word to look for")
        elif self.strategy == "vector":
            asked = recall.Recall(namespace=request.namespace, query=request.query, kinds=("turn",))
            hits, _, _ = ranked(self.told, self.me, asked, terms)
            mine = [hit.seq for hit in hits if hit.seq in turns and hit.seq not in shown]
            for seq in mine[:k]:
                yield self.block("search", turns[seq])
        else:
            asked = recall.Recall(
                namespace=request.namespace, query=request.query, k=request.k + len(shown), kinds=request.kinds
            )
            hits = RECALLED[recall.Recall](self.told, self.me, asked, self.head, self.now).hits
            for hit in [hit for hit in hits if hit.seq not in shown][: request.k]:
                text = f"#{hit.seq} {hit.kind} by {hit.agent}: {hit.text}"
                yield session.Block(
                    tier="search",
                    role="system",
                    content=text,
                    tokens=_tokens(text),
                    seqs=[hit.seq],
                    agent=hit.agent,
                )

    def searched(self, shown: set[int]) -> list[session.Block]:
        room, chosen, missed = min(self.search, self.left), [], []
        for block in self.found(shown):
            fits = block.tokens <= room
            room -= block.tokens if fits else 0
            (chosen if fits else missed).append(block)
        if missed:
            why = f"more than the {room} tokens that are left for it"
            self.out("search", len(missed), sum(block.tokens for block in missed), why)
        return chosen


def _context(told: Any, me: str, request: session.BuildContext, head: Any, now: datetime) -> Any:
    known = _find(told, me, request)
    if known is None:
        return NotFound
    if request.embedding is not None and known["dimension"] not in (0, len(request.embedding)):
        return InvalidRequest
    shown = _Shown(told, me, request, known, head, now)
    system, summary, recent = shown.system(), shown.summary(), shown.recent()
    search = shown.searched({seq for block in (*system, *recent) for seq in block.seqs})
    blocks = [*system, *summary, *search, *recent]
    return session.ModelContext(
        session=request.session,
        strategy=shown.strategy,
        tokens=sum(block.tokens for block in blocks),
        budget_tokens=request.budget_tokens,
        blocks=blocks,
        left_out=shown.left_out,
        **head,
    )


ANSWERS: Mapping[type, Callable[[Any, str, Any, Any, datetime], Any]] = {
    session.Get: _get,
    session.List: _list,
    session.Messages: _messages,
    session.ToString: _text,
    session.History: _history,
    session.BuildContext: _context,
}
