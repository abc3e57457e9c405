"""A reader polls while eight processes post and one of them is killed: every message reaches it, once and in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from bus.client import Bus
from bus.domain import channel, inbox
from tests.acceptance.support import NAMESPACE, Rig, running

WRITERS, MESSAGES, PAGE = 8, 40, 20
READER = "nova"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running(tmp_path) as rig:
        yield rig


@pytest.mark.slow
async def test_a_polling_reader_gets_every_message_of_eight_processes(rig: Rig) -> None:
    async with rig.connect(READER) as reader:
        await reader.call(channel.Join(channel="dev"))
        module = "tests.acceptance.test_inbox"
        writers = [rig.spawn(module, str(rig.home.path), f"writer-{number}") for number in range(WRITERS)]
        for writer in writers:
            assert writer.line() == "ready"
        for writer in writers:
            writer.begin()
        shown: list[inbox.Item] = []
        killed, *others = writers
        assert killed.line() == "half"
        killed.kill()
        while any(writer.process.poll() is None for writer in others):
            shown += await page(reader)
        for writer in others:
            assert [writer.line(), writer.line()] == ["half", "done"]
        while items := await page(reader):
            shown += items

    posted = [record for record in await rig.log() if record.headers["Bus-Type"] == "channel.posted"]
    assert MESSAGES * (WRITERS - 1) + MESSAGES // 2 <= len(posted) < MESSAGES * WRITERS
    assert [item.seq for item in shown] == [record.seq for record in posted]
    # What a killed writer has posted is there with its mention: they are one event.
    for item, record in zip(shown, posted, strict=True):
        mentioned = READER in json.loads(record.data).get("mentions", [])
        assert item.reasons == (["channel", "mention"] if mentioned else ["channel"])
        assert mentioned == (f"@{READER}" in item.text)


async def page(reader: Bus) -> list[inbox.Item]:
    """The next unread items, acknowledged."""
    items: inbox.Items = await reader.call(inbox.Peek(limit=PAGE))
    if items.items:
        await reader.call(inbox.Ack(upto=items.upto))
    return items.items


async def write(home: str, name: str) -> None:
    """What a writer's process does."""
    async with Bus.connect(name, home=home, namespace=NAMESPACE) as bus:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(MESSAGES):
            text = f"{name} {number}" + (f", look @{READER}" if number % 2 else "")
            await bus.call(channel.Post(channel="dev", text=text))
            if number + 1 == MESSAGES // 2:
                print("half", flush=True)
        print("done", flush=True)


if __name__ == "__main__":
    anyio.run(write, sys.argv[1], sys.argv[2])
