"""A home on a file system that really becomes full: writing is refused with a clear error, nothing that was
acknowledged is lost, and the bus works again when there is room. Mounting needs root; else these tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from bus.client import Bus
from bus.domain import channel
from bus.domain import task_requests as task
from bus.errors import BusError, Refused, Unavailable
from tests.acceptance.support import running

MEGABYTE = 1_000_000
PATIENCE_S = 180.0
TOO_MUCH = "there is no room for this" * 4_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk until `leave` bytes are free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        while (room := shutil.disk_usage(disk).free - leave) > 0:
            file.write(bytes(min(room, MEGABYTE)))
            file.flush()
    return ballast


async def refusal(bus: Bus, text: str) -> BusError | None:
    """Why a message is not taken, or nothing if it is."""
    try:
        await bus.call(channel.Post(channel="dev", text=text))
    except BusError as error:
        return error
    return None


async def read(bus: Bus) -> list[str]:
    """The texts of all messages, oldest first."""
    texts: list[str] = []
    since = 0
    while page := (await bus.call(channel.Read(channel="dev", limit=20, since=since))).messages:
        texts += [message.text for message in page]
        since = page[-1].seq
    return texts


async def test_below_the_reserve_only_what_closes_is_accepted(disk: Path) -> None:
    with running(disk, f"[log]\ndisk_reserve_bytes = {10 * MEGABYTE}\n") as rig:
        async with rig.connect() as bus:
            await bus.call(channel.Open(channel="dev"))
            opened = await bus.call(task.Open(title="fix it"))
            await bus.call(task.Claim(task=opened.task))
            ballast = fill(disk, leave=6 * MEGABYTE)
            with anyio.fail_after(PATIENCE_S):
                while (error := await refusal(bus, "hello")) is None:
                    await anyio.sleep(0.1)
            assert isinstance(error, Refused)
            assert error.code == "quota"
            assert "the disk is nearly full" in str(error)
            assert "free some space" in (error.problem.hint or "")
            await bus.call(task.Complete(task=opened.task, result="done all the same"))
            ballast.unlink()
            with anyio.fail_after(PATIENCE_S):
                while await refusal(bus, "there is room again"):
                    await anyio.sleep(0.1)


@pytest.mark.slow
async def test_a_disk_without_room_costs_nothing_that_was_acknowledged(disk: Path) -> None:
    """nats-server does not write again after it has met a full disk: it has to be started again."""
    with running(disk, "[log]\ndisk_reserve_bytes = 0\n") as rig:
        async with rig.connect(timeout_s=5) as bus:
            await bus.call(channel.Open(channel="dev"))
            server = rig.pid("server")
            texts = [f"{number} " + "x" * 100_000 for number in range(20)]
            for text in texts:
                await bus.call(channel.Post(channel="dev", text=text))
            while True:
                ballast = fill(disk, leave=0)
                error = await refusal(bus, TOO_MUCH)
                ballast.unlink()
                if isinstance(error, Unavailable):
                    break
                # The daemon has looked just now, and did not even try.
                assert isinstance(error, Refused)
                with anyio.fail_after(PATIENCE_S):
                    while await refusal(bus, "there is room"):
                        await anyio.sleep(0.1)
            assert error.problem.hint
            with anyio.fail_after(PATIENCE_S):
                while await refusal(bus, "there is room again"):
                    await anyio.sleep(0.1)
            assert rig.pid("server") != server
            stored = await read(bus)
    assert [text for text in stored if text in texts] == texts
    assert stored.count(TOO_MUCH) <= 1
