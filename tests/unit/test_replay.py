"""Replay: the tables from the raw log, the digests that prove them, seals, and the exchange of live tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bus.clock import EPOCH, SystemClock
from bus.domain.channel import ChannelOpened, ChannelPosted
from bus.domain.log import LogSealed
from bus.domain.task import TaskClaimed, TaskCompleted, TaskOpened
from bus.errors import Defect, InvalidRequest
from bus.events import Fact
from bus.log import MemoryLog
from bus.operation import CODEC, FAMILIES
from bus.subjects import SYSTEM, TENANT
from bus.world import World
from projections import replay
from projections.schema import discover
from projections.store import Store
from projections.worker import Worker
from tests.unit.folding import put

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Live:
    """A log with a worker that keeps tables up with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = MemoryLog(CODEC, lambda: 1_760_000_000_000_000_000 + len(self.log.records))
        self.store: Store
        self.worker: Worker

    def append(self, family: str, entity: str, fact: Fact, agent: str = "ada") -> int:
        namespace = TENANT if family == "log" else "default"
        return put(self.log, family, entity, fact, agent, namespace=namespace)

    async def live_through(self, rounds: int) -> int:
        """Some rounds of work, all of it in the tables. -> the last seq"""
        seq = self.append("channel", "dev", ChannelOpened())
        for number in range(rounds):
            task = f"t-{number}"
            self.append("task", task, TaskOpened(title="x", labels=("a", f"l{number}")))
            self.append("task", task, TaskClaimed(lease_s=1, expires=NOON, until=NOON))
            self.append("channel", "dev", ChannelPosted(text="working"))
            seq = self.append("task", task, TaskCompleted(result="done", refs=(1,)))
        assert await self.worker.reached(seq, 20)
        return seq

    async def seal(self) -> int:
        upto, head = self.worker.chain
        seq = self.append("log", "chain", LogSealed(upto=upto, head=head), SYSTEM)
        assert await self.worker.reached(seq, 20)
        return seq


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[Live]:
    """A log and the tables that follow it."""
    live = Live(folder)
    async with Store.opened(folder / "tables", FAMILIES, discover(), live.log) as store:
        world = World(FAMILIES)
        live.store, live.worker = store, Worker(live.log, store, world.fold, SystemClock())
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(live.worker.run)
                yield live
                tasks.cancel_scope.cancel()


