"""Vectors that callers bring: which memories a question with one is compared with, and from when to when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.domain.channel import Join, Post
from bus.domain.memory import Memory, MemoryAppended, MemoryRevised, MemoryWritten
from bus.domain.memory_requests import Append, Restore, Retract, Revise, Supersede, Write
from bus.domain.recall import ANSWERED, Recall
from bus.errors import InvalidRequest
from tests.unit.desk import Desk, caught, desk
from tests.unit.stage import Stage

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.1)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, "atlas", "nova") as found:
        yield found


async def near(one: Desk, *numbers: float, who: str = "nova", **asked: Any) -> list[str]:
    """What a question without words finds."""
    found = await one.see(who, Recall(query="to be", embedding=numbers, **asked))
    assert found.legs == {"words": "the question has no word to look for", "dense": ANSWERED}
    return [hit.text for hit in found.hits]


async def none(one: Desk, *numbers: float, who: str = "nova", **asked: Any) -> None:
    """There is nothing to compare with."""
    await caught(one.see(who, Recall(query="to be", embedding=numbers, **asked)), InvalidRequest, "no_words")


def test_the_state_says_which_event_brought_the_vector() -> None:
    stage = Stage()
    wrote = stage.given("atlas", "m-1", MemoryWritten(content="x", scope="shared", embedding=EAST))
    assert stage.state(Memory, "m-1").embedded == wrote
    stage.given("atlas", "m-1", MemoryRevised(priority=3))
    assert stage.state(Memory, "m-1").embedded == wrote, "it says the same"
    again = stage.given("atlas", "m-1", MemoryRevised(embedding=NORTH))
    assert stage.state(Memory, "m-1").embedded == again
    stage.given("atlas", "m-1", MemoryRevised(content="y"))
    assert stage.state(Memory, "m-1").embedded is None, "it says something else"
    both = stage.given("atlas", "m-1", MemoryRevised(content="z", embedding=EAST))
    assert stage.state(Memory, "m-1").embedded == both
    stage.given("atlas", "m-1", MemoryAppended(text="more"))
    assert stage.state(Memory, "m-1").embedded is None
    assert stage.state(Memory, "m-1").content == "z\nmore"
    assert stage.decide("atlas", Revise(memory="m-1", embedding=())).memory == "m-1", "there is none to take away"  # type: ignore[union-attr]
    stage.given("atlas", "m-1", MemoryRevised(embedding=EAST))
    assert stage.facts("atlas", Revise(memory="m-1", embedding=())) == [("m-1", MemoryRevised(embedding=()))]
    stage.given("atlas", "m-1", MemoryRevised(embedding=()))
    assert stage.state(Memory, "m-1").embedded is None


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (1.0, float("nan")), (float("inf"),), (1e31, 1.0)])
async def test_what_is_no_vector_is_refused(one: Desk, numbers: tuple[float, ...]) -> None:
    Stage().refused("atlas", Write(content="x", embedding=numbers), "bad_vector", InvalidRequest)
    error = await caught(one.see("nova", Recall(query="x", embedding=numbers)), InvalidRequest, "bad_vector")
    assert error.problem.expected
    assert error.problem.hint


async def test_the_nearest_come_first_and_words_count_too(one: Desk) -> None:
    await one.do("atlas", Write(content="east", embedding=EAST), Write(content="north", embedding=NORTH))
    await one.do("atlas", Write(content="no vector"), Join(channel="dev"), Post(channel="dev", text="a message"))
    assert await near(one, 1.0, 0.1) == ["east", "north"]
    assert await near(one, 0.1, 5.0) == ["north", "east"]
    found = await one.see("nova", Recall(query="north", embedding=EAST, explain=True))
    assert [hit.text for hit in found.hits] == ["north", "east"]
    assert [hit.why.cosine for hit in found.hits] == [0.0, 1.0]
    assert found.hits[1].score == found.hits[1].why.meaning > 0


async def test_every_dimension_is_a_space_of_its_own(one: Desk) -> None:
    await one.do("atlas", Write(content="two", embedding=EAST), Write(content="three", embedding=(1.0, 0.0, 0.0)))
    assert await near(one, 1.0, 0.0) == ["two"]
    assert await near(one, 1.0, 0.0, 0.0) == ["three"]
    await none(one, 1.0, 0.0, 0.0, 0.0)
    found = await one.see("nova", Recall(query="two", embedding=(1.0,) * 4))
    assert [hit.text for hit in found.hits] == ["two"]
    assert found.legs["dense"] == "no memory that you can see came with a vector of 4 numbers"


async def test_a_vector_ends_with_what_it_was_brought_for(one: Desk) -> None:
    wrote = await one.do("atlas", Write(content="east", embedding=EAST))
    name, seqs = wrote.memory, [wrote.seq]
    for request in (
        Revise(memory=name, priority=1),
        Retract(memory=name),
        Restore(memory=name),
        Revise(memory=name, content="it moved"),
        Revise(memory=name, embedding=WEST),
        Append(memory=name, text="far"),
        Supersede(memory=name, content="north", embedding=NORTH),
    ):
        seqs.append((await one.do("atlas", request)).seq)
    written, revised, retracted, restored, moved, west, further, _ = seqs
    for seq, text in ((written, "east"), (revised, "east"), (restored, "east"), (west, "it moved")):
        assert await near(one, 1.0, 0.0, as_of=seq) == [text]
    for seq in (written - 1, retracted, moved, further):
        await none(one, 1.0, 0.0, as_of=seq)
    assert await near(one, 1.0, 0.0) == ["north"]


async def test_private_vectors_are_near_nobody_else(one: Desk) -> None:
    await one.do("atlas", Write(content="mine", embedding=EAST, scope="private"))
    await one.do("atlas", Write(content="elsewhere", embedding=EAST, namespace="lab"))
    await none(one, 1.0, 0.0)
    assert await near(one, 1.0, 0.0, who="atlas") == ["mine"]
    await one.do("nova", Write(content="north", embedding=NORTH), Write(content="west", embedding=WEST))
    found = await one.see("nova", Recall(query="to be", embedding=EAST))
    await one.do("atlas", Write(content="east", embedding=EAST, scope="private"))
    again = await one.see("nova", Recall(query="to be", embedding=EAST))
    assert again.hits == found.hits, "what others keep to themselves moves no score"


async def test_filters_hold_for_vectors_as_well(one: Desk) -> None:
    await one.do("atlas", Write(content="one", embedding=EAST, subject="a", metadata={"k": 1}))
    await one.do("atlas", Write(content="two", embedding=EAST, subject="b"))
    assert await near(one, 1.0, 0.0, subject="b") == ["two"]
    assert await near(one, 1.0, 0.0, where={"k": 1}) == ["one"]
    await none(one, 1.0, 0.0, kinds=("message",))
