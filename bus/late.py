"""A logger for what thin clients import.

Rule: structlog is imported when there is something to say. Importing it takes longer than asking a daemon does, and
most clients ask once.
"""

from __future__ import annotations

import sys
from typing import Any


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
            # Its own default is to print everything to standard output, which belongs to the program that uses this.
            structlog.configure(
                wrapper_class=structlog.make_filtering_bound_logger("warning"),
                logger_factory=lambda *names: structlog.PrintLogger(sys.stderr),
            )
        return structlog.get_logger(self._name)
