"""How fast recall is, beside what the bare look-up takes: `python -m ops.eval [ITEMS …]`.

Rules:
* Half of the items are entries of the memory, half messages of a few channels, of 20 to 60 words with the frequencies
  of a language. They are folded into tables as a daemon does it; what is timed is the handler of the query, in a
  thread, with everything it reads from the tables.
* `cpu` is what all threads of the process take for one question on average: on a machine that is busy with something
  else, that says more than the time it took.
* `bare` is the ranking alone, without reading what it chose; `past` asks as of the middle of the log.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio

from bus.clock import EPOCH
from bus.domain.channel import ChannelPosted
from bus.domain.memory import MemoryWritten
from bus.domain.recall import Recall
from bus.events import Draft, Fact, Record
from bus.operation import CODEC, FAMILIES, FAMILY_OF
from bus.subjects import bucket_of
from bus.world import World
from projections import query
from projections.batch import Projection
from projections.lexical_rows import SLICE
from projections.reader import Reader
from projections.recall import Ranking
from projections.schema import Schema, discover
from projections.store import FILE, Store
from projections.views.events import EVENT

WORDS = 20_000
BATCH = 5_000
ASKED = 100
START_NS = 1_900_000_000_000_000_000


def records(items: int, chance: random.Random) -> Iterator[Record]:
    """Made-up items, one a second."""
    vocabulary = [f"w{number}" for number in range(WORDS)]
    weights = [1 / (number + 2) for number in range(WORDS)]
    for seq in range(1, items + 1):
        text = " ".join(chance.choices(vocabulary, weights, k=chance.randint(20, 60)))
        fact: Fact = ChannelPosted(text=text)
        entity = f"c{seq % 7}"
        if seq % 2:
            entity, fact = f"m-{seq}", MemoryWritten(content=text, scope="shared", subject=f"s{seq % 5000}")
        family = FAMILY_OF[fact.type.partition(".")[0]]
        bucket = bucket_of(family.bucket_key(entity))
        draft = Draft(
            id=f"e{seq}",
            namespace="default",
            family=family.name,
            bucket=bucket,
            entity=entity,
            agent=f"a{seq % 11}",
            fact=fact,
        )
        headers, body = CODEC.encode(draft)
        yield Record(seq, START_NS + seq * 1_000_000_000, draft.subject, headers, body)


def folded(folder: Path, items: int, chance: random.Random) -> Store:
    """Tables with so many items."""
    store = Store(folder / FILE, Schema(FAMILIES, discover(), EVENT), durable=False)
    world = World(FAMILIES)
    store.load_world(world)
    rows = Projection(store.schema)
    for record in records(items, chance):
        event = CODEC.decode(record)
        rows.take(record, event, world.fold(event))
        if record.seq % BATCH == 0:
            store.commit(rows.cut())
    store.commit(rows.cut())
    return store


async def measure(items: int) -> None:
    """Print one line of figures."""
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = folded(Path(folder), items, chance)
        fold_s = time.perf_counter() - start
        start = time.perf_counter()
        busy = time.process_time()
        for _ in range(-(-items // SLICE)):
            await store.index()
        index_s, index_cpu_s = time.perf_counter() - start, time.process_time() - busy
        asked = [" ".join(f"w{chance.randint(0, 3000)}" for _ in range(6)) for _ in range(ASKED)]
        handle = query.answerers()[Recall].handle
        bare = await _timed(store, items, asked, _rank)
        now = await _timed(store, items, asked, lambda reader, text: handle(reader, Recall(query=text)))
        past = await _timed(store, items // 2, asked, lambda reader, text: handle(reader, Recall(query=text)))
        figures = " ".join(
            f"{name} p50 {one[0]:.1f} p99 {one[1]:.1f} cpu {one[2]:.1f} ms"
            for name, one in (("bare", bare), ("now", now), ("past", past))
        )
        print(
            f"{items} items: tables {fold_s:.1f} s, words {index_s:.1f} s (cpu {index_cpu_s:.1f} s); {figures}",
            flush=True,
        )
        await store.close()


def _rank(reader: Reader, text: str) -> Any:
    with reader.index() as index:
        return next(Ranking(index, text, reader.seq, ("default", "_"), reader.may_see).best(("memory", "message"), 20))


async def _timed(
    store: Store, seq: int, asked: list[str], ask: Callable[[Reader, str], Any]
) -> tuple[float, float, float]:
    """p50, p99 and the mean of the time on processors, in milliseconds."""
    took, busy = [], time.process_time()
    for text in asked:
        start = time.perf_counter()
        await store.read(seq, "a1", EPOCH, lambda reader, text=text: ask(reader, text))  # type: ignore[misc]
        took.append(1000 * (time.perf_counter() - start))
    took.sort()
    cpu = 1000 * (time.process_time() - busy) / len(asked)
    return statistics.median(took), took[int(len(took) * 0.99)], cpu


if __name__ == "__main__":
    for count in map(int, sys.argv[1:] or ("10000", "100000")):
        anyio.run(measure, count)
