"""The ceiling: a process that answers asks and does nothing but what no daemon can leave out.

    echo      ask -> answer                                   what processes, sockets and the server allow
    commit    ask -> [gather] -> log -> answers               the same, durable: all that wait is stored together

It decodes nothing, decides nothing, remembers nothing and keeps no tables. What it cannot reach here, no daemon in one
Python process can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio

from bench.clients import Spec, Watch, raw_connection, raw_message
from bench.crew import Result
from bus.clock import RandomIds
from bus.subjects import ask_subject, inbox_prefix
from bus.transport import Connection, Message, connect

OPERATION = "bare.post"
FILTER = "ask.*.do.bare.post"
MOST = 512
BATCH_FROM = 14
"""An atomic batch has the cost of so many single messages that are sent together."""


async def answer(spec: Spec) -> AsyncIterator[Result | None]:
    """Answer `count` asks, in the way of `mode`, then end."""
    async with raw_connection(spec) as connection:
        waiting: list[Message] = []
        news = anyio.Event()
        watch = Watch()
        answered = 0

        def receive(message: Message) -> None:
            nonlocal answered
            if spec["mode"] == "commit":
                waiting.append(message)
            else:
                connection.send(message.reply, b'{"seq":1}')
                answered += 1
            news.set()

        await connection.subscribe(FILTER, receive)
        yield None
        ids = RandomIds()
        while answered < spec["count"]:
            if not waiting:
                news = anyio.Event()
                await news.wait()
            if batch := waiting[:MOST]:
                del waiting[:MOST]
                await commit(connection, ids, batch)
                answered += len(batch)
        await connection.rtt()
        yield watch.result(count=answered)


async def commit(connection: Connection, ids: RandomIds, asks: list[Message]) -> None:
    """Store one event for each ask, in whichever way is faster, and answer them."""
    messages = [raw_message(ids, "dev") for _ in asks]
    if len(messages) >= BATCH_FROM:
        batch = ids.event_id()
        for number, (_, _, headers) in enumerate(messages, 1):
            headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        *others, (subject, body, headers) = messages
        for message in others:
            await connection.publish(*message)
        answers = [await connection.request(subject, body, headers | {"Nats-Batch-Commit": "1"})]
    else:
        async with aclosing(connection.request_many(messages)) as replies:
            answers = [await anext(replies) for _ in messages]
    if any(b'"error"' in stored.data for stored in answers):
        raise RuntimeError(answers)
    for ask in asks:
        connection.send(ask.reply, b'{"seq":1}')


async def ask(spec: Spec) -> AsyncIterator[Result | None]:
    """Ask `count` times, `in_flight` at a time, with a body of a post's size."""
    agent, left = spec["agent"], spec["count"]
    subject = ask_subject(agent, "do", OPERATION)
    creds = Path(spec["agent_creds"]).read_text()
    async with connect(spec["url"], creds=creds, name=agent, inbox=inbox_prefix(agent)) as connection:
        ids = RandomIds()
        _, body, _ = raw_message(ids, "dev")
        yield None
        watch = Watch()

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                headers = {"Bus-Request": ids.event_id()}
                await watch.run(lambda: connection.request(subject, body, headers))  # noqa: B023 - awaited at once

        async with anyio.create_task_group() as tasks:
            for _ in range(spec["in_flight"]):
                tasks.start_soon(work)
        yield watch.result()
