"""The tables of the read side: what columns they have, and how states become rows and rows become states again.

    State struct   -> EntityTable and its ItemTables (one interval row per version, one per element of a collection)
    FactView       -> FactTables (one row per event, never changed)

Rules:
* A row of an entity or of an item is valid from event `seq_from` until before event `seq_to` (exclusive; OPEN: still).
  A row of a fact table is valid from event `seq` on. So "as of S" is one predicate on any table.
* Every change of an entity starts a new row in its own table, so `seq_from` of the open row is the seq of its last
  change. Items get a new row only when they come, go, or change their value.
* Times are stored as naive UTC, to the microsecond.
* A table may have a column `audience`: null means every agent of the tenant, '|atlas|nova|' means only these.
* A view module in `projections/views` that defines `VIEW` (a FactView) is found by `discover`; nothing lists them.
* Everything here is pure.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, cast

import msgspec
from msgspec import inspect

from bus.domain import dm, memory, session
from bus.events import Event, Fact
from bus.model import Family, State
from bus.subjects import is_name

FORMAT = 1
"""Version of how rows are made from events. Raise it whenever a fold changes what it writes."""
OPEN = (1 << 63) - 1
"""`seq_to` of a row that is still valid."""
AUDIENCE = "audience"
LONG = frozenset({"body", "content", "data", "edit", "text"})
"""Columns of long texts. Packed by zstd they take less room than as the database packs texts by itself, and one of them
is read in a third of the time."""
SQL_TYPES = frozenset({"VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "BIGINT[]", "VARCHAR[]"})

Row = tuple[Any, ...]
FoldRows = Callable[[Event], Iterable[tuple[str, Row]]]

_json = msgspec.json.Encoder().encode
_INTERVAL = ("kid", "seq_from", "seq_to", "namespace")
_OWN = len(_INTERVAL) + 1
"""The scalars of a state stand behind these columns and the one with its key."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

READERS: Mapping[type[State], Callable[[str, Any], Sequence[str] | None]] = MappingProxyType(
    {
        dm.Dm: lambda key, state: dm.readers(key),
        memory.Memory: lambda key, state: memory.readers(key),
        session.Session: lambda key, state: session.readers(key),
    }
)
"""Who may see an entity, by its key and state (None: every agent). States that are not here are open to the tenant."""


def audience(readers: Sequence[str] | None) -> str | None:
    """The value of the column `audience` for these agents. What is no agent's name cannot read anything."""
    return None if readers is None else f"|{'|'.join(filter(is_name, readers))}|"


class Table(ABC):
    """A table by its name and (column, SQL type) pairs. `start` is the column with the seq a row is valid from; `key`
    orders the rows that are valid at one moment without ties."""

    start: ClassVar[str]

    def __init__(self, name: str, columns: Iterable[tuple[str, str]]) -> None:
        columns = tuple(columns)
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot name a table (expected {_NAME.pattern})")
        if unknown := {kind for _, kind in columns if kind not in SQL_TYPES}:
            raise ValueError(f"table {name}: column types {sorted(unknown)} are not among {sorted(SQL_TYPES)}")
        self.name = name
        self.columns: Mapping[str, str] = MappingProxyType(dict(columns))
        if len(self.columns) != len(columns):
            raise ValueError(f"table {name}: two columns have one name (every table of entities has {_INTERVAL})")
        self.has_audience = AUDIENCE in self.columns

    @property
    @abstractmethod
    def key(self) -> tuple[str, ...]: ...

    @property
    def has_end(self) -> bool:
        return self.start == "seq_from"

    def valid_at(self, seq: int) -> str:
        """The SQL predicate of the rows that are valid after event `seq`."""
        until = f" and {seq} < seq_to" if self.has_end else ""
        return f"{self.start} <= {seq}{until}"

    @property
    def ddl(self) -> str:
        packed = dict.fromkeys(self.columns.keys() & LONG, " using compression zstd")
        columns = ", ".join(f'"{name}" {kind}{packed.get(name, "")}' for name, kind in self.columns.items())
        return f'create table "{self.name}" ({columns})'

    @property
    def insert(self) -> str:
        """The SQL that inserts rows from its one parameter, a list of what `as_text` gives. (A list, because the
        database would take a single text for a constant, and read it much slower.)"""
        kinds = ", ".join(f'"c{place}": ["{kind}"]' for place, kind in enumerate(self.columns.values()))
        values = ", ".join(f"unnest(rows.c{place})" for place in range(len(self.columns)))
        rows = f"select from_json_strict(unnest(?), '{{{kinds}}}') as rows"
        return f'insert into "{self.name}" select {values} from ({rows})'


