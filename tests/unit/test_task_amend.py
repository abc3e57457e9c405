"""Amending a task: what can be changed, by whom, and what changes nothing."""

from __future__ import annotations

from datetime import datetime

from bus.domain import task_requests as ask
from bus.domain.needs import Needs, NeedsLinked
from bus.domain.task import TaskAmended
from bus.errors import InvalidRequest, NotAllowed, NotFound
from tests.unit.stage import Stage
from tests.unit.tasks import claimed, opened, task


def test_amending_changes_what_is_given(stage: Stage) -> None:
    opened(stage, labels=("a",))
    request = ask.Amend(task="T", title="new", labels=("b", "c"), priority=0)
    assert stage.facts("atlas", request) == [("T", TaskAmended(title="new", labels=("b", "c")))]
    reply = stage.do("atlas", request)
    assert (reply.state, reply.seq) == ("open", stage.seq)
    assert (task(stage).title, task(stage).labels, task(stage).body) == ("new", {"b", "c"}, "")


def test_amending_to_the_same_changes_nothing(stage: Stage) -> None:
    opened(stage, labels=("a", "b"), priority=1)
    opened(stage, "N")
    same = ask.Amend(task="T", title="fix auth", labels=("b", "a", "b"), priority=1, body="", class_="", needs=())
    assert stage.facts("atlas", same) == []
    assert stage.do("atlas", ask.Amend(task="T", needs=("N",))).task == "T"
    assert stage.facts("atlas", ask.Amend(task="T", needs=("N", "N"))) == []


def test_amending_can_clear_labels_but_not_the_title(stage: Stage) -> None:
    opened(stage, labels=("a",))
    stage.do("atlas", ask.Amend(task="T", labels=()))
    assert task(stage).labels == frozenset()
    stage.refused("atlas", ask.Amend(task="T", title=" "), "no_title", InvalidRequest)


def test_amending_is_for_the_opener_the_holder_and_owners(stage: Stage) -> None:
    claimed(stage)
    stage.refused("iris", ask.Amend(task="T", title="x"), "not_allowed", NotAllowed)
    for who in ("atlas", "nova", "olga"):
        assert stage.facts(who, ask.Amend(task="T", title="x")) == [("T", TaskAmended(title="x"))]
    assert stage.do("atlas", ask.Amend(task="T", title="x")).state == "claimed"


def test_skills_and_the_due_date_are_amended(stage: Stage) -> None:
    opened(stage, skills=("sql", "go"), due=stage.at(60))
    assert (task(stage).skills, task(stage).due) == ({"sql", "go"}, stage.at(60))
    same = ask.Amend(task="T", skills=("go", "sql", "go"), due=stage.at(60))
    assert stage.facts("atlas", same) == []
    stage.do("atlas", ask.Amend(task="T", skills=(), due=stage.at(90)))
    assert (task(stage).skills, task(stage).due) == (frozenset(), stage.at(90))


def test_a_due_date_lies_ahead(stage: Stage) -> None:
    for due in (stage.now, stage.at(-1)):
        stage.refused("atlas", ask.Open(title="x", due=due), "past", InvalidRequest)
    for text in ("9999-12-31T23:59:59-14:00", "2131-01-01T00:00:00Z"):
        stage.refused("atlas", ask.Open(title="x", due=datetime.fromisoformat(text)), "too_far", InvalidRequest)
    early = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
    stage.refused("atlas", ask.Open(title="x", due=early), "past", InvalidRequest)
    opened(stage, due=stage.at(1))
    stage.refused("atlas", ask.Amend(task="T", due=stage.at(-1)), "past", InvalidRequest)
    stage.pass_s(10)
    assert stage.facts("atlas", ask.Amend(task="T", due=stage.at(-9))) == [], "it is what it is already"
    stage.do("atlas", ask.Amend(task="T", due_in_s=60))
    assert task(stage).due == stage.at(60)
    opened(stage, "U", due_in_s=30)
    assert task(stage, "U").due == stage.at(30)
    for request in (
        ask.Open(title="x", due=stage.at(60), due_in_s=60),
        ask.Amend(task="U", due=stage.at(1), due_in_s=1),
    ):
        stage.refused("atlas", request, "two_dates", InvalidRequest)


def test_needs_are_replaced_as_a_whole(stage: Stage) -> None:
    for key in ("A", "B", "C"):
        opened(stage, key)
    assert stage.facts("atlas", ask.Amend(task="C", needs=("B",))) == [("C", NeedsLinked(needs=("B",)))]
    stage.do("atlas", ask.Amend(task="C", needs=("B",)))
    reply = stage.do("atlas", ask.Amend(task="C", needs=("A",)))
    assert (reply.task, reply.state) == ("C", "open")
    assert stage.state(Needs, "C") == Needs(needs=frozenset({"A"}))
    stage.refused("atlas", ask.Amend(task="C", needs=("ghost",)), "not_found", NotFound)
