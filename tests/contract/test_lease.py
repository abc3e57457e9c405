"""The leader's lease against a real server. Time is a clock in the test's hand."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus.lease import LeaderLease


class HandClock:
    """Monotonic time that passes when the test says so."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)

    def monotonic_ns(self) -> int:
        return self.now_ns

    def server_ns(self) -> int:
        raise AssertionError("a lease is judged on the monotonic clock only")

    def observe(self, server_ns: int) -> None:
        raise AssertionError("a lease is judged on the monotonic clock only")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


async def test_a_free_lease_is_taken_at_once_and_kept_by_renewing(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    lease = LeaderLease(connection, "m1", clock)
    assert not lease.valid()
    assert lease.holder() is None
    for _ in range(10):
        assert await lease.step()
        clock.pass_s(2.9)
        assert lease.valid()
    assert lease.holder() == "m1"
    clock.pass_s(0.1)
    assert not lease.valid()


async def test_a_candidate_waits_until_the_holder_has_been_silent_for_long_enough(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    holder, candidate = LeaderLease(connection, "m1", clock), LeaderLease(connection, "m2", clock)
    assert await holder.step()
    for _ in range(6):
        assert not await candidate.step()
        clock.pass_s(1)
        assert await holder.step()
    assert candidate.holder() == "m1"
    for _ in range(4):
        assert not await candidate.step()
        clock.pass_s(1)
    assert not holder.valid()
    assert await candidate.step()
    assert candidate.holder() == "m2"
    assert not await holder.step()
    assert holder.holder() == "m2"


async def test_never_do_two_hold_it_whenever_each_looks_and_renews(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    leases = [LeaderLease(connection, f"m{number}", clock) for number in range(3)]
    changes = []
    for tick in range(160):
        # Each is away for a while, at times of its own; a holder that is away must not count itself as one for long.
        for number, lease in enumerate(leases):
            if (tick // 20) % 3 != number and tick % (number + 2) == 0:
                await lease.step()
            assert sum(lease.valid() for lease in leases) <= 1
        clock.pass_s(0.5)
        assert sum(lease.valid() for lease in leases) <= 1
        holders = [lease for lease in leases if lease.valid()]
        if holders and holders != changes[-1:]:
            changes += holders
    assert len(changes) > 3


async def test_of_many_candidates_one_wins(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    leases = [LeaderLease(connection, f"m{number}", clock) for number in range(8)]
    won = []

    async def step(lease: LeaderLease) -> None:
        if await lease.step():
            won.append(lease)

    for _ in range(2):  # The second time, all have to wait for the first holder to be silent.
        won.clear()
        async with anyio.create_task_group() as group:
            for lease in leases:
                group.start_soon(step, lease)
        assert len(won) == 1
        clock.pass_s(4.1)


async def test_a_released_lease_is_free_at_once(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    first, second = LeaderLease(connection, "m1", clock), LeaderLease(connection, "m2", clock)
    assert await first.step()
    assert not await second.step()
    await second.release()  # Not the holder: nothing happens.
    await first.release()
    assert not first.valid()
    assert first.holder() is None
    assert await second.step()
    assert not await first.step()


async def test_a_restarted_member_is_not_taken_for_its_former_self(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    assert await LeaderLease(connection, "m1", clock).step()
    again = LeaderLease(connection, "m1", clock)
    assert not await again.step()
    clock.pass_s(4)
    assert await again.step()


async def test_a_lease_ends_with_its_connection_and_is_taken_at_once(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, wait_for: Any, clock: HandClock
) -> None:
    candidate = LeaderLease(await fresh(), "m2", clock)
    proxy = await make_proxy(tenant)
    connection = await connecting(proxy.url)
    holder = LeaderLease(connection, "m1", clock)
    assert await holder.step()
    for _ in range(3):
        clock.pass_s(1)
        assert not await candidate.step()  # As long as the connection lives, time has to pass.
    assert await holder.step()
    proxy.cut()
    await wait_for(lambda: connection.epoch == 2)
    assert not holder.valid()  # Though its time has not run out, and whatever became of the connection since.
    assert await candidate.step()
    assert not await holder.step()
    assert candidate.valid()


async def test_who_lost_the_connection_is_another_when_it_comes_back(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, wait_for: Any, clock: HandClock
) -> None:
    await fresh()
    proxy = await make_proxy(tenant)
    connection = await connecting(proxy.url)
    lease = LeaderLease(connection, "m1", clock)
    for epoch in range(1, 4):
        assert await lease.step()
        proxy.cut()
        await wait_for(lambda epoch=epoch: connection.epoch == epoch + 1)
        assert not lease.valid()
    assert await lease.step()


async def test_a_holder_that_is_connected_but_silent_is_waited_for(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, clock: HandClock
) -> None:
    """A frozen one, until its server notices or the time is up: what it has sent may still be stored."""
    candidate = LeaderLease(await fresh(), "m2", clock)
    proxy = await make_proxy(tenant)
    holder = LeaderLease(await connecting(proxy.url), "m1", clock)
    assert await holder.step()
    proxy.loses_answers = True
    assert not await candidate.step()
    clock.pass_s(3.9)
    assert not await candidate.step()
    clock.pass_s(0.1)
    assert await candidate.step()


async def test_a_renewal_without_an_answer_is_recognised(
    tenant: str, fresh: Any, connecting: Any, make_proxy: Any, wait_for: Any, clock: HandClock
) -> None:
    await fresh()
    proxy = await make_proxy(tenant)
    connection = await connecting(proxy.url)
    lease = LeaderLease(connection, "m1", clock)
    assert await lease.step()
    clock.pass_s(1)
    proxy.loses_answers = True
    assert await lease.step()  # Still valid, from the first renewal.
    clock.pass_s(2)
    assert not lease.valid()
    proxy.loses_answers = False
    proxy.cut()
    await wait_for(lambda: connection.epoch == 2)
    assert await lease.step()
    assert lease.holder() == "m1"


async def test_without_a_server_it_ends_and_comes_back(
    make_server: Any, connecting: Any, wait_for: Any, clock: HandClock
) -> None:
    from bus.provision import create_log

    server = make_server()
    connection = await connecting(server.url)
    await create_log(connection)
    lease = LeaderLease(connection, "m1", clock)
    assert await lease.step()
    server.kill()
    await wait_for(lambda: not connection.connected)
    assert not lease.valid()
    assert not await lease.step()
    await lease.release()
    server.start()
    with anyio.fail_after(20):
        await connection.wait_connected()
        while not await lease.step():
            await anyio.sleep(0.02)


async def test_nonsense_in_the_key_is_nobodys_lease(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    await connection.request("$KV.leader.leader", b"{not json")
    lease = LeaderLease(connection, "m1", clock)
    assert not await lease.step()
    clock.pass_s(4)
    assert await lease.step()


async def test_a_forced_member_leads_beside_the_holder(fresh: Any, clock: HandClock) -> None:
    connection = await fresh()
    holder, forced = LeaderLease(connection, "m1", clock), LeaderLease(connection, "m2", clock, force=True)
    assert await holder.step()
    assert await forced.step()
    assert holder.valid()
    assert forced.valid()
    await forced.release()
    assert not forced.valid()
    assert await holder.step()


def test_a_lease_must_end_for_the_holder_first(clock: HandClock) -> None:
    with pytest.raises(ValueError, match="must end for its holder"):
        LeaderLease(None, "m1", clock, timeout_s=3, valid_s=3)  # type: ignore[arg-type]
