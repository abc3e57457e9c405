"""Tasks: opening, claiming and ending them; and every event that makes no sense."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bus.domain import task_requests as ask
from bus.domain.channel import ChannelOpened, ChannelPosted
from bus.domain.dm import DmPosted
from bus.domain.needs import NeedsLinked
from bus.domain.task import (
    Task,
    TaskAmended,
    TaskCancelled,
    TaskClaimed,
    TaskCompleted,
    TaskDeclined,
    TaskExpired,
    TaskFailed,
    TaskHandedOff,
    TaskOffered,
    TaskOpened,
    TaskReleased,
    TaskRenewed,
    TaskReopened,
    TaskRetried,
)
from bus.errors import InvalidRequest, NotAllowed, NotFound
from bus.events import Fact
from bus.subjects import SYSTEM, TENANT
from tests.unit.stage import Stage
from tests.unit.tasks import CAP_S, claimed, opened, task

# --- open ---------------------------------------------------------------------------------------------------------


def test_open_names_the_task_and_keeps_what_describes_it(stage: Stage) -> None:
    request = ask.Open(title="fix auth", body="b", priority=3, labels=("a", "b"), class_="code")
    reply = stage.do("atlas", request)
    assert (reply.task, reply.state, reply.seq) == ("t-1", "open", stage.seq)
    assert task(stage, "t-1") == Task(
        title="fix auth",
        opener="atlas",
        opened=stage.seq,
        body="b",
        priority=3,
        class_="code",
        labels=frozenset({"a", "b"}),
    )


def test_an_id_can_be_chosen_once(stage: Stage) -> None:
    opened(stage)
    stage.refused("nova", ask.Open(title="x", task="T"), "exists")
    assert stage.facts("nova", ask.Open(title="x", task="T", namespace="other")) != []


@pytest.mark.parametrize("title", ["", "  \n"])
def test_a_task_needs_a_title(stage: Stage, title: str) -> None:
    stage.refused("atlas", ask.Open(title=title), "no_title", InvalidRequest)


def test_a_message_becomes_a_task(stage: Stage) -> None:
    stage.given("atlas", "dev", ChannelOpened())
    message = stage.given("atlas", "dev", ChannelPosted(text="\n\nthe build is red\nsince noon"))
    whole = "the build is red\nsince noon"
    ((key, fact),) = stage.facts("nova", ask.Open(from_message=message))
    assert key == f"m-{message}"
    assert fact == TaskOpened(title="the build is red", body=whole, from_message=message, channel="dev")
    ((_, fact),) = stage.facts("nova", ask.Open(from_message=message, title="mine", body="b", task=key))
    assert fact == TaskOpened(title="mine", body="b", from_message=message, channel="dev")
    short = stage.given("atlas", "dev", ChannelPosted(text="one line\n"))
    ((_, fact),) = stage.facts("nova", ask.Open(from_message=short))
    assert fact == TaskOpened(title="one line", from_message=short, channel="dev")


def test_a_message_becomes_one_task_whoever_asks(stage: Stage) -> None:
    stage.given("atlas", "dev", ChannelOpened())
    message = stage.given("atlas", "dev", ChannelPosted(text="look"))
    first = stage.do("nova", ask.Open(from_message=message))
    again = stage.do("iris", ask.Open(from_message=message, title="another title", priority=9))
    assert again == first
    assert task(stage, first.task).opener == "nova"
    stage.do("iris", ask.Claim(task=first.task))
    assert stage.do("nova", ask.Open(from_message=message)).state == "claimed"


def test_the_place_of_a_messages_task_cannot_be_taken(stage: Stage) -> None:
    stage.given("atlas", "dev", ChannelOpened())
    message = stage.given("atlas", "dev", ChannelPosted(text="look"))
    stage.refused("nova", ask.Open(title="mine", task=f"m-{message}"), "reserved_id", InvalidRequest)
    stage.refused("nova", ask.Open(from_message=message, task="T"), "reserved_id", InvalidRequest)
    assert stage.facts("nova", ask.Open(title="mine", task="m-x")) != []
    # Somebody who may write to the log may take it nevertheless.
    stage.given("nova", f"m-{message}", TaskOpened(title="mine"))
    stage.refused("nova", ask.Open(from_message=message), "exists")


def test_only_channel_messages_become_tasks(stage: Stage) -> None:
    opening = stage.given("atlas", "dev", ChannelOpened())
    private = stage.given("atlas", "atlas+iris", DmPosted(text="a secret", to="iris"), TENANT)
    blank = stage.given("atlas", "dev", ChannelPosted(text=" \n"))
    elsewhere = stage.given("atlas", "dev", ChannelPosted(text="look"), "other")
    for seq in (opening, private, elsewhere, 999):
        error = stage.refused("nova", ask.Open(from_message=seq), "not_found", NotFound)
        assert "dm" not in str(error)
        assert "secret" not in str(error)
    stage.refused("nova", ask.Open(from_message=blank), "no_title", InvalidRequest)


def test_open_with_needs_links_them_in_the_same_batch(stage: Stage) -> None:
    opened(stage, "A")
    opened(stage, "B")
    request = ask.Open(title="c", task="C", needs=("B", "A", "B"))
    assert stage.facts("atlas", request) == [("C", TaskOpened(title="c")), ("C", NeedsLinked(needs=("A", "B")))]
    reply = stage.do("atlas", request)
    assert (reply.task, reply.state, reply.seq) == ("C", "open", stage.seq)
    stage.refused("atlas", ask.Open(title="d", needs=("ghost",)), "not_found", NotFound)
    stage.refused("atlas", ask.Open(title="d", task="D", needs=("D",)), "cycle")


# --- claim --------------------------------------------------------------------------------------------------------


def test_a_claim_holds_the_task_under_its_own_seq(stage: Stage) -> None:
    opened(stage, priority=2, labels=("x", "a"))
    reply = stage.do("nova", ask.Claim(task="T"))
    assert (reply.seq, reply.fence, reply.expires) == (stage.seq, stage.seq, stage.at(600))
    assert (reply.title, reply.labels, reply.priority) == ("fix auth", ("a", "x"), 2)
    known = task(stage)
    assert (known.state, known.owner, known.fence, known.attempts) == ("claimed", "nova", stage.seq, 1)
    assert (known.expires, known.until) == (stage.at(600), stage.at(CAP_S))


def test_a_claimed_task_is_refused_to_everybody_and_the_holder_is_named(stage: Stage) -> None:
    fence = claimed(stage)
    for who in ("atlas", "nova"):
        error = stage.refused(who, ask.Claim(task="T"), "claimed")
        assert error.details == {"owner": "nova", "fence": fence, "expires": stage.at(600).isoformat()}
        assert "held by nova" in str(error)
        assert "2030-01-01T12:10:00Z" in str(error)


def test_claiming_what_does_not_exist_or_has_ended(stage: Stage) -> None:
    stage.refused("nova", ask.Claim(task="T"), "not_found", NotFound)
    claimed(stage)
    stage.do("nova", ask.Complete(task="T"))
    error = stage.refused("iris", ask.Claim(task="T"), "state")
    assert error.problem.found == "done"


# --- how a claim ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "fact", "state"),
    [
        (ask.Release(task="T", reason="r"), TaskReleased(reason="r"), "open"),
        (ask.Complete(task="T", result="merged", refs=(1,)), TaskCompleted(result="merged", refs=(1,)), "done"),
        (ask.Fail(task="T", reason="r"), TaskFailed(reason="r"), "failed"),
        (ask.Fail(task="T", reason="r", retry=True), TaskFailed(reason="r", retry=True), "open"),
    ],
)
def test_only_the_holder_ends_a_claim(stage: Stage, request_: ask.Release, fact: Fact, state: str) -> None:
    fence = claimed(stage)
    error = stage.refused("atlas", request_, "not_holder")
    assert error.problem.found == f"held by nova under fence {fence}"
    assert stage.facts("nova", request_) == [("T", fact)]
    reply = stage.do("nova", request_)
    assert (reply.task, reply.state, reply.seq) == ("T", state, stage.seq)
    known = task(stage)
    assert (known.state, known.owner, known.fence, known.expires, known.until) == (state, None, None, None, None)
    stage.refused("nova", request_, "not_holder")


def test_a_result_is_kept_and_forgotten_when_the_task_is_reopened(stage: Stage) -> None:
    claimed(stage)
    stage.do("nova", ask.Complete(task="T", result="merged", refs=(2, 1)))
    assert (task(stage).result, task(stage).refs) == ("merged", {1, 2})
    reply = stage.do("iris", ask.Reopen(task="T", reason="it broke"))
    assert reply.state == "open"
    known = task(stage)
    assert (known.state, known.result, known.reason, known.attempts) == ("open", "", "it broke", 1)
    assert stage.do("iris", ask.Claim(task="T")).fence == stage.seq


def test_only_what_has_ended_is_reopened(stage: Stage) -> None:
    opened(stage)
    stage.refused("atlas", ask.Reopen(task="T"), "state")
    stage.do("nova", ask.Claim(task="T"))
    stage.refused("nova", ask.Reopen(task="T"), "claimed")
    stage.do("nova", ask.Fail(task="T"))
    assert stage.facts("iris", ask.Reopen(task="T")) == [("T", TaskReopened())]
    stage.refused("atlas", ask.Reopen(task="ghost"), "not_found", NotFound)


def test_cancelling_is_for_the_opener_the_holder_and_owners(stage: Stage) -> None:
    opened(stage)
    error = stage.refused("nova", ask.Cancel(task="T"), "not_allowed", NotAllowed)
    assert "atlas" in str(error)
    stage.do("nova", ask.Claim(task="T"))
    stage.refused("iris", ask.Cancel(task="T"), "not_allowed", NotAllowed)
    for who in ("atlas", "nova", "olga"):
        assert stage.facts(who, ask.Cancel(task="T", reason="r")) == [("T", TaskCancelled(reason="r", owner="nova"))]
    assert stage.do("atlas", ask.Cancel(task="T", reason="r")).state == "cancelled"
    assert (task(stage).state, task(stage).owner, task(stage).reason) == ("cancelled", None, "r")
    stage.refused("atlas", ask.Cancel(task="T"), "state")
    stage.refused("nova", ask.Complete(task="T"), "not_holder")


# --- events that make no sense ------------------------------------------------------------------------------------


def nonsense(stage: Stage, state: str) -> list[tuple[str, Fact]]:
    """(author, fact) that change nothing in a task that atlas opened and that is in `state` (nova holds it)."""
    lease = {"lease_s": 60, "expires": stage.at(60), "until": stage.at(99)}
    of_claim: list[tuple[str, Fact]] = [
        ("nova", TaskRenewed(fence=1, expires=stage.at(60), lease_s=60)),
        (SYSTEM, TaskExpired(owner="nova", fence=1)),
        ("iris", TaskDeclined()),
        (SYSTEM, TaskRetried()),
    ]
    of_holder: list[tuple[str, Fact]] = [
        ("nova", TaskReleased()),
        ("nova", TaskCompleted()),
        ("nova", TaskFailed()),
        ("nova", TaskOffered(to="iris")),
        ("nova", TaskHandedOff(frm="nova", to="iris", **lease)),
    ]
    ended: list[tuple[str, Fact]] = [("atlas", TaskCancelled()), ("iris", TaskClaimed(**lease))]
    always: list[tuple[str, Fact]] = [("iris", TaskOpened(title="again")), ("atlas", TaskAmended(title="fix auth"))]
    match state:
        case "open":
            return [*always, *of_claim, *of_holder, ("atlas", TaskReopened())]
        case "claimed":
            fence = task(stage).fence
            assert fence is not None
            others: list[tuple[str, Fact]] = [("iris", fact) for _, fact in of_holder]
            others[-1] = ("iris", TaskHandedOff(frm="iris", to="atlas", **lease))
            renewed = TaskRenewed(fence=fence, expires=stage.at(60), lease_s=60)
            return [*always, *of_claim, *others, ("iris", renewed), ended[1], ("atlas", TaskReopened())]
        case _:
            return [*always, *of_claim, *of_holder, *ended]


@pytest.mark.parametrize("state", ["open", "claimed", "done", "failed", "cancelled"])
def test_events_that_make_no_sense_leave_the_very_same_task(stage: Stage, state: str) -> None:
    opened(stage)
    if state != "open":
        stage.do("nova", ask.Claim(task="T", lease_s=60))
    ends = {"done": ask.Complete(task="T"), "failed": ask.Fail(task="T"), "cancelled": ask.Cancel(task="T")}
    if state in ends:
        stage.do("nova", ends[state])
    before = task(stage)
    assert before.state == state
    for author, fact in nonsense(stage, state):
        stage.given(author, "T", fact)
        assert task(stage) is before, f"{fact} by {author} changed a task that is {state}"


def test_an_event_about_no_task_makes_none(stage: Stage) -> None:
    stage.given("nova", "ghost", TaskCompleted())
    stage.given("nova", "ghost", TaskClaimed(lease_s=1, expires=stage.now, until=stage.now + timedelta(1)))
    assert stage.state(Task, "ghost") is None
