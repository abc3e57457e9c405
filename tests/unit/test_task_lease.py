"""Leases and fences: renewing, the cap, overdue leases, stale writes, and what a write under a fence renews."""

from __future__ import annotations

from typing import Any

import pytest

from bus.domain import task_requests as ask
from bus.domain.agent import Update
from bus.domain.channel import ChannelOpened, ChannelPosted, Post
from bus.domain.task import (
    Task,
    TaskAmended,
    TaskCancelled,
    TaskClaimed,
    TaskCompleted,
    TaskExpired,
    TaskOffered,
    TaskRenewed,
)
from bus.domain.task_claims import expire
from bus.errors import InvalidRequest, NotAllowed, NotFound
from bus.model import Limits
from bus.subjects import SYSTEM
from tests.unit.stage import Stage
from tests.unit.tasks import task


@pytest.fixture
def fence(stage: Stage) -> int:
    """atlas opened T and N, and nova holds T for 600 s."""
    stage.do("atlas", ask.Open(title="fix auth", task="T"))
    stage.do("atlas", ask.Open(title="first", task="N"))
    stage.given("atlas", "dev", ChannelOpened())
    seq = stage.do("nova", ask.Claim(task="T", lease_s=600)).fence
    assert isinstance(seq, int)
    return seq


# --- renew --------------------------------------------------------------------------------------------------------


def test_renewing_makes_the_lease_end_later(stage: Stage, fence: int) -> None:
    stage.pass_s(100)
    renewed = TaskRenewed(fence=fence, expires=stage.at(600), lease_s=600)
    assert stage.facts("nova", ask.Renew(task="T")) == [("T", renewed)]
    reply = stage.do("nova", ask.Renew(task="T"))
    assert (reply.seq, reply.fence, reply.expires) == (stage.seq, fence, stage.at(600))
    assert (task(stage).fence, task(stage).expires) == (fence, stage.at(600))


def test_renewing_for_another_time_changes_what_later_renewals_bring(stage: Stage, fence: int) -> None:
    assert stage.do("nova", ask.Renew(task="T", lease_s=1000)).expires == stage.at(1000)
    assert task(stage).lease_s == 1000


def test_renewing_never_shortens_a_lease(stage: Stage, fence: int) -> None:
    assert stage.facts("nova", ask.Renew(task="T", lease_s=10)) == []
    reply = stage.do("nova", ask.Renew(task="T"))
    assert (reply.seq, reply.fence, reply.expires) == (fence, fence, stage.at(600))


def test_only_the_holder_renews(stage: Stage, fence: int) -> None:
    stage.refused("iris", ask.Renew(task="T"), "not_holder")
    stage.refused("iris", ask.Renew(task="N"), "not_holder")
    stage.refused("iris", ask.Renew(task="ghost"), "not_found", NotFound)


def test_a_claim_has_a_cap() -> None:
    stage = Stage(Limits(lease_cap_s=1000))
    stage.do("atlas", ask.Open(title="x", task="T"))
    assert stage.do("nova", ask.Claim(task="T", lease_s=600)).expires == stage.at(600)
    stage.pass_s(500)
    assert stage.do("nova", ask.Renew(task="T")).expires == stage.at(500)
    stage.pass_s(100)
    error = stage.refused("nova", ask.Renew(task="T"), "lease_cap")
    assert "2030-01-01T12:16:40Z" in str(error)
    post = Post(channel="dev", text="x", fence=f"T:{task(stage).fence}")
    stage.given("atlas", "dev", ChannelOpened())
    assert [fact.type for _, fact in stage.facts("nova", post)] == ["channel.posted"]
    stage.pass_s(400)
    stage.refused("nova", ask.Renew(task="T"), "not_holder")
    stage.do("nova", ask.Claim(task="T"))


def test_a_claim_that_says_nothing_lasts_as_the_settings_say() -> None:
    stage = Stage(Limits(lease_default_s=42))
    stage.do("lead", ask.Open(title="work", task="T"))
    assert stage.do("nova", ask.Claim(task="T")).expires == stage.at(42)


def test_a_lease_longer_than_the_cap_is_cut(stage: Stage) -> None:
    stage = Stage(Limits(lease_cap_s=10))
    stage.do("atlas", ask.Open(title="x", task="T"))
    assert stage.do("nova", ask.Claim(task="T", lease_s=600)).expires == stage.at(10)


