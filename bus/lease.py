"""The lease that makes one daemon of a tenant the leader, in a key of a KV bucket.

Rules:
* The key changes by compare-and-set only. The holder renews by writing. A candidate takes the lease at once when it is
  free or when the holder's connection is gone, and otherwise when it has seen no change for `timeout_s` of its own
  monotonic clock.
* The lease belongs to one connection and ends with it: the holder listens on a subject that only this connection has,
  so the server's word that nobody listens there means that nothing which the holder has sent can still be stored.
* The holder judges its lease from before it sent the last renewal that succeeded, and for a shorter time than every
  candidate waits, so two daemons never both think that they hold it unless a clock runs wrong. What one entity's bucket
  guards does not rest on it: every append carries an expectation.
"""

from __future__ import annotations

import msgspec
import structlog

from bus.clock import Clock, RandomIds
from bus.errors import Unavailable
from bus.jetstream import EXPECTED, LEADER, LEADER_STREAM, WRONG_SEQ, decode_ack, direct_record
from bus.subjects import life_subject
from bus.transport import Connection, Message, Subscription

TIMEOUT_S = 4.0
VALID_S = 3.0
_REQUEST_S = 1.0
_LIFE_S = 0.2
_KEY = f"$KV.{LEADER}.{LEADER}"
_log = structlog.get_logger(__name__)


class _Holder(msgspec.Struct, frozen=True):
    """The value of the key: who holds the lease, and on which connection."""

    member: str
    run: str


class LeaderLease:
    """One member's view of the lease. `step` is called every second by the holder, more often by candidates; nothing in
    here waits for time to pass.

    With `force`, the member counts itself as holder and never touches the key: a second leader, for tests.
    """

    def __init__(
        self,
        connection: Connection,
        member: str,
        clock: Clock,
        *,
        timeout_s: float = TIMEOUT_S,
        valid_s: float = VALID_S,
        force: bool = False,
    ) -> None:
        if valid_s >= timeout_s:
            raise ValueError("a lease must end for its holder before a candidate may take it")
        self._connection = connection
        self._clock = clock
        self._timeout_ns, self._valid_ns = int(timeout_s * 1e9), int(valid_s * 1e9)
        self._force = force
        self._member = member
        self._me: _Holder | None = None
        self._life: Subscription | None = None
        self._valid_until_ns: int | None = None
        self._revision: int | None = None
        self._seen, self._seen_ns = -1, 0
        self._holder: _Holder | None = None
        self.unanswered = 0
        """How many attempts in a row the server has taken without storing them."""

    def valid(self) -> bool:
        """Whether this member may act as the leader now."""
        until_ns = self._valid_until_ns
        return self._force or (until_ns is not None and self._clock.monotonic_ns() < until_ns)

    @property
    def term(self) -> str | None:
        """Names the time for which the lease is held without a break, as long as `valid()`."""
        if not self.valid():
            return None
        return self._me.run if self._me is not None else "forced"

    def holder(self) -> str | None:
        """The member that holds the lease as far as this one knows; None when it is free."""
        return self._holder.member if self._holder is not None else None

    async def step(self) -> bool:
        """Renew the lease, or take it if it is free; one attempt. -> `valid()`. Without an answer the lease is left to
        run out."""
        if self._force:
            return True
        try:
            if self._me is None:
                await self._begin_life()
            if self._holder != self._me or self._revision is None:
                await self._look()
            if await self._is_free():
                await self._write(self._me)
                self.unanswered = 0
        except Unavailable as error:
            self._revision = None  # What is there now is unknown, so the next attempt looks first.
            self.unanswered += error.code in ("timeout", "refused")
            _log.debug("no answer about the lease", error=error.code)
        return self.valid()

    async def release(self) -> None:
        """Give the lease up, so that another may take it without waiting."""
        self._force, self._valid_until_ns = False, None
        if self._me is not None and self._holder == self._me and self._revision is not None:
            try:
                await self._write(None)
            except Unavailable as error:
                _log.info("the lease could not be released and will run out", error=error.code)

    async def _begin_life(self) -> None:
        """Be a candidate on this connection. Who held the lease on an earlier one is another, also for itself."""
        epoch = self._connection.epoch
        me = _Holder(self._member, RandomIds().event_id())
        life = await self._connection.subscribe(life_subject(me.run), self._answer, on_lost=self._lost)
        if not self._connection.connected or self._connection.epoch != epoch:
            life.unsubscribe()
            raise Unavailable("not connected to the server", code="disconnected", entity=_KEY, sent=False)
        self._me, self._life = me, life

    def _answer(self, message: Message) -> None:
        self._connection.send(message.reply, b"")

    def _lost(self) -> None:
        """The connection is gone, and the lease with it."""
        if self._life is not None:
            self._life.unsubscribe()
        self._me = self._life = self._revision = self._valid_until_ns = None

    async def _is_free(self) -> bool:
        """Whether the lease is this member's already, or may be taken now."""
        holder = self._holder
        if holder is None or holder == self._me:
            return True
        if self._clock.monotonic_ns() - self._seen_ns >= self._timeout_ns:
            return True
        if not holder.run:
            return False
        try:
            await self._connection.request(life_subject(holder.run), b"", timeout_s=_LIFE_S)
        except Unavailable as error:
            return error.code == "no_responders"
        return False

    async def _look(self) -> None:
        body = msgspec.json.encode({"last_by_subj": _KEY})
        message = await self._connection.request(f"$JS.API.DIRECT.GET.{LEADER_STREAM}", body, timeout_s=_REQUEST_S)
        record = direct_record(message)
        revision = record.seq if record is not None else 0
        if revision != self._seen:
            self._seen, self._seen_ns = revision, self._clock.monotonic_ns()
        self._revision = revision
        self._holder = _decode(record.data) if record is not None else None
        if self._holder != self._me:
            self._valid_until_ns = None

    async def _write(self, holder: _Holder | None) -> None:
        me = self._me
        data = msgspec.json.encode(holder) if holder is not None else b""
        sent_ns = self._clock.monotonic_ns()
        headers = {EXPECTED: str(self._revision)}
        ack = decode_ack((await self._connection.request(_KEY, data, headers, timeout_s=_REQUEST_S)).data)
        if self._me is not me:
            return  # The connection broke meanwhile.
        if ack.error is None:
            self._revision = self._seen = ack.seq
            self._seen_ns = sent_ns
            self._holder = holder
            self._valid_until_ns = sent_ns + self._valid_ns if holder is not None else None
        elif ack.error.err_code == WRONG_SEQ:
            await self._look()  # Another member was faster, or a renewal without an answer had been stored after all.
        else:
            raise Unavailable("the lease was not written", code="refused", found=ack.error.description)


def _decode(data: bytes) -> _Holder | None:
    try:
        return msgspec.json.decode(data, type=_Holder) if data else None
    except msgspec.MsgspecError:
        return _Holder("?", "")  # Written by another hand: nobody's, until it has not changed for long enough.
