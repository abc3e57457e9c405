"""Requests: one effect each, however often, to whomever and in whatever order they are sent."""

from __future__ import annotations

import anyio
import pytest

from bus import requests
from bus.domain import task_requests as ask
from bus.domain.agent import Register
from bus.domain.channel import Open, Post
from bus.errors import Refused
from bus.events import Event, RequestId
from bus.operation import CODEC
from bus.requests import Memory, RequestIds, request_digest
from tests.unit.leader import Ids, Leader, founded, rival


@pytest.fixture
async def leader() -> Leader:
    """atlas and nova exist, the channel dev is open, and so is task T."""
    leader = await founded("atlas", "nova")
    await leader.do("atlas", Open(channel="dev"))
    await leader.do("atlas", ask.Open(title="x", task="T"))
    leader.log.appends.clear()
    return leader


def events(leader: Leader) -> list[Event]:
    return [CODEC.decode(record) for record in leader.log.records]


async def test_a_repeated_request_gets_the_same_reply_and_does_nothing(leader: Leader) -> None:
    requests = [
        ("atlas", ask.Open(title="x", needs=("T",))),
        ("nova", ask.Claim(task="T", lease_s=90)),
        ("nova", Post(channel="dev", text="hi @atlas")),
        ("nova", ask.Handoff(task="T", to="atlas")),
        ("atlas", ask.Accept(task="T")),
        ("atlas", ask.Complete(task="T", result="r")),
        ("olga", Register(agent="iris")),
    ]
    replies = [await leader.do(agent, request, f"r{n}") for n, (agent, request) in enumerate(requests)]
    stored = len(leader.log.records)
    restarted = Leader(leader.log, leader.clock)
    restarted.fold()
    for who in (leader, restarted):
        again = [await who.do(agent, request, f"r{n}") for n, (agent, request) in enumerate(requests)]
        assert again == replies
    assert len(leader.log.records) == stored


async def test_a_renewal_is_repeated_with_its_own_fence(leader: Leader) -> None:
    await leader.do("nova", ask.Claim(task="T"))
    leader.clock.pass_s(1)
    reply = await leader.do("nova", ask.Renew(task="T"), "r1")
    await leader.do("nova", ask.Release(task="T"))
    await leader.do("atlas", ask.Claim(task="T"))
    assert await leader.do("nova", ask.Renew(task="T"), "r1") == reply


async def test_repeats_join_the_one_that_is_under_way(leader: Leader) -> None:
    request = Post(channel="dev", text="hi")
    asked = [leader.ask("atlas", request, "r1") for _ in range(3)]
    await leader.drain()
    assert {one.reply.seq for one in asked} == {len(leader.log.records)}
    assert leader.log.appends == [1]


async def test_a_repeat_is_known_before_the_tail_has_brought_its_events(leader: Leader) -> None:
    request = Post(channel="dev", text="hi")
    first = leader.ask("atlas", request, "r1")
    await leader.step()
    again = leader.ask("atlas", request, "r1")
    await leader.executor.fetch()
    assert again.reply == first.reply
    assert leader.log.appends == [1]


async def test_an_id_stands_for_one_request_of_one_agent(leader: Leader) -> None:
    under_way = leader.ask("atlas", Post(channel="dev", text="a"), "r1")
    other = leader.ask("atlas", Post(channel="dev", text="b"), "r1")
    assert other.error.code == "request_reused"
    await leader.drain()
    assert under_way.reply
    error = await leader.refused("atlas", Post(channel="dev", text="b"), "r1")
    assert (type(error), error.code) == (Refused, "request_reused")
    assert (await leader.do("nova", Post(channel="dev", text="b"), "r1")).seq == len(leader.log.records)
    # `after` says nothing about what is asked for.
    assert await leader.do("atlas", Post(channel="dev", text="a", after=1), "r1") == under_way.reply


async def test_a_refused_request_may_be_tried_again(leader: Leader) -> None:
    await leader.do("atlas", ask.Claim(task="T"))
    assert (await leader.refused("nova", ask.Claim(task="T"), "r1")).code == "claimed"
    await leader.do("atlas", ask.Release(task="T"))
    assert (await leader.do("nova", ask.Claim(task="T"), "r1")).fence == len(leader.log.records)


async def test_what_another_leader_stored_meanwhile_is_not_done_again(leader: Leader) -> None:
    other = rival(leader)
    request = ask.Open(title="mine", priority=3)
    mine = leader.ask("nova", request, "r1")
    stored = await other.do("nova", request, "r1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.step)
        await anyio.lowlevel.checkpoint()
        leader.fold()
    await leader.drain()
    assert mine.reply == stored
    assert len([event for event in events(leader) if event.agent == "nova"]) == 1


async def test_half_a_request_is_not_answered_from(leader: Leader) -> None:
    other = rival(leader)
    request = ask.Open(title="mine", needs=("T",))
    stored = await other.do("nova", request, "r1")
    leader.fold(len(leader.log.records) - 1)
    asked = leader.ask("nova", request, "r1")
    await leader.drain()
    assert asked.reply == stored


async def test_a_refused_request_that_waits_is_answered_once_per_repeat(leader: Leader) -> None:
    leader.ask("atlas", ask.Claim(task="T"))
    asked = [leader.ask("nova", ask.Claim(task="T"), "r1") for _ in range(2)]
    await leader.drain()
    assert [one.error.code for one in asked] == ["claimed", "claimed"]


def test_digests_differ_with_the_operation_and_the_body_but_not_with_after() -> None:
    claim, other = ask.Claim(task="T"), ask.Claim(task="T", lease_s=1)
    digest = request_digest("task.claim", claim)
    assert digest == request_digest("task.claim", ask.Claim(task="T", after=7))
    assert len({digest, request_digest("task.claim", other), request_digest("task.renew", claim)}) == 3
    assert len(digest) == 16


def test_names_follow_from_the_request() -> None:
    def names(agent: str, id_: str) -> list[str]:
        ids = RequestIds(Ids(), agent, RequestId(id_, ""))
        return [ids.short("t"), ids.short("t"), ids.short("m")]

    assert names("atlas", "r1") == names("atlas", "r1")
    everything = [*names("atlas", "r1"), *names("atlas", "r2"), *names("nova", "r1")]
    assert len(set(everything)) == 9
    assert everything[0].startswith("t-")
    assert everything[2].startswith("m-")


def test_the_oldest_requests_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "REQUESTS_KEPT", 3)
    memory = Memory()
    for seq in range(1, 6):
        memory.add("atlas", RequestId(f"r{seq}", "d"), seq)
    memory.add("atlas", RequestId("r5", "d"), 6)
    memory.add("atlas", RequestId("r5", "d"), 6)
    assert [name for name in (f"r{seq}" for seq in range(1, 6)) if ("atlas", name) in memory] == ["r3", "r4", "r5"]
    known = memory.get(("atlas", "r5"))
    assert known is not None
    assert known.seqs == [5, 6]
