"""What client processes do: through the bus, and the same past it.

Every role is an async generator (see `bench.worker`).
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import nats
from nats.aio.client import Client
from nats.js.errors import APIError

from bench.crew import Result
from bench.ground import NAMESPACE, RAW_PREFIX, STEADY_S
from bus.client import Bus
from bus.clock import RandomIds
from bus.domain import channel, task_requests
from bus.domain.channel import ChannelPosted
from bus.errors import BusError, NotFound, Refused
from bus.events import Draft, RequestId
from bus.jetstream import EXPECTED
from bus.operation import CODEC
from bus.protocol import REQUEST_HEADER, encode_request
from bus.subjects import ask_subject, bucket_of, inbox_prefix
from bus.transport import Connection, connect

TEXT = "The build of the parser is green again; the flaky test waits for the port now instead of sleeping. " * 2
WARM_UP = 10
RAW_INBOX = "_INBOX._daemon-bench"

Steps = AsyncIterator[Result | None]
Spec = dict[str, Any]
now = time.perf_counter
"""Monotonic, and comparable between the processes of one machine."""


class Watch:
    """Takes the time of operations."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.start_s = self.end_s = now()

    async def run(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        start = now()
        result = await operation()
        self.took_s.append(now() - start)
        return result

    def result(self, count: int | None = None, **extra: Any) -> Result:
        return Result(
            start_s=self.start_s,
            end_s=now(),
            cpu_s=0,
            count=len(self.took_s) if count is None else count,
            took_s=self.took_s,
            extra=extra,
        )


def bus_of(spec: Spec, agent: str | None = None) -> Any:
    return Bus.connect(
        agent=agent or spec["agent"], home=spec["home"], namespace=spec.get("namespace", NAMESPACE), timeout_s=STEADY_S
    )


def draft_of_post(ids: RandomIds, agent: str, name: str) -> Draft:
    """The event that a post becomes."""
    return Draft(
        id=ids.event_id(),
        namespace=NAMESPACE,
        family="channel",
        bucket=bucket_of(name),
        entity=name,
        agent=agent,
        fact=ChannelPosted(text=TEXT),
        request=RequestId(ids.event_id(), "0123456789abcdef"),
    )


def raw_message(ids: RandomIds, name: str) -> tuple[str, bytes, dict[str, str]]:
    """A message for the raw stream with the size and the headers of a post's event."""
    headers, body = CODEC.encode(draft_of_post(ids, "writer-00", name))
    return f"{RAW_PREFIX}.{bucket_of(name)}", body, headers


@asynccontextmanager
async def raw_nats(spec: Spec) -> AsyncIterator[Client]:
    """nats-py as it comes."""
    client = await nats.connect(spec["url"], user_credentials=spec["creds"], inbox_prefix=RAW_INBOX.encode())
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def raw_connection(spec: Spec) -> AsyncIterator[Connection]:
    """The bus's own connection, which is faster than nats-py."""
    async with connect(
        spec["url"], creds=Path(spec["creds"]).read_text(), name="_daemon-bench", inbox=RAW_INBOX
    ) as connection:
        yield connection


# --- past the bus -----------------------------------------------------------------------------------------------------


async def raw_publish(spec: Spec) -> Steps:
    """Durable publishes with nats-py, one after another."""
    async with raw_nats(spec) as client:
        js, ids = client.jetstream(), RandomIds()
        yield None
        watch = Watch()
        for _ in range(spec["count"]):
            subject, body, headers = raw_message(ids, "dev")
            await watch.run(lambda: js.publish(subject, body, headers=headers))  # noqa: B023 - awaited at once
        yield watch.result()


async def raw_batches(spec: Spec) -> Steps:
    """Atomic batches of `size` messages, `in_flight` at a time."""
    async with raw_connection(spec) as connection:
        ids = RandomIds()
        yield None
        watch = Watch()
        left = spec["batches"]

        async def work() -> None:
            nonlocal left
            while left:
                left -= 1
                await watch.run(lambda: send_batch(connection, ids, spec["size"]))

        async with anyio.create_task_group() as tasks:
            for _ in range(spec["in_flight"]):
                tasks.start_soon(work)
        yield watch.result(count=spec["batches"] * spec["size"])


async def send_batch(connection: Connection, ids: RandomIds, size: int) -> None:
    batch = ids.event_id()
    for number in range(1, size + 1):
        subject, body, headers = raw_message(ids, "dev")
        headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number < size:
            await connection.publish(subject, body, headers)
        else:
            answer = await connection.request(subject, body, headers | {"Nats-Batch-Commit": "1"})
            if b'"error"' in answer.data:
                raise RuntimeError(answer.data)


async def raw_claim(spec: Spec) -> Steps:
    """Compare-and-set on one subject per task: who publishes first has it."""
    async with raw_nats(spec) as client:
        js, ids = client.jetstream(), RandomIds()
        yield None
        watch, wins = Watch(), 0
        for number in shuffled(spec):
            _, body, headers = raw_message(ids, "dev")
            headers[EXPECTED] = "0"
            subject = f"{RAW_PREFIX}.claim.{number}"
            start = now()
            try:
                await js.publish(subject, body, headers=headers)
                wins += 1
            except APIError:
                pass
            watch.took_s.append(now() - start)
        yield watch.result(wins=wins)


async def raw_follow(spec: Spec) -> Steps:
    """From the beginning of a durable publish to its arrival at a push consumer on another connection."""
    async with raw_nats(spec) as writer, raw_connection(spec) as reader:
        js, ids = writer.jetstream(), RandomIds()
        arrived: list[float] = []
        got = anyio.Event()

        def receive(_: Any) -> None:
            arrived.append(now())
            got.set()

        await reader.subscribe(spec["deliver"], receive)
        yield None
        watch = Watch()
        for _ in range(spec["count"]):
            subject, body, headers = raw_message(ids, "dev")
            got = anyio.Event()
            start = now()
            await js.publish(subject, body, headers=headers)
            await got.wait()
            watch.took_s.append(arrived[-1] - start)
        yield watch.result()


def shuffled(spec: Spec) -> list[int]:
    numbers = list(range(spec["tasks"]))
    random.Random(spec["seed"]).shuffle(numbers)
    return numbers


async def burn(spec: Spec) -> Steps:
    """Keep a processor busy."""
    yield None
    watch = Watch()
    end = now() + spec["seconds"]
    while now() < end:
        sum(range(1000))
    yield watch.result(count=0)


# --- through the bus --------------------------------------------------------------------------------------------------


async def open_all(spec: Spec) -> Steps:
    """Open channels and tasks, many at a time."""
    async with bus_of(spec) as bus:
        yield None
        watch = Watch()
        requests: list[Any] = [channel.Open(channel=name) for name in spec.get("channels", [])]
        requests += [task_requests.Open(task=name, title=f"work on {name}") for name in spec.get("tasks", [])]
        waiting = iter(requests)

        async def work() -> None:
            for request in waiting:
                await watch.run(lambda: bus.call(request))  # noqa: B023

        async with anyio.create_task_group() as tasks:
            for _ in range(64):
                tasks.start_soon(work)
        yield watch.result()


async def post(spec: Spec) -> Steps:
    """Post to channels, `in_flight` at a time; at the end wait until the tables have it all."""
    names = spec["channels"]
    async with bus_of(spec) as bus:
        yield None
        watch = Watch()
        left = spec["count"]
        at = spec.get("seed", 0)

        async def work() -> None:
            nonlocal left, at
            while left > 0:
                left -= 1
                at += 1
                request = channel.Post(channel=names[at % len(names)], text=TEXT)
                await watch.run(lambda: bus.call(request))  # noqa: B023

        async with anyio.create_task_group() as tasks:
            for _ in range(spec["in_flight"]):
                tasks.start_soon(work)
        result = watch.result()
        if spec.get("settle"):
            await bus.call(channel.Read(channel=names[0], limit=1))
        yield msgspec.structs.replace(result, extra={"settled_s": now() - result.end_s})


async def flood(spec: Spec) -> Steps:
    """Fire posts without waiting for anything, for some seconds; the answers are thrown away."""
    creds = Path(spec["flood_creds"]).read_text()
    agent = spec["agent"]
    async with connect(spec["url"], creds=creds, name=agent, inbox=inbox_prefix(agent)) as connection:
        body = encode_request(channel.Post(channel="flood", text=TEXT, namespace=NAMESPACE))
        subject, inbox = ask_subject(agent, "do", "channel.post"), connection.new_inbox()
        await connection.subscribe(inbox, lambda _: None)
        ids = RandomIds()
        yield None
        watch = Watch()
        end, sent = now() + spec["seconds"], 0
        while now() < end:
            try:
                for _ in range(100):
                    await connection.publish(subject, body, {REQUEST_HEADER: ids.event_id()}, reply=inbox)
                    sent += 1
            except BusError:
                await connection.wait_connected()
            await anyio.lowlevel.checkpoint()
        yield watch.result(count=sent)


async def claim(spec: Spec) -> Steps:
    """Try to claim every task, one after another."""
    async with bus_of(spec) as bus:
        yield None
        watch, wins = Watch(), 0
        for number in shuffled(spec):
            start = now()
            try:
                await bus.call(task_requests.Claim(task=f"{spec['prefix']}-{number}"))
                wins += 1
            except Refused:
                pass
            watch.took_s.append(now() - start)
        yield watch.result(wins=wins)


async def take_next(spec: Spec) -> Steps:
    """Take the next task until there is none."""
    async with bus_of(spec) as bus:
        yield None
        watch = Watch()
        while True:
            try:
                await watch.run(lambda: bus.call(task_requests.Next()))
            except NotFound:
                break
        yield watch.result()


async def follow(spec: Spec) -> Steps:
    """Another's post until it is followed, and one's own until it can be queried, each with its parts."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(bus_of(spec))
        reader = await stack.enter_async_context(bus_of(spec, spec["reader"]))
        name = spec["channel"]
        await writer.call(channel.Join(channel=name))
        yield None
        watch = Watch()
        followed = await _followed(writer, reader, name, spec["count"])
        posts, reads, both = [], [], []
        for _ in range(spec["count"]):
            start = now()
            await writer.call(channel.Post(channel=name, text=TEXT))
            middle = now()
            await writer.call(channel.Read(channel=name, limit=10))
            both.append(now() - start)
            posts.append(middle - start)
            start = now()
            await writer.call(channel.Read(channel=name, limit=10))
            reads.append(now() - start)
        yield watch.result(count=spec["count"], followed=followed, posts=posts, reads=reads, queryable=both)


async def _followed(writer: Bus, reader: Bus, name: str, count: int) -> list[float]:
    """Seconds from the beginning of each post to its arrival at the follower; the first ones only warm up."""
    sent: list[float] = []
    seen: list[float] = []
    arrived = anyio.Event()
    reader.seq = since = writer.seq

    async def watching() -> None:
        async for answer in reader.follow(channel.Read(channel=name, since=since)):
            seen.extend(now() for _ in answer.messages)
            arrived.set()
            if len(seen) == count + WARM_UP:
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watching)
        for _ in range(count + WARM_UP):
            arrived = anyio.Event()
            sent.append(now())
            await writer.call(channel.Post(channel=name, text=TEXT))
            await arrived.wait()
    return [end - start for start, end in zip(sent, seen, strict=True)][WARM_UP:]
