"""Directives, reminders, journals and the wake card as people see them."""

from __future__ import annotations

from typing import Any

from bus.domain import directive, journal, reminder
from tests.unit.test_card import BLANK
from tests.unit.test_render import NOW, Terminal, shown


def order(**given: Any) -> directive.DirectiveRow:
    known = {"directive": "d-1", "seq": 7, "given": 5, "giver": "atlas", "to": ["nova"], "role": None, "agent": None}
    known |= {"state": "given", "overdue": False, "priority": 2, "due": NOW, "text": "run it", "result": ""}
    return directive.DirectiveRow(**known | {"reason": "", "refs": []} | given)


def test_directives_say_who_is_to_do_what() -> None:
    late = order(directive="d-2", role="reviewer", to=["iris", "nova"], overdue=True, due=None)
    taken = order(directive="d-3", role="reviewer", to=["iris", "nova"], agent="iris", state="acknowledged", due=None)
    rows = directive.Directives(seq=9, time=NOW, directives=[order(), late, taken])
    assert [line.split(maxsplit=1)[0] for line in shown(rows).splitlines()] == ["DIRECTIVE", "d-1", "d-2", "d-3"]
    assert "d-1        given           2         atlas  nova                  2030-01-31T12:00:00Z  run it" in shown(
        rows
    )
    assert "given, overdue  2         atlas  reviewer: iris, nova" in shown(rows)
    assert "acknowledged    2         atlas  iris " in shown(rows)


def test_reminders_say_when_they_fire() -> None:
    row = reminder.ReminderRow(
        reminder="r-1", seq=7, set=5, to="nova", setter="atlas", state="waiting", at=NOW, every="0 9 * * *",
        timezone="Europe/Berlin", fired=None, text="stand up",
    )  # fmt: skip
    text = shown(reminder.Reminders(seq=9, time=NOW, reminders=[row]))
    assert "r-1       waiting  nova  2030-01-31T12:00:00Z  0 9 * * * Europe/Berlin  stand up" in text


def test_journal_entries_say_where_somebody_stood() -> None:
    entry = journal.Entry(
        seq=7, time=NOW, agent="nova", focus="parser", done=["lexer"], decisions=["a\nb"], next_steps=["test"]
    )
    answer = journal.Entries(seq=9, time=NOW, entries=[entry], next=7)
    assert shown(answer).splitlines() == [
        "#7  2030-01-31T12:00:00Z  nova  parser",
        "    done  lexer",
        "    decided",
        "    a",
        "    b",
        "    next  test",
    ]
    terminal = Terminal()
    shown(answer, journal.Read(limit=1), terminal)
    assert "--before 7" in terminal.getvalue()


def test_the_card_is_shown_as_it_is() -> None:
    card = journal.WakeCard(**{name: getattr(BLANK, name) for name in BLANK.__struct_fields__} | {"text": "a\n  b\n"})
    assert shown(card) == "a\n  b\n"


def test_people_are_told_when_there_is_nothing() -> None:
    for answer, text in (
        (directive.Directives(seq=9, time=NOW, directives=[]), "no directives"),
        (reminder.Reminders(seq=9, time=NOW, reminders=[]), "no reminders"),
        (journal.Entries(seq=9, time=NOW, entries=[]), "no entries"),
    ):
        terminal = Terminal()
        assert text in shown(answer, None, terminal)
