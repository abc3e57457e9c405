"""Requests: one command on its way, and the memory of those that have been stored.

Rules:
* A request is named by its agent and an id the client chose. The same id with another body is another request, and
  refused.
* The memory holds the newest `REQUESTS_KEPT`; it is rebuilt from the headers of events.
* What a request creates is named after its id, so that two leaders that decide it at once meet in one bucket, where
  only one of them wins. Requests that choose what they write to by the state they find (`task.next`, and `task.amend`
  of several things) rest on there being one leader: a new one begins when nothing that the old one sent can be stored
  any more, because its connection is gone (`bus.lease`), and who lost the lease sends nothing again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256

import msgspec

from bus.clock import Ids
from bus.errors import BusError, Refused
from bus.events import Event, RequestId
from bus.model import Command, Operation, Reply

REQUESTS_KEPT = 100_000
"""So many of the newest requests are remembered; a retry that comes later is a new request."""

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LETTERS = "abcdefghjkmnpqrstuvwxyz023456789"
_encode = msgspec.json.Encoder().encode


def request_digest(operation: str, request: Command) -> str:
    """Digest of what a request asks for: sha256 of its name and canonical body, 16 hex digits. `after` is no part."""
    body = _encode(msgspec.structs.replace(request, after=0)) if request.after else _encode(request)
    return sha256(operation.encode() + b"\0" + body).hexdigest()[:16]


class Call:
    """One command on its way. `answer` is called once, with the Reply or the error. A `trace` that is no W3C trace
    parent is dropped. `name` is what the request is remembered by."""

    __slots__ = ("agent", "answers", "attempts", "events", "name", "operation", "request", "request_id", "trace")

    def __init__(
        self,
        operation: Operation,
        request: Command,
        agent: str,
        answer: Callable[[Reply | BusError], None],
        request_id: str | None = None,
        trace: str | None = None,
    ) -> None:
        self.operation = operation
        self.request = request
        self.agent = agent
        self.answers = [answer]
        self.request_id = RequestId(request_id, request_digest(operation.name, request)) if request_id else None
        self.trace = trace if trace is not None and _TRACE.fullmatch(trace) else None
        self.name = (agent, request_id) if request_id else None
        self.events: Mapping[int, Event] = {}
        self.attempts = 0


class RequestIds:
    """Names of what one request creates: the same however often, and by whomever, it is decided."""

    def __init__(self, ids: Ids, agent: str, request: RequestId) -> None:
        self._ids = ids
        self._seed = f"{agent}\0{request.id}\0"
        self._count = 0

    def event_id(self) -> str:
        return self._ids.event_id()

    def short(self, prefix: str) -> str:
        self._count += 1
        digest = sha256(f"{self._seed}{prefix}\0{self._count}".encode()).digest()
        return f"{prefix}-" + "".join(_LETTERS[byte & 31] for byte in digest[:10])


class Known(msgspec.Struct):
    """What a request id stands for: its digest, and the seqs of its events."""

    digest: str
    seqs: list[int]


class Memory:
    """The newest requests that led to events."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()

    def __contains__(self, name: tuple[str, str]) -> bool:
        return name in self._known

    def get(self, name: tuple[str, str]) -> Known | None:
        return self._known.get(name)

    def add(self, agent: str, request: RequestId, seq: int) -> None:
        """Note that event `seq` came from this request."""
        name = (agent, request.id)
        known = self._known.get(name)
        if known is None:
            self._known[name] = Known(request.digest, [seq])
            if len(self._known) > REQUESTS_KEPT:
                self._known.popitem(last=False)
        elif seq not in known.seqs:
            known.seqs.append(seq)


def reused(agent: str, id_: str) -> Refused:
    """The refusal of a request id that stands for another request."""
    return Refused(
        "this request id was used for another request",
        code="request_reused",
        entity=f"request {id_} of {agent}",
        expected="the request it was first used for",
        found="another one",
        hint="Use a new id for a new request",
    )
