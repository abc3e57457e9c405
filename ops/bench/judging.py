"""The judge of the soak: it goes through the log and the diaries while they grow, and keeps what contradicts itself.

Rules:
* Nothing is valid twice: claims, intents and reservations are followed event by event (`tests.acceptance.checker`,
  `tests.acceptance.holding`).
* Whatever an agent was told to be done is in the log, once, and in its own words; whoever was refused was told the
  truth.
* An inbox shows each agent what is addressed to it, in order, from where it last acknowledged: nothing is left out, and
  what was acknowledged never comes again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.checker import Diaries, Event, Log, check_acked, check_fences, check_refusals
from tests.acceptance.holding import Holdings, check_told

Line = Mapping[str, Any]
JUDGED = ("task.", "intent.", "reservation.")
"""Whose refusals are part of the work. Nothing else is refused."""


class Inboxes:
    """What is addressed to whom, and how far each has read."""

    def __init__(self, rooms: Mapping[str, str]) -> None:
        self.wrong: list[str] = []
        self._of_room: dict[str, list[str]] = defaultdict(list)
        for agent, name in rooms.items():
            self._of_room[name].append(agent)
        self._expected: dict[str, list[int]] = {agent: [] for agent in rooms}
        self._mark: Counter[str] = Counter()
        self._acking: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """Note to whom this event is addressed."""
        to: set[str] = set()
        match event.type:
            case "channel.posted":
                to = {*self._of_room[event.entity], *event.data.get("mentions", ())} - {event.agent}
            case "reminder.fired":
                to = {event.data["to"]}
            case "task.expired":
                to = {event.data["owner"]}
        for agent in to & self._expected.keys():
            self._expected[agent].append(event.seq)

    def told(self, line: Line) -> None:
        """Compare what an agent was shown with what was to be shown."""
        agent, reply = line["client"], line.get("reply")
        if line["op"] == "inbox.ack":
            if reply is not None:
                self._mark[agent] = line["body"]["upto"]
                self._acking.pop(agent, None)
            elif "error" not in line:
                self._acking[agent] = line["body"]["upto"]
        elif line["op"] == "inbox.peek" and reply is not None:
            seqs = [item["seq"] for item in reply["items"]]
            # The answer to an acknowledgement may have been lost with the agent, its effect may not.
            acking = self._acking.pop(agent, None)
            if acking is not None and self._after(agent, acking, seqs):
                self._mark[agent] = acking
            elif not self._after(agent, self._mark[agent], seqs):
                self.wrong.append(f"{agent} has read up to #{self._mark[agent]} and was shown {seqs}")

    def _after(self, agent: str, mark: int, seqs: Sequence[int]) -> bool:
        """Whether these are what comes next for the agent. An empty page says nothing: what is there by now may have
        been stored since."""
        expected = self._expected[agent]
        first = bisect_right(expected, mark)
        return expected[first : first + len(seqs)] == list(seqs)

    @property
    def unread(self) -> int:
        """How much waits for all of them together."""
        waiting = ((seqs, self._mark[agent]) for agent, seqs in self._expected.items())
        return sum(len(seqs) - bisect_right(seqs, mark) for seqs, mark in waiting)


class Judge:
    """Everything that is known of the soak so far. `rooms` says which agent has joined which channel."""

    def __init__(self, folder: Path, tree: Sequence[str], rooms: Mapping[str, str]) -> None:
        self.took_s: dict[str, list[float]] = defaultdict(list)
        self.unavailable = 0
        self._diaries = Diaries(folder)
        self._log = Log()
        self._holdings = Holdings(tree)
        self._inboxes = Inboxes(rooms)
        self._wrong: list[str] = []
        self._seen: list[Line] = []
        self._late: list[Line] = []

    @property
    def position(self) -> int:
        """The last event it knows."""
        return self._log.length

    @property
    def unread(self) -> int:
        return self._inboxes.unread

    @property
    def answers(self) -> int:
        return sum(map(len, self.took_s.values()))

    @property
    def wrong(self) -> list[str]:
        return [*self._log.wrong, *self._holdings.wrong, *self._inboxes.wrong, *self._wrong]

    def look(self) -> None:
        """Read what agents wrote down. To be judged, it needs the log up to a moment after this."""
        self._seen += self._diaries.news()

    def judge(self, records: Sequence[Any]) -> None:
        """Go on with these records, which reach up to a moment after the last look, and judge what was seen then."""
        events = self._log.go_on(records)
        self._holdings.take_all(events)
        for event in events:
            self._inboxes.take(event)
        lines, self._seen = self._seen, []
        for line in lines:
            self._inboxes.told(line)
            if "took_s" in line:
                self.took_s[line["op"]].append(line["took_s"])
            self._wrong += self._unexpected(line)
        works = [line for line in lines if line["op"].startswith("task.")]
        self._wrong += check_acked(self._log, lines)
        self._wrong += check_fences(self._log, works)
        # A claim that is overdue is refused before its end is in the log.
        late = [line for line in works if line.get("error", {}).get("code") == "stale_fence"]
        self._late += late
        self._wrong += check_refusals(self._log, [line for line in works if line not in late])
        self._wrong += check_told(self._log.events, self._holdings, lines)

    def finish(self) -> None:
        """What only the whole log can show."""
        self._wrong += self._log.effects()
        self._wrong += check_refusals(self._log, self._late)

    def _unexpected(self, line: Line) -> list[str]:
        error = line.get("error")
        if error is None:
            return []
        if error["kind"] == "Unavailable":
            self.unavailable += 1
            return []
        return [] if line["op"].startswith(JUDGED) else [f"{line['client']} was refused {line['op']}: {error}"]