# --- overdue ------------------------------------------------------------------------------------------------------


def test_the_deadline_of_a_claim_is_its_expiry_and_the_event_follows_from_it(stage: Stage, fence: int) -> None:
    assert list(stage.view.due(stage.at(599.9))) == []
    assert list(stage.view.due(stage.at(600))) == [(Task, "default", "T")]
    assert list(expire(task(stage), "T", stage.at(599))) == []
    (emit,) = expire(task(stage), "T", stage.at(600))
    assert (emit.entity, emit.fact, emit.agent) == ("T", TaskExpired(owner="nova", fence=fence), SYSTEM)


def test_an_expired_task_is_open_again(stage: Stage, fence: int) -> None:
    stage.pass_s(600)
    stage.given(SYSTEM, "T", TaskExpired(owner="nova", fence=fence))
    assert (task(stage).state, task(stage).owner, task(stage).fence) == ("open", None, None)
    assert list(stage.view.due(stage.at(9999))) == []
    error = stage.refused("nova", ask.Complete(task="T"), "not_holder")
    assert error.problem.found == "open"


def test_a_claim_of_an_overdue_task_brings_the_expiry_in_the_same_batch(stage: Stage, fence: int) -> None:
    stage.pass_s(600)
    decision = stage.decide("iris", ask.Claim(task="T", lease_s=60))
    assert isinstance(decision, list)
    claimed = TaskClaimed(lease_s=60, expires=stage.at(60), until=stage.at(86_400))
    assert [(emit.agent, emit.fact) for emit in decision] == [
        (SYSTEM, TaskExpired(owner="nova", fence=fence)),
        (None, claimed),
    ]
    reply = stage.do("iris", ask.Claim(task="T", lease_s=60))
    assert (reply.seq, reply.fence, task(stage).owner) == (stage.seq, stage.seq, "iris")


def test_a_microsecond_before_it_is_not_overdue(stage: Stage, fence: int) -> None:
    stage.pass_s(599.999999)
    stage.refused("iris", ask.Claim(task="T"), "claimed")
    assert stage.facts("nova", ask.Complete(task="T")) == [("T", TaskCompleted())]


def test_the_old_owner_is_told_that_the_lease_has_ended(stage: Stage, fence: int) -> None:
    stage.pass_s(600)
    for request in (ask.Complete(task="T"), ask.Renew(task="T"), ask.Release(task="T"), ask.Fail(task="T")):
        error = stage.refused("nova", request, "not_holder")
        assert error.problem.found == "a lease that ended at 2030-01-01T12:10:00Z"
    assert stage.facts("nova", ask.Claim(task="T"))[1][1].type == "task.claimed"


def test_amending_and_cancelling_meet_an_overdue_lease_too(stage: Stage, fence: int) -> None:
    stage.pass_s(600)
    expired = ("T", TaskExpired(owner="nova", fence=fence))
    assert stage.facts("atlas", ask.Amend(task="T", title="x")) == [expired, ("T", TaskAmended(title="x"))]
    assert stage.facts("atlas", ask.Cancel(task="T")) == [expired, ("T", TaskCancelled())]
    # The old holder has no say in it any more.
    stage.refused("nova", ask.Amend(task="T", title="x"), "not_allowed", NotAllowed)
    # Nothing to amend, but the expiry is still to be recorded.
    reply = stage.do("atlas", ask.Amend(task="T", title="fix auth"))
    assert (reply.task, reply.state, reply.seq) == ("T", "open", stage.seq)


# --- fences -------------------------------------------------------------------------------------------------------


def fenced(seq: int) -> list[Any]:
    """A write of each kind under the fence `seq` of T."""
    return [
        Post(channel="dev", text="x", fence=f"T:{seq}"),
        ask.Complete(task="T", fence=seq),
        ask.Complete(task="T", fence=f"T:{seq}"),
        ask.Renew(task="T", fence=seq),
        ask.Open(title="sub", fence=f"T:{seq}"),
        Update(model="m", fence=f"T:{seq}"),
    ]


def test_a_write_under_the_present_fence_passes(stage: Stage, fence: int) -> None:
    stage.pass_s(1)
    for request in fenced(fence):
        assert stage.facts("nova", request) != []


