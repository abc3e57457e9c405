"""The store: what is written once, what is read as of when and by whom, and how it is closed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from bus.clock import EPOCH
from bus.domain.channel import ChannelJoined, ChannelOpened, ChannelPosted
from bus.domain.dm import DmPinned, DmPosted
from bus.domain.task import TaskAmended, TaskOpened
from bus.errors import Defect, InvalidRequest, Refused, Unavailable
from bus.events import MSG_ID, RequestId
from bus.operation import FAMILIES
from bus.subjects import TENANT
from bus.world import World
from projections import loading
from projections.query import any_of
from projections.reader import Reader
from projections.schema import OPEN
from projections.store import MANY_ROWS, ROW_GROUP, Store
from projections.views.events import EVENT
from tests.unit.folding import T0, VIEW, Folding, Remembered


@pytest.fixture(params=[1, MANY_ROWS], ids=["as text", "one by one"])
async def folding(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("projections.store.MANY_ROWS", request.param)
    async with Store.opened(tmp_path, FAMILIES, (VIEW,)) as store:
        yield Folding(store)


async def test_long_texts_are_packed_and_rows_are_skipped_in_small_groups(folding: Folding) -> None:
    for number in range(ROW_GROUP + 1):
        folding.happens("task", f"t-{number}", TaskOpened(title="x", body="something longer"))
    folding.write()
    folding.store._all("checkpoint")
    columns = "column_name, row_group_id, compression"
    sql = f"select {columns} from pragma_storage_info('event') where segment_type != 'VALIDITY'"
    found = folding.store._all(sql)
    assert {group for column, group, _ in found if column == "seq"} == {0, 1}
    assert {packed for column, _, packed in found if column == "data"} == {"ZSTD"}
    assert "ZSTD" not in {packed for column, _, packed in found if column != "data"}


# --- writing and reading ------------------------------------------------------------------------------------------


async def test_versions_are_closed_within_their_batch_and_across_batches(folding: Folding) -> None:
    opened = folding.happens("task", "t-1", TaskOpened(title="one", labels=("a", "b")))
    folding.happens("task", "t-1", TaskAmended(title="two", labels=("b", "c")))
    folding.write()
    folding.happens("task", "t-1", TaskAmended(title="three", labels=("a",)))
    folding.write()

    titles = [[row[4] for row in await folding.rows_of("task", seq)] for seq in range(4)]
    labels = [[(row[1], row[4]) for row in await folding.rows_of("task_labels", seq)] for seq in range(4)]
    assert titles == [[], ["one"], ["two"], ["three"]]
    assert labels == [[], [(1, "a"), (1, "b")], [(1, "b"), (2, "c")], [(3, "a")]]
    assert (await folding.rows_of("task"))[0][0] == opened

    def ends(reader: Reader) -> list[Any]:
        return reader.rows(f"select seq_from, seq_to from {reader.history('task')} order by 1")

    assert await folding.store.read(3, "ada", EPOCH, ends) == [(1, 2), (2, 3), (3, OPEN)]
    assert await folding.store.read(2, "ada", EPOCH, ends) == [(1, 2), (2, OPEN)]


async def test_nothing_read_as_of_a_moment_knows_what_came_later(folding: Folding) -> None:
    folding.happens("task", "t-1", TaskOpened(title="one"))
    folding.write()
    before = await folding.rows_of("task", 1)
    folding.happens("task", "t-1", TaskAmended(title="two"))
    folding.write()
    assert await folding.rows_of("task", 1) == before
    assert all(OPEN not in row for row in before)


async def test_only_the_readers_of_a_conversation_see_it(folding: Folding) -> None:
    message = folding.happens("dm", "ada+bob", DmPosted(text="secret", to="bob"))
    folding.happens("dm", "ada+bob", DmPinned(message=message))
    folding.write()
    for table in ("dm", "dm_pins", "event"):
        for agent, sees in (("ada", True), ("bob", True), ("cyd", False), ("ad", False), ("", False)):
            assert bool(await folding.rows_of(table, agent=agent)) is sees, (table, agent)
        assert await folding.rows_of(table, agent="cyd", sees_all=True)

    def history(reader: Reader) -> list[Any]:
        return reader.rows(f"select 1 from {reader.history('dm')}")

    assert await folding.store.read(2, "cyd", EPOCH, history) == []


async def test_events_keep_what_was_written_readable_or_not(folding: Folding) -> None:
    request = RequestId("r1", "d" * 16)
    folding.happens("task", "t-1", TaskOpened(title="é"), request=request, causes=(), correlation="all")
    folding.happens("task", "t-2", TaskOpened(title="b"), causes=(1, 1))
    folding.log.put("log.default.task.7", {MSG_ID: "x", "Bus-At": "long ago"}, b"\xff{")
    folding.take()
    folding.log.put("not.a.log.subject", {}, b"")
    folding.take()
    folding.write()
    columns = list(EVENT.columns)
    rows = [dict(zip(columns, row, strict=True)) for row in await folding.rows_of("event")]
    assert rows[0]["data"] == '{"title":"é"}'
    assert (rows[0]["request"], rows[0]["request_digest"], rows[0]["correlation"]) == ("r1", "d" * 16, "all")
    assert rows[0]["time"] == datetime.fromtimestamp(T0 / 1e9, UTC).replace(tzinfo=None)
    assert (rows[0]["causes"], rows[1]["causes"]) == (None, [1, 1])
    assert (rows[2]["data"], rows[2]["happened"]) == ("�{", "long ago")
    assert "Bus-Type" in rows[2]["problem"]
    assert rows[3]["family"] == ""
    assert folding.rows.skipped.total() == loading.skipped(folding.store.chunks).total() == 2


async def test_as_of_a_time_is_a_prefix_even_when_the_clock_was_set_back(folding: Folding) -> None:
    folding.times = [100, 300, 200, 400]
    for number in range(4):
        folding.happens("task", f"t-{number}", TaskOpened(title="x"))
    folding.write()
    moments = (0, 99, 100, 250, 299, 300, 399, 400, 10**15)
    found = await folding.store.read(4, "ada", EPOCH, lambda reader: {at: reader.seq_at(at) for at in moments})
    assert found == {0: 0, 99: 0, 100: 1, 250: 1, 299: 1, 300: 3, 399: 3, 400: 4, 10**15: 4}


async def test_versions_are_those_up_to_the_moment_that_may_be_seen(folding: Folding) -> None:
    said = folding.happens("dm", "ada+bob", DmPosted(text="secret", to="bob"))
    first, second = (folding.happens("dm", "ada+bob", DmPinned(message=pin)) for pin in (said, said + 1))
    folding.write()
    found = [
        await folding.store.read(seq, agent, EPOCH, lambda reader: reader.versions("dm", TENANT, "ada+bob"))
        for seq, agent in ((second, "bob"), (first, "bob"), (second, "cyd"))
    ]
    assert found == [[said, first, second], [said, first], []]


@pytest.mark.parametrize("wanted", [[], [2], [3, 1], [4, 3, 1], [9, 8, -7, 3, 6, 2, 5]])
async def test_rows_are_found_by_any_of_some_keys(folding: Folding, wanted: list[int]) -> None:
    for number in range(3):
        folding.happens("task", f"t-{number}", TaskOpened(title="x"))
    folding.write()
    sql = f"select seq from event where seq in {any_of(iter(wanted))} order by seq"
    found = await folding.store.read(3, "ada", EPOCH, lambda reader: reader.rows(sql))
    assert [seq for (seq,) in found] == sorted({1, 2, 3}.intersection(wanted))


async def test_a_reader_finds_entities_and_times(folding: Folding) -> None:
    folding.happens("channel", "dev", ChannelOpened())
    folding.happens("task", "t-1", TaskOpened(title="x"))
    folding.write()

    def read(reader: Reader) -> list[Any]:
        return [
            reader.kid("task", "default", "t-1"),
            reader.kid("task", "other", "t-1"),
            reader.kid("channel", "default", "dev"),
            reader.time_of(1),
            reader.time_of(9),
            reader.now,
        ]

    expected = [2, None, 1, datetime.fromtimestamp(T0 / 1e9, UTC), None, EPOCH]
    assert await folding.store.read(2, "ada", EPOCH, read) == expected
    folding.store.load_world(World(FAMILIES))
    assert await folding.store.read(2, "ada", EPOCH, read) == expected
    assert (await folding.store.read(1, "ada", EPOCH, read))[0] is None
    with pytest.raises(KeyError):
        await folding.store.read(2, "ada", EPOCH, lambda reader: reader.kid("seen", "default", "x"))


async def test_a_table_that_is_not_there_is_the_fault_of_the_one_who_asks(folding: Folding) -> None:
    with pytest.raises(InvalidRequest, match="no such table") as caught:
        await folding.rows_of("tusk")
    assert "task" in str(caught.value)


async def test_a_moment_that_is_not_in_the_tables_yet_is_not_guessed(folding: Folding) -> None:
    with pytest.raises(Unavailable, match="not caught up"):
        await folding.rows_of("task", 1)


async def test_many_rows_are_given_as_short_texts(folding: Folding, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MANY_ROWS", 3), ("PIECE_ROWS", 40), ("PIECE_CHARACTERS", 20_000)):
        monkeypatch.setattr(f"projections.store.{name}", value)
    texts: list[str] = []
    run = folding.store._all

    def noted(sql: str, params: Any = ()) -> list[Any]:
        if "from_json" in sql:
            texts.extend(params[0])
        return run(sql, params)

    monkeypatch.setattr(folding.store, "_all", noted)
    sizes = [10] * 80 + [2_000] * 20
    for number, size in enumerate(sizes):
        folding.happens("task", f"t-{number:03}", TaskOpened(title=f"title {number}", body="x" * size))
    folding.write()
    assert texts
    assert max(map(len, texts)) <= 20_000
    assert max(len(values) for text in texts for values in json.loads(text).values() if values) <= 40
    rows = await folding.rows_of("task")
    assert [(row[3], row[4]) for row in rows] == [(f"t-{number:03}", f"title {number}") for number in range(100)]
    assert [len(row[7]) for row in rows] == sizes


# --- exactly once -------------------------------------------------------------------------------------------------


async def test_a_batch_is_written_once(folding: Folding) -> None:
    folding.happens("task", "t-1", TaskOpened(title="x"))
    batch = folding.rows.cut()
    folding.store.commit(batch)
    with pytest.raises(Defect, match="does not continue"):
        folding.store.commit(batch)
    assert len(await folding.rows_of("event")) == folding.store.position == 1
    folding.happens("task", "t-2", TaskOpened(title="y"))
    folding.write()
    assert len(await folding.rows_of("event")) == folding.store.position == 2


async def test_a_store_goes_on_where_it_ended(tmp_path: Path) -> None:
    async with Store.opened(tmp_path, FAMILIES, (VIEW,)) as store:
        folding = Folding(store)
        folding.happens("task", "t-1", TaskOpened(title="x", labels=("a",)), request=RequestId("r1", "d1"))
        folding.happens("channel", "dev", ChannelOpened(), request=RequestId("r2", "d2"))
        folding.happens("channel", "dev", ChannelJoined(), request=RequestId("r2", "d2"))
        folding.write()
        chain = store.chain
    async with Store.opened(tmp_path, FAMILIES, (VIEW,), folding.log) as store:
        assert (store.position, store.chain, store.stored_ns) == (3, chain, T0 + 2_000_000_000)
        used = {name for name in store.schema.tables if store.indexes.news.may_be_in(name, 0)}
        assert used == {"event", "task", "task_labels", "channel", "channel_members", VIEW.tables[0].name}
        assert not store.indexes.news.may_be_in("task", 1)
        world, remembered = World(FAMILIES), Remembered()
        await store.load(world, remembered)
        assert remembered.seen == [("ada", "r1", 1), ("ada", "r2", 2), ("ada", "r2", 3)]
        assert (world.position, world.tips) == (3, folding.world.tips)
        for one in FAMILIES:
            assert list(world.entries(one.state)) == list(folding.world.entries(one.state))


# --- what no table can hold ---------------------------------------------------------------------------------------


async def test_what_no_column_can_hold_is_replaced_or_left_out(folding: Folding) -> None:
    folding.happens("task", "t-1", TaskOpened(title="good"))
    for number, title in enumerate(("raises", "narrow", "unstorable", "huge", "good"), 2):
        folding.happens("task", f"t-{number}", TaskOpened(title=title))
    with capture_logs() as logs:
        folding.write()
    assert [row[0] for row in await folding.rows_of("event")] == [1, 2, 3, 4, 5, 6]
    assert [row[1:3] for row in await folding.rows_of("seen")] == [("good", 1), ("bad ? text", OPEN), ("good", 6)]
    assert len(await folding.rows_of("task")) == 6
    assert folding.rows.failed == {"seen": 2}
    assert folding.store.dropped == 1
    assert {entry["event"] for entry in logs} == {
        "rows had to be cleaned",
        "a row was dropped: the table cannot hold it",
    }


async def test_items_that_no_table_can_hold_are_left_out_however_the_batches_fall(tmp_path: Path) -> None:
    found = []
    for cuts in ((2,), (1, 2)):
        async with Store.opened(tmp_path / str(len(cuts)), FAMILIES, (VIEW,)) as store:
            folding = Folding(store)
            for agent, number in (("ada", 1), ("bad \ud800", 2)):
                folding.log.put("log.default.channel.1", _headers("channel.opened", "dev", agent), b"{}")
                folding.take()
                folding.log.put("log.default.channel.1", _headers("channel.joined", "dev", agent), b"{}")
                folding.take()
                if number in cuts:
                    folding.write()
            found.append((await folding.rows_of("channel_members"), store.chain))
    assert found[0] == found[1]
    assert [row[-1] for row in found[0][0]] == ["ada"]


def _headers(type_: str, entity: str, agent: str) -> dict[str, str]:
    return {"Bus-Type": type_, "Bus-Schema": "1", "Bus-Entity": entity, "Bus-Agent": agent}


# --- reading takes its time ---------------------------------------------------------------------------------------

ENDLESS = "select count(*) from range(100000000000) a(i) where i % 7 = 8"


async def test_a_read_that_takes_too_long_is_interrupted_and_leaves_room_for_others(folding: Folding) -> None:
    folding.happens("task", "t-1", TaskOpened(title="x"))
    folding.write()
    for _ in range(3):
        with pytest.raises(Refused, match="took too long"):
            await folding.store.read(1, "ada", EPOCH, lambda reader: reader.rows(ENDLESS), timeout_s=0.1)
    with anyio.fail_after(10):
        assert len(await folding.rows_of("task")) == 1


async def test_a_read_that_is_cancelled_is_interrupted(folding: Folding) -> None:
    for _ in range(3):
        with anyio.move_on_after(0.1) as scope:
            await folding.store.read(0, "ada", EPOCH, lambda reader: reader.rows(ENDLESS))
        assert scope.cancelled_caught
    with anyio.fail_after(10):
        assert await folding.rows_of("task") == []


async def test_reading_and_writing_do_not_wait_for_each_other(folding: Folding) -> None:
    folding.happens("task", "t-1", TaskOpened(title="x"))
    folding.write()
    entered, leave = anyio.Event(), anyio.Event()

    def slow(reader: Reader) -> tuple[int, int]:
        first = len(reader.rows(f"select * from {reader.at('task')}"))
        anyio.from_thread.run_sync(entered.set)
        anyio.from_thread.run(leave.wait)
        return first, len(reader.rows(f"select * from {reader.at('task')}"))

    counts: list[tuple[int, int]] = []

    async def read() -> None:
        counts.append(await folding.store.read(1, "ada", EPOCH, slow))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await entered.wait()
            folding.happens("task", "t-2", TaskOpened(title="y"))
            folding.happens("channel", "dev", ChannelPosted(text="early"))
            await folding.store.write(folding.rows.cut())
            await folding.store.reached(3)
            leave.set()
    assert counts == [(1, 1)]
    assert len(await folding.rows_of("task")) == 2


# --- closing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
async def test_only_a_file_that_is_kept_is_made_whole_when_it_is_closed(folding: Folding, keep: bool) -> None:
    seq = folding.happens("task", "t-1", TaskOpened(title="x"))
    folding.write()
    path = folding.store.path
    await folding.store.close(keep=keep)
    assert Path(f"{path}.wal").exists() is not keep
    again = Store(path, folding.store.schema)
    assert again.position == seq
    await again.close()
    assert not Path(f"{path}.wal").exists()


async def test_events_are_indexed_in_every_file(folding: Folding) -> None:
    folding.happens("task", "t-1", TaskOpened(title="x"))
    folding.write()
    folding.store._all("drop index events")
    await folding.store.close()
    again = Store(folding.store.path, folding.store.schema)
    assert again._all("select index_name, table_name from duckdb_indexes()") == [("events", "event")]
    assert again._all("select seq from event where seq in (1, 2)") == [(1,)]
    await again.close()


async def test_there_is_room_for_the_index_of_all_events(folding: Folding, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("INDEX_BYTES", 1 << 30), ("ROOMLESS", 2)):
        monkeypatch.setattr(f"projections.store.{name}", value)

    def limit(store: Store) -> str:
        ((found,),) = store._all("select current_setting('memory_limit')")
        return str(found)

    limits = [limit(folding.store)]
    for number in range(4):
        folding.happens("task", f"t-{number}", TaskOpened(title="x"))
        folding.write()
        limits.append(limit(folding.store))
    assert limits == ["244.1 MiB"] * 3 + ["6.2 GiB"] * 2
    await folding.store.close()
    again = Store(folding.store.path, folding.store.schema)
    assert limit(again) == "8.2 GiB"
    await again.close()


async def test_a_store_that_was_closed_does_not_keep_readers_waiting(folding: Folding) -> None:
    await folding.store.close()
    with pytest.raises(Refused, match="took too long"):
        await folding.rows_of("task", timeout_s=0.1)
