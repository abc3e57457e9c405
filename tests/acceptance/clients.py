"""Client processes: each is one agent that asks for things and writes down, durably, what it asked and was told.

    python -m tests.acceptance.clients MODE --home H --agent A --diary FILE

It prints `ready` when it is connected, begins at the first line of its standard input, and ends when that ends (or when
it has nothing left to do), with what it counted as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import structlog

from bus.client import Bus
from bus.clock import RandomIds
from bus.domain import channel, reminder
from bus.domain import task_requests as task
from bus.errors import BusError
from bus.model import Request
from bus.operation import OPERATION_OF, OPERATIONS
from tests.acceptance.checker import Diaries
from tests.acceptance.support import NAMESPACE

DURABLE, FAST = True, False


class Diary:
    """What this client asked and was told. With `durable`, each line is on disk before anything else happens; without,
    it is written at a `flush`."""

    def __init__(self, path: Path, client: str, durable: bool) -> None:
        self._file = path.open("ab", buffering=0)
        self._file.write(b"\n")  # An earlier life may have ended in the middle of a line.
        self._client = client
        self._durable = durable
        self._lines: list[bytes] = []

    def write(self, **line: Any) -> None:
        self._lines.append(json.dumps({"client": self._client, **line}).encode() + b"\n")
        if self._durable:
            self.flush()

    def flush(self) -> None:
        self._file.write(b"".join(self._lines))
        self._lines.clear()
        if self._durable:
            os.fsync(self._file.fileno())


class Client:
    """One agent at work. `counts` says how its requests ended."""

    def __init__(self, bus: Bus, diary: Diary, options: argparse.Namespace) -> None:
        self.bus = bus
        self.diary = diary
        self.options = options
        self.chance = random.Random(options.seed)
        self.counts: Counter[str] = Counter()
        self.stopping = False
        self._ids = RandomIds()

    async def ask(self, request: Request, request_id: str | None = None) -> Any:
        """Ask, and write down question and answer. -> the reply or the error"""
        op = OPERATION_OF[type(request)].name
        id_ = request_id or self._ids.event_id()
        body = {key: value for key, value in msgspec.to_builtins(request).items() if key != "after"}
        known: dict[str, Any] = {"request": id_, "op": op, "body": body, "knew": self.bus.seq}
        self.diary.write(**known)
        start = time.monotonic()
        try:
            reply = await self.bus.call(request, request_id=id_)
        except BusError as error:
            self.diary.write(**known, took_s=time.monotonic() - start, error=msgspec.to_builtins(error.problem))
            self.counts[error.code] += 1
            return error
        self.diary.write(**known, took_s=time.monotonic() - start, reply=msgspec.to_builtins(reply))
        self.counts[op] += 1
        return reply

    async def ask_again(self, history: list[dict[str, Any]]) -> None:
        """Repeat, under its id, what an earlier life of this client asked and got no answer to."""
        told = {line["request"] for line in history if "reply" in line or "error" in line}
        for line in history:
            if line["request"] not in told and line["client"] == self.bus.agent:
                request = msgspec.convert(line["body"], OPERATIONS[line["op"]].request)
                await self.ask(request, line["request"])
                self.counts["asked again"] += 1


# --- modes ----------------------------------------------------------------------------------------------------------


async def race(client: Client) -> None:
    """Claim every task there is, in an order of one's own, several at a time."""
    tasks = [f"race-{number}" for number in range(client.options.tasks)]
    client.chance.shuffle(tasks)

    async def some() -> None:
        while tasks:
            await client.ask(task.Claim(task=tasks.pop()))

    await together(client.options.flying, some)


async def take(client: Client) -> None:
    """Take the next task until none is left."""

    async def some() -> None:
        while not isinstance(await client.ask(task.Next()), BusError):
            pass

    await together(client.options.flying, some)


