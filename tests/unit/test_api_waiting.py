"""Queries that wait, pages that are too large, and what an inbox reading shows."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bus.domain import agent, channel, dm, inbox, task_requests
from bus.errors import BusError, NotAllowed, Refused, Unavailable
from bus.protocol import encode_answer
from tests.unit.desk import Desk, Later, caught, desk, talking

READ = channel.Read(channel="dev", since=0)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with talking(tmp_path) as found:
        yield found


# --- queries that wait -------------------------------------------------------------------------------------------


def waiting(one: Desk, **fields: Any) -> channel.Read:
    return channel.Read(channel="dev", since=one.tables.position, wait_s=30, **fields)


async def test_a_query_that_waits_is_woken_by_its_own_topic_only(one: Desk) -> None:
    later = Later(one, "atlas", waiting(one))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        await one.tables.until_read(1)
        await one.do("nova", channel.Open(channel="ops"), channel.Post(channel="ops", text="elsewhere"))
        await one.do("nova", channel.Join(channel="dev", namespace="lab"))
        await anyio.wait_all_tasks_blocked()
        assert (len(one.tables.reads), later.outcome) == (1, None)
        await one.do("nova", channel.Post(channel="dev", text="here"))
    assert [m.text for m in later.outcome.messages] == ["here"]
    assert later.outcome.seq == one.tables.position


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (dm.Read(to="nova", since=0, wait_s=30), dm.Post(to="atlas", text="psst")),
        (inbox.Peek(wait_s=30), channel.Post(channel="dev", text="@atlas look")),
        (channel.Search(text="look", wait_s=30), channel.Post(channel="dev", text="@atlas look")),
    ],
)
async def test_a_query_about_anything_is_woken_by_anything(one: Desk, request_: Any, cause: Any) -> None:
    later = Later(one, "atlas", request_)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        await one.tables.until_read(1)
        await one.do("nova", cause)
    (items,) = [v for v in msgspec.structs.asdict(later.outcome).values() if isinstance(v, list)]
    assert len(items) == 1


async def test_who_waits_for_tasks_is_woken_by_tasks_of_the_namespace_only(one: Desk) -> None:
    await one.do("nova", task_requests.Open(title="a", task="A"), task_requests.Claim(task="A"))
    await one.do("nova", task_requests.Open(title="b", task="B", needs=("A",)))
    later = Later(one, "atlas", task_requests.Waiting(wait_s=30))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        await one.tables.until_read(1)
        await one.do("nova", channel.Post(channel="dev", text="elsewhere"))
        await one.do("nova", task_requests.Open(title="c", namespace="lab"))
        await anyio.wait_all_tasks_blocked()
        assert (len(one.tables.reads), later.outcome) == (1, None)
        await one.do("nova", task_requests.Amend(task="B", needs=()))
    assert [row.task for row in later.outcome.tasks] == ["B"]


async def test_an_event_between_reading_and_waiting_is_not_missed(one: Desk) -> None:
    async def meanwhile() -> None:
        await one.do("nova", channel.Post(channel="dev", text="meanwhile"))

    one.tables.after_read = meanwhile
    answer = await one.see("atlas", waiting(one))
    assert [m.text for m in answer.messages] == ["meanwhile"]
    assert len(one.tables.reads) == 2


async def test_many_that_wait_for_the_same_are_all_answered(one: Desk) -> None:
    many = [Later(one, who, waiting(one)) for who in ("atlas", "nova", "olga") * 5]
    async with anyio.create_task_group() as tasks:
        for later in many:
            tasks.start_soon(later)
        await one.tables.until_read(len(many))
        await one.do("nova", channel.Post(channel="dev", text="for all"))
    assert {later.outcome.messages[0].text for later in many} == {"for all"}


async def test_waiting_ends_with_an_empty_answer_when_the_time_is_up(one: Desk) -> None:
    async def much_later() -> None:
        one.clock.pass_s(31)

    one.tables.after_read = much_later
    answer = await one.see("atlas", waiting(one))
    assert (answer.messages, len(one.tables.reads)) == ([], 1)
    with anyio.fail_after(20):  # A nap of the loop's own clock ends as well; then the last look is taken.
        one.tables.after_read = None
        later = Later(one, "atlas", msgspec.structs.replace(waiting(one), wait_s=0.01))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later)
            await one.tables.until_read(2)
            one.clock.pass_s(1)
    assert later.outcome.messages == []


@pytest.mark.parametrize("request_", [READ, channel.Read(channel="dev", since=0, wait_s=30), agent.Who(wait_s=30)])
async def test_nothing_waits_that_has_something_to_say(one: Desk, request_: Any) -> None:
    await one.see("atlas", request_)
    assert len(one.tables.reads) == 1


async def test_the_past_is_never_waited_for(one: Desk) -> None:
    answer = await one.see("atlas", waiting(one, as_of=one.tables.position))
    assert (answer.messages, len(one.tables.reads)) == ([], 1)


async def test_what_was_waited_for_is_forgotten(one: Desk) -> None:
    async def much_later() -> None:
        one.clock.pass_s(31)

    for name in ("a", "b", "c"):
        one.tables.after_read = much_later
        await one.see("atlas", dm.Read(to=name, since=0, wait_s=30))
        await caught(one.see("atlas", channel.Read(channel=name, wait_s=30)), BusError, "not_found")
    await one.see("atlas", channel.List())  # Until then a thread remembers the last error, with all that led to it.
    gc.collect()
    assert len(one.api._waiting) == 0


# --- answers that are large --------------------------------------------------------------------------------------


async def test_a_page_that_is_too_large_becomes_smaller_and_nothing_is_lost(tmp_path: Path) -> None:
    async with desk(tmp_path, "atlas", reply_bytes=10_000) as one:
        texts = [f"{n:3}" + "x" * 1000 for n in range(30)]
        await one.do("olga", channel.Open(channel="dev"), *(channel.Post(channel="dev", text=t) for t in texts))
        found, since, pages = [], 0, 0
        while (answer := await one.see("atlas", channel.Read(channel="dev", since=since, limit=1000))).messages:
            assert len(encode_answer(answer)) <= 10_000
            found += [m.text for m in answer.messages]
            since, pages = answer.next, pages + 1
        assert found == texts
        assert pages > 3
        tail = await one.see("atlas", channel.Read(channel="dev"))
        assert tail.messages[-1].text == texts[-1]


async def test_one_item_that_is_too_large_is_left_to_the_door(tmp_path: Path) -> None:
    async with desk(tmp_path, "atlas", reply_bytes=10_000) as one:
        await one.do("olga", channel.Open(channel="dev"), channel.Post(channel="dev", text="x" * 20_000))
        answer = await one.see("atlas", channel.Read(channel="dev"))
        assert len(answer.messages) == 1


# --- what an inbox reading shows ---------------------------------------------------------------------------------


def types(one: Desk) -> list[str]:
    return [record.headers["Bus-Type"] for record in one.leader.log.records]


async def told(one: Desk, count: int) -> list[int]:
    return [(await one.do("nova", dm.Post(to="atlas", text=f"{n}"))).seq for n in range(count)]


async def test_an_exposure_is_recorded_once(one: Desk) -> None:
    seqs = await told(one, 2)
    for _ in range(3):
        items = await one.see("atlas", inbox.Peek())
        assert [item.seq for item in items.items] == seqs
        await one.leader.drain()
        await one.fold()
    shown = one.leader.log.records[-1]
    assert types(one).count("inbox.shown") == 1
    assert msgspec.json.decode(shown.data) == {"upto": seqs[-1], "seqs": seqs}
    assert shown.headers["Bus-Agent"] == "atlas"


async def test_an_ack_is_accepted_right_after_the_peek_and_not_beyond_it(one: Desk) -> None:
    seqs = await told(one, 3)
    items = await one.see("atlas", inbox.Peek(limit=2))
    beyond = one.leader.ask("atlas", inbox.Ack(upto=seqs[2]))
    ack = one.leader.ask("atlas", inbox.Ack(upto=items.upto))
    await one.leader.drain()
    await one.fold()
    assert isinstance(beyond.error, Refused)
    assert beyond.error.code == "not_shown"
    assert ack.reply.upto == items.upto == seqs[1]
    left = await one.see("atlas", inbox.Peek())
    assert ([item.seq for item in left.items], left.remaining) == ([seqs[2]], 0)


async def test_a_reading_that_began_further_on_has_not_shown_what_it_left_out(one: Desk) -> None:
    seqs = await told(one, 3)
    await one.see("atlas", inbox.Peek(since=seqs[1]))
    await one.leader.drain()
    assert (await one.leader.refused("atlas", inbox.Ack(upto=seqs[2]))).code == "not_shown"


async def test_page_after_page_shows_everything(one: Desk) -> None:
    seqs = await told(one, 5)
    since = None
    for _ in range(3):
        since = (await one.see("atlas", inbox.Peek(limit=2, since=since))).upto
    await one.leader.drain()
    assert (await one.leader.do("atlas", inbox.Ack(upto=seqs[-1]))).upto == seqs[-1]


async def test_looking_at_the_past_and_at_nothing_records_nothing(one: Desk) -> None:
    await one.see("nova", inbox.Peek())
    await told(one, 1)
    await one.see("atlas", inbox.Peek(as_of=one.tables.position))
    await one.leader.drain()
    assert "inbox.shown" not in types(one)


async def test_a_peek_is_answered_even_when_its_exposure_cannot_be_stored(one: Desk) -> None:
    await told(one, 1)
    one.leader.log.errors = [Unavailable("no room")]
    assert len((await one.see("atlas", inbox.Peek())).items) == 1
    await one.leader.drain()
    assert "inbox.shown" not in types(one)


async def test_an_agent_that_is_deactivated_while_it_waits_is_told_nothing(one: Desk) -> None:
    later = Later(one, "atlas", waiting(one))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        await one.tables.until_read(1)
        await one.do("olga", agent.Deactivate(agent="atlas"), channel.Post(channel="dev", text="he is gone"))
    assert isinstance(later.outcome, NotAllowed)
    assert later.outcome.code == "inactive"


async def test_a_peek_that_nobody_can_record_shows_nothing(one: Desk) -> None:
    """What was shown and not recorded could not be acknowledged."""
    await one.do("nova", channel.Post(channel="dev", text="@atlas hi"))
    one.record_error = Unavailable("no leader", code="no_leader")
    await caught(one.see("atlas", inbox.Peek()), Unavailable, "no_leader")
    one.record_error = None
    assert len((await one.see("atlas", inbox.Peek())).items) == 1
