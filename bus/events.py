"""The envelope of an event, its codec, and what happens to events this version cannot read.

    Draft   -> headers + JSON body ->   Record (as stored, raw)   -> decode ->   Event

Rules:
* A Fact is a frozen struct whose name in the log (`task.claimed`) and schema version are explicit class attributes:
  renaming a class never renames a fact.
* The log is read leniently: unknown fields are ignored, missing ones take their default, an old version walks its
  upcast chain. What still cannot be read becomes `Unknown`, with the reason, and is skipped by folds; it is never
  dropped and never stops a reader.
* What could not be stored is found out before it is queued (`Codec.body`, `token`), never by the log: there it would
  fail everybody who is in the same batch.
* Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from bus.errors import InvalidRequest
from bus.subjects import log_subject, parse_log, token, untoken

BODY_BYTES = 1_000_000
"""The largest body of one event: the server's message limit (1 MB) less room for the headers."""

MSG_ID = "Nats-Msg-Id"
TYPE = "Bus-Type"
SCHEMA = "Bus-Schema"
ENTITY = "Bus-Entity"
AGENT = "Bus-Agent"
REQUEST = "Bus-Request"
CAUSES = "Bus-Causes"
CORRELATION = "Bus-Correlation"
AT = "Bus-At"
TRACE = "traceparent"

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every event body. `upcasts[v]` turns the JSON object of version v into that of version v + 1."""

    type: ClassVar[str]
    schema: ClassVar[int] = 1
    upcasts: ClassVar[Mapping[int, Upcast]] = {}


class Unknown(msgspec.Struct, frozen=True):
    """The body of an event that this version cannot read, and why."""

    reason: str


class RequestId(msgspec.Struct, frozen=True, gc=False):
    """Identity of the request that caused an event: the client's id and a digest of what it asked for."""

    id: str
    digest: str


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event that has been decided but not stored. `id` is random and never reused; `body` is the encoded fact, when
    it has been encoded already."""

    id: str
    namespace: str
    family: str
    bucket: int
    entity: str
    agent: str
    fact: Fact
    request: RequestId | None = None
    causes: tuple[int, ...] = ()
    correlation: str | None = None
    at: datetime | None = None
    trace: str | None = None
    body: bytes | None = None

    @property
    def subject(self) -> str:
        return log_subject(self.namespace, self.family, self.bucket)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of the log as it is stored: nothing has been interpreted yet. `time_ns` is the server's."""

    seq: int
    time_ns: int
    subject: str
    headers: dict[str, str]
    data: bytes


class Event(msgspec.Struct, frozen=True, gc=False):
    """One immutable record of the log. `fact` is the body, or Unknown when it could not be read."""

    seq: int
    time_ns: int
    subject: str
    namespace: str
    family: str
    bucket: int
    id: str
    type: str
    schema: int
    entity: str
    agent: str
    fact: Fact | Unknown
    data: bytes
    request: RequestId | None = None
    causes: tuple[int, ...] = ()
    correlation: str | None = None
    at: str | None = None


_encode = msgspec.json.Encoder().encode


