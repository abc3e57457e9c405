"""Deciding: nothing unstored is revealed, requests have one effect, and nobody's mistake is another's."""

from __future__ import annotations

import anyio
import pytest
from msgspec.structs import replace

from bus.domain import task_requests as ask
from bus.domain.agent import Deactivate, Grant, Reactivate
from bus.domain.channel import ChannelPosted, Join, Leave, Open, Post
from bus.domain.registry import RegisterModel
from bus.domain.task import TaskClaimed, TaskExpired
from bus.errors import BusError, Defect, InvalidRequest, NotAllowed, NotFound
from bus.events import TRACE, Event
from bus.execute import ATTEMPTS, Call
from bus.log import LogFull
from bus.model import Reply
from bus.operation import CODEC, OPERATIONS
from bus.subjects import SYSTEM
from bus.world import PROVISIONAL
from tests.unit.leader import Leader, founded, rival


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


FEW, MANY = 3, 30
"""Waiting events that go one by one, and so many that they are one batch, before anything was learned."""


def last(leader: Leader, count: int = 1) -> list[tuple[str, str]]:
    """(author, type) of the newest events."""
    return [(event.agent, event.type) for event in events(leader)[-count:]]


# --- replies wait for the log -------------------------------------------------------------------------------------


async def test_a_reply_waits_for_the_log_and_carries_the_seq(leader: Leader) -> None:
    asked = leader.ask("atlas", Post(channel="dev", text="hi"))
    assert asked.waits
    await leader.step()
    assert asked.reply.seq == len(leader.log.records)
    assert CODEC.decode(leader.log.records[-1]).fact == ChannelPosted(text="hi")


async def test_commands_on_one_bucket_share_a_batch_in_their_order(leader: Leader) -> None:
    asked = [leader.ask("atlas", Post(channel="dev", text=str(n))) for n in range(MANY)]
    await leader.step()
    assert leader.log.appends == [MANY]
    seqs = [one.reply.seq for one in asked]
    assert seqs == sorted(seqs)
    texts = [event.fact.text for event in events(leader) if isinstance(event.fact, ChannelPosted)]
    assert texts == [str(n) for n in range(MANY)]


async def test_few_go_one_by_one(leader: Leader) -> None:
    for n in range(FEW):
        leader.ask("atlas", Post(channel="dev", text=str(n)))
    await leader.step()
    assert leader.log.appends == [1] * FEW


async def test_a_command_sees_what_is_queued_before_it(leader: Leader) -> None:
    asked = [leader.ask("nova", Join(channel="ops")), leader.ask("nova", Post(channel="ops", text="first"))]
    asked.append(leader.ask("nova", ask.Claim(task="T")))
    asked.append(leader.ask("nova", ask.Complete(task="T")))
    await leader.step()
    assert [type(one.reply).__name__ for one in asked] == ["ChannelReply", "PostReply", "LeaseReply", "TaskReply"]


async def test_execute_returns_the_reply_and_raises_the_error(leader: Leader) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.pipeline.run)
        tasks.start_soon(leader.executor.run_fetches)
        run = leader.executor.execute
        reply = await run(OPERATIONS["channel.post"], Post(channel="dev", text="hi"), "atlas")
        again = await run(OPERATIONS["channel.post"], Post(channel="dev", text="re", reply_to=reply.seq), "nova")
        assert again.seq == reply.seq + 1
        with pytest.raises(NotFound):
            await run(OPERATIONS["channel.post"], Post(channel="ops", text="hi"), "atlas")
        tasks.cancel_scope.cancel()


# --- nothing unstored is revealed ---------------------------------------------------------------------------------


async def test_a_refusal_that_rests_on_an_unstored_claim_waits_for_it(leader: Leader) -> None:
    won, lost = leader.ask("atlas", ask.Claim(task="T")), leader.ask("nova", ask.Claim(task="T"))
    assert lost.waits
    await leader.step()
    assert won.reply.fence == len(leader.log.records)
    await leader.step()
    assert lost.error.details["fence"] == won.reply.fence


async def test_who_was_second_wins_when_the_first_is_not_stored(leader: Leader) -> None:
    first, second = leader.ask("atlas", ask.Claim(task="T")), leader.ask("nova", ask.Claim(task="T"))
    leader.log.errors = [LogFull("full")]
    await leader.drain()
    assert isinstance(first.error, LogFull)
    assert second.reply.fence == len(leader.log.records)


async def test_next_does_not_say_that_nothing_waits_because_of_an_unstored_claim(leader: Leader) -> None:
    first, second = leader.ask("atlas", ask.Next()), leader.ask("nova", ask.Next())
    leader.log.errors = [LogFull("full")]
    await leader.drain()
    assert isinstance(first.error, LogFull)
    assert second.reply.task == "T"


