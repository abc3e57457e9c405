"""The append pipeline: batches, barriers, conflicts, and leadership at the moment of an append."""

from __future__ import annotations

import anyio
import pytest

from bus import pipeline
from bus.domain import task_requests as ask
from bus.domain.channel import ChannelPosted, Join, Open, Post
from bus.errors import Unavailable
from bus.log import LogFull, WrongExpectedSeq
from bus.operation import CODEC
from bus.pipeline import BATCH_EVENTS, Costs
from tests.unit.leader import Leader, founded, rival


@pytest.fixture
async def leader() -> Leader:
    leader = await founded("atlas", "nova", "iris")
    await leader.do("atlas", Open(channel="dev"))
    await leader.do("atlas", Open(channel="ops"))
    await leader.do("atlas", ask.Open(title="x", task="T"))
    leader.log.appends.clear()
    return leader


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two events are a batch already."""
    monkeypatch.setattr(Costs, "prefer_singles", lambda self, events: False)


def texts(leader: Leader) -> list[str]:
    facts = [CODEC.decode(record).fact for record in leader.log.records]
    return [fact.text for fact in facts if isinstance(fact, ChannelPosted)]


async def step_and_fold(leader: Leader) -> None:
    """Step, and bring the tail while the pipeline waits for it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.step)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            leader.fold()


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("batches")
async def test_a_batch_has_a_limit_of_events(leader: Leader) -> None:
    for n in range(BATCH_EVENTS + 5):
        leader.ask("atlas", Post(channel="dev", text=str(n)))
    await leader.drain()
    assert leader.log.appends == [BATCH_EVENTS, 5]
    assert texts(leader) == [str(n) for n in range(BATCH_EVENTS + 5)]


