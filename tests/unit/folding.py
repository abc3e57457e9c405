"""A log in memory and a store that a test folds it into by hand, with a view of its own beside the event table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus.clock import EPOCH
from bus.domain.task import TaskOpened
from bus.events import Draft, Event, Fact, RequestId
from bus.log import MemoryLog
from bus.operation import CODEC, FAMILIES
from bus.subjects import TENANT, bucket_of
from bus.world import World
from projections.batch import Projection
from projections.reader import Reader
from projections.schema import FactTable, FactView
from projections.store import Store

T0 = 1_760_000_000_000_000_000
SEEN = FactTable("seen", (("seq", "BIGINT"), ("what", "VARCHAR"), ("number", "BIGINT"), ("audience", "VARCHAR")))


def fold(event: Event) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """A view that stumbles over some titles."""
    if isinstance(event.fact, TaskOpened):
        match event.fact.title:
            case "raises":
                raise RuntimeError
            case "narrow":
                yield "seen", (event.seq,)
            case "unstorable":
                yield "seen", (event.seq, "no number", "not a number", None)
            case "huge":
                yield "seen", (event.seq, "bad \ud800 text", 10**30, None)
            case _:
                yield "seen", (event.seq, event.fact.title, event.seq, f"|{event.agent}|")


VIEW = FactView(tables=(SEEN,), fold=fold)


def put(log: MemoryLog, family: str, entity: str, fact: Fact, agent: str = "ada", **known: Any) -> int:
    """Put an event into a log that nobody decided. -> its seq"""
    draft = Draft(
        id=f"id-{len(log.records) + 1}",
        family=family,
        bucket=bucket_of(entity),
        entity=entity,
        agent=agent,
        fact=fact,
        **{"namespace": "default", **known},
    )
    return log.put(draft.subject, *CODEC.encode(draft))


class Folding:
    """A log, and a store that is told what happens in it."""

    def __init__(self, store: Store) -> None:
        self.log = MemoryLog(CODEC, self._now)
        self.store = store
        self.times: list[int] = []
        self.world = World(FAMILIES)
        self.rows = Projection(store.schema, store.position, store.stored_ns, store.chain)

    def _now(self) -> int:
        return self.times.pop(0) if self.times else T0 + len(self.log.records) * 1_000_000_000

    def happens(self, family: str, entity: str, fact: Fact, agent: str = "ada", **known: Any) -> int:
        namespace = TENANT if family == "dm" else "default"
        seq = put(self.log, family, entity, fact, agent, namespace=namespace, **known)
        self.take()
        return seq

    def take(self) -> None:
        record = self.log.records[-1]
        event = CODEC.decode(record)
        self.rows.take([record], [event], [self.world.fold(event)])

    def write(self) -> None:
        self.store.commit(self.rows.cut())

    async def rows_of(self, table: str, seq: int | None = None, agent: str = "ada", **known: Any) -> list[Any]:
        def read(reader: Reader) -> list[Any]:
            return reader.rows(f"select * from {reader.at(table)} order by all")

        return await self.store.read(self.store.position if seq is None else seq, agent, EPOCH, read, **known)


class Remembered:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []

    def remember(self, agent: str, request: RequestId, seq: int) -> None:
        self.seen.append((agent, request.id, seq))
