"""Folding the log, stage by stage and as a whole, and the least that any projector does: reading it into one table."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import msgspec

from bench.clients import Spec, Watch, raw_connection
from bench.crew import Result
from bus.events import AGENT, ENTITY, TYPE, Record
from bus.jetstream import JetStreamLog
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections.batch import Projection
from projections.replay import BATCH_EVENTS, fold_log
from projections.schema import Schema, discover
from projections.store import FILE, Store
from projections.views import events


async def measure(spec: Spec) -> AsyncIterator[Result | None]:
    """Seconds of each stage for the events up to `upto`, one after another; then of `fold_log`, which overlaps them,
    and of `_bare`."""
    schema = Schema(FAMILIES, discover(), events.EVENT)  # Before there is a connection that has to answer pings.
    async with raw_connection(spec) as connection:
        log = JetStreamLog(connection, CODEC)
        yield None
        watch = Watch()
        gc.disable()  # As a replay does.
        with TemporaryDirectory(prefix="stages-", dir=spec["directory"]) as scratch:
            took, cpu = await _stages(log, schema, spec["upto"], Path(scratch))
        gc.enable()
        start, busy = time.perf_counter(), time.process_time()
        async with fold_log(log, schema, spec["upto"], Path(spec["directory"])):
            took["fold_log"] = time.perf_counter() - start
            cpu["fold_log"] = time.process_time() - busy
        with TemporaryDirectory(prefix="bare-", dir=spec["directory"]) as scratch:
            start, busy = time.perf_counter(), time.process_time()
            await _bare(log, spec["upto"], Path(scratch))
            took["bare"], cpu["bare"] = time.perf_counter() - start, time.process_time() - busy
        yield watch.result(count=spec["upto"], took=took, cpu=cpu)


STAGES = ("read", "decode", "fold", "rows", "store")


async def _stages(
    log: JetStreamLog, schema: Schema, upto: int, scratch: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each stage, and of the processors."""
    took, cpu = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)
    world, rows = World(FAMILIES), Projection(schema)
    store = Store(scratch / FILE, schema, durable=False)
    wall_s, cpu_s = time.perf_counter(), time.process_time()

    def ended(stage: str) -> None:
        nonlocal wall_s, cpu_s
        now_s, used_s = time.perf_counter(), time.process_time()
        took[stage] += now_s - wall_s
        cpu[stage] += used_s - cpu_s
        wall_s, cpu_s = now_s, used_s

    waiting = []
    async for records in log.read(0, upto):
        waiting += records
        if len(waiting) < BATCH_EVENTS and records[-1].seq < upto:
            continue
        ended("read")
        found = [CODEC.decode(record) for record in waiting]
        ended("decode")
        changes = [world.fold(event) for event in found]
        ended("fold")
        rows.take(waiting, found, changes)
        batch = rows.cut()
        ended("rows")
        store.commit(batch)
        ended("store")
        waiting = []
    await store.close()
    return took, cpu


async def _bare(log: JetStreamLog, upto: int, scratch: Path) -> None:
    """Read the log, decode bodies without checking them, and store one narrow row an event beside the reading: no
    envelope, no chain, no states, nothing that could be asked as of a moment."""
    database = duckdb.connect(str(scratch / "bare.duckdb"))
    database.execute(
        "create table bare (seq bigint, time bigint, place text, type text, entity text, agent text, data text)"
    )
    appender, writer = database.appender("bare"), ThreadPoolExecutor(1, "bare")
    rows: list[tuple[Any, ...]] = []
    written: Future[None] | None = None

    def write(rows: Sequence[tuple[Any, ...]]) -> None:
        database.execute("begin").fetchall()
        appender.append_rows(rows)
        appender.flush()
        database.execute("commit").fetchall()

    with writer, database:
        async for records in log.read(0, upto):
            rows += map(_row, records)
            if len(rows) >= BATCH_EVENTS or records[-1].seq == upto:
                if written is not None:
                    await asyncio.wrap_future(written)
                written, rows = writer.submit(write, rows), []
        if written is not None:
            await asyncio.wrap_future(written)


def _row(record: Record) -> tuple[Any, ...]:
    get, data = record.headers.get, record.data
    msgspec.json.decode(data)
    return record.seq, record.time_ns, record.subject, get(TYPE), get(ENTITY), get(AGENT), data.decode()
