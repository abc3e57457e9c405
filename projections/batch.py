"""From events to the rows that one transaction writes: what is new, what ends, and how far the log has been read.

Rules:
* A version that ends within its own batch is inserted already closed. Only what an earlier batch left open has to be
  closed in the tables (`closes`), and that is done before anything is inserted.
* The hash chain runs over the raw records: digest = sha256(previous digest, seq, subject, sorted headers, body).
* A view whose fold fails on an event adds nothing for it; that is logged and counted, and the next event goes on.
* Many events are taken at a time, and each kind of work is done for all of them before the next kind: a processor's
  cache holds the code of one kind, not of all, which makes all of it a third faster.
* Everything here is pure; how the events are taken and cut into batches makes no difference to the tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import accumulate
from typing import Any

import msgspec
import structlog

from bus.events import Event, Record, Unknown
from bus.world import Change
from projections.schema import OPEN, EntityTable, FactView, ItemTable, Row, Schema
from projections.views import events

logger = structlog.get_logger(__name__)

CHAIN_START = bytes(32)
"""The digest before the first event."""
SKIPPED_KINDS = 1000
"""So many kinds of unreadable events are counted apart; the rest counts as `other`."""

_sorted_json = msgspec.json.Encoder(order="sorted").encode


def link(chain: bytes, record: Record) -> bytes:
    """The digest of the chain after `record`."""
    head = (record.seq, record.subject, record.headers)
    try:
        text = _sorted_json(head)
    except UnicodeEncodeError:  # a header that is no text; JSON cannot say it, but its code points can
        text = repr((record.seq, record.subject, sorted(record.headers.items()))).encode("ascii", "backslashreplace")
    return sha256(b"%b%b\n%b" % (chain, text, record.data)).digest()


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction writes: the events `after` < seq <= `upto`. `closes` are the keys of rows that end, and
    last the seq at which they do: (kid, seq_from, seq) for entities, (kid, item, seq) for items."""

    after: int
    upto: int
    chain: bytes
    stored_ns: int
    events: Sequence[Event]
    rows: Mapping[str, Sequence[Row]]
    closes: Mapping[str, Sequence[Row]]


