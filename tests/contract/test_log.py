"""What every log does, whichever it is: run against `MemoryLog` and against JetStream."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from bus.errors import InvalidRequest
from bus.events import BODY_BYTES
from bus.log import LogFull, MemoryLog, WrongExpectedSeq


async def collect(log: Any, after: int, count: int) -> list[Any]:
    """The next `count` records of a tail, checked to be consecutive."""
    records: list[Any] = []
    with anyio.fail_after(20):
        async with aclosing(log.tail(after)) as chunks:
            async for chunk in chunks:
                assert 0 < len(chunk.records) <= 1000
                records += chunk.records
                if len(records) >= count:
                    break
    assert [record.seq for record in records] == list(range(after + 1, after + 1 + len(records)))
    return records


async def test_seqs_start_at_one_and_have_no_gaps(make_log: Any, notes: Any) -> None:
    log = await make_log()
    assert (await log.head()).seq == 0
    assert await notes.append(log, notes.draft(1)) == [1]
    assert await notes.append(log, notes.draft(2), notes.draft(1), notes.draft(2)) == [2, 3, 4]
    assert await notes.append(log, notes.draft(2)) == [5]
    assert (await log.head()).seq == 5


async def test_an_append_of_nothing_stores_nothing(make_log: Any) -> None:
    log = await make_log()
    assert await log.append([], {}) == []
    assert (await log.head()).seq == 0


async def test_what_was_appended_is_read_back(make_log: Any, notes: Any) -> None:
    log = await make_log()
    drafts = [notes.draft(7, "grün\nline two"), notes.draft(8, "")]
    await notes.append(log, *drafts)
    for seq, draft in enumerate(drafts, 1):
        record = await log.get(seq)
        event = notes.codec.decode(record)
        assert (record.seq, record.subject) == (seq, draft.subject)
        assert (event.id, event.entity, event.agent, event.fact) == (draft.id, draft.entity, draft.agent, draft.fact)
        assert event.time_ns > 1_700_000_000_000_000_000


async def test_get_tail_and_read_give_the_same_records(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1, "a"))
    await notes.append(log, notes.draft(1, "b"), notes.draft(2, "c"))
    tailed = await collect(log, 0, 3)
    assert [await log.get(seq) for seq in (1, 2, 3)] == tailed
    assert [record async for records in log.read(0, 3) for record in records] == tailed


@pytest.mark.parametrize("seq", [-1, 0, 2, 10_000])
async def test_a_seq_that_the_log_has_not_is_none(make_log: Any, notes: Any, seq: int) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1))
    assert await log.get(seq) is None


async def test_a_stale_expectation_is_refused_and_says_what_was_found(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1))
    await notes.append(log, notes.draft(1))
    subject = notes.subject(1)
    for stale in (0, 1, 3):
        with pytest.raises(WrongExpectedSeq) as caught:
            await log.append([notes.draft(1)], {subject: stale})
        assert (caught.value.subject, caught.value.expected_seq, caught.value.found_seq) == (subject, stale, 2)
    with pytest.raises(WrongExpectedSeq) as caught:
        await log.append([notes.draft(2)], {notes.subject(2): 2})
    assert caught.value.found_seq == 0
    assert (await log.head()).seq == 2


async def test_a_batch_is_stored_as_a_whole_or_not_at_all(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1), notes.draft(2))
    drafts = [notes.draft(3), notes.draft(1), notes.draft(2), notes.draft(3)]
    with pytest.raises(WrongExpectedSeq) as caught:
        await log.append(drafts, {notes.subject(1): 1, notes.subject(2): 1, notes.subject(3): 0})
    assert (caught.value.subject, caught.value.found_seq) == (notes.subject(2), 2)
    assert (await log.head()).seq == 2
    assert await notes.append(log, *[notes.draft(bucket) for bucket in (3, 1, 2, 3)]) == [3, 4, 5, 6]


async def each(log: Any, drafts: list[Any], expected: dict[str, int]) -> list[int]:
    """The seqs of appends that are sent together."""
    async with aclosing(log.append_each(drafts, expected)) as seqs:
        return [seq async for seq in seqs]


async def test_appends_that_are_sent_together_are_stored_in_their_order(make_log: Any, notes: Any) -> None:
    """In one bucket too, where only the first can know what it follows."""
    log = await make_log()
    await notes.append(log, notes.draft(1))
    drafts = [notes.draft(bucket, str(n)) for n, bucket in enumerate((1, 1, 2, 1, 2))]
    assert await each(log, drafts, {notes.subject(1): 1, notes.subject(2): 0}) == [2, 3, 4, 5, 6]
    assert await each(log, [notes.draft(2)], {notes.subject(2): 6}) == [7]
    assert [notes.codec.decode(record).id for record in (await collect(log, 1, 5))[:5]] == [one.id for one in drafts]


async def test_of_appends_that_are_sent_together_none_behind_a_refused_one_is_stored(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1))
    drafts = [notes.draft(bucket) for bucket in (2, 1, 3, 2)]
    async with aclosing(log.append_each(drafts, {notes.subject(n): 0 for n in (1, 2, 3)})) as seqs:
        assert await anext(seqs) == 2
        with pytest.raises(WrongExpectedSeq) as caught:
            await anext(seqs)
    assert (caught.value.subject, caught.value.found_seq) == (notes.subject(1), 1)
    assert await notes.append(log, notes.draft(4)) == [3]


async def test_only_the_buckets_that_are_written_are_compared(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1))
    assert await log.append([notes.draft(2)], {notes.subject(2): 0, notes.subject(1): 99}) == [2]


async def test_appends_to_different_buckets_may_run_at_once(make_log: Any, notes: Any) -> None:
    log = await make_log()
    async with anyio.create_task_group() as group:
        for bucket in range(40):
            group.start_soon(notes.append, log, notes.draft(bucket))
    assert sorted(notes.last.values()) == list(range(1, 41))
    records = await collect(log, 0, 40)
    assert {record.subject: record.seq for record in records} == notes.last


async def test_of_rivals_for_one_bucket_exactly_one_wins(make_log: Any, notes: Any) -> None:
    log = await make_log()
    won: list[int] = []
    lost: list[int | None] = []

    async def claim() -> None:
        try:
            won.extend(await log.append([notes.draft(1)], {notes.subject(1): 0}))
        except WrongExpectedSeq as error:
            lost.append(error.found_seq)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(claim)
    assert won == [1]
    assert lost == [1] * 19


async def test_a_range_is_read_in_order_and_ends(make_log: Any, notes: Any) -> None:
    log = await make_log()
    for start in range(0, 1500, 500):
        await notes.append(log, *[notes.draft(bucket) for bucket in range(start, start + 500)])

    async def seqs(after: int, upto: int) -> list[int]:
        with anyio.fail_after(20):
            return [record.seq async for records in log.read(after, upto) for record in records]

    assert await seqs(0, 1500) == list(range(1, 1501))
    assert await seqs(0, 1) == [1]
    assert await seqs(700, 1203) == list(range(701, 1204))
    assert await seqs(1490, 99_999) == list(range(1491, 1501))
    assert await seqs(1500, 99_999) == []
    assert await seqs(5, 5) == []
    assert await seqs(9, 5) == []


async def test_a_tail_gives_the_past_and_then_what_comes(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, *[notes.draft(bucket) for bucket in range(1000)])
    await notes.append(log, *[notes.draft(bucket) for bucket in range(1000)])
    seen: list[int] = []
    ends: list[int] = []

    async def follow() -> None:
        async with aclosing(log.tail(10)) as chunks:
            async for chunk in chunks:
                seen.extend(record.seq for record in chunk.records)
                ends.append(seen[-1] + chunk.pending)
                if seen[-1] == 2030:
                    return

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            for bucket in range(30):
                await notes.append(log, notes.draft(bucket))
    assert seen == list(range(11, 2031))
    assert all(2000 <= end <= 2030 for end in ends)


async def test_a_tail_behind_the_end_waits_for_what_comes(make_log: Any, notes: Any) -> None:
    log = await make_log()
    await notes.append(log, notes.draft(1))
    with anyio.move_on_after(0.3) as nothing:
        await collect(log, 1, 1)
    assert nothing.cancelled_caught
    await notes.append(log, notes.draft(1))
    assert [record.seq for record in await collect(log, 1, 1)] == [2]


async def test_a_full_log_refuses_and_keeps_what_it_has(make_log: Any, notes: Any) -> None:
    log = await make_log(max_bytes=100_000)

    async def fill() -> None:
        for bucket in range(40):
            await notes.append(log, notes.draft(bucket, "x" * 9_000))

    with pytest.raises(LogFull):
        await fill()
    head = await log.head()
    assert 5 <= head.seq < 12
    assert head.max_bytes == 100_000
    assert 0 < head.bytes <= 100_000
    with pytest.raises(LogFull):
        await notes.append(log, *[notes.draft(bucket, "x" * 9_000) for bucket in range(500, 512)])
    assert (await log.head()).seq == head.seq
    assert len(await collect(log, 0, head.seq)) == head.seq


async def test_an_event_beyond_the_limit_is_refused_and_one_at_it_is_not(make_log: Any, notes: Any) -> None:
    log = await make_log()
    room = BODY_BYTES - len(b'{"text":""}')
    assert await notes.append(log, notes.draft(1, "x" * room)) == [1]
    with pytest.raises(InvalidRequest) as caught:
        await notes.append(log, notes.draft(1, "x" * (room + 1)))
    assert caught.value.code == "too_large"
    assert (await log.head()).seq == 1


async def test_the_head_knows_the_servers_time(make_log: Any, notes: Any) -> None:
    log = await make_log()
    before = (await log.head()).server_ns
    await notes.append(log, notes.draft(1))
    stored = (await log.get(1)).time_ns
    assert before <= stored <= (await log.head()).server_ns


async def test_a_random_history_ends_like_the_model(make_log: Any, notes: Any) -> None:
    """Random batches with right and wrong expectations: same outcome, seqs and content as the log in memory."""
    log = await make_log()
    model = MemoryLog(notes.codec, lambda: 1)
    rng = random.Random(7)

    async def outcome(target: Any, drafts: Any, expected: Any) -> Any:
        try:
            return await target.append(drafts, expected)
        except WrongExpectedSeq as error:
            return ("refused", error.subject, error.expected_seq, error.found_seq)

    last: dict[str, int] = {}
    for _ in range(150):
        drafts = [notes.draft(rng.randrange(12)) for _ in range(rng.choice([1, 1, 2, 5, 30]))]
        expected = {draft.subject: last.get(draft.subject, 0) for draft in drafts}
        if rng.random() < 0.4:
            subject = rng.choice(sorted(expected))
            expected[subject] = max(0, expected[subject] + rng.choice([-1, 1, 3]))
        got = await outcome(log, drafts, expected)
        assert got == await outcome(model, drafts, expected)
        if isinstance(got, list):
            last |= {draft.subject: seq for draft, seq in zip(drafts, got, strict=True)}
    records = await collect(log, 0, len(model.records))
    assert [(r.seq, r.subject, r.data) for r in records] == [(r.seq, r.subject, r.data) for r in model.records]
