"""How a process that serves a home ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from bus import home as homes
from cli import serving


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("structlog.configure", lambda **_: None)
    return homes.create(tmp_path / "bus").path


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_cannot_go_on_ends_with_its_status(path: Path, depth: int) -> None:
    async def serve(*_: Any) -> None:
        await failing(depth)

    async def failing(depth: int) -> None:
        if not depth:
            raise serving.Ended("the server is stuck", 75)
        async with anyio.create_task_group() as parts:
            parts.start_soon(failing, depth - 1)

    with capture_logs() as told, pytest.raises(SystemExit) as ended:
        serving.run(serve, path)
    assert ended.value.code == 75
    assert [line["why"] for line in told] == ["the server is stuck"]


def test_a_defect_is_raised_as_it_is(path: Path) -> None:
    async def serve(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serving.run(serve, path)
