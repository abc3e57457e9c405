"""Compacting sessions: when one has more tokens than it may, a summary is put in the place of its oldest turns.

    fold -> noticed -> [a look at the tables: which turns?] -> summariser -> session.replace -> session.compacted

Rules:
* The leader does it, beside everything else: no request ever waits for a summariser. Whatever fails leaves the session
  as it is; nothing is lost.
* What is to be summarised is read from the tables at the moment of the look, as its owner may read it, and the decision
  refuses a summary that rests on something else than the state of the session. So each turn is summarised once,
  whoever was killed meanwhile.
* One that leads anew looks at every session that waits. What fails is tried again after growing pauses, then left.
* The log of the daemon and its status say what failed and how often, and name no session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import anyio
import structlog

from bus.clock import Clock, from_ns
from bus.domain import session as facts
from bus.domain.session import Session
from bus.domain.session_requests import Replace
from bus.errors import BusError, Unavailable
from bus.events import Event
from bus.lifecycle import Helper
from bus.model import Command
from bus.subjects import SYSTEM
from bus.tunables import ConfigFile
from bus.world import World
from cli.api import as_error
from projections import conversation
from projections.conversation import threshold_of
from projections.extract import Said
from projections.guarded import Guarded, Unhelpful
from projections.store import Store
from projections.summarise import EXTRACTIVE, Summariser, summarised, summariser_of
from projections.views.unsummarised import Look, looked, totals

logger = structlog.get_logger(__name__)

T = TypeVar("T")
Place = tuple[str, str]
"""Namespace and key of a session."""
SOON_S = 1.0
"""When the tables have not caught up, a session is looked at again so much later."""


class Compactor:
    """Compacts the sessions of one tenant while `may_lead`. `reached(seq, s)` waits for the tables, and `execute` has a
    command decided and stored."""

    def __init__(
        self,
        store: Store,
        reached: Callable[[int, float], Awaitable[bool]],
        world: World,
        execute: Callable[[Command], Awaitable[object]],
        clock: Clock,
        settings: ConfigFile,
        may_lead: Callable[[], bool],
    ) -> None:
        self._store, self._reached, self._world, self._execute = store, reached, world, execute
        self._clock, self._may_lead = clock, may_lead
        self._limits, self._endpoint = settings.session, settings.openai
        self._summariser: Guarded[Summariser] = Guarded(
            "the summariser",
            lambda: summariser_of(self._limits.summariser, self._endpoint),
            clock,
            pause_s=0.0,  # It is asked again after pauses of its own.
        )
        self._tokens: dict[Place, int] = {}
        """How many tokens the turns of a session have, about, as far as it is known."""
        self._due: dict[Place, int] = {}
        """When (monotonic time) the sessions that wait are to be looked at."""
        self._attempts: dict[Place, int] = {}
        """How often those have failed that are not done, or were left."""
        self._error = ""
        self._leads_anew = False
        self._news = anyio.Event()

    def helpers(self) -> list[Helper]:
        """How the summariser is; nothing while all is well with the bus's own."""
        if not self._error and self._limits.summariser == EXTRACTIVE:
            return []
        found, failed = self._error or "ready", len(self._attempts)
        if failed:
            found = f"{failed} of the sessions could not be compacted; {found}"
        without, setting = "Sessions stay as they are without it: see [session]", self._limits.summariser
        return [Helper(name="summariser", setting=setting, ok=not self._error, found=found, without=without)]

    # --- what happens to sessions ------------------------------------------------------------------------------

    def noticed(self, event: Event) -> None:
        """The world has taken in this event."""
        place = (event.namespace, event.entity)
        entry = self._world.entry(Session, *place)
        if entry is None or not self._may_lead():
            return
        match event.fact:
            case facts.SessionAdded(role=role, tokens=count):
                if role != "system":
                    self._grown(place, entry.state, count)
            case facts.SessionOpened():
                self._tokens[place] = 0
            case facts.SessionCompactionAsked():
                self._anew(place)
                self._look_at(place)
            case facts.SessionConfigured() | facts.SessionCompacted():
                # More may be left than it may have, whoever made the summary.
                self._anew(place)
                if threshold_of(entry.state, self._limits.compact_at_tokens):
                    self._look_at(place)
            case facts.SessionCleared():
                self._anew(place)
                self._tokens[place] = 0

    def take_over(self) -> None:
        """This daemon begins to lead: whatever waits may have waited for long."""
        self._tokens, self._due, self._attempts = {}, {}, {}
        self._leads_anew = True
        self._news.set()

    def _grown(self, place: Place, state: Session, count: int) -> None:
        threshold = threshold_of(state, self._limits.compact_at_tokens)
        if not threshold:
            self._tokens.pop(place, None)
            return
        if place in self._tokens:
            self._tokens[place] += count
        if self._tokens.get(place, threshold + 1) > threshold and place not in self._attempts:
            self._look_at(place)

    def _anew(self, place: Place) -> None:
        """Forget what is known of a session: another thing has become of it."""
        for known in (self._tokens, self._due, self._attempts):
            known.pop(place, None)

    def _look_at(self, place: Place, later_s: float = 0.0) -> None:
        self._due.setdefault(place, self._clock.monotonic_ns() + int(later_s * 1e9))
        self._news.set()

    # --- looking -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at sessions when it is time to, for ever."""
        while True:
            await self._news_or_time()
            await self.step()

    async def step(self) -> None:
        """Look at every session that is due now."""
        self._news = anyio.Event()
        if not self._may_lead():
            return
        if self._leads_anew:
            try:
                await self._scan()
            except Exception as error:  # whatever it is, the daemon goes on, and looks again
                self._failed(as_error("session.replace", error))
        now_ns = self._clock.monotonic_ns()
        for place in [place for place, at_ns in self._due.items() if at_ns <= now_ns]:
            if self._due.pop(place, None) is not None and self._may_lead():
                await self._try(place)

    async def _news_or_time(self) -> None:
        news, first = self._news, min(self._due.values(), default=None)
        left_s = None if first is None else max(0.0, (first - self._clock.monotonic_ns()) / 1e9)
        if self._leads_anew:
            left_s = SOON_S
        with anyio.move_on_after(left_s if self._may_lead() else None):
            await news.wait()

    async def _scan(self) -> None:
        """Find the sessions that waited when this daemon began to lead."""
        try:
            await self._called(lambda summariser: summariser.id)
            self._error = ""
        except BusError as error:  # It is said now, and tried again when there is something to be summarised.
            self._failed(error)
        position = self._world.position
        if not await self._reached(position, SOON_S):
            return
        self._leads_anew = False
        for namespace, key, total in await self._store.read(position, SYSTEM, self._now, totals, sees_all=True):
            entry = self._world.entry(Session, namespace, key)
            if entry is not None:
                place, threshold = (namespace, key), threshold_of(entry.state, self._limits.compact_at_tokens)
                self._tokens[place] = total
                if entry.state.asked is not None or 0 < threshold < total:
                    self._look_at(place)

    async def _try(self, place: Place) -> None:
        """Look at a session, and compact it if that is called for."""
        try:
            await self._compact(place)
        except Exception as error:  # whatever it is, the daemon goes on
            known = as_error("session.replace", error)
            if known.code == "compacted":  # It was cleared, or somebody has summarised it: what is left is seen anew.
                self._look_at(place)
                return
            self._failed(known)
            attempts = self._attempts[place] = self._attempts.get(place, 0) + 1
            if attempts <= self._limits.retries:
                self._look_at(place, self._limits.retry_s * 2 ** (attempts - 1))
        else:
            self._attempts.pop(place, None)
            if not self._attempts:
                self._error = ""

    def _failed(self, error: BusError) -> None:
        self._error = str(error)
        logger.warning("a session was not compacted", error=self._error)

    async def _compact(self, place: Place) -> None:
        entry = self._world.entry(Session, *place)
        if entry is None:
            return
        position, known = self._world.position, self._tokens.setdefault(place, 0)
        if not await self._reached(position, SOON_S):
            self._look_at(place, SOON_S)
            return
        read = partial(looked, place=place, usual=self._limits.compact_at_tokens)
        look = await self._store.read(position, entry.state.owner, self._now, read)
        # What was noticed meanwhile is not in the tables yet.
        self._tokens[place] = look.tokens + max(0, self._tokens.get(place, known) - known)
        if look.state is None or not look.turns:
            return
        summary, summariser = await self._summarised(look)
        await self._execute(
            Replace(
                namespace=place[0],
                key=place[1],
                start=look.state.begins,
                upto=look.turns[-1].seq,
                summary=summary,
                summariser=summariser,
            )
        )

    async def _summarised(self, look: Look) -> tuple[str, str]:
        """The summary of what was found, and who made it."""
        assert look.state is not None
        summary, done, summariser = look.state.summary, 0, ""
        for part in conversation.parts(look.turns, self._limits.part_tokens):
            said = look.said[done : done + len(part)]
            summary, summariser = await self._called(partial(_made, summary, said, self._limits.summary_tokens))
            done += len(part)
        return summary, summariser

    async def _called(self, fn: Callable[[Summariser], T]) -> T:
        """What `fn` gives of the summariser, if it does before its time is up. Raises Unavailable."""
        try:
            return await self._summariser.call(fn, self._limits.timeout_s)
        except Unhelpful as error:
            raise Unavailable(
                str(error),
                code="no_summary",
                entity=f"summariser {self._limits.summariser}",
                expected=f"a summary within {self._limits.timeout_s:g} s",
                found="none",
                hint="See [session] in the settings",
            ) from None

    @property
    def _now(self) -> datetime:
        return from_ns(self._clock.server_ns())


def _made(before: str, said: Sequence[Said], within: int, summariser: Summariser) -> tuple[str, str]:
    """A summary, and who made it."""
    return summarised(summariser, before, said, within), str(summariser.id)
