"""Reminders: when they fire, how often, what cannot be set, and who may cancel them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain import recurrence
from bus.domain.agent import Deactivate
from bus.domain.reminder import (
    Cancel,
    Reminder,
    ReminderCancelled,
    ReminderFired,
    ReminderSet,
    Set,
    fire,
)
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.subjects import SYSTEM
from tests.unit.stage import START, Stage

YEAR_S = 365 * 86_400


def reminder(stage: Stage, key: str = "r") -> Reminder:
    known = stage.state(Reminder, key)
    assert isinstance(known, Reminder)
    return known


def fired(stage: Stage, key: str = "r") -> ReminderFired:
    """What its passed deadline calls for, once it has happened."""
    (emit,) = fire(reminder(stage, key), key, stage.now)
    assert emit.agent == SYSTEM
    assert isinstance(emit.fact, ReminderFired)
    stage.given(SYSTEM, key, emit.fact)
    return emit.fact


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[arg-type]


# --- setting ------------------------------------------------------------------------------------------------------


def test_it_is_set_for_a_time_or_in_a_while(stage: Stage) -> None:
    at = datetime.fromisoformat("2030-01-01T14:30:00+02:00")
    set_ = ReminderSet(to="atlas", text="stand up", at=utc(2030, 1, 1, 12, 30))
    assert stage.facts("atlas", Set(text="stand up", at=at)) == [("r-1", set_)]
    reply = stage.do("atlas", Set(text="stand up", in_s=20))
    assert (reply.seq, reply.reminder, reply.to, reply.at) == (stage.seq, "r-2", "atlas", stage.at(20))


def test_another_agent_is_reminded(stage: Stage) -> None:
    stage.do("atlas", Set(text="x", in_s=1, to="nova", reminder="r"))
    assert (reminder(stage).setter, reminder(stage).agent) == ("atlas", "nova")
    stage.refused("atlas", Set(text="x", in_s=1, to="zoe"), "not_found", NotFound)
    stage.do("olga", Deactivate(agent="nova"))
    stage.refused("atlas", Set(text="x", in_s=1, to="nova"), "inactive")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "when"),
        ({"in_s": 5, "every": "1h"}, "when"),
        ({"at": START + timedelta(hours=1), "in_s": 5}, "when"),
        ({"at": START + timedelta(hours=1), "in_s": 5, "every": "1h"}, "when"),
        ({"in_s": 5, "timezone": "Europe/Berlin"}, "when"),
        ({"timezone": "Europe/Berlin"}, "when"),
        ({"at": START}, "past"),
        ({"at": START - timedelta(seconds=1)}, "past"),
        ({"at": datetime(1, 1, 1, tzinfo=UTC)}, "past"),
        ({"at": START + timedelta(days=3653)}, "too_far"),
        ({"at": START + recurrence.HORIZON + timedelta(seconds=1)}, "too_far"),
        ({"at": datetime(9999, 12, 31, 23, 59, tzinfo=UTC)}, "too_far"),
        ({"in_s": 10 * YEAR_S}, "too_far"),
        ({"in_s": 1 << 40}, "too_far"),
        ({"every": "59s"}, "bad_every"),
        ({"every": "0"}, "bad_every"),
        ({"every": "10 years"}, "bad_every"),
        ({"every": "6000d"}, "bad_every"),
        ({"every": "9" * 150 + "d"}, "bad_every"),
        ({"every": "-5m"}, "bad_every"),
        ({"every": "1h", "timezone": "Europe/Berlin"}, "bad_every"),
        ({"every": "tomorrow"}, "bad_every"),
        ({"every": "@daily"}, "bad_every"),
        ({"every": "* * * *"}, "bad_every"),
        ({"every": "* * * * * *"}, "bad_every"),
        ({"every": "61 * * * *"}, "bad_every"),
        ({"every": "* * * * MOO"}, "bad_every"),
        ({"every": "*/0 * * * *"}, "bad_every"),
        ({"every": "L L L L L"}, "bad_every"),
        ({"every": "'; drop table--"}, "bad_every"),
        ({"every": "\0 \0 \0 \0 \0"}, "bad_every"),
        ({"every": "0 0 30 2 *"}, "bad_every"),
        ({"every": "0 9 * * *", "timezone": "Mars/Olympus"}, "bad_every"),
        ({"every": "0 9 * * *", "timezone": "../../etc/passwd"}, "bad_every"),
        ({"every": "0 9 * * *", "timezone": "/etc/localtime"}, "bad_every"),
        ({"every": "0 9 * * *", "timezone": "Europe"}, "bad_every"),
        ({"every": "0 0 29 2 MON#5"}, None),
        ({"every": "60"}, None),
        ({"every": " 1h30m "}, None),
        ({"every": "*/5 9-17 * JAN,FEB MON-FRI", "timezone": "Europe/Berlin"}, None),
        ({"at": START + recurrence.HORIZON}, None),
    ],
)
def test_when_it_can_fire(stage: Stage, fields: dict[str, object], code: str | None) -> None:
    request = Set(text="x", **fields)  # type: ignore[arg-type]
    if code is None:
        assert stage.do("atlas", request).at > stage.now
    else:
        stage.refused("atlas", request, code, InvalidRequest)


def test_a_reminder_has_a_text_and_an_id_of_its_own(stage: Stage) -> None:
    stage.refused("atlas", Set(text=" ", in_s=1), "no_text", InvalidRequest)
    stage.do("atlas", Set(text="x", in_s=1, reminder="r"))
    stage.refused("nova", Set(text="x", in_s=1, reminder="r"), "exists", Refused)


# --- firing -------------------------------------------------------------------------------------------------------


def test_it_fires_once(stage: Stage) -> None:
    stage.do("atlas", Set(text="stand up", in_s=20, to="nova", reminder="r"))
    due = stage.at(20)
    assert list(stage.view.due(stage.at(19.999))) == []
    stage.pass_s(20)
    assert [key for *_, key in stage.view.due(stage.now)] == ["r"]
    assert fired(stage) == ReminderFired(to="nova", text="stand up", at=due)
    assert (reminder(stage).state, reminder(stage).due, reminder(stage).fired) == ("done", None, stage.seq)
    assert list(stage.view.due(stage.at(1e9))) == []
    assert list(fire(reminder(stage), "r", stage.at(1e9))) == []


def test_a_second_firing_for_the_same_time_changes_nothing(stage: Stage) -> None:
    stage.do("atlas", Set(text="x", every="1m", reminder="r"))
    stage.pass_s(60)
    fact = fired(stage)
    after = reminder(stage)
    stage.given(SYSTEM, "r", fact)
    assert reminder(stage) is after


def test_what_was_missed_fires_once_and_goes_on_from_now(stage: Stage) -> None:
    stage.do("atlas", Set(text="x", every="1h", reminder="r"))
    assert reminder(stage).due == START + timedelta(hours=1)
    stage.pass_s(5.5 * 3600)
    fact = fired(stage)
    assert (fact.at, fact.next) == (START + timedelta(hours=1), START + timedelta(hours=6))
    assert reminder(stage).due == START + timedelta(hours=6), "it keeps its beat"
    assert list(fire(reminder(stage), "r", stage.now)) == []
    stage.pass_s(1800)
    assert fired(stage).next == START + timedelta(hours=7), "exactly at the time counts as due"


def test_a_cron_expression_is_read_in_its_zone(stage: Stage) -> None:
    nine = {"text": "x", "every": "0 9 * * *"}
    assert stage.do("atlas", Set(**nine)).at == utc(2030, 1, 2, 9)  # type: ignore[arg-type]
    berlin = Set(**nine, timezone="Europe/Berlin", reminder="r")  # type: ignore[arg-type]
    assert stage.do("atlas", berlin).at == utc(2030, 1, 2, 8)
    stage.now = utc(2030, 7, 1, 12)
    assert fired(stage).next == utc(2030, 7, 2, 7), "in summer it is another hour of UTC"


def test_the_next_time_is_later_than_now_when_clocks_are_set_back() -> None:
    # 27 October 2030, 03:00 in Berlin becomes 02:00 again; at ten past the second two it has been half past two once.
    now = utc(2030, 10, 27, 1, 10)
    following = recurrence.following("30 2 * * *", "Europe/Berlin", now, now)
    assert following is not None
    assert following > now


@given(
    every=st.text(max_size=12) | st.from_regex(r"([0-9*/,LW#-]{1,4} ){4}[0-9*/,L#A-Z-]{1,4}", fullmatch=True),
    zone=st.sampled_from(("", "Europe/Berlin", "Asia/Kolkata", "nowhere")),
    s=st.integers(0, 10**8),
    late=st.integers(0, 10**6),
)
def test_whatever_a_recurrence_is_the_next_time_is_after_now(every: str, zone: str, s: int, late: int) -> None:
    at = START + timedelta(seconds=s)
    now = at + timedelta(seconds=late)
    following = recurrence.following(every, zone, at, now)
    assert following is None or following > now


def test_a_recurrence_that_makes_no_sense_ends(stage: Stage) -> None:
    stage.given("x", "r", ReminderSet(to="nova", text="x", at=stage.now, every="nonsense", timezone="nowhere"))
    assert fired(stage).next is None
    assert reminder(stage).state == "done"


# --- cancelling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["atlas", "nova", "olga"])
def test_who_set_it_whom_it_reminds_and_an_owner_cancel_it(stage: Stage, name: str) -> None:
    stage.do("atlas", Set(text="x", in_s=20, to="nova", reminder="r"))
    stage.refused("iris", Cancel(reminder="r"), "not_allowed", NotAllowed)
    assert stage.facts(name, Cancel(reminder="r", reason="done")) == [("r", ReminderCancelled(reason="done"))]
    first = stage.do(name, Cancel(reminder="r"))
    assert (first.to, first.at, reminder(stage).state) == ("nova", None, "cancelled")
    assert stage.do(name, Cancel(reminder="r")) == first
    assert list(stage.view.due(stage.at(99))) == []


def test_what_has_fired_cannot_be_cancelled(stage: Stage) -> None:
    stage.refused("atlas", Cancel(reminder="r"), "not_found", NotFound)
    stage.do("atlas", Set(text="x", in_s=20, reminder="r"))
    stage.pass_s(20)
    fired(stage)
    stage.refused("atlas", Cancel(reminder="r"), "state")


def test_what_fires_again_can_be_cancelled_in_between(stage: Stage) -> None:
    stage.do("atlas", Set(text="x", every="1m", reminder="r"))
    stage.pass_s(60)
    fired(stage)
    stage.do("atlas", Cancel(reminder="r"))
    assert (reminder(stage).state, reminder(stage).due) == ("cancelled", None)
