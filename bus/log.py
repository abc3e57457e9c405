"""What a log is, and one kept in memory.

The rest of the project knows a log only by the `Log` protocol; JetStream and `MemoryLog` pass the same contract tests
(`tests/contract`). A log is an append-only sequence of events numbered from 1 without gaps.

Rules of `append`:
* All drafts of one call are stored next to each other, or none is.
* `expected[subject]` is the seq of the last event on that subject the writer has seen (0: none). Every subject that is
  written carries an expectation; nothing else is compared.
* `append_each` is as many appends, sent together: where an atomic batch costs more than they do, it is faster.
* It returns only once the events are durable. When the outcome is in doubt (time-out, lost connection) the *same*
  events are sent again until the log says stored or refused: a caller never has to decide anew because of doubt.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from bus.errors import BusError, Refused
from bus.events import MSG_ID, Codec, Draft, Record


class WrongExpectedSeq(BusError):
    """Another event reached a subject first. Nothing of the append was stored. `found` is that subject's last seq, or
    None when the log did not tell."""

    default_code = "conflict"
    exit_code = 3

    def __init__(self, subject: str, expected: int, found: int | None) -> None:
        super().__init__(
            "the log moved on while this was decided",
            entity=subject,
            expected=f"last seq {expected}",
            found=f"last seq {found if found is not None else 'later'}",
        )
        self.subject, self.expected_seq, self.found_seq = subject, expected, found


class LogFull(Refused):
    """The log refused the events for lack of room. Nothing was stored."""

    default_code = "log_full"


def log_nearly_full() -> Refused:
    """The refusal of what the log's quota has no room for."""
    return Refused(
        "the log is nearly full",
        code="quota",
        entity="the log",
        expected="room below the soft limit",
        found="none left",
        hint="Only releasing, completing and acknowledging still work; ask the owner for a larger quota",
    )


def disk_nearly_full() -> Refused:
    """The refusal of what the disk has no room for."""
    return Refused(
        "the disk is nearly full",
        code="quota",
        entity="the disk of the log",
        expected="room above the reserve (log.disk_reserve_bytes)",
        found="none left",
        hint="Only releasing, completing and acknowledging still work; free some space on the disk of the home",
    )


class Head(msgspec.Struct, frozen=True):
    """Where the log ends: the last seq (0: empty), its bytes and byte limit (-1: none), and the server's time now."""

    seq: int
    bytes: int
    max_bytes: int
    server_ns: int


class Chunk(msgspec.Struct, frozen=True):
    """Consecutive records of a tail. `pending` is how many the log still had after them when it sent the last."""

    records: Sequence[Record]
    pending: int


class Log(Protocol):
    """An append-only, totally ordered log of one tenant."""

    async def append(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[int]:
        """Store `drafts` atomically and return their seqs. Raises WrongExpectedSeq, LogFull or Unavailable (the log
        refused for another reason); in each case nothing was stored."""
        ...

    def append_each(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> AsyncGenerator[int, None]:
        """Store `drafts` one by one, none unless all before it are, and yield every seq as soon as it is durable.
        Raises what `append` does for the first that is refused (another writer's event between two of them may be a
        conflict too): from that one on, nothing was stored."""
        ...

    def tail(self, after: int) -> AsyncIterator[Chunk]:
        """Every record with seq > `after`, in order, without gap or repeat, for ever, across restarts of the server."""
        ...

    def read(self, after: int, upto: int) -> AsyncIterator[Sequence[Record]]:
        """The records with `after` < seq <= `upto`, in order, then the end."""
        ...

    async def get(self, seq: int) -> Record | None:
        """One record, or None when the log has none of that seq."""
        ...

    async def head(self) -> Head: ...


class MemoryLog:
    """A log in memory: the specification of `Log`, and the ground of simulations.

    `now_ns` gives the server's time. `max_bytes` bounds the sum of the bodies (-1: unbounded).
    """

    def __init__(self, codec: Codec, now_ns: Callable[[], int], max_bytes: int = -1) -> None:
        self._codec = codec
        self._now_ns = now_ns
        self._max_bytes = max_bytes
        self._bytes = 0
        self.records: list[Record] = []
        self._last: dict[str, int] = {}
        self._ids: set[str] = set()
        self._grown = anyio.Event()

    async def append(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> list[int]:
        for subject in dict.fromkeys(draft.subject for draft in drafts):
            if self._last.get(subject, 0) != expected[subject]:
                raise WrongExpectedSeq(subject, expected[subject], self._last.get(subject, 0))
        encoded = [self._codec.encode(draft) for draft in drafts]
        size = sum(len(body) for _, body in encoded)
        if 0 <= self._max_bytes < self._bytes + size:
            raise LogFull("the log is full", expected=f"at most {self._max_bytes} bytes", found=f"{self._bytes} stored")
        if any(draft.id in self._ids for draft in drafts):
            raise ValueError("an event id was used twice")
        seqs = []
        for draft, (headers, body) in zip(drafts, encoded, strict=True):
            seqs.append(self.put(draft.subject, headers, body))
        return seqs

    async def append_each(self, drafts: Sequence[Draft], expected: Mapping[str, int]) -> AsyncGenerator[int, None]:
        known, last = dict(expected), None
        for draft in drafts:
            if last is not None and last != len(self.records):
                raise WrongExpectedSeq(draft.subject, known[draft.subject], None)
            (last,) = await self.append([draft], known)
            known[draft.subject] = last
            yield last

    def put(self, subject: str, headers: dict[str, str], body: bytes) -> int:
        """Store one raw record without any check, as an administrator could."""
        seq = len(self.records) + 1
        self.records.append(Record(seq, self._now_ns(), subject, headers, body))
        self._last[subject] = seq
        self._ids.add(headers.get(MSG_ID, ""))
        self._bytes += len(body)
        grown, self._grown = self._grown, anyio.Event()
        grown.set()
        return seq

    async def tail(self, after: int) -> AsyncIterator[Chunk]:
        while True:
            grown = self._grown
            if after < len(self.records):
                records = self.records[after : after + 1000]
                after += len(records)
                yield Chunk(records, len(self.records) - after)
            else:
                await grown.wait()

    async def read(self, after: int, upto: int) -> AsyncIterator[Sequence[Record]]:
        for start in range(after, min(upto, len(self.records)), 1000):
            yield self.records[start : min(start + 1000, upto)]

    async def get(self, seq: int) -> Record | None:
        return self.records[seq - 1] if 0 < seq <= len(self.records) else None

    async def head(self) -> Head:
        return Head(len(self.records), self._bytes, self._max_bytes, self._now_ns())
