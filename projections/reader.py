"""The tables as they were after one event, as far as one agent may see them.

Rules:
* Visibility is applied here and nowhere else: a query reads `reader.at(table)` or `reader.history(table)`, never a
  table by its name. Only lists of what happened read all events, and ask `may_see` for each body: that an event
  happened may be known to everybody, and so may its time.
* Nothing a reader returns depends on what happened after its event: ends of rows that lie later read as open.
* A state that has not changed since the reader's event is taken from memory, made to what the tables would give back:
  a statement costs a millisecond however little it reads.
* A reader belongs to one thread at a time. `stop` may come from any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from bus.errors import InvalidRequest, Refused
from bus.model import Entry, State
from bus.world import World
from projections.batch import cleaned
from projections.inbox_index import InboxIndex
from projections.indexes import Indexes
from projections.lexical_index import Index
from projections.query import Nearby, any_of, quoted, utc
from projections.schema import AUDIENCE, OPEN, EntityTable, ItemTable, Schema, Table
from projections.vectors import Collected

FETCH_ROWS = 10_000
STOP_AGAIN_S = 0.05


class Cursor(Protocol):
    """What a reader needs of a database connection."""

    def execute(self, query: str, parameters: Any = ..., /) -> Any: ...

    def interrupt(self) -> None: ...


class Stopped(Exception):
    """The reading was stopped from outside."""


class Reader:
    """Reads as of event `seq` (0: before the first) as `agent`. `now` is the server's time when the query was asked.
    `sees_all` is for proofs that compare whole tables; no answer to an agent is made with it."""

    def __init__(
        self,
        schema: Schema,
        seq: int,
        agent: str,
        now: datetime,
        indexes: Indexes,
        world: World | None = None,
        *,
        sees_all: bool = False,
    ) -> None:
        self.schema = schema
        self.seq = seq
        self.agent = agent
        self.now = now
        self.sees_all = sees_all
        self._world = world
        self._indexes = indexes
        self._cursor: Cursor | None = None
        self._lock = Lock()
        self._stopped = False

    # --- what queries use --------------------------------------------------------------------------------------

    def at(self, table: str) -> str:
        """A SQL subselect: the rows of `table` that are valid now and visible, without their end."""
        known = self._table(table)
        ends = " exclude (seq_to)" if known.has_end else ""
        return f'(select *{ends} from "{known.name}" where {known.valid_at(self.seq)}{self._visible(known)})'

    def history(self, table: str) -> str:
        """A SQL subselect: every visible row of `table` that began up to now. `seq_to` is open for what has not ended
        by now."""
        known = self._table(table)
        ends = f" replace (if(seq_to > {self.seq}, {OPEN}, seq_to) as seq_to)" if known.has_end else ""
        return f'(select *{ends} from "{known.name}" where {known.start} <= {self.seq}{self._visible(known)})'

    def may_see(self, audience: str | None) -> bool:
        """Whether the agent may see what has this value in its column `audience`."""
        return self.sees_all or audience is None or f"|{self.agent}|" in audience

    def is_used(self, table: str) -> bool:
        """Whether the table has ever had a row, as far as this store knows: what came later may count, too."""
        return self._indexes.news.may_be_in(self._table(table).name, 0)

    def inboxes(self) -> AbstractContextManager[InboxIndex]:
        """What may stand in inboxes, up to this reader's event at least. Who holds it lets nobody else look
        meanwhile."""
        return self._indexes.inboxes.upto(self.seq, self.chunks)

    def index(self) -> AbstractContextManager[Index]:
        """The words of everything, up to this reader's event at least, whoever may see them: what may be seen is asked
        of `may_see`. Who holds them lets nobody else look meanwhile."""
        return self._indexes.lexicon.upto(self.seq, self.chunks)

    def collections(self) -> AbstractContextManager[Mapping[tuple[str, str], Collected]]:
        """The vectors of every (namespace, collection), up to this reader's event at least. Who holds them lets nobody
        else look meanwhile."""
        return self._indexes.embeddings.upto(self.seq, self.chunks)

    def dense(self) -> Nearby | None:
        """The vectors that an embedder made of everything that can be recalled, by slot; None unless it has made all
        those up to this reader's event."""
        dense = self._indexes.dense
        return dense if dense is not None and dense.position >= self.seq else None

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        found: list[tuple[Any, ...]] = self._execute(sql, params).fetchall()
        return found

    def chunks(self, sql: str, params: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query in lists of at most FETCH_ROWS. To be read to the end before the next query."""
        result = self._execute(sql, params)
        while found := result.fetchmany(FETCH_ROWS):
            self.check()
            yield found

    def kid(self, table: str, namespace: str, key: str) -> int | None:
        """The 64-bit key of an entity (None: there was none): scanning for it is ten times faster than for its name."""
        known = self._entities(table)
        if self._world is not None:
            entry = self._world.entry(known.state_type, namespace, key)
            return entry.kid if entry is not None and entry.kid <= self.seq else None
        found = self.rows(f'select kid from {self.at(table)} where namespace = ? and "{table}" = ?', [namespace, key])
        return found[0][0] if found else None

    def versions(self, table: str, namespace: str, key: str) -> list[int]:
        """The events by which an entity has changed, or came into being, oldest first."""
        kid = self.kid(table, namespace, key)
        if kid is None:
            return []
        known = self._entities(table)
        if (found := self._remembered(known, kid, namespace, key)) is not None:
            return found
        # It has no row from before its first event, so the database skips all of those. (`history` names all columns of
        # the table, which takes longer to plan than this takes.)
        sql = f'select seq_from from "{known.name}" where kid = {kid} and seq_from between {kid} and {self.seq}'
        return sorted(seq for (seq,) in self.rows(sql + self._visible(known)))

    def _remembered(self, table: EntityTable, kid: int, namespace: str, key: str) -> list[int] | None:
        """The versions of an entity, unless only the tables know them."""
        if self._world is None or table.has_audience:
            return None
        entry, versions = self._world.entry(table.state_type, namespace, key), self._indexes.versions
        if entry is None or versions.position < max(entry.since, self.seq):
            return None
        with versions.upto(self.seq, self.chunks) as succession:
            seqs = succession.back(entry.since, kid)
        return [seq for seq in reversed(seqs) if seq <= self.seq] if seqs[-1] == kid else None

    def states(self, state: type[State], namespace: str, keys: Iterable[str]) -> dict[str, Entry]:
        """The states of these entities, by key. What did not exist, or may not be seen, is left out."""
        table, found, changed = self.schema.entities[state], {}, dict[int, str]()
        for key in (wanted := list(dict.fromkeys(keys))):
            entry = self._world.entry(state, namespace, key) if self._world is not None else None
            if entry is not None and entry.since <= self.seq:
                if self._may_see(table, entry, namespace, key):
                    found[key] = _as_stored(table, entry, namespace, key)
            elif entry is not None and entry.kid <= self.seq:
                changed[entry.kid] = key
        if self._world is None and wanted:
            sql = f'select kid, "{table.name}" from {self.at(table.name)} where namespace = ?'
            among = ", ".join("?" for _ in wanted)
            changed = dict(self.rows(f'{sql} and "{table.name}" in ({among})', [namespace, *wanted]))
        found |= self._stored(table, changed)
        return {key: found[key] for key in wanted if key in found}

    def state(self, state: type[State], namespace: str, key: str) -> Entry | None:
        """The state of one entity."""
        return self.states(state, namespace, [key]).get(key)

    def _may_see(self, table: EntityTable, entry: Entry, namespace: str, key: str) -> bool:
        if not table.has_audience:
            return True
        readers = table.row(entry.kid, entry.since, namespace, key, entry.state)[-1]
        return self.may_see(readers)

    def _stored(self, table: EntityTable, keys: Mapping[int, str]) -> dict[str, Entry]:
        """The states of the entities with these kids, from the tables."""
        if not keys:
            return {}
        within = f"in {any_of(keys)}"
        items: dict[int, dict[str, Any]] = {}
        for part in table.items:
            for kid, elements in self._elements(part, within).items():
                items.setdefault(kid, {})[part.attribute] = elements
        columns = ", ".join(f'"{column}"' for column in table.columns if column != "seq_to")
        rows = self.rows(f"select {columns} from {self.at(table.name)} where kid {within}")
        return {
            keys[row[0]]: Entry(row[0], row[1], table.state((*row[:2], OPEN, *row[2:]), items.get(row[0], {})))
            for row in rows
        }

    def _elements(self, table: ItemTable, within: str) -> dict[int, Any]:
        """A collection of some entities, by kid."""
        value = ", value" if table.is_mapping else ""
        found: dict[int, list[Any]] = {}
        for row in self.rows(f"select kid, item{value} from {self.at(table.name)} where kid {within}"):
            found.setdefault(row[0], []).append(row[1:] if table.is_mapping else row[1])
        return {kid: dict(items) if table.is_mapping else frozenset(items) for kid, items in found.items()}

    def time_of(self, seq: int) -> datetime | None:
        """When event `seq` was stored, by the server's clock (None: no such event)."""
        moments = self._indexes.moments
        if moments.position >= seq:
            with moments.upto(seq, self.chunks) as times:
                return times.time_of(seq)
        found = self.rows(f"select time from event where seq = {int(seq)}")
        return utc(found[0][0]) if found else None

    def seq_at(self, time_ns: int) -> int:
        """The last event of the longest prefix of the log whose events were all stored by then (0: there is none)."""
        moments = self._indexes.moments
        if moments.position >= self.seq:
            with moments.upto(self.seq, self.chunks) as times:
                return times.seq_at(time_ns, self.seq)
        # By what came later, not by what came until then: an event that has no row counts as the one before it.
        sql = f"select coalesce(min(seq) - 1, {self.seq}) from event where stored_ns > ? and seq <= {self.seq}"
        seq: int = self.rows(sql, [time_ns])[0][0]
        return seq

    def export(self, table: str, path: Path) -> None:
        """Write the rows of `at(table)` to a Parquet file."""
        self._execute(f"copy {self.at(table)} to {quoted(str(path))} (format parquet)", ()).fetchall()

    # --- what the store uses -----------------------------------------------------------------------------------

    def take(self, cursor: Cursor) -> None:
        """From now on read through `cursor`."""
        with self._lock:
            self._cursor = cursor

    def leave(self) -> None:
        """The cursor may be given to somebody else."""
        with self._lock:
            self._cursor = None

    def stop(self) -> bool:
        """End the reading as soon as possible. -> whether it still goes on."""
        with self._lock:
            self._stopped = True
            if self._cursor is not None:
                self._cursor.interrupt()
            return self._cursor is not None

    def end(self) -> None:
        """Stop (on the event loop), again and again until the reading has ended: a statement may begin between the flag
        and the interrupt, and would not notice."""
        if self.stop():
            asyncio.get_running_loop().call_later(STOP_AGAIN_S, self.end)

    def _execute(self, sql: str, params: Sequence[Any]) -> Any:
        self.check()
        assert self._cursor is not None
        return self._cursor.execute(sql, list(params)) if params else self._cursor.execute(sql)

    def check(self) -> None:
        """Raise Stopped when the reading was stopped."""
        if self._stopped:
            raise Stopped

    def _table(self, name: str) -> Table:
        table = self.schema.tables.get(name)
        if table is None:
            raise InvalidRequest(
                "no such table",
                code="unknown_table",
                entity=f"table {name}",
                expected=", ".join(sorted(self.schema.tables)),
            )
        return table

    def _entities(self, name: str) -> EntityTable:
        table = self._table(name)
        if not isinstance(table, EntityTable):
            raise KeyError(f"{name} is no table of entities")
        return table

    def _visible(self, table: Table) -> str:
        """`may_see` as a SQL predicate that is added to others."""
        if self.sees_all or not table.has_audience:
            return ""
        return f" and ({AUDIENCE} is null or contains({AUDIENCE}, {quoted(f'|{self.agent}|')}))"


def _as_stored(table: EntityTable, entry: Entry, namespace: str, key: str) -> Entry:
    """`entry` as the tables would give it back: they keep times in UTC and no more than 64 bits."""
    (row,) = cleaned([table.row(entry.kid, entry.since, namespace, key, entry.state)])
    items = {part.attribute: _kept(part, getattr(entry.state, part.attribute)) for part in table.items}
    return Entry(entry.kid, entry.since, table.state(row, items))


def _kept(table: ItemTable, elements: Any) -> Any:
    """The elements of a collection that a table can hold."""
    if not elements:
        return table.empty
    kept = [
        item for item, (stored,) in zip(elements, cleaned((item,) for item in elements), strict=True) if item == stored
    ]
    if not table.is_mapping:
        return frozenset(kept)
    return dict(zip(kept, (value for (value,) in cleaned((elements[item],) for item in kept)), strict=True))


def stopped(seconds: float) -> Refused:
    """The error for a read that took longer than it may."""
    return Refused(
        "the read took too long",
        code="timeout",
        expected=f"at most {seconds:g} s",
        hint="Ask for less: a filter, an earlier moment, a smaller page",
    )
