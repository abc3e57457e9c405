"""Failing and trying again: the retries of a task, the delay between them, and what ends them."""

from __future__ import annotations

import pytest

from bus.domain import task_requests as ask
from bus.domain.task import Task, TaskCancelled, TaskClaimed, TaskFailed, TaskRetried
from bus.errors import NotFound
from bus.subjects import SYSTEM
from tests.unit.stage import Stage
from tests.unit.tasks import task


def opened(stage: Stage, **policy: int) -> None:
    stage.do("atlas", ask.Open(title="deploy", task="T", **policy))  # type: ignore[arg-type]


def failed(stage: Stage, agent: str = "nova", retry: bool | None = None) -> ask.TaskReply:
    stage.do(agent, ask.Claim(task="T"))
    reply = stage.do(agent, ask.Fail(task="T", reason="no luck", retry=retry))
    assert isinstance(reply, ask.TaskReply)
    assert (reply.state, reply.retry_at) == (task(stage).state, task(stage).retry_at)
    return reply


def test_a_task_without_retries_fails_unless_its_holder_says_otherwise(stage: Stage) -> None:
    opened(stage)
    assert failed(stage).state == "failed"
    stage.do("atlas", ask.Reopen(task="T"))
    for _ in range(5):
        assert failed(stage, retry=True).state == "open"
    assert failed(stage, retry=False).state == "failed"


def test_a_task_is_tried_again_until_its_retries_are_used_up(stage: Stage) -> None:
    opened(stage, retries=2)
    assert [failed(stage).state for _ in range(3)] == ["open", "open", "failed"]
    assert (task(stage).failures, task(stage).attempts, task(stage).retries) == (3, 3, 2)
    assert task(stage).reason == "no luck"
    stage.refused("nova", ask.Claim(task="T"), "state")


def test_who_holds_it_can_give_up_but_not_add_retries(stage: Stage) -> None:
    opened(stage, retries=1)
    assert failed(stage, retry=True).state == "open"
    assert failed(stage, retry=True).state == "failed"
    stage.do("atlas", ask.Reopen(task="T"))
    assert failed(stage, retry=False).state == "failed"


def test_reopening_begins_anew(stage: Stage) -> None:
    opened(stage, retries=1)
    assert [failed(stage).state for _ in range(2)] == ["open", "failed"]
    stage.do("iris", ask.Reopen(task="T"))
    assert task(stage).failures == 0
    assert [failed(stage).state for _ in range(2)] == ["open", "failed"]


def test_releases_and_expiries_are_no_failures(stage: Stage) -> None:
    opened(stage, retries=1)
    stage.do("nova", ask.Claim(task="T", lease_s=10))
    stage.do("nova", ask.Release(task="T"))
    stage.do("nova", ask.Claim(task="T", lease_s=10))
    stage.pass_s(10)
    assert failed(stage).state == "open"


def test_it_rests_for_the_delay_and_is_open_again_by_an_event(stage: Stage) -> None:
    opened(stage, retries=1, retry_delay_s=60)
    reply = failed(stage)
    assert (reply.state, reply.retry_at) == ("failed", stage.at(60))
    error = stage.refused("iris", ask.Claim(task="T"), "state")
    assert error.problem.found == "failed, and tried again at 2030-01-01T12:01:00Z"
    stage.refused("iris", ask.Next(), "none_waiting", NotFound)
    assert list(stage.view.due(stage.at(59))) == []
    assert list(stage.view.due(stage.at(60))) == [(Task, "default", "T")]
    stage.given(SYSTEM, "T", TaskRetried())
    assert (task(stage).state, task(stage).retry_at, task(stage).failures) == ("open", None, 1)
    assert list(stage.view.due(stage.at(9999))) == []
    stage.pass_s(60)
    assert failed(stage).retry_at is None
    assert task(stage).state == "failed"


@pytest.mark.parametrize("request_", [ask.Claim(task="T"), ask.Next()])
def test_a_command_that_meets_the_end_of_the_delay_brings_it(stage: Stage, request_: ask.Claim) -> None:
    opened(stage, retries=1, retry_delay_s=60)
    failed(stage)
    stage.pass_s(60)
    decision = stage.decide("iris", request_)
    assert isinstance(decision, list)
    assert [(emit.agent, type(emit.fact)) for emit in decision] == [(SYSTEM, TaskRetried), (None, TaskClaimed)]
    assert stage.do("iris", request_).fence == stage.seq
    assert task(stage).owner == "iris"


def test_a_task_that_rests_can_be_opened_at_once_or_cancelled(stage: Stage) -> None:
    opened(stage, retries=1, retry_delay_s=60)
    failed(stage)
    stage.do("iris", ask.Reopen(task="T"))
    assert (task(stage).state, task(stage).retry_at) == ("open", None)
    failed(stage)
    assert stage.facts("atlas", ask.Cancel(task="T")) == [("T", TaskCancelled())]
    stage.do("atlas", ask.Cancel(task="T"))
    assert (task(stage).state, task(stage).retry_at) == ("cancelled", None)
    assert list(stage.view.due(stage.at(9999))) == []


def test_amending_what_rests_leaves_it_resting(stage: Stage) -> None:
    opened(stage, retries=1, retry_delay_s=60)
    failed(stage)
    assert stage.do("atlas", ask.Amend(task="T", priority=3)).state == "failed"
    stage.pass_s(60)
    # Nothing to amend, but the end of the delay is to be recorded.
    assert stage.do("atlas", ask.Amend(task="T", priority=3)).state == "open"


def test_what_was_decided_stands_in_the_event(stage: Stage) -> None:
    opened(stage, retries=1, retry_delay_s=60)
    stage.do("nova", ask.Claim(task="T"))
    fact = TaskFailed(reason="r", retry=True, retry_at=stage.at(60))
    assert stage.facts("nova", ask.Fail(task="T", reason="r")) == [("T", fact)]
    assert stage.facts("nova", ask.Fail(task="T", reason="r", retry=False)) == [("T", TaskFailed(reason="r"))]
