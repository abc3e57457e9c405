"""When events were stored: from memory and from the tables, whatever has been taken in since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from bus.clock import EPOCH, from_ns
from bus.domain.channel import ChannelPosted
from bus.operation import FAMILIES
from projections.reader import Reader
from projections.schema import discover
from projections.store import Store
from projections.times import Moments
from tests.unit.folding import T0, Folding

SECOND = 1_000_000_000
LATE = T0 + 90 * SECOND


@pytest.fixture
async def folding(tmp_path: Path) -> Iterator[Folding]:
    async with Store.opened(tmp_path, FAMILIES, discover()) as store:
        yield Folding(store)  # type: ignore[misc]


def say(folding: Folding, *times: int) -> None:
    folding.times = list(times)
    for _ in times:
        folding.happens("channel", "dev", ChannelPosted(text="news"), "bob")
    folding.write()


async def known(folding: Folding) -> tuple[list[datetime | None], list[int]]:
    """The time of every event and of its neighbours, and the last event of every moment."""
    moments = [0, *(time + more for time in range(T0, LATE + 2 * SECOND, SECOND) for more in (-1, 0, 1))]

    def read(reader: Reader) -> tuple[list[datetime | None], list[int]]:
        return [reader.time_of(seq) for seq in range(reader.seq + 2)], [reader.seq_at(time) for time in moments]

    return await folding.store.read(folding.store.position, "ada", EPOCH, read)


async def test_memory_says_what_the_tables_say(folding: Folding) -> None:
    moments = folding.store.indexes.moments
    say(folding, T0 + 1_999, T0 + SECOND, LATE, T0 + 3 * SECOND)  # The clock was set back once.
    stored = await known(folding)
    assert moments.position == 0, "nobody has asked yet"
    assert stored[0] == [None, *map(from_ns, (T0 + 1_000, T0 + SECOND, LATE, T0 + 3 * SECOND)), None]
    assert moments.step(folding.store.position, folding.store.chunks)
    assert await known(folding) == stored
    say(folding, T0 + 4 * SECOND, LATE + SECOND)
    assert moments.position == 6, "what is written is taken in"
    kept = await known(folding)
    folding.store.indexes.moments = Moments()
    assert await known(folding) == kept
    assert max(kept[1]) == 6


async def test_as_of_an_earlier_event_nothing_is_known_of_later_ones(folding: Folding) -> None:
    say(folding, T0, T0 + SECOND, T0 + 2 * SECOND)
    for _ in range(2):
        assert await folding.store.read(2, "ada", EPOCH, lambda reader: reader.seq_at(LATE)) == 2
        folding.store.indexes.moments.step(3, folding.store.chunks)


async def test_an_event_that_no_table_holds_has_no_time(folding: Folding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Moments, "slice", 2)
    say(folding, T0, T0 + SECOND, T0 + 2 * SECOND)
    folding.store._all("delete from event where seq = 2")
    while not folding.store.indexes.moments.step(3, folding.store.chunks):
        pass
    kept = await known(folding)
    assert kept[0] == [None, from_ns(T0), None, from_ns(T0 + 2 * SECOND), None]
    assert await folding.store.read(3, "ada", EPOCH, lambda reader: reader.seq_at(T0)) == 2
    folding.store.indexes.moments = Moments()
    assert await known(folding) == kept
