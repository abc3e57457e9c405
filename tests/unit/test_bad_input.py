"""What is asked of the memory and cannot be meant: refused before anything is decided, in words that say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.domain import memory_requests as memory
from bus.domain import vault, vector
from bus.domain.recall import Recall
from bus.errors import InvalidRequest, NotFound
from bus.events import BODY_BYTES
from bus.model import Command
from bus.operation import OPERATIONS
from bus.protocol import decode_request
from tests.unit.desk import Desk, caught, desk
from tests.unit.stage import Stage

LONG = b"x" * (BODY_BYTES + 1)
WRITTEN = (
    b"{}",
    b'{"content": ""}',
    b'{"content": null}',
    b'{"content": ["x"]}',
    b'{"content": "\xff\xfe"}',
    b'{"content": "\\ud800"}',
    b'{"content": "' + LONG + b'"}',
    b'{"content": "x", "metadata": "x"}',
    b'{"content": "x", "metadata": [1]}',
    b'{"content": "x", "metadata": {"a": NaN}}',
    b'{"content": "x", "metadata": {"a": Infinity}}',
    b'{"content": "x", "metadata": {1: 2}}',
    b'{"content": "x", "metadata": {"a": "\\udfff"}}',
    b'{"content": "x", "category": "opinion"}',
    b'{"content": "x", "category": ""}',
    b'{"content": "x", "scope": "everybody"}',
    b'{"content": "x", "trust_tier": "none"}',
    b'{"content": "x", "priority": 1.5}',
    b'{"content": "x", "salience": 2}',
    b'{"content": "x", "confidence": -0.1}',
    b'{"content": "x", "tags": "a"}',
    b'{"content": "x", "valid_from": "yesterday"}',
    b'{"content": "x", "refs": [0]}',
    b'{"content": "x", "embedding": [1, NaN]}',
    b'{"content": "x", "embedding": [1, 1e999]}',
    b'{"content": "x", "embedding": "[1]"}',
    b'{"content": "x", "embedding": [' + b"1," * 8192 + b"1]}",
)
ASKED = (
    b"{}",
    b'{"query": ""}',
    b'{"query": 1}',
    b'{"query": "\xff"}',
    b'{"query": "\\ud800"}',
    b'{"query": "' + b"x" * 4001 + b'"}',
    b'{"query": "x", "k": 0}',
    b'{"query": "x", "k": -1}',
    b'{"query": "x", "k": 1000000}',
    b'{"query": "x", "k": "ten"}',
    b'{"query": "x", "kinds": ["opinion"]}',
    b'{"query": "x", "kinds": "memory"}',
    b'{"query": "x", "scope": "everybody"}',
    b'{"query": "x", "where": [1]}',
    b'{"query": "x", "budget_tokens": 0}',
    b'{"query": "x", "valid_at": "soon"}',
)
PLACED = (
    b'{"collection": "c", "vector": "v", "numbers": []}',
    b'{"collection": "c", "vector": "v", "numbers": [NaN]}',
    b'{"collection": "c", "vector": "v", "numbers": [Infinity]}',
    b'{"collection": "c", "vector": "v", "numbers": ["1"]}',
    b'{"collection": "c", "vector": "", "numbers": [1]}',
    b'{"collection": "c/d\\n", "vector": "v", "numbers": [1]}',
    b'{"collection": "c", "vector": "v", "numbers": [1], "metric": "manhattan"}',
)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        *(("memory.write", body) for body in WRITTEN),
        *(("memory.recall", body) for body in ASKED),
        *(("vector.upsert", body) for body in PLACED),
    ],
)
def test_what_is_no_request_is_refused_before_it_is_decided(name: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest) as error:
        decode_request(OPERATIONS[name], body)
    assert error.value.code == "invalid"
    assert len(str(error.value)) < 2000, "what was wrong is said, not repeated"


@pytest.mark.parametrize(
    "request_",
    [
        memory.Append(memory="m-none", text="x"),
        memory.Revise(memory="m-none", content="x"),
        memory.Supersede(memory="m-none", content="x"),
        memory.Retract(memory="m-none"),
        memory.Restore(memory="m-none"),
        memory.Pin(memory="m-none"),
        memory.Link(memory="m-none", other="m-other"),
        memory.Contradict(memory="m-none", other="m-other"),
        vault.Patch(path="none.md", old="x", new="y"),
        vault.Delete(path="none.md"),
        vector.Delete(collection="none", vector="v"),
    ],
)
def test_what_does_not_exist_cannot_be_changed(request_: Command) -> None:
    Stage().refused("atlas", request_, "not_found", NotFound)


def test_what_is_not_yours_and_private_does_not_exist_for_you() -> None:
    stage = Stage()
    name = stage.do("atlas", memory.Write(content="the code is 1234", scope="private")).memory
    for request in (memory.Revise(memory=name, content="x"), memory.Retract(memory=name)):
        error = stage.refused("nova", request, "not_found", NotFound)
        assert "1234" not in str(error)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, "atlas", "nova") as found:
        yield found


@pytest.mark.parametrize("query", ["the and of", "what is it", "?!", " ", "…", "\u200b", "a i s t"])
async def test_a_question_without_a_word_is_told_that_there_is_nothing_to_look_for(one: Desk, query: str) -> None:
    error = await caught(one.see("nova", Recall(query=query)), InvalidRequest, "no_words")
    problem = error.problem
    assert "no word to look for" in str(error)
    assert problem.expected
    assert problem.found
    assert problem.hint


async def test_texts_as_large_as_may_be_are_found(one: Desk) -> None:
    line = "the quick parser reads tokens, and another line follows\n"
    text = line * (900_000 // len(line))
    await one.do("atlas", vault.Write(path="large.txt", content=f"{text}\nhere is zygote\n"))
    await one.do("atlas", memory.Write(content="zygote " + "word " * 39_000))
    hits = (await one.see("nova", Recall(query="zygote"))).hits
    assert {hit.kind for hit in hits} >= {"document", "memory"}
    (hit,) = (hit for hit in hits if hit.kind == "document" and "zygote" in hit.text)
    assert hit.line is not None
    assert hit.line > 15_000
    assert len((await one.see("nova", Recall(query="parser tokens", k=1000))).hits) < 1000, "the same is not said twice"


async def test_a_vector_of_another_length_is_refused_where_it_is_put_and_where_it_is_asked(one: Desk) -> None:
    await one.do("atlas", vector.Upsert(collection="c", vector="v", numbers=(1.0, 2.0)))
    asked: tuple[tuple[Any, ...], ...] = ((1.0,), (1.0, 2.0, 3.0))
    for numbers in asked:
        error = await caught(
            one.see("nova", vector.Nearest(collection="c", numbers=numbers)), InvalidRequest, "bad_dimension"
        )
        assert "2" in str(error)
