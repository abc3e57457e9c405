"""Presence: who was heard, how far away who is quiet is, and what a change of leaders does to it."""

from __future__ import annotations

from bus.domain.agent import ChangePresence, Deactivate
from bus.subjects import SYSTEM
from bus.tunables import PresenceLimits
from cli.presence import Presence
from tests.unit.leader import Leader, founded

LIMITS = PresenceLimits(idle_after_s=10, away_after_s=60, offline_after_s=300)


def watching(leader: Leader) -> Presence:
    return Presence(leader.view.world, leader.clock, LIMITS)


async def record(leader: Leader, presence: Presence) -> list[tuple[str, str]]:
    """Record what has changed. -> (agent, presence) of each"""
    changes = list(presence.changes())
    for change in changes:
        await leader.do(SYSTEM, change)
    return [(change.agent, change.presence) for change in changes]


async def test_the_longer_nothing_is_heard_the_further_away() -> None:
    leader = await founded("atlas", "nova")
    presence = watching(leader)
    assert await record(leader, presence) == []
    presence.heard("atlas")
    assert await record(leader, presence) == [("atlas", "online")]
    before = len(leader.log.records)
    for _ in range(9):
        leader.clock.pass_s(1)
        presence.heard("atlas")
        assert await record(leader, presence) == []
    assert len(leader.log.records) == before  # Being heard is no event.
    told = []
    for seconds in (9.9, 0.2, 49, 1, 239, 1, 10_000):
        leader.clock.pass_s(seconds)
        told += [(seconds, *change) for change in await record(leader, presence)]
    assert told == [(0.2, "atlas", "idle"), (1, "atlas", "away"), (1, "atlas", "offline")]
    presence.heard("atlas")
    assert await record(leader, presence) == [("atlas", "online")]


async def test_only_registered_and_active_agents_are_there() -> None:
    leader = await founded("atlas")
    presence = watching(leader)
    presence.heard("nobody")
    presence.heard("atlas")
    await leader.do("olga", Deactivate(agent="atlas"))
    assert await record(leader, presence) == []


async def test_a_daemon_that_stands_by_says_whom_it_heard_once() -> None:
    leader = await founded("atlas", "nova")
    standby, presence = watching(leader), watching(leader)
    for name in ("nova", "atlas", "nova"):
        standby.heard(name)
    news = standby.news()
    assert (news, standby.news()) == (["atlas", "nova"], [])
    presence.told(news)
    assert await record(leader, presence) == [("atlas", "online"), ("nova", "online")]
    assert presence.news() == []  # What was told is not told on.


async def test_nobody_comes_back_by_a_change_of_leaders_and_nobody_stays_for_ever() -> None:
    leader = await founded("atlas", "nova", "iris")
    for name, word in (("atlas", "online"), ("nova", "idle"), ("iris", "away")):
        await leader.do(SYSTEM, ChangePresence(agent=name, presence=word))
    told = []
    for _ in range(20):
        # Each leader is there for a while that is much shorter than any of the times.
        leader.clock.pass_s(4)
        presence = watching(leader)
        presence.take_over()
        told += await record(leader, presence)
        leader.clock.pass_s(7)
        told += await record(leader, presence)
    assert told == []
    presence = watching(leader)
    presence.take_over()
    leader.clock.pass_s(241)
    assert await record(leader, presence) == [
        ("atlas", "away"),
        ("nova", "away"),
        ("iris", "offline"),
    ]


async def test_who_takes_over_knows_whom_it_has_heard_itself() -> None:
    leader = await founded("atlas")
    presence = watching(leader)
    await leader.do(SYSTEM, ChangePresence(agent="atlas", presence="away"))
    presence.heard("atlas")
    leader.clock.pass_s(1)
    presence.take_over()
    assert await record(leader, presence) == [("atlas", "online")]
