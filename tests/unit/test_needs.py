"""What tasks need: no circles, and what a circle somebody wrote by hand does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain import task_requests as ask
from bus.domain.needs import FAMILY, Needs, NeedsLinked, check_acyclic, of
from bus.errors import Refused
from bus.subjects import bucket_of
from tests.unit.stage import Stage


def tasks(stage: Stage, *keys: str) -> None:
    for key in keys:
        stage.do("atlas", ask.Open(title=key, task=key))


@pytest.mark.parametrize(
    ("links", "last", "way"),
    [
        ((), ("A", ("A",)), "A needs A"),
        ((("A", ("B",)),), ("B", ("A",)), "B needs A needs B"),
        ((("A", ("B",)), ("B", ("C",))), ("C", ("A",)), "C needs A needs B needs C"),
        ((("A", ("D", "B")), ("B", ("C",))), ("C", ("D", "A")), "C needs A needs B needs C"),
    ],
)
def test_circles_are_refused_and_shown(
    stage: Stage, links: tuple[tuple[str, tuple[str, ...]], ...], last: tuple[str, tuple[str, ...]], way: str
) -> None:
    tasks(stage, "A", "B", "C", "D")
    for key, needs in links:
        stage.do("atlas", ask.Amend(task=key, needs=needs))
    error = stage.refused("atlas", ask.Amend(task=last[0], needs=last[1]), "cycle")
    assert error.problem.found == way


def test_a_diamond_is_no_circle(stage: Stage) -> None:
    tasks(stage, "A", "B", "C", "D")
    stage.do("atlas", ask.Amend(task="A", needs=("B", "C")))
    stage.do("atlas", ask.Amend(task="B", needs=("D",)))
    stage.do("atlas", ask.Amend(task="C", needs=("D",)))
    assert of(stage.view, "default", "A") == {"B", "C"}


def test_replacing_needs_can_break_what_would_become_a_circle(stage: Stage) -> None:
    tasks(stage, "A", "B")
    stage.do("atlas", ask.Amend(task="A", needs=("B",)))
    stage.do("atlas", ask.Amend(task="A", needs=()))
    stage.do("atlas", ask.Amend(task="B", needs=("A",)))
    assert of(stage.view, "default", "A") == frozenset()


def test_namespaces_do_not_mix(stage: Stage) -> None:
    tasks(stage, "A", "B")
    stage.do("atlas", ask.Amend(task="A", needs=("B",)))
    for key in ("A", "B"):
        stage.do("atlas", ask.Open(title=key, task=key, namespace="other"))
    stage.do("atlas", ask.Amend(task="B", needs=("A",), namespace="other"))


def test_all_of_a_namespace_are_decided_together() -> None:
    assert len({bucket_of(FAMILY.bucket_key(key)) for key in ("A", "B", "t-123")}) == 1


def test_linking_the_same_leaves_the_very_same_state(stage: Stage) -> None:
    stage.given("atlas", "A", NeedsLinked(needs=("B", "C")))
    before = stage.state(Needs, "A")
    stage.given("atlas", "A", NeedsLinked(needs=("C", "B", "C")))
    assert stage.state(Needs, "A") is before


def test_a_circle_written_by_hand_does_not_trap_the_search(stage: Stage) -> None:
    tasks(stage, "A", "B", "C")
    stage.given("atlas", "A", NeedsLinked(needs=("B",)))
    stage.given("atlas", "B", NeedsLinked(needs=("A",)))
    assert stage.facts("atlas", ask.Amend(task="C", needs=("A",))) != []
    stage.refused("nova", ask.Claim(task="A"), "blocked")
    stage.do("atlas", ask.Amend(task="A", needs=()))
    stage.do("nova", ask.Claim(task="A"))


@given(st.lists(st.tuples(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=4)), max_size=25))
def test_whatever_is_linked_there_is_never_a_circle(links: list[tuple[int, set[int]]]) -> None:
    stage = Stage()
    graph: dict[int, set[int]] = {}
    for key, needs in links:
        wanted = [f"T{n}" for n in needs]
        would = graph | {key: needs}
        if not reaches(would, key):
            check_acyclic(stage.view, "default", f"T{key}", wanted)
            graph = would
            stage.given("atlas", f"T{key}", NeedsLinked(needs=tuple(wanted)))
            continue
        with pytest.raises(Refused) as caught:
            check_acyclic(stage.view, "default", f"T{key}", wanted)
        way = (caught.value.problem.found or "").split(" needs ")
        assert way[0] == way[-1] == f"T{key}"
        assert all(int(need[1:]) in would[int(task[1:])] for task, need in pairwise(way))


def reaches(graph: dict[int, set[int]], start: int) -> bool:
    """Whether `start` needs itself, found by brute force."""
    seen: set[int] = set()
    front = set(graph.get(start, ()))
    while front:
        seen |= front
        front = {n for key in front for n in graph.get(key, ())} - seen
    return start in seen
