"""What all processes have in common that serve a home: how they open their tables, what they say, and when they end.

Rule: they end when the supervisor does (their standard input closes) and on SIGTERM. Nobody has to listen to them.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

import anyio
import anyio.to_thread
import structlog

from bus import config, operation
from bus.config import Settings
from bus.errors import Unavailable
from bus.home import Home, open_home
from bus.log import Log
from bus.world import World
from projections.loading import Remembers
from projections.schema import discover
from projections.store import Store

logger = structlog.get_logger(__name__)

STANDBYS = 8
SWITCH_S = 0.0005
"""A thread that folds or indexes gives way to the one that answers after so long. Python's own 5 ms, at each turn, is
what a whole request takes."""
SCRATCH = "scratch"
"""Beside the tables, which are this process's alone."""


class Ended(Exception):
    """The process cannot go on: why, and with which status it ends."""

    def __init__(self, why: str, status: int = 1) -> None:
        super().__init__(why)
        self.status = status


@asynccontextmanager
async def opened(directory: Path, log: Log | None) -> AsyncIterator[Store]:
    """The store in `directory`, or, when another process of this home has it open, in a directory beside it: a second
    one, started by accident or as a standby, folds into tables of its own."""
    for candidate in (directory, *(directory / f"standby-{n}" for n in range(1, STANDBYS + 1))):
        async with AsyncExitStack() as stack:
            try:
                store = await stack.enter_async_context(Store.opened(candidate, operation.FAMILIES, discover(), log))
            except Unavailable as error:
                if error.code != "locked":
                    raise
                continue
            yield store
            return
    raise Unavailable("too many processes serve this home", code="locked", entity=str(directory))


def scratch_of(store: Store) -> Path:
    """A private directory that `load` makes, for what replays and SQL need for a while."""
    return store.path.parent / SCRATCH


async def load(store: Store, world: World, remembers: Remembers) -> None:
    """Put the world in the state of the tables, and make the scratch directory empty."""
    await anyio.to_thread.run_sync(_emptied, scratch_of(store))
    await store.load(world, remembers)
    # What was loaded stays: the collector need not look at it again, and need not look often.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(SWITCH_S)


def _emptied(directory: Path) -> None:
    """Make a private directory, without what a process that was killed left in it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, exist_ok=True)


async def until_told() -> None:
    """Return on SIGTERM or SIGINT, or when the supervisor is gone (it holds the other end of our standard input)."""
    async with anyio.create_task_group() as tasks:

        async def on_orphaned() -> None:
            await anyio.wait_readable(sys.stdin)
            logger.info("ending: the supervisor is gone")
            tasks.cancel_scope.cancel()

        tasks.start_soon(on_orphaned)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                logger.info("ending", signal=number)
                tasks.cancel_scope.cancel()


class _Words:
    """Standard error, which the supervisor reads. Once that is gone nobody does, and the process has to end in order
    all the same."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def arguments(description: str) -> argparse.ArgumentParser:
    """The command line of a process that serves the home named on it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--url", help="where the home's server is reached, if not at its own address")
    return parser


def run(serve: Callable[..., Awaitable[None]], path: Path, *options: Any) -> None:
    """Run `serve(home, settings, *options)` to its end; what it says goes to the supervisor. When it raises Ended, the
    process ends so."""
    opened_home: Home = open_home(path)
    settings: Settings = config.load(home=path)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.file.log_level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Words())),
    )
    ended: list[BaseException] = []
    try:
        anyio.run(serve, opened_home, settings, *options, backend_options={"use_uvloop": True})
    except* Ended as group:
        ended += _leaves(group)
    for one in ended:  # Not in there: what is raised inside `except*` comes in a group, which has no status.
        assert isinstance(one, Ended)
        logger.error("this process ends", why=str(one))
        raise SystemExit(one.status)


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
