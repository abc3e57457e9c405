"""How a query is answered: one handler per request struct, found by its type.

Rules:
* A handler reads tables through a Reader, which is fixed to a moment and to the agent that asks; it neither waits nor
  authorises: `cli.api` does, for all of them.
* `items` names the list that is empty while there is nothing to answer yet; a query that waits waits for it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bus.model import Entry, Query, State
from projections.inbox_index import InboxIndex
from projections.lexical_index import Index

Q = TypeVar("Q", bound=Query)
FEW = 5
"""So many rows are found by constants as fast as by a join."""

_canonical = msgspec.json.Encoder(order="sorted").encode


class Near(NamedTuple):
    """A vector that is valid: its key, the seq of its numbers, and its score; greater is nearer."""

    kid: int
    seq: int
    score: float


Numbers = Sequence[float] | NDArray[np.float32]
Kids = Sequence[int] | NDArray[np.integer[Any]]


class Meant(NamedTuple):
    """What an embedder made of a question, or why it made nothing (neither: there is none)."""

    vector: NDArray[np.float32] | None = None
    why_not: str | None = None


class Nearby(Protocol):
    """The vectors of a collection."""

    def nearest(self, numbers: Numbers, k: int, seq: int, kids: Kids | None = None) -> tuple[list[Near], int]:
        """The `k` nearest rows valid at `seq`, of these vectors if any are named; and how many there were."""
        ...


class Named(Nearby, Protocol):
    """Those of a collection that have names of their own."""

    keys: dict[int, str]
    """By kid: the key of the vector."""


def place_of_memories(dimension: int) -> tuple[str, str]:
    """Where, among collections, the vectors of this dimension are that memories were given by their authors: no
    collection is in a namespace without a name."""
    return ("", str(dimension))


class Reader(Protocol):
    """The tables as they were after event `seq`, as far as `agent` may see them."""

    seq: int
    agent: str
    now: datetime
    """The server's time when the query was asked."""

    def at(self, table: str) -> str:
        """A SQL subselect: the rows of `table` that hold at `seq` and that `agent` may see."""
        ...

    def history(self, table: str) -> str:
        """A SQL subselect: every row of `table` that began up to `seq` and that `agent` may see, ended or not."""
        ...

    def may_see(self, audience: str | None) -> bool:
        """Whether `agent` may see what has this value in its column `audience`."""
        ...

    def rows(self, sql: str, params: Any = ()) -> list[tuple[Any, ...]]: ...

    def is_used(self, table: str) -> bool:
        """Whether the table has ever had a row: looking into one that has none takes as long as into any other."""
        ...

    def inboxes(self) -> AbstractContextManager[InboxIndex]:
        """What may stand in inboxes, up to `seq` at least. Who holds it lets nobody else look meanwhile."""
        ...

    def index(self) -> AbstractContextManager[Index]:
        """The words of everything, up to `seq` at least. Who holds them lets nobody else look meanwhile."""
        ...

    def collections(self) -> AbstractContextManager[Mapping[tuple[str, str], Named]]:
        """The vectors of every (namespace, collection), up to `seq` at least, under the same condition."""
        ...

    def dense(self) -> Nearby | None:
        """The vectors that an embedder made of everything that can be recalled, by slot; None unless it has made all
        those up to `seq`."""
        ...

    def kid(self, table: str, namespace: str, key: str) -> int | None:
        """The key of an entity in tables, which is much faster to look for than its name (None: there was none)."""
        ...

    def states(self, state: type[State], namespace: str, keys: Iterable[str]) -> dict[str, Entry]:
        """The states of these entities, by key. What did not exist, or may not be seen, is left out."""
        ...

    def versions(self, table: str, namespace: str, key: str) -> list[int]:
        """The events up to `seq` by which an entity has changed, or came into being, in their order."""
        ...

    def state(self, state: type[State], namespace: str, key: str) -> Entry | None:
        """The state of one entity."""
        ...

    def time_of(self, seq: int) -> datetime | None: ...


class Answerer(NamedTuple):
    """`handle(reader, request) -> Answer` and the name of the answer's list."""

    handle: Callable[[Any, Any], Any]
    items: str | None


_ANSWERERS: dict[type, Answerer] = {}


def answers(request: type[Q], items: str | None = None) -> Callable[[Callable[[Any, Q], Any]], Callable[[Any, Q], Any]]:
    """Register the decorated function as the handler of `request`."""

    def register(handle: Callable[[Any, Q], Any]) -> Callable[[Any, Q], Any]:
        if request in _ANSWERERS:
            raise ValueError(f"{request} has two handlers")
        _ANSWERERS[request] = Answerer(handle, items)
        return handle

    return register


def answerers() -> dict[type, Answerer]:
    """Every handler, by request type. Imports the views on first use."""
    from projections import views

    for module in pkgutil.iter_modules(views.__path__):
        importlib.import_module(f"projections.views.{module.name}")
    return _ANSWERERS


def utc(naive: datetime) -> datetime:
    """Tables keep naive UTC; answers say so."""
    return naive.replace(tzinfo=UTC)


def ints(json: str | None) -> list[int]:
    """A JSON list of seqs from a table cell (null: none)."""
    return msgspec.json.decode(json, type=list[int]) if json else []


def strings(json: str | None) -> list[str]:
    """A JSON list of strings from a table cell (null: none)."""
    return msgspec.json.decode(json, type=list[str]) if json else []


def any_of(seqs: Iterable[int]) -> str:
    """Seqs or keys as what may follow `in`; an empty list contains nothing."""
    wanted = list(seqs)
    found = ", ".join(map(str, wanted))
    # A few constants are looked up in an index, if there is one. A text is read at once, where each constant is planned
    # (300 take 4 ms less); and joined, the database reads wide columns only where the list finds a row.
    return f"({found})" if len(wanted) <= FEW else f"(select unnest('[{found}]'::bigint[]))"


def quoted(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def has_values(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether metadata has these values, compared as JSON: to Python, true is 1."""
    return all(name in metadata and _canonical(metadata[name]) == _canonical(value) for name, value in where.items())


def escaped(text: str) -> str:
    r"""`text` for a LIKE pattern with `escape '\'`: matched literally."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
