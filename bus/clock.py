"""The only sources of time and randomness.

Rules: nothing else in the project asks the operating system for the time of day or for random numbers. Deadlines are
judged in *server time*: the time the log's server stamped on events, carried forward by this host's monotonic clock,
so a host whose clock is wrong or jumps cannot expire anybody's lease.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEP_NS = 2_000_000_000
_VERSION_7 = 0x7 << 76 | 0x2 << 62
_RANDOM_BITS = (1 << 80) - 1 & ~(0xF << 76 | 0x3 << 62)


def from_ns(ns: int) -> datetime:
    """An instant given in nanoseconds since 1970, as an aware datetime (cut to microseconds)."""
    return EPOCH + timedelta(microseconds=ns // 1000)


def to_ns(instant: datetime) -> int:
    """Nanoseconds since 1970 of an aware datetime, exactly."""
    delta = instant - EPOCH
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


class Ids(Protocol):
    """Where new identifiers come from (random in production, seeded in simulation)."""

    def event_id(self) -> str: ...

    def short(self, prefix: str) -> str: ...


class Clock(Protocol):
    """Monotonic time and the server's time, both in nanoseconds."""

    def monotonic_ns(self) -> int: ...

    def server_ns(self) -> int: ...

    def observe(self, server_ns: int) -> None: ...

    def advance(self, server_ns: int) -> None: ...


class RandomIds:
    """UUIDv7 event ids (RFC 9562 section 5.7: 48 bits of milliseconds, then random) and short readable names.

    Event ids are random and never derived from content: the server drops a second event under a known id.
    """

    def event_id(self) -> str:
        random = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS
        h = f"{time.time_ns() // 1_000_000 << 80 | _VERSION_7 | random:032x}"
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"

    def short(self, prefix: str) -> str:
        """`prefix-` and ten characters of a 32-letter alphabet without look-alikes (50 bits)."""
        n = int.from_bytes(os.urandom(7), "big")
        return f"{prefix}-" + "".join("abcdefghjkmnpqrstuvwxyz023456789"[n >> 5 * i & 31] for i in range(10))


class SystemClock:
    """Server time learned from live events and server replies, carried forward by the monotonic clock.

    A sample can only be late (it travelled), so the largest offset is the best one. What the server says its time is
    now is believed even when it is far behind: its clock was set back. The time of an event is not, because the event
    may be an old one.
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def server_ns(self) -> int:
        if self._offset_ns is None:
            return time.time_ns()
        return time.monotonic_ns() + self._offset_ns

    def observe(self, server_ns: int) -> None:
        """The server says that this is its time now."""
        offset = server_ns - time.monotonic_ns()
        if self._offset_ns is None or offset > self._offset_ns or offset < self._offset_ns - STEP_NS:
            self._offset_ns = offset

    def advance(self, server_ns: int) -> None:
        """An event was stored at this time, now or earlier."""
        if self._offset_ns is not None:
            self._offset_ns = max(self._offset_ns, server_ns - time.monotonic_ns())