async def test_what_always_meets_something_unstored_is_judged_by_the_stored_state(leader: Leader) -> None:
    await leader.do("atlas", ask.Claim(task="T"))
    leader.ask("atlas", Join(channel="dev"))
    asked = leader.ask("nova", ask.Next())
    for n in range(ATTEMPTS + 2):
        leader.ask("atlas", (Leave, Join)[n % 2](channel="dev"))
        await leader.step()
    assert asked.error.code == "none_waiting"


async def test_no_event_names_the_seq_of_one_that_is_not_stored(leader: Leader) -> None:
    claimed = leader.ask("nova", ask.Claim(task="T", lease_s=10))
    leader.clock.pass_s(1)
    renewed = leader.ask("nova", ask.Renew(task="T"))
    await leader.drain()
    assert renewed.reply.fence == claimed.reply.fence
    assert claimed.reply.fence < PROVISIONAL
    leader.ask("nova", ask.Release(task="T"))
    leader.ask("nova", ask.Claim(task="T", lease_s=10))
    leader.clock.pass_s(10)
    taken = leader.ask("atlas", ask.Claim(task="T"))  # Meets a lease that is overdue before it is stored.
    leader.executor.expire()
    await leader.drain()
    assert taken.reply.task == "T"
    assert [kind for _, kind in last(leader, 4)] == ["task.released", "task.claimed", "task.expired", "task.claimed"]
    expired = events(leader)[-2].fact
    assert expired == TaskExpired(owner="nova", fence=len(leader.log.records) - 2)


async def test_a_reply_does_not_show_what_was_decided_after_it(leader: Leader) -> None:
    fence = (await leader.do("nova", ask.Claim(task="T"))).fence
    leader.clock.pass_s(1)
    renewed = leader.ask("nova", ask.Renew(task="T"))
    amended = leader.ask("nova", ask.Amend(task="T", title="new"))
    leader.ask("nova", ask.Complete(task="T", result="never stored"))
    leader.log.errors = [None, None, LogFull("full")]
    await leader.step()
    assert (renewed.reply.fence, renewed.reply.title) == (fence, "x")
    assert amended.reply.state == "claimed"


async def test_idempotent_replies_carry_seqs_of_the_log(leader: Leader) -> None:
    joined, again = leader.ask("nova", Join(channel="dev")), leader.ask("nova", Join(channel="dev"))
    assert again.waits
    await leader.drain()
    assert again.reply.seq == joined.reply.seq == len(leader.log.records)


# --- who may ask --------------------------------------------------------------------------------------------------


async def test_only_active_agents_are_served_from_the_next_command_on(leader: Leader) -> None:
    assert (await leader.refused("ghost", Post(channel="dev", text="x"))).code == "unknown_agent"
    leader.ask("olga", Deactivate(agent="nova"))
    asked = leader.ask("nova", Post(channel="dev", text="x"))
    await leader.drain()
    assert (type(asked.error), asked.error.code) == (NotAllowed, "inactive")
    await leader.do("olga", Reactivate(agent="nova"))
    assert await leader.do("nova", Post(channel="dev", text="x"))


async def test_authority_is_checked_against_the_present_state(leader: Leader) -> None:
    error = await leader.refused("atlas", Grant(agent="atlas", authority="owner"))
    assert (type(error), error.problem.expected, error.problem.found) == (NotAllowed, "owner", "none")
    granted = leader.ask("olga", Grant(agent="atlas", authority="owner"))
    used = leader.ask("atlas", Grant(agent="nova", authority="auditor"))
    await leader.drain()
    assert used.reply.seq > granted.reply.seq


async def test_only_what_frees_something_is_served_when_the_log_is_nearly_full(leader: Leader) -> None:
    await leader.do("nova", ask.Claim(task="T"))
    leader.executor.nearly_full = True
    assert (await leader.refused("nova", Post(channel="dev", text="x"))).code == "quota"
    assert (await leader.do("nova", ask.Complete(task="T"))).state == "done"


# --- nobody's mistake is another's --------------------------------------------------------------------------------


async def test_what_no_event_can_hold_is_refused_before_it_is_queued(leader: Leader) -> None:
    big = leader.ask("atlas", Post(channel="dev", text="\x01" * 190_000))
    assert (type(big.error), big.error.code) == (InvalidRequest, "too_large")
    long_key = leader.ask("atlas", RegisterModel(model="a" + "/" * 80))
    assert long_key.error.code == "bad_key"
    odd = leader.ask("atlas", Post(channel="dev", text="x", correlation="ü" * 64))
    assert odd.error.code == "bad_key"
    assert len(leader.pipeline) == 0


