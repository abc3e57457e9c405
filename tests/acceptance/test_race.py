"""Many claim the same at once: exactly one gets it, everybody else is told who did, whatever is killed meanwhile."""

from __future__ import annotations

import json
import random
import time
from collections import Counter

import anyio
import anyio.to_thread
import pytest

from bus.domain import channel
from bus.domain import task_requests as task
from tests.acceptance.checker import Diaries, Log, check, nobody_holds
from tests.acceptance.leaders import changing
from tests.acceptance.support import Child, Rig, until

CLIENTS = [f"worker-{number}" for number in range(8)]


async def open_tasks(rig: Rig, number: int) -> None:
    async with rig.connect() as bus:
        limit = anyio.CapacityLimiter(100)

        async def one(name: str) -> None:
            async with limit:
                await bus.call(task.Open(task=name, title=name))

        async with anyio.create_task_group() as tasks:
            for index in range(number):
                tasks.start_soon(one, f"race-{index}")
        await bus.call(channel.Open(channel="work"))


def start(rig: Rig, mode: str, **options: object) -> list[Child]:
    """All clients, connected and let go at once."""
    clients = [rig.client(mode, agent, seed=seed, **options) for seed, agent in enumerate(CLIENTS)]
    for client in clients:
        assert client.line() == "ready"
    for client in clients:
        client.begin()
    return clients


def counted(clients: list[Child], timeout_s: float = 60.0) -> Counter[str]:
    """What all clients together counted, once they have ended."""
    counts: Counter[str] = Counter()
    for client in clients:
        counts.update(json.loads(client.line(timeout_s)))
    return counts


async def test_of_eight_processes_exactly_one_gets_each_of_a_thousand_tasks(rig: Rig) -> None:
    began = time.monotonic()
    await open_tasks(rig, 1000)
    counts = counted(start(rig, "race", tasks=1000))
    took_s = time.monotonic() - began
    print(f"1000 winners of {sum(counts.values())} attempts in {took_s:.1f} s")
    assert counts == {"task.claim": 1000, "claimed": 7000}

    history, records = Diaries(rig.folder).read(), await rig.log()
    assert check(records, history) == []
    winner = {line["body"]["task"]: line["client"] for line in history if "reply" in line}
    assert len(winner) == 1000
    told = [(line["body"]["task"], line["error"]["details"]["owner"]) for line in history if "error" in line]
    assert len(told) == 7000
    assert [(name, owner) for name, owner in told if winner[name] != owner] == []
    assert took_s < 60


async def test_next_never_gives_one_task_to_two(rig: Rig) -> None:
    await open_tasks(rig, 400)
    counts = counted(start(rig, "take", flying=4))
    assert counts == {"task.next": 400, "none_waiting": 8 * 4}
    history, records = Diaries(rig.folder).read(), await rig.log()
    assert check(records, history) == []
    taken = Counter(line["reply"]["task"] for line in history if "reply" in line)
    assert set(taken.values()) == {1}
    assert len(taken) == 400


@pytest.mark.parametrize("mode", ["race", "take"])
async def test_the_races_are_won_once_however_often_the_leader_changes(rig: Rig, mode: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    await open_tasks(rig, 600)
    async with changing(rig, seed, between=(20, 80)) as leaders:
        clients = start(rig, mode, tasks=600, flying=2)
        counts = await anyio.to_thread.run_sync(counted, clients)
    print(f"{leaders.changes} changes of the leader, {dict(counts)}")
    assert leaders.changes >= 1
    won, lost = ("task.claim", "claimed") if mode == "race" else ("task.next", "none_waiting")
    assert counts == {won: 600, lost: 8 * 600 - 600 if mode == "race" else 8 * 2}

    history, records = Diaries(rig.folder).read(), await rig.log()
    assert check(records, history) == []
    winners = Counter(line["reply"]["task"] for line in history if "reply" in line)
    assert (len(winners), set(winners.values())) == (600, {1})


async def test_leases_and_fences_hold_however_often_the_leader_changes(rig: Rig) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    diaries = Diaries(rig.folder)
    await open_tasks(rig, 40)
    async with changing(rig, seed) as leaders:
        clients = start(rig, "work", tasks=40, flying=3, pause_s=0.02)
        await until(lambda: leaders.changes >= 4, timeout_s=60, what="four changes of the leader")
        await acknowledged(diaries, 100)
        for client in clients:
            await anyio.to_thread.run_sync(client.end)
    records = await rig.log_when(nobody_holds)
    assert check(records, diaries.read()) == []
    print(f"{leaders.changes} changes of the leader, {len(Log(records).holds)} claims")


async def test_never_two_holders_of_one_fence_whatever_is_killed(rig: Rig) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance, diaries = random.Random(seed), Diaries(rig.folder)
    await open_tasks(rig, 40)
    clients = dict(zip(CLIENTS, start(rig, "work", tasks=40, flying=3, pause_s=0.02), strict=True))
    for victim in ["daemon", "client", "server", "client", "supervisor", "server"]:
        await acknowledged(diaries, chance.randrange(30, 90))
        if victim == "client":
            name = chance.choice(CLIENTS)
            clients[name].kill()
            clients[name] = rig.client("work", name, seed=chance.randrange(1000), tasks=40, flying=3, pause_s=0.02)
            clients[name].begin()
        else:
            rig.kill(victim)
    await acknowledged(diaries, 100)
    for client in clients.values():
        client.end()

    records = await rig.log_when(nobody_holds)
    assert check(records, diaries.read()) == []
    holds = Log(records).holds.values()
    ends = Counter(hold.ended_by for hold in holds)
    print(f"{len(holds)} claims, {dict(ends)}")
    takeovers = sum(len({hold.owner for hold in of_task}) > 1 for of_task in Log(records).of_task.values())
    assert ends["task.expired"] > 0
    assert takeovers > 0


async def acknowledged(diaries: Diaries, number: int) -> None:
    """Wait until clients were told of so many more effects."""
    target = diaries.acknowledged + number
    await until(lambda: diaries.acknowledged >= target, timeout_s=60, what=f"{number} more answers")
