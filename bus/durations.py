"""Durations as people write them: `90s`, `10m`, `2h`, `1h30m`, `1d`; a bare number is seconds."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d|w))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")


def duration(word: str, *, whole: bool = False) -> float | int:
    """Seconds in `90s`, `10m`, `1h30m`, `500ms` or a bare number. Raises ValueError."""
    text = word.strip()
    if _DURATION.fullmatch(text):
        # Rounded, because 0.001 is no binary fraction and 500 of them are to be half a second.
        seconds = round(sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text)), 6)
    elif re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        seconds = float(text)
    else:
        raise ValueError("a duration such as 90s, 10m, 2h or 1h30m")
    if not whole:
        return seconds
    if seconds != int(seconds):
        raise ValueError("whole seconds")
    return int(seconds)


def duration_text(seconds: float) -> str:
    """`seconds` in the shortest exact form that `duration` reads."""
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


def span(seconds: float) -> str:
    """A length of time in its largest whole unit: `45s`, `3m`, `2h`, `5d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"
