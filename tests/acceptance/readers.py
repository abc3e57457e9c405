"""Processes of the inbox proof: writers that post, and readers that take what is addressed to them, a page at a time.

    python -m tests.acceptance.readers write|read --home H --agent A --count N

Both can be killed at any moment and started again: a file per agent says how far they came, and a line is on disk
before whatever it announces is done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio

from bus.client import Bus
from bus.domain import channel, inbox
from tests.acceptance.support import NAMESPACE

READERS = ("iris", "nova", "wren")
PAGE = 20


class Notes:
    """One agent's file of lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **line: Any) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[dict[str, Any]]:
        """All whole lines; a life that was ended by a kill may have left half a one."""
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield json.loads(line)


def text_of(writer: str, number: int) -> str:
    """What a writer says; every other message names one of the readers."""
    return f"{writer} {number}" + (f", look @{READERS[number % len(READERS)]}" if number % 2 else "")


async def write(bus: Bus, notes: Notes, count: int) -> None:
    """Post `count` messages in all, each under an id of its own: the one that was under way is only repeated."""
    start = max((line["posted"] + 1 for line in notes.read()), default=0)
    for number in range(start, count):
        post = channel.Post(channel="dev", text=text_of(bus.agent, number))
        await bus.call(post, request_id=f"{bus.agent}-{number}")
        notes.write(posted=number)


async def read(bus: Bus, notes: Notes, count: int) -> None:
    """Read pages and acknowledge them at random, whole or in part or not at all, until `count` messages are taken."""
    chance = random.Random(f"{bus.agent} {sum(1 for _ in notes.read())}")
    while len(taken(list(notes.read()))) < count:
        for _ in range(50):
            page: inbox.Items = await bus.call(inbox.Peek(limit=PAGE, wait_s=1))
            if not page.items:
                break
            notes.write(page=[[item.seq, item.reasons, item.text] for item in page.items])
            if chance.random() < 0.2:
                continue
            upto = page.upto if chance.random() < 0.5 else chance.choice(page.items).seq
            notes.write(acking=upto)
            await bus.call(inbox.Ack(upto=upto))
            notes.write(acked=upto)


def taken(lines: Sequence[dict[str, Any]]) -> list[tuple[int, list[str], str]]:
    """What a reader has seen, each as often as it was given it: the items of pages up to where it acknowledged them.
    Whether an acknowledgement counted that was under way when it was killed is told by the next page."""
    found: list[tuple[int, list[str], str]] = []
    page: list[Any] = []
    acking: int | None = None
    for line in lines:
        if "acking" in line:
            acking = line["acking"]
        if "acked" in line or ("page" in line and acking is not None and line["page"][0][0] > acking):
            assert acking is not None
            found += [(seq, reasons, text) for seq, reasons, text in page if seq <= acking]
            acking = None
        if "page" in line:
            page, acking = line["page"], None
    return found


async def main(arguments: argparse.Namespace) -> None:
    notes = Notes(arguments.home.parent / f"{arguments.agent}.jsonl")
    async with Bus.connect(arguments.agent, home=arguments.home, namespace=NAMESPACE) as bus:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await (write if arguments.mode == "write" else read)(bus, notes, arguments.count)
        print("done", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("write", "read"))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--count", type=int, required=True)
    anyio.run(main, parser.parse_args())
