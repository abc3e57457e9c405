"""The worker: what it follows, what cannot stop it, and what it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from bus.clock import EPOCH, SystemClock
from bus.domain.channel import ChannelOpened, ChannelPosted
from bus.errors import Unavailable
from bus.events import Event, Fact, Record
from bus.log import MemoryLog
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections import worker as module
from projections.batch import Batch
from projections.schema import FactTable, FactView
from projections.store import Store
from projections.worker import Worker
from tests.unit.folding import put

SEEN = FactTable("seen", (("seq", "BIGINT"),))


def fold(event: Event) -> list[tuple[str, tuple[Any, ...]]]:
    if event.entity == "odd":
        raise RuntimeError
    return [("seen", (event.seq,))]


VIEWS = (FactView(tables=(SEEN,), fold=fold),)


class Ground:
    """A log and the places where workers are started on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = MemoryLog(CODEC, lambda: (len(self.log.records) + 1) * 1_000_000)

    def post(self, fact: Fact | None = None, entity: str = "dev") -> int:
        return put(self.log, "channel", entity, fact or ChannelPosted(text=f"message {len(self.log.records)}"))

    async def run(
        self, work: Callable[[Worker], Awaitable[None]], fold_: Callable[[Event], Any] | None = None
    ) -> Worker:
        """Run `work` beside a new worker; the worker as it was at the end."""
        async with Store.opened(self.folder, FAMILIES, VIEWS, self.log) as store:
            world = World(FAMILIES)
            store.load_world(world)
            worker = Worker(self.log, store, fold_ or world.fold, SystemClock())
            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(worker.run)
                    await work(worker)
                    tasks.cancel_scope.cancel()
        return worker


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


async def test_what_is_posted_can_be_read_and_those_who_wait_are_told(ground: Ground) -> None:
    told: list[int] = []

    async def work(worker: Worker) -> None:
        worker.on_written(lambda events: told.extend(event.seq for event in events))
        assert not await worker.reached(1, 0.01)
        for _ in range(5):
            seq = ground.post()
            assert await worker.reached(seq)
            rows = await worker.read(seq, "ada", EPOCH, lambda reader: reader.rows(f"from {reader.at('seen')}"))
            assert len(rows) == seq
        assert worker.position == 5
        assert worker.lag_seq == 0
        assert await worker.seq_at(3_000_000) == 3
        with anyio.fail_after(5):
            while len(told) < 5:
                await anyio.lowlevel.checkpoint()

    await ground.run(work)
    assert told == [1, 2, 3, 4, 5]