def test_a_write_under_a_stale_fence_is_refused_and_says_who_holds_the_task(stage: Stage, fence: int) -> None:
    stage.pass_s(600)
    now = stage.do("iris", ask.Claim(task="T")).fence
    for request in fenced(fence):
        error = stage.refused("nova", request, "stale_fence")
        assert error.details == {"owner": "iris", "state": "claimed", "fence": now}
        assert f"held by iris under fence {now}" in str(error)


def test_a_fence_is_stale_once_the_lease_is_overdue_the_task_is_done_or_somebody_else_writes(
    stage: Stage, fence: int
) -> None:
    post = Post(channel="dev", text="x", fence=f"T:{fence}")
    stage.refused("iris", post, "stale_fence")
    stage.pass_s(600)
    error = stage.refused("nova", post, "stale_fence")
    assert "a lease that ended at" in str(error)
    stage.do("nova", ask.Claim(task="T"))
    stage.refused("nova", post, "stale_fence")
    stage.do("nova", ask.Complete(task="T"))
    error = stage.refused("nova", post, "stale_fence")
    assert "the task is done" in str(error)


def test_a_fence_of_no_task(stage: Stage, fence: int) -> None:
    stage.refused("nova", Post(channel="dev", text="x", fence="ghost:1"), "not_found", NotFound)
    stage.refused("nova", Post(channel="dev", text="x", fence=fence), "bad_fence", InvalidRequest)
    stage.refused("nova", Post(channel="dev", text="x", fence=f"N:{fence}"), "stale_fence")
    # The fence belongs to a task of the namespace that is written to.
    stage.given("atlas", "dev", ChannelOpened(), "other")
    stage.refused("nova", Post(channel="dev", text="x", fence=f"T:{fence}", namespace="other"), "not_found", NotFound)


# --- what a write under a fence renews ----------------------------------------------------------------------------


def test_a_fenced_write_renews_when_a_third_of_the_lease_is_gone(stage: Stage, fence: int) -> None:
    post = Post(channel="dev", text="x", fence=f"T:{fence}")
    stage.pass_s(199.9)
    assert [fact.type for _, fact in stage.facts("nova", post)] == ["channel.posted"]
    stage.pass_s(0.1)
    renewed = TaskRenewed(fence=fence, expires=stage.at(600), lease_s=600)
    assert stage.facts("nova", post) == [("T", renewed), ("dev", ChannelPosted(text="x"))]
    reply = stage.do("nova", post)
    assert reply.seq == stage.seq
    assert task(stage).expires == stage.at(600)
    assert len(stage.facts("nova", post)) == 1


def test_what_keeps_the_claim_renews_it_and_what_ends_it_does_not(stage: Stage, fence: int) -> None:
    stage.pass_s(300)
    renewed = ("T", TaskRenewed(fence=fence, expires=stage.at(600), lease_s=600))
    amend = ask.Amend(task="T", title="x", fence=fence)
    assert stage.facts("nova", amend) == [renewed, ("T", TaskAmended(title="x"))]
    offer = ask.Handoff(task="T", to="iris", fence=fence)
    assert stage.facts("nova", offer) == [renewed, ("T", TaskOffered(to="iris"))]
    assert stage.facts("nova", ask.Renew(task="T", fence=fence)) == [renewed]
    ends = [
        ask.Complete(task="T", fence=fence),
        ask.Fail(task="T", fence=fence),
        ask.Release(task="T", fence=fence),
        ask.Handoff(task="T", to="iris", direct=True, fence=fence),
        ask.Cancel(task="T", fence=fence),
    ]
    for request in ends:
        assert len(stage.facts("nova", request)) == 1


def test_the_reply_is_about_the_task_that_was_asked_about_not_the_one_that_was_renewed(
    stage: Stage, fence: int
) -> None:
    stage.pass_s(300)
    under = f"T:{fence}"
    stage.do("nova", ask.Open(title="mine", task="M", fence=under))
    stage.pass_s(300)
    reply = stage.do("nova", ask.Amend(task="M", needs=("N",), fence=under))
    assert (reply.task, reply.state) == ("M", "open")
    stage.pass_s(300)
    assert stage.do("nova", ask.Claim(task="N", fence=under)).task == "N"
    stage.pass_s(300)
    reply = stage.do("nova", ask.Renew(task="N", fence=under))
    assert (reply.task, reply.fence) == ("N", task(stage, "N").fence)
    stage.pass_s(300)
    assert stage.do("nova", ask.Amend(task="T", title="y", fence=fence)).task == "T"
