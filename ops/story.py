"""The demo: four agent processes review this repository, one is killed with -9, and the log proves what happened.

Everything runs in a bus of its own in a temporary directory; at the end nothing is left, no process and no file.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import msgspec
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bus import Bus
from bus.domain import agent, channel, task_requests
from bus.errors import Refused

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bus", "projections", "cli", "ops")
AGENTS = ("atlas", "nova", "ember", "wren")
VICTIM, HANG_AT = "ember", 3
URGENT = {"bus/execute.py": 5, "bus/events.py": 5}

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    console.print(text)


def command(*arguments: str, quiet: bool = False) -> str:
    """Run `bus …` as a user would, and show it."""
    if not quiet:
        console.print(f"\n$ bus {shlex.join(arguments)}", style="bold cyan", markup=False)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "bus"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bus {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    if not quiet:
        console.print(done.stdout.rstrip(), markup=False)
    return done.stdout


async def open_tasks(bus: Bus) -> int:
    """One task per source file; a task per folder that needs all of its files' tasks. -> how many."""
    count = 0
    for folder in FOLDERS:
        needs = []
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            priority = URGENT.get(name, 1 if folder == "bus" else 0)
            request = task_requests.Open(title=f"review {name}", priority=priority, labels=("python", folder))
            needs.append((await bus.call(request)).task)
            count += 1
        await bus.call(task_requests.Open(title=f"sum up {folder}", priority=9, needs=tuple(needs[:100])))
        count += 1
    return count


class Story:
    """What the agents tell while they work."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.progress = progress
        self.bar: TaskID = progress.add_task("reviewed", total=total)
        self.done: dict[str, int] = dict.fromkeys(AGENTS, 0)
        self.stale: tuple[str, int, str] | None = None
        self.killed_at = 0.0
        self.held: tuple[str, int, str] | None = None

    async def watch(self, name: str, process: Process) -> None:
        """Read one agent's lines; kill the victim when it hangs."""
        assert process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(process.stdout):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                await self.hear(name, line, process)

    async def hear(self, name: str, line: str, process: Process) -> None:
        word, _, about = line.partition(" ")
        if word == "claimed":
            task, fence, title = about.split(" ", 2)
            if name == VICTIM:
                self.held = (task, int(fence), title)
            elif self.stale is not None and task == self.stale[0]:
                after = time.monotonic() - self.killed_at
                say(f"  [green]{name}[/] takes over “{title}” {after:.1f} s later, under fence {fence}")
        elif word == "done":
            self.done[name] += 1
            self.progress.advance(self.bar)
        elif word == "hanging":
            assert self.held is not None
            self.stale, self.killed_at = self.held, time.monotonic()
            process.kill()
            say(f"  [red]{name}[/] is killed with -9 in the middle of “{self.held[2]}” (fence {self.held[1]})")


async def review(total: int) -> Story:
    """Run the agents until everything is done."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        story = Story(total, progress)
        async with anyio.create_task_group() as tasks:
            for name in AGENTS:
                arguments = [sys.executable, str(ROOT / "ops" / "reviewer.py"), name]
                if name == VICTIM:
                    arguments.append(str(HANG_AT))
                process = await anyio.open_process(arguments, stderr=None)
                tasks.start_soon(story.watch, name, process)
        return story


async def late_write(stale: tuple[str, int, str]) -> None:
    """What the killed agent would have written had it come back: refused by its fence."""
    task, fence, _ = stale
    async with Bus.connect(agent=VICTIM) as bus:
        try:
            await bus.call(task_requests.Complete(task=task, result="late", fence=fence))
        except Refused as error:
            say(f"  [red]{VICTIM}[/]'s late write under fence {fence} is refused: [dim]{error}[/]")
        else:
            raise SystemExit("the late write was accepted")


async def play() -> tuple[int, int, int]:
    """-> three moments: after opening, at the kill, at the end."""
    async with Bus.connect(agent="lead") as bus:
        await bus.call(channel.Join(channel="review"))
        total = await open_tasks(bus)
        opened = bus.seq
        say(f"[bold]lead[/] opened {total} tasks, one for every source file, and one per folder that needs them all.")
        for name in AGENTS:
            async with Bus.connect(agent="owner") as owner:
                await owner.call(agent.Register(agent=name, harness="demo"))
        say(f"Four processes start: {', '.join(AGENTS)}.")
        story = await review(total)
        assert story.stale is not None
        await late_write(story.stale)
        for name, count in story.done.items():
            say(f"  {name:<6} finished {count}")
        counts = (await bus.call(task_requests.Board(limit=1))).counts
        if counts["done"] != total or sum(story.done.values()) != total:
            raise SystemExit(f"expected {total} tasks done once each, found {counts} and {story.done}")
        say(f"[bold green]All {total} tasks were done exactly once.[/]")
        return opened, story.stale[1], bus.seq


def prove(moments: tuple[int, int, int]) -> None:
    """Show the state of three moments, and that replaying the log gives what the tables say."""
    for seq, what in zip(moments, ("all tasks are open", "the victim has just claimed", "the end"), strict=True):
        say(f"\n[bold]As of #{seq}: {what}[/]")
        command(
            "replay", "--as-of", str(seq), "--sql", "select state, count(*) as tasks from task group by 1 order by 1"
        )
    proof = msgspec.json.decode(command("replay", "--from-log", "--verify", "--json", quiet=True))
    say("\n[bold cyan]$ bus replay --from-log --verify[/]")
    if not proof["equal"]:
        raise SystemExit(f"replay differs from the tables: {proof}")
    say(f"[bold green]equal[/]: {len(proof['tables'])} tables folded anew from {proof['events']} events, same digests")


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="synbus-demo-") as directory:
        os.environ |= {"BUS_HOME": f"{directory}/bus", "BUS_NAMESPACE": "demo"}
        for name in ("BUS_AGENT", "BUS_URL", "BUS_CREDS"):
            os.environ.pop(name, None)
        say("[bold]A bus of its own in a temporary directory.[/]")
        command("init", quiet=True)
        try:
            prove(anyio.run(play))
        finally:
            command("down", quiet=True)
    say(f"\nNothing is left running. {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
