"""An independent judge of intents and reservations: from the raw log and from what clients wrote down it says what went
wrong.

It knows nothing of the product's code. Whether two globs meet is not asked here: each is expanded against a list of
paths by a matcher of its own, and what counts is which path has which holders after which event. Sentences are
violations, as in `tests.acceptance.checker`, which also says what a line of a history is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tests.acceptance.checker import Event, History, instant_ns

WRITES = ("intent.declare", "intent.withdraw", "reservation.reserve", "reservation.renew", "reservation.release")
STANDS = {
    "intent.declare": ("intent.declared", "intent.extended"),
    "reservation.reserve": ("reservation.reserved", "reservation.renewed"),
    "reservation.renew": ("reservation.reserved", "reservation.renewed"),
}
"""Who asks for what it has already is told of an earlier event of its own."""
REFUSALS = {
    "intent.declare": {"declared"},
    "intent.withdraw": {"declared"},
    "reservation.reserve": {"reserved"},
    "reservation.renew": {"not_holder", "nothing_held", "lease_cap"},
    "reservation.release": {"not_holder", "nothing_held"},
}
"""The refusals that a client of these tests may meet."""


class Holding:
    """One agent's time with a key, or with paths, from the event that began it to the one that ended it."""

    def __init__(self, event: Event) -> None:
        self.entity, self.seq, self.owner = event.entity, event.seq, event.agent
        self.mode = event.data.get("mode", "exclusive")
        self.patterns = set(event.data.get("paths", ()))
        self.expires_ns = instant_ns(event.data["expires"])
        self.end: int | None = None
        self.ended_by = ""

    def __repr__(self) -> str:
        return f"{self.owner} with {self.entity} since #{self.seq}"


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression over whole paths, in small letters, with a slash behind every name."""
    names = pattern.lower().split("/")
    return re.compile("".join("(?:[^/]+/)*" if name == "**" else f"{_name(name)}/" for name in names))


def _name(glob: str) -> str:
    found, rest = "", glob
    while rest:
        first, rest = rest[0], rest[1:]
        if first == "[":
            inside, _, rest = rest.partition("]")
            found += f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(first, re.escape(first))
    return found


def covers(pattern: str, path: str) -> bool:
    """Whether a glob, as the log has it, stands for this path."""
    return _matcher(pattern).fullmatch(f"{path.lower()}/") is not None


class Holdings:
    """Intents and reservations, event by event: `wrong` is what contradicts itself in the log."""

    def __init__(self, tree: Sequence[str] = ()) -> None:
        self.wrong: list[str] = []
        self.all: dict[int, Holding] = {}
        self.most = 0
        """So many held one path at the same time, at most."""
        self._tree = tree
        self._paths: dict[str, list[int]] = {}
        self._now: dict[str, Holding] = {}
        self._on: dict[int, dict[str, Holding]] = defaultdict(dict)

    @property
    def held(self) -> list[Holding]:
        """What has not ended yet."""
        return list(self._now.values())

    def take(self, event: Event) -> None:
        family, _, verb = event.type.partition(".")
        if family not in ("intent", "reservation"):
            return
        name = f"{event.place} {event.entity}"
        problem = self._intent(name, verb, event) if family == "intent" else self._reservation(name, verb, event)
        if problem is not None:
            self.wrong.append(f"#{event.seq} {event.type} {event.entity} by {event.agent}: {problem}")

    def take_all(self, events: Sequence[Event]) -> Holdings:
        for event in events:
            self.take(event)
        return self

    def _intent(self, name: str, verb: str, event: Event) -> str | None:
        held = self._now.get(name)
        if verb == "declared":
            self._begin(name, event)
            return f"declared while {held!r}" if held is not None else None
        if held is None or event.data["declared"] != held.seq:
            return f"it was {held!r}"
        if verb == "extended":
            held.expires_ns = instant_ns(event.data["expires"])
        else:
            self._end(name, event)
        return self._rightful(held, verb, event)

    def _reservation(self, name: str, verb: str, event: Event) -> str | None:
        held = self._now.get(name)
        if verb == "reserved":
            self._begin(name, event)
            return self._occupy(name, self._now[name]) if held is None else f"reserved while {held!r}"
        if held is None:
            return "nobody held it"
        gone = set(event.data.get("paths", ()))
        if verb == "renewed":
            held.expires_ns = instant_ns(event.data["expires"])
        elif not gone <= held.patterns:
            return f"{sorted(gone - held.patterns)} was not held"
        else:
            self._give_back(name, held, gone)
            if not held.patterns:
                self._end(name, event)
        return self._rightful(held, verb, event)

    def _rightful(self, held: Holding, verb: str, event: Event) -> str | None:
        """What is wrong with this event of something that is held."""
        if verb != "expired":
            return None if event.agent == held.owner else f"it was {held!r}"
        if event.agent != "system":
            return "only the system says so"
        if event.data["agent"] != held.owner or held.end is None:
            return f"it was {held!r}, with {sorted(held.patterns)} left"
        return f"{held!r} had more time" if event.time_ns < held.expires_ns else None

    def _begin(self, name: str, event: Event) -> None:
        self._now[name] = self.all[event.seq] = Holding(event)

    def _end(self, name: str, event: Event) -> None:
        held = self._now.pop(name)
        held.end, held.ended_by = event.seq, event.type

    # --- paths ---------------------------------------------------------------------------------------------------

    def _occupy(self, name: str, held: Holding) -> str | None:
        """Put a holder on every path it stands for; say if one of them has another that it cannot be with."""
        problem = None
        for place in self._covered(held.patterns):
            others = [other for other in self._on[place].values() if other.owner != held.owner]
            bad = [other for other in others if "exclusive" in (other.mode, held.mode)]
            if bad:
                problem = f"{self._tree[place]} is held by {bad}"
            self._on[place][name] = held
            self.most = max(self.most, len(self._on[place]))
        return problem

    def _give_back(self, name: str, held: Holding, gone: set[str]) -> None:
        held.patterns -= gone
        for place in self._covered(gone) - self._covered(held.patterns):
            self._on[place].pop(name, None)

    def _covered(self, patterns: set[str]) -> set[int]:
        """The places in the tree of everything that these stand for."""
        for pattern in patterns - self._paths.keys():
            self._paths[pattern] = [place for place, path in enumerate(self._tree) if covers(pattern, path)]
        return {place for pattern in patterns for place in self._paths[pattern]}


# --- what clients were told -----------------------------------------------------------------------------------------


def check_told(events: Mapping[int, Event], holdings: Holdings, history: History) -> list[str]:
    """Everybody who was promised something has it, and everybody who was refused was told who has it, truly."""
    wrong = []
    for line in history:
        if line["op"] not in WRITES:
            continue
        who = f"{line['client']} asked {line['op']} {line['body']} and was told"
        if (reply := line.get("reply")) is not None:
            problem = _promised(events.get(reply["seq"]), line, reply)
        elif (error := line.get("error")) is not None and error["kind"] != "Unavailable":
            problem = _refused(holdings, line, error)
        else:
            continue
        if problem is not None:
            wrong.append(f"{who} {reply or error}: {problem}")
    return wrong


def _promised(event: Event | None, line: Mapping[str, Any], reply: Mapping[str, Any]) -> str | None:
    if event is None:
        return "that event is lost"
    if reply.get("state", "withdrawn") != "withdrawn":
        return None  # It had ended before, by an event of somebody else's.
    if line["op"] == "intent.withdraw" and event.request != line["request"]:
        return None if event.type == "intent.withdrawn" else f"that is {event}"
    if event.agent != line["client"]:
        return f"that is {event}"
    if event.request != line["request"] and event.type not in STANDS.get(line["op"], ()):
        return f"that is {event}"
    if "expires" in reply and instant_ns(reply["expires"]) != instant_ns(event.data["expires"]):
        return f"stored until {event.data['expires']}"
    if line["op"] == "reservation.reserve" and set(reply["paths"]) != set(event.data.get("paths", reply["paths"])):
        return f"stored {event.data['paths']}"
    released = {
        path for one in reply.get("released", ()) if one["reservation"] in event.entity for path in one["paths"]
    }
    if line["op"] == "reservation.release" and released != set(event.data["paths"]):
        return f"stored {event.data['paths']}"
    return None


def _refused(holdings: Holdings, line: Mapping[str, Any], error: Mapping[str, Any]) -> str | None:
    if error["code"] not in REFUSALS[line["op"]]:
        return "that is no answer"
    details = error.get("details", {})
    if error["code"] == "declared":
        held = holdings.all.get(details["declared"])
        if held is None or _digits(held.entity) != _digits(line["body"]["key"]):
            return f"it was {held!r}"
        return _truth(held, line, details["agent"])
    for conflict in details.get("conflicts", ()):
        held = holdings.all.get(conflict["seq"])
        if (
            held is None
            or held.mode != conflict["mode"]
            or "exclusive" not in (held.mode, line["body"].get("mode", "exclusive"))
        ):
            return f"it was {held!r}"
        if is_plain(conflict["path"]) and not covers(conflict["held"], conflict["path"]):
            return f"{conflict['held']} does not stand for {conflict['path']}"
        if (problem := _truth(held, line, conflict["agent"])) is not None:
            return problem
    return None


def _truth(held: Holding, line: Mapping[str, Any], agent: str) -> str | None:
    """What is wrong with naming this one as who holds it."""
    if held.owner != agent or agent == line["client"]:
        return f"it was {held!r}"
    return f"it ended with #{held.end}" if held.end is not None and held.end <= line["knew"] else None


def is_plain(pattern: str) -> bool:
    return not set("*?[") & set(pattern)


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+", text)
