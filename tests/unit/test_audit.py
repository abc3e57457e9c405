"""User SQL: what it may read, what is refused, and what is stopped."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.domain.dm import DmPosted
from bus.domain.task import TaskAmended, TaskOpened
from bus.errors import BusError, InvalidRequest, Refused
from bus.events import Fact
from bus.log import MemoryLog
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections import audit
from projections.batch import Projection
from projections.store import Store
from tests.unit.folding import put

HAPPENED: tuple[tuple[str, str, str, Fact], ...] = (
    ("default", "task", "t-1", TaskOpened(title="one", labels=("a", "b"))),
    ("default", "task", "t-2", TaskOpened(title="two")),
    ("_", "dm", "ada+bob", DmPosted(text="secret", to="bob")),
    ("default", "task", "t-1", TaskAmended(title="three")),
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Tables after HAPPENED."""
    log = MemoryLog(CODEC, lambda: 1_760_000_000_000_000_000)
    for namespace, family, entity, fact in HAPPENED:
        put(log, family, entity, fact, namespace=namespace)
    async with Store.opened(tmp_path / "tables", FAMILIES, (), log) as opened:
        rows, world = Projection(opened.schema), World(FAMILIES)
        for record in log.records:
            event = CODEC.decode(record)
            rows.take([record], [event], [world.fold(event)])
        await opened.write(rows.cut())
        yield opened


async def ask(store: Store, sql: str, **known: Any) -> audit.Result:
    given: dict[str, Any] = {"agent": "ada", "seq": 4, "limit": 100, "timeout_s": 20.0, "directory": store.path.parent}
    return await audit.ask(store, sql, **(given | known))


async def test_sql_reads_the_tables_of_a_moment(store: Store) -> None:
    now = await ask(store, "select task, title from task order by task")
    assert (now.columns, now.rows, now.truncated) == (["task", "title"], [["t-1", "three"], ["t-2", "two"]], False)
    assert (await ask(store, "select title from TASK", seq=1)).rows == [["one"]]
    assert (await ask(store, "select count(*) from event e join task_labels l on l.kid = e.seq", seq=0)).rows == [[0]]
    joined = 'select t.title, count(*) as n from "task" t join task_labels using (kid) group by all; -- a comment'
    assert (await ask(store, joined)).rows == [["three", 2]]


async def test_sql_sees_what_its_agent_may_see(store: Store) -> None:
    for agent, count in (("ada", 4), ("bob", 4), ("cyd", 3)):
        assert (await ask(store, "select count(*) from event", agent=agent)).rows == [[count]]
    assert (await ask(store, "select * from dm", agent="cyd")).rows == []
    text = (await ask(store, "select * from event", agent="cyd")).rows
    assert "secret" not in repr(text)


async def test_more_rows_than_asked_for_are_cut_off_and_it_says_so(store: Store) -> None:
    some = await ask(store, "select i from range(100000000) t(i)", limit=3)
    assert (some.rows, some.truncated) == ([[0], [1], [2]], True)
    exactly = await ask(store, "select i from range(3) t(i)", limit=3)
    assert (len(exactly.rows), exactly.truncated) == (3, False)
    wide = await ask(store, "select repeat('x', 1000000) from range(100)", limit=1000)
    assert (0 < len(wide.rows) < 20, wide.truncated) == (True, True)


async def test_values_arrive_as_json_can_say_them(store: Store) -> None:
    sql = """
        select timestamp '2026-01-02 03:04:05.6', timestamptz '2026-01-02 03:04:05+02', date '2026-01-02',
            1.50::decimal(10, 2), 'ab'::blob, 170141183460469231731687303715884105727::hugeint, 9007199254740991,
            'nan'::double, [1, null], {'a': date '2026-01-02'}, map {'k': 1}, null, true, interval 90 minute"""
    assert (await ask(store, sql)).rows == [
        [
            "2026-01-02T03:04:05.600000",
            "2026-01-02T01:04:05.000000+00:00",
            "2026-01-02",
            "1.50",
            "6162",
            "170141183460469231731687303715884105727",
            9007199254740991,
            "nan",
            [1, None],
            {"a": "2026-01-02"},
            {"k": 1},
            None,
            True,
            "1:30:00",
        ]
    ]
    assert audit.plain({date(2026, 1, 2): (Decimal("1E+2"), {timedelta(1)})}) == {
        "2026-01-02": ["100", ["1 day, 0:00:00"]]
    }
    assert audit.plain(datetime(2026, 1, 2)) == "2026-01-02T00:00:00"


