"""Random commands, valid and not, and records no command makes, folded in random batches: at every seq every table is
what a plain dictionary of states says, whatever the batches were, after a kill, and in a rebuild."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.clock import EPOCH
from bus.domain import channel, task_requests
from bus.events import Record
from bus.log import MemoryLog
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections import replay
from projections.batch import CHAIN_START, link
from projections.reader import Reader
from projections.schema import discover
from projections.store import FILE, MANY_ROWS, Store
from projections.worker import Worker
from tests.property.clockwork import Time
from tests.property.folding import SCHEMA_, Folding
from tests.property.states import expected, oracle
from tests.property.steps import AGENTS, Step, happen, steps


def whole(store: Store, table: str) -> list[tuple[Any, ...]]:
    return [row for rows in store.chunks(f'select * from "{table}"') for row in rows]


def check(store: Store, records: Sequence[Record]) -> None:
    """Every table at every seq is what the oracle says, and the chain is that of the records."""
    assert store.chain == reduce(link, records, CHAIN_START)
    tables = {name: whole(store, name) for name in SCHEMA_.tables}
    assert [row[0] for row in tables["event"]] == list(range(1, len(records) + 1))
    for event, known in oracle(records):
        for name, table in SCHEMA_.tables.items():
            if table.has_end:
                valid = [row for row in tables[name] if row[1] <= event.seq < row[2]]
                rows = [row[:2] + row[3:] for row in valid]
                assert len(set(rows)) == len(rows)
                assert set(rows) == expected(known, name), (name, event.seq)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)
@given(
    what=steps,
    cuts=st.sets(st.integers(1, 60), max_size=12),
    kill=st.integers(0, 12),
    moment=st.integers(0, 60),
    as_text=st.booleans(),
)
def test_every_table_at_every_seq_is_what_a_dictionary_says(
    what: list[Step], cuts: set[int], kill: int, moment: int, as_text: bool
) -> None:
    clock = Time()
    log = MemoryLog(CODEC, clock.stamp_ns)
    executor = anyio.run(happen, log, clock, what)
    records = log.records
    bounds = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    with tempfile.TemporaryDirectory() as folder:
        # What is folded anew below is written row by row, so the digests are also those of two ways of writing.
        with mock.patch("projections.store.MANY_ROWS", 1 if as_text else MANY_ROWS):
            folding = Folding(Path(folder) / FILE)
            for number, (start, end) in enumerate(pairwise(bounds)):
                if number == kill:
                    folding = folding.killed(Path(folder) / "after.duckdb")
                folding.fold(records[start:end])
        check(folding.store, records)
        same_world(folding.store, executor.world)
        anyio.run(rebuilt, log, folding.store, Path(folder), min(moment, len(records)))
        anyio.run(folding.store.close)


def same_world(store: Store, world: World) -> None:
    """Loading the tables gives the world that folding gave, to the seq."""
    loaded = World(FAMILIES)
    store.load_world(loaded)
    assert (loaded.position, loaded.tips, loaded.skipped) == (world.position, world.tips, world.skipped)
    for family in FAMILIES:
        ours = {(namespace, key): entry for namespace, key, entry in loaded.entries(family.state)}
        theirs = {(namespace, key): entry for namespace, key, entry in world.entries(family.state)}
        assert ours == theirs


async def rebuilt(log: MemoryLog, store: Store, folder: Path, seq: int) -> None:
    """A fold of the raw log to `seq` has the digests that the tables have as of `seq`, and SQL as of `seq` is right."""
    async with replay.fold_log(log, SCHEMA_, seq, folder) as scratch:
        compared = await replay.compare(store, scratch.store, seq)
        assert all(table.equal for table in compared.values()), compared
        if seq == store.position:
            assert scratch.store.chain == store.chain
    known = next((known for event, known in oracle(log.records) if event.seq == seq), {})

    def read(reader: Reader) -> dict[str, set[Any]]:
        ended = [name for name, table in SCHEMA_.tables.items() if table.has_end]
        return {name: set(reader.rows(f"select * from {reader.at(name)}")) for name in ended}

    for name, rows in (await store.read(seq, "", EPOCH, read, sees_all=True)).items():
        assert rows == expected(known, name)
    for name, rows in (await store.read(seq, "bob", EPOCH, read)).items():
        hidden = name.startswith(("dm", "memory", "session"))
        mine = {row for row in expected(known, name) if not hidden or row[-1] is None or "|bob|" in row[-1]}
        assert rows == mine


async def test_a_worker_that_follows_a_growing_log_writes_what_one_big_batch_gives(tmp_path: Path) -> None:
    clock = Time()
    log = MemoryLog(CODEC, clock.stamp_ns)
    what: list[Step] = []
    for number in range(40):
        one, task = AGENTS[number % 3], f"t-{number + 10}"
        what += [
            (one, channel.Join(channel="dev")),
            (one, channel.Post(channel="dev", text=f"round {number}")),
            (one, task_requests.Open(title="t", task=task, labels=("a", f"l{number}"))),
            (one, task_requests.Claim(task=task, lease_s=1)),
            1_500_000_000 if number % 2 else 1,
            (one, task_requests.Complete(task=task)),
        ]
    world = World(FAMILIES)
    async with Store.opened(tmp_path, FAMILIES, discover(), log) as store:
        worker = Worker(log, store, world.fold, clock)
        async with anyio.create_task_group() as tasks_:
            tasks_.start_soon(worker.run)
            await happen(log, clock, what)
            assert await worker.reached(len(log.records), 20)
            tasks_.cancel_scope.cancel()
        check(store, log.records)
        same_world(store, world)
        await rebuilt(log, store, tmp_path, len(log.records))
