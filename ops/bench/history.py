"""A realistic past: tasks that are opened, claimed, renewed and completed, and conversations, in many namespaces.

It is written past the daemon, as raw events in atomic batches, in the form in which a daemon would have written them.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import anyio

from bench.clients import TEXT, Spec, Watch, raw_connection
from bench.crew import Result
from bus.clock import RandomIds, SystemClock, from_ns
from bus.domain import channel, dm, needs, task
from bus.events import Draft, Fact, RequestId
from bus.jetstream import JetStreamLog
from bus.model import Family
from bus.operation import CODEC, FAMILY_OF
from bus.subjects import TENANT, bucket_of

NAMESPACES = 20
CHANNELS = 25
"""Of one namespace."""
AGENTS = 40
JOINED = 8
"""Channels of one agent."""
LIVE_TASKS = 200
"""Of one namespace: so many are open or claimed at a time."""
BATCH = 500
SAMPLES = 400


def namespace_of(number: int) -> str:
    return f"team-{number:02}"


def agent_of(number: int) -> str:
    return f"agent-{number:02}"


class _Task:
    __slots__ = ("fence", "key", "namespace", "opened", "owner")

    def __init__(self, key: str, namespace: str, opened: int) -> None:
        self.key, self.namespace, self.opened = key, namespace, opened
        self.owner: str | None = None
        self.fence = 0


class History:
    """Makes one event after another; `seq` is that of the last one made."""

    def __init__(self, seq: int, seed: int) -> None:
        self.seq = seq
        self.tasks: list[_Task] = []
        """A sample of all tasks."""
        self._random = random.Random(seed)
        self._ids = RandomIds()
        self._start = from_ns(SystemClock().server_ns())
        self._live: dict[str, list[_Task]] = {namespace_of(n): [] for n in range(NAMESPACES)}
        self._messages: list[tuple[int, str, str]] = []
        self._count = 0

    def events(self) -> Iterator[Draft]:
        """Events without end, beginning with the channels and their members."""
        for number in range(NAMESPACES):
            for name in range(CHANNELS):
                fact = channel.ChannelOpened(topic="bench")
                yield self._draft("channel", namespace_of(number), f"channel-{name:02}", fact)
        for number in range(AGENTS * JOINED):
            namespace, name = namespace_of(number % NAMESPACES), f"channel-{number % CHANNELS:02}"
            yield self._draft("channel", namespace, name, channel.ChannelJoined(), agent_of(number // JOINED))
        while True:
            namespace = namespace_of(self._random.randrange(NAMESPACES))
            yield from self._said(namespace) if self._random.random() < 0.55 else self._worked(namespace)

    def _said(self, namespace: str) -> Iterator[Draft]:
        chance, agent = self._random.random(), self._agent()
        if chance < 0.05:
            other = self._agent()
            yield self._draft("dm", TENANT, dm.pair(agent, other), dm.DmPosted(text=TEXT, to=other), agent)
        elif chance < 0.15 and self._messages:
            seq, place, name = self._random.choice(self._messages)
            changed = channel.ChannelEdited(message=seq, text=f"Correction: {TEXT}")
            reacted = channel.ChannelReacted(message=seq, emoji="+1")
            yield self._draft("channel", place, name, changed if chance < 0.08 else reacted, agent)
        else:
            name = f"channel-{self._random.randrange(CHANNELS):02}"
            mentions = (self._agent(),) if chance > 0.9 else ()
            text = f"{self.seq + 1}: {TEXT}"
            yield self._draft("channel", namespace, name, channel.ChannelPosted(text=text, mentions=mentions), agent)
            if self._random.random() < 0.01:
                self._messages.append((self.seq, namespace, name))

    def _worked(self, namespace: str) -> Iterator[Draft]:
        live = self._live[namespace]
        if len(live) < LIVE_TASKS or self._random.random() < 0.2:
            self._count += 1
            opened = _Task(f"t-{self._count:07}", namespace, self.seq + 1)
            labels = tuple(self._random.sample(("api", "docs", "parser", "tests"), 2))
            title = f"Look into the failing build number {self._count}"
            fact = task.TaskOpened(title=title, body=TEXT, priority=self._count % 10, labels=labels)
            yield self._draft("task", namespace, opened.key, fact)
            if live and self._random.random() < 0.05:
                linked = needs.NeedsLinked(needs=(self._random.choice(live).key,))
                yield self._draft("needs", namespace, opened.key, linked)
            live.append(opened)
            if self._random.random() < 0.02:
                self.tasks.append(opened)
            return
        at = self._random.randrange(len(live))
        yield from self._advanced(live, at)

    def _advanced(self, live: list[_Task], at: int) -> Iterator[Draft]:
        one, agent = live[at], self._agent()
        later = self._start + timedelta(days=6)
        if one.owner is None:
            claimed = task.TaskClaimed(lease_s=600, expires=later, until=later + timedelta(days=1))
            one.owner, one.fence = agent, self.seq + 1
            yield self._draft("task", one.namespace, one.key, claimed, agent)
        elif (chance := self._random.random()) < 0.4:
            expires = later + timedelta(seconds=self.seq / 1000)
            renewed = task.TaskRenewed(fence=one.fence, expires=expires, lease_s=600)
            yield self._draft("task", one.namespace, one.key, renewed, one.owner)
        elif chance < 0.9:
            live[at] = live[-1]
            live.pop()
            done = task.TaskCompleted(result="It was the cache: the key did not contain the version.")
            yield self._draft("task", one.namespace, one.key, done, one.owner)
        else:
            yield self._draft("task", one.namespace, one.key, task.TaskReleased(reason="no time"), one.owner)
            one.owner = None

    def _agent(self) -> str:
        return agent_of(self._random.randrange(AGENTS))

    def _draft(self, family: str, namespace: str, key: str, fact: Fact, agent: str | None = None) -> Draft:
        self.seq += 1
        known: Family = FAMILY_OF[family]
        return Draft(
            id=self._ids.event_id(),
            namespace=namespace,
            family=family,
            bucket=bucket_of(known.bucket_key(key)),
            entity=key,
            agent=agent or self._agent(),
            fact=fact,
            request=RequestId(self._ids.event_id(), "0123456789abcdef"),
        )


async def fill(spec: Spec) -> AsyncIterator[Result | None]:
    """Write events until the log has `upto`. Reports a sample of tasks as (namespace, key, seq of the first event)."""
    async with raw_connection(spec) as connection:
        log = JetStreamLog(connection, CODEC)
        head = (await log.head()).seq
        yield None
        watch = Watch()
        past = History(head, spec.get("seed", 1))
        await append_all(log, islice(past.events(), max(0, spec["upto"] - head)), BATCH)
        yield watch.result(count=spec["upto"] - head, tasks=_sample(past))


async def append_all(log: JetStreamLog, drafts: Iterator[Draft], size: int) -> None:
    """Write events into places where nothing is yet, in batches of `size`; the next is made while one is written."""
    send, receive = anyio.create_memory_object_stream[list[Draft]](2)

    async def make() -> None:
        async with send:
            while batch := list(islice(drafts, size)):
                await send.send(batch)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        tips: dict[str, int] = {}
        async for batch in receive:
            seqs = await log.append(batch, {draft.subject: tips.get(draft.subject, 0) for draft in batch})
            tips.update(zip([draft.subject for draft in batch], seqs, strict=True))


def _sample(past: History) -> list[tuple[Any, ...]]:
    step = max(1, len(past.tasks) // SAMPLES)
    return [(one.namespace, one.key, one.opened) for one in past.tasks[::step]]
