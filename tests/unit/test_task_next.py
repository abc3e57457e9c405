"""Next: the best task that is waiting, by priority and then age, never a blocked one, never one that is held."""

from __future__ import annotations

import pytest

from bus.domain import task_requests as ask
from bus.domain.needs import NeedsLinked
from bus.domain.task import Task, TaskExpired
from bus.errors import NotFound
from tests.unit.stage import Stage


def opened(stage: Stage, key: str, **fields: object) -> None:
    stage.do("atlas", ask.Open(title=key, task=key, **fields))  # type: ignore[arg-type]


def taken(stage: Stage, request: ask.Next | None = None, agent: str = "nova") -> str:
    reply = stage.do(agent, request or ask.Next())
    assert reply.fence == reply.seq == stage.seq
    assert isinstance(reply.task, str)
    return reply.task


def test_priority_comes_first_and_then_age(stage: Stage) -> None:
    for key, priority in (("old", 1), ("low", 0), ("high", 5), ("young", 1)):
        opened(stage, key, priority=priority)
    assert [taken(stage) for _ in range(4)] == ["high", "old", "young", "low"]
    error = stage.refused("nova", ask.Next(), "none_waiting", NotFound)
    assert error.exit_code == 4


def test_a_changed_priority_counts_at_once(stage: Stage) -> None:
    opened(stage, "a")
    opened(stage, "b")
    stage.do("atlas", ask.Amend(task="b", priority=9))
    assert taken(stage) == "b"


def test_a_task_that_is_open_again_keeps_its_age(stage: Stage) -> None:
    opened(stage, "a")
    opened(stage, "b")
    assert taken(stage) == "a"
    stage.do("nova", ask.Release(task="a"))
    assert taken(stage) == "a"
    stage.do("nova", ask.Fail(task="a", retry=True))
    assert taken(stage) == "a"
    stage.do("nova", ask.Complete(task="a"))
    assert taken(stage) == "b"


def test_ended_tasks_are_never_taken(stage: Stage) -> None:
    opened(stage, "a")
    stage.do("atlas", ask.Cancel(task="a"))
    stage.refused("nova", ask.Next(), "none_waiting", NotFound)
    stage.do("atlas", ask.Reopen(task="a"))
    assert taken(stage) == "a"


def test_labels_must_all_be_there_and_one_class_must_fit(stage: Stage) -> None:
    opened(stage, "plain", priority=9)
    opened(stage, "one", labels=("db",), class_="code")
    opened(stage, "both", labels=("db", "urgent"), class_="docs")
    stage.refused("nova", ask.Next(labels=("db", "ui")), "none_waiting", NotFound)
    assert stage.facts("nova", ask.Next(labels=("db",)))[0][0] == "one"
    assert stage.facts("nova", ask.Next(labels=("urgent", "db")))[0][0] == "both"
    assert stage.facts("nova", ask.Next(classes=("docs", "design")))[0][0] == "both"
    assert stage.facts("nova", ask.Next(classes=("docs", "code")))[0][0] == "one"
    stage.refused("nova", ask.Next(labels=("urgent",), classes=("code",)), "none_waiting", NotFound)


def test_a_task_is_left_to_those_who_can_do_it(stage: Stage) -> None:
    opened(stage, "hard", skills=("python", "sql"), priority=9)
    opened(stage, "easy")
    assert stage.facts("nova", ask.Next())[0][0] == "easy"
    assert stage.facts("nova", ask.Next(skills=("python",)))[0][0] == "easy"
    assert stage.facts("nova", ask.Next(skills=("sql", "go", "python")))[0][0] == "hard"
    stage.do("nova", ask.Claim(task="easy"))
    error = stage.refused("nova", ask.Next(skills=("go",)), "none_waiting", NotFound)
    assert "go" in (error.problem.expected or "")
    # Who names a task knows what it takes.
    assert stage.facts("nova", ask.Claim(task="hard")) != []


def test_namespaces_do_not_mix(stage: Stage) -> None:
    opened(stage, "a")
    stage.refused("nova", ask.Next(namespace="other"), "none_waiting", NotFound)


def test_the_lease_is_the_one_asked_for(stage: Stage) -> None:
    opened(stage, "a")
    assert stage.do("nova", ask.Next(lease_s=30)).expires == stage.at(30)


@pytest.mark.parametrize("end", ["fail", "cancel", "release"])
def test_blocked_tasks_are_skipped_until_everything_they_need_is_done(stage: Stage, end: str) -> None:
    opened(stage, "base")
    opened(stage, "top", priority=9, needs=("base",))
    stage.refused("nova", ask.Claim(task="top"), "blocked")
    assert taken(stage) == "base"
    if end == "fail":
        stage.do("nova", ask.Fail(task="base"))
        stage.do("atlas", ask.Reopen(task="base"))
    elif end == "cancel":
        stage.do("atlas", ask.Cancel(task="base"))
        stage.refused("nova", ask.Next(), "none_waiting", NotFound)
        stage.do("atlas", ask.Reopen(task="base"))
    else:
        stage.do("nova", ask.Release(task="base"))
    stage.refused("nova", ask.Claim(task="top"), "blocked")
    assert taken(stage) == "base"
    stage.do("nova", ask.Complete(task="base"))
    assert taken(stage) == "top"


def test_a_refused_claim_says_what_is_missing(stage: Stage) -> None:
    for key in ("a", "b", "c"):
        opened(stage, key)
    opened(stage, "top", needs=("c", "a", "b"))
    stage.do("nova", ask.Claim(task="b"))
    stage.do("nova", ask.Complete(task="b"))
    error = stage.refused("nova", ask.Claim(task="top"), "blocked")
    assert error.problem.found == "not done: a, c"
    assert error.details == {"needs": ["a", "c"]}


def test_a_need_that_does_not_exist_blocks(stage: Stage) -> None:
    opened(stage, "top")
    stage.given("atlas", "top", NeedsLinked(needs=("never",)))
    stage.refused("nova", ask.Claim(task="top"), "blocked")
    stage.refused("nova", ask.Next(), "none_waiting", NotFound)


def test_a_task_whose_lease_is_overdue_is_waiting_too(stage: Stage) -> None:
    opened(stage, "low")
    opened(stage, "mid", priority=5)
    opened(stage, "top", priority=9)
    fence = stage.do("nova", ask.Claim(task="mid", lease_s=60)).fence
    stage.do("nova", ask.Claim(task="top", lease_s=6000))
    assert stage.facts("iris", ask.Next())[0][0] == "low"
    stage.pass_s(60)
    facts = stage.facts("iris", ask.Next())
    assert facts[0] == ("mid", TaskExpired(owner="nova", fence=fence))
    assert [entity for entity, _ in facts] == ["mid", "mid"]
    assert taken(stage, agent="iris") == "mid"
    assert stage.state(Task, "mid").owner == "iris"
    assert taken(stage, agent="iris") == "low"
    stage.refused("iris", ask.Next(), "none_waiting", NotFound)


def test_an_overdue_lease_in_another_namespace_is_left_alone(stage: Stage) -> None:
    stage.do("atlas", ask.Open(title="x", task="T", namespace="other"))
    stage.do("nova", ask.Claim(task="T", lease_s=60, namespace="other"))
    stage.pass_s(60)
    stage.refused("iris", ask.Next(), "none_waiting", NotFound)
