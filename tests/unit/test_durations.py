"""Durations as people write them, and what is none."""

from __future__ import annotations

import pytest

from bus.durations import duration, duration_text


@pytest.mark.parametrize(
    ("word", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5)]
)
def test_durations(word: str, seconds: float) -> None:
    assert duration(word) == seconds


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 90, 600, 3600, 5400, 86_400, 604_800, 0.5])
def test_durations_survive_being_shown(seconds: float) -> None:
    assert duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    "word", ["", "m", "10x", "-5m", "1e3", "10 m x", "ten", "nan", "inf", "9" * 400 + "d", "9" * 400, "٣m"]
)
def test_what_is_no_duration(word: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(word)


def test_whole_seconds_only_where_they_are_wanted() -> None:
    assert (duration("90m", whole=True), duration("1.5")) == (5400, 1.5)
    with pytest.raises(ValueError, match="whole seconds"):
        duration("500ms", whole=True)
