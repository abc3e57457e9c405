"""The wake card's text: never more than its bytes, the most important first, and nothing that is not what it seems."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.domain.inbox import Item
from bus.domain.journal import CARD_BYTES, Claimed, Entry, Instruction, Pin, Reminded, WakeCard
from projections.views.card import LINE_BYTES, card_text

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
TITLES = ("You hold", "Unread", "Directives", "Reminders", "Journal", "Pinned")
BLANK = WakeCard(
    seq=9,
    time=NOW,
    agent="nova",
    namespace="default",
    counts=dict.fromkeys(("claims", "unread", "directives", "reminders", "pins"), 0),
    claims=[],
    oldest=None,
    directives=[],
    reminders=[],
    journal=None,
    pins=[],
    text="",
)


def card(text: str, many: int = 10, count: int = 10, name: str = "nova", seq: int = 9) -> WakeCard:
    """A card on which everything says `text`."""
    at = NOW + timedelta(minutes=8)
    claim = Claimed(namespace=name, task=name, title=text, fence=seq, expires=at)
    order = Instruction(
        namespace=name,
        directive=name,
        giver=name,
        state="acknowledged",
        overdue=False,
        priority=9,
        due=at,
        text=text,
    )
    bell = Reminded(namespace=name, reminder=name, setter=name, at=at, fired=None, text=text)
    entry = Entry(
        seq=seq, time=NOW, agent=name, focus=text, done=[text] * 5, decisions=[text] * 5, next_steps=[text] * 5
    )
    return WakeCard(
        seq=seq,
        time=NOW,
        agent=name,
        namespace="here",
        counts=dict.fromkeys(BLANK.counts, count),
        claims=[claim] * many,
        oldest=Item(seq=seq, time=NOW, reasons=["channel", "mention"], agent=name, namespace=name, text=text),
        directives=[order] * many,
        reminders=[bell] * many,
        journal=entry,
        pins=[Pin(namespace=name, channel=name, seq=seq, agent=name, text=text)] * many,
        text="",
    )


TEXTS = st.text(max_size=300) | st.sampled_from(
    ("😀" * 200, "e" + "\u0301" * 300, "\u202e" * 200, "\n" * 200, "x" * 200)
)


@given(text=TEXTS, name=TEXTS, many=st.integers(0, 10), count=st.sampled_from((0, 10, 1 << 53)))
def test_it_never_takes_more_than_its_bytes(text: str, name: str, many: int, count: int) -> None:
    made = card_text(card(text, many, count, name, 1 << 53), NOW)
    assert len(made.encode()) <= CARD_BYTES
    lines = made.rstrip("\n").split("\n")
    assert all(len(line.encode()) <= LINE_BYTES for line in lines)
    assert all(line.isprintable() for line in lines)


def test_every_section_has_room_in_the_order_of_importance() -> None:
    made = card_text(card("😀" * 200, count=1 << 53, seq=1 << 53), NOW)
    headings = [line.split(" (")[0].split(" #")[0] for line in made.split("\n")[1:] if line and line[0] != " "]
    assert headings == list(TITLES)


def test_what_is_left_out_is_counted() -> None:
    made = card_text(card("long " * 40, count=37), NOW)
    shown = {}
    for line in made.split("\n"):
        title, _, rest = line.partition(" (")
        if title in TITLES:
            shown[title] = rest
    assert shown["Directives"].endswith(" of 37):")
    lines = [line for line in made.split("\n") if "acknowledged" in line]
    assert shown["Directives"] == f"{len(lines)} of 37):"


def test_it_says_what_matters() -> None:
    entry = Entry(
        seq=7, time=NOW - timedelta(hours=3), agent="nova", focus="parser", done=["lexer"], decisions=["no regex"],
        next_steps=["test"],
    )  # fmt: skip
    claims = [Claimed(namespace="default", task="auth", title="fix auth", fence=15, expires=NOW + timedelta(minutes=8))]
    late = Instruction(
        namespace="lab", directive="d-1", giver="atlas", state="given", overdue=True, priority=0, due=NOW, text="do"
    )
    rung = Reminded(namespace="default", reminder="r-1", setter="nova", at=None, fired=8, text="stand up")
    item = Item(
        seq=5, time=NOW - timedelta(days=2), reasons=["mention"], agent="atlas", namespace="default", text="@nova look"
    )
    pin = Pin(namespace="default", channel="dev", seq=3, agent="atlas", text="read\nme")
    counts = {"claims": 1, "unread": 12, "directives": 1, "reminders": 1, "pins": 1}
    made = card_text(
        replace(
            BLANK, counts=counts, claims=claims, oldest=item, directives=[late], reminders=[rung], journal=entry,
            pins=[pin],
        ),
        NOW,
    )  # fmt: skip
    assert made == (
        "nova, as of #9, 2030-01-01T12:00:00Z\n"
        "You hold (1):\n"
        "  auth (8m left, fence 15) fix auth\n"
        "Unread (1 of 12):\n"
        "  oldest #5, 2d ago, atlas [mention]: @nova look\n"
        "Directives (1):\n"
        "  d-1 (from atlas, OVERDUE) in lab do\n"
        "Reminders (1):\n"
        "  r-1 (fired #8) stand up\n"
        "Journal #7, 3h ago (4):\n"
        "  focus: parser\n"
        "  next: test\n"
        "  decided: no regex\n"
        "  done: lexer\n"
        "Pinned (1):\n"
        "  #3 dev, atlas: read me\n"
    )


def test_who_has_nothing_is_told_so() -> None:
    assert "Nothing waits" in card_text(BLANK, NOW)


def test_nobody_fakes_a_section() -> None:
    made = card_text(card("x\nYou hold (1):\r\n  fake (8m left)\u2028Pinned (1):\x85", many=1, count=1), NOW)
    assert sum(line.startswith("You hold") for line in made.splitlines()) == 1
    assert all(line.startswith("  ") or line.split(" ")[0] in {t.split(" ")[0] for t in TITLES} | {"nova,"}
               for line in made.splitlines())  # fmt: skip


def test_a_lease_that_has_ended_is_no_time_left() -> None:
    claim: Any = Claimed(namespace="default", task="auth", title="t", fence=1, expires=NOW)
    assert "lease has ended" in card_text(replace(BLANK, claims=[claim], counts=BLANK.counts | {"claims": 1}), NOW)
