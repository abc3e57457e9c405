"""How intents and reservations look to people."""

from __future__ import annotations

from bus.domain import intent, reservation
from cli.plain import Renderers, seq_part, show_table
from cli.render import Cell, Screen


def _declared(screen: Screen, answer: intent.DeclareReply) -> None:
    until = screen.time(answer.expires)
    screen.line(seq_part(answer.seq), "  intent ", (answer.key, "bold"), f" is yours until {until}")
    for near in answer.warnings:
        text = f": {near.text}" if near.text else ""
        about = f"{near.agent} is about to do something alike, {near.key} (#{near.seq}){text}"
        screen.line(("warning: ", "yellow"), about, indent=4)


def _intents(screen: Screen, answer: intent.Intents) -> None:
    rows: list[list[Cell]] = [
        [(row.key, "bold"), row.agent, screen.time(row.expires), row.text] for row in answer.intents
    ]
    show_table(screen, ("intent", "agent", "until", "text"), rows)
    if not rows:
        screen.note("no intents")


def _reserved(screen: Screen, answer: reservation.ReserveReply) -> None:
    kept = "shared by you" if answer.mode == "shared" else "yours"
    head = [seq_part(answer.seq), "  reservation ", (answer.reservation, "bold")]
    screen.line(*head, f" is {kept} until {screen.time(answer.expires)}")
    for path in answer.paths:
        screen.line(path, indent=4)


def _renewed(screen: Screen, answer: reservation.RenewReply) -> None:
    for one in answer.renewed:
        until = screen.time(one.expires)
        screen.line(seq_part(answer.seq), "  reservation ", (one.reservation, "bold"), f" ends at {until}")


def _released(screen: Screen, answer: reservation.ReleaseReply) -> None:
    for one in answer.released:
        screen.line(seq_part(answer.seq), "  released of ", (one.reservation, "bold"), f": {', '.join(one.paths)}")


def _conflicts(screen: Screen, answer: reservation.Conflicts) -> None:
    rows: list[list[Cell]] = [
        [(one.path, "bold"), one.agent, one.held, one.mode, screen.time(one.expires), one.reason]
        for one in answer.conflicts
    ]
    show_table(screen, ("path", "held by", "as", "mode", "until", "reason"), rows)
    if answer.free:
        screen.line(("free  ", "green"), ", ".join(answer.free))


def _reservations(screen: Screen, answer: reservation.Reservations) -> None:
    rows: list[list[Cell]] = [
        [
            (row.reservation, "bold"),
            row.repository,
            row.agent,
            row.mode,
            ", ".join(row.paths),
            screen.time(row.expires),
            row.reason,
        ]
        for row in answer.reservations
    ]
    show_table(screen, ("reservation", "repository", "agent", "mode", "paths", "until", "reason"), rows)
    if not rows:
        screen.note("nothing is reserved")


RENDERERS: Renderers = {
    intent.DeclareReply: _declared,
    intent.Intents: _intents,
    reservation.ReserveReply: _reserved,
    reservation.RenewReply: _renewed,
    reservation.ReleaseReply: _released,
    reservation.Conflicts: _conflicts,
    reservation.Reservations: _reservations,
}