class FactTable(Table):
    """An append-only table. Its first column is `seq` (BIGINT), the event a row comes from."""

    start = "seq"

    def __init__(self, name: str, columns: Iterable[tuple[str, str]]) -> None:
        super().__init__(name, columns)
        if next(iter(self.columns.items()), None) != ("seq", "BIGINT"):
            raise ValueError(f"fact table {name} must begin with a column seq BIGINT")

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(self.columns)


class FactView(msgspec.Struct, frozen=True, kw_only=True):
    """Fact tables and the pure fold that fills them: `fold(event)` gives (table name, row) pairs, each row with one
    value per column, in order. With `facts`, only events of these facts (or of facts derived from them) are folded.
    Raise `version` when the fold changes what it gives: the tables are rebuilt then."""

    tables: tuple[FactTable, ...]
    fold: FoldRows
    facts: tuple[type[Fact], ...] = ()
    version: int = 1


class _Field(NamedTuple):
    """A scalar field of a state: attribute, column, SQL type."""

    attribute: str
    column: str
    sql: str


class ItemTable(Table):
    """The elements of one collection field of a state."""

    start = "seq_from"

    def __init__(self, entity: str, attribute: str, column: str, item: str, value: str | None, readers: bool) -> None:
        self.attribute = attribute
        self.of: Callable[[State], Any] = attrgetter(attribute)
        self.is_mapping = value is not None
        self.empty: Any = {} if self.is_mapping else frozenset()
        values = [("value", value)] if value is not None else []
        super().__init__(f"{entity}_{column}", [*_interval(entity), ("item", item), *values, *_ends(readers)])

    @property
    def key(self) -> tuple[str, ...]:
        return ("kid", "item")


class EntityTable(Table):
    """The table of one state type. A row is (kid, seq_from, seq_to, namespace, key, scalars…[, audience])."""

    start = "seq_from"

    def __init__(self, state: type[State]) -> None:
        self.state_type = state
        self.readers = READERS.get(state)
        scalars, self.items = _split(state, self.readers is not None)
        self._attributes = tuple(field.attribute for field in scalars)
        self._times = tuple(i for i, field in enumerate(scalars, _OWN) if field.sql == "TIMESTAMP")
        self._get = _getter(self._attributes)
        fields = [(field.column, field.sql) for field in scalars]
        super().__init__(state.table, [*_interval(state.table), *fields, *_ends(self.readers is not None)])

    @property
    def key(self) -> tuple[str, ...]:
        return ("kid",)

    def row(self, kid: int, since: int, namespace: str, key: str, state: Any) -> Row:
        """The open row of one version that began with event `since`."""
        values = [kid, since, OPEN, namespace, key, *self._get(state)]
        for i in self._times:
            if values[i] is not None:
                values[i] = naive(values[i])
        if self.readers is not None:
            values.append(audience(self.readers(key, state)))
        return tuple(values)

    def state(self, row: Sequence[Any], items: Mapping[str, Any]) -> Any:
        """The state that `row` was made from. `items` maps an attribute to its collection; a missing one is empty."""
        values: dict[str, Any] = dict(zip(self._attributes, row[_OWN:], strict=False))
        for i in self._times:
            if row[i] is not None:
                values[self._attributes[i - _OWN]] = row[i].replace(tzinfo=UTC)
        for table in self.items:
            values[table.attribute] = items.get(table.attribute, table.empty)
        return self.state_type(**values)


