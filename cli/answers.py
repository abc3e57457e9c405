"""How each kind of answer looks to people, and the items that answers bring to a stream.

Rules:
* An answer that has no renderer of its own is shown from its fields: a new operation needs nothing here.
* A line begins with the seq it is about, because that is what the next command takes (`--since`, `--reply-to`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from msgspec.structs import asdict

from bus.model import Answer, Query, Reply, Request
from cli.plain import Live, Renderer, show_fields, show_reply
from cli.render import Screen

SHOWN_BY: Mapping[str, str] = MappingProxyType(
    {
        "message": "talking",
        "inbox": "talking",
        "agent": "working",
        "task_requests": "working",
        "directive": "working",
        "reminder": "working",
        "journal": "working",
        "log": "auditing",
        "intent": "keeping",
        "reservation": "keeping",
        "memory_requests": "remembering",
        "recall": "remembering",
        "session_requests": "conversing",
        "kv": "storing",
        "stream": "storing",
        "vault": "storing",
        "vault_memories": "storing",
        "vector": "storing",
    }
)
"""The module here that knows how the answers of a module of `bus.domain` look. It is imported when one is shown."""


def documents(answer: Any) -> list[Any]:
    """The items of an answer, as JSON lines show them."""
    live = _live(answer)
    assert live is not None
    return live.items(answer)


def show_items(screen: Screen, answer: Any) -> None:
    """The items of an answer alone, for a stream."""
    live = _live(answer)
    assert live is not None
    live.show(screen, answer)


def show(screen: Screen, request: Request, answer: Any) -> None:
    """An answer, for people."""
    renderer, live = _renderer(answer), _live(answer)
    if renderer is not None:
        renderer(screen, answer)
    elif live is not None:
        live.show(screen, answer)
        if not live.items(answer):
            screen.note(live.none)
    elif isinstance(answer, Reply):
        show_reply(screen, answer)
    else:
        show_fields(screen, answer)
    if isinstance(request, Query) and request.as_of is not None and isinstance(answer, Answer):
        screen.note(f"as of #{answer.seq}, {screen.time(answer.time)}")
    if getattr(answer, "next", None) is not None and _is_full(request, answer):
        screen.note(_more(request, answer))


def _more(request: Any, answer: Any) -> str:
    """How to get at what is not on this page: a page without a cursor is the end of a conversation."""
    if hasattr(request, "before") and request.since is None:
        return f"there may be older ones: --before {_pages(answer)[-1][0].seq}"
    return f"there may be more: --since {answer.next}"


def _is_full(request: Any, answer: Any) -> bool:
    lists = _pages(answer)
    return bool(lists) and len(lists[-1]) >= getattr(request, "limit", 0) > 0


def _pages(answer: Any) -> list[Any]:
    """The lists of an answer; the last one is its page."""
    return [value for value in asdict(answer).values() if isinstance(value, list)]


def _renderer(answer: Any) -> Renderer | None:
    found: Renderer | None = _of(answer, "RENDERERS").get(type(answer))
    return found


def _live(answer: Any) -> Live | None:
    found: Live | None = _of(answer, "LIVE").get(type(answer))
    return found


def _of(answer: Any, table: str) -> Mapping[type, Any]:
    name = SHOWN_BY.get(type(answer).__module__.rpartition(".")[2])
    known: Mapping[type, Any] = getattr(import_module(f"cli.{name}"), table, {}) if name is not None else {}
    return known