async def test_a_refusal_of_the_log_is_told_to_the_one_it_is_about(leader: Leader) -> None:
    asked = [leader.ask("atlas", Post(channel="dev", text=str(n))) for n in range(MANY)]
    leader.log.errors = [LogFull("full"), None, LogFull("full")]  # The batch, then one by one.
    await leader.drain()
    assert leader.log.appends[0] == MANY
    assert [n for n, one in enumerate(asked) if isinstance(one.results[0], LogFull)] == [1]
    texts = [event.fact.text for event in events(leader) if isinstance(event.fact, ChannelPosted)]
    assert texts == [str(n) for n in range(MANY) if n != 1]


async def test_a_defect_in_one_decision_is_the_answer_to_that_request(leader: Leader) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    operation = OPERATIONS["channel.post"]
    results: list[Reply | BusError] = []
    for odd in (replace(operation, decide=broken), replace(operation, reads=broken), replace(operation, reply=broken)):
        request = Post(channel="dev", text="x")
        leader.executor.submit(Call(odd, request, "atlas", results.append, request_id="r1"))
        await leader.drain()
    fine = leader.ask("atlas", Post(channel="dev", text="x"))
    await leader.drain()
    assert fine.reply
    assert [type(result) for result in results] == [Defect, Defect, Defect]
    assert "ZeroDivisionError" in str(results[0])


async def test_an_answer_that_cannot_be_delivered_stops_nobody(leader: Leader) -> None:
    def gone(_: object) -> None:
        raise ConnectionError

    leader.executor.submit(Call(OPERATIONS["channel.post"], Post(channel="dev", text="x"), "atlas", gone))
    asked = leader.ask("atlas", Post(channel="dev", text="y"))
    await leader.drain()
    assert asked.reply


async def test_a_request_that_always_loses_is_told_to_come_again(leader: Leader) -> None:
    other = rival(leader)
    asked = leader.ask("nova", Post(channel="dev", text="x"))
    for n in range(ATTEMPTS):
        assert asked.waits
        await other.do("atlas", Post(channel="dev", text=str(n)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leader.step)
            await anyio.lowlevel.checkpoint()
            leader.fold()
    assert (asked.error.code, asked.error.problem.retry_after_s) == ("contention", 0.2)
    assert not leader.executor.waiting


# --- headers ------------------------------------------------------------------------------------------------------


async def test_events_say_what_led_to_them(leader: Leader) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    asked = leader.ask("nova", Post(channel="dev", text="x", causes=(1, 2), correlation="c 1"), "r1", trace)
    leader.ask("nova", Post(channel="dev", text="y"), None, "injected: x")
    await leader.drain()
    first, second = events(leader)[-2:]
    assert (first.causes, first.correlation, first.agent, first.seq) == ((1, 2), "c 1", "nova", asked.reply.seq)
    assert first.request is not None
    assert first.request.id == "r1"
    assert leader.log.records[-2].headers[TRACE] == trace
    assert TRACE not in leader.log.records[-1].headers
    assert second.request is None


async def test_what_system_adds_is_not_the_requests_own(leader: Leader) -> None:
    await leader.do("nova", ask.Claim(task="T", lease_s=10))
    leader.clock.pass_s(10)
    reply = await leader.do("atlas", ask.Claim(task="T"), "r1")
    expired, claimed = events(leader)[-2:]
    assert (expired.agent, expired.request) == (SYSTEM, None)
    assert claimed.request is not None
    assert await leader.do("atlas", ask.Claim(task="T"), "r1") == reply


# --- deadlines ----------------------------------------------------------------------------------------------------


async def test_overdue_leases_end_by_an_event_of_system_once(leader: Leader) -> None:
    await leader.do("nova", ask.Claim(task="T", lease_s=10))
    leader.executor.expire()
    assert len(leader.pipeline) == 0
    leader.clock.pass_s(10)
    leader.executor.expire()
    leader.executor.expire()
    await leader.drain()
    leader.executor.expire()
    assert len(leader.pipeline) == 0
    assert last(leader, 2) == [("nova", "task.claimed"), (SYSTEM, "task.expired")]


async def test_what_is_under_way_is_waited_for_before_it_expires(leader: Leader) -> None:
    leader.ask("nova", ask.Claim(task="T", lease_s=10))
    leader.clock.pass_s(10)
    leader.executor.expire()
    assert len(leader.pipeline) == 1
    await leader.step()
    leader.executor.expire()
    await leader.drain()
    expired = events(leader)[-1].fact
    assert isinstance(expired, TaskExpired)
    claimed = events(leader)[expired.fence - 1].fact
    assert isinstance(claimed, TaskClaimed)
