"""Reading the past: what the daemon answers, and the same without a daemon."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from time import process_time
from typing import Any

from bench.clients import Spec, Watch, bus_of
from bench.clients import now as clock
from bench.crew import Result
from bench.history import CHANNELS, agent_of
from bus.clock import EPOCH
from bus.domain import channel, inbox, task_requests
from bus.model import Query
from bus.operation import FAMILIES
from bus.world import World
from projections import query as queries
from projections.reader import Reader
from projections.schema import Schema, discover
from projections.store import Store
from projections.views import events
from projections.views.messages import place_of

KINDS = ("entity", "tail", "board", "list", "inbox")
NOW: datetime = EPOCH
INBOX_SEQS = 50_000
"""So far back lies what was acknowledged last."""


def requests(spec: Spec, kind: str) -> list[tuple[Query, int]]:
    """(request, moment) pairs, the same for everybody who asks with the same seed."""
    pick = random.Random(spec["seed"])
    found: list[tuple[Query, int]] = []
    for _ in range(spec["count"]):
        namespace, key, first = pick.choice(spec["tasks"])
        moment = pick.randint(first, spec["upto"])
        request: Query
        if kind == "entity":
            request = task_requests.Show(task=key, namespace=namespace, as_of=moment)
        elif kind == "tail":
            moment = pick.randint(spec["upto"] // 10, spec["upto"])
            name = f"channel-{pick.randrange(CHANNELS):02}"
            request = channel.Read(channel=name, namespace=namespace, as_of=moment)
        elif kind == "board":
            request = task_requests.Board(namespace=namespace, as_of=moment)
        elif kind == "inbox":
            request = inbox.Peek(as_of=moment, since=max(0, moment - INBOX_SEQS))
        else:
            request = task_requests.List(namespace=namespace, as_of=moment, limit=50)
        found.append((request, moment))
    return found


async def ask(spec: Spec) -> AsyncIterator[Result | None]:
    """Ask the daemon, one query after another; `until`: only once its tables contain that event."""
    async with bus_of(spec) as bus:
        yield None
        if "until" in spec:
            await bus.call(channel.List(after=spec["until"], limit=1))
        watch = Watch()
        took: dict[str, list[float]] = {}
        for kind in spec.get("kinds", KINDS):
            asked = requests(spec, kind)
            took[kind] = []
            for request, _ in asked:
                start = clock()
                await bus.call(request)
                took[kind].append(clock() - start)
        yield watch.result(**took)


async def direct(spec: Spec) -> AsyncIterator[Result | None]:
    """The same handlers on the same tables in this process, and the barest SQL that answers."""
    schema = Schema(FAMILIES, discover(), events.EVENT)
    store = Store(Path(spec["path"]), schema)
    world = World(FAMILIES)
    store.load_world(world)
    store.indexes.step(store.position, store.chunks)  # As in a daemon, times and versions are known from memory.
    handlers = queries.answerers()
    yield None
    watch = Watch()
    took: dict[str, list[float]] = {}
    try:
        for kind in KINDS:
            asked = requests(spec, kind)
            handler = handlers[type(asked[0][0])].handle
            times = [await _timed(store, moment, _handled(handler, request)) for request, moment in asked]
            took[kind], took[f"cpu {kind}"] = [list(each) for each in zip(*times, strict=True)]
            if (bare := BARE.get(kind)) is not None:
                times = [await _timed(store, moment, _handled(bare, request)) for request, moment in asked]
                took[f"bare {kind}"] = [wall for wall, _ in times]
    finally:
        await store.close()
    yield watch.result(**took)


def _handled(handler: Callable[[Any, Any], Any], request: Query) -> Callable[[Reader], tuple[float, float]]:
    def run(reader: Reader) -> tuple[float, float]:
        start, busy = clock(), process_time()
        handler(reader, request)
        return clock() - start, process_time() - busy

    return run


async def _timed(store: Store, moment: int, fn: Callable[[Reader], tuple[float, float]]) -> tuple[float, float]:
    """Seconds in the thread that reads, and of the processors; handing over to it is not the database's."""
    return await store.read(moment, agent_of(0), NOW, fn)


def _bare_tail(reader: Reader, request: channel.Read) -> None:
    place = place_of("channel", request.namespace, request.channel)
    floor = reader.seq - 20_000
    reader.rows(f"select * from message where place = {place} and seq between {floor} and {reader.seq} order by seq")


def _bare_namespace(reader: Reader, request: task_requests.Board) -> None:
    columns = "kid, task, state, owner, priority, opened"
    reader.rows(f"select {columns} from {reader.at('task')} where namespace = '{request.namespace}'")


BARE: dict[str, Callable[[Any, Any], Any]] = {"tail": _bare_tail, "board": _bare_namespace}
