"""What the events say about directives, reminders and journals, and what the queries about them and the wake card have
to be answered. Part of `tests.property.told` and `tests.property.oracle`, with their rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from bus.clock import from_ns
from bus.domain import directive, inbox, journal, reminder, task_requests
from bus.errors import NotFound
from bus.events import Event, Unknown
from projections.views.card import card_text

Place = tuple[str, str]
FAR = datetime.fromisoformat("9999-01-01T00:00:00+00:00")
Tell = Callable[[Event, str, str, str], None]


class Duties:
    """What the events taken so far say. `tell(event, name, reason, notice)` puts something into an inbox."""

    def __init__(self, tell: Tell) -> None:
        self.directives: dict[Place, dict[str, Any]] = {}
        self.reminders: dict[Place, dict[str, Any]] = {}
        self.entries: list[tuple[Event, dict[str, Any]]] = []
        self._tell = tell

    def directive(self, event: Event, verb: str, body: Any) -> None:
        place, who, key = (event.namespace, event.entity), event.agent, event.entity
        if verb == "given":
            blank = {"role": None, "priority": 0, "due": None, "state": "given", "agent": None, "overdue": False}
            blank |= {"result": "", "reason": "", "refs": [], "given": event.seq, "giver": who}
            self.directives[place] = blank | body
            terms = [f"for any {body['role']}"] if "role" in body else []
            terms += [f"priority {body['priority']}"] if "priority" in body else []
            terms += [f"due {_stamp(body['due'])}"] if "due" in body else []
            for name in body["to"]:
                told = f"directive {key}{' (' + ', '.join(terms) + ')' if terms else ''}: {body['text']}"
                self._tell(event, name, "directive", told)
        known = self.directives[place]
        known["seq"] = event.seq
        if verb == "acknowledged":
            known |= {"state": "acknowledged", "agent": who}
            self._tell(event, known["giver"], "notice", f"{who} has taken on directive {key}")
        elif verb == "completed":
            known |= {"state": "done", "agent": who, "overdue": False, "result": "", "refs": []} | body
            self._tell(event, known["giver"], "notice", f"{who} has completed directive {key}: {known['result']}")
        elif verb == "declined":
            left = [name for name in known["to"] if name != who]
            known |= {"to": left, "agent": None, "state": "given" if left else "declined", "reason": ""} | body
            known["overdue"] = bool(left) and known["overdue"]
            self._tell(event, known["giver"], "notice", f"{who} declines directive {key}: {known['reason']}")
        elif verb == "cancelled":
            known |= {"state": "cancelled", "overdue": False, "reason": body.get("reason", "")}
            for name in body["to"]:
                self._tell(event, name, "notice", f"{who} cancelled directive {key}: {known['reason']}")
        elif verb == "fell_due":
            known["overdue"] = True
            for name in [known["giver"], *body["to"]]:
                told = f"directive {key} is overdue: it was to be done by {_stamp(known['due'])}"
                self._tell(event, name, "notice", told)

    def reminder(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        if verb == "set":
            blank = {"every": "", "timezone": "", "state": "waiting", "fired": None, "set": event.seq}
            self.reminders[place] = blank | body | {"setter": event.agent}
        known = self.reminders[place]
        known["seq"] = event.seq
        if verb == "fired":
            again = body.get("next")
            known |= {"at": again, "state": "waiting" if again else "done", "fired": event.seq}
            self._tell(event, known["to"], "reminder", known["text"])
        elif verb == "cancelled":
            known |= {"at": None, "state": "cancelled"}

    def journal(self, event: Event, verb: str, body: Any) -> None:
        self.entries.append((event, {"focus": "", "done": [], "decisions": [], "next_steps": []} | body))


def _stamp(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%dT%H:%M:%SZ}"


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _paged(found: Iterable[Any], request: Any, kid: Callable[[Any], int]) -> tuple[list[Any], int | None]:
    page = sorted((one for one in found if kid(one) > (request.since or 0)), key=kid)[: request.limit]
    return page, kid(page[-1]) if len(page) == request.limit else None


# --- directives, reminders, journals -------------------------------------------------------------------------------


def _directive_row(key: str, known: Mapping[str, Any]) -> directive.DirectiveRow:
    same = ("seq", "given", "giver", "role", "agent", "state", "overdue", "priority", "text", "result", "reason")
    lists = {"to": sorted(known["to"]), "refs": sorted(set(known["refs"]))}
    return directive.DirectiveRow(
        directive=key, due=_instant(known["due"]), **lists, **{name: known[name] for name in same}
    )


def _directives(told: Any, me: str, request: directive.List, head: Any, now: datetime) -> directive.Directives:
    rows = [
        row
        for (namespace, key), known in told.duties.directives.items()
        for row in [_directive_row(key, known)]
        if namespace == request.namespace
        and request.state in (None, row.state)
        and request.giver in (None, row.giver)
        and request.role in (None, row.role)
        and request.overdue in (None, row.overdue)
        and request.to in (None, row.agent, *row.to)
    ]
    page, more = _paged(rows, request, lambda row: row.given)
    return directive.Directives(directives=page, next=more, **head)


def _directive(told: Any, me: str, request: directive.Show, head: Any, now: datetime) -> Any:
    place = (request.namespace, request.directive)
    if place not in told.duties.directives:
        return NotFound
    history = [
        task_requests.Happening(seq=e.seq, time=from_ns(e.time_ns), type=e.type, agent=e.agent, data=json.loads(e.data))
        for e in told.events
        if (e.namespace, e.entity) == place and e.family == "directive" and not isinstance(e.fact, Unknown)
    ]
    row = _directive_row(request.directive, told.duties.directives[place])
    return directive.DirectiveDetail(directive=row, history=history, **head)


def _reminders(told: Any, me: str, request: reminder.List, head: Any, now: datetime) -> reminder.Reminders:
    same = ("seq", "set", "to", "setter", "state", "every", "timezone", "fired", "text")
    rows = [
        reminder.ReminderRow(reminder=key, at=_instant(known["at"]), **{name: known[name] for name in same})
        for (namespace, key), known in told.duties.reminders.items()
        if namespace == request.namespace
        and request.state in (None, known["state"])
        and request.to in (None, known["to"])
        and request.setter in (None, known["setter"])
    ]
    page, more = _paged(rows, request, lambda row: row.set)
    return reminder.Reminders(reminders=page, next=more, **head)


def _entry(event: Event, body: Mapping[str, Any]) -> journal.Entry:
    return journal.Entry(seq=event.seq, time=from_ns(event.time_ns), agent=event.agent, **body)


def _entries(told: Any, me: str, request: journal.Read, head: Any, now: datetime) -> journal.Entries:
    fitting = [
        _entry(event, body)
        for event, body in told.duties.entries
        if event.namespace == request.namespace
        and request.agent in (None, event.agent)
        and (request.since or 0) < event.seq < (request.before or 1 << 60)
    ]
    page = fitting[-request.limit :] if request.since is None else fitting[: request.limit]
    return journal.Entries(entries=page, next=page[-1].seq if page else request.since, **head)


# --- the wake card -------------------------------------------------------------------------------------------------


def wake(told: Any, me: str, here: str, head: Any, now: datetime, unread: inbox.Items) -> journal.WakeCard:
    """The card, given the oldest item of the inbox."""
    claims = _claims(told, me)
    instructions = _instructions(told, me)
    reminded = _reminded(told, me)
    pins = _pins(told, me)
    mine = [_entry(event, body) for event, body in told.duties.entries if event.agent == me]
    counts = {"claims": len(claims), "unread": len(unread.items) + unread.remaining, "directives": len(instructions)}
    card = journal.WakeCard(
        agent=me,
        namespace=here,
        counts=counts | {"reminders": len(reminded), "pins": len(pins)},
        claims=claims[:10],
        oldest=replace(unread.items[0], text=_brief(unread.items[0].text)) if unread.items else None,
        directives=instructions[:10],
        reminders=reminded[:10],
        journal=_brief_entry(mine[-1]) if mine else None,
        pins=pins[:10],
        text="",
        **head,
    )
    return replace(card, text=card_text(card, now))


def _brief(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"


def _brief_entry(entry: journal.Entry) -> journal.Entry:
    lists = {name: [_brief(line) for line in getattr(entry, name)][:5] for name in ("done", "decisions", "next_steps")}
    return replace(entry, focus=_brief(entry.focus), **lists)


def _claims(told: Any, me: str) -> list[journal.Claimed]:
    held = [(key, task) for key, task in told.tasks.items() if task["owner"] == me]
    held.sort(key=lambda one: (datetime.fromisoformat(one[1]["expires"]), one[1]["opened"]))
    return [
        journal.Claimed(
            namespace=namespace,
            task=key,
            title=_brief(task["title"]),
            fence=task["fence"],
            expires=datetime.fromisoformat(task["expires"]),
        )
        for (namespace, key), task in held
    ]


def _instructions(told: Any, me: str) -> list[journal.Instruction]:
    mine = [
        (key, known)
        for key, known in told.duties.directives.items()
        if (known["state"] == "given" and me in known["to"]) or (known["state"], known["agent"]) == ("acknowledged", me)
    ]
    mine.sort(
        key=lambda one: (not one[1]["overdue"], -one[1]["priority"], _instant(one[1]["due"]) or FAR, one[1]["given"])
    )
    return [
        journal.Instruction(
            namespace=namespace,
            directive=key,
            text=_brief(known["text"]),
            due=_instant(known["due"]),
            **{name: known[name] for name in ("giver", "state", "overdue", "priority")},
        )
        for (namespace, key), known in mine
    ]


def _reminded(told: Any, me: str) -> list[journal.Reminded]:
    acked = told.acked.get(me, 0)
    found = []
    for (namespace, key), known in told.duties.reminders.items():
        fired = known["fired"] if (known["fired"] or 0) > acked else None
        if known["to"] == me and (known["state"] == "waiting" or fired is not None):
            row = journal.Reminded(
                namespace=namespace,
                reminder=key,
                setter=known["setter"],
                at=_instant(known["at"]),
                fired=fired,
                text=_brief(known["text"]),
            )
            found.append((fired or 1 << 60, row.at or FAR, known["set"], row))
    return [row for *_, row in sorted(found, key=lambda one: one[:3])]


def _pins(told: Any, me: str) -> list[journal.Pin]:
    pinned = [
        (seq, namespace, channel)
        for (namespace, channel), room in told.rooms.items()
        if me in room["members"]
        for seq in told.pins[(namespace, channel)]
    ]
    return [
        journal.Pin(
            namespace=namespace,
            channel=channel,
            seq=seq,
            agent=told.messages[seq]["event"].agent,
            text=_brief(told.messages[seq]["said"]),
        )
        for seq, namespace, channel in sorted(pinned, reverse=True)
    ]


ANSWERS: Mapping[type, Callable[[Any, str, Any, Any, datetime], Any]] = {
    directive.List: _directives,
    directive.Show: _directive,
    reminder.List: _reminders,
    journal.Read: _entries,
}
