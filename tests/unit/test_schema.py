"""Tables from states: their columns, rows and the way back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar, Literal

import pytest
from msgspec import field

from bus.domain.agent import Agent
from bus.domain.dm import Dm
from bus.domain.task import Task
from bus.events import Event
from bus.model import Family, State
from bus.operation import FAMILIES
from projections.schema import OPEN, EntityTable, FactTable, FactView, Schema, audience, discover, naive
from projections.views.events import EVENT


class Everything(State, frozen=True, kw_only=True):
    """A state with a field of every kind."""

    table: ClassVar[str] = "everything"
    name: str
    count: int | None = None
    ratio: float = 0.5
    on: bool = False
    class_: str = field(default="", name="class")
    level: Literal["low", "high"] = "low"
    rank: Literal[1, 2] | None = None
    when: datetime | None = None
    tags: frozenset[str] = frozenset()
    seqs: frozenset[int] = frozenset()
    votes: dict[str, int] = field(default_factory=dict)


def nothing(event: Event) -> list[tuple[str, tuple[Any, ...]]]:
    return []


def family(state: type[State]) -> Family:
    return Family(name="everything", facts=(), state=state, evolve=lambda state, event: state)


def test_a_field_is_a_column_and_a_collection_is_a_table() -> None:
    schema = Schema([family(Everything)], (), EVENT)
    assert set(schema.tables) == {"event", "everything", "everything_tags", "everything_seqs", "everything_votes"}
    assert dict(schema.tables["everything"].columns) == {
        "kid": "BIGINT",
        "seq_from": "BIGINT",
        "seq_to": "BIGINT",
        "namespace": "VARCHAR",
        "everything": "VARCHAR",
        "name": "VARCHAR",
        "count": "BIGINT",
        "ratio": "DOUBLE",
        "on": "BOOLEAN",
        "class": "VARCHAR",
        "level": "VARCHAR",
        "rank": "BIGINT",
        "when": "TIMESTAMP",
    }
    assert [*schema.tables["everything_votes"].columns][-2:] == ["item", "value"]
    assert schema.tables["everything_seqs"].columns["item"] == "BIGINT"


def test_a_state_survives_the_way_to_a_row_and_back() -> None:
    table = EntityTable(Everything)
    noon = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    state = Everything(
        name="x", count=7, when=noon, class_="c", tags=frozenset({"a"}), seqs=frozenset({1, 2}), votes={"ada": 3}
    )
    row = table.row(5, 9, "dev", "e-1", state)
    assert row[:5] == (5, 9, OPEN, "dev", "e-1")
    assert row[-1] == noon.replace(tzinfo=None)
    assert table.state(row, {"tags": state.tags, "seqs": state.seqs, "votes": state.votes}) == state
    assert table.state(table.row(5, 9, "dev", "e-1", Everything(name="y")), {}) == Everything(name="y")


def test_times_are_stored_in_utc_without_a_zone() -> None:
    plus_two = timezone(timedelta(hours=2))
    assert naive(datetime(2026, 1, 1, 2, tzinfo=plus_two)) == datetime(2026, 1, 1)
    assert naive(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1)
    assert naive(datetime(2026, 1, 1)) == datetime(2026, 1, 1)


def test_every_family_has_tables() -> None:
    schema = Schema(FAMILIES, discover(), EVENT)
    for one in FAMILIES:
        assert schema.entities[one.state].name == one.state.table
    assert schema.tables["task"].columns["class"] == "VARCHAR"
    assert "class_" not in schema.tables["task"].columns
    assert [table.name for table in schema.entities[Task].items] == ["task_labels", "task_skills", "task_refs"]
    assert schema.entities[Agent].readers is None


def test_who_may_see_a_conversation_stands_in_its_rows_and_in_those_of_its_items() -> None:
    table = EntityTable(Dm)
    assert table.row(1, 1, "_", "ada+bob", Dm())[-1] == "|ada|bob|"
    assert table.items[0].has_audience
    assert table.state(table.row(1, 1, "_", "ada+bob", Dm()), {}) == Dm()


@pytest.mark.parametrize(
    ("readers", "stored"),
    [(None, None), (("ada",), "|ada|"), (("ada", "bob"), "|ada|bob|"), (("a|b", "Bob", "x"), "|x|"), ((), "||")],
)
def test_only_names_of_agents_can_be_an_audience(readers: tuple[str, ...] | None, stored: str | None) -> None:
    assert audience(readers) == stored


def test_what_a_state_may_not_hold_is_named() -> None:
    class Nested(State, frozen=True, kw_only=True):
        table: ClassVar[str] = "nested"
        parts: tuple[int, ...] = ()

    class Twice(State, frozen=True, kw_only=True):
        table: ClassVar[str] = "twice"
        namespace: str = ""

    with pytest.raises(TypeError, match=r"Nested\.parts"):
        EntityTable(Nested)
    with pytest.raises(ValueError, match="table twice: two columns have one name"):
        EntityTable(Twice)


def test_a_fact_table_begins_with_the_seq_of_its_event() -> None:
    assert FactTable("seen", (("seq", "BIGINT"), ("agent", "VARCHAR"))).key == ("seq", "agent")
    with pytest.raises(ValueError, match="must begin with a column seq"):
        FactTable("seen", (("agent", "VARCHAR"),))
    with pytest.raises(ValueError, match="cannot name a table"):
        FactTable('x"; drop', (("seq", "BIGINT"),))
    with pytest.raises(ValueError, match="column types"):
        FactTable("seen", (("seq", "BIGINT"), ("x", "BLOB")))


def test_two_tables_cannot_have_one_name() -> None:
    view = FactView(tables=(FactTable("everything", (("seq", "BIGINT"),)),), fold=nothing)
    with pytest.raises(ValueError, match="two tables are named everything"):
        Schema([family(Everything)], [view], EVENT)


def test_the_fingerprint_changes_with_whatever_changes_rows() -> None:
    table = FactTable("seen", (("seq", "BIGINT"),))
    first = FactView(tables=(table,), fold=nothing)
    changed = FactView(tables=(table,), fold=nothing, version=2)
    schemas = [
        Schema(FAMILIES, (), EVENT),
        Schema(FAMILIES, [first], EVENT),
        Schema(FAMILIES, [changed], EVENT),
        Schema(FAMILIES[:-1], [first], EVENT),
        Schema([family(Everything)], [first], EVENT),
    ]
    assert len({schema.fingerprint for schema in schemas}) == len(schemas)
    assert Schema(FAMILIES, [first], EVENT).fingerprint == schemas[1].fingerprint


def test_valid_rows_are_one_predicate() -> None:
    schema = Schema([family(Everything)], (), EVENT)
    assert schema.tables["event"].valid_at(7) == "seq <= 7"
    assert schema.tables["everything_tags"].valid_at(7) == "seq_from <= 7 and 7 < seq_to"
