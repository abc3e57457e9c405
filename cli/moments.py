"""Moments as people write them: `1042` or `#1042`, `-10m` or `-1h30m`, `2030-01-31T12:00:00Z`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bus.clock import EPOCH
from bus.durations import duration
from bus.errors import InvalidRequest


def parse_moment(text: str, now: datetime) -> datetime | int:
    """A seq, a time ago (as `duration` reads it), or an ISO 8601 instant (UTC unless it says so). Raises
    InvalidRequest."""
    text = text.strip()
    if text.removeprefix("#").isdecimal() and len(text) < 17:
        return int(text.removeprefix("#"))
    try:
        if text.startswith("-") and text[-1:].isalpha():
            return _ago(now, duration(text[1:]))
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            "bad moment",
            code="bad_moment",
            expected="a seq, an ISO instant such as 2030-01-31T12:00:00Z, or a time ago such as -10m",
            found=repr(text[:80]),
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _ago(now: datetime, seconds: float) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return EPOCH
