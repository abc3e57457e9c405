"""Files that a store cannot use: set aside when their tables can be made again, left alone when somebody has them."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bus.domain.task import TaskOpened
from bus.errors import Unavailable
from bus.events import MSG_ID
from bus.log import MemoryLog
from bus.operation import CODEC, FAMILIES
from bus.world import World
from projections.schema import FactView, Schema
from projections.store import FILE, Store
from projections.views.events import EVENT
from tests.unit.folding import SEEN, T0, VIEW, Folding, Remembered, fold


async def made(folder: Path, views: tuple[FactView, ...] = (VIEW,)) -> MemoryLog:
    """A store of one event in `folder`; its log."""
    async with Store.opened(folder, FAMILIES, views) as store:
        folding = Folding(store)
        folding.happens("task", "t-1", TaskOpened(title="x"))
        folding.write()
    return folding.log


async def begins_empty(folder: Path, why: str, log: MemoryLog | None = None) -> None:
    with capture_logs() as logs:
        async with Store.opened(folder, FAMILIES, (VIEW,), log) as store:
            assert store.position == 0
            assert [entry["log_level"] for entry in logs] == ["warning"]
            assert why in logs[0]["reason"]
            folding = Folding(store)
            folding.happens("task", "t-1", TaskOpened(title="x"))
            folding.write()
            assert len(await folding.rows_of("task")) == 1
    assert (folder / FILE).with_suffix(".aside").exists()


@pytest.mark.parametrize("where", [0, 5000, 20000])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, where: int) -> None:
    await made(tmp_path)
    data = bytearray((tmp_path / FILE).read_bytes())
    data[where : where + 4000] = b"?" * len(data[where : where + 4000])
    (tmp_path / FILE).write_bytes(data)
    await begins_empty(tmp_path, "damaged")


async def test_damage_that_shows_only_when_rows_are_read_is_met_at_the_start(tmp_path: Path) -> None:
    async with Store.opened(tmp_path, FAMILIES, (VIEW,)) as store:
        folding = Folding(store)
        for number in range(3000):
            # Text that does not compress: the rows have to fill many blocks of the file.
            noise = sha256(str(number).encode()).hexdigest() * 10
            folding.happens("task", f"t-{number}", TaskOpened(title=noise, body=noise[::-1]))
        folding.write()
    data = bytearray((tmp_path / FILE).read_bytes())
    assert len(data) > 1_000_000
    for start in range(len(data) // 4, len(data) * 3 // 4, 50_000):
        data[start : start + 64] = b"?" * 64
    (tmp_path / FILE).write_bytes(data)
    with capture_logs() as logs:
        async with Store.opened(tmp_path, FAMILIES, (VIEW,), folding.log) as store:
            world, remembered = World(FAMILIES), Remembered()
            await store.load(world, remembered)
            assert (store.position, world.position, remembered.seen) == (0, 0, [])
            assert not any(list(world.entries(one.state)) for one in FAMILIES)
            again = Folding(store)
            again.happens("task", "t-1", TaskOpened(title="x"))
            again.write()
            assert len(await again.rows_of("task")) == 1
    assert "damaged" in logs[0]["reason"]


async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all" * 1000)
    await begins_empty(tmp_path, "damaged")


async def test_a_database_of_somebody_else_is_set_aside(tmp_path: Path) -> None:
    script = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('create table t (a int)').fetchall()"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / FILE)], check=True, capture_output=True)
    await begins_empty(tmp_path, "not one of Synbus")


async def test_tables_of_another_version_are_set_aside(tmp_path: Path) -> None:
    await made(tmp_path, (FactView(tables=(SEEN,), fold=fold, version=2),))
    await begins_empty(tmp_path, "another version")


async def test_tables_of_another_or_a_longer_log_are_set_aside(tmp_path: Path) -> None:
    for number, (records, why) in enumerate(((1, "is another one"), (0, "the log ends at #0"))):
        await made(tmp_path / str(number))
        other = MemoryLog(CODEC, lambda: T0)
        for _ in range(records):
            other.put("log.default.task.1", {MSG_ID: "somebody else's"}, b"{}")
        await begins_empty(tmp_path / str(number), why, other)


async def test_tables_of_this_log_are_kept(tmp_path: Path) -> None:
    log = await made(tmp_path)
    async with Store.opened(tmp_path, FAMILIES, (VIEW,), log) as store:
        assert store.position == 1


async def test_a_missing_file_is_simply_made(tmp_path: Path) -> None:
    log = await made(tmp_path)
    (tmp_path / FILE).unlink()
    with capture_logs() as logs:
        async with Store.opened(tmp_path, FAMILIES, (VIEW,), log) as store:
            assert store.position == 0
    assert logs == []


async def test_a_file_that_another_process_has_open_is_left_alone(tmp_path: Path) -> None:
    await made(tmp_path)
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / FILE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Unavailable, match="another process"):
            Store(tmp_path / FILE, Schema(FAMILIES, (VIEW,), EVENT))
        other.communicate()
    async with Store.opened(tmp_path, FAMILIES, (VIEW,)) as store:
        assert store.position == 1
