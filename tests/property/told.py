"""What the events of a log say, gathered with dictionaries and loops.

Rules: it knows the log as any NATS client does (headers and JSON bodies) and nothing of states, tables or SQL. It takes
events in order; what it holds is what was true after the last one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from bus.clock import from_ns
from bus.events import Event, Unknown
from tests.property.duties import Duties
from tests.property.remembered import Remembered, may_read
from tests.property.stored import Stored
from tests.property.talked import Talked
from tests.property.vectors import Vectors


class Told:
    """Everything the events taken so far say."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events: list[Event] = []
        self.agents: dict[str, dict[str, Any]] = {}
        self.entries: dict[str, dict[str, dict[str, Any]]] = {"model": {}, "personality": {}}
        self.rooms: dict[tuple[str, str], dict[str, Any]] = {}
        self.pins: dict[tuple[str, str], set[int]] = {}
        self.messages: dict[int, dict[str, Any]] = {}
        self.tasks: dict[tuple[str, str], dict[str, Any]] = {}
        self.needs: dict[tuple[str, str], set[str]] = {}
        self.intents: dict[tuple[str, str], dict[str, Any]] = {}
        self.reservations: dict[tuple[str, str], dict[str, Any]] = {}
        self.acked: dict[str, int] = {}
        self.addressed: dict[str, dict[int, dict[str, Any]]] = {}
        self.duties = Duties(self._tell)
        self.remembered = Remembered()
        self.stored = Stored()
        self.vectors = Vectors()
        self.talked = Talked()
        for event in events:
            self._take(event)

    # --- one event ---------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event.fact, Unknown):
            return
        verb = event.type.partition(".")[2]
        take: Mapping[str, Callable[[Event, str, Any], None]] = {
            "agent": self._agent,
            "model": self._entry,
            "personality": self._entry,
            "channel": self._talk,
            "dm": self._talk,
            "inbox": self._inbox,
            "task": self._task,
            "needs": self._needs,
            "directive": self.duties.directive,
            "reminder": self.duties.reminder,
            "journal": self.duties.journal,
            "memory": self.remembered.memory,
            "kv": self.stored.kv,
            "stream": self.stored.stream,
            "session": self.talked.session,
            "vault": self.stored.vault,
            "collection": self.vectors.collection,
            "vector": self.vectors.vector,
            "intent": self._intent,
            "reservation": self._reservation,
        }
        if event.family in take:
            take[event.family](event, verb, json.loads(event.data))

    def _agent(self, event: Event, verb: str, body: Any) -> None:
        if verb == "registered":
            blank = {"harness": "", "device": "", "model": "", "personality": "", "parent": None, "models": []}
            blank |= {"roles": []}
            known = self.agents[event.entity] = blank | body | {"active": True, "presence": "offline"}
            known |= {"kid": event.seq, "there": event.seq, "authority": set(body.get("authority", ()))}
        known = self.agents[event.entity]
        known["seq"] = event.seq
        presence = known["presence"]
        if verb == "routed":
            known |= {"model": "", "personality": "", "models": [], "parent": None} | body
        elif verb == "updated":
            known |= body
        elif verb == "deactivated":
            known |= {"active": False, "presence": "offline"}
        elif verb == "reactivated":
            known["active"] = True
        elif verb == "authority_granted":
            known["authority"] |= {body["authority"]}
        elif verb == "authority_withdrawn":
            known["authority"] -= {body["authority"]}
        elif verb == "presence_changed":
            known["presence"] = body["presence"]
        if known["presence"] != presence:
            known["there"] = event.seq

    def _entry(self, event: Event, verb: str, body: Any) -> None:
        known = self.entries[event.family].setdefault(event.entity, {"kid": event.seq})
        known.pop("context_tokens", None)
        blank = {"provider": "", "description": "", "prompt": "", "source": "", "active": True}
        known |= blank | body | {"seq": event.seq}

    def _talk(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        pins = self.pins.setdefault(place, set())
        if verb == "opened":
            self.rooms[place] = {"kid": event.seq, "topic": "", "archived": False, "members": set()} | body
        elif verb == "posted":
            self.messages[event.seq] = body | {"event": event, "said": body["text"], "edited": None, "reactions": {}}
            self._tell_of_message(event, body)
            return
        elif verb == "edited":
            self.messages[body["message"]] |= {"said": body["text"], "edited": event.seq}
        elif verb == "reacted":
            who = self.messages[body["message"]]["reactions"].setdefault(body["emoji"], [])
            if body.get("removed"):
                who[:] = [name for name in who if name != event.agent]
            elif event.agent not in who:
                who.append(event.agent)
        elif verb == "pinned":
            pins.add(body["message"])
        elif verb == "unpinned":
            pins.discard(body["message"])
        elif verb == "joined":
            self.rooms[place]["members"].add(event.agent)
        elif verb == "left":
            self.rooms[place]["members"].discard(event.agent)
        elif verb == "archived":
            self.rooms[place]["archived"] = True
        if place in self.rooms and verb not in ("edited", "reacted"):
            self.rooms[place]["seq"] = event.seq

    def _tell_of_message(self, event: Event, body: Any) -> None:
        if event.family == "dm":
            self._tell(event, body["to"], "dm")
        else:
            for name in self.rooms[(event.namespace, event.entity)]["members"]:
                self._tell(event, name, "channel")
        for name in body.get("mentions", ()):
            self._tell(event, name, "mention")
        if "reply_to_agent" in body:
            self._tell(event, body["reply_to_agent"], "reply")

    def _tell(self, event: Event, name: str, reason: str, notice: str = "") -> None:
        if name != event.agent:
            told = self.addressed.setdefault(name, {}).setdefault(event.seq, {"reasons": set(), "notice": notice})
            told["reasons"].add(reason)

    def _inbox(self, event: Event, verb: str, body: Any) -> None:
        if verb == "acked":
            self.acked[event.agent] = body["upto"]

    def _intent(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        if verb == "declared":
            self.intents[place] = {"text": "", "agent": event.agent, "declared": event.seq}
        if verb in ("withdrawn", "expired"):
            del self.intents[place]
        else:
            blank = {"text": ""} if verb == "extended" else {}
            self.intents[place] |= blank | body | {"seq": event.seq, "declared": self.intents[place]["declared"]}

    def _reservation(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        if verb == "reserved":
            self.reservations[place] = {"reason": "", "agent": event.agent, "reserved": event.seq} | body
        known = self.reservations[place]
        known["seq"] = event.seq
        if verb == "renewed":
            known |= body
        elif verb in ("released", "expired"):
            known["paths"] = set(known["paths"]) - set(body["paths"])
            if not known["paths"]:
                del self.reservations[place]

    def _needs(self, event: Event, verb: str, body: Any) -> None:
        self.needs[(event.namespace, event.entity)] = set(body.get("needs", ()))

    def _task(self, event: Event, verb: str, body: Any) -> None:
        place = (event.namespace, event.entity)
        if verb == "opened":
            blank = {"body": "", "priority": 0, "class": "", "state": "open", "attempts": 0, "result": "", "reason": ""}
            blank |= {"notes": "", "opener": event.agent, "opened": event.seq, "refs": set(), "labels": []}
            blank |= {"skills": [], "failures": 0, "retries": 0, "retry_at": None, "due": None}
            blank |= {"from_message": None, "channel": ""}
            self.tasks[place] = blank | {"owner": None, "fence": None, "expires": None, "to": None} | body
        known = self.tasks[place]
        known["seq"] = event.seq
        free = {"owner": None, "fence": None, "expires": None, "to": None}
        if verb == "amended":
            known |= body
        elif verb in ("claimed", "handed_off"):
            known |= {"state": "claimed", "owner": body.get("to", event.agent), "fence": event.seq, "to": None}
            known |= {"expires": body["expires"], "attempts": known["attempts"] + 1}
        elif verb == "renewed":
            known["expires"] = body["expires"]
        elif verb in ("completed", "released", "cancelled", "expired", "failed"):
            again = body.get("retry") and "retry_at" not in body
            ended = {"completed": "done", "cancelled": "cancelled", "failed": "open" if again else "failed"}
            known |= free | {"state": ended.get(verb, "open"), "retry_at": body.get("retry_at")}
            known["failures"] += verb == "failed"
        elif verb == "reopened":
            known |= {"state": "open", "result": "", "failures": 0, "retry_at": None}
        elif verb == "retried":
            known |= {"state": "open", "retry_at": None}
        elif verb == "offered":
            known["to"] = body["to"]
        elif verb == "declined":
            known["to"] = None
        if verb == "completed":
            known["result"] = body.get("result", "")
        if verb in ("released", "cancelled", "failed", "reopened", "declined"):
            known["reason"] = body.get("reason", "")
        if verb in ("offered", "handed_off"):
            known["notes"] = body.get("notes", "")
        known["refs"] = known["refs"] | set(body.get("refs", ()))
        self._tell_of_task(event, verb, body)

    def _tell_of_task(self, event: Event, verb: str, body: Any) -> None:
        notes = body.get("notes", "")
        if verb == "offered":
            self._tell(event, body["to"], "notice", f"{event.agent} offers you task {event.entity}: {notes}")
        elif verb == "handed_off":
            self._tell(event, body["to"], "notice", f"{body['from']} handed you task {event.entity}: {notes}")
            self._tell(event, body["from"], "notice", f"{body['to']} took over task {event.entity}")
        elif verb == "expired":
            self._tell(event, body["owner"], "notice", f"your lease on task {event.entity} has ended")
        elif verb == "cancelled" and "owner" in body:
            notice = f"{event.agent} cancelled task {event.entity}, which you held: {body.get('reason', '')}"
            self._tell(event, body["owner"], "notice", notice)

    # --- what it says ------------------------------------------------------------------------------------------

    def time(self, seq: int) -> datetime | None:
        return from_ns(self.events[seq - 1].time_ns) if seq else None

    def readable(self, me: str, event: Event) -> bool:
        if event.family in ("memory", "session"):
            return may_read(me, event.entity)
        return event.family != "dm" or me in event.entity.split("+")

    def within(self, family: str, namespace: str, entity: str | None, me: str) -> Iterator[int]:
        """The messages of a conversation (None: of all of that kind) that `me` may read."""
        for seq, known in self.messages.items():
            event = known["event"]
            here = event.family == family and event.namespace == namespace and entity in (None, event.entity)
            if here and self.readable(me, event):
                yield seq

    def thread(self, root: int) -> set[int]:
        """A message and every reply under it."""
        found = {root}
        for seq, known in self.messages.items():
            if known.get("reply_to") in found:
                found.add(seq)
        return found
