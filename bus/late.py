"""What thin clients import when they need it, or not at all: a logger, parts of other packages, anyio.

Rules:
* structlog is imported when there is something to say. Importing it takes longer than asking a daemon does, and most
  clients ask once.
* A package that imports what we do not use is imported without that (`import_without`). For whoever does use it, in
  this process and at any time, it is there as always.
* A client that a program with anyio uses heeds its cancel scopes; one that is alone does without it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from types import ModuleType
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


@asynccontextmanager
async def shielded(limit_s: float) -> AsyncIterator[None]:
    """Do the body to its end, also when whoever waits for it was cancelled before; but at most so long."""
    # A cancelled scope of anyio cancels again and again whatever waits in it; without anyio there is no scope.
    if (anyio := sys.modules.get("anyio")) is not None:
        with anyio.move_on_after(limit_s, shield=True):
            yield
        return
    import asyncio

    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            yield


def import_without(module: str, *parts: str) -> None:
    """Import `module` without `parts` (`package.name`), which it imports too and does without or uses only later.

    Any part is there for whoever imports it later; one of a package that comes with `module`, for whoever asks that for
    it as well.
    """
    # Another thread might import the same meanwhile, and take what stands in for it for the part itself.
    if module in sys.modules or threading.active_count() > 1:
        return
    stand_ins = {part: ModuleType(part) for part in parts if part not in sys.modules}
    late = [part.rpartition(".") for part in stand_ins if part.rpartition(".")[0] not in sys.modules]
    sys.modules.update(stand_ins)
    try:
        # A version that does need them fails here, and is imported whole by the import statement that follows.
        with suppress(ImportError, AttributeError):
            import_module(module)
            for package, _, name in late:
                if (made := sys.modules.get(package)) is not None:
                    vars(made)["__getattr__"] = _first_use(package, name)
    finally:
        for part, stand_in in stand_ins.items():
            if sys.modules.get(part) is stand_in:
                del sys.modules[part]


def _first_use(package: str, name: str) -> Any:
    def absent(asked: str) -> Any:
        if asked == name:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {asked!r}")

    return absent
