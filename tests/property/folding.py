"""Tables that a test folds records into, in batches of any size."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio

from bus.events import Record
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections.batch import Projection
from projections.schema import Schema, discover
from projections.store import Store
from projections.views.events import EVENT

SCHEMA_ = Schema(FAMILIES, discover(), EVENT)


class Folding:
    """Folds records into a store in batches of any size."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, SCHEMA_)
        self.world = World(FAMILIES)
        self.store.load_world(self.world)
        self.rows = Projection(SCHEMA_, self.store.position, self.store.stored_ns, self.store.chain)

    def fold(self, records: Sequence[Record]) -> None:
        for size in (1, 2, len(records)):  # However the events are cut into slices, the tables are the same.
            part, records = records[:size], records[size:]
            if part:
                events = [CODEC.decode(record) for record in part]
                self.rows.take(part, events, [self.world.fold(event) for event in events])
        self.store.commit(self.rows.cut())

    def killed(self, path: Path) -> Folding:
        """The same after a kill: a new process finds the files as they are now."""
        for suffix in ("", ".wal"):
            if (old := Path(f"{self.store.path}{suffix}")).exists():
                shutil.copy(old, f"{path}{suffix}")
        anyio.run(self.store.close)
        return Folding(path)
