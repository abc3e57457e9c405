"""One agent of the demo: takes the best waiting task, really reads that file, reports, completes, and again.

Run by `ops/story.py` as a process of its own: reviewer.py NAME [HANG_AT]. With HANG_AT it stops moving in the middle of
that task (counted from 1), so that it can be killed there.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import anyio

from bus import Bus
from bus.domain import channel, task_requests
from bus.errors import NotFound

LEASE_S = 4
ROOT = Path(__file__).resolve().parent.parent


def analyse(path: Path) -> str:
    """Sizes, definitions and imports of one Python file, in one line."""
    text = path.read_text()
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    classes = sum(isinstance(node, ast.ClassDef) for node in nodes)
    imports: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imports |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports.add(node.module.split(".")[0])
    longest = max(
        (node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef) and node.end_lineno),
        default=0,
    )
    lines = text.count("\n")
    return (
        f"{lines} lines, {classes} classes, {functions} functions (longest {longest} lines), "
        f"imports {', '.join(sorted(imports - {'__future__'})) or 'nothing'}"
    )


def summarise(folder: str) -> str:
    """What a folder holds, for the task that closes it."""
    files = sorted((ROOT / folder).rglob("*.py"))
    lines = sum(path.read_text().count("\n") for path in files)
    return f"{len(files)} files, {lines} lines"


async def work(name: str, hang_at: int) -> None:
    async with Bus.connect(agent=name) as bus:
        await bus.call(channel.Join(channel="review"))
        print("ready", flush=True)
        taken = 0
        while True:
            try:
                claim = await bus.call(task_requests.Next(lease_s=LEASE_S))
            except NotFound:
                if await finished(bus):
                    return
                # Everything left is held by others or blocked by what they hold.
                await anyio.sleep(0.1)
                continue
            taken += 1
            fence = f"{claim.task}:{claim.fence}"
            print(f"claimed {claim.task} {claim.fence} {claim.title}", flush=True)
            if taken == hang_at:
                print("hanging", flush=True)
                await anyio.sleep_forever()
            target = claim.title.removeprefix("review ").removeprefix("sum up ")
            summing = claim.title.startswith("sum up")
            finding = summarise(target) if summing else analyse(ROOT / target)
            post = channel.Post(channel="review", text=f"{target}: {finding}", refs=(claim.seq,), fence=fence)
            posted = await bus.call(post)
            done = task_requests.Complete(task=claim.task, result=finding, refs=(posted.seq,), fence=fence)
            await bus.call(done)
            print(f"done {claim.task} {claim.fence} {claim.title}", flush=True)


async def finished(bus: Bus) -> bool:
    counts = (await bus.call(task_requests.Board(limit=1))).counts
    return not (counts["open"] or counts["blocked"] or counts["claimed"])


if __name__ == "__main__":
    anyio.run(work, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
