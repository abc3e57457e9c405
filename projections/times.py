"""When events were stored, in memory: whoever asks as of a moment would pay a statement for the time of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np

from bus.clock import EPOCH
from projections.batch import Batch
from projections.columns import Column
from projections.schema import naive
from projections.slices import Chunks, Following
from projections.views.events import EVENT

_SEQ, _TIME, _STORED = (list(EVENT.columns).index(name) for name in ("seq", "time", "stored_ns"))
_START, _MICROSECOND = naive(EPOCH), timedelta(microseconds=1)
NEVER = int(np.iinfo(np.int64).min)
"""Stands for no time."""


class Times:
    """By seq, from 1 on: when that event was stored, in microseconds, and the latest time up to it, in nanoseconds."""

    def __init__(self) -> None:
        self._time, self._stored = Column(np.int64), Column(np.int64)

    def extend(self, seqs: Sequence[int], time: Any, stored: Any, upto: int) -> None:
        """What the events up to that one added, in their order. An event that no table could hold has no time."""
        after = self._time.size
        places = np.array(seqs, np.int64) - after - 1
        at, latest = np.full(upto - after, NEVER), np.full(upto - after, NEVER)
        at[places], latest[places] = time, stored
        latest[:1] = max(latest[0], int(self._stored.values[-1]) if after else 0)
        self._time.extend(at)
        self._stored.extend(np.maximum.accumulate(latest))

    def time_of(self, seq: int) -> datetime | None:
        """See Reader.time_of."""
        time = int(self._time.values[seq - 1]) if seq > 0 else NEVER
        return EPOCH + timedelta(microseconds=time) if time != NEVER else None

    def seq_at(self, time_ns: int, upto: int) -> int:
        """See Reader.seq_at."""
        return int(np.searchsorted(self._stored.values[:upto], time_ns, "right"))


class Moments(Following[Times]):
    """The times of all events."""

    slice = 20_000

    def __init__(self) -> None:
        super().__init__(Times())

    def _read(self, chunks: Chunks, after: int, upto: int) -> int:
        sql = f"select seq, epoch_us(time), stored_ns from event where seq > {after} and seq <= {upto} order by seq"
        self._take(chain.from_iterable(chunks(sql)), upto)
        return upto

    def _follow(self, batch: Batch) -> None:
        rows = batch.rows.get(EVENT.name, ())
        self._take(((row[_SEQ], (row[_TIME] - _START) // _MICROSECOND, row[_STORED]) for row in rows), batch.upto)

    def _take(self, rows: Iterator[Sequence[int]], upto: int) -> None:
        seqs, time, stored = tuple(zip(*rows, strict=True)) or ((), (), ())
        self._kept.extend(seqs, time, stored, upto)