def alive(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Run the test with a `live` of its own: a task group may not stay open between a fixture and its test."""

    @wraps(test)
    async def run(tmp_path: Path, **known: Any) -> None:
        async with living(tmp_path) as live:
            await test(live, **known)

    given = [one for name, one in signature(test).parameters.items() if name != "live"]
    place = Parameter("tmp_path", Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = Signature([place, *given])  # type: ignore[attr-defined]
    return run


@alive
async def test_a_fold_of_any_prefix_has_the_digests_of_that_moment(live: Live) -> None:
    last = await live.live_through(20)
    for seq in (0, 1, 2, last // 2, last):
        async with replay.fold_log(live.log, live.store.schema, seq, live.folder) as scratch:
            assert scratch.store.position == scratch.world.position == seq
            compared = await replay.compare(live.store, scratch.store, seq)
        assert [name for name, table in compared.items() if not table.equal] == []
        assert compared["event"].rows == seq
    assert compared["task"].rows == 20
    assert compared["task_labels"].rows == 40
    assert sorted(path.name for path in live.folder.iterdir()) == ["tables"]


@alive
async def test_the_digest_of_a_moment_does_not_change_with_what_comes_later(live: Live) -> None:
    seq = await live.live_through(3)
    before = await replay.digests(live.store, seq)
    await live.live_through(2)
    assert await replay.digests(live.store, seq) == before
    assert (await replay.digests(live.store, seq + 1))["event"] != before["event"]


@alive
async def test_a_difference_in_one_cell_is_found(live: Live) -> None:
    seq = await live.live_through(3)
    async with replay.fold_log(live.log, live.store.schema, seq, live.folder) as scratch:
        scratch.store._con.execute("update task set result = 'forged' where kid = 2 and seq_to > 100").fetchall()
        compared = await replay.compare(live.store, scratch.store, seq)
    assert [name for name, table in compared.items() if not table.equal] == ["task"]


@alive
async def test_the_future_cannot_be_folded(live: Live) -> None:
    with pytest.raises(InvalidRequest, match="no such event yet"):
        async with replay.fold_log(live.log, live.store.schema, 1, live.folder):
            raise AssertionError("unreachable")


@alive
async def test_progress_is_told(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BATCH_EVENTS", 1000)
    last = await live.live_through(600)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    async with replay.fold_log(live.log, live.store.schema, last, live.folder, progress):
        pass
    assert told == [(1000, last), (2000, last), (last, last)]


@alive
async def test_seals_are_checked_against_the_raw_log(live: Live) -> None:
    await live.live_through(2)
    await live.seal()
    await live.live_through(2)
    last = await live.seal()
    assert await _seals(live, last) == (2, [])

    forged = live.log.records[3]
    live.log.records[3] = msgspec.structs.replace(forged, data=forged.data.replace(b"working", b"resting"))
    assert live.log.records[3] != forged
    assert await _seals(live, last) == (2, [10, 20])


async def _seals(live: Live, upto: int) -> tuple[int, list[int]]:
    async with replay.fold_log(live.log, live.store.schema, upto, live.folder) as scratch:
        return scratch.seals, scratch.broken


@pytest.mark.parametrize(("upto", "head"), [(99, "0" * 64), (0, "0" * 63 + "1")])
@alive
async def test_a_seal_that_cannot_be_is_broken(live: Live, upto: int, head: str) -> None:
    live.append("log", "chain", LogSealed(upto=upto, head=head), SYSTEM)
    assert await _seals(live, 1) == (0, [1])


@alive
async def test_a_seal_of_what_comes_after_it_is_broken_unchecked(live: Live) -> None:
    live.append("log", "chain", LogSealed(upto=2, head="0" * 64), SYSTEM)
    last = live.append("channel", "dev", ChannelOpened())
    assert await _seals(live, last) == (0, [1])


@alive
async def test_a_seal_of_the_empty_log_is_whole(live: Live) -> None:
    live.append("log", "chain", LogSealed(upto=0, head="0" * 64), SYSTEM)
    assert await _seals(live, 1) == (0, [])


@alive
async def test_live_tables_are_made_anew_and_exchanged_while_they_are_used(live: Live) -> None:
    last = await live.live_through(5)
    right = await replay.digests(live.store, last)
    live.store._con.execute("update task set title = 'damaged'").fetchall()
    assert (await replay.digests(live.store, last))["task"] != right["task"]

    def count(reader: Any) -> int:
        return len(reader.rows(f"select * from {reader.at('task')}"))

    done = anyio.Event()
    counts: set[int] = set()

    async def read() -> None:
        while not done.is_set():
            counts.add(await live.worker.read(last, "ada", EPOCH, count))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await replay.rebuild(live.worker, live.log)
        done.set()
    assert counts == {5}
    assert await replay.digests(live.store, last) == right
    assert await live.live_through(1) == last + 5
    assert sorted(path.name for path in (live.folder / "tables").iterdir() if path.suffix != ".wal") == [
        "tables.duckdb"
    ]


@alive
async def test_tables_are_not_exchanged_when_the_log_was_changed(live: Live) -> None:
    await live.live_through(2)
    live.log.records[2] = msgspec.structs.replace(live.log.records[2], data=b"{}")
    with pytest.raises(Defect, match="not the one that the tables were made from"):
        await replay.rebuild(live.worker, live.log)
    assert await live.live_through(1)


@alive
async def test_a_log_with_a_gap_is_not_taken_for_a_whole_one(live: Live) -> None:
    last = await live.live_through(2)

    async def torn(after: int, upto: int) -> AsyncIterator[Any]:
        yield live.log.records[after : upto - 1]

    live.log.read = torn  # type: ignore[method-assign]
    with pytest.raises(Defect, match="gap"):
        async with replay.fold_log(live.log, live.store.schema, last, live.folder):
            raise AssertionError("unreachable")
