"""Followers of a channel, an inbox and the task board, as people start them: whatever is killed, each shows everything
that comes, once and in order."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import anyio.to_thread

from bus import Bus
from bus.domain import channel
from bus.domain import task_requests as task
from tests.acceptance.commands import Follower, Repo, fresh_repo, listening
from tests.acceptance.support import wait_until

__all__ = ["fresh_repo"]
KILLS = {3: "server", 7: "daemon", 11: "supervisor", 15: "server"}
TOTAL = 20


def shown(follower: Follower, number: int) -> list[Any]:
    """The next so many lines."""
    return [json.loads(follower.line("")) for _ in range(number)]


def kill(repo: Repo, victim: str) -> None:
    pid: int = wait_until(lambda: repo.status()[victim], what=f"a {victim} to kill")
    os.kill(pid, signal.SIGKILL)


async def test_every_follower_goes_on_without_gap_or_repeat(fresh: Repo) -> None:
    assert fresh.bus("init").code == 0
    fresh.ok("join", "live", "--as", "nova")
    fresh.ok("post", "live", "begin", "--as", "atlas")
    fresh.ok("task", "open", "begin", "--task", "begin", "--as", "atlas")
    with (
        listening(fresh, "channel", "read", "live", "--follow", "--json") as room,
        listening(fresh, "inbox", "--follow", "--json", "--as", "nova") as inbox,
        listening(fresh, "task", "board", "--follow", "--json") as board,
    ):
        for follower in (room, inbox):
            assert [item["text"] for item in shown(follower, 1)] == ["begin"]
        assert [row["task"] for row in shown(board, 1)] == ["begin"]
        async with Bus.connect("atlas", home=fresh.home, namespace=fresh.path.name) as atlas:
            for number in range(TOTAL):
                await atlas.call(channel.Post(channel="live", text=str(number)))
                await atlas.call(task.Open(task=f"t{number}", title="x"))
                await atlas.call(task.Claim(task=f"t{number}", lease_s=600))
                if number in KILLS:
                    await anyio.to_thread.run_sync(kill, fresh, KILLS[number])
            await atlas.call(task.Complete(task=f"t{TOTAL - 1}"))
            await atlas.call(channel.Post(channel="live", text="end"))
        numbers = [*map(str, range(TOTAL)), "end"]
        for follower in (room, inbox):
            assert [item["text"] for item in shown(follower, TOTAL + 1)] == numbers
        every_task_comes_to_its_end_once(board)
        for follower in (room, inbox, board):
            done = follower.interrupt()
            assert (done.code, done.out) == (130, ""), "nothing is repeated"


def every_task_comes_to_its_end_once(board: Follower) -> None:
    """Each line is a task after a change that no line before it has shown; the last one is the last change."""
    lines: list[tuple[str, int, str]] = []
    while not lines or lines[-1][::2] != (f"t{TOTAL - 1}", "done"):
        (row,) = shown(board, 1)
        lines.append((row["task"], row["seq"], row["state"]))
    assert [seq for _, seq, _ in lines] == sorted({seq for _, seq, _ in lines})
    ends = {name: state for name, _, state in lines}
    assert ends == {f"t{number}": "claimed" for number in range(TOTAL - 1)} | {f"t{TOTAL - 1}": "done"}
