"""When something is due: instants within reach, and what comes again at intervals or by a cron expression.

Rules:
* Nothing is due in the past or more than five years ahead: further ahead it is a mistake, not a plan.
* What comes again is a duration of at least a minute (`90m`, `1d`), counted from when it began, or a cron expression of
  five fields, read in UTC unless a time zone is given.
* Only what decides asks for the next instant, and writes it into the fact: a fold never works one out, so clocks that
  change between summer and winter, and newer tables of time zones, change nothing that was decided.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from bus.domain.task_claims import stamp
from bus.durations import duration, duration_text
from bus.errors import InvalidRequest
from bus.model import Context

HORIZON = timedelta(days=5 * 366)
INTERVAL_MIN_S = 60
LONGEST = 200
"""More characters than any sensible recurrence has."""
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,3}")


class Bad(ValueError):
    """A recurrence that cannot be used: what is expected instead."""


class _Every(NamedTuple):
    """A recurrence that can be used: an interval, or a cron expression and its zone."""

    seconds: float | None
    cron: str
    zone: ZoneInfo | None


def reachable(at: datetime, ctx: Context, entity: str) -> datetime:
    """`at` in UTC, if something may become due then. Raises InvalidRequest."""
    if at > ctx.now + HORIZON:
        raise _too_far(at.isoformat(), ctx, entity)
    if at <= ctx.now:
        raise InvalidRequest(
            "that time has passed",
            code="past",
            entity=entity,
            expected=f"later than {stamp(ctx.now)}",
            found=at.isoformat(),
            hint="Choose a later time, and mind the time zone",
        )
    return at.astimezone(UTC)


def ahead(seconds: int, ctx: Context, entity: str) -> datetime:
    """So many seconds from now, if something may become due then. Raises InvalidRequest."""
    if seconds > HORIZON.total_seconds():
        raise _too_far(f"in {duration_text(seconds)}", ctx, entity)
    return ctx.now + timedelta(seconds=seconds)


def _too_far(found: str, ctx: Context, entity: str) -> InvalidRequest:
    return InvalidRequest(
        "that is too far ahead",
        code="too_far",
        entity=entity,
        expected=f"at most {stamp(ctx.now + HORIZON)}, about five years from now",
        found=found,
        hint="Choose an earlier time",
    )


def first(every: str, zone: str, ctx: Context, entity: str) -> datetime:
    """When what comes `every` comes first. Raises InvalidRequest when it cannot come again, or not for years."""
    try:
        at = _next(_read(every, zone), None, ctx.now)
    except Bad as problem:
        found = repr(every[:80]) if not zone else f"{every[:80]!r} in {zone[:80]!r}"
        raise InvalidRequest(
            "this cannot come again",
            code="bad_every",
            entity=entity,
            expected=str(problem),
            found=found,
            hint='For example: --every 1h, or --every "0 9 * * 1-5" --timezone Europe/Berlin',
        ) from None
    return reachable(at, ctx, entity)


def following(every: str, zone: str, at: datetime, now: datetime) -> datetime | None:
    """The first time after `now` of what was due at `at`; None when there is none (or `every` makes no sense)."""
    try:
        return _next(_read(every, zone), at, now)
    except Bad:
        return None


def _read(every: str, zone: str) -> _Every:
    text = every.strip()
    if len(text) > LONGEST:
        raise Bad(f"at most {LONGEST} characters")
    if len(text.split()) == 5:
        return _Every(None, text, _zone(zone) if zone else None)
    try:
        seconds = duration(text)
    except ValueError:
        raise Bad("a duration such as 90m or 1d, or the five fields of a cron expression") from None
    if not INTERVAL_MIN_S <= seconds <= HORIZON.total_seconds():
        raise Bad(f"{duration_text(INTERVAL_MIN_S)} to {duration_text(HORIZON.total_seconds())}")
    if zone:
        raise Bad("a cron expression, because an interval has no time zone")
    return _Every(seconds, "", None)


def _zone(name: str) -> ZoneInfo:
    try:
        if _ZONE.fullmatch(name) and len(name) <= LONGEST:
            return ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        pass
    raise Bad("a time zone such as Europe/Berlin")


def _next(every: _Every, at: datetime | None, now: datetime) -> datetime:
    try:
        if every.seconds is None:
            return _next_of_cron(every, now)
        step = timedelta(seconds=every.seconds)
        return now + step if at is None else at + step * ((now - at) // step + 1)
    except OverflowError:
        raise Bad("a time before the year 10000") from None


def _next_of_cron(every: _Every, now: datetime) -> datetime:
    try:
        times = CronSim(every.cron, now.astimezone(every.zone or UTC))
        # When clocks are set back, the library can name the hour that has just passed: only what is later counts.
        return next(at for at in (time.astimezone(UTC) for time in times) if at > now)
    except OverflowError:
        raise
    except StopIteration:
        raise Bad("a cron expression that names a time at all") from None
    except Exception as error:  # whatever somebody's text makes of the library, it is that text which is wrong
        raise Bad(f"minute, hour, day of month, month and day of week as cron has them ({error})") from None
