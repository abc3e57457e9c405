"""Time and randomness: exact conversions, ids, and server time that survives bad samples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import clock
from bus.clock import EPOCH, STEP_NS, RandomIds, SystemClock, from_ns, to_ns


@given(st.integers(0, 250_000_000_000_000_000))
def test_instants_are_exact_to_the_microsecond(microseconds: int) -> None:
    instant = from_ns(microseconds * 1000 + 999)
    assert to_ns(instant) == microseconds * 1000
    assert instant.tzinfo is UTC


def test_instants_of_other_zones() -> None:
    moment = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert from_ns(to_ns(moment)) == moment
    assert to_ns(EPOCH) == 0


def test_event_ids_are_uuids_of_version_7() -> None:
    ids = {RandomIds().event_id() for _ in range(1000)}
    assert len(ids) == 1000
    for text in ids:
        parts = text.split("-")
        assert [len(part) for part in parts] == [8, 4, 4, 4, 12]
        assert parts[2][0] == "7"
        assert parts[3][0] in "89ab"


def test_short_ids_have_no_look_alikes() -> None:
    names = {RandomIds().short("t") for _ in range(1000)}
    assert len(names) == 1000
    for name in names:
        prefix, _, rest = name.partition("-")
        assert (prefix, len(rest)) == ("t", 10)
        assert not set(rest) & set("1ilo")


class Times:
    """Stands in for the operating system's clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monotonic = 5_000_000_000
        self.wall = 10**18
        monkeypatch.setattr(clock.time, "monotonic_ns", lambda: self.monotonic)
        monkeypatch.setattr(clock.time, "time_ns", lambda: self.wall)


def test_server_time_goes_on_with_the_monotonic_clock_whatever_the_wall_says(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    host = SystemClock()
    assert host.server_ns() == times.wall
    host.observe(3 * 10**18)
    times.monotonic += 7
    times.wall -= 10**17
    assert host.server_ns() == 3 * 10**18 + 7
    assert host.monotonic_ns() == times.monotonic


def test_a_late_sample_does_not_turn_time_back_and_a_better_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    host = SystemClock()
    host.observe(10**18)
    times.monotonic += 1000
    host.observe(10**18 + 400)
    assert host.server_ns() == 10**18 + 1000
    host.observe(10**18 + 1500)
    assert host.server_ns() == 10**18 + 1500


def test_a_server_whose_clock_was_set_back_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    Times(monkeypatch)
    host = SystemClock()
    host.observe(10**18)
    host.observe(10**18 - STEP_NS)
    assert host.server_ns() == 10**18
    host.observe(10**18 - STEP_NS - 1)
    assert host.server_ns() == 10**18 - STEP_NS - 1