class Projection:
    """Gathers the rows of consecutive events, from `position` on; `cut` hands them over as one batch."""

    def __init__(self, schema: Schema, position: int = 0, stored_ns: int = 0, chain: bytes = CHAIN_START) -> None:
        self.schema = schema
        self.position = position
        self.stored_ns = stored_ns
        self.chain = chain
        self.skipped: Counter[str] = Counter()
        """Events that this version cannot read, by reason."""
        self.failed: Counter[str] = Counter()
        """Events that a view's fold failed on, by the view's first table."""
        self._views_of: dict[type, tuple[FactView, ...]] = {}
        self._widths = {table.name: len(table.columns) for table in schema.tables.values()}
        self._begin()

    def _begin(self) -> None:
        self._after = self.position
        self.events: list[Event] = []
        self.bytes = 0
        self._rows: dict[str, list[Row]] = {name: [] for name in self.schema.tables}
        self._event_rows = self._rows[events.EVENT.name]
        self._closes: dict[str, list[Row]] = {}
        self._open: dict[str, dict[Any, Row]] = {name: {} for name in self.schema.tables}

    def take(self, records: Sequence[Record], found: Sequence[Event], changes: Iterable[Change | None]) -> list[bytes]:
        """Add the next events and what each did (see World.fold). -> the digest of the chain after each of them"""
        links = list(accumulate(records, link, initial=self.chain))[1:]
        stored_ns, add = self.stored_ns, self._event_rows.append
        for event in found:
            stored_ns = max(stored_ns, event.time_ns)
            self.bytes += len(event.data)
            add(events.row(event, stored_ns))
        for event in found:
            fact = event.fact
            views = self._views_of.get(type(fact))
            for view in self._for(type(fact)) if views is None else views:
                self._view(view, event)
            if isinstance(fact, Unknown):
                self.skip(fact.reason)
        for change in changes:
            if change is not None:
                self._change(change)
        self.events += found
        self.chain, self.stored_ns, self.position = links[-1], stored_ns, found[-1].seq
        return links

    def skip(self, reason: str, count: int = 1) -> None:
        """Count events that cannot be read, by the part of the reason that does not vary with their content."""
        kind = reason.partition(": ")[0][:200]
        known = kind in self.skipped or len(self.skipped) < SKIPPED_KINDS
        self.skipped[kind if known else "other"] += count

    def cut(self) -> Batch:
        """Everything gathered since the last cut."""
        for name, live in self._open.items():
            self._rows[name].extend(live.values())
        batch = Batch(
            after=self._after,
            upto=self.position,
            chain=self.chain,
            stored_ns=self.stored_ns,
            events=self.events,
            rows={name: rows for name, rows in self._rows.items() if rows},
            closes=self._closes,
        )
        self._begin()
        return batch

    def _for(self, fact: type) -> tuple[FactView, ...]:
        """The views that fold such a fact, remembered."""
        views = tuple(view for view in self.schema.views if not view.facts or issubclass(fact, view.facts))
        return self._views_of.setdefault(fact, views)

    def _view(self, view: FactView, event: Event) -> None:
        widths = self._widths
        try:
            found = list(view.fold(event))
            for name, row in found:
                if len(row) != widths[name]:
                    raise ValueError(f"a row of {name} has {len(row)} values instead of {widths[name]}")
        except Exception:  # a defect in one view must not stop the others
            name = view.tables[0].name
            self.failed[name] += 1
            logger.exception("view could not fold an event", view=name, seq=event.seq, type=event.type)
            return
        for name, row in found:
            self._rows[name].append(row)

    def _change(self, change: Change) -> None:
        table = self.schema.entities[change.state]
        before, after = change.before, change.after
        row = table.row(after.kid, after.since, change.namespace, change.key, after.state)
        if before is not None:
            self._close(table, after.kid, (after.kid, before.since), after.since)
        self._open[table.name][after.kid] = row
        if table.items:
            rewrite = False
            if table.has_audience and before is not None:
                # Items carry the audience of their entity: when that changes, so do they.
                old = table.row(before.kid, before.since, change.namespace, change.key, before.state)
                rewrite = old[-1] != row[-1]
            for items in table.items:
                now, was = items.of(after.state), items.of(before.state) if before is not None else items.empty
                if now is not was or rewrite:
                    self._items(items, change, was, now, row, rewrite)

    def _items(self, table: ItemTable, change: Change, was: Any, now: Any, owner: Row, rewrite: bool) -> None:
        kid, seq = change.after.kid, change.after.since
        gone, come = (was, now) if rewrite else _difference(was, now)
        for item in filter(_storable, gone):
            self._close(table, (kid, item), (kid, item), seq)
        live, end = self._open[table.name], owner[-1:] if table.has_audience else ()
        for item in filter(_storable, come):
            value = (now[item],) if table.is_mapping else ()
            live[(kid, item)] = (kid, seq, OPEN, change.namespace, change.key, item, *value, *end)

    def _close(self, table: EntityTable | ItemTable, key: Any, row_key: Row, seq: int) -> None:
        """End the row that is open under `key`: in this batch when it began here, otherwise in the tables."""
        live = self._open[table.name].pop(key, None)
        if live is not None:
            self._rows[table.name].append((*live[:2], seq, *live[3:]))
        else:
            self._closes.setdefault(table.name, []).append((*row_key, seq))


def _difference(was: Any, now: Any) -> tuple[Iterable[Any], Iterable[Any]]:
    """(items that went or changed their value, items that came or changed it). Sorted: sets have no order of their own
    and the order of rows must not depend on the process."""
    if isinstance(now, dict):
        gone = [item for item, value in was.items() if item not in now or now[item] != value]
        come = [item for item, value in now.items() if item not in was or was[item] != value]
        return gone, come
    if not now or not was:
        return sorted(was), sorted(now)
    return sorted(was - now), sorted(now - was)


def _storable(item: Any) -> bool:
    """Whether a table can hold the element: as part of a key it cannot be replaced by something similar."""
    if type(item) is int:
        return -OPEN <= item <= OPEN
    return item.isascii() or bool(_clean(item) == item)


def cleaned(rows: Iterable[Row]) -> list[Row]:
    """`rows` with what no table can hold replaced: integers beyond 64 bits by the nearest one, text that is no Unicode
    by question marks. Everything else is untouched, so the result does not depend on what stands next to it."""
    return [tuple(_clean(value) for value in row) for row in rows]


def _clean(value: Any) -> Any:
    if type(value) is int:
        return min(max(value, -OPEN), OPEN)
    if type(value) is str:
        return value.encode("utf-8", "replace").decode()
    if type(value) in (list, tuple):
        return [_clean(item) for item in value]
    return value
