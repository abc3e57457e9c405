"""The log on NATS JetStream: `Log` over a `Connection`.

Rules:
* Every append carries the expectation on each event's own bucket. One event is one message; several are one atomic
  batch (ADR-50), of which the first event of each bucket carries it.
* Appends that are sent together are a chain: each names the message it has to follow, so none is stored unless all
  before it are, and nobody else's event comes between.
* What is in doubt is never decided anew: the same events (ids, expectations) are sent again until the server says
  stored or refused, and a refusal after doubt is settled by looking for our own event in its bucket. An attempt that a
  frozen server still has before it is harmless then: its expectation is stale (or, when the log was full, as good as
  it was, and it may be stored after all).
* Nothing is created or configured here: that takes rights which the daemon does not have (`bus/provision.py`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime

import anyio
import msgspec
import structlog

from bus.clock import RandomIds, to_ns
from bus.errors import BusError, Defect, InvalidRequest, Unavailable
from bus.events import MSG_ID, Codec, Draft, Record
from bus.log import Chunk, Head, LogFull, WrongExpectedSeq
from bus.subjects import LOG_SUBJECTS, STREAM
from bus.tail import follow
from bus.transport import Connection, Message

BATCH_EVENTS = 1000
"""The server's limit for one atomic batch."""
ACK_S = 5.0
RETRY_S = 0.1

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
FOLLOWS = "Nats-Expected-Last-Msg-Id"
LEADER = "leader"
LEADER_STREAM = f"KV_{LEADER}"

PROJECTOR_PUBLISH: tuple[str, ...] = (
    f"$JS.API.STREAM.INFO.{STREAM}",
    f"$JS.API.DIRECT.GET.{STREAM}",
    f"$JS.API.CONSUMER.CREATE.{STREAM}.>",
    f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.>",
    f"$JS.API.CONSUMER.DELETE.{STREAM}.>",
)
"""What reading the log publishes to."""
DAEMON_PUBLISH: tuple[str, ...] = (
    *PROJECTOR_PUBLISH,
    LOG_SUBJECTS,
    f"$JS.API.DIRECT.GET.{LEADER_STREAM}",
    f"$KV.{LEADER}.>",
)
"""What reading and writing the log and holding the leader's lease publish to."""

WRONG_SEQ = 10071
_WRONG_ID = 10070
_DUPLICATE = 10201
_TOO_LARGE = 10054
_STORE_FAILED = 10077
_FULL = {10002, 10023, 10028, 10047, 10122}
_INCOMPLETE = 10176
_META = ("Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence")
_log = structlog.get_logger(__name__)


class ApiError(msgspec.Struct, frozen=True):
    """What JetStream says when it refuses: an HTTP-like `code` and the exact `err_code`."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True):
    """The answer to a publish: the (last) seq, or the error."""

    error: ApiError | None = None
    seq: int = 0
    duplicate: bool = False


class _Config(msgspec.Struct, frozen=True):
    max_bytes: int = -1


class _State(msgspec.Struct, frozen=True):
    bytes: int
    last_seq: int


class _Info(msgspec.Struct, frozen=True):
    error: ApiError | None = None
    config: _Config = _Config()
    state: _State = _State(0, 0)
    ts: str = ""


decode_ack = msgspec.json.Decoder(Ack).decode
_decode_info = msgspec.json.Decoder(_Info).decode


def parse_ns(text: str) -> int:
    """An RFC 3339 instant with up to nine decimals, as nanoseconds since 1970, exactly."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(f"not an instant: {text!r}")
    zone = "+00:00" if match[3] in "Zz" else match[3]
    return to_ns(datetime.fromisoformat(match[1] + zone)) + int((match[2] or "").ljust(9, "0"))


def direct_record(message: Message) -> Record | None:
    """The stored message in the answer to a direct get; None when there is none."""
    if message.status == 404:
        return None
    headers = message.headers
    if message.status or "Nats-Sequence" not in headers:
        raise Unavailable("the log did not answer", code="not_ready", found=f"{message.status} {message.reason}")
    seq, time_ns = int(headers["Nats-Sequence"]), parse_ns(headers["Nats-Time-Stamp"])
    subject = headers["Nats-Subject"]
    return Record(seq, time_ns, subject, {k: v for k, v in headers.items() if k not in _META}, message.data)


