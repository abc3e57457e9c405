"""The states of all entities: as the log has them (`World`), and as far as they have been decided (`Speculation`).

Rules:
* `World.fold` applies each event of the log once, in order. It never raises: an event it cannot read or that makes no
  sense is counted and changes nothing.
* `Speculation` is what decisions read. It holds only entities whose state is ahead of the world: proposed events that
  are not stored yet, and stored ones that the tail has not brought yet. Throwing away what is not stored is all that a
  roll-back takes.
* An event that is not stored has a provisional seq above every real one. It never leaves this module: replies are made
  from stored events and stored state (`settled`), and what rests on unstored state and shows it, as a refusal or by a
  provisional seq in a fact, is decided again once it is stored (`touched`, `is_provisional`).
* Nothing here does I/O or asks a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import merge
from typing import Any, NamedTuple, cast

import structlog
from msgspec.structs import replace

from bus.events import Draft, Event, Fact, Unknown
from bus.model import Entry, Family, S, State
from bus.orders import Orders, Place

log = structlog.get_logger(__name__)

PROVISIONAL = 1 << 60
"""Provisional seqs start here."""


class Change(NamedTuple):
    """One entity before and after one event. `before` is None when the event created it."""

    state: type[State]
    namespace: str
    key: str
    before: Entry | None
    after: Entry


class World:
    """Every entity's state after the events 1 to `position`."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families: dict[str, Family] = {family.name: family for family in families}
        self.families_of = {family.state: family for family in self.families.values()}
        self._entries: dict[type[State], dict[tuple[str, str], Entry]] = {f.state: {} for f in self.families.values()}
        self.tips: dict[str, int] = {}
        """Seq of the last event per subject."""
        self.position = 0
        self.skipped = 0

    def fold(self, event: Event) -> Change | None:
        """Apply the next event. -> what it changed, or None when no entity's state changed."""
        self.position = event.seq
        self.tips[event.subject] = event.seq
        family = self.families.get(event.family)
        if family is None or isinstance(event.fact, Unknown):
            self.skipped += 1
            return None
        entries = self._entries[family.state]
        before = entries.get((event.namespace, event.entity))
        after = evolved(family, before, event)
        if after is before or after is None:
            return None
        entries[(event.namespace, event.entity)] = after
        return Change(family.state, event.namespace, event.entity, before, after)

    def entry(self, state: type[State], namespace: str, key: str) -> Entry | None:
        return self._entries[state].get((namespace, key))

    def known(self, state: type[State]) -> Mapping[tuple[str, str], Entry]:
        """The entities of that type, by namespace and key."""
        return self._entries[state]

    def load(self, state: type[State], namespace: str, key: str, entry: Entry) -> None:
        """Put one entity in place that was read from the tables at `position`."""
        self._entries[state][(namespace, key)] = entry

    def entries(self, state: type[State]) -> Iterator[tuple[str, str, Entry]]:
        for (namespace, key), entry in self._entries[state].items():
            yield namespace, key, entry


def evolved(family: Family, before: Entry | None, event: Event) -> Entry | None:
    """The entity's entry after `event`; the same object when nothing changed."""
    state = before.state if before is not None else None
    try:
        after = family.evolve(state, event)
    except Exception:  # whatever an administrator wrote, one event must not stop the fold
        log.exception("event could not be applied", seq=event.seq, type=event.type)
        return before
    if after is state or after is None:
        return before
    return Entry(before.kid if before is not None else event.seq, event.seq, after)


class _Ahead(NamedTuple):
    """An entity that is ahead of the world: its events by id (each with whether it is stored) in the order of the log,
    its state with the stored ones, and its state with all. Both states are one object when every event is stored."""

    events: dict[str, tuple[Event, bool]]
    stored: Entry | None
    latest: Entry | None


class _Base(NamedTuple):
    """What the unstored events of one subject rest on (the last seq there when they were decided); their number."""

    seq: int
    events: int