@pytest.mark.usefixtures("batches")
async def test_a_batch_has_a_limit_of_bytes(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BATCH_BYTES", 10_000)
    for n in range(9):
        leader.ask("atlas", Post(channel="dev", text=str(n) * 2000))
    await leader.drain()
    assert leader.log.appends == [4, 4, 1]


async def test_one_event_may_be_larger_than_a_batch(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BATCH_BYTES", 1000)
    asked = [leader.ask("atlas", Post(channel="dev", text="x" * 5000)) for _ in range(2)]
    await leader.drain()
    assert [one.waits for one in asked] == [False, False]


@pytest.mark.usefixtures("batches")
async def test_a_unit_is_never_split(leader: Leader) -> None:
    for n in range(BATCH_EVENTS // 2 + 1):
        leader.ask("atlas", ask.Open(title="x", task=f"S{n}", needs=("T",)))
        if n == 0:
            leader.ask("atlas", Post(channel="dev", text="x"))
    await leader.drain()
    assert leader.log.appends == [BATCH_EVENTS - 1, 4]


async def test_what_arrives_during_an_append_is_the_next_batch(leader: Leader) -> None:
    leader.log.hold()
    first = leader.ask("atlas", Post(channel="dev", text="a"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.step)
        await anyio.lowlevel.checkpoint()
        second = leader.ask("atlas", Post(channel="dev", text="b"))
        assert leader.executor.waiting == 2
        leader.log.go_on()
    assert (first.waits, second.waits, leader.executor.waiting) == (False, True, 1)
    await leader.drain()
    assert texts(leader) == ["a", "b"]


# --- barriers -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("batches")
async def test_a_barrier_does_not_split_a_batch(leader: Leader) -> None:
    leader.ask("nova", ask.Claim(task="T"))
    lost = [leader.ask(agent, ask.Claim(task="T")) for agent in ("atlas", "iris")]
    posts = [leader.ask("atlas", Post(channel="dev", text=str(n))) for n in range(5)]
    await leader.step()
    assert leader.log.appends == [6]
    assert [one.waits for one in posts] == [False] * 5
    await leader.step()
    assert [one.error.code for one in lost] == ["claimed", "claimed"]


@pytest.mark.usefixtures("batches")
async def test_barriers_keep_their_place_when_all_is_decided_again(leader: Leader) -> None:
    """nova claims, iris is refused for it, atlas cancels; nova's claim fails: then iris is next, not atlas."""
    claimed = leader.ask("nova", ask.Claim(task="T"))
    second = leader.ask("iris", ask.Claim(task="T"))
    cancelled = leader.ask("atlas", ask.Cancel(task="T"))
    for n in range(3):
        leader.ask("atlas", Post(channel="dev", text=str(n)))
    leader.log.errors = [Unavailable("no"), Unavailable("no")]
    await leader.drain()
    assert isinstance(claimed.error, Unavailable)
    assert second.reply.seq < cancelled.reply.seq


# --- conflicts ----------------------------------------------------------------------------------------------------


async def test_a_conflict_makes_everything_be_decided_again_in_order(leader: Leader) -> None:
    other = rival(leader)
    asked = [leader.ask("atlas", Post(channel="dev", text=str(n))) for n in range(4)]
    lost = leader.ask("atlas", ask.Claim(task="T"))
    asked += [leader.ask("atlas", Post(channel="ops", text=str(n))) for n in range(4, 6)]
    won = await other.do("nova", ask.Claim(task="T"))
    await step_and_fold(leader)
    assert leader.pipeline.conflicts == 1
    await leader.drain()
    assert (lost.error.details["owner"], lost.error.details["fence"]) == ("nova", won.fence)
    seqs = [one.reply.seq for one in asked]
    assert seqs == sorted(seqs)
    assert texts(leader) == [str(n) for n in range(6)]


@pytest.mark.usefixtures("batches")
async def test_nothing_of_a_refused_batch_is_stored(leader: Leader) -> None:
    other = rival(leader)
    for n in range(4):
        leader.ask("atlas", Post(channel="ops", text=str(n)))
    leader.ask("atlas", Post(channel="dev", text="mine"))
    await other.do("nova", Post(channel="dev", text="theirs"))
    await step_and_fold(leader)
    assert texts(leader) == ["theirs"]
    await leader.drain()
    assert texts(leader) == ["theirs", "0", "1", "2", "3", "mine"]


async def test_what_is_asked_while_the_tail_is_awaited_is_decided_on_what_it_brings(leader: Leader) -> None:
    other = rival(leader)
    first = leader.ask("atlas", ask.Claim(task="T"))
    won = await other.do("nova", ask.Claim(task="T"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.step)
        await anyio.lowlevel.checkpoint()
        late = leader.ask("iris", ask.Claim(task="T"))
        assert late.waits
        leader.fold()
    await leader.drain()
    assert first.error.details["fence"] == late.error.details["fence"] == won.fence


async def test_what_the_tail_brings_between_deciding_and_appending_does_not_pass_as_known(leader: Leader) -> None:
    """The rival's claim is folded before ours is appended: the expectation must be that of the decision."""
    other = rival(leader)
    mine = leader.ask("atlas", ask.Claim(task="T"))
    won = await other.do("nova", ask.Claim(task="T"))
    leader.fold()
    await leader.drain()
    assert mine.error.details["fence"] == won.fence
    assert leader.pipeline.conflicts == 1


async def test_a_log_that_does_not_say_where_it_ends_is_asked_again_by_appending(leader: Leader) -> None:
    asked = leader.ask("atlas", Post(channel="dev", text="x"))
    leader.log.errors = [WrongExpectedSeq("log.default.channel.1", 1, None)]
    leader.log.head_error = Unavailable("no")
    await leader.drain()
    assert asked.reply
    assert leader.pipeline.conflicts == 1


async def test_a_tip_that_was_not_known_is_learned_from_the_refusal(leader: Leader) -> None:
    leader.view.world.tips.clear()
    asked = leader.ask("atlas", Post(channel="dev", text="x"))
    await leader.drain()
    assert asked.reply
    assert leader.pipeline.conflicts == 1


async def test_what_is_known_has_no_gaps(leader: Leader) -> None:
    other = rival(leader)
    head = len(leader.log.records)
    await other.do("nova", Join(channel="ops"))
    asked = leader.ask("atlas", Post(channel="dev", text="x"))
    await leader.step()
    assert asked.reply.seq == head + 2
    assert leader.executor.known_seq == head
    leader.fold(head + 1)
    assert leader.executor.known_seq == head + 1
    leader.fold()
    assert leader.executor.known_seq == head + 2
    await leader.do("atlas", Post(channel="dev", text="y"))
    leader.ask("atlas", Post(channel="dev", text="z"))
    await leader.step()
    assert leader.executor.known_seq == head + 4


async def test_reached_returns_when_decisions_rest_on_the_event(leader: Leader) -> None:
    other = rival(leader)
    await other.do("nova", Join(channel="ops"))
    reached = False

    async def wait() -> None:
        nonlocal reached
        await leader.executor.reached(len(leader.log.records))
        reached = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        assert not reached
        leader.fold()
    assert reached


# --- leadership ---------------------------------------------------------------------------------------------------


async def test_without_leadership_nothing_is_sent_and_everybody_is_told(leader: Leader) -> None:
    asked = [leader.ask("nova", ask.Claim(task="T")), leader.ask("iris", ask.Claim(task="T"))]
    leader.leads = False
    await leader.step()
    assert [one.error.code for one in asked] == ["not_leading", "not_leading"]
    assert all(one.error.problem.retry_after_s for one in asked)
    assert leader.log.appends == []
    leader.leads = True
    assert (await leader.do("iris", ask.Claim(task="T"))).fence


async def test_leadership_lost_during_an_append_stops_the_next(leader: Leader) -> None:
    first = leader.ask("atlas", Post(channel="dev", text="a"))
    leader.log.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.step)
        await anyio.lowlevel.checkpoint()
        second = leader.ask("atlas", Post(channel="dev", text="b"))
        leader.leads = False
        leader.log.go_on()
    await leader.step()
    assert first.reply
    assert second.error.code == "not_leading"
    assert texts(leader) == ["a"]
    assert leader.executor.waiting == 0


# --- one by one, or as a batch ------------------------------------------------------------------------------------


async def test_what_goes_one_by_one_is_answered_one_by_one(leader: Leader) -> None:
    asked = [leader.ask("atlas", Post(channel="dev", text=text)) for text in "abc"]
    leader.log.errors = [None, LogFull("full")]
    await leader.step()
    assert asked[0].reply
    assert isinstance(asked[1].error, LogFull)
    assert asked[2].waits
    await leader.drain()
    assert texts(leader) == ["a", "c"]


async def test_a_conflict_in_the_middle_leaves_what_was_stored_before_it(leader: Leader) -> None:
    """The rival's post comes between ours: what is behind it is decided again, what is before it is not repeated."""
    other = rival(leader)
    first, second = (leader.ask("atlas", Post(channel="dev", text=text)) for text in "ab")
    leader.log.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leader.step)
        await anyio.lowlevel.checkpoint()
        leader.log.errors = [None, WrongExpectedSeq("log.default.channel.0", 0, None)]
        leader.log.go_on()
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            leader.fold()
    assert first.reply
    assert second.waits
    other.fold()
    await other.do("nova", Post(channel="dev", text="theirs"))
    await step_and_fold(leader)
    await leader.drain()
    assert sorted(texts(leader)) == ["a", "b", "theirs"]
    assert texts(leader)[0] == "a"


def test_few_go_one_by_one_and_many_as_a_batch_before_anything_is_known() -> None:
    costs = Costs()
    assert costs.prefer_singles(5)
    assert not costs.prefer_singles(30)


def test_the_choice_follows_what_is_measured() -> None:
    costs = Costs()
    for _ in range(30):
        costs.learn(8, 8 * 0.02, singles=True)  # a disk that takes 20 ms for each
    assert not costs.prefer_singles(3)
    costs = Costs()
    for _ in range(30):
        costs.learn(40, 0.08, singles=False)
    assert costs.prefer_singles(40)


def test_one_slow_moment_does_not_decide_for_good() -> None:
    costs = Costs()
    costs.learn(40, 60.0, singles=False)
    assert costs.batch_s < 2 * Costs.BATCH_S
    for _ in range(200):
        costs.learn(8, 8 * Costs.SINGLE_S, singles=True)
    assert costs.batch_s == pytest.approx(Costs.BATCH_S, rel=0.05)


@pytest.mark.parametrize(("events", "took_s"), [(1, 5.0), (8, 0.0), (8, -1.0)])
def test_what_says_nothing_is_not_learned_from(events: int, took_s: float) -> None:
    costs = Costs()
    costs.learn(events, took_s, singles=True)
    costs.learn(events, took_s, singles=False)
    assert (costs.single_s, costs.batch_s) == (Costs.SINGLE_S, Costs.BATCH_S)