class JetStreamLog:
    """The tenant's log. `patience_s` is how long an append is tried again while it is certain that it was not stored
    (no connection, no log); in doubt there is no limit. `may_send` is asked before each of these tries: who lost the
    right to write gives up instead, because what was not stored by then must not be stored in another's time."""

    def __init__(
        self,
        connection: Connection,
        codec: Codec,
        patience_s: float = 5.0,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connection = connection
        self._codec = codec
        self._patience_s = patience_s
        self._may_send = may_send
        self._ids = RandomIds()
        self.unanswered = 0
        """How many attempts to append in a row the server has taken and not answered."""

    async def append(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[int]:
        return await self._append(drafts, expected, in_doubt=False) if drafts else []

    async def append_each(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> AsyncGenerator[int, None]:
        known = dict(expected)
        messages = self._encode(drafts, expected)
        for (_, _, headers), before in zip(messages[1:], drafts, strict=False):
            headers[FOLLOWS] = before.id
        done = 0
        try:
            async with aclosing(self._connection.request_many(messages, ACK_S)) as replies:
                async for reply in replies:
                    ack = _ack(reply)
                    if ack.error is not None or ack.duplicate:
                        await self._settle(ack, drafts[done : done + 1], known, in_doubt=False)
                    self.unanswered = 0
                    known[drafts[done].subject] = ack.seq
                    done += 1
                    yield ack.seq
                    if done == len(drafts):
                        return
        except Unavailable as error:
            if error.code == "refused":
                raise
            in_doubt = error.details.get("sent") is True
            _log.info("append the rest again", error=error.code, first=drafts[done].id, events=len(drafts) - done)
        # Whatever became of each, the same event is sent again; the one before it is known to be stored then.
        for draft in drafts[done:]:
            (seq,) = await self._append([draft], known, in_doubt)
            known[draft.subject] = seq
            in_doubt = True
            yield seq

    async def _append(self, drafts: Sequence[Draft], expected: Mapping[str, int], in_doubt: bool) -> list[int]:
        messages = self._encode(drafts, expected)
        give_up = anyio.current_time() + self._patience_s
        while True:
            try:
                if not self._may_send():
                    raise _gave_up(drafts[0])
                ack = await self._send(messages)
                self.unanswered = 0
                if ack.error is None and not ack.duplicate:
                    return list(range(ack.seq - len(drafts) + 1, ack.seq + 1))
                return await self._settle(ack, drafts, expected, in_doubt)
            except Unavailable as error:
                in_doubt = in_doubt or error.details.get("sent") is True
                self.unanswered += error.code == "timeout"
                if error.code == "refused" or (not in_doubt and anyio.current_time() > give_up):
                    raise
                _log.info("append again", error=error.code, in_doubt=in_doubt, first=drafts[0].id)
                with anyio.move_on_at(float("inf") if in_doubt else give_up):
                    await self._connection.wait_connected()
                    await anyio.sleep(RETRY_S)

    def tail(self, after: int) -> AsyncGenerator[Chunk, None]:
        return follow(self._connection, after)

    async def read(self, after: int, upto: int) -> AsyncGenerator[Sequence[Record], None]:
        upto = min(upto, (await self.head()).seq)
        if after >= upto:
            return
        async with aclosing(follow(self._connection, after)) as chunks:
            async for chunk in chunks:
                records = chunk.records
                if records[-1].seq > upto:
                    records = [record for record in records if record.seq <= upto]
                if records:
                    yield records
                if chunk.records[-1].seq >= upto:
                    return

    async def get(self, seq: int) -> Record | None:
        return await self._direct({"seq": seq}) if seq > 0 else None

    async def head(self) -> Head:
        message = await self._connection.request(f"$JS.API.STREAM.INFO.{STREAM}", b"")
        info = _decode_info(message.data)
        if info.error is not None:
            raise _refused(info.error)
        return Head(info.state.last_seq, info.state.bytes, info.config.max_bytes, parse_ns(info.ts))

    def _encode(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[tuple[str, bytes, dict[str, str]]]:
        if len(drafts) > BATCH_EVENTS:
            raise InvalidRequest(
                "too many events for one append",
                code="too_many",
                expected=f"at most {BATCH_EVENTS}",
                found=str(len(drafts)),
            )
        messages = []
        seen = set()
        for draft in drafts:
            headers, body = self._codec.encode(draft)
            subject = draft.subject
            if subject not in seen:
                seen.add(subject)
                headers[EXPECTED] = str(expected[subject])
            messages.append((subject, body, headers))
        return messages

    async def _send(self, messages: Sequence[tuple[str, bytes, dict[str, str]]]) -> Ack:
        """One attempt. Raises Unavailable when there is no answer, and also for an answer which means that nothing
        was stored but that the same may succeed soon (then `sent` is false)."""
        subject, body, headers = messages[-1]
        if len(messages) > 1:
            batch = self._ids.event_id()
            for number, (subject_, body_, headers_) in enumerate(messages[:-1], 1):
                await self._connection.publish(
                    subject_, body_, {**headers_, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                )
            headers = {
                **headers,
                "Nats-Batch-Id": batch,
                "Nats-Batch-Sequence": str(len(messages)),
                "Nats-Batch-Commit": "1",
            }
        return _ack(await self._connection.request(subject, body, headers, timeout_s=ACK_S))

    async def _settle(
        self, ack: Ack, drafts: Sequence[Draft], expected: Mapping[str, int], in_doubt: bool
    ) -> list[int]:
        """The seqs of events that an earlier attempt has stored after all; raises what the refusal means otherwise."""
        error = ack.error or ApiError(err_code=_DUPLICATE, description="duplicate")
        found = None
        if error.err_code == WRONG_SEQ and (digits := re.search(r"(\d+)\s*$", error.description)):
            found = int(digits[1])
        if in_doubt and (seq := await self._find(drafts[0], expected[drafts[0].subject], found)) is not None:
            return list(range(seq, seq + len(drafts)))
        if error.err_code == _WRONG_ID:
            raise WrongExpectedSeq(drafts[0].subject, expected[drafts[0].subject], None)
        if error.err_code == WRONG_SEQ:
            subject = await self._moved(expected, [draft.subject for draft in drafts], found)
            raise WrongExpectedSeq(subject, expected[subject], found)
        if error.err_code == _DUPLICATE:
            raise Defect("an event id was used twice", code="duplicate_id", entity=drafts[0].id)
        raise _refused(error)

    async def _find(self, draft: Draft, after: int, found: int | None) -> int | None:
        """The seq under which an earlier attempt stored `draft`, looking at its bucket from `after` on.

        A replica that lags may answer that there is nothing more. It is believed only if `found` (the last seq of the
        bucket that made the leader refuse) is not of this bucket: the leader compares buckets in the batch's order, so
        the first one was still as expected then, and nothing was stored.
        """
        tries = 20
        while True:
            record = await self._direct({"seq": after + 1, "next_by_subj": draft.subject})
            if record is not None:
                if record.headers.get(MSG_ID) == draft.id:
                    return record.seq
                if found is not None and record.seq >= found:
                    return None
                after = record.seq
                continue
            if found is not None and found <= after:
                return None
            witness = await self.get(found) if found is not None else None
            if witness is not None and witness.subject != draft.subject:
                return None
            tries -= 1
            if tries == 0:
                return None
            await anyio.sleep(RETRY_S)

    async def _moved(self, expected: Mapping[str, int], subjects: Sequence[str], found: int | None) -> str:
        """The bucket that was not as expected. The error names only its last seq (0: it is empty)."""
        if len(set(subjects)) == 1:
            return subjects[0]
        if found:
            record = await self.get(found)
            return record.subject if record is not None and record.subject in subjects else subjects[0]
        for subject in dict.fromkeys(subjects):
            if expected[subject] and await self._direct({"seq": 1, "next_by_subj": subject}) is None:
                return subject
        return subjects[0]

    async def _direct(self, request: dict[str, int | str]) -> Record | None:
        body = msgspec.json.encode(request)
        return direct_record(await self._connection.request(f"$JS.API.DIRECT.GET.{STREAM}", body))


def _ack(message: Message) -> Ack:
    """Raises Unavailable for an answer which means that nothing was stored but that the same may succeed soon."""
    ack = decode_ack(message.data)
    error = ack.error
    if error is not None and (error.err_code == _INCOMPLETE or (error.code == 503 and not _is_full(error))):
        raise Unavailable("the log is not ready", code="not_ready", found=error.description, sent=False)
    return ack


def _gave_up(draft: Draft) -> Unavailable:
    return Unavailable(
        "this daemon lost the lease before the log had answered",
        code="refused",
        entity=f"event {draft.id}",
        expected="the leader of the tenant",
        found="a daemon that stands by",
        hint="Ask again under the same request id; if it was stored, its outcome is known",
        retry_after_s=0.1,
        sent=False,
    )


def _is_full(error: ApiError) -> bool:
    return error.err_code in _FULL or (
        error.err_code == _STORE_FAILED and ("maximum" in error.description or "space" in error.description)
    )


def _refused(error: ApiError) -> BusError:
    found = f"{error.err_code} {error.description}"
    if _is_full(error):
        return LogFull("the log is full", found=found, hint="Raise the tenant's quota")
    if error.err_code == _TOO_LARGE:
        return InvalidRequest("an event is too large for the log", code="too_large", found=found)
    return Unavailable("the log refused", code="refused", found=found, sent=False)
