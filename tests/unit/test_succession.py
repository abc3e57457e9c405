"""The versions of an entity: from memory and from the tables, whatever has been taken in since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.clock import EPOCH
from bus.domain.dm import DmPosted
from bus.domain.task import TaskAmended, TaskOpened
from bus.operation import FAMILIES
from projections.reader import Reader
from projections.schema import discover
from projections.store import Store
from projections.succession import Versions
from projections.views.history import happenings
from tests.unit.folding import Folding

TASKS = ("t-1", "t-2", "t-3")


@pytest.fixture
async def folding(tmp_path: Path) -> Iterator[Folding]:
    async with Store.opened(tmp_path, FAMILIES, discover()) as store:
        folding = Folding(store)
        store.load_world(folding.world)
        for task in TASKS:
            folding.happens("task", task, TaskOpened(title="new"))
        change(folding, "t-1")
        folding.write()
        change(folding, "t-1", "t-3", "t-1")
        folding.write()
        yield folding  # type: ignore[misc]


def change(folding: Folding, *tasks: str) -> None:
    for task in tasks:
        folding.happens("task", task, TaskAmended(title=f"title {len(folding.log.records)}"))


async def known(folding: Folding) -> list[list[list[int]]]:
    """The versions of every task, as of every event."""

    def read(reader: Reader) -> list[list[int]]:
        return [reader.versions("task", "default", task) for task in TASKS]

    return [await folding.store.read(seq, "ada", EPOCH, read) for seq in range(folding.store.position + 1)]


def forget(folding: Folding) -> None:
    folding.store.indexes.versions = Versions(folding.store.schema)


def take_in(folding: Folding) -> None:
    while not folding.store.indexes.versions.step(folding.store.position, folding.store.chunks):
        pass


@pytest.mark.parametrize("slice_", [1, 3, 1_000])
async def test_memory_says_what_the_tables_say(folding: Folding, monkeypatch: pytest.MonkeyPatch, slice_: int) -> None:
    monkeypatch.setattr(Versions, "slice", slice_)
    stored = await known(folding)
    assert stored[7] == [[1, 4, 5, 7], [2], [3, 6]]
    assert stored[4] == [[1, 4], [2], [3]]
    assert stored[0] == [[], [], []]
    assert folding.store.indexes.versions.position == 0, "nobody has asked yet"
    take_in(folding)
    assert await known(folding) == stored
    change(folding, "t-2", "t-2", "t-1")
    folding.write()
    assert folding.store.indexes.versions.position == 10, "what is written is taken in"
    kept = await known(folding)
    assert kept[:8] == stored
    forget(folding)
    assert await known(folding) == kept
    assert kept[10] == [[1, 4, 5, 7, 10], [2, 8, 9], [3, 6]]


async def test_what_memory_knows_takes_no_statement(folding: Folding) -> None:
    take_in(folding)
    change(folding, "t-2", "t-2", "t-1")
    folding.write()
    kept = await known(folding)
    folding.store._all("delete from task")
    assert await known(folding) == kept


async def test_a_world_that_is_ahead_of_the_tables_tells_nothing_of_later_versions(folding: Folding) -> None:
    take_in(folding)
    kept = await known(folding)
    change(folding, "t-1", "t-2")
    assert await known(folding) == kept


async def test_a_history_shows_what_the_agent_may_see(folding: Folding) -> None:
    said = folding.happens("dm", "ada+bob", DmPosted(text="secret", to="bob"))
    folding.write()
    found = {
        agent: await folding.store.read(said, agent, EPOCH, lambda reader: happenings(reader, [3, said, 1]))
        for agent in ("bob", "cyd")
    }
    assert {agent: [one.seq for one in seen] for agent, seen in found.items()} == {"bob": [1, 3, said], "cyd": [1, 3]}
    assert found["bob"][2].data == {"text": "secret", "to": "bob"}


async def test_a_version_that_is_in_no_table_hides_no_others(folding: Folding) -> None:
    folding.store._all("delete from task where seq_from = 5")
    take_in(folding)
    assert (await known(folding))[7] == [[1, 4, 7], [2], [3, 6]]
