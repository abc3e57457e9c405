"""Client processes that declare intents and reserve paths in each other's way.

    python -m tests.acceptance.rivals MODE --home H --agent A --diary FILE

They begin, end and keep their diaries as `tests.acceptance.clients` does. What they compete for follows from a number,
so that every process and the test know the same.
"""

from __future__ import annotations

import random
from typing import Any

import anyio

from bus.domain import intent, reservation
from bus.errors import BusError
from tests.acceptance.clients import DURABLE, FAST, Client, main, together

TOPS = ("api", "build", "cli", "core", "docs", "jobs", "log", "tests", "tools", "web")
ENDINGS = ("css", "md", "py", "toml", "ts")
FILES = 50
BUSY = tuple(f"{top}/part_{number}/" for top in TOPS[:3] for number in range(3))
REPOSITORY_SEED = 5


def tree() -> list[str]:
    """The 5,000 paths of a repository."""
    parts = [f"part_{number}" for number in range(10)]
    names = [f"file_{number:02}.{ENDINGS[number % len(ENDINGS)]}" for number in range(FILES)]
    return [f"{top}/{part}/{name}" for top in TOPS for part in parts for name in names]


def globs(number: int) -> list[str]:
    """So many different paths and globs of the tree, written in several ways. They begin at the few directories where
    everybody works, so that many overlap."""
    chance = random.Random(REPOSITORY_SEED)
    paths = [path for path in tree() if path.startswith(BUSY)]
    found: dict[str, None] = {}
    while len(found) < number:
        path = chance.choice(paths)
        top, part, name = path.split("/")
        stem, _, ending = name.partition(".")
        choice = [
            path,
            path,
            f"./{top}//{part}/{name}",
            path.upper(),
            f"{top}/{part}/{stem[:-1]}?.*",
            f"{top}/{part}/{stem[:-1]}[{stem[-1]}-9].{ending}",
            f"{top}/{part}/*_{chance.randrange(5)}[!{chance.randrange(10)}].{ending}",
            f"{top}/*/{name}",
            f"{top[0]}*/{part}/{name}",
            f"{top}/**/{name}",
            f"**/{part}/{name}",
            f"{top}/{part}/*.{ending}",
            f"{top}/**/*{stem[-1]}.*",
            f"**/{stem[:-1]}?.{ending}",
            f"{top}/{part}/",
        ]
        found[chance.choice(choice)] = None
    return list(found)


def spelled(chance: random.Random, number: int) -> str:
    """The same key in one of the ways in which people may write it."""
    ways = (
        f"fix-part-{number}",
        f"Fix  Part {number}!",
        f" fix part: {number}",
        f"FIX_part__{number}.",
        f"fix/../fix part {number}",
    )
    return chance.choice(ways)


# --- modes ----------------------------------------------------------------------------------------------------------


async def declare(client: Client) -> None:
    """Declare every key there is, in an order of one's own, several at a time."""
    keys = list(range(client.options.tasks))
    client.chance.shuffle(keys)

    async def some() -> None:
        while keys:
            await client.ask(intent.Declare(key=spelled(client.chance, keys.pop()), text=client.bus.agent))

    await together(client.options.flying, some)


async def insist(client: Client) -> None:
    """Declare few keys again and again, under short leases, and withdraw them, keep them or forget them."""

    async def some() -> None:
        while not client.stopping:
            key = spelled(client.chance, client.chance.randrange(client.options.tasks))
            if not isinstance(await client.ask(intent.Declare(key=key, lease_s=1)), BusError):
                match client.chance.choice(["withdraw", "keep", "forget"]):
                    case "withdraw":
                        await client.ask(intent.Withdraw(key=key))
                    case "keep":
                        await client.ask(intent.Declare(key=key, lease_s=2, text="still at it"))
            await anyio.sleep(client.options.pause_s)

    await together(client.options.flying, some)


async def reserve(client: Client) -> None:
    """Reserve every glob there is once, alone or with others, in an order of one's own, and give most back."""
    wanted = globs(client.options.tasks)
    client.chance.shuffle(wanted)

    async def some() -> None:
        while wanted:
            paths = tuple(wanted.pop() for _ in range(min(len(wanted), client.chance.choice((1, 1, 2, 3)))))
            lease_s = client.chance.choice((1, 2, 60))
            mode: reservation.Mode = client.chance.choice(("exclusive", "exclusive", "shared"))
            held = await client.ask(reservation.Reserve(paths=paths, mode=mode, lease_s=lease_s, reason="a race"))
            if not isinstance(held, BusError):
                await anyio.sleep(client.options.pause_s)
                await _give_back(client, held, lease_s)

    await together(client.options.flying, some)


async def _give_back(client: Client, held: Any, lease_s: int) -> None:
    """What a good or a careless holder does; whoever has reserved for long always gives back."""
    whole = reservation.Release(reservations=(held.reservation,))
    match client.chance.choice(["release", "in part", "renew", "forget"]):
        case "release":
            await client.ask(whole)
        case "in part":
            await client.ask(reservation.Release(paths=(client.chance.choice(held.paths),)))
            if len(held.paths) > 1:
                await client.ask(whole)
        case "renew":
            await client.ask(reservation.Renew(reservations=(held.reservation,), lease_s=2))
            await client.ask(whole)
        case "forget" if lease_s > 2:
            await client.ask(whole)


MODES = {"declare": (declare, FAST), "insist": (insist, DURABLE), "reserve": (reserve, FAST)}


if __name__ == "__main__":
    main(MODES)