class Codec:
    """Encodes drafts and decodes records for a fixed set of fact types (`codec = Codec(all_facts)`)."""

    def __init__(self, facts: Iterable[type[Fact]]) -> None:
        self._types: dict[str, type[Fact]] = {}
        for cls in facts:
            if self._types.setdefault(cls.type, cls) is not cls:
                raise ValueError(f"two facts are named {cls.type}")
            if set(cls.upcasts) != set(range(1, cls.schema)):
                raise ValueError(f"{cls.type} is at version {cls.schema} but its upcasts are {sorted(cls.upcasts)}")
        self._current = {
            (name.partition(".")[0], name, str(cls.schema)): msgspec.json.Decoder(cls).decode
            for name, cls in self._types.items()
        }

    @property
    def types(self) -> Mapping[str, type[Fact]]:
        return self._types

    def body(self, fact: Fact) -> bytes:
        """The body of an event. Raises InvalidRequest when it is larger than one event may be."""
        body = _encode(fact)
        if len(body) > BODY_BYTES:
            raise InvalidRequest(
                f"{fact.type} is too large for one event",
                code="too_large",
                expected=f"at most {BODY_BYTES} bytes",
                found=f"{len(body)} bytes",
                hint="Store large content as an attachment and refer to it",
            )
        return body

    def encode(self, draft: Draft) -> tuple[dict[str, str], bytes]:
        """-> (headers, body). Raises InvalidRequest for what no event can hold."""
        fact = draft.fact
        body = draft.body if draft.body is not None else self.body(fact)
        headers = {
            MSG_ID: draft.id,
            TYPE: fact.type,
            SCHEMA: str(fact.schema),
            ENTITY: token(draft.entity),
            AGENT: draft.agent,
        }
        if draft.request is not None:
            headers[REQUEST] = f"{draft.request.id} {draft.request.digest}"
        if draft.causes:
            headers[CAUSES] = ",".join(map(str, draft.causes))
        if draft.correlation is not None:
            headers[CORRELATION] = token(draft.correlation)
        if draft.at is not None:
            headers[AT] = draft.at.isoformat()
        if draft.trace is not None:
            headers[TRACE] = draft.trace
        return headers, body

    def decode(self, record: Record) -> Event:
        """The event in `record`. Never raises: what cannot be read comes back with an Unknown fact."""
        get, subject, data = record.headers.get, record.subject, record.data
        namespace, family, bucket = _place(subject)
        type_, schema = get(TYPE, ""), get(SCHEMA, "1")
        entity, agent = get(ENTITY), get(AGENT)
        is_whole = entity is not None and agent is not None
        request = get(REQUEST)
        causes = get(CAUSES)
        correlation = get(CORRELATION)
        # By place, in the order of the fields: naming sixteen of them would take longer than reading the body.
        return Event(
            record.seq,
            record.time_ns,
            subject,
            namespace,
            family,
            bucket,
            get(MSG_ID, ""),
            type_,
            _version(schema),
            untoken(entity) if entity else "",
            agent or "",
            self._fact(type_, schema, family, data) if is_whole else self._incomplete(type_, family),
            data,
            _request(request) if request else None,
            _seqs(causes) if causes else (),
            untoken(correlation) if correlation else None,
            get(AT),
        )

    def _fact(self, type_: str, schema: str, family: str, data: bytes) -> Fact | Unknown:
        decode = self._current.get((family, type_, schema))
        if decode is None and (problem := self._misplaced(type_, family)):
            return Unknown(problem)
        try:
            return decode(data) if decode is not None else _upcast(self._types[type_], schema, data)
        # An upcast meets whatever was written, and a decoder any depth of nesting: none of it may stop a reader.
        except Exception as error:
            return Unknown(f"{type_} version {schema[:20]} does not decode: {error}")

    def _incomplete(self, type_: str, family: str) -> Unknown:
        return Unknown(self._misplaced(type_, family) or f"headers {ENTITY} and {AGENT} are needed")

    def _misplaced(self, type_: str, family: str) -> str:
        """Why no version of this type is known here, if so."""
        if type_ not in self._types:
            return f"unknown type {type_[:100]!r}" if type_ else f"no {TYPE} header"
        return "" if type_.startswith(f"{family}.") else f"{type_} does not belong to family {family}"


def _upcast(cls: type[Fact], schema: str, data: bytes) -> Fact | Unknown:
    version = _version(schema)
    if not 1 <= version < cls.schema:
        return Unknown(f"{cls.type} version {schema[:20]} is not known here (newest: {cls.schema})")
    body = msgspec.json.decode(data)
    for step in range(version, cls.schema):
        body = cls.upcasts[step](body)
    return msgspec.convert(body, cls)


@lru_cache(maxsize=1024)
def _version(text: str) -> int:
    """The schema version in a header; 0 for what is none."""
    return int(text) if text.isdecimal() and len(text) < 9 else 0


@lru_cache(maxsize=1 << 16)
def _place(subject: str) -> tuple[str, str, int]:
    try:
        return parse_log(subject)
    except ValueError:
        return "", "", -1


def _request(text: str) -> RequestId:
    id_, _, digest = text.partition(" ")
    return RequestId(id_, digest)


def _seqs(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    return tuple(map(int, parts)) if all(p.isdecimal() and len(p) < 19 for p in parts) else ()
