"""Hand-offs over the raw log: whatever is offered, accepted, declined and passed on at once, and although the daemon is
killed meanwhile, from its first claim to its end a task has exactly one holder at every moment."""

from __future__ import annotations

import random
from collections import Counter

import anyio

from bus import Bus
from bus.domain import task_requests as task
from bus.errors import BusError
from tests.acceptance.checker import Event, read_event
from tests.acceptance.support import Rig

AGENTS = [f"a{number}" for number in range(5)]
TASKS = [f"t{number}" for number in range(4)]
TURNS = 60
ANSWERS = {"not_holder", "not_offered", "claimed"}
"""The refusals that somebody may meet who tries his luck."""


def holders(events: list[Event]) -> tuple[list[str], dict[int, tuple[str, str]]]:
    """-> (what is wrong, by hand-off: who held the task before it and who after it)"""
    wrong: list[str] = []
    passed: dict[int, tuple[str, str]] = {}
    holder: dict[str, str] = {}
    offered: dict[str, str | None] = {}
    for event in events:
        now, verb = holder.get(event.entity), event.type.removeprefix("task.")
        match verb:
            case "claimed":
                right = now is None
                holder[event.entity] = event.agent
            case "handed_off":
                giver, taker = event.data["from"], event.data["to"]
                right = now == giver and event.agent in (giver, taker)
                right = right and (event.agent == giver or offered.get(event.entity) == taker)
                passed[event.seq] = (giver, taker)
                holder[event.entity] = taker
            case "offered":
                right = now == event.agent
            case "declined":
                right = offered.get(event.entity) == event.agent
            case "completed" | "released":
                right = now == event.agent
                del holder[event.entity]
            case _:
                right = verb == "opened"
        offered[event.entity] = event.data["to"] if verb == "offered" else None
        if not right:
            wrong.append(f"#{event.seq} {event.type} by {event.agent}: held by {now}")
    return wrong, passed


async def trade(bus: Bus, chance: random.Random, told: Counter[str], killed: anyio.Event) -> None:
    """Claim, pass on, offer, accept and decline whatever there is, until well after the daemon was killed."""
    others = [name for name in AGENTS if name != bus.agent]
    left = TURNS
    while left:
        left -= killed.is_set()
        key = chance.choice(TASKS)
        request = chance.choice(
            [
                task.Claim(task=key, lease_s=3600),
                task.Handoff(task=key, to=chance.choice(others), direct=True, notes="yours", refs=(1,)),
                task.Handoff(task=key, to=chance.choice(others), notes="please"),
                task.Accept(task=key),
                task.Accept(task=key),
                task.Decline(task=key, reason="busy"),
            ]
        )
        try:
            await bus.call(request)
        except BusError as error:
            if error.code not in ANSWERS:
                raise
            told[error.code] += 1
        else:
            told[type(request).__name__] += 1


async def test_there_is_no_moment_without_or_with_two_holders(rig: Rig) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    told: Counter[str] = Counter()
    killed = anyio.Event()
    async with rig.connect() as owner:
        for key in TASKS:
            await owner.call(task.Open(title=key, task=key))
    async with anyio.create_task_group() as everybody:

        async def one(name: str) -> None:
            async with rig.connect(name) as bus:
                await trade(bus, random.Random(f"{seed} {name}"), told, killed)

        for name in AGENTS:
            async with rig.connect(name):
                pass  # Registered before anybody passes something on to it.
        for name in AGENTS:
            everybody.start_soon(one, name)
        await anyio.to_thread.run_sync(rig.kill, "daemon")
        killed.set()
    events = [event for record in await rig.log() if (event := read_event(record)) and event.type.startswith("task.")]
    wrong, passed = holders(events)
    assert wrong == []
    assert len(passed) == told["Accept"] + sum(
        event.type == "task.handed_off" and event.agent == event.data["from"] for event in events
    )
    assert told["Accept"], "nothing was accepted: the test has tried nothing"
    assert len(passed) > told["Accept"], "nothing was passed on directly: the test has tried nothing"
    places = {event.seq: event.entity for event in events}
    async with rig.connect() as owner:
        for seq, (giver, taker) in list(passed.items())[:40]:
            for moment, holder in ((seq - 1, giver), (seq, taker)):
                row = (await owner.call(task.Show(task=places[seq], as_of=moment))).task
                assert (row.state, row.owner) == ("claimed", holder)


def test_the_judge_finds_what_would_be_wrong() -> None:
    def event(seq: int, kind: str, agent: str, **data: str) -> Event:
        return Event(seq, 0, "", f"task.{kind}", "t", agent, "", "", data)

    opened, claimed = event(1, "opened", "o"), event(2, "claimed", "a")
    given = {"from": "a", "to": "b"}
    for bad in (
        [opened, claimed, event(3, "claimed", "b")],
        [opened, claimed, event(3, "handed_off", "b", **given)],
        [opened, event(3, "handed_off", "a", **given)],
        [opened, claimed, event(3, "handed_off", "a", **given), event(4, "completed", "a")],
        [
            opened,
            claimed,
            event(3, "offered", "a", to="b"),
            event(4, "declined", "b"),
            event(5, "handed_off", "b", **given),
        ],
    ):
        assert holders(bad)[0]
    offer = [opened, claimed, event(3, "offered", "a", to="b"), event(4, "handed_off", "b", **given)]
    assert holders([*offer, event(5, "completed", "b")]) == ([], {4: ("a", "b")})
