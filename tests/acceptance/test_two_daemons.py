"""A second daemon of one home: it stands by, takes over, and harms nothing even when it is forced to lead as well."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import anyio

from bus.client import Bus
from bus.domain import channel, log
from bus.domain import task_requests as task
from tests.acceptance.checker import Diaries, check, nobody_holds
from tests.acceptance.leaders import follow
from tests.acceptance.support import Child, Rig, until

CLIENTS = [f"worker-{number}" for number in range(4)]
TAKEOVER_S = 10.0
"""Far more than it may take (the lease of a dead leader runs out after 4 s), and far less than for ever."""


async def open_tasks(bus: Bus, number: int) -> None:
    await bus.call(channel.Open(channel="work"))
    for index in range(number):
        await bus.call(task.Open(task=f"race-{index}", title="x"))


async def second_leader(rig: Rig) -> Child:
    """A second daemon that leads without asking."""
    second = rig.second_daemon("--force-lead")
    await follow(rig, 2)
    return second


def start(rig: Rig, mode: str, **options: object) -> list[Child]:
    clients = [rig.client(mode, agent, seed=seed, **options) for seed, agent in enumerate(CLIENTS)]
    for client in clients:
        assert client.line() == "ready"
    for client in clients:
        client.begin()
    return clients


async def test_a_second_one_stands_by_and_takes_over_when_the_first_is_killed(rig: Rig) -> None:
    async with rig.connect() as bus:
        await open_tasks(bus, 3)
        before = len(await rig.log())
        second = rig.second_daemon()
        await follow(rig, 2)
        leader = rig.pid("daemon")
        for _ in range(20):
            await bus.call(channel.Post(channel="work", text="who answers?"))
        assert rig.status()["pid"] == leader
        # It has written nothing: all that is new is what was posted, and who is there.
        new = Counter(record.headers["Bus-Type"] for record in await rig.log(after=before))
        assert new["channel.posted"] == 20
        assert set(new) <= {"channel.posted", "agent.presence_changed"}

        # Its supervisor is frozen, so that the first one does not come back.
        rig.kill("supervisor", signal.SIGSTOP)
        rig.kill("daemon")
        began = time.monotonic()
        await bus.call(channel.Post(channel="work", text="who answers now?"), timeout_s=TAKEOVER_S)
        print(f"taken over within {time.monotonic() - began:.1f} s of the kill")
        await until(lambda: rig.status().get("pid") == second.pid)
        rig.kill("supervisor", signal.SIGCONT)

        # The first comes back and stands by in its turn.
        await follow(rig, 2)
        await bus.call(channel.Post(channel="work", text="and now?"))
        assert (await bus.call(log.Tables(verify=True))).equal
        second.kill()
        await bus.call(channel.Post(channel="work", text="back again"), timeout_s=TAKEOVER_S)
        assert rig.status()["pid"] != second.pid
    assert check(await rig.log(), []) == []


async def test_a_leader_that_was_frozen_harms_nothing_when_it_wakes_up(rig: Rig) -> None:
    async with rig.connect() as bus:
        await open_tasks(bus, 20)
        second = rig.second_daemon()
        await follow(rig, 2)
        clients = start(rig, "work", tasks=20, flying=3, pause_s=0.01)
        diaries = Diaries(rig.folder)
        await acknowledged(diaries, 50)
        frozen = rig.kill("daemon", signal.SIGSTOP)
        await until(lambda: rig.status().get("pid") == second.pid, what="another leader")
        await acknowledged(diaries, 50)
        os.kill(frozen, signal.SIGCONT)
        await acknowledged(diaries, 100)
        for client in clients:
            client.end()
        assert rig.status()["pid"] == second.pid
        assert check(await rig.log_when(nobody_holds), diaries.read(), across=False) == []
        assert (await bus.call(log.Tables(verify=True))).equal


async def acknowledged(diaries: Diaries, number: int) -> None:
    target = diaries.acknowledged + number
    await until(lambda: diaries.acknowledged >= target, timeout_s=60, what=f"{number} acknowledgements")


async def test_two_that_lead_at_once_still_have_one_winner_for_each_task(rig: Rig) -> None:
    async with rig.connect() as bus:
        await open_tasks(bus, 200)
        await second_leader(rig)
        clients = start(rig, "race", tasks=200, flying=8)
        counts: Counter[str] = Counter()
        for client in clients:
            counts.update(json.loads(client.line(60)))
        assert counts == {"task.claim": 200, "claimed": 600}
        history, records = Diaries(rig.folder).read(), await rig.log()
        assert check(records, history, across=False) == []
        assert (await bus.call(log.Tables(verify=True))).equal


async def test_two_that_lead_at_once_keep_leases_and_fences(rig: Rig) -> None:
    async with rig.connect() as bus:
        await open_tasks(bus, 20)
        await second_leader(rig)
        clients = start(rig, "work", tasks=20, flying=3, pause_s=0.01)
        diaries = Diaries(rig.folder)
        await acknowledged(diaries, 400)
        for client in clients:
            client.end()
        assert check(await rig.log_when(nobody_holds), diaries.read(), across=False) == []
        assert (await bus.call(log.Tables(verify=True))).equal


async def test_a_request_that_reaches_both_has_one_effect(rig: Rig) -> None:
    """Asked twice at the same moment under one id, it may be decided by both."""
    async with rig.connect() as bus:
        await open_tasks(bus, 1)
        await second_leader(rig)
        for number in range(100):
            post = channel.Post(channel="work", text=f"once {number}")
            seqs: list[int] = []

            async def ask(request: channel.Post = post, seqs: list[int] = seqs, id_: str = f"id-{number}") -> None:
                seqs.append((await bus.call(request, request_id=id_)).seq)

            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(ask)
            assert len(set(seqs)) == 1, (number, seqs)
        assert check(await rig.log(), [], across=False) == []
