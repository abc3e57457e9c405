"""Inboxes: what was shown, what may be acknowledged, and marks that never go back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bus.domain.inbox import Ack, Inbox, InboxAcked, InboxShown, Show
from bus.subjects import TENANT
from tests.unit.stage import Stage


def inbox(stage: Stage) -> Inbox:
    known = stage.state(Inbox, "atlas", TENANT)
    assert isinstance(known, Inbox)
    return known


def test_showing_records_what_was_not_shown_before(stage: Stage) -> None:
    assert stage.facts("atlas", Show(upto=5, seqs=(3, 5))) == [("atlas", InboxShown(upto=5, seqs=(3, 5)))]
    reply = stage.do("atlas", Show(upto=5, seqs=(3, 5)))
    assert (reply.seq, reply.upto) == (stage.seq, 5)
    assert stage.facts("atlas", Show(upto=5, seqs=(3, 5))) == []
    assert stage.facts("atlas", Show(upto=7, seqs=(5, 7))) == [("atlas", InboxShown(upto=7, seqs=(7,)))]
    assert stage.facts("atlas", Show(upto=9, seqs=())) == []


def test_nothing_counts_as_shown_beyond_the_last_item(stage: Stage) -> None:
    assert stage.facts("atlas", Show(upto=9, seqs=(3, 5))) == [("atlas", InboxShown(upto=5, seqs=(3, 5)))]


def test_a_reading_that_left_something_out_does_not_move_the_mark(stage: Stage) -> None:
    stage.do("atlas", Show(upto=5, seqs=(5,)))
    # Everything up to 8 was left out, so acknowledging up to 9 must stay impossible.
    reply = stage.do("atlas", Show(upto=9, seqs=(9,), start=8))
    assert reply.upto == 5
    stage.refused("atlas", Ack(upto=9), "not_shown")
    assert stage.do("atlas", Show(upto=9, seqs=(7, 9), start=5)).upto == 9
    stage.do("atlas", Ack(upto=9))


def test_acknowledging_stops_at_what_was_shown(stage: Stage) -> None:
    stage.refused("atlas", Ack(upto=1), "not_shown")
    stage.do("atlas", Show(upto=5, seqs=(3, 5)))
    error = stage.refused("atlas", Ack(upto=6), "not_shown")
    assert (error.problem.expected, error.problem.found) == ("at most 5", "6")
    assert stage.facts("atlas", Ack(upto=3)) == [("atlas", InboxAcked(upto=3))]
    assert stage.do("atlas", Ack(upto=5)).upto == 5
    assert inbox(stage) == Inbox(shown=5, acked=5)
    again = stage.do("atlas", Ack(upto=4))
    assert (again.seq, again.upto) == (stage.seq, 5)


def test_inboxes_belong_to_one_agent_each(stage: Stage) -> None:
    stage.do("atlas", Show(upto=5, seqs=(5,)))
    stage.refused("nova", Ack(upto=5), "not_shown")


def test_marks_that_make_no_sense_leave_the_very_same_state(stage: Stage) -> None:
    stage.given("atlas", "atlas", InboxAcked(upto=3), TENANT)
    assert stage.state(Inbox, "atlas", TENANT) is None
    stage.do("atlas", Show(upto=5, seqs=(5,)))
    stage.do("atlas", Ack(upto=4))
    before = inbox(stage)
    for fact in (InboxShown(upto=5), InboxShown(upto=1), InboxAcked(upto=4), InboxAcked(upto=6), InboxAcked(upto=0)):
        stage.given("atlas", "atlas", fact, TENANT)
        assert inbox(stage) is before


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=30))
def test_marks_never_go_back_and_never_cross(steps: list[tuple[bool, int]]) -> None:
    stage = Stage()
    shown = acked = 0
    for is_show, upto in steps:
        stage.given("atlas", "atlas", InboxShown(upto=upto) if is_show else InboxAcked(upto=upto), TENANT)
        after = stage.state(Inbox, "atlas", TENANT) or Inbox()
        assert after.shown >= shown
        assert after.acked >= acked
        assert after.acked <= after.shown
        shown, acked = after.shown, after.acked
