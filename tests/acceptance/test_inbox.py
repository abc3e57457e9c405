"""Eight processes write and three slow ones read, and agents, daemon and server are killed meanwhile: each reader gets
every message, once and in order.

SYNBUS_INBOX_MESSAGES=10000 sends so many instead of the default few.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from bus.domain import channel, dm, inbox
from tests.acceptance.readers import PAGE, READERS, Notes, taken
from tests.acceptance.support import Child, Rig, until

WRITERS = 8
MESSAGES = int(os.environ.get("SYNBUS_INBOX_MESSAGES", "1600"))
KILLS = ("iris", "daemon", "writer-0", "server", "nova", "daemon")
PATIENCE_S = 300.0


class Crowd:
    """The processes of all agents by name."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.children: dict[str, Child] = {}
        self.progress = {name: Progress(self.notes(name).path) for name in READERS}

    def start(self, name: str) -> None:
        mode, count = ("read", MESSAGES) if name in READERS else ("write", MESSAGES // WRITERS)
        place = ("--home", str(self.rig.home.path), "--agent", name, "--count", str(count))
        self.children[name] = self.rig.spawn("tests.acceptance.readers", mode, *place)

    def begin(self, *names: str) -> None:
        for name in names:
            assert self.children[name].line() == "ready"
            self.children[name].begin()

    def kill(self, victim: str) -> None:
        if victim not in self.children:
            self.rig.kill(victim)
            return
        self.children[victim].kill()
        self.start(victim)
        self.begin(victim)

    def notes(self, name: str) -> Notes:
        return Notes(self.rig.folder / f"{name}.jsonl")

    def read(self) -> int:
        """How many messages all readers have acknowledged, roughly: a kill may hide a few."""
        return sum(self.progress[name].read() for name in READERS)


class Progress:
    """How far a reader is, by the lines that its file has got since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = self._count = 0
        self._page: list[int] = []

    def read(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._take(json.loads(line))
        return self._count

    def _take(self, line: dict[str, Any]) -> None:
        if "page" in line:
            self._page = [row[0] for row in line["page"]]
        elif "acked" in line:
            self._count += sum(seq <= line["acked"] for seq in self._page)


@pytest.mark.slow
async def test_three_slow_readers_get_every_message_of_eight_writers_once(rig: Rig) -> None:
    names = (*READERS, *(f"writer-{number}" for number in range(WRITERS)))
    for name in READERS:
        async with rig.connect(name) as bus:
            await bus.call(channel.Join(channel="dev"))
    crowd = Crowd(rig)
    for name in names:
        crowd.start(name)
    crowd.begin(*names)
    for number, victim in enumerate(KILLS, start=1):
        part = number * MESSAGES * len(READERS) // (len(KILLS) + 2)
        await until(lambda part=part: crowd.read() >= part, PATIENCE_S, f"{part} messages to be read")
        await anyio.to_thread.run_sync(crowd.kill, victim)
    for name in names:
        assert await anyio.to_thread.run_sync(crowd.children[name].line, PATIENCE_S) == "done"

    posted = [record for record in await rig.log() if record.headers["Bus-Type"] == "channel.posted"]
    assert len(posted) == MESSAGES
    for name in READERS:
        expected = []
        for record in posted:
            body = json.loads(record.data)
            reasons = ["channel", "mention"] if name in body.get("mentions", ()) else ["channel"]
            expected.append((record.seq, reasons, body["text"]))
            assert (f"@{name}" in body["text"]) == (reasons != ["channel"])
        lines = list(crowd.notes(name).read())
        assert taken(lines) == expected
        every_page_begins_where_the_last_one_was_acknowledged(lines, [record.seq for record in posted])
        async with rig.connect(name) as bus:
            left: inbox.Items = await bus.call(inbox.Peek())
            assert (left.items, left.remaining) == ([], 0)


def every_page_begins_where_the_last_one_was_acknowledged(lines: list[dict[str, Any]], posted: list[int]) -> None:
    """Nothing is shown again once it was acknowledged, and nothing is left out of a page."""
    place = {seq: number for number, seq in enumerate(posted)}
    mark = acking = 0
    for line in lines:
        if "acking" in line:
            acking = line["acking"]
        elif "acked" in line:
            mark = acking
        else:
            seqs = [row[0] for row in line["page"]]
            first = place[seqs[0]]
            assert len(seqs) <= PAGE
            assert seqs == posted[first : first + len(seqs)]
            # The reply to an acknowledgement may have been lost with the reader, its effect may not.
            before = posted[first - 1] if first else 0
            assert before in ({mark, acking} if mark else {0, acking}), (before, mark, acking)
            mark = before


async def test_who_was_away_is_told_how_much_waits_where_and_can_page_through_it(rig: Rig) -> None:
    said = {"dev": 230, "ops": 40}
    async with rig.connect("nova") as nova, rig.connect("atlas") as atlas:
        for name in said:
            await nova.call(channel.Join(channel=name))
        texts = []
        for name, count in said.items():
            for number in range(count):
                texts.append(f"{name} {number}" + (", @nova" if number % 10 == 0 else ""))
                await atlas.call(channel.Post(channel=name, text=texts[-1], after=nova.seq))
        texts.append("psst")
        await atlas.call(dm.Post(to="nova", text="psst"))
        nova.seq = away = atlas.seq

        counts: inbox.Counts = await nova.call(inbox.Digest())
        assert counts.unread == len(texts) == 271
        assert counts.reasons == {"channel": 270, "mention": 27, "dm": 1}
        piles = [(pile.channel or pile.dm, pile.unread, pile.reasons) for pile in counts.piles]
        assert piles == [
            ("dev", 230, {"channel": 230, "mention": 23}),
            ("ops", 40, {"channel": 40, "mention": 4}),
            ("atlas", 1, {"dm": 1}),
        ]
        first = counts.piles[1].first
        place = await nova.call(channel.Read(channel="ops", since=first - 1, limit=1))
        assert [message.text for message in place.messages] == ["ops 0, @nova"]

        page: inbox.Items = await nova.call(inbox.Peek(limit=50))
        assert (page.remaining, page.hint) == (221, inbox.MANY_HINT)
        seen: list[str] = []
        while page.items:
            seen += [item.text for item in page.items]
            assert page.remaining == len(texts) - len(seen)
            await nova.call(inbox.Ack(upto=page.upto))
            page = await nova.call(inbox.Peek(limit=50))
        assert seen == texts
        assert (await nova.call(inbox.Digest())).piles == []
        assert (await nova.call(inbox.Digest(as_of=away))).piles == counts.piles
