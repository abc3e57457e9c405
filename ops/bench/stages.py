"""Folding the log, stage by stage and as a whole."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.clients import Spec, Watch, raw_connection
from bench.crew import Result
from bus.jetstream import JetStreamLog
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections.batch import Projection
from projections.replay import BATCH_EVENTS, fold_log
from projections.schema import Schema, discover
from projections.store import FILE, Store
from projections.views import events


async def measure(spec: Spec) -> AsyncIterator[Result | None]:
    """Seconds of each stage for the events up to `upto`, one after another; then `fold_log`, which overlaps them."""
    async with raw_connection(spec) as connection:
        log = JetStreamLog(connection, CODEC)
        schema = Schema(FAMILIES, discover(), events.EVENT)
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
