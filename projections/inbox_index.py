"""What may stand in inboxes, in memory: who said something where, what is addressed to whom, who is a member of what,
and which messages were edited or reacted to.

    place    a conversation, as the 64-bit hash of its name (see `projections.views.messages`)
    span     an agent is a member of a channel from one event until before another
    heap     where something addressed to an agent belongs: a conversation, or else a namespace

Rules:
* It is derived from the tables and is put together in the order of the log. What a later event adds, or ends, makes no
  difference to what waits as of an earlier seq.
* It holds seqs, no texts: what a page shows is read from the tables.
* Of messages only those are here that every agent may see; of edits and reactions all, to be read by who may. What is
  addressed to an agent is told to that agent alone.
* Everything here is pure: it reads nothing, and knows no clock and no lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from projections.columns import Column
from projections.lexical_index import Numbered
from projections.schema import OPEN

Seqs = NDArray[np.int64]
_ROOM = 8
"""Most conversations are short."""


class Heap(NamedTuple):
    """A conversation, or, where something is no message, the namespace it comes from."""

    namespace: str
    place: int | None


class Pile(msgspec.Struct):
    """What waits in one heap: how many events, the first and the last of them, and how many for which reason."""

    heap: Heap
    count: int
    first: int
    last: int
    reasons: dict[str, int]


class _Span(msgspec.Struct):
    place: int
    begins: int
    ends: int = OPEN


class _Said:
    """The messages of one place, in their order."""

    def __init__(self) -> None:
        self.seq, self.author = Column(np.int64, room=_ROOM), Column(np.int32, room=_ROOM)


class _Addressed:
    """What is addressed to one agent, in its order: a row for every event and reason."""

    def __init__(self) -> None:
        self.seq = Column(np.int64, room=_ROOM)
        self.reason, self.heap = Column(np.int32, room=_ROOM), Column(np.int32, room=_ROOM)


class _Touched:
    """The edits of messages of one place, and the reactions to them, in their order."""

    def __init__(self) -> None:
        self.seq, self.message = Column(np.int64, room=_ROOM), Column(np.int64, room=_ROOM)


class InboxIndex:
    """All inboxes as of every event that was taken in."""

    def __init__(self) -> None:
        self._authors, self._reasons, self._heaps = Numbered[str](), Numbered[str](), Numbered[Heap]()
        self._said: defaultdict[int, _Said] = defaultdict(_Said)
        self._addressed: defaultdict[str, _Addressed] = defaultdict(_Addressed)
        self._spans: dict[str, list[_Span]] = {}
        self._open: dict[tuple[int, str], _Span] = {}
        self._touched: defaultdict[int, _Touched] = defaultdict(_Touched)

    # --- what is taken in --------------------------------------------------------------------------------------

    def say(self, seq: int, place: int, author: str) -> None:
        """There is a message that everybody may see."""
        said = self._said[place]
        said.seq.append(seq)
        said.author.append(self._authors.number(author))

    def address(self, seq: int, agent: str, reason: str, place: int | None, namespace: str) -> None:
        """Something is addressed to an agent; without a place it is no message."""
        rows = self._addressed[agent]
        rows.seq.append(seq)
        rows.reason.append(self._reasons.number(reason))
        rows.heap.append(self._heaps.number(Heap(namespace, None) if place is None else Heap("", place)))

    def join(self, channel: int, agent: str, place: int, begins: int, ends: int) -> None:
        """An agent is a member of the channel (by its 64-bit key) for that long."""
        span = _Span(place, begins, ends)
        self._spans.setdefault(agent, []).append(span)
        if ends == OPEN:
            self._open[channel, agent] = span

    def leave(self, channel: int, agent: str, seq: int) -> None:
        """It is no member any more."""
        span = self._open.pop((channel, agent), None)
        if span is not None:
            span.ends = seq

    def touch(self, seq: int, message: int, place: int) -> None:
        """A message there was edited, or somebody reacted to it."""
        touched = self._touched[place]
        touched.seq.append(seq)
        touched.message.append(message)

    # --- what is asked -----------------------------------------------------------------------------------------

    def touches(self, place: int, messages: Sequence[int], upto: int) -> list[int]:
        """The edits of some messages there, and the reactions to them, by events up to one."""
        touched = self._touched.get(place)
        if touched is None or not messages:
            return []
        first, last = np.searchsorted(touched.seq.values, (min(messages), upto), "right")
        seqs, of = touched.seq.values[first:last], touched.message.values[first:last]
        found: list[int] = seqs[np.isin(of, messages)].tolist()
        return found

    def said(self, place: int, upto: int) -> tuple[int, int | None]:
        """How many messages there are in a channel as of an event, and the last of them."""
        said = self._said.get(place)
        count = int(np.searchsorted(said.seq.values, upto, "right")) if said is not None else 0
        return count, int(said.seq.values[count - 1]) if said is not None and count else None

    def messages(self, place: int, after: int, upto: int, limit: int, *, newest: bool) -> list[int]:
        """The messages in a channel by events after one and up to another: so many of the first or of the newest."""
        said = self._said.get(place)
        if said is None:
            return []
        first, last = np.searchsorted(said.seq.values, (after, upto), "right")
        seqs = said.seq.values[first:last]
        found: list[int] = (seqs[max(0, len(seqs) - limit) :] if newest else seqs[:limit]).tolist()
        return found

    def unread(self, agent: str, after: int, upto: int) -> Unread:
        """What is addressed to an agent by events after one and up to another, as of the latter."""
        spans = [one for one in self._spans.get(agent, ()) if one.begins < upto and one.ends > after]
        rows = self._addressed.get(agent) or _Addressed()
        first, last = np.searchsorted(rows.seq.values, (after, upto), "right")
        seqs, heaps = rows.seq.values[first:last], rows.heap.values[first:last]
        return Unread(
            heard=[found for one in spans if (found := self._heard(one, agent, after, upto)) is not None],
            seqs=seqs,
            reasons=rows.reason.values[first:last],
            heaps=heaps,
            is_heard=self._is_heard(spans, seqs, heaps),
            names=(self._reasons.things, self._heaps.things),
        )

    def _heard(self, span: _Span, agent: str, after: int, upto: int) -> tuple[int, Seqs] | None:
        """What others said in a channel while the agent was a member: the place and the seqs."""
        said = self._said.get(span.place)
        if said is None or said.seq.values[-1] <= after:
            return None
        first = np.searchsorted(said.seq.values, max(after, span.begins), "right")
        last = np.searchsorted(said.seq.values, min(span.ends, upto + 1), "left")
        seqs: Seqs = said.seq.values[first:last]
        me = self._authors.known(agent)
        if me is not None:
            seqs = seqs[said.author.values[first:last] != me]
        return (span.place, seqs) if len(seqs) else None

    def _is_heard(self, spans: Sequence[_Span], seqs: Seqs, heaps: NDArray[Any]) -> NDArray[np.bool_]:
        """By row: whether it is a message of a channel that the agent was a member of then."""
        heard = np.zeros(len(seqs), np.bool_)
        here = set(np.unique(heaps).tolist())
        for span in spans:
            number = self._heaps.known(Heap("", span.place))
            if number in here:
                heard |= (heaps == number) & (seqs > span.begins) & (seqs < span.ends)
        return heard


class Unread(NamedTuple):
    """What waits for an agent: `heard` is what its channels bring (place and seqs of each span), the others are rows of
    what is addressed to it, of which those that its channels bring as well are marked."""

    heard: list[tuple[int, Seqs]]
    seqs: Seqs
    reasons: NDArray[Any]
    heaps: NDArray[Any]
    is_heard: NDArray[np.bool_]
    names: tuple[list[str], list[Heap]]
    """Of reasons and of heaps."""

    @property
    def total(self) -> int:
        """How many events these are."""
        return sum(len(seqs) for _, seqs in self.heard) + len(np.unique(self.seqs[~self.is_heard]))

    def oldest(self, limit: int) -> dict[int, set[str]]:
        """The reasons of the oldest `limit` events, by seq."""
        found: dict[int, set[str]] = {seq: {"channel"} for _, seqs in self.heard for seq in seqs[:limit].tolist()}
        # So many rows may be of fewer events: what makes up the page is known when each event has been counted once.
        events = np.unique(self.seqs)[:limit]
        rows = int(np.searchsorted(self.seqs, events[-1], "right")) if len(events) else 0
        for seq, reason in zip(self.seqs[:rows].tolist(), self.reasons[:rows].tolist(), strict=True):
            found.setdefault(seq, set()).add(self.names[0][reason])
        return {seq: found[seq] for seq in sorted(found)[:limit]}

    def piles(self) -> list[Pile]:
        """All of it by heap."""
        piles: dict[Heap, Pile] = {}
        for place, seqs in self.heard:
            pile = _pile(piles, Heap("", place), seqs)
            pile.count += len(seqs)
            pile.reasons["channel"] = pile.reasons.get("channel", 0) + len(seqs)
        for number, rows in _parts(self.heaps):
            pile = _pile(piles, self.names[1][number], self.seqs[rows])
            pile.count += len(np.unique(self.seqs[rows][~self.is_heard[rows]]))
            for reason, some in _parts(self.reasons[rows]):
                pile.reasons[self.names[0][reason]] = len(np.unique(self.seqs[rows][some]))
        return list(piles.values())


def _pile(piles: dict[Heap, Pile], heap: Heap, seqs: Seqs) -> Pile:
    """The pile of a heap, to which these seqs (ascending) belong."""
    first, last = int(seqs[0]), int(seqs[-1])
    pile = piles.setdefault(heap, Pile(heap, 0, first, last, {}))
    pile.first, pile.last = min(pile.first, first), max(pile.last, last)
    return pile


def _parts(numbers: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Every number that occurs, and where, ascending."""
    order = np.argsort(numbers, kind="stable")
    known, starts = np.unique(numbers[order], return_index=True)
    yield from zip(known.tolist(), np.split(order, starts[1:]) if len(known) else [], strict=True)
