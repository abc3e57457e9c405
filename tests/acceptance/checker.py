"""An independent judge: from the raw log and from what clients wrote down it says what went wrong.

It knows nothing of the product's code. What it knows is written here: how a record looks (seq, time_ns, subject,
headers, data), what the events of tasks mean, and what a client may be told. Every function returns sentences, one per
violation; an empty list is a pass.

A line of a client's history is a dict. Asked: `client`, `request` (its id), `op`, `body`, `knew` (the newest seq it had
seen). Told: the same with `reply` or `error` (kind, code, details).
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

History = Sequence[Mapping[str, Any]]

WRITES = {
    "task.open": "task.opened",
    "task.claim": "task.claimed",
    "task.next": "task.claimed",
    "task.renew": "task.renewed",
    "task.release": "task.released",
    "task.complete": "task.completed",
    "task.fail": "task.failed",
    "task.reopen": "task.reopened",
    "task.handoff": "task.handed_off",
    "channel.post": "channel.posted",
    "reminder.set": "reminder.set",
}
ENDS = {"task.released": "open", "task.completed": "done", "task.expired": "open", "task.failed": "failed"}
ENDED = ("done", "failed", "cancelled")
TRUTHS = {"claimed", "state", "not_holder", "stale_fence", "none_waiting"}
"""The refusals that a client of these tests may meet."""


class Event(NamedTuple):
    """A record, read by the format of the log."""

    seq: int
    time_ns: int
    place: str
    type: str
    entity: str
    agent: str
    request: str
    id: str
    data: Any


class Hold:
    """One agent's time with one task, from the claim (its fence) to its end."""

    def __init__(self, task: str, fence: int, owner: str, expires: str) -> None:
        self.task, self.fence, self.owner, self.expires = task, fence, owner, expires
        self.end: int | None = None
        self.ended_by = ""

    def __repr__(self) -> str:
        return f"{self.owner} with {self.task} under fence {self.fence}"


def read_event(record: Any) -> Event | None:
    """The event in a record, or None for what is none."""
    headers = record.headers
    request = headers.get("Bus-Request", "").partition(" ")[0]
    try:
        data = json.loads(record.data)
    except ValueError:
        return None
    parts = [headers.get(name, "") for name in ("Bus-Type", "Bus-Entity", "Bus-Agent")]
    return Event(
        record.seq,
        record.time_ns,
        record.subject.rpartition(".")[0],
        parts[0],
        unquote(parts[1]),
        parts[2],
        request,
        headers.get("Nats-Msg-Id", ""),
        data,
    )


