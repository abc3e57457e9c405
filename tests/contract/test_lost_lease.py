"""What becomes of an append whose writer loses the lease before the log has answered: never anything after that."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from bus.clock import SystemClock
from bus.errors import Unavailable
from bus.events import MSG_ID
from bus.jetstream import JetStreamLog
from bus.lease import LeaderLease


@pytest.mark.parametrize("size", [1, 5])
async def test_what_the_old_leader_could_not_send_is_never_stored(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, notes: Any, wait_for: Any, size: int
) -> None:
    """Its bucket is as it expects, for ever: only the lease keeps a request that the next leader has decided in
    another bucket from taking effect in this one as well."""
    direct, proxy = await fresh(), await make_proxy(tenant)
    connection = await connecting(proxy.url)
    old, new = (LeaderLease(each, name, SystemClock()) for each, name in ((connection, "m1"), (direct, "m2")))
    log = JetStreamLog(connection, notes.codec, may_send=old.valid)
    assert await old.step()
    await notes.append(log, notes.draft(1))
    gave_up: list[str] = []

    async def append() -> None:
        try:
            await log.append([notes.draft(1) for _ in range(size)], {notes.subject(1): 1})
        except Unavailable as error:
            gave_up.append(error.code)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            proxy.stall()
            group.start_soon(append)
            await anyio.wait_all_tasks_blocked()
            assert not await new.step()  # As long as the old connection lives, what it sent may come.
            proxy.cut()
            proxy.resume()
            await wait_for(lambda: connection.epoch == 2)
            while not await new.step():
                await anyio.sleep(0.01)
            # The old one may even lead again some day; what it had under way has ended before.
            await wait_for(lambda: bool(gave_up))
    assert gave_up == ["refused"]
    assert not await old.step()
    assert (await JetStreamLog(direct, notes.codec).head()).seq == 1


async def test_what_was_stored_before_is_there_for_the_next_leader(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, notes: Any, wait_for: Any
) -> None:
    direct, proxy = await fresh(), await make_proxy(tenant)
    connection = await connecting(proxy.url)
    old, new = (LeaderLease(each, name, SystemClock()) for each, name in ((connection, "m1"), (direct, "m2")))
    log = JetStreamLog(connection, notes.codec, may_send=old.valid)
    assert await old.step()
    draft = notes.draft(1)
    reader = JetStreamLog(direct, notes.codec)

    async def append() -> None:
        with suppress(Unavailable):
            await log.append([draft], {notes.subject(1): 0})

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            proxy.loses_answers = True
            group.start_soon(append)
            while (await reader.head()).seq == 0:
                await anyio.sleep(0.01)
            proxy.cut()
            while not await new.step():
                await anyio.sleep(0.01)
            record = await reader.get((await reader.head()).seq)
            proxy.loses_answers = False
    assert record is not None
    assert record.headers[MSG_ID] == draft.id
    assert (await reader.head()).seq == 1
