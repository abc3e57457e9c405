"""Recall of files and tasks: what of them is found, where it stands, and as of when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest

from bus.domain import task_requests as task
from bus.domain import vault
from bus.domain import vault_memories as tool
from bus.domain.recall import Hit, Recall
from projections import lexical_rows
from tests.unit.desk import Desk, desk

PLAN = f"""# Plan

{"We move house in small steps. " * 8}

## Rollback

Restore the snapshot, then point the alias back.

## Costs

{"Nobody knows yet. " * 12}
"""


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, "atlas", "nova") as found:
        yield found


async def found(one: Desk, query: str, **asked: object) -> list[Hit]:
    answer = await one.see("nova", Recall(query=query, **asked))  # type: ignore[arg-type]
    return list(answer.hits)


async def test_a_passage_is_found_with_its_path_and_line(one: Desk) -> None:
    written = await one.do("atlas", vault.Write(path="notes/plan.md", content=PLAN))
    hit = (await found(one, "how do we roll back? restore which snapshot?", kinds=("document",)))[0]
    assert (hit.path, hit.line, hit.agent, hit.seq) == ("notes/plan.md", 5, "atlas", written.seq)
    assert hit.text.startswith("## Rollback\n\nRestore the snapshot")
    assert PLAN.split("\n")[hit.line - 1] == "## Rollback"
    assert {one.line for one in await found(one, "plan.md")} == {1, 5, 9}, "each passage is found by the path"
    assert (await found(one, "Rollback alias"))[0].line == 5


async def test_only_the_version_that_is_valid_is_found(one: Desk) -> None:
    await one.do("atlas", vault.Write(path="a.md", content="The port is 4222."))
    first = one.tables.position
    await one.do("nova", vault.Patch(path="a.md", old="4222", new="4333"))
    second = one.tables.position
    await one.do("atlas", vault.Rename(path="a.md", new_path="b/c.md"))
    third = one.tables.position
    await one.do("atlas", vault.Delete(path="b"))
    assert await found(one, "which port") == []
    for seq, text, path, agent in (
        (first, "The port is 4222.", "a.md", "atlas"),
        (second, "The port is 4333.", "a.md", "nova"),
        (third, "The port is 4333.", "b/c.md", "atlas"),
    ):
        (hit,) = await found(one, "which port", as_of=seq)
        assert (hit.text, hit.path, hit.agent) == (text, path, agent)
    assert await found(one, "4222", as_of=second) == []
    await one.do("atlas", vault.Write(path="a.md", content="The port is 4444."))
    assert [hit.text for hit in await found(one, "which port")] == ["The port is 4444."]


async def test_notes_of_the_memory_tool_are_files(one: Desk) -> None:
    await one.do("atlas", tool.Create(path="/memories/user.md", file_text="likes terse answers\n"))
    (hit,) = await found(one, "terse")
    assert (hit.path, hit.line) == ("memories/user.md", 1)


async def test_a_slice_ends_before_its_files_have_too_many_bytes(one: Desk) -> None:
    with mock.patch.object(lexical_rows, "SLICE_BYTES", 40):
        for name in "bcde":
            await one.do("atlas", vault.Write(path=name, content=f"file {name * 3} of thirty characters"))
        assert [hit.path for hit in await found(one, "characters")] == ["e", "d", "c", "b"]


async def test_why_a_task_failed_is_found_beside_what_it_is(one: Desk) -> None:
    opened = await one.do("atlas", task.Open(title="Migrate the invoices", body="to the new ledger", task="t-1"))
    await one.do("nova", task.Claim(task="t-1"))
    failed = await one.do("nova", task.Fail(task="t-1", reason="the unique index rejects 12 duplicates", retry=True))
    await one.do("nova", task.Claim(task="t-1"))
    done = await one.do("nova", task.Complete(task="t-1", result="merged after removing them"))
    hits = await found(one, "why did the migration of invoices fail?")
    assert {hit.seq for hit in hits} == {opened.seq, failed.seq, done.seq}
    assert (hits[0].seq, hits[0].task, hits[0].agent) == (failed.seq, "t-1", "nova")
    assert hits[0].text == "Migrate the invoices\nfailed: the unique index rejects 12 duplicates"
    (hit,) = (hit for hit in hits if hit.seq == opened.seq)
    assert (hit.text, hit.agent, hit.why.near > hit.why.own) == (
        "Migrate the invoices\nto the new ledger",
        "atlas",
        True,
    )
    assert [hit.seq for hit in await found(one, "ledger duplicates", as_of=opened.seq)] == [opened.seq]


async def test_a_task_is_found_by_what_it_is_called_now_and_what_says_nothing_is_not_found(one: Desk) -> None:
    await one.do("atlas", task.Open(title="Fix the parser", task="t-1"))
    before = one.tables.position
    amended = await one.do("atlas", task.Amend(task="t-1", title="Fix the lexer"))
    await one.do("atlas", task.Amend(task="t-1", priority=3))
    await one.do("nova", task.Claim(task="t-1"))
    await one.do("nova", task.Release(task="t-1"))
    assert await found(one, "parser") == []
    assert [(hit.seq, hit.text) for hit in await found(one, "lexer")] == [(amended.seq, "Fix the lexer")]
    assert [hit.text for hit in await found(one, "parser", as_of=before)] == ["Fix the parser"]