class Diaries:
    """The histories that clients write into a folder, read as they grow. The last line of a client that was killed may
    be torn; it counts for nothing."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self._folder = folder
        self._read: Counter[Path] = Counter()

    def read(self) -> list[dict[str, Any]]:
        """Everything that was written until now."""
        self.lines += self.news()
        return self.lines

    def news(self) -> list[dict[str, Any]]:
        """What was written since the last look; it is not kept here."""
        lines = []
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read[path])
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] += len(whole)
            for line in whole.splitlines():
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    @property
    def acknowledged(self) -> int:
        """How many requests were answered with their effect."""
        return sum("reply" in line for line in self.read())


def instant_ns(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


class Log:
    """The log, gone through once: `wrong` is what contradicts itself in it, `holds` who held what and when. It can be
    given in pieces: then `effects` says at the end what only the whole log can show."""

    def __init__(self, records: Sequence[Any] = ()) -> None:
        self.wrong: list[str] = []
        self.events: dict[int, Event] = {}
        self.holds: dict[int, Hold] = {}
        self.of_task: dict[str, list[Hold]] = defaultdict(list)
        self.of_request: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.length = 0
        self._held: dict[str, Hold] = {}
        self._state: dict[str, str] = {}
        self.go_on(records)

    def go_on(self, records: Sequence[Any]) -> list[Event]:
        """Go through the records that follow. -> their events"""
        events = []
        for record in records:
            self.length += 1
            if record.seq != self.length:
                self.wrong.append(f"record {self.length} of the log has seq {record.seq}")
            event = read_event(record)
            if event is not None:
                self.events[record.seq] = event
                self._take(event)
                events.append(event)
        return events

    def effects(self) -> list[str]:
        """A request has at most one effect: its events stand together (the end of a lease that it met may be between
        them), and none is there twice."""
        ids = Counter(event.id for event in self.events.values())
        wrong = [f"event id {id_} is there {count} times" for id_, count in ids.items() if count > 1]
        for (agent, request), events in self.of_request.items():
            kinds = {(event.type, event.entity) for event in events}
            if len(kinds) < len(events) or events[-1].seq - events[0].seq > len(events):
                wrong.append(f"request {request} of {agent} took effect more than once: {[e.seq for e in events]}")
        return wrong

    def _take(self, event: Event) -> None:
        if event.request:
            self.of_request[event.agent, event.request].append(event)
        if event.type.startswith("task."):
            problem = self._task(
                event, f"{event.place} {event.entity}", self._state.get(f"{event.place} {event.entity}")
            )
            if problem is not None:
                self.wrong.append(f"#{event.seq} {event.type} {event.entity} by {event.agent}: {problem}")

    def _task(self, event: Event, task: str, state: str | None) -> str | None:
        """What is wrong with this event of a task, as the task is now."""
        held = self._held.get(task)
        match event.type:
            case "task.opened":
                self._state[task] = "open"
                return "opened twice" if state is not None else None
            case "task.claimed":
                self._hold(task, event, event.agent)
                if held is not None:
                    return f"claimed while {held!r} held it"
                return None if state == "open" else f"claimed while {state}"
            case "task.handed_off":
                self._end(task, event, "open")
                self._hold(task, event, event.data["to"])
                return self._by_holder(held, event)
            case "task.renewed":
                if held is not None:
                    held.expires = event.data["expires"]
                return self._by_holder(held, event)
            case "task.expired":
                return self._expired(task, held, event)
            case "task.reopened":
                self._state[task] = "open"
                return None if state in ENDED else f"reopened while {state}"
            case kind if kind in ENDS:
                self._end(task, event, "open" if event.data.get("retry") else ENDS[kind])
                return self._by_holder(held, event)
        return None

    def _hold(self, task: str, event: Event, owner: str) -> None:
        hold = Hold(event.entity, event.seq, owner, event.data["expires"])
        self._held[task] = self.holds[event.seq] = hold
        self.of_task[event.entity].append(hold)
        self._state[task] = "claimed"

    def _end(self, task: str, event: Event, state: str) -> None:
        held = self._held.pop(task, None)
        if held is not None:
            held.end, held.ended_by = event.seq, event.type
        self._state[task] = state

    def _expired(self, task: str, held: Hold | None, event: Event) -> str | None:
        self._end(task, event, "open")
        if held is None:
            return "nobody held it"
        if (held.owner, held.fence) != (event.data["owner"], event.data["fence"]):
            return f"it was {held!r}"
        if event.time_ns < instant_ns(held.expires):
            return f"the lease ran until {held.expires}"
        return None if event.agent == "system" else "only the system says so"

    def _by_holder(self, held: Hold | None, event: Event) -> str | None:
        return None if held is not None and held.owner == event.agent else f"it was {held!r}"


def nobody_holds(records: Sequence[Any]) -> bool:
    """Whether every lease has ended: only then is it known what became of each."""
    return all(hold.end is not None for hold in Log(records).holds.values())


def check_acked(log: Log, history: History) -> list[str]:
    """Everything a client was promised is in the log, once, and says what the client asked for."""
    wrong = []
    for line in history:
        reply = line.get("reply")
        if reply is None or line["op"] not in WRITES:
            continue
        event = log.events.get(reply["seq"])
        who = f"{line['client']} was told #{reply['seq']} for {line['op']}"
        if event is None:
            wrong.append(f"{who}, which is lost")
            continue
        expected = (WRITES[line["op"]], line["client"], line["request"])
        if (event.type, event.agent, event.request) != expected:
            wrong.append(f"{who}: expected {expected}, found {event}")
        wrong += [f"{who}: {problem}" for problem in _content(event, line["body"], reply)]
        if [e.type for e in log.of_request[line["client"], line["request"]]].count(expected[0]) != 1:
            wrong.append(f"{who}: it is there more than once")
    return wrong


def _content(event: Event, body: Mapping[str, Any], reply: Mapping[str, Any]) -> list[str]:
    """How an event differs from what was asked for and answered."""
    wrong = []
    for name in ("text", "title", "result"):
        if name in body and event.data.get(name, "") != body[name]:
            wrong.append(f"{name} is {event.data.get(name)!r}, asked was {body[name]!r}")
    task = body.get("task") or reply.get("task")
    if task is not None and event.entity != task:
        wrong.append(f"it is about {event.entity}, not {task}")
    if event.type == "task.claimed" and reply["fence"] != event.seq:
        wrong.append(f"the fence {reply['fence']} is not the seq of the claim")
    if "fence" in reply and instant_ns(reply["expires"]) != instant_ns(event.data["expires"]):
        wrong.append(f"told until {reply['expires']}, stored {event.data['expires']}")
    return wrong


def check_fences(log: Log, history: History, across: bool = True) -> list[str]:
    """Nobody wrote under a fence that was not his, or not any more. `across`: also not to entities other than the task
    (which rests on there being one leader)."""
    wrong = []
    for line in history:
        fence, reply = line["body"].get("fence"), line.get("reply")
        if reply is None or fence is None:
            continue
        elsewhere = isinstance(fence, str)
        hold = log.holds.get(int(str(fence).rpartition(":")[2]))
        ended = hold is not None and hold.end is not None and hold.end < reply["seq"]
        if hold is None or hold.owner != line["client"] or reply["seq"] < hold.fence:
            wrong.append(f"{line['client']} wrote #{reply['seq']} under {fence}, which was {hold!r}")
        elif ended and (across or not elsewhere):
            wrong.append(f"{line['client']} wrote #{reply['seq']} under {fence}, which ended with #{hold.end}")
    return wrong


def check_refusals(log: Log, history: History) -> list[str]:
    """Every loser was told the truth: who held it, under which fence, and that was so after what the client knew."""
    wrong = []
    for line in history:
        error = line.get("error")
        if error is None or error["kind"] == "Unavailable":
            continue
        who = f"{line['client']} was refused {line['op']} of {line['body'].get('task')}: {error['code']}"
        details = error.get("details", {})
        if error["kind"] == "Defect" or error["code"] not in TRUTHS:
            wrong.append(f"{who}: {error}")
        elif error["code"] == "claimed":
            hold = log.holds.get(details.get("fence"))
            if hold is None or (hold.owner, hold.task) != (details.get("owner"), line["body"]["task"]):
                wrong.append(f"{who} by {details}, but it was {hold!r}")
            elif hold.end is not None and hold.end <= line["knew"]:
                wrong.append(f"{who} by {hold!r}, which ended with #{hold.end}; the client knew #{line['knew']}")
        elif error["code"] == "stale_fence":
            hold = log.holds.get(int(str(line["body"]["fence"]).rpartition(":")[2]))
            if hold is None or hold.end is None or hold.owner != line["client"]:
                wrong.append(f"{who}, but it was {hold!r} to the end")
    return wrong


def check_holders(history: History) -> list[str]:
    """No fence was given to two clients, by what they were told alone."""
    given: dict[int, set[str]] = defaultdict(set)
    for line in history:
        if line["op"] in ("task.claim", "task.next") and line.get("reply") is not None:
            given[line["reply"]["fence"]].add(line["client"])
    return [f"fence {fence} was given to {sorted(clients)}" for fence, clients in given.items() if len(clients) > 1]


def check(records: Sequence[Any], history: History, across: bool = True) -> list[str]:
    """Everything that can be said against this log and these histories."""
    log = Log(records)
    return [
        *log.wrong,
        *log.effects(),
        *check_holders(history),
        *check_acked(log, history),
        *check_fences(log, history, across),
        *check_refusals(log, history),
    ]
