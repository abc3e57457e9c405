"""How memories and what is recalled look to people."""

from __future__ import annotations

from bus.domain import memory_requests as memory
from bus.domain import recall
from cli.plain import Renderers, head_of, seq_part, show_fields, show_history
from cli.render import Part, Screen

TEXT = 300
"""Of a text that was recalled, so much is shown; `--json` has all of it."""


def _written(screen: Screen, answer: memory.MemoryReply) -> None:
    known = (" (it was there already)", "dim") if answer.existing else ""
    screen.line(seq_part(answer.seq), "  memory ", (answer.memory, "bold"), known)


def _memories(screen: Screen, answer: memory.Memories) -> None:
    for row in answer.memories:
        marks = [row.category, *([f"priority {row.priority}"] if row.priority else []), *row.tags]
        marks += [word for word, holds in (("private", row.scope == "private"), ("pinned", row.pinned)) if holds]
        marks += [row.state] if row.state != "active" else []
        head: list[Part] = [seq_part(row.seq), "  ", (row.memory, "bold"), f"  {row.subject}".rstrip()]
        screen.message([*head, (f"  [{', '.join(marks)}]", "dim")], row.content)
        _contradicted(screen, row.contradicts)
    if not answer.memories:
        screen.note("nothing is remembered")


def _contradicted(screen: Screen, others: list[str]) -> None:
    if others:
        screen.line(("contradicts ", "yellow"), ", ".join(others), indent=4)


def _memory(screen: Screen, answer: memory.MemoryDetail) -> None:
    row = answer.memory
    screen.message([(row.memory, "bold")], row.content)
    show_fields(screen, row, skip=("memory", "content"), indent=4)
    screen.line(("history", "bold"), indent=2)
    show_history(screen, answer.history, indent=4)


def _hits(screen: Screen, answer: recall.Hits) -> None:
    for hit in answer.hits:
        place = _place(hit)
        about = f" about {hit.subject}" if hit.subject else ""
        head: list[Part] = head_of(screen, hit)
        text = hit.text if len(hit.text) <= TEXT else f"{hit.text[: TEXT - 1]}…"
        screen.message([*head, f" {place}{about}", (f"  {hit.score:.1f}", "dim")], text)
        _contradicted(screen, hit.contradicts)
        if hit.why.terms or hit.why.cosine is not None:
            _explained(screen, hit.why)
    if not answer.hits:
        screen.note(f"nothing bears on {', '.join(answer.words) or 'that'}")
    for leg, found in answer.legs.items():
        if found != recall.ANSWERED:
            screen.note(f"{leg}: {found}")


def _place(hit: recall.Hit) -> str:
    """Where something was said."""
    if hit.path is not None:
        return f"{hit.path}:{hit.line}"
    if hit.channel is not None:
        return f"in {hit.channel}"
    if hit.session is not None:
        return f"in session {hit.session}"
    return f"dm with {hit.dm}" if hit.dm is not None else hit.memory or hit.task or hit.kind


def _explained(screen: Screen, why: recall.Why) -> None:
    parts = [f"own {why.own:.2f}", f"near {why.near:.2f}", f"wide {why.wide:.2f}"]
    if why.cosine is not None:
        parts.append(f"meaning {why.meaning:.2f} (cosine {why.cosine:.3f})")
    if why.rerank is not None:
        parts.append(f"reranker {why.rerank:.3f}")
    parts += [f"{name} x{factor:g}" for name, factor in (("author", why.author), ("time", why.time)) if factor != 1]
    terms = ", ".join(f"{term.word} {term.weight:.2f} (in {term.texts})" for term in why.terms)
    screen.line((f"{' · '.join(parts)}: {terms}", "dim"), indent=4)


RENDERERS: Renderers = {
    memory.MemoryReply: _written,
    memory.Memories: _memories,
    memory.MemoryDetail: _memory,
    recall.Hits: _hits,
}
