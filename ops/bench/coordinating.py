"""What is measured of coordination, in client processes: deciding beside many reservations, and looking up what waits.

Every role is an async generator (see `bench.worker`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio

from bench.clients import TEXT, Spec, Watch, bus_of, now, raw_connection
from bench.crew import Result
from bench.ground import NAMESPACE
from bus.clock import RandomIds
from bus.domain import channel, directive, inbox, intent, journal, reminder, reservation
from bus.domain import task_requests as task
from bus.errors import Refused
from bus.events import Draft, Fact, RequestId
from bus.jetstream import JetStreamLog
from bus.operation import CODEC, FAMILY_OF
from bus.subjects import TENANT, bucket_of

Steps = AsyncIterator[Result | None]
LEASE_S = 3600
ROOM = "busy"
BATCH = 500


def held(area: str, number: int) -> str:
    """One of the paths that are reserved, of the kinds that people reserve."""
    kinds = (
        f"{area}/pkg-{number}/",
        f"{area}/docs/*-{number}.md",
        f"{area}/part_{number}/*.py",
        f"{area}/file-{number}.py",
    )
    return kinds[number % len(kinds)]


async def hold(spec: Spec) -> Steps:
    """Reserve and declare so much, and keep it."""
    async with bus_of(spec) as bus:
        yield None
        watch = Watch()
        numbers = iter(range(spec["count"]))

        async def work() -> None:
            for number in numbers:
                paths = (held(bus.agent, number),)
                await bus.call(reservation.Reserve(paths=paths, lease_s=LEASE_S, reason="for the bench"))
                key, text = f"{bus.agent} topic {number}", f"work on part {number} of {bus.agent}"
                await bus.call(intent.Declare(key=key, text=text, lease_s=LEASE_S))

        async with anyio.create_task_group() as tasks:
            for _ in range(32):
                tasks.start_soon(work)
        yield watch.result(count=2 * spec["count"])


async def decide(spec: Spec) -> Steps:
    """Reserve, be refused, release; declare, be refused, withdraw: how long each takes, one after another."""
    async with bus_of(spec) as bus:
        yield None
        watch = Watch()
        took: dict[str, list[float]] = {}

        async def timed(name: str, ask: Callable[[], Awaitable[Any]]) -> None:
            start = now()
            try:
                await ask()
            except Refused:
                name += " refused"
            took.setdefault(name, []).append(now() - start)

        for number in range(spec["count"]):
            path = f"lib/new-{number}.ts" if number % 2 else f"*/new-{number}-?.ts"
            theirs = held(spec["other"], number % spec["held"])
            mine = intent.Declare(key=f"lib {number}", text="mend the library")
            taken = intent.Declare(key=f"{spec['other']} topic {number % spec['held']}")
            asked: list[tuple[str, Any]] = [
                ("reserve", reservation.Reserve(paths=(path,), reason="for the bench")),
                ("reserve", reservation.Reserve(paths=(theirs,))),
                ("release", reservation.Release(paths=(path,))),
                ("declare", mine),
                ("declare", taken),
                ("withdraw", intent.Withdraw(key=mine.key)),
            ]
            for name, request in asked:
                await timed(name, lambda: bus.call(request))  # noqa: B023 - awaited at once
        yield watch.result(count=6 * spec["count"], **took)


# --- what waits -----------------------------------------------------------------------------------------------------


class Room:
    """Makes the events of a busy channel, one after another; `seq` is that of the last one made."""

    def __init__(self, seq: int, readers: dict[str, int]) -> None:
        self.seq = seq
        self.readers = readers
        self._ids = RandomIds()

    def events(self, count: int) -> Iterator[Draft]:
        """The channel, its members, so many messages; then each reader has read all but so many."""
        yield self._draft("channel", ROOM, channel.ChannelOpened(topic="bench"), "owner")
        for name in self.readers:
            yield self._draft("channel", ROOM, channel.ChannelJoined(), name)
        for number in range(count):
            mentions = (list(self.readers)[number % len(self.readers)],) if number % 50 == 0 else ()
            fact = channel.ChannelPosted(text=f"{number}: {TEXT}", mentions=mentions)
            yield self._draft("channel", ROOM, fact, "talker")
        last = self.seq
        for name, left in self.readers.items():
            if left < count:
                yield self._draft("inbox", name, inbox.InboxShown(upto=last - left), name, TENANT)
                yield self._draft("inbox", name, inbox.InboxAcked(upto=last - left), name, TENANT)

    def _draft(self, family: str, key: str, fact: Fact, agent: str, namespace: str = NAMESPACE) -> Draft:
        self.seq += 1
        return Draft(
            id=self._ids.event_id(),
            namespace=namespace,
            family=family,
            bucket=bucket_of(FAMILY_OF[family].bucket_key(key)),
            entity=key,
            agent=agent,
            fact=fact,
            request=RequestId(self._ids.event_id(), "0123456789abcdef"),
        )


async def talk(spec: Spec) -> Steps:
    """Write a busy channel past the daemon, as it would have done."""
    async with raw_connection(spec) as connection:
        log = JetStreamLog(connection, CODEC)
        head = (await log.head()).seq
        yield None
        watch = Watch()
        events = list(Room(head, spec["readers"]).events(spec["count"]))
        tips: dict[str, int] = {}
        for start in range(0, len(events), BATCH):
            drafts = events[start : start + BATCH]
            seqs = await log.append(drafts, {draft.subject: tips.get(draft.subject, 0) for draft in drafts})
            tips.update(zip([draft.subject for draft in drafts], seqs, strict=True))
        yield watch.result(count=len(events))


async def look(spec: Spec) -> Steps:
    """Look into the inbox, count it, and take the wake card, each so many times."""
    async with bus_of(spec) as bus, bus_of(spec, spec["giver"]) as giver:
        yield None
        await _be_busy(bus, giver)
        watch = Watch()
        took: dict[str, list[float]] = {"rest": [], "peek": [], "digest": [], "wake": []}
        size = 0
        asked: dict[str, Any] = {
            "rest": channel.List(limit=1),
            "peek": inbox.Peek(),
            "digest": inbox.Digest(),
            "wake": journal.Wake(),
        }
        for _ in range(spec["count"]):
            for name, request in asked.items():
                start = now()
                answer = await bus.call(request)
                took[name].append(now() - start)
                if name == "wake":
                    size = max(size, len(answer.text.encode()))
        yield watch.result(count=len(asked) * spec["count"], wake_bytes=size, **took)


async def _be_busy(bus: Any, giver: Any) -> None:
    """Let there be something of everything that a wake card shows."""
    await bus.call(journal.Write(focus="the parser", done=("found it " * 20,), next_steps=("mend it " * 20,) * 5))
    for number in range(12):
        await giver.call(directive.Give(to=bus.agent, text=f"{number}: {TEXT}", priority=number % 5))
        await bus.call(reminder.Set(text=f"{number}: {TEXT}", in_s=3600 + number))
        opened = await bus.call(task.Open(title=f"{number}: {TEXT}"[:200]))
        await bus.call(task.Claim(task=opened.task, lease_s=LEASE_S))
    bus.seq = max(bus.seq, giver.seq)