class Schema:
    """All tables of a projection, by name, and a fingerprint of how they are made."""

    def __init__(self, families: Iterable[Family], views: Iterable[FactView], event: FactTable) -> None:
        families, self.views, self.event = tuple(families), tuple(views), event
        self.entities: dict[type[State], EntityTable] = {f.state: EntityTable(f.state) for f in families}
        entities = list(self.entities.values())
        items = [table for entity in entities for table in entity.items]
        facts = [table for view in self.views for table in view.tables]
        self.tables: dict[str, Table] = {}
        for table in (event, *entities, *items, *facts):
            if self.tables.setdefault(table.name, table) is not table:
                raise ValueError(f"two tables are named {table.name}")
        self.fingerprint = self._fingerprint([fact for family in families for fact in family.facts])

    @property
    def newest(self) -> str:
        """The SQL that reads the name of every table, and the event of its last row."""
        return " union all ".join(
            f"select '{name}', max({table.start}) from \"{name}\"" for name, table in self.tables.items()
        )

    def _fingerprint(self, facts: Iterable[type[Fact]]) -> str:
        # The readable facts are part of it: an event that could not be read when it was folded may be readable now.
        parts = (
            FORMAT,
            sorted((name, list(table.columns.items())) for name, table in self.tables.items()),
            sorted(([table.name for table in view.tables], view.version) for view in self.views),
            sorted((fact.type, fact.schema) for fact in facts),
        )
        return sha256(msgspec.json.encode(parts)).hexdigest()


def as_text(rows: Sequence[Row]) -> str:
    """Rows as one JSON object with an array for each column, `c0` and so on, in which a column without any value is
    null. Raises ValueError or OverflowError for what JSON cannot say. (Numbers are finite, as those of events are.)"""
    columns = enumerate(zip(*rows, strict=True))
    return _json({f"c{i}": None if values.count(None) == len(values) else values for i, values in columns}).decode()


def discover() -> tuple[FactView, ...]:
    """The `VIEW` of every module in `projections.views` that has one, ordered by module name."""
    package = importlib.import_module("projections.views")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"projections.views.{name}") for name in names]
    return tuple(module.VIEW for module in modules if isinstance(getattr(module, "VIEW", None), FactView))


def naive(instant: datetime) -> datetime:
    """`instant` in UTC without its zone (one without a zone is taken as UTC)."""
    if instant.tzinfo is UTC:
        return instant.replace(tzinfo=None)
    return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)


def _interval(entity: str) -> list[tuple[str, str]]:
    return [*((name, "VARCHAR" if name == "namespace" else "BIGINT") for name in _INTERVAL), (entity, "VARCHAR")]


def _ends(readers: bool) -> list[tuple[str, str]]:
    return [(AUDIENCE, "VARCHAR")] if readers else []


def _getter(attributes: Sequence[str]) -> Callable[[Any], Row]:
    if len(attributes) > 1:
        return cast("Callable[[Any], Row]", attrgetter(*attributes))
    return lambda state: tuple(getattr(state, name) for name in attributes)


def _split(state: type[State], readers: bool) -> tuple[list[_Field], tuple[ItemTable, ...]]:
    """The scalar fields of a state, and a table for each collection."""
    info = inspect.type_info(state)
    assert isinstance(info, inspect.StructType)
    scalars, items = [], []
    for field in info.fields:
        column, kind = field.encode_name, field.type
        if isinstance(kind, inspect.FrozenSetType):
            item = _scalar(state, field.name, kind.item_type)
            items.append(ItemTable(state.table, field.name, column, item, None, readers))
        elif isinstance(kind, inspect.DictType):
            item, value = _scalar(state, field.name, kind.key_type), _scalar(state, field.name, kind.value_type)
            items.append(ItemTable(state.table, field.name, column, item, value, readers))
        else:
            scalars.append(_Field(field.name, column.rstrip("_"), _scalar(state, field.name, kind)))
    return scalars, tuple(items)


_SCALARS: Mapping[type[inspect.Type], str] = MappingProxyType(
    {
        inspect.StrType: "VARCHAR",
        inspect.IntType: "BIGINT",
        inspect.FloatType: "DOUBLE",
        inspect.BoolType: "BOOLEAN",
        inspect.DateTimeType: "TIMESTAMP",
    }
)


def _scalar(state: type[State], name: str, kind: inspect.Type) -> str:
    """The SQL type of a scalar field. Raises TypeError for what a state may not hold."""
    if isinstance(kind, inspect.UnionType):
        inner = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
        if len(inner) == 1:
            kind = inner[0]
    if isinstance(kind, inspect.LiteralType):
        return "VARCHAR" if all(isinstance(value, str) for value in kind.values) else "BIGINT"
    sql = _SCALARS.get(type(kind))
    if sql is None:
        raise TypeError(f"{state.__name__}.{name}: a state holds scalars and frozenset or dict of them, not {kind}")
    return sql
