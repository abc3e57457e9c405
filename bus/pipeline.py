"""The append pipeline: decided events wait in order, go to the log in batches, and are undone together.

    enqueue -> queue -> [batch] -> log.append -> stored        conflict: discard, catch up, decide again in order

Rules:
* One append is under way at a time; what arrives meanwhile is the next. Few waiting events go one behind the other,
  many as one atomic batch, which has a fixed cost: where the one begins to be faster is learned (`Costs`).
* Every append carries, per bucket, the seq it was decided on, not the one that is known by then. When the log refuses
  it, nothing that is unstored survives: it is all decided again, in order of arrival, after the tail has caught up.
* A unit without events is a barrier: when everything before it is stored, its call is decided again. What is queued
  behind it need not wait for that, so barriers do not make batches smaller.
* Leadership is asked before every append; without it nothing is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import structlog

from bus.clock import Clock
from bus.errors import BusError, Unavailable
from bus.events import Draft
from bus.log import Log, WrongExpectedSeq
from bus.world import Speculation

logger = structlog.get_logger(__name__)

BATCH_EVENTS = 512
"""Most events of one atomic batch (the server allows 1,000)."""
BATCH_BYTES = 8 << 20
"""Bodies of more bytes than this together are not put into one batch (one event alone may have up to 1 MB)."""
LEARN, FORGET = 0.2, 0.02
"""How much of what a measurement says is believed, and how much of what is not measured is forgotten each time."""
CATCH_UP_S = 10.0

C = TypeVar("C")


class Unit(NamedTuple, Generic[C]):
    """What is stored together or not at all. `call` is None for events that nobody asked for; `number` is its place in
    the order of arrival."""

    call: C | None
    drafts: Sequence[Draft]
    number: int = 0


class Costs:
    """What appending takes on this machine, in seconds: `single_s` for each of several events that are sent one behind
    the other; for an atomic batch `batch_s`, and `EVENT_S` for each of its events.

    Both move with every measurement of theirs (exponentially weighted). The way that is not taken goes back towards its
    start meanwhile, so that one slow moment cannot rule it out for good.
    """

    SINGLE_S = 0.0005
    BATCH_S = 0.005
    EVENT_S = 0.00004

    def __init__(self) -> None:
        self.single_s = self.SINGLE_S
        self.batch_s = self.BATCH_S

    def prefer_singles(self, events: int) -> bool:
        return events * self.single_s < self.batch_s + events * self.EVENT_S

    def learn(self, events: int, took_s: float, *, singles: bool) -> None:
        """Several events took so long. (One alone is sent the same way whatever it costs.)"""
        if events < 2 or took_s <= 0:
            return
        if singles:
            self.single_s += LEARN * (min(took_s / events, 2 * self.single_s) - self.single_s)
            self.batch_s += FORGET * (self.BATCH_S - self.batch_s)
        else:
            fixed_s = max(took_s - events * self.EVENT_S, self.BATCH_S / 10)
            self.batch_s += LEARN * (min(fixed_s, 2 * self.batch_s) - self.batch_s)
            self.single_s += FORGET * (self.SINGLE_S - self.single_s)


class Pipeline(Generic[C]):
    """The queue between deciding and the log.

    `decide(call)` is called to decide a call again; `stored(unit, seqs)` when a unit is durable; `failed(call, error)`
    when it will never be. `may_lead` says, at the moment of an append, whether this daemon leads.
    """

    def __init__(
        self,
        log: Log,
        view: Speculation,
        may_lead: Callable[[], bool],
        clock: Clock,
        *,
        decide: Callable[[C], None],
        stored: Callable[[Unit[C], Sequence[int]], None],
        failed: Callable[[C, Exception], None],
    ) -> None:
        self.conflicts = 0
        self.batches = 0
        self.appended = 0
        self.stored_seq = 0
        """The newest event stored here before which nothing is missing: all others are stored here too, or folded."""
        self._log = log
        self._view = view
        self._may_lead = may_lead
        self._clock = clock
        self._costs = Costs()
        self._decide = decide
        self._on_stored = stored
        self._on_failed = failed
        self._queue: deque[Unit[C]] = deque()
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._one_by_one = 0
        self._arrived = 0
        self._under_way = 0

    def __len__(self) -> int:
        """Units that are queued or on their way to the log."""
        return len(self._queue) + self._under_way

    def enqueue(self, call: C | None, drafts: Sequence[Draft]) -> None:
        """Queue one unit and show its effect to the decisions that follow."""
        self._view.propose(drafts)
        self._arrived += 1
        self._queue.append(Unit(call, drafts, self._arrived))
        if not self._wake.is_set():
            self._wake.set()

    def moved(self) -> None:
        """The world took another event of the tail."""
        if not self._moved.is_set():
            self._moved.set()

    async def next_move(self) -> None:
        """Return when the world has taken another event."""
        if self._moved.is_set():
            self._moved = anyio.Event()
        await self._moved.wait()

    async def run(self) -> None:
        """Append what is queued, for ever."""
        while True:
            if not self._queue:
                self._wake = anyio.Event()
                await self._wake.wait()
            await self.step()

    async def step(self) -> None:
        """Append one batch of what is queued, or refuse it all when this daemon does not lead."""
        if not self._may_lead():
            self._refuse_all()
        elif units := self._take():
            self._under_way = len(units)
            try:
                await self._append(units)
            finally:
                self._under_way = 0

    def _take(self) -> list[Unit[C]]:
        """The next units to store together. Barriers that nothing is before are decided again on the way; the others
        stay in the queue."""
        queue = self._queue
        units: list[Unit[C]] = []
        barriers: list[Unit[C]] = []
        events = size = 0
        while queue:
            unit = queue.popleft()
            if not unit.drafts:
                if units:
                    barriers.append(unit)
                else:
                    assert unit.call is not None
                    self._decide(unit.call)
                continue
            events += len(unit.drafts)
            size += sum([len(draft.body) for draft in unit.drafts if draft.body is not None])
            if units and (events > BATCH_EVENTS or size > BATCH_BYTES):
                queue.appendleft(unit)
                break
            units.append(unit)
            if self._one_by_one:
                self._one_by_one -= 1
                break
        queue.extendleft(reversed(barriers))
        return units

    async def _append(self, units: list[Unit[C]]) -> None:
        """Store the units. What is refused, and what was to follow it, is told so or decided again."""
        drafts = [draft for unit in units for draft in unit.drafts]
        expected = {subject: self._view.base(subject) for subject in dict.fromkeys(draft.subject for draft in drafts)}
        singles = len(drafts) == len(units) and (len(units) == 1 or self._costs.prefer_singles(len(units)))
        done = 0
        start_ns = self._clock.monotonic_ns()
        try:
            if singles:
                async with aclosing(self._log.append_each(drafts, expected)) as seqs:
                    async for seq in seqs:
                        self._under_way -= 1
                        self._stored(units[done : done + 1], drafts[done : done + 1], [seq])
                        done += 1
            else:
                stored = await self._log.append(drafts, expected)
                self._under_way = 0
                self._stored(units, drafts, stored)
        except WrongExpectedSeq as conflict:
            await self._catch_up(conflict)
            self._decide_again(units[done:])
        except Exception as error:  # whatever the log says of these events, the pipeline goes on
            self._refused(units[done:], 1 if singles else len(units), error)
        else:
            self._costs.learn(len(drafts), (self._clock.monotonic_ns() - start_ns) / 1e9, singles=singles)

    def _stored(self, units: Sequence[Unit[C]], drafts: Sequence[Draft], seqs: Sequence[int]) -> None:
        self.batches += 1
        self.appended += len(drafts)
        if seqs[0] <= max(self._view.world.position, self.stored_seq) + 1:
            self.stored_seq = seqs[-1]
        self.moved()
        self._view.stored(drafts, seqs)
        start = 0
        for unit in units:
            end = start + len(unit.drafts)
            self._on_stored(unit, seqs[start:end])
            start = end

    async def _catch_up(self, conflict: WrongExpectedSeq) -> None:
        """Somebody else wrote: wait until the tail has brought it."""
        self.conflicts += 1
        logger.warning("append refused: the log moved on", subject=conflict.subject, found=conflict.found_seq)
        with anyio.move_on_after(CATCH_UP_S):
            target = conflict.found_seq if conflict.found_seq is not None else await self._head()
            while self._view.world.position < target:
                await self.next_move()
            if conflict.found_seq is not None:
                self._view.learn_tip(conflict.subject, conflict.found_seq)

    async def _head(self) -> int:
        try:
            return (await self._log.head()).seq
        except BusError as error:  # then it is decided on what is known, and the log judges that again
            logger.warning("the log does not say where it ends", error=str(error))
            return 0

    def _refused(self, units: Sequence[Unit[C]], tried: int, error: Exception) -> None:
        """The log refused for a reason of its own. One unit alone is told so; several are tried again singly."""
        if tried == 1:
            if units[0].call is not None:
                self._on_failed(units[0].call, error)
            units = units[1:]
        else:
            self._one_by_one = tried
        self._decide_again(units)

    def _decide_again(self, units: Sequence[Unit[C]]) -> None:
        queued = sorted([*units, *self._queue], key=_number)
        self._queue.clear()
        self._under_way = 0
        self._view.discard()
        for unit in queued:
            if unit.call is not None:
                self._decide(unit.call)

    def _refuse_all(self) -> None:
        error = Unavailable(
            "this daemon does not lead",
            code="not_leading",
            expected="the leader of the tenant",
            found="a daemon that stands by",
            hint="Ask again; another daemon is taking over",
            retry_after_s=0.5,
        )
        queued = list(self._queue)
        self._queue.clear()
        self._under_way = 0
        self._view.discard()
        for unit in queued:
            if unit.call is not None:
                self._on_failed(unit.call, error)


def _number(unit: Unit[Any]) -> int:
    return unit.number
