"""Handing a task on: an offer that is accepted or declined, a hand-off at once, and who may do it to whom."""

from __future__ import annotations

from bus.domain import task_requests as ask
from bus.domain.agent import Deactivate
from bus.domain.task import TaskDeclined, TaskHandedOff, TaskOffered
from bus.errors import InvalidRequest, NotFound
from tests.unit.stage import Stage
from tests.unit.tasks import CAP_S, claimed, task


def test_an_offer_leaves_the_task_with_its_holder_until_it_is_accepted(stage: Stage) -> None:
    fence = claimed(stage, lease_s=300)
    offer = ask.Handoff(task="T", to="iris", notes="half done", refs=(1,))
    assert stage.facts("nova", offer) == [("T", TaskOffered(to="iris", notes="half done", refs=(1,)))]
    assert stage.do("nova", offer).state == "claimed"
    assert (task(stage).owner, task(stage).offered_to, task(stage).fence) == ("nova", "iris", fence)
    stage.refused("atlas", ask.Accept(task="T"), "not_offered")
    stage.pass_s(10)
    reply = stage.do("iris", ask.Accept(task="T"))
    known = task(stage)
    assert (known.owner, known.fence, known.offered_to, known.notes) == ("iris", stage.seq, None, "half done")
    assert (reply.fence, reply.expires) == (stage.seq, stage.at(300))
    assert (known.until, known.refs) == (stage.at(CAP_S), {1})
    stage.refused("iris", ask.Accept(task="T"), "not_offered")
    stage.refused("nova", ask.Complete(task="T", fence=fence), "stale_fence")


def test_an_accepted_lease_may_have_another_length(stage: Stage) -> None:
    claimed(stage)
    stage.do("nova", ask.Handoff(task="T", to="iris"))
    assert stage.do("iris", ask.Accept(task="T", lease_s=60)).expires == stage.at(60)


def test_an_offer_can_be_declined_and_made_to_somebody_else(stage: Stage) -> None:
    fence = claimed(stage)
    stage.refused("iris", ask.Decline(task="T"), "not_offered")
    stage.do("nova", ask.Handoff(task="T", to="iris"))
    assert stage.facts("iris", ask.Decline(task="T", reason="busy")) == [("T", TaskDeclined(reason="busy"))]
    assert stage.do("iris", ask.Decline(task="T", reason="busy")).state == "claimed"
    assert (task(stage).owner, task(stage).fence, task(stage).offered_to) == ("nova", fence, None)
    stage.refused("iris", ask.Accept(task="T"), "not_offered")
    stage.do("nova", ask.Handoff(task="T", to="iris"))
    stage.do("nova", ask.Handoff(task="T", to="atlas"))
    error = stage.refused("iris", ask.Accept(task="T"), "not_offered")
    assert error.problem.found == "offered to atlas"


def test_an_offer_ends_with_the_claim(stage: Stage) -> None:
    claimed(stage)
    stage.do("nova", ask.Handoff(task="T", to="iris"))
    stage.pass_s(600)
    stage.refused("iris", ask.Accept(task="T"), "not_offered")
    stage.refused("iris", ask.Decline(task="T"), "not_offered")


def test_a_direct_hand_off_is_one_event(stage: Stage) -> None:
    fence = claimed(stage)
    request = ask.Handoff(task="T", to="iris", direct=True, notes="n", refs=(1, 2), lease_s=60)
    ((_, fact),) = stage.facts("nova", request)
    assert fact == TaskHandedOff(
        frm="nova", to="iris", lease_s=60, expires=stage.at(60), until=stage.at(CAP_S), notes="n", refs=(1, 2)
    )
    assert stage.do("nova", request).state == "claimed"
    known = task(stage)
    assert (known.owner, known.fence, known.notes, known.refs) == ("iris", stage.seq, "n", {1, 2})
    assert known.fence != fence
    stage.refused("nova", ask.Complete(task="T"), "not_holder")
    stage.do("iris", ask.Complete(task="T"))


def test_who_can_hand_off_what_to_whom(stage: Stage) -> None:
    claimed(stage)
    stage.refused("atlas", ask.Handoff(task="T", to="iris"), "not_holder")
    stage.refused("nova", ask.Handoff(task="T", to="nova"), "same_agent", InvalidRequest)
    for direct in (False, True):
        stage.refused("nova", ask.Handoff(task="T", to="ghost", direct=direct), "not_found", NotFound)
        stage.refused("nova", ask.Handoff(task="T", to="nova", direct=direct), "same_agent", InvalidRequest)
    stage.do("olga", Deactivate(agent="iris"))
    for direct in (False, True):
        error = stage.refused("nova", ask.Handoff(task="T", to="iris", direct=direct), "inactive")
        assert error.problem.entity == "agent iris"
    assert task(stage).owner == "nova"
