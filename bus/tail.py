"""Following the log: every record in order, without gap or repeat, across restarts of the server.

Rules:
* It pulls through an ephemeral consumer without acknowledgements, asking for more while half of what it asked for is
  still to come, so what waits here is bounded.
* The consumer is thrown away at the first doubt (its numbering has a gap, its heartbeat is missing, the connection
  broke, the server says anything unexpected) and built anew behind the last record that was handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
import msgspec
import structlog

from bus.clock import RandomIds
from bus.errors import Defect, Unavailable
from bus.events import Record
from bus.log import Chunk
from bus.subjects import STREAM
from bus.transport import Connection, Message, Subscription

PULL_EVENTS = 1000
PULL_BYTES = 16 << 20
HEARTBEAT_S = 1
SILENCE_S = 3.0
REBUILD_S = 0.1
"""The pause before the next try after one that handed nothing on."""
_CREATE_S = 2.0
_IDLE_S = 60
_HEARTBEAT, _EXPIRED, _CONFLICT = 100, 408, 409
_PULL_OVER = ("Batch Completed", "Message Size Exceeds MaxBytes")
_SECOND_NS = 1_000_000_000
_PULL = msgspec.json.encode(
    {
        "batch": PULL_EVENTS,
        "max_bytes": PULL_BYTES,
        "expires": 30 * _SECOND_NS,
        "idle_heartbeat": HEARTBEAT_S * _SECOND_NS,
    }
)
_log = structlog.get_logger(__name__)


class _Broken(Exception):
    """This consumer cannot be trusted any more; the message says why."""


async def follow(connection: Connection, after: int) -> AsyncGenerator[Chunk, None]:
    """Every record with seq > `after`, for ever. Raises NotAllowed, Unavailable once the connection is closed, and
    Defect when the log is shorter than `after`."""
    while True:
        consumer = _Consumer(connection, after)
        start = after
        try:
            await consumer.start()
            while True:
                chunk = await consumer.next()
                yield chunk
                after = chunk.records[-1].seq
        except (Unavailable, _Broken) as error:
            _log.debug("tail rebuilt", after=after, reason=str(error))
        finally:
            consumer.stop()
        await connection.wait_connected()
        if after == start:
            await anyio.sleep(REBUILD_S)


class _Consumer:
    """One consumer of the log from `after` on, and what it has sent so far."""

    def __init__(self, connection: Connection, after: int) -> None:
        self._connection = connection
        self._last = after
        self._number = 0
        self._asked = 0
        self._got: list[Message] = []
        self._wake = asyncio.Event()
        self._broken = ""
        self._name = RandomIds().short("tail")
        self._inbox = connection.new_inbox()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self._connection.subscribe(self._inbox, self._receive, on_lost=self._lost)
        request = {
            "stream_name": STREAM,
            "config": {
                "name": self._name,
                "ack_policy": "none",
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self._last + 1,
                "replay_policy": "instant",
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": _IDLE_S * _SECOND_NS,
            },
        }
        subject = f"$JS.API.CONSUMER.CREATE.{STREAM}.{self._name}"
        answer = await self._connection.request(subject, msgspec.json.encode(request), timeout_s=_CREATE_S)
        error = msgspec.json.decode(answer.data).get("error")
        if error is not None:
            raise _Broken(f"{error.get('err_code')} {error.get('description')}")
        await self._check_length()

    async def _check_length(self) -> None:
        """A log that was set back (restored from an older copy) would give other events under seqs that were already
        handed on, and the tail would step over them."""
        answer = await self._connection.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout_s=_CREATE_S)
        state = msgspec.json.decode(answer.data).get("state")
        if state is None:
            raise _Broken("the log does not say how long it is")
        if state["last_seq"] < self._last:
            raise Defect(
                "the log is shorter than what was read from it",
                code="log_set_back",
                entity=STREAM,
                expected=f"at least {self._last} events",
                found=f"{state['last_seq']}",
                hint="It was replaced by an older copy: rebuild the projections, and compare before writing",
            )

    def stop(self) -> None:
        """Leave nothing behind. Without a connection the server removes the consumer by itself after a minute."""
        if self._subscription is None:
            return
        self._subscription.unsubscribe()
        if self._connection.connected:
            self._connection.send(f"$JS.API.CONSUMER.DELETE.{STREAM}.{self._name}", b"")

    async def next(self) -> Chunk:
        """What has come, as soon as anything has."""
        while True:
            if self._asked <= PULL_EVENTS // 2:
                self._asked += PULL_EVENTS
                self._connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{self._name}", _PULL, reply=self._inbox)
            if not self._got:
                await self._wait()
            got, self._got = self._got[:PULL_EVENTS], self._got[PULL_EVENTS:]
            records, pending = self._records(got)
            if records:
                return Chunk(records, pending)
            if self._broken:
                raise _Broken(self._broken)

    async def _wait(self) -> None:
        if self._broken:
            raise _Broken(self._broken)
        self._wake.clear()
        with anyio.move_on_after(SILENCE_S) as scope:
            await self._wake.wait()
        if scope.cancelled_caught:
            raise _Broken("no heartbeat")

    def _receive(self, message: Message) -> None:
        self._got.append(message)
        self._wake.set()

    def _lost(self) -> None:
        self._broken = "the connection broke"
        self._wake.set()

    def _records(self, messages: list[Message]) -> tuple[list[Record], int]:
        """The records in `messages` up to the first doubt, and how many the log has after the last."""
        records: list[Record] = []
        add = records.append
        number, last, pending = self._number, self._last, "0"
        for message in messages:
            if message.status:
                if not self._status(message):
                    break
                continue
            # $JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<number>.<time>.<pending>, or with <domain>.<account hash>
            # before the stream and something random at the end.
            tokens = message.reply.split(".")
            at = 5 if len(tokens) == 9 else 7
            number += 1
            seq = int(tokens[at])
            if int(tokens[at + 1]) != number or seq <= last:
                self._broken = f"gap at seq {seq}"
                break
            last = seq
            pending = tokens[at + 3]
            add(Record(seq, int(tokens[at + 2]), message.subject, message.headers, message.data))
        self._asked -= number - self._number
        self._number, self._last = number, last
        return records, int(pending)

    def _status(self, message: Message) -> bool:
        """Whether a status message is one that is to be expected: a heartbeat, or a pull that is over."""
        if message.status == _HEARTBEAT:
            return True
        pending = message.headers.get("Nats-Pending-Messages", "")
        if message.status == _EXPIRED or (message.status == _CONFLICT and message.reason in _PULL_OVER):
            self._asked -= int(pending) if pending.isdecimal() else 0
            return True
        self._broken = f"{message.status} {message.reason}"
        return False
