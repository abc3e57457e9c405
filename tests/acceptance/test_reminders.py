"""Reminders of real processes fire once each, whatever is killed while they fall due, and after downtime.

The judge reads the raw log: it knows the format of the two events and nothing of the product.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bus import lifecycle
from bus.domain import channel, inbox, log, reminder
from tests.acceptance.checker import Diaries, Event, read_event
from tests.acceptance.support import Record, Rig

CLIENTS = [f"bell-{number}" for number in range(8)]
EACH = 125
KILLS = ((1, "server"), (250, "server"), (500, "daemon"), (750, "server"))
"""What is killed as soon as so many have fired."""


class Bells(NamedTuple):
    """The reminders in a log: when each was to fire, and the events by which it did."""

    due_ns: dict[str, int]
    fired: dict[str, list[Event]]
    times_ns: list[int]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Bells:
        events = [event for record in records if (event := read_event(record)) is not None]
        due = {event.entity: _ns(event.data["at"]) for event in events if event.type == "reminder.set"}
        fired: dict[str, list[Event]] = {}
        for event in events:
            if event.type == "reminder.fired":
                fired.setdefault(event.entity, []).append(event)
        return cls(due, fired, [event.time_ns for event in events])

    def problems(self) -> list[str]:
        """One sentence for everything that did not happen exactly once, by the bus itself, and not too early."""
        found = [f"{key} has fired {len(events)} times" for key, events in self.fired.items() if len(events) != 1]
        found += [f"{key} was never set" for key in self.fired.keys() - self.due_ns.keys()]
        found += [f"{key} has not fired" for key in self.due_ns.keys() - self.fired.keys()]
        for key, events in self.fired.items():
            for event in events:
                if event.agent != "system" or _ns(event.data["at"]) != self.due_ns.get(key):
                    found.append(f"{key} was fired by {event.agent} for {event.data['at']}")
                if event.time_ns < self.due_ns.get(key, 0):
                    found.append(f"{key} fired {self.due_ns[key] - event.time_ns} ns too early")
        return found

    def due_while_down(self, killed_ns: int) -> int:
        """How many fell due after this kill and before anything could be stored again."""
        again_ns = min((time_ns for time_ns in self.times_ns if time_ns > killed_ns), default=killed_ns)
        return sum(killed_ns < due_ns < again_ns for due_ns in self.due_ns.values())


def _ns(instant: str) -> int:
    moment = datetime.fromisoformat(instant)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


async def fired(rig: Rig, number: int) -> list[Record]:
    """The log as soon as so many reminders have fired."""
    return await rig.log_when(lambda records: sum(_is_fired(record) for record in records) >= number)


def _is_fired(record: Record) -> bool:
    return record.headers.get("Bus-Type") == "reminder.fired"


async def test_a_thousand_fire_once_each_whatever_is_killed_while_they_fall_due(rig: Rig) -> None:
    clients = [rig.client("remind", name, seed=seed, tasks=EACH) for seed, name in enumerate(CLIENTS)]
    for client in clients:
        assert client.line() == "ready"
    for client in clients:
        client.begin()
    killed_ns: list[int] = []
    async with rig.connect() as bus:
        for number, victim in KILLS:
            await fired(rig, number)
            rig.kill(victim)
            if victim == "server":
                killed_ns.append(time.time_ns())
            # It is answered when everything runs again.
            await bus.call(channel.Open(channel=f"alive-{number}"))
        counts: Counter[str] = sum((Counter(json.loads(client.line(60))) for client in clients), Counter())
        assert counts == {"reminder.set": EACH * len(CLIENTS)}
        records = await fired(rig, EACH * len(CLIENTS))
        moment = await bus.call(log.Tables(verify=True), timeout_s=120, on_progress=lambda progress: None)
        assert moment.equal
    bells = Bells.of(records)
    assert bells.problems() == []
    told = [line["reply"]["reminder"] for line in Diaries(rig.folder).read() if "reply" in line]
    assert sorted(told) == sorted(bells.due_ns)
    assert any(bells.due_while_down(moment_ns) for moment_ns in killed_ns)
    for name in CLIENTS:
        assert Counter(await inbox_of(rig, name, records)) == Counter(f"{name} {number}" for number in range(EACH))
    print(f"{[bells.due_while_down(moment_ns) for moment_ns in killed_ns]} fell due while the server was down")


async def inbox_of(rig: Rig, name: str, records: Sequence[Record]) -> list[str]:
    """Everything in an agent's inbox after these records, page by page."""
    texts: list[str] = []
    async with rig.connect(name) as bus:
        while True:
            page: Any = await bus.call(inbox.Peek(limit=40, after=records[-1].seq))
            if not page.items:
                return texts
            assert all(item.reasons == ["reminder"] and item.agent == "system" for item in page.items)
            texts += [item.text for item in page.items]
            await bus.call(inbox.Ack(upto=page.upto))


async def test_what_fell_due_while_nothing_ran_fires_once_when_it_runs_again(rig: Rig) -> None:
    number = 0
    due_later = 0
    for in_s in (2, 4, 8, 16):  # A slow machine takes longer to stop than the first of them wait.
        async with rig.connect() as bus:
            replies = [await bus.call(reminder.Set(text=f"{number + n}", in_s=in_s)) for n in range(20)]
        number += len(replies)
        lifecycle.down(rig.home)
        down = datetime.now(UTC)
        due_later = sum(reply.at > down for reply in replies)
        while datetime.now(UTC) <= max(reply.at for reply in replies):
            time.sleep(0.01)
        rig.up()
        if due_later:
            break
    records = await fired(rig, number)
    bells = Bells.of(records)
    assert bells.problems() == []
    late = [event for events in bells.fired.values() for event in events if event.time_ns > down.timestamp() * 1e9]
    assert len(late) >= due_later > 0
    assert sorted(await inbox_of(rig, "owner", records), key=int) == [f"{n}" for n in range(number)]


def test_the_judge_sees_what_is_wrong() -> None:
    def record(seq: int, kind: str, key: str, at: str, agent: str = "system") -> Record:
        headers = {"Bus-Type": f"reminder.{kind}", "Bus-Entity": key, "Bus-Agent": agent}
        return Record(seq, _ns("2030-01-01T12:00:00Z"), "log.test.reminder.1", headers, json.dumps({"at": at}).encode())

    noon, early, late = "2030-01-01T12:00:00Z", "2030-01-01T11:59:59Z", "2030-01-01T12:00:01Z"
    good = [record(1, "set", "a", noon), record(2, "fired", "a", noon)]
    assert Bells.of(good).problems() == []
    for bad in (
        [*good, record(3, "fired", "a", noon)],
        good[:1],
        good[1:],
        [good[0], record(2, "fired", "a", early)],
        [good[0], record(2, "fired", "a", noon, "nova")],
        [record(1, "set", "a", late), record(2, "fired", "a", late)],
    ):
        assert Bells.of(bad).problems() != []
