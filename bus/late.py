"""A logger for what thin clients import.

Rule: structlog is imported when there is something to say. Importing it takes longer than asking a daemon does, and
most clients ask once.
"""

from __future__ import annotations

import sys
from typing import Any

_level = "warning"


def say(level: str) -> None:
    """From now on what is of this level or above is said, on standard error: standard output belongs to the program."""
    global _level
    _level = level
    if "structlog" in sys.modules:
        _configure()


class Logger:
    """Says what structlog's logger of that name says."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **known: Any) -> None:
        self._made().debug(event, **known)

    def warning(self, event: str, **known: Any) -> None:
        self._made().warning(event, **known)

    def _made(self) -> Any:
        import structlog

        if not structlog.is_configured():
            _configure()
        return structlog.get_logger(self._name)


def _configure() -> None:
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        # Looked up each time: a program may have put another standard error in its place.
        logger_factory=lambda *names: structlog.PrintLogger(sys.stderr),
    )