async def work(client: Client) -> None:
    """Take tasks under short leases and do everything with them that a good or a careless holder does."""

    async def some() -> None:
        while not client.stopping:
            name = f"race-{client.chance.randrange(client.options.tasks)}"
            claim = await client.ask(client.chance.choice([task.Claim(task=name, lease_s=1), task.Next(lease_s=1)]))
            if isinstance(claim, task.LeaseReply):
                await _hold(client, claim)
            await anyio.sleep(client.options.pause_s)

    await together(client.options.flying, some)


async def _hold(client: Client, claim: task.LeaseReply) -> None:
    fence = f"{claim.task}:{claim.fence}"
    match client.chance.choice(["complete", "release", "renew", "write late", "forget"]):
        case "complete":
            await _complete(client, claim)
        case "release":
            await client.ask(task.Release(task=claim.task))
        case "renew":
            await client.ask(task.Renew(task=claim.task))
            await client.ask(channel.Post(channel="work", text=fence, fence=fence))
        case "write late":
            # Under load this is before or after the end of the lease; what is said of it has to be right either way.
            await anyio.sleep(client.chance.uniform(0.7, 1.3))
            await client.ask(channel.Post(channel="work", text=fence, fence=fence))
            await _complete(client, claim)


async def _complete(client: Client, claim: task.LeaseReply) -> None:
    done = await client.ask(task.Complete(task=claim.task, result=f"{claim.fence}", fence=claim.fence))
    if not isinstance(done, BusError):
        await client.ask(task.Reopen(task=claim.task))


async def load(client: Client) -> None:
    """Post, and open, claim and complete tasks of one's own, without an end."""
    await client.ask_again(Diaries(Path(client.options.diary).parent).read())
    print("caught up", flush=True)

    async def some() -> None:
        while not client.stopping:
            text = client.chance.randbytes(client.chance.randrange(1, 200)).hex()
            await client.ask(channel.Post(channel="load", text=text))
            opened = await client.ask(task.Open(title=text[:40]))
            if isinstance(opened, task.TaskReply) and client.chance.random() < 0.5:
                claim = await client.ask(task.Claim(task=opened.task, lease_s=600))
                if isinstance(claim, task.LeaseReply):
                    await client.ask(task.Complete(task=opened.task, result=text, fence=claim.fence))
            await anyio.sleep(client.options.pause_s)

    await together(client.options.flying, some)


async def remind(client: Client) -> None:
    """Set so many reminders for oneself, due within seconds."""
    left = list(range(client.options.tasks))

    async def some() -> None:
        while left:
            text = f"{client.bus.agent} {left.pop()}"
            await client.ask(reminder.Set(text=text, in_s=client.chance.randint(2, 8)))

    await together(client.options.flying, some)


Modes = Mapping[str, tuple[Callable[[Client], Awaitable[None]], bool]]
"""What a client can do, and whether its diary is durable."""

MODES: Modes = {
    "race": (race, FAST),
    "take": (take, FAST),
    "work": (work, DURABLE),
    "load": (load, DURABLE),
    "remind": (remind, FAST),
}


async def together(number: int, fn: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(fn)


async def run(modes: Modes, options: argparse.Namespace) -> None:
    mode, durable = modes[options.mode]
    diary = Diary(Path(options.diary), options.agent, durable)
    async with Bus.connect(options.agent, home=options.home, namespace=NAMESPACE, timeout_s=options.timeout_s) as bus:
        client = Client(bus, diary, options)
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)

        async def until_told() -> None:
            await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            client.stopping = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_told)
            await mode(client)
            tasks.cancel_scope.cancel()
        diary.flush()
        print(json.dumps(client.counts), flush=True)
    if not client.stopping:
        os._exit(0)  # A thread still waits for the end of the standard input.


def main(modes: Modes) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=modes)
    for name in ("home", "agent", "diary"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--flying", type=int, default=16, help="requests under way at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause_s", type=float, default=0.01)
    parser.add_argument("--timeout_s", type=float, default=30.0)
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr), wrapper_class=quiet)
    anyio.run(run, modes, parser.parse_args())


if __name__ == "__main__":
    main(MODES)
