"""What an index finds is what looking at everything finds: decisions are the same, whatever is held, said and unstored.

The rules are written once more below, in the simplest way: over everything, pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.domain import intent, reservation_index
from bus.domain.globs import normal, overlap
from bus.domain.intent import Declare, Intent, IntentDeclared, IntentExpired, IntentExtended, IntentWithdrawn, near
from bus.domain.reservation import (
    Release,
    Renew,
    Reservation,
    ReservationExpired,
    ReservationReleased,
    ReservationRenewed,
    ReservationReserved,
    Reserve,
    id_of,
)
from bus.domain.reservation_decisions import overdue
from bus.domain.wording import ALIKE, at_most, likeness
from bus.errors import BusError
from bus.events import Draft, Fact
from bus.model import Command, Context, Entry, Limits, Reply, State, View
from bus.operation import FAMILIES, FAMILY_OF, OPERATION_OF
from bus.subjects import SYSTEM, bucket_of
from bus.world import Speculation, World, as_event
from tests.unit.stage import CountingIds

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("src", "Src", "s*", "s?c", "[sr]*", "a", "ab", "A", "*", "*b", "**", "ß", "ss", "[a]", "x.py", "*.py", "é")
WORDS = ("fix", "the", "auth", "authors", "src/a", "of", "Ä", "🚀")
AGENTS = ("atlas", "nova", "iris")
MODES = ("exclusive", "exclusive", "shared")
NAMESPACES = ("default", "default", "default", "other")
ODD = ("a/" * 70, "[a-z]" * 40, "../x", "b" * 1001, "", "[", "**/[", "src/\0", "a**", "[b-a]", "é")
HELD = [*(f"default:r-{n}" for n in range(12)), *(f"lib:r-{n}" for n in range(6)), "default"]
SAID = ["fix-auth", "fix-the-auth", "fix", "auth", "src/a.py", "src/ab.py", "🚀", "of-the", "a"]
TOO_MANY = tuple(f"src/{number}" for number in range(101))


class Chance(Random):
    """What comes up in these tests."""

    def path(self) -> str:
        return normal("/".join(self.choices(NAMES, k=self.choice((1, 2, 2, 3, 3, 4)))))

    def paths(self, most: int = 3) -> tuple[str, ...]:
        return tuple(self.path() for _ in range(self.randint(1, most)))

    def anything(self) -> tuple[str, ...]:
        """Also what no request reserves."""
        odd = (tuple(self.choices(ODD, k=2)), TOO_MANY, ())
        return self.choice(odd) if self.random() < 0.1 else self.paths()

    def text(self) -> str:
        said = " ".join(self.choices(WORDS, k=self.choice((0, 1, 2, 3, 4, 5, 5))))
        return said * 9 if self.random() < 0.1 else said

    def end(self) -> datetime:
        return NOW + timedelta(seconds=10 * self.randint(0, 3))


class Everything:
    """A view in which nothing is found but by looking at everything."""

    def __init__(self, view: Speculation) -> None:
        self._view = view
        self.get, self.entry = view.get, view.entry

    def found(self, state: type[State], namespace: str, asked: Any) -> Iterator[tuple[str, Entry]]:
        return self._view.ranked(state, namespace)


# --- what happens ---------------------------------------------------------------------------------------------------


class Happening(NamedTuple):
    """Something that happens to one of a few entities, by an agent or by an administrator's hand."""

    chance: Chance
    what: str
    key: str
    namespace: str
    agent: str

    @classmethod
    def by(cls, chance: Chance) -> Happening:
        what = chance.choice(("begins", "begins", "goes on", "ends", "is given up"))
        key = chance.choice(HELD if chance.random() < 0.7 else SAID)
        return cls(chance, what, key, chance.choice(NAMESPACES), chance.choice(AGENTS))

    def draft(self, number: int, view: View) -> Draft:
        fact, agent = self._of_intent(view) if self.key in SAID else self._of_reservation(view)
        family = FAMILY_OF[fact.type.partition(".")[0]]
        return Draft(
            id=f"e{number}",
            namespace=self.namespace,
            family=family.name,
            bucket=bucket_of(family.bucket_key(self.key)),
            entity=self.key,
            agent=agent,
            fact=fact,
        )

    def _of_reservation(self, view: View) -> tuple[Fact, str]:
        end, held = self.chance.end(), view.get(Reservation, self.namespace, self.key)
        if held is None or held.state != "held" or self.what == "begins":
            some, mode = self.chance.anything(), self.chance.choice(MODES)
            return ReservationReserved(paths=some, mode=mode, lease_s=9, expires=end, until=end), self.agent
        if self.what == "goes on":
            return ReservationRenewed(lease_s=9, expires=end), held.agent
        if self.what == "ends":
            return ReservationExpired(agent=held.agent, paths=()), SYSTEM
        several = sorted(held.paths)
        return ReservationReleased(paths=tuple(self.chance.sample(several, k=(len(several) + 1) // 2))), held.agent

    def _of_intent(self, view: View) -> tuple[Fact, str]:
        end, known = self.chance.end(), view.get(Intent, self.namespace, self.key)
        if known is None or known.state != "declared" or self.what == "begins":
            return IntentDeclared(said="x", text=self.chance.text(), lease_s=9, expires=end, until=end), self.agent
        if self.what == "goes on":
            text = self.chance.text()
            return IntentExtended(declared=known.declared, text=text, lease_s=9, expires=end), known.agent
        if self.what == "ends":
            return IntentExpired(agent=known.agent, declared=known.declared), SYSTEM
        return IntentWithdrawn(declared=known.declared), known.agent


MOVES = ("propose", "propose", "propose", "store", "fold", "late", "rival", "rival", "rival")


class Past:
    """A log, and a view of it that may be behind it and ahead of it."""

    def __init__(self) -> None:
        self.view = Speculation(World(FAMILIES))
        self.log: list[Draft] = []
        self.proposed: list[Draft] = []

    def move(self, what: str, one: Happening, number: int) -> None:
        sent = one.draft(number, self.view)
        if what == "propose":
            self.proposed.append(sent)
            self.view.propose([sent])
        elif what == "store" and self.proposed:
            self._store(2)
        elif what == "fold" and self.view.world.position < len(self.log):
            self._fold()
        elif what == "late" and self.proposed and self.view.world.position == len(self.log):
            # The tail brings it before the acknowledgement does.
            self.log.append(self.proposed.pop(0))
            self._fold()
            self.view.stored(self.log[-1:], [len(self.log)])
        elif what == "rival":
            # Another leader wrote it, and what is proposed here is refused only later.
            self.log.append(sent)
            while self.view.world.position < len(self.log):
                self._fold()
        elif what == "discard":
            self.proposed.clear()
            self.view.discard()
        elif what == "load":
            self._load()

    def _store(self, most: int) -> None:
        batch, self.proposed = self.proposed[:most], self.proposed[most:]
        self.log += batch
        self.view.stored(batch, range(len(self.log) - len(batch) + 1, len(self.log) + 1))

    def _fold(self) -> None:
        event = as_event(self.log[self.view.world.position], self.view.world.position + 1)
        self.view.folded(event, self.view.world.fold(event))

    def _load(self) -> None:
        """Another process begins with what is stored."""
        self.proposed.clear()
        while self.view.world.position < len(self.log):
            self._fold()
        world = World(FAMILIES)
        for state in (Reservation, Intent):
            for namespace, key, entry in self.view.world.entries(state):
                world.load(state, namespace, key, entry)
        world.position = len(self.log)
        self.view = Speculation(world)
        self.view.index()


# --- what is decided ------------------------------------------------------------------------------------------------


def request_by(chance: Chance) -> Command:
    namespace, repository = chance.choice(NAMESPACES), chance.choice((None, None, "lib"))
    where: dict[str, Any] = {"namespace": namespace, "repository": repository}
    kind = chance.choice((Reserve, Reserve, Reserve, Release, Renew, Declare))
    if kind is Reserve:
        return Reserve(paths=chance.paths(), mode=chance.choice(MODES), **where)  # type: ignore[arg-type]
    if kind is Release:
        return Release(all=chance.random() < 0.5, paths=chance.paths(1), **where)
    if kind is Renew:
        return Renew(reservations=chance.choice(((), ("r-1",), ("r-1", "r-2"))), **where)
    return Declare(key=chance.choice(SAID), text=chance.text(), namespace=namespace)


def decided(view: Any, request: Command, ctx: Context) -> Any:
    """What is decided: events, a reply, or an error in parts."""
    decide = OPERATION_OF[type(request)].decide
    assert decide is not None
    try:
        return decide(view, request, ctx)
    except BusError as error:
        return type(error), str(error), error.details


def simply(view: Speculation, request: Reserve, ctx: Context) -> tuple[list[str], list[str], list[str]]:
    """The keys of the reservations that `request` repeats, ends, and is refused for."""
    same, ended, against = [], [], []
    mine = {normal(path) for path in request.paths}
    for key, entry in view.ranked(Reservation, request.namespace):
        held: Reservation = entry.state
        if not key.startswith(f"{request.repository or request.namespace}:"):
            continue
        meets = any(overlap(one, other) for one in mine for other in held.paths)
        if overdue(held, ctx.now):
            ended += [key] if meets else []
        elif held.agent == ctx.agent:
            same += [key] if (held.mode, held.paths) == (request.mode, mine) else []
        elif meets and "exclusive" in (held.mode, request.mode):
            against.append(key)
    return same, ended, against


def simply_near(view: Speculation, request: Declare) -> list[tuple[str, float]]:
    """The keys of the intents that are worded alike, and how much so."""
    likely, found = [], []
    for key, entry in view.ranked(Intent, request.namespace):
        mine = "" if "/" in key and "/" in request.key else request.key
        bound = max(at_most(mine)(key), at_most(request.text)(entry.state.text))
        if key != request.key and bound >= ALIKE:
            share = max(likeness(mine, key), likeness(request.text, entry.state.text))
            likely.append((-bound, entry.state.declared, key, share))
    for _, declared, key, share in sorted(likely)[: intent.COMPARED]:
        if share >= ALIKE:
            found.append((-round(share, 2), declared, key))
    return [(key, -share) for share, _, key in sorted(found)[: intent.WARNINGS]]


def check_rules(view: Speculation, request: Reserve, ctx: Context, outcome: Any) -> None:
    same, ended, against = simply(view, request, ctx)
    if same:
        key = same[0]
        assert outcome.reservation == id_of(key) if isinstance(outcome, Reply) else [e.entity for e in outcome] == [key]
    elif against:
        assert [one["reservation"] for one in outcome[2]["conflicts"]] == [id_of(key) for key in against]
    else:
        assert [emit.entity for emit in outcome[:-1]] == ended
        assert isinstance(outcome[-1].fact, ReservationReserved)


@settings(max_examples=150)
@given(st.integers(0, 1 << 32))
def test_a_decision_is_the_one_that_looking_at_everything_leads_to(seed: int) -> None:
    chance, past = Chance(seed), Past()
    for number in range(chance.randint(20, 120)):
        what = chance.choice(("discard", "load")) if chance.random() < 0.03 else chance.choice(MOVES)
        past.move(what, Happening.by(chance), number)
    few, compared = chance.choice((0, 1, reservation_index.FEW)), chance.choice((2, intent.COMPARED))
    with mock.patch.object(reservation_index, "FEW", few), mock.patch.object(intent, "COMPARED", compared):
        for _ in range(30):
            past.view.settled = chance.random() < 0.5
            check(past.view, request_by(chance), chance.choice(AGENTS), chance.end())


def check(view: Speculation, request: Command, agent: str, now: datetime) -> None:
    def asked(by: Any) -> tuple[Any, bool]:
        ctx = Context(agent=agent, namespace=request.namespace, now=now, ids=CountingIds(), limits=Limits())
        view.touched = False
        return decided(by, request, ctx), view.touched

    outcome, touched = asked(view)
    assert (outcome, touched) == asked(Everything(view))
    if isinstance(request, Reserve):
        check_rules(view, request, Context(agent=agent, namespace="", now=now, ids=CountingIds()), outcome)
    elif isinstance(request, Declare):
        found = near(view, request.namespace, request.key, request.text)
        assert [(one.key, one.likeness) for one in found] == simply_near(view, request)
