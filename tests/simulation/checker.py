"""The checker of a simulation: reads the raw log and judges it by rules of its own, without the code under test.

Rules it knows: who may hold a task when, what a fence is, one effect per request, what a reply promised, and that
nothing revealed was missing from the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bus.events import Record

ENDED = ("done", "failed", "cancelled")
BY_HOLDER = ("renewed", "released", "completed", "failed", "offered")


class Line(NamedTuple):
    """One record, read with nothing but json."""

    seq: int
    time: datetime
    place: tuple[str, str]
    entity: str
    type: str
    agent: str
    request: str | None
    body: dict[str, Any]


def read(record: Record) -> Line:
    _, namespace, family, _ = record.subject.split(".")
    headers = record.headers
    return Line(
        record.seq,
        datetime.fromtimestamp(record.time_ns / 1e9, UTC),
        (namespace, family),
        headers["Bus-Entity"],
        headers["Bus-Type"],
        headers["Bus-Agent"],
        headers["Bus-Request"].split()[0] if "Bus-Request" in headers else None,
        json.loads(record.data),
    )


class Held(NamedTuple):
    """A task as the checker sees it."""

    state: str
    owner: str | None = None
    fence: int | None = None
    expires: datetime | None = None
    until: datetime | None = None
    offered_to: str | None = None


class Checker:
    """Takes the log line by line. With `one_leader`, rules that span buckets are checked as well."""

    def __init__(self, one_leader: bool) -> None:
        self._one_leader = one_leader
        self.lines: list[Line] = []
        self.holders: dict[int, tuple[str, str]] = {}
        """Fence -> (task, holder)."""
        self.history: dict[tuple[str, str], list[tuple[int, Held]]] = {}
        """(seq, how it was from then on) of every task, by namespace and id."""
        self._tasks: dict[tuple[str, str], Held] = {}
        self._needs: dict[tuple[str, str], tuple[str, ...]] = {}
        self._active: dict[str, bool] = {}
        self._owners: set[str] = set()
        self._append_of: dict[int, int] = {}
        self._request_append: dict[tuple[str, str], int] = {}
        self._acked: dict[str, int] = {}
        self._shown: dict[str, int] = {}

    def take(self, records: Sequence[Record], append: int, twice: bool) -> None:
        """The records of one append. `twice`: this request may have two effects, if two leaders decided it."""
        for record in records:
            line = read(record)
            assert line.seq == len(self.lines) + 1, "the log has a gap"
            self.lines.append(line)
            self._append_of[line.seq] = append
            if line.request is not None:
                known = self._request_append.setdefault((line.agent, line.request), append)
                assert known == append or twice, f"request {line.request} of {line.agent} has two effects"
            self._judge(line)

    def _judge(self, line: Line) -> None:
        family, _, what = line.type.partition(".")
        assert family == line.place[1]
        if self._one_leader and line.agent != "system":
            assert self._active.get(line.agent), f"{line} was written by an agent that may not"
        if family == "task":
            key = (line.place[0], line.entity)
            before = self._tasks.get(key)
            self._tasks[key] = self._task(line, what, before)
            self.history.setdefault(key, []).append((line.seq, self._tasks[key]))
        elif family == "needs":
            self._needs[(line.place[0], line.entity)] = tuple(line.body.get("needs", ()))
            assert not self._circle(line.place[0], line.entity), f"{line} closes a circle"
        elif family == "agent":
            self._agent(line, what)
        elif family == "inbox":
            self._inbox(line, what)

    def _task(self, line: Line, what: str, task: Held | None) -> Held:
        if what == "opened":
            assert task is None, f"{line} opens a task that exists"
            return Held("open")
        assert task is not None, f"{line} is about no task"
        if what == "amended":
            return task
        if what == "claimed":
            assert task.state == "open", f"{line} claims what is {task}"
            self._unblocked(line)
            return self._hold(line, line.agent)
        if what == "reopened":
            assert task.state in ENDED, f"{line} reopens what is {task}"
            return Held("open")
        if what == "cancelled":
            assert task.state not in ENDED, f"{line} cancels what is {task}"
            return Held("cancelled")
        assert task.state == "claimed", f"{line} happens to what is {task}"
        return self._claimed(line, what, task)

    def _claimed(self, line: Line, what: str, task: Held) -> Held:
        if what in BY_HOLDER:
            assert line.agent == task.owner, f"{line} by somebody else than the holder of {task}"
        body = line.body
        match what:
            case "expired":
                assert (body["owner"], body["fence"], line.agent) == (task.owner, task.fence, "system"), (line, task)
                assert task.expires is not None
                assert line.time >= task.expires, f"{line} ends {task} too early"
                return Held("open")
            case "renewed":
                expires = datetime.fromisoformat(body["expires"])
                assert body["fence"] == task.fence, f"{line} renews another claim than {task}"
                assert task.expires is not None
                assert task.until is not None
                assert task.expires < expires <= task.until, f"{line} renews {task} wrongly"
                return task._replace(expires=expires)
            case "released":
                return Held("open")
            case "completed":
                return Held("done")
            case "failed":
                return Held("open" if body.get("retry") else "failed")
            case "offered":
                return task._replace(offered_to=body["to"])
            case "declined":
                assert line.agent == task.offered_to, f"{line} declines {task}"
                return task._replace(offered_to=None)
            case "handed_off":
                assert body["from"] == task.owner, f"{line} takes {task} from somebody else"
                assert line.agent in (task.owner, task.offered_to), f"{line} was agreed with nobody"
                assert body["to"] == (task.offered_to if line.agent != task.owner else body["to"])
                return self._hold(line, body["to"])
        raise AssertionError(f"unknown {line}")

    def _hold(self, line: Line, owner: str) -> Held:
        assert line.seq not in self.holders
        self.holders[line.seq] = (line.entity, owner)
        expires, until = (datetime.fromisoformat(line.body[name]) for name in ("expires", "until"))
        return Held("claimed", owner, line.seq, expires, until)

    def _unblocked(self, line: Line) -> None:
        if self._one_leader:
            for need in self._needs.get((line.place[0], line.entity), ()):
                known = self._tasks.get((line.place[0], need))
                assert known is not None, f"{line} although {need} does not exist"
                assert known.state == "done", f"{line} although {need} is {known.state}"

    def _circle(self, namespace: str, start: str) -> bool:
        seen: list[str] = []
        front = list(self._needs.get((namespace, start), ()))
        while front:
            key = front.pop()
            if key not in seen:
                seen.append(key)
                front += self._needs.get((namespace, key), ())
        return start in seen

    def _agent(self, line: Line, what: str) -> None:
        name = line.entity
        if what == "registered":
            assert name not in self._active, f"{line} registers twice"
            self._active[name] = True
        elif what in ("deactivated", "reactivated"):
            self._active[name] = what == "reactivated"
        authority = line.body.get("authority", ())
        if what in ("registered", "authority_granted") and "owner" in authority:
            self._owners.add(name)
        elif what == "authority_withdrawn" and authority == "owner":
            self._owners.discard(name)
        if self._one_leader and what != "registered":
            assert any(self._active[owner] for owner in sorted(self._owners)), f"{line} leaves no owner"

    def _inbox(self, line: Line, what: str) -> None:
        upto = line.body.get("upto", 0)
        if what == "shown":
            self._shown[line.entity] = max(upto, self._shown.get(line.entity, 0))
            return
        assert upto <= self._shown.get(line.entity, 0), f"{line} goes beyond what was shown"
        assert upto > self._acked.get(line.entity, 0), f"{line} goes back"
        self._acked[line.entity] = upto
