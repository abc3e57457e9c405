"""How messages and inboxes look to people."""

from __future__ import annotations

from bus.domain import inbox, message
from cli.plain import Live, Renderers, head_of, show_table
from cli.render import Cell, Part, Screen


def _messages(screen: Screen, answer: message.Messages) -> None:
    for row in answer.messages:
        head: list[Part] = head_of(screen, row)
        if row.reply_to is not None:
            head.append((f" to #{row.reply_to}", "dim"))
        marks = [word for word, holds in (("edited", row.edited), ("pinned", row.pinned)) if holds]
        if marks:
            head.append((f" ({', '.join(marks)})", "yellow"))
        screen.message(head, row.text)
        for emoji, agents in row.reactions.items():
            screen.line((f"{emoji} {', '.join(agents)}", "dim"), indent=4)


def _items(screen: Screen, answer: inbox.Items) -> None:
    for item in answer.items:
        place = f" in {item.channel}" if item.channel else f" about {item.task}" if item.task else ""
        head: list[Part] = head_of(screen, item)
        screen.message([*head, place, (f" [{', '.join(item.reasons)}]", "dim")], item.text)
    if answer.remaining:
        screen.note(f"{answer.remaining} more wait: acknowledge these with `bus inbox ack {answer.upto}`")
    if answer.hint:
        screen.note(answer.hint)


def _counts(screen: Screen, answer: inbox.Counts) -> None:
    columns = ("where", "unread", "reasons", "since", "first")
    rows: list[list[Cell]] = []
    for pile in answer.piles:
        place = pile.channel or (f"dm with {pile.dm}" if pile.dm else "the bus")
        reasons = ", ".join(f"{count} {reason}" for reason, count in pile.reasons.items())
        rows.append([(place, "bold"), str(pile.unread), reasons, screen.time(pile.since), f"#{pile.first}"])
    show_table(screen, columns, rows)
    if not answer.unread:
        screen.note("nothing unread")
        return
    screen.note(f"{answer.unread} unread; `bus inbox` shows the oldest, `bus inbox --since SEQ` looks ahead")


RENDERERS: Renderers = {inbox.Counts: _counts}
LIVE: dict[type, Live] = {
    message.Messages: Live(_messages, lambda answer: list(answer.messages), "no messages"),
    inbox.Items: Live(_items, lambda answer: list(answer.items), "nothing unread"),
}
