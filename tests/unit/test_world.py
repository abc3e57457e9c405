"""The world and the speculation on it: folding, seeing ahead, and giving up what is not stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.domain.channel import Channel, ChannelJoined, ChannelOpened, ChannelPosted
from bus.domain.memory import Memory, MemoryRetracted, MemoryWritten, sameness
from bus.domain.reservation import Reservation, ReservationReleased, ReservationReserved
from bus.domain.reservation_index import Holding, Overlapping
from bus.domain.task import Task, TaskAmended, TaskClaimed, TaskExpired, TaskOpened, TaskReleased, TaskRenewed
from bus.events import Draft, Event, Fact, Unknown
from bus.model import Entry, Family, State
from bus.operation import FAMILIES
from bus.orders import Place
from bus.subjects import bucket_of
from bus.world import PROVISIONAL, Speculation, World, as_event, evolved, is_provisional

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def draft(id_: str, entity: str, fact: Fact, agent: str = "atlas") -> Draft:
    return Draft(
        id=id_,
        namespace="default",
        family=fact.type.partition(".")[0],
        bucket=bucket_of(entity),
        entity=entity,
        agent=agent,
        fact=fact,
    )


def fold(view: Speculation, sent: Draft, seq: int) -> None:
    event = as_event(sent, seq)
    view.folded(event, view.world.fold(event))


@pytest.fixture
def view() -> Speculation:
    return Speculation(World(FAMILIES))


# --- the world ----------------------------------------------------------------------------------------------------


def test_folding_keeps_the_first_and_the_last_seq_of_an_entity(view: Speculation) -> None:
    world = view.world
    opened, joined, posted = (
        as_event(draft(f"e{n}", "dev", fact), n)
        for n, fact in ((5, ChannelOpened()), (6, ChannelJoined()), (7, ChannelPosted(text="x")))
    )
    change = world.fold(opened)
    assert change is not None
    assert change.before is None
    change = world.fold(joined)
    assert change is not None
    assert (change.state, change.namespace, change.key) == (Channel, "default", "dev")
    assert world.fold(posted) is None
    assert world.entry(Channel, "default", "dev") == Entry(5, 6, Channel(members=frozenset({"atlas"})))
    assert (world.position, world.tips[posted.subject]) == (7, 7)


def test_what_cannot_be_read_is_counted_and_moves_the_position(view: Speculation) -> None:
    world = view.world
    known = as_event(draft("e1", "dev", ChannelOpened()), 1)
    assert world.fold(replace(known, fact=Unknown("why"))) is None
    assert world.fold(replace(known, seq=2, subject="log.default.martian.1", family="martian")) is None
    assert (world.position, world.skipped, world.tips[known.subject]) == (2, 2, 1)
    assert world.entry(Channel, "default", "dev") is None


def test_an_evolve_that_raises_changes_nothing_and_stops_nobody() -> None:
    class Odd(State, frozen=True, kw_only=True):
        table: ClassVar[str] = "odd"

    class Happened(Fact, frozen=True, kw_only=True):
        type: ClassVar[str] = "odd.happened"

    def evolve(state: Odd | None, event: Event) -> Odd | None:
        raise ZeroDivisionError

    family = Family(name="odd", facts=(Happened,), state=Odd, evolve=evolve)
    before = Entry(1, 1, Odd())
    assert evolved(family, before, as_event(draft("e1", "x", Happened()), 2)) is before


def test_a_loaded_world_is_indexed(view: Speculation) -> None:
    task = Task(title="x", opener="atlas", opened=3, state="claimed", expires=NOW)
    view.world.load(Task, "default", "held", Entry(3, 4, task))
    view.world.load(Task, "default", "free", Entry(5, 5, Task(title="y", opener="atlas", opened=5)))
    view.index()
    assert [key for key, _ in view.ranked(Task, "default")] == ["free"]
    assert list(view.due(NOW)) == [(Task, "default", "held")]
    assert view.next_deadline() == NOW


# --- seeing ahead -------------------------------------------------------------------------------------------------


def test_what_is_proposed_is_seen_and_marked_until_it_is_stored(view: Speculation) -> None:
    opened = draft("e1", "dev", ChannelOpened())
    view.propose([opened])
    assert view.get(Channel, "default", "dev") == Channel()
    assert view.touched
    entry = view.entry(Channel, "default", "dev")
    assert entry is not None
    assert entry.kid > PROVISIONAL
    view.settled = True
    assert view.get(Channel, "default", "dev") is None
    view.settled = False
    view.stored([opened], [4])
    view.touched = False
    assert view.entry(Channel, "default", "dev") == Entry(4, 4, Channel())
    assert not view.touched
    assert view.tip(opened.subject) == 4
    fold(view, opened, 4)
    assert view.entry(Channel, "default", "dev") is view.world.entry(Channel, "default", "dev")
    assert view.tips == {}


def test_an_event_that_changes_no_state_leaves_nothing_behind(view: Speculation) -> None:
    fold(view, draft("e1", "dev", ChannelOpened()), 1)
    posted = draft("e2", "dev", ChannelPosted(text="x"))
    view.propose([posted])
    assert view.get(Channel, "default", "dev") == Channel()
    assert not view.touched
    view.stored([posted], [2])
    assert view.tip(posted.subject) == 2


def test_the_tail_may_be_faster_than_the_acknowledgement(view: Speculation) -> None:
    opened = draft("e1", "dev", ChannelOpened())
    view.propose([opened])
    fold(view, opened, 4)
    view.stored([opened], [4])
    assert view.entry(Channel, "default", "dev") == Entry(4, 4, Channel())
    assert not view.touched
    assert [key for key, _ in view.ranked(Task, "default")] == []
    assert not view.touched
    assert (view.tips, view.tip(opened.subject)) == ({}, 4)


def test_discarding_gives_up_what_is_not_stored_and_nothing_else(view: Speculation) -> None:
    opened, joined = draft("e1", "dev", ChannelOpened()), draft("e2", "dev", ChannelJoined())
    other = draft("e3", "ops", ChannelOpened())
    view.propose([opened, joined, other])
    view.stored([opened], [1])
    view.discard()
    assert view.entry(Channel, "default", "dev") == Entry(1, 1, Channel())
    assert view.get(Channel, "default", "ops") is None
    assert [key for key, _ in view.ranked(Task, "default")] == []
    assert not view.touched
    view.propose([joined])
    assert view.get(Channel, "default", "dev") == Channel(members=frozenset({"atlas"}))


def test_events_of_others_slide_in_before_what_is_only_proposed(view: Speculation) -> None:
    fold(view, draft("e1", "dev", ChannelOpened()), 1)
    view.propose([draft("e2", "dev", ChannelJoined(), "atlas")])
    fold(view, draft("x1", "dev", ChannelJoined(), "nova"), 2)
    assert view.get(Channel, "default", "dev") == Channel(members=frozenset({"atlas", "nova"}))
    view.discard()
    assert view.get(Channel, "default", "dev") == Channel(members=frozenset({"nova"}))


def test_what_was_learned_of_a_subject_is_kept_only_if_it_is_newer(view: Speculation) -> None:
    view.learn_tip("log.default.task.1", 5)
    view.learn_tip("log.default.task.1", 4)
    assert view.tip("log.default.task.1") == 5


def test_seqs_of_unstored_events_are_recognised_in_facts() -> None:
    assert is_provisional(TaskExpired(owner="nova", fence=PROVISIONAL + 1))
    assert is_provisional(TaskRenewed(fence=PROVISIONAL, expires=NOW, lease_s=1))
    assert not is_provisional(TaskExpired(owner="nova", fence=12))
    assert not is_provisional(TaskOpened(title="x", priority=9, from_message=None))


# --- order and deadlines ------------------------------------------------------------------------------------------


def claim(id_: str, key: str, seconds: int = 60) -> Draft:
    expires = NOW + timedelta(seconds=seconds)
    return draft(id_, key, TaskClaimed(lease_s=seconds, expires=expires, until=expires), "nova")


def test_settled_order_is_that_of_the_stored_state(view: Speculation) -> None:
    for seq, (key, priority) in enumerate((("a", 1), ("b", 5), ("c", 3)), 1):
        fold(view, draft(f"e{seq}", key, TaskOpened(title=key, priority=priority)), seq)
    fold(view, claim("e4", "c"), 4)
    released = draft("e5", "c", TaskReleased(), "nova")
    later = draft("e6", "d", TaskOpened(title="d", priority=9))
    amended = draft("e7", "a", TaskAmended(priority=7))
    view.propose([claim("e8", "b"), released, later, amended])
    assert [key for key, _ in view.ranked(Task, "default")] == ["d", "a", "c"]
    assert view.touched
    view.settled = True
    view.touched = False
    assert [key for key, _ in view.ranked(Task, "default")] == ["b", "a"]
    assert [key for key, _ in view.ranked(Task, "other")] == []
    assert list(view.due(NOW + timedelta(seconds=60))) == [(Task, "default", "c")]
    assert not view.touched
    view.settled = False
    assert list(view.due(NOW + timedelta(seconds=60))) == [(Task, "default", "b")]


def test_entities_are_found_by_their_rank_as_they_are_and_as_they_are_stored(view: Speculation) -> None:
    one, two = ((sameness("shared", "atlas", "", text),) for text in ("one", "two"))
    for seq, text in enumerate(("zero", "one", "three"), 1):
        fold(view, draft(f"e{seq}", f"m-{seq}", MemoryWritten(content=text, scope="shared")), seq)
    assert [key for key, _ in view.ranked(Memory, "default", one)] == ["m-2"]
    assert not view.touched
    view.propose(
        [draft("e4", "m-4", MemoryWritten(content="two", scope="shared")), draft("e5", "m-2", MemoryRetracted())]
    )
    assert [[key for key, _ in view.ranked(Memory, "default", rank)] for rank in (one, two)] == [[], ["m-4"]]
    assert view.touched
    view.settled = True
    assert [[key for key, _ in view.ranked(Memory, "default", rank)] for rank in (one, two)] == [["m-2"], []]
    assert [key for key, _ in view.ranked(Memory, "lab", one)] == []


def test_what_an_index_finds_is_shown_as_it_is_and_as_it_is_stored(view: Speculation) -> None:
    def reserved(id_: str, key: str, path: str) -> Draft:
        fact = ReservationReserved(paths=(path,), mode="exclusive", lease_s=60, expires=NOW, until=NOW)
        return draft(id_, f"lib:{key}", fact)

    def found(path: str, repository: str = "lib", namespace: str = "default") -> list[str]:
        asked = Overlapping(repository, [path])
        return [key.removeprefix("lib:") for key, _ in view.found(Reservation, namespace, asked)]

    for seq, (key, path) in enumerate((("c", "src/**"), ("b", "docs/**"), ("a", "src/a.py")), 1):
        fold(view, reserved(f"e{seq}", key, path), seq)
    assert (found("src/a.py"), found("docs/x"), found("lib/**")) == (["c", "a"], ["b"], [])
    assert found("src/a.py", "src") == found("src/a.py", namespace="other") == []
    assert not view.touched
    given_back = draft("e4", "lib:c", ReservationReleased(paths=("src/**",)))
    view.propose([given_back, reserved("e5", "d", "src/*.py")])
    assert found("src/a.py") == ["a", "d"]
    assert view.touched
    view.touched = False
    view.settled = True
    assert found("src/a.py") == ["c", "a"]
    assert not view.touched
    view.settled = False
    view.discard()
    assert found("src/a.py") == ["c", "a"]
    loaded = Speculation(view.world)
    loaded.index()
    assert [key for key, _ in loaded.found(Reservation, "default", Holding("lib", "atlas"))] == [
        "lib:c",
        "lib:b",
        "lib:a",
    ]


# --- against a model ----------------------------------------------------------------------------------------------

KEYS = ("a", "b")
Step = tuple[str, int]


def some_fact(number: int) -> tuple[str, Fact, str]:
    """(entity, fact, author) for a number: every transition of two tasks comes up."""
    until = NOW + timedelta(seconds=10 * (number % 7))
    facts: Sequence[Fact] = (
        TaskOpened(title="x", priority=number % 3),
        TaskClaimed(lease_s=60, expires=until, until=until),
        TaskReleased(),
        TaskAmended(priority=number % 5),
    )
    return KEYS[number % 2], facts[number // 2 % 4], ("nova", "iris")[number // 8 % 2]


def naive(events: Sequence[Event]) -> dict[Place, Entry]:
    """What folding these events gives, the simplest way."""
    world = World(FAMILIES)
    for event in events:
        world.fold(event)
    return {(Task, namespace, key): entry for namespace, key, entry in world.entries(Task)}


def looks(view: Speculation) -> tuple[Any, ...]:
    """Everything decisions can read, without the seqs of what is not stored."""
    states = [view.get(Task, "default", key) for key in KEYS]
    plain = [
        s and replace(s, opened=min(s.opened, PROVISIONAL), fence=s.fence and min(s.fence, PROVISIONAL)) for s in states
    ]
    return plain, list(view.due(NOW + timedelta(seconds=35))), [key for key, _ in view.ranked(Task, "default")]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("propose", "propose", "store", "late", "fold", "rival", "discard")), st.integers(0, 63)
        )
    )
)
def test_whatever_happens_it_shows_what_a_fresh_fold_would(steps: list[Step]) -> None:
    """Proposing, storing, folding, rivals and roll-backs in any order against folding it all anew."""
    view = Speculation(World(FAMILIES))
    log: list[Draft] = []  # Stored, in the order of their seqs.
    proposed: list[Draft] = []
    for number, (what, choice) in enumerate(steps):
        entity, fact, author = some_fact(choice)
        sent = draft(f"e{number}", entity, fact, author)
        if what == "propose":
            proposed.append(sent)
            view.propose([sent])
        elif what == "store" and proposed:
            batch, proposed = proposed[: choice % 3 + 1], proposed[choice % 3 + 1 :]
            log += batch
            view.stored(batch, range(len(log) - len(batch) + 1, len(log) + 1))
        elif what == "late" and proposed and view.world.position == len(log):
            # The tail brings it before the acknowledgement does.
            batch, proposed = proposed[:2], proposed[2:]
            log += batch
            for seq in range(view.world.position + 1, len(log) + 1 - choice % 2):
                fold(view, log[seq - 1], seq)
            view.stored(batch, range(len(log) - len(batch) + 1, len(log) + 1))
        elif what == "fold" and view.world.position < len(log):
            fold(view, log[view.world.position], view.world.position + 1)
        elif what == "rival" and not proposed:
            log.append(sent)
            while view.world.position < len(log):
                fold(view, log[view.world.position], view.world.position + 1)
        elif what == "discard":
            proposed = []
            view.discard()
        check(view, log, proposed)


def check(view: Speculation, log: Sequence[Draft], proposed: Sequence[Draft]) -> None:
    stored = [as_event(sent, seq) for seq, sent in enumerate(log, 1)]
    unstored = [as_event(sent, PROVISIONAL + n) for n, sent in enumerate(proposed)]
    fresh = Speculation(World(FAMILIES))
    for event in (*stored, *unstored):
        fresh.folded(event, fresh.world.fold(event))
    assert looks(view) == looks(fresh)
    view.settled = True
    settled = Speculation(World(FAMILIES))
    for event in stored:
        settled.folded(event, settled.world.fold(event))
    assert looks(view) == looks(settled)
    entries = {(Task, "default", key): view.entry(Task, "default", key) for key in KEYS}
    assert {place: entry for place, entry in entries.items() if entry is not None} == naive(stored)
    view.settled = False
    view.touched = False
    before, after = naive(stored), naive([*stored, *unstored])
    for key in KEYS:
        view.touched = False
        view.get(Task, "default", key)
        assert view.touched or before.get((Task, "default", key)) == after.get((Task, "default", key))