async def test_nothing_is_indexed_while_the_tables_catch_up(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVE_EVENTS", "BEHIND_EVENTS", "SLICE_EVENTS"):
        monkeypatch.setattr(module, name, 2)
    last = [ground.post() for _ in range(20)][-1]
    behind: list[int] = []
    ends: list[int] = []

    async def work(worker: Worker) -> None:
        def step(seq: int, chunks: Any) -> None:
            behind.append(worker.lag_seq)
            ends.append(seq)

        monkeypatch.setattr(worker.store.indexes, "step", step)
        while ends[-1:] != [last]:
            await anyio.sleep(0.001)

    await ground.run(work)
    # The first may begin before anybody knows how long the log is; that it begins at all is known by `ends`.
    assert [lag for lag in behind[1:] if lag > 2] == []


async def test_what_comes_while_the_writer_rests_is_one_batch_and_whoever_waits_ends_the_rest(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_RATIO", 1e9)
    monkeypatch.setattr(module, "REST_MAX_S", 1e9)
    batches: list[int] = []

    async def work(worker: Worker) -> None:
        async def gathered(count: int) -> None:
            while len(worker._gathered.events) < count:
                await anyio.lowlevel.checkpoint()

        write = worker.store.write

        async def written(batch: Batch) -> None:
            batches.append(len(batch.events))
            if len(batches) == 1:
                for _ in range(3):
                    ground.post()
                await gathered(3)
            await write(batch)

        monkeypatch.setattr(worker.store, "write", written)
        assert await worker.reached(ground.post())
        await anyio.wait_all_tasks_blocked()
        ground.post()
        await gathered(4)
        assert batches == [1]
        assert await worker.reached(5)

    await ground.run(work)
    assert batches == [1, 4]


async def test_the_chain_runs_over_the_raw_records_and_survives_restarts(ground: Ground) -> None:
    for count in (1, 7, 2):
        for _ in range(count):
            ground.post()
        worker = await ground.run(lambda worker: _reach(worker, len(ground.log.records)))
    assert worker.chain == (10, _chain(ground.log.records))


async def _reach(worker: Worker, seq: int) -> None:
    assert await worker.reached(seq)


def _chain(records: Sequence[Record]) -> str:
    """The chain as its rule reads, written down once more."""
    digest = bytes(32)
    for record in records:
        head = msgspec.json.encode([record.seq, record.subject, dict(sorted(record.headers.items()))])
        digest = sha256(digest + head + b"\n" + record.data).digest()
    return digest.hex()


@pytest.mark.parametrize("change", ["subject", "headers", "data", "order"])
async def test_any_change_of_a_record_breaks_the_chain(ground: Ground, change: str) -> None:
    for _ in range(3):
        ground.post()
    records = list(ground.log.records)
    match change:
        case "order":
            records[0], records[1] = records[1], records[0]
        case "headers":
            records[1] = msgspec.structs.replace(records[1], headers=records[1].headers | {"Bus-Agent": "bob"})
        case "subject":
            records[1] = msgspec.structs.replace(records[1], subject="log.default.channel.9")
        case "data":
            records[1] = msgspec.structs.replace(records[1], data=records[1].data + b" ")
    before = _chain(ground.log.records)
    ground.log.records = records
    worker = await ground.run(lambda worker: _reach(worker, 3))
    assert worker.chain[1] != before


async def test_no_event_stops_it_and_each_is_counted(ground: Ground) -> None:
    def fails_on_two(event: Event) -> None:
        if event.seq == 2:
            raise RuntimeError

    ground.post(ChannelOpened())
    ground.post()
    ground.post(entity="odd")
    ground.log.put("nonsense", {}, b"\xff")
    for number in range(3):
        ground.log.put("log.default.task.1", {"Bus-Type": "task.painted"}, b"%d" % number)
    ground.log.put("log.default.channel.1", {"Bus-Type": "channel.posted", "Bus-Agent": "\udcff"}, b"{}")
    last = ground.post()

    async def work(worker: Worker) -> None:
        assert await worker.reached(last)

    with capture_logs():
        worker = await ground.run(work, fails_on_two)
    assert worker.skipped == Counter(
        {"unknown type 'task.painted'": 3, "no Bus-Type header": 1, **_headers_missing(worker)}
    )
    assert worker.skipped_total == 5
    assert worker.failed == Counter(world=1, seen=1)
    with capture_logs():
        again = await ground.run(lambda worker: _reach(worker, ground.post()))
    assert again.skipped == worker.skipped


def _headers_missing(worker: Worker) -> dict[str, int]:
    """The one reason whose wording is not ours."""
    return {reason: count for reason, count in worker.skipped.items() if "are needed" in reason}


async def test_kinds_of_unreadable_events_are_bounded(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.batch.SKIPPED_KINDS", 3)
    for number in range(10):
        ground.log.put("log.default.task.1", {"Bus-Type": f"task.{number}"}, b"{}")
    worker = await ground.run(lambda worker: _reach(worker, 10))
    assert (len(worker.skipped), worker.skipped["other"]) == (4, 7)


async def test_far_behind_it_writes_large_batches_and_never_gathers_too_much(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIVE_EVENTS", 100)
    monkeypatch.setattr(module, "BEHIND_EVENTS", 700)
    monkeypatch.setattr(module, "SLICE_EVENTS", 50)
    sizes: list[int] = []
    for _ in range(3000):
        ground.post()

    async def work(worker: Worker) -> None:
        worker.on_written(lambda events: sizes.append(len(events)))
        assert await worker.reached(3000)

    await ground.run(work)
    assert max(sizes) <= 750
    assert max(sizes[:3]) >= 500


async def test_large_bodies_make_small_batches(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(module, "SLICE_EVENTS", 1)
    sizes: list[int] = []
    for _ in range(20):
        ground.post(ChannelPosted(text="x" * 4000))

    async def work(worker: Worker) -> None:
        worker.on_written(lambda events: sizes.append(len(events)))
        assert await worker.reached(20)

    await ground.run(work)
    assert max(sizes) <= 3


async def test_a_write_that_fails_is_tried_until_it_succeeds(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    fails, problems = [2], []
    commit = Store.commit

    def unlucky(store: Store, batch: Batch) -> None:
        if fails[0]:
            fails[0] -= 1
            raise Unavailable("the tables cannot be written", code="storage", found="no room")
        commit(store, batch)

    monkeypatch.setattr(Store, "commit", unlucky)

    async def work(worker: Worker) -> None:
        ground.post()
        with capture_logs() as logs:
            assert await worker.reached(1)
        problems.extend(logs)

    worker = await ground.run(work)
    assert len(problems) == 2
    assert worker.problem is None
    assert worker.position == 1


async def test_nothing_is_written_while_it_is_paused(ground: Ground) -> None:
    async def work(worker: Worker) -> None:
        ground.post()
        assert await worker.reached(1)
        async with worker.paused() as position:
            ground.post()
            assert position == 1
            assert not await worker.reached(2, 0.05)
        assert await worker.reached(2)

    await ground.run(work)
