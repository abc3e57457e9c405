"""The text of a wake card: at most so many bytes, the most important first, nothing in it that is not what it seems.

Rules:
* The sections stand in the order of their importance. Room is given in rounds: every section gets its first line before
  any gets its second, so that no flood of one kind hides another.
* Texts of others are single lines without control characters, cut to size, and indented: nobody can fake a section.
* A section says how many there are when not all of them are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from bus.domain import journal
from bus.domain.task_claims import stamp
from bus.durations import span

BRIEF = 200
"""The structured card has so many characters of a text."""
LINE_BYTES = 160
HEADING_BYTES = 60
"""At most so long, whatever is counted in it."""


class _Section(NamedTuple):
    title: str
    total: int
    lines: Sequence[str]

    def heading(self, shown: int) -> str:
        return f"{self.title} ({shown} of {self.total}):" if shown < self.total else f"{self.title} ({self.total}):"


def brief(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 1]}…"


def card_text(card: journal.WakeCard, now: datetime) -> str:
    """The card as text, of at most CARD_BYTES bytes, as of `now`."""
    sections = [section for section in _sections(card, now) if section.lines]
    head = _line(f"{_plain(card.agent)}, as of #{card.seq}, {stamp(now)}")
    if not sections:
        return f"{head}\nNothing waits: no claims, no messages, no directives, no reminders, no journal.\n"
    shown = _room(sections, journal.CARD_BYTES - len(head.encode()) - 1)
    parts = [head]
    for section, count in zip(sections, shown, strict=True):
        if count:
            parts += [section.heading(count), *section.lines[:count]]
    return "\n".join(parts) + "\n"


def _room(sections: Sequence[_Section], left: int) -> list[int]:
    """How many lines of each section there is room for."""
    shown = [0] * len(sections)
    for depth in range(max(len(section.lines) for section in sections)):
        for number, section in enumerate(sections):
            # A section that had to leave out a line does not show one behind it.
            if depth < len(section.lines) and shown[number] == depth:
                need = len(section.lines[depth].encode()) + 1 + (HEADING_BYTES if depth == 0 else 0)
                if need <= left:
                    shown[number] += 1
                    left -= need
    return shown


def _sections(card: journal.WakeCard, now: datetime) -> list[_Section]:
    counts, here = card.counts, card.namespace
    return [
        _Section("You hold", counts["claims"], [_claim(one, here, now) for one in card.claims]),
        _Section("Unread", counts["unread"], _unread(card, now)),
        _Section("Directives", counts["directives"], [_directive(one, here, now) for one in card.directives]),
        _Section("Reminders", counts["reminders"], [_reminder(one, here, now) for one in card.reminders]),
        _journal(card, now),
        _Section(
            "Pinned", counts["pins"], [_item(f"#{pin.seq} {pin.channel}, {pin.agent}: ", pin.text) for pin in card.pins]
        ),
    ]


def _claim(claim: journal.Claimed, here: str, now: datetime) -> str:
    left = (claim.expires - now).total_seconds()
    ends = f"{span(left)} left" if left > 0 else "lease has ended"
    return _item(f"{claim.task} ({ends}, fence {claim.fence}){_place(claim.namespace, here)} ", claim.title)


def _unread(card: journal.WakeCard, now: datetime) -> list[str]:
    item = card.oldest
    if item is None:
        return []
    age = span((now - item.time).total_seconds())
    return [_item(f"oldest #{item.seq}, {age} ago, {item.agent} [{', '.join(item.reasons)}]: ", item.text)]


def _directive(directive: journal.Instruction, here: str, now: datetime) -> str:
    terms = [f"from {directive.giver}", *([directive.state] if directive.state == "acknowledged" else [])]
    terms += [f"priority {directive.priority}"] if directive.priority else []
    if directive.overdue:
        terms.append("OVERDUE")
    elif directive.due is not None:
        terms.append(f"due in {span((directive.due - now).total_seconds())}")
    return _item(f"{directive.directive} ({', '.join(terms)}){_place(directive.namespace, here)} ", directive.text)


def _reminder(reminder: journal.Reminded, here: str, now: datetime) -> str:
    when = f"fired #{reminder.fired}" if reminder.fired is not None else ""
    if not when and reminder.at is not None:
        when = f"in {span((reminder.at - now).total_seconds())}"
    return _item(f"{reminder.reminder} ({when}){_place(reminder.namespace, here)} ", reminder.text)


def _journal(card: journal.WakeCard, now: datetime) -> _Section:
    entry = card.journal
    if entry is None:
        return _Section("", 0, ())
    lines = [("focus: ", entry.focus)] if entry.focus.strip() else []
    lines += [("next: ", text) for text in entry.next_steps]
    lines += [("decided: ", text) for text in entry.decisions]
    lines += [("done: ", text) for text in entry.done]
    age = span((now - entry.time).total_seconds())
    return _Section(f"Journal #{entry.seq}, {age} ago", len(lines), [_item(*line) for line in lines])


def _place(namespace: str, here: str) -> str:
    """Where that is, when it is elsewhere."""
    return f" in {namespace}" if namespace != here else ""


def _item(head: str, text: str) -> str:
    return _line(f"  {_plain(head, keep_end=True)}{_plain(text)}")


def _plain(text: str, *, keep_end: bool = False) -> str:
    """One line without control and formatting characters."""
    kept = text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)
    flat = " ".join(kept.split())
    return f"{flat} " if keep_end and flat else flat


def _line(text: str) -> str:
    """`text`, cut to LINE_BYTES bytes between two characters."""
    raw = text.encode()
    if len(raw) <= LINE_BYTES:
        return text
    return raw[: LINE_BYTES - len("…".encode())].decode(errors="ignore") + "…"
