"""Calls into what is not ours (an embedder, a reranker): in a thread of its own, in time, and not for ever in vain.

Rules:
* One thread, because nothing is known of what other people's code does in two. A question goes before the texts that
  are embedded in the background; a call that has begun is never interrupted, because nothing can.
* A call that does not end in time is given up: whoever asked goes on without it. As long as it has not ended, and for
  `pause_s` after it or after FAILURES calls in a row that failed, others are told so at once instead of waiting as
  well. Then one is let through to see.
* What it needs to begin with (a package, a model) is loaded by the first call, in that thread.
* The thread is a daemon: no process waits for it at its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import PriorityQueue
from threading import Thread
from typing import Any, Generic, TypeVar

import anyio
import structlog

from bus.clock import Clock
from bus.errors import BusError, Defect

logger = structlog.get_logger(__name__)

PAUSE_S = 30.0
FAILURES = 3

T = TypeVar("T")
R = TypeVar("R")
_Job = tuple[int, int, Callable[[], None]]


class Unhelpful(Exception):
    """There is no result, and why. `refused`: the call was made, and this is what came of these very arguments."""

    def __init__(self, why: str, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


class Guarded(Generic[T]):
    """What `load` gives, called `name` in what is said about it."""

    def __init__(self, name: str, load: Callable[[], T], clock: Clock, pause_s: float = PAUSE_S) -> None:
        self.name = name
        self._pause_ns = int(pause_s * 1e9)
        self.problem: str | None = None
        """Why the last call gave nothing, until one gives something."""
        self._load = load
        self._clock = clock
        self._loaded: T | None = None
        self._jobs: PriorityQueue[_Job] = PriorityQueue()
        self._numbers = count()
        self._thread: Thread | None = None
        self._failures = 0
        self._shut_until_ns = 0
        self._running: _Call[T, Any] | None = None
        self._stuck_since_ns: int | None = None
        """When a call began that somebody did not wait for any longer and that has not ended."""

    async def call(self, fn: Callable[[T], R], timeout_s: float, *, urgent: bool = False) -> R:
        """`fn` of what was loaded. Raises Unhelpful."""
        now_ns = self._clock.monotonic_ns()
        if self._stuck_since_ns is not None:
            raise Unhelpful(f"{self.name} has not answered for {(now_ns - self._stuck_since_ns) / 1e9:.0f} s")
        if now_ns < self._shut_until_ns:
            again_s = (self._shut_until_ns - now_ns) / 1e9
            raise Unhelpful(f"{self.problem}; it is asked again in {again_s:.0f} s")
        job = _Call(self, fn, self._clock)
        self._jobs.put((0 if urgent else 1, next(self._numbers), job.run))
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        with anyio.move_on_after(timeout_s):
            try:
                result: R = await asyncio.wrap_future(job.future)
            except Exception as error:  # other people's code fails in any way it likes
                raise self._failed(error) from error
            self._failures, self.problem = 0, None
            return result
        raise self._late(job, timeout_s)

    def _work(self) -> None:
        while True:
            _, _, run = self._jobs.get()
            run()

    def loaded(self) -> T:
        """What is called; loaded if it is not yet. In the thread of the calls only."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def began(self, job: _Call[T, Any]) -> None:
        """A call is being made (in the thread of the calls)."""
        self._running = job

    def ended(self) -> None:
        """It is over (in the thread of the calls)."""
        self._running = self._stuck_since_ns = None

    def _late(self, job: _Call[T, Any], timeout_s: float) -> Unhelpful:
        running = self._running
        if running is not None:
            self._stuck_since_ns = running.began_ns
            if self._running is not running:  # It ended while it was looked at.
                self._stuck_since_ns = None
        if running is not job:
            return Unhelpful(f"{self.name} is busy with something else")
        self.problem = f"{self.name} did not answer in time"
        self._shut()
        logger.warning("a call was given up", what=self.name, timeout_s=timeout_s)
        return Unhelpful(self.problem)

    def _failed(self, error: BaseException) -> Unhelpful:
        said = str(error) if isinstance(error, BusError) and not isinstance(error, Defect) else repr(error)[:300]
        self.problem = f"{self.name} failed: {said}"
        self._failures += 1
        if self._failures >= FAILURES:
            self._shut()
            logger.warning("calls failed", what=self.name, error=said)
        return Unhelpful(self.problem, refused=True)

    def _shut(self) -> None:
        self._shut_until_ns = self._clock.monotonic_ns() + self._pause_ns


class _Call(Generic[T, R]):
    """One call."""

    def __init__(self, guarded: Guarded[T], fn: Callable[[T], R], clock: Clock) -> None:
        self.future: Future[R] = Future()
        self.began_ns = 0
        self._guarded, self._fn, self._clock = guarded, fn, clock

    def run(self) -> None:
        """Make it, unless nobody waits for it any more."""
        self.began_ns = self._clock.monotonic_ns()
        self._guarded.began(self)
        if self.future.set_running_or_notify_cancel():
            try:
                result = self._fn(self._guarded.loaded())
            except BaseException as error:  # The thread outlives whatever is raised in it.
                self._guarded.ended()
                self.future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
                return
            self._guarded.ended()
            self.future.set_result(result)
        else:
            self._guarded.ended()