NOT_A_SELECT = [
    "delete from task",
    "insert into task values (1)",
    "update task set title = 'x'",
    "drop table task",
    "create table x (a int)",
    "create view x as select 1",
    "copy task to '/tmp/stolen.csv'",
    "copy (select 1) to '/tmp/stolen.parquet'",
    "attach '/tmp/x.db'",
    "export database '/tmp/x'",
    "install httpfs",
    "load httpfs",
    "set threads = 9",
    "reset lock_configuration",
    "pragma database_list",
    "call pragma_version()",
    "begin",
    "checkpoint",
    "vacuum",
    "prepare p as select 1",
    "explain analyze select 1",
    "use memory",
    "pivot task on title using count(*)",
    "select 1; select 2",
    "select 1; drop table task",
    "",
    " ; -- nothing",
]
FORBIDDEN = [
    "with x as (delete from task returning *) select * from x",
    "with x as (insert into task (kid) values (1) returning *) select * from x",
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/passwd')",
    "select * from read_parquet('*.parquet')",
    "select * from glob('/*')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from which_secret('a', 'b')",
]
WRONG = [
    "selec 1",
    "select nothing from task",
    "select * from no_such_table",
    "select * from '/etc/passwd'",
    "select getenv('HOME')",
    "select 'x'::int",
    "select * from query('delete from task')",
    "select " + "(" * 5000 + "1" + ")" * 5000,
]


async def refused(store: Store, sql: str) -> BusError:
    with pytest.raises(BusError) as caught:
        await ask(store, sql)
    text = str(caught.value)
    # Nothing about this machine: no folder of the store, of the interpreter or of a home.
    assert str(store.path.parent) not in text
    assert "site-packages" not in text
    assert str(Path.home()) not in text
    return caught.value


async def test_only_one_select_is_run(store: Store) -> None:
    await _all_refused(store, NOT_A_SELECT, InvalidRequest, "not_select")


async def test_a_select_can_neither_write_nor_reach_a_file(store: Store) -> None:
    await _all_refused(store, FORBIDDEN, Refused, "forbidden")
    assert not Path("/tmp/stolen.csv").exists()


async def test_an_error_says_what_the_database_said(store: Store) -> None:
    await _all_refused(store, WRONG, InvalidRequest, "sql", "unknown_name")
    error = await refused(store, "select * from no_such_table")
    assert "no_such_table" in str(error)
    assert "task_labels" in str(error)


async def _all_refused(store: Store, texts: list[str], kind: type[BusError], *codes: str) -> None:
    """Every text ends in such an error. They run side by side, because each starts a process."""
    limiter = anyio.CapacityLimiter(2)

    async def one(sql: str) -> None:
        async with limiter:
            error = await refused(store, sql)
        assert (type(error), error.code in codes) == (kind, True), (sql[:80], error.code, str(error))

    async with anyio.create_task_group() as tasks:
        for sql in texts:
            tasks.start_soon(one, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "with recursive r(a) as (select 1 union all select a + 1 from r) select max(a) from r",
        "select count(*) from range(100000000000) a(i) where i % 7 = 8",
        "select sum(a.i * b.i) from range(1000000) a(i), range(1000000) b(i)",
    ],
)
async def test_what_has_no_end_is_stopped(store: Store, sql: str) -> None:
    started = time.monotonic()
    with pytest.raises(Refused, match=r"longer than 0\.5 s") as caught:
        await ask(store, sql, timeout_s=0.5)
    assert caught.value.code == "timeout"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "sql",
    [
        "select list(i) from range(1000000000) t(i)",
        "select string_agg(repeat('y', 1000), '') from range(100000000)",
        "select length(repeat('x', 3000000000))",
    ],
)
async def test_what_eats_memory_is_stopped(store: Store, sql: str) -> None:
    with pytest.raises(Refused) as caught:
        await ask(store, sql, memory_mb=100)
    assert caught.value.code in ("memory", "stopped")


async def test_nothing_is_left_behind_and_the_tables_are_untouched(store: Store) -> None:
    before = sorted(store.path.parent.iterdir())
    await ask(store, "select * from event")
    with anyio.move_on_after(0.5):
        await ask(store, "select count(*) from range(100000000000) a(i) where i % 7 = 8")
    with pytest.raises(InvalidRequest):
        await ask(store, "delete from task")
    assert sorted(store.path.parent.iterdir()) == before
    assert len((await ask(store, "select * from task")).rows) == 2
