"""One agent of the soak: it does a bit of everything until its time is over. It can be killed and started again.

What it asked and was told, and how long that took, is in its diary (`tests.acceptance.clients`): of what a killed
process did there are no other traces.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from bench.clients import Spec, Watch, bus_of, now
from bench.crew import Result
from bus.domain import channel, inbox, intent, reminder, reservation
from bus.domain import task_requests as task
from bus.errors import BusError
from tests.acceptance.clients import FAST, Client, Diary
from tests.acceptance.rivals import globs

ROOMS = 8
KEYS = 60
GLOBS = 200
PAGE = 50
LEASES_S = (2, 4, 60)


def room(number: int) -> str:
    return f"room-{number % ROOMS}"


class Written(Diary):
    """A diary whose every line has left the process before anything else happens: a kill leaves it whole."""

    def write(self, **line: Any) -> None:
        super().write(**line)
        self.flush()


async def soak(spec: Spec) -> AsyncIterator[Result | None]:
    """Work for so many seconds."""
    async with bus_of(spec) as bus:
        options = argparse.Namespace(seed=spec["seed"], pause_s=spec["pause_s"])
        client = Client(bus, Written(Path(spec["diary"]), bus.agent, FAST), options)
        agents: int = spec["agents"]
        yield None
        watch = Watch()
        end = now() + spec["seconds"]
        while now() < end:
            act = client.chance.choices([act for act, _ in ACTS], [weight for _, weight in ACTS])[0]
            await act(client, agents)
            await anyio.sleep(client.chance.uniform(0, 2 * client.options.pause_s))
        yield watch.result(count=client.counts.total())


async def _post(client: Client, agents: int) -> None:
    whom = f", look @soaker-{client.chance.randrange(agents):02}" if client.chance.random() < 0.3 else ""
    await client.ask(channel.Post(channel=room(client.chance.randrange(ROOMS)), text=f"the build is green{whom}"))


async def _read(client: Client, agents: int) -> None:
    await client.ask(channel.Read(channel=room(client.chance.randrange(ROOMS)), limit=20))


async def _inbox(client: Client, agents: int) -> None:
    page = await client.ask(inbox.Peek(limit=PAGE))
    if isinstance(page, inbox.Items) and page.items and client.chance.random() < 0.9:
        await client.ask(inbox.Ack(upto=client.chance.choice((page.upto, page.items[0].seq))))


async def _open(client: Client, agents: int) -> None:
    await client.ask(task.Open(title="look into it", priority=client.chance.randrange(5)))


async def _work(client: Client, agents: int) -> None:
    claim = await client.ask(task.Next(lease_s=client.chance.choice(LEASES_S)))
    if isinstance(claim, BusError):
        return
    if client.chance.random() < 0.3:
        await client.ask(task.Renew(task=claim.task))
    end = client.chance.random()
    if end < 0.8:
        await client.ask(task.Complete(task=claim.task, result="done", fence=claim.fence))
    elif end < 0.9:
        await client.ask(task.Release(task=claim.task))


async def _intend(client: Client, agents: int) -> None:
    key = f"part {client.chance.randrange(KEYS)}"
    declared = await client.ask(intent.Declare(key=key, lease_s=client.chance.choice(LEASES_S), text="I mend it"))
    if not isinstance(declared, BusError) and client.chance.random() < 0.7:
        await client.ask(intent.Withdraw(key=key))


async def _reserve(client: Client, agents: int) -> None:
    mode: reservation.Mode = client.chance.choice(("exclusive", "shared"))
    paths = tuple(client.chance.sample(WANTED, client.chance.randint(1, 3)))
    held = await client.ask(reservation.Reserve(paths=paths, mode=mode, lease_s=client.chance.choice(LEASES_S)))
    if not isinstance(held, BusError) and client.chance.random() < 0.8:
        await client.ask(reservation.Release(reservations=(held.reservation,)))


async def _remind(client: Client, agents: int) -> None:
    await client.ask(reminder.Set(text="look again", in_s=client.chance.randint(1, 20)))


WANTED = globs(GLOBS)
ACTS: tuple[tuple[Callable[[Client, int], Awaitable[None]], int], ...] = (
    (_post, 25),
    (_read, 10),
    (_inbox, 25),
    (_open, 9),
    (_work, 11),
    (_intend, 8),
    (_reserve, 8),
    (_remind, 2),
)
"""What an agent does, and how often beside the others."""