class Speculation:
    """A View of the world as far as it has been decided. `touched` is set when a read met state that is not stored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.touched = False
        self.settled = False
        """While set, reads see stored state only."""
        self._orders = Orders(world.families.values())
        self._ahead: dict[Place, _Ahead] = {}
        self._unstored = 0
        self._provisional = PROVISIONAL
        self.tips: dict[str, int] = {}
        """Seq of the last stored event per subject, where that is ahead of the world's."""
        self._bases: dict[str, _Base] = {}

    # What decisions read.

    def entry(self, state: type[State], namespace: str, key: str) -> Entry | None:
        ahead = self._ahead.get((state, namespace, key))
        if ahead is None:
            return self.world.entry(state, namespace, key)
        if self.settled:
            return ahead.stored
        if ahead.latest is not ahead.stored:
            self.touched = True
        return ahead.latest

    def get(self, state: type[S], namespace: str, key: str) -> S | None:
        entry = self.entry(state, namespace, key)
        return cast(S, entry.state) if entry is not None else None

    def ranked(self, state: type[State], namespace: str, rank: Any = None) -> Iterator[tuple[str, Entry]]:
        return self._entries(self._orders.ranked(state, namespace, rank), state, namespace, rank)

    def found(self, state: type[State], namespace: str, asked: Any) -> Iterator[tuple[str, Entry]]:
        return self._entries(self._orders.found(state, namespace, asked), state, namespace)

    def _entries(
        self, ranked: Iterator[tuple[Any, str]], state: type[State], namespace: str, rank: Any = None
    ) -> Iterator[tuple[str, Entry]]:
        """The entities of that order as this view sees them now: settled, those with unstored events stand where they
        stand in the stored state, whatever was found of the others."""
        self._touch()
        ahead = {place[2]: one for place, one in self._ahead.items() if place[0] is state and place[1] == namespace}
        if self.settled:
            moved = {key: one.stored for key, one in ahead.items()}
            unstored = {key for key, one in ahead.items() if one.latest is not one.stored}
            if unstored:
                others = (item for item in ranked if item[1] not in unstored)
                ranked = merge(others, sorted(self._stored(state, unstored, moved, rank)))
        else:
            moved = {key: one.latest for key, one in ahead.items()}
        known = self.world.known(state)
        for _, key in ranked:
            entry = moved[key] if key in moved else known[(namespace, key)]
            if entry is not None:
                yield key, entry

    def _stored(
        self, state: type[State], keys: Iterable[str], entries: Mapping[str, Entry | None], rank: Any
    ) -> Iterator[tuple[Any, str]]:
        """The ranks that entities with unstored events have in the stored state."""
        rank_of = self.world.families_of[state].rank
        assert rank_of is not None
        for key in keys:
            entry = entries[key]
            stored = rank_of(entry.state) if entry is not None else None
            if stored is not None and rank in (None, stored):
                yield stored, key

    def due(self, now: datetime) -> Iterator[Place]:
        self._touch()
        due = self._orders.due(now)
        if self.settled and (moved := self._unsettled()):
            stored = [
                (deadline, place)
                for place, entry in moved.items()
                if entry is not None and (deadline := self._deadline(place, entry)) is not None and deadline <= now
            ]
            others = (item for item in due if item[1] not in moved)
            due = merge(others, sorted(stored, key=_first), key=_first)
        for _, place in due:
            yield place

    def _touch(self) -> None:
        if self._unstored and not self.settled:
            self.touched = True

    def _unsettled(self) -> dict[Place, Entry | None]:
        """The stored entries of the entities that have unstored events."""
        return {place: ahead.stored for place, ahead in self._ahead.items() if ahead.latest is not ahead.stored}

    def _deadline(self, place: Place, entry: Entry) -> datetime | None:
        family = self.world.families_of[place[0]]
        return family.deadline(entry.state) if family.deadline is not None else None

    def next_deadline(self) -> datetime | None:
        return self._orders.next_deadline()

    def tip(self, subject: str) -> int:
        """The last seq on `subject` that is known to be stored: what a decision made now rests on."""
        return max(self.tips.get(subject, 0), self.world.tips.get(subject, 0))

    def base(self, subject: str) -> int:
        """The seq that what is proposed on `subject` rests on: what its append expects. What another leader has stored
        there since moves the tip but not this, so the log refuses what was decided without it."""
        base = self._bases.get(subject)
        return base.seq if base is not None else self.tip(subject)

    # What happens to events.

    def index(self) -> None:
        """Sort in everything the world holds (after it was loaded from tables)."""
        for family in self.world.families.values():
            for namespace, key, entry in self.world.entries(family.state):
                self._orders.put((family.state, namespace, key), entry.state)

    def propose(self, drafts: Sequence[Draft]) -> None:
        """Show the effect of events that are about to be appended."""
        for draft in drafts:
            base = self._bases.get(draft.subject) or _Base(self.tip(draft.subject), 0)
            self._bases[draft.subject] = _Base(base.seq, base.events + 1)
            self._provisional += 1
            family = self.world.families[draft.family]
            place = (family.state, draft.namespace, draft.entity)
            event = as_event(draft, self._provisional)
            ahead = self._ahead.get(place)
            before = ahead.latest if ahead is not None else self.world.entry(*place)
            after = evolved(family, before, event)
            if after is before:
                continue
            events = ahead.events if ahead is not None else {}
            events[draft.id] = (event, False)
            self._unstored += 1
            self._ahead[place] = _Ahead(events, ahead.stored if ahead is not None else before, after)
            self._orders.put(place, after.state if after is not None else None)

    def stored(self, drafts: Sequence[Draft], seqs: Sequence[int]) -> None:
        """The log has acknowledged these events."""
        changed: dict[Place, None] = {}
        for draft, seq in zip(drafts, seqs, strict=True):
            base = self._bases.pop(draft.subject, None)
            if base is not None and base.events > 1:
                self._bases[draft.subject] = _Base(seq, base.events - 1)
            if seq <= self.world.position:
                continue  # The tail was faster than the acknowledgement.
            self.tips[draft.subject] = seq
            place = (self.world.families[draft.family].state, draft.namespace, draft.entity)
            ahead = self._ahead.get(place)
            if ahead is not None and draft.id in ahead.events:
                event, was_stored = ahead.events[draft.id]
                ahead.events[draft.id] = (replace(event, seq=seq), True)
                self._unstored -= not was_stored
                changed[place] = None
        for place in changed:
            self._recompute(place, self._ahead[place].events)

    def folded(self, event: Event, change: Change | None) -> None:
        """The world has applied `event` (see World.fold): what was ahead because of it is not any more."""
        if self.tips.get(event.subject, 0) <= event.seq:
            self.tips.pop(event.subject, None)
        family = self.world.families.get(event.family)
        if family is None:
            return
        place = (family.state, event.namespace, event.entity)
        ahead = self._ahead.get(place)
        if ahead is None:
            if change is not None:
                self._orders.put(place, change.after.state)
            return
        is_next = next(iter(ahead.events)) == event.id
        known = ahead.events.pop(event.id, None)
        if known is None:
            if change is not None:
                self._recompute(place, ahead.events)
            return
        self._unstored -= not known[1]
        # The world has now made the step that was first here, so what is ahead leads to the same states as before;
        # they are worked out anew only when the order was another, or the seq was not known yet.
        if not (is_next and known[1] and ahead.events):
            self._recompute(place, ahead.events)

    def learn_tip(self, subject: str, seq: int) -> None:
        """The log says that `seq` is the last on `subject`, and the world contains it."""
        if seq > self.tip(subject):
            self.tips[subject] = seq

    def discard(self) -> None:
        """Forget every event that is not stored."""
        for place, ahead in list(self._ahead.items()):
            for id_ in [id_ for id_, (_, stored) in ahead.events.items() if not stored]:
                del ahead.events[id_]
            self._recompute(place, ahead.events)
        self._unstored = 0
        self._bases.clear()

    def _recompute(self, place: Place, events: dict[str, tuple[Event, bool]]) -> None:
        family = self.world.families_of[place[0]]
        stored = latest = self.world.entry(*place)
        for event, is_stored in events.values():
            if is_stored:
                stored = evolved(family, stored, event)
            latest = evolved(family, latest, event)
        if events:
            all_stored = all(is_stored for _, is_stored in events.values())
            self._ahead[place] = _Ahead(events, stored, stored if all_stored else latest)
        else:
            self._ahead.pop(place, None)
        self._orders.put(place, latest.state if latest is not None else None)


def _first(item: tuple[Any, ...]) -> Any:
    return item[0]


def is_provisional(fact: Fact) -> bool:
    """Whether a fact names an event that is not stored: its seq means nothing to anybody else."""
    for name in fact.__struct_fields__:
        value = getattr(fact, name)
        if isinstance(value, int) and value >= PROVISIONAL:
            return True
    return False


def as_event(draft: Draft, seq: int) -> Event:
    """The event that `draft` is once it is stored under `seq` (without its stored body and time)."""
    return Event(
        seq=seq,
        time_ns=0,
        subject=draft.subject,
        namespace=draft.namespace,
        family=draft.family,
        bucket=draft.bucket,
        id=draft.id,
        type=draft.fact.type,
        schema=draft.fact.schema,
        entity=draft.entity,
        agent=draft.agent,
        fact=draft.fact,
        data=b"",
        request=draft.request,
        causes=draft.causes,
        correlation=draft.correlation,
    )
