"""How sessions look to people."""

from __future__ import annotations

from bus.domain import session_requests as session
from cli.plain import Renderers, seq_part, show_fields, show_history, show_table
from cli.render import Cell, Part, Screen

TIERS = {"system": "magenta", "summary": "yellow", "search": "cyan", "recent": "bold"}


def _added(screen: Screen, answer: session.AddReply) -> None:
    begun = (" (it begins)", "dim") if answer.opened else ""
    screen.line(seq_part(answer.seq), "  session ", (answer.session, "bold"), f"  {answer.tokens} tokens", begun)


def _reply(screen: Screen, answer: session.SessionReply) -> None:
    known = (" (it was there already)", "dim") if answer.existing else ""
    screen.line(seq_part(answer.seq), "  session ", (answer.session, "bold"), known)


def _sessions(screen: Screen, answer: session.Sessions) -> None:
    rows: list[list[Cell]] = [
        [
            (row.session, "bold"),
            row.owner,
            row.scope,
            row.strategy,
            str(row.messages),
            str(row.message_tokens),
            str(row.summary_tokens) if row.summary_tokens else "",
            row.title,
        ]
        for row in answer.sessions
    ]
    show_table(screen, ("session", "owner", "scope", "strategy", "turns", "tokens", "summary", "title"), rows)
    if not rows:
        screen.note("no sessions")


def _session(screen: Screen, answer: session.SessionDetail) -> None:
    row = answer.session
    screen.message([(row.session, "bold"), (f"  {row.title}".rstrip(), "")], answer.summary or "(no summary)")
    show_fields(screen, row, skip=("session", "title"), indent=4)
    show_fields(screen, answer, skip=("session", "summary"), indent=4)


def _turns(screen: Screen, answer: session.TurnPage) -> None:
    for turn in answer.messages:
        who = turn.role if turn.role != "assistant" else f"{turn.role} {turn.agent}"
        replaced = (" (summarised)", "dim") if turn.replaced else ""
        head: list[Part] = [seq_part(turn.seq), "  ", (screen.time(turn.time), "dim"), "  ", (who, "bold")]
        screen.message([*head, (f"  {turn.tokens} tokens", "dim"), replaced], turn.content)
    if not answer.messages:
        screen.note("no turns")


def _text(screen: Screen, answer: session.SessionText) -> None:
    # A pipe gets the text and nothing else.
    screen.block(answer.text)


def _context(screen: Screen, answer: session.ModelContext) -> None:
    for block in answer.blocks:
        seqs = ", ".join(f"#{seq}" for seq in block.seqs)
        cached = ("  cached", "green") if block.cache_control else ""
        head: list[Part] = [(f"{block.tier:<8}", TIERS[block.tier]), f"{block.role}  ", (seqs, "cyan")]
        screen.message([*head, (f"  {block.tokens} tokens", "dim"), cached], block.content)
    for left in answer.left_out:
        count = f"{left.items}, {left.tokens} tokens: " if left.items else ""
        screen.line((f"left out of {left.tier}: ", "yellow"), f"{count}{left.why}")
    screen.note(f"{answer.strategy}: {answer.tokens} of {answer.budget_tokens} tokens")


def _history(screen: Screen, answer: session.Happenings) -> None:
    show_history(screen, answer.history)


RENDERERS: Renderers = {
    session.AddReply: _added,
    session.SessionReply: _reply,
    session.Sessions: _sessions,
    session.SessionDetail: _session,
    session.TurnPage: _turns,
    session.SessionText: _text,
    session.ModelContext: _context,
    session.Happenings: _history,
}
