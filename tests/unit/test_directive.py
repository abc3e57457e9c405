"""Directives: who they go to, who takes them on, what becomes of them, and when they fall due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bus.domain.agent import Deactivate, Update
from bus.domain.directive import (
    Acknowledge,
    Cancel,
    Complete,
    Decline,
    Directive,
    DirectiveAcknowledged,
    DirectiveCancelled,
    DirectiveCompleted,
    DirectiveDeclined,
    DirectiveFellDue,
    DirectiveGiven,
    Give,
)
from bus.domain.directive_decisions import FAMILY, overdue
from bus.domain.recurrence import HORIZON
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.model import Command
from bus.subjects import SYSTEM
from tests.unit.stage import Stage


def directive(stage: Stage, key: str = "d") -> Directive:
    known = stage.state(Directive, key)
    assert isinstance(known, Directive)
    return known


def given(stage: Stage, **fields: object) -> None:
    """atlas gives directive d, to nova if nothing else is said."""
    to = {} if "role" in fields else {"to": "nova"}
    stage.do("atlas", Give(text="run the tests", directive="d", **to, **fields))  # type: ignore[arg-type]


def to_reviewers(stage: Stage) -> None:
    """The same to the role of nova and iris, and of the giver."""
    for name in ("atlas", "nova", "iris"):
        stage.do(name, Update(roles=("reviewer",)))
    given(stage, role="reviewer")


# --- giving -------------------------------------------------------------------------------------------------------


def test_a_directive_says_who_is_to_do_what_until_when(stage: Stage) -> None:
    request = Give(text="run the tests", to="nova", priority=3, due=stage.at(60))
    fact = DirectiveGiven(to=("nova",), text="run the tests", priority=3, due=stage.at(60))
    assert stage.facts("atlas", request) == [("d-1", fact)]
    reply = stage.do("atlas", request)
    assert (reply.seq, reply.directive, reply.state, reply.to) == (stage.seq, "d-2", "given", ("nova",))
    known = directive(stage, "d-2")
    assert (known.giver, known.to, known.state, known.due) == ("atlas", {"nova"}, "given", stage.at(60))
    within = stage.do("atlas", Give(text="run the tests", to="nova", due_in_s=60))
    assert directive(stage, within.directive).due == stage.at(60)


def test_a_role_is_every_other_active_agent_that_has_it(stage: Stage) -> None:
    to_reviewers(stage)
    assert directive(stage).to == {"nova", "iris"}
    assert directive(stage).role == "reviewer"
    stage.do("iris", Deactivate(agent="iris"))
    later = stage.do("atlas", Give(text="again", role="reviewer"))
    assert later.to == ("nova",)


@pytest.mark.parametrize(
    ("request_", "code", "kind"),
    [
        (Give(text="x"), "addressee", InvalidRequest),
        (Give(text="x", to="nova", role="reviewer"), "addressee", InvalidRequest),
        (Give(text="x", to="atlas"), "same_agent", InvalidRequest),
        (Give(text="x", to="zoe"), "not_found", NotFound),
        (Give(text="x", to="iris"), "inactive", Refused),
        (Give(text="x", role="writer"), "nobody", NotFound),
        (Give(text=" \n", to="nova"), "no_text", InvalidRequest),
        (Give(text="x", to="nova", directive="d"), "exists", Refused),
        (Give(text="x", to="nova", due_in_s=1 << 40), "too_far", InvalidRequest),
    ],
)
def test_what_cannot_be_given(stage: Stage, request_: Give, code: str, kind: type[Refused]) -> None:
    given(stage)
    stage.do("olga", Deactivate(agent="iris"))
    stage.do("atlas", Update(roles=("writer",)))
    stage.refused("atlas", request_, code, kind)


def test_a_deadline_lies_ahead_and_within_reach(stage: Stage) -> None:
    for due, code in ((stage.now, "past"), (stage.now + HORIZON + timedelta(seconds=1), "too_far")):
        stage.refused("atlas", Give(text="x", to="nova", due=due), code, InvalidRequest)
    both = Give(text="x", to="nova", due=stage.at(9), due_in_s=9)
    stage.refused("atlas", both, "when", InvalidRequest)
    stage.do("atlas", Give(text="x", to="nova", due=stage.now + HORIZON))


# --- what becomes of it -------------------------------------------------------------------------------------------


def test_taking_on_and_completing(stage: Stage) -> None:
    given(stage)
    assert stage.facts("nova", Acknowledge(directive="d")) == [("d", DirectiveAcknowledged(giver="atlas"))]
    first = stage.do("nova", Acknowledge(directive="d"))
    assert (first.state, directive(stage).agent) == ("acknowledged", "nova")
    assert stage.do("nova", Acknowledge(directive="d")) == first, "once is enough"
    done = DirectiveCompleted(giver="atlas", result="all pass", refs=(3,))
    request = Complete(directive="d", result="all pass", refs=(3,))
    assert stage.facts("nova", request) == [("d", done)]
    assert stage.do("nova", request).state == "done"
    known = directive(stage)
    assert (known.state, known.result, known.refs, known.agent) == ("done", "all pass", {3}, "nova")


def test_completing_takes_on_what_nobody_had(stage: Stage) -> None:
    to_reviewers(stage)
    stage.do("iris", Complete(directive="d"))
    assert (directive(stage).state, directive(stage).agent) == ("done", "iris")


def test_the_first_of_a_role_has_it(stage: Stage) -> None:
    to_reviewers(stage)
    stage.do("nova", Acknowledge(directive="d"))
    for request in (Acknowledge(directive="d"), Complete(directive="d"), Decline(directive="d")):
        error = stage.refused("iris", request, "taken")
        assert error.details["agent"] == "nova"


def test_one_that_declines_leaves_it_to_the_others(stage: Stage) -> None:
    to_reviewers(stage)
    stage.do("nova", Acknowledge(directive="d"))
    declined = DirectiveDeclined(giver="atlas", reason="no time")
    assert stage.facts("nova", Decline(directive="d", reason="no time")) == [("d", declined)]
    assert stage.do("nova", Decline(directive="d", reason="no time")).state == "declined"
    assert (directive(stage).state, directive(stage).agent, directive(stage).to) == ("given", None, {"iris"})
    stage.refused("nova", Acknowledge(directive="d"), "not_addressed", NotAllowed)
    stage.do("iris", Decline(directive="d", reason="nor I"))
    assert (directive(stage).state, directive(stage).to, directive(stage).reason) == ("declined", frozenset(), "nor I")
    stage.refused("iris", Acknowledge(directive="d"), "state")


def test_the_giver_cancels(stage: Stage) -> None:
    to_reviewers(stage)
    cancelled = DirectiveCancelled(to=("iris", "nova"), reason="done already")
    assert stage.facts("atlas", Cancel(directive="d", reason="done already")) == [("d", cancelled)]
    stage.do("nova", Acknowledge(directive="d"))
    assert stage.facts("olga", Cancel(directive="d")) == [("d", DirectiveCancelled(to=("nova",)))]
    stage.refused("iris", Cancel(directive="d"), "not_allowed", NotAllowed)
    stage.refused("nova", Cancel(directive="d"), "not_allowed", NotAllowed)
    first = stage.do("atlas", Cancel(directive="d"))
    assert stage.do("atlas", Cancel(directive="d")) == first


@pytest.mark.parametrize("end", [Complete(directive="d"), Decline(directive="d"), Cancel(directive="d")])
def test_what_has_ended_stays_ended(stage: Stage, end: Command) -> None:
    given(stage, due=stage.at(5))
    stage.do("atlas" if isinstance(end, Cancel) else "nova", end)
    for request in (Acknowledge(directive="d"), Complete(directive="d"), Decline(directive="d")):
        stage.refused("nova", request, "state")
    if not isinstance(end, Cancel):
        stage.refused("atlas", Cancel(directive="d"), "state")
    assert list(stage.view.due(stage.at(9))) == []


def test_only_those_it_goes_to_say_what_becomes_of_it(stage: Stage) -> None:
    given(stage)
    for request in (Acknowledge(directive="d"), Complete(directive="d"), Decline(directive="d")):
        for name in ("iris", "atlas", "olga"):
            stage.refused(name, request, "not_addressed", NotAllowed)
        stage.refused("nova", request.__class__(directive="e"), "not_found", NotFound)
    stage.refused("atlas", Cancel(directive="e"), "not_found", NotFound)


# --- falling due --------------------------------------------------------------------------------------------------


def test_it_falls_due_once_and_can_still_be_done(stage: Stage) -> None:
    given(stage, due=stage.at(5))
    assert list(stage.view.due(stage.at(4.999))) == []
    assert [key for *_, key in stage.view.due(stage.at(5))] == ["d"]
    (emit,) = overdue(directive(stage), "d", stage.at(5))
    assert (emit.fact, emit.agent) == (DirectiveFellDue(giver="atlas", to=("nova",), due=stage.at(5)), SYSTEM)
    stage.given(SYSTEM, "d", emit.fact)
    assert directive(stage).overdue
    assert list(stage.view.due(stage.at(99))) == []
    stage.do("nova", Acknowledge(directive="d"))
    assert directive(stage).overdue
    stage.do("nova", Complete(directive="d"))
    assert not directive(stage).overdue


def test_only_the_one_that_took_it_on_is_told_that_it_is_late(stage: Stage) -> None:
    for name in ("nova", "iris"):
        stage.do(name, Update(roles=("reviewer",)))
    given(stage, role="reviewer", due=stage.at(5))
    stage.do("iris", Acknowledge(directive="d"))
    (emit,) = overdue(directive(stage), "d", stage.at(5))
    assert emit.fact == DirectiveFellDue(giver="atlas", to=("iris",), due=stage.at(5))


def test_what_makes_no_sense_leaves_the_very_same_state(stage: Stage) -> None:
    for fact in (DirectiveAcknowledged(giver="atlas"), DirectiveFellDue(giver="a", to=(), due=stage.now)):
        stage.given("nova", "d", fact)
        assert stage.state(Directive, "d") is None
    given(stage)
    before = directive(stage)
    stage.given("iris", "d", DirectiveAcknowledged(giver="atlas"))
    stage.given("iris", "d", DirectiveCompleted(giver="atlas"))
    stage.given("iris", "d", DirectiveDeclined(giver="atlas"))
    stage.given("atlas", "d", DirectiveGiven(to=("iris",), text="other"))
    assert directive(stage) is before
    stage.do("nova", Complete(directive="d"))
    ended = directive(stage)
    for late in (DirectiveAcknowledged(giver="atlas"), DirectiveCancelled(to=()), DirectiveDeclined(giver="atlas")):
        stage.given("nova", "d", late)
    assert directive(stage) is ended


def test_ending_is_always_possible() -> None:
    essential = {operation.name for operation in FAMILY.operations if operation.essential}
    assert essential == {"directive.complete", "directive.decline", "directive.cancel"}
