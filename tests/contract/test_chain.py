"""Appends that JetStream is sent together: what is stored of them when connections, servers and rivals interfere."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import pytest

from bus.events import MSG_ID
from bus.jetstream import FOLLOWS, JetStreamLog
from bus.log import WrongExpectedSeq
from bus.provision import create_log


async def each(log: JetStreamLog, drafts: list[Any], expected: dict[str, int], into: list[int]) -> None:
    async with aclosing(log.append_each(drafts, expected)) as seqs:
        async for seq in seqs:
            into.append(seq)


async def ids(log: JetStreamLog) -> list[str]:
    """The ids of everything that is stored, in order."""
    upto = (await log.head()).seq
    return [record.headers[MSG_ID] async for records in log.read(0, upto) for record in records]


async def test_each_names_the_one_it_follows_and_the_first_of_a_bucket_what_it_expects(fresh: Any, notes: Any) -> None:
    log = JetStreamLog(await fresh(), notes.codec)
    drafts = [notes.draft(bucket) for bucket in (1, 2, 1)]
    await each(log, drafts, notes.expected(drafts), [])
    records = [await log.get(seq) for seq in (1, 2, 3)]
    assert [record.headers.get(FOLLOWS) for record in records if record is not None] == [
        None,
        drafts[0].id,
        drafts[1].id,
    ]
    expectations = [record.headers.get("Nats-Expected-Last-Subject-Sequence") for record in records if record]
    assert expectations == ["0", "0", None]


async def test_what_is_stored_ends_the_row_of_unanswered_attempts(fresh: Any, notes: Any) -> None:
    log = JetStreamLog(await fresh(), notes.codec)
    log.unanswered = 2
    drafts = [notes.draft(1), notes.draft(2)]
    await each(log, drafts, notes.expected(drafts), [])
    assert log.unanswered == 0


@pytest.mark.parametrize("lost", ["answers", "requests"])
@pytest.mark.parametrize("rival", [False, True])
async def test_a_connection_that_breaks_in_the_middle_loses_and_repeats_nothing(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, notes: Any, lost: str, rival: bool
) -> None:
    """Either everything had been stored and is found again, or nothing had and is sent again. A rival who writes to the
    last bucket meanwhile comes behind what is stored, or before what is not, which is refused then."""
    direct = JetStreamLog(await fresh(), notes.codec)
    proxy = await make_proxy(tenant)
    log = JetStreamLog(await connecting(proxy.url), notes.codec)
    drafts = [notes.draft(bucket) for bucket in (1, 1, 2, 1, 3)]
    got: list[int] = []
    refused: list[WrongExpectedSeq] = []

    async def append() -> None:
        try:
            await each(log, drafts, notes.expected(drafts), got)
        except WrongExpectedSeq as error:
            refused.append(error)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            if lost == "answers":
                proxy.loses_answers = True
            else:
                proxy.stall()
            group.start_soon(append)
            await anyio.wait_all_tasks_blocked()
            while lost == "answers" and (await direct.head()).seq < len(drafts):
                await anyio.sleep(0.01)
            if rival:
                await direct.append([notes.draft(3)], {notes.subject(3): (await direct.head()).seq})
            proxy.loses_answers = False
            proxy.cut()
            proxy.resume()
    found = await ids(direct)
    mine = [draft.id for draft in drafts]
    if lost == "requests" and rival:
        assert got == [2, 3, 4, 5]
        assert [error.found_seq for error in refused] == [1]
        assert found[1:] == mine[:4]
    else:
        assert got == [1, 2, 3, 4, 5]
        assert found[:5] == mine
        assert len(found) == 5 + rival


async def test_a_frozen_server_stores_a_chain_once(
    make_server: Any, connecting: Any, notes: Any, wait_for: Any
) -> None:
    """The client gives the connection up; the server wakes up with both attempts before it."""
    server = make_server()
    connection = await connecting(server.url)
    await create_log(connection)
    log = JetStreamLog(connection, notes.codec)
    await notes.append(log, notes.draft(1))
    drafts = [notes.draft(bucket) for bucket in (1, 2, 1, 2)]
    got: list[int] = []
    server.freeze()
    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            group.start_soon(each, log, drafts, notes.expected(drafts), got)
            await wait_for(lambda: connection.counters.disconnects == 1)
            server.thaw()
    assert got == [2, 3, 4, 5]
    assert (await ids(log))[1:] == [draft.id for draft in drafts]


async def test_no_event_comes_between_two_of_a_chain(fresh: Any, notes: Any) -> None:
    """Two writers with buckets of their own: a chain is stored without a gap up to where it is refused."""
    logs = [JetStreamLog(await fresh(), notes.codec)]
    logs.append(JetStreamLog(logs[0]._connection, notes.codec))
    runs: list[list[int]] = []

    async def write(number: int) -> None:
        for _ in range(20):
            drafts = [notes.draft(number) for _ in range(5)]
            got: list[int] = []
            try:
                await each(logs[number], drafts, notes.expected(drafts), got)
            except WrongExpectedSeq:
                assert len(got) < 5
            if got:
                notes.last[notes.subject(number)] = got[-1]
                runs.append(got)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(write, 0)
            group.start_soon(write, 1)
    assert all(run == list(range(run[0], run[0] + len(run))) for run in runs)
    assert sorted(seq for run in runs for seq in run) == list(range(1, (await logs[0].head()).seq + 1))
