"""The families end to end on a whole bus: what agents do with each other, what they read when, and who sees it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import anyio
import pytest

from bus.domain import agent, channel, dm, inbox, log
from bus.domain import task_requests as task
from bus.errors import BusError, InvalidRequest, NotFound, Refused
from tests.acceptance.support import Rig, running, until

SECRET = "the launch code is zebra-42"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("bus")) as rig:
        yield rig


def texts(messages: channel.message.Messages) -> list[str]:
    return [message.text for message in messages.messages]


async def test_a_conversation_in_a_channel(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova:
        await atlas.call(channel.Join(channel="talk"))
        await nova.call(channel.Join(channel="talk"))
        first = await atlas.call(channel.Post(channel="talk", text="who reviews? @nova @nobody"))
        assert first.mentions == ("nova",)
        reply = await nova.call(channel.Post(channel="talk", text="I do", reply_to=first.seq))
        await atlas.call(channel.Post(channel="talk", text="another matter"))
        edited = await atlas.call(channel.Edit(channel="talk", message=first.seq, text="who reviews PR 7?"))
        await nova.call(channel.React(channel="talk", message=first.seq, emoji="👍", after=edited.seq))
        await nova.call(channel.Pin(channel="talk", message=reply.seq))
        with pytest.raises(BusError, match="only its author"):
            await nova.call(channel.Edit(channel="talk", message=first.seq, text="forged"))

        page = await atlas.call(channel.Read(channel="talk", after=nova.seq))
        assert texts(page) == ["who reviews PR 7?", "I do", "another matter"]
        assert (page.messages[0].edited, page.messages[0].reactions) == (edited.seq, {"👍": ["nova"]})
        assert texts(await atlas.call(channel.Read(channel="talk", thread=first.seq))) == ["who reviews PR 7?", "I do"]
        assert texts(await atlas.call(channel.Read(channel="talk", pinned=True))) == ["I do"]
        assert texts(await atlas.call(channel.Read(channel="talk", since=reply.seq))) == ["another matter"]
        assert texts(await atlas.call(channel.Search(text="pr 7"))) == ["who reviews PR 7?"]
        assert texts(await atlas.call(channel.Search(text="nobody"))) == []
        before = await atlas.call(channel.Read(channel="talk", as_of=edited.seq - 1))
        assert texts(before)[0] == "who reviews? @nova @nobody"

        await nova.call(channel.Leave(channel="talk"))
        await atlas.call(channel.Archive(channel="talk"))
        with pytest.raises(Refused, match="archived"):
            await nova.call(channel.Post(channel="talk", text="too late"))
        rows = {row.channel: row for row in (await atlas.call(channel.List())).channels}
        assert (rows["talk"].archived, rows["talk"].members, rows["talk"].messages) == (True, ["atlas"], 3)


async def test_a_task_from_a_message_to_its_end(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova:
        await atlas.call(channel.Open(channel="work"))
        asked = await atlas.call(channel.Post(channel="work", text="fix the door\nit squeaks"))
        base = await atlas.call(task.Open(task="base", title="get oil", priority=1))
        door = await atlas.call(task.Open(from_message=asked.seq, needs=("base",), priority=9))
        assert (base.state, door.state) == ("open", "open")
        name = door.task
        with pytest.raises(Refused, match="blocked") as blocked:
            await nova.call(task.Claim(task=name, after=atlas.seq))
        assert blocked.value.details["needs"] == ["base"]
        got = await nova.call(task.Next(lease_s=60))
        assert got.task == "base"
        with pytest.raises(Refused, match="held by nova") as held:
            await atlas.call(task.Claim(task="base"))
        assert held.value.details["fence"] == got.fence
        await nova.call(task.Complete(task="base", result="bought", fence=got.fence))
        got = await nova.call(task.Next(lease_s=60))
        assert (got.task, got.title) == (name, "fix the door")
        await nova.call(task.Handoff(task=name, to="atlas", notes="I am out"))
        offers = (await atlas.call(inbox.Peek(after=nova.seq))).items
        assert [item.task for item in offers if "notice" in item.reasons] == [name]
        taken = await atlas.call(task.Accept(task=name))
        with pytest.raises(Refused, match="no longer holds"):
            await nova.call(channel.Post(channel="work", text="late", fence=f"{name}:{got.fence}", after=taken.seq))
        await atlas.call(channel.Post(channel="work", text="on it", fence=f"{name}:{taken.fence}"))
        await atlas.call(task.Fail(task=name, reason="no door", retry=True))
        await atlas.call(task.Cancel(task=name))
        shown = await nova.call(task.Show(task=name, after=atlas.seq))
        history = ["task.opened", "needs.linked", "task.claimed", "task.offered", "task.handed_off", "task.failed"]
        assert [event.type for event in shown.history] == [*history, "task.cancelled"]
        assert (shown.task.state, shown.task.attempts, shown.task.needs) == ("cancelled", 2, ["base"])
        assert shown.history[0].data["from_message"] == asked.seq
        board = await nova.call(task.Board())
        assert (board.counts["done"], board.counts["cancelled"]) == (1, 1)
        with pytest.raises(NotFound):
            await nova.call(task.Claim(task="never-opened"))


async def test_an_inbox_skips_nothing_and_repeats_nothing(rig: Rig) -> None:
    """Eight writers, and a reader that takes three at a time and acknowledges in its own time."""
    writers, each = [f"writer-{number}" for number in range(8)], 12
    async with rig.connect("reader") as reader:
        await reader.call(channel.Join(channel="news"))
        start = (await reader.call(inbox.Peek())).upto
        with pytest.raises(Refused, match="not been shown"):
            await reader.call(inbox.Ack(upto=start + 1))

        async def write(name: str) -> None:
            async with rig.connect(name) as bus:
                for number in range(each):
                    text = f"{name} {number}"
                    request = dm.Post(to="reader", text=text) if number % 3 else channel.Post(channel="news", text=text)
                    await bus.call(request)

        got: list[str] = []
        async with anyio.create_task_group() as tasks:
            for name in writers:
                tasks.start_soon(write, name)
            while len(got) < len(writers) * each:
                page = await reader.call(inbox.Peek(limit=3, wait_s=10))
                assert (await reader.call(inbox.Peek(limit=3))).items[: len(page.items)] == page.items
                got += [item.text for item in page.items]
                if page.items:
                    await reader.call(inbox.Ack(upto=page.upto))
        assert sorted(got) == sorted(f"{name} {number}" for name in writers for number in range(each))
        for name in writers:
            assert [text for text in got if text.startswith(f"{name} ")] == [f"{name} {n}" for n in range(each)]
        assert (await reader.call(inbox.Peek())).items == []


async def test_everybody_reads_what_they_know_of(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova:
        await atlas.call(channel.Open(channel="fresh"))
        for number in range(40):
            posted = await atlas.call(channel.Post(channel="fresh", text=str(number)))
            assert texts(await atlas.call(channel.Read(channel="fresh", limit=1))) == [str(number)]
            page = await nova.call(channel.Read(channel="fresh", limit=1, after=posted.seq))
            assert (texts(page), page.seq >= posted.seq) == ([str(number)], True)
        with pytest.raises(InvalidRequest, match="no such event"):
            await nova.call(channel.Read(channel="fresh", after=posted.seq + 1000))
        with pytest.raises(InvalidRequest, match="no such event"):
            await nova.call(channel.Post(channel="fresh", text="x", after=posted.seq + 1000))


async def test_any_moment_can_be_read(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas:
        await atlas.call(channel.Open(channel="past"))
        posts = [(await atlas.call(channel.Post(channel="past", text=str(number)))).seq for number in range(5)]
        read = channel.Read(channel="past")
        for number, seq in enumerate(posts):
            page = await atlas.call(channel.Read(channel="past", as_of=seq))
            assert (texts(page), page.seq) == ([str(n) for n in range(number + 1)], seq)
            # The time an answer shows names the moment it was given for.
            assert page.time is not None
            again = await atlas.call(channel.Read(channel="past", as_of=page.time.isoformat()))
            assert texts(again) == texts(page)
            just_before = (page.time - timedelta(microseconds=1)).isoformat()
            assert texts(await atlas.call(channel.Read(channel="past", as_of=just_before))) == texts(page)[:-1]
        assert texts(await atlas.call(channel.Read(channel="past", as_of=f"#{posts[1]}"))) == ["0", "1"]
        assert texts(await atlas.call(channel.Read(channel="past", as_of="-0s"))) == texts(await atlas.call(read))
        async with rig.connect() as owner:
            nothing = await owner.call(log.Tables(as_of="-1d"))
            assert (nothing.seq, nothing.events) == (0, 0)
        for moment in ("2999-01-01T00:00:00Z", posts[-1] + 10_000):
            with pytest.raises(InvalidRequest) as future:
                await atlas.call(channel.Read(channel="past", as_of=moment))
            assert future.value.code == "future"


async def test_nobody_else_sees_a_direct_message(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova, rig.connect("eve") as eve:
        async with rig.connect() as owner:
            await owner.call(agent.Grant(agent="eve", authority="auditor"))
        await atlas.call(channel.Open(channel="notes"))
        sent = await atlas.call(dm.Post(to="nova", text=f"{SECRET} @eve"))
        await nova.call(dm.Post(to="atlas", text=f"thanks for {SECRET}", reply_to=sent.seq))
        await atlas.call(dm.Edit(to="nova", message=sent.seq, text=f"no: {SECRET}!"))
        await nova.call(dm.React(to="atlas", message=sent.seq, emoji="zebra"))
        seen = await nova.call(dm.Read(to="atlas", after=atlas.seq))
        assert texts(seen) == [f"no: {SECRET}!", f"thanks for {SECRET}"]
        assert len((await atlas.call(dm.Search(text="zebra"))).messages) == 2

        answers = [
            await eve.call(request)
            for request in (
                *(dm.Read(to=name, after=nova.seq) for name in ("atlas", "nova", "eve")),
                *(dm.Search(text="zebra"), channel.Search(text="zebra"), dm.List(), inbox.Peek(), agent.List()),
                *(log.List(since=max(0, sent.seq - 1)), log.List(agent="atlas"), log.Show(event=sent.seq)),
                *(log.Table(table=name, from_log=raw) for name in TABLES for raw in (False, True)),
                *(log.Sql(sql=f"select * from {name}", from_log=raw) for name in TABLES for raw in (False, True)),
            )
        ]
        assert not [answer for answer in answers if "zebra" in repr(answer)]
        listed = {event.seq: event for event in (await eve.call(log.List(since=sent.seq - 1, limit=1))).events}
        assert (listed[sent.seq].redacted, listed[sent.seq].data) == (True, None)
        for request in (
            dm.Edit(to="atlas", message=sent.seq, text="x"),
            dm.React(to="nova", message=sent.seq, emoji="x"),
            dm.Pin(to="atlas", message=sent.seq),
            dm.Post(to="nova", text="x", reply_to=sent.seq),
            channel.Edit(channel="notes", message=sent.seq, text="x"),
            task.Open(from_message=sent.seq),
        ):
            with pytest.raises(NotFound):
                await eve.call(request)


TABLES = ("event", "message", "message_touch", "addressed", "dm", "dm_pins")


async def test_a_query_waits_for_what_it_asks_for_and_nothing_else(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova:
        for name in ("busy", "quiet"):
            await atlas.call(channel.Open(channel=name))
        answers: list[list[str]] = []
        asked = anyio.Event()

        async def wait() -> None:
            asked.set()
            page = await nova.call(channel.Read(channel="quiet", since=atlas.seq, wait_s=30, after=atlas.seq))
            answers.append(texts(page))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await asked.wait()
            for number in range(10):
                await atlas.call(channel.Post(channel="busy", text=str(number)))
            assert answers == []
            await atlas.call(channel.Post(channel="quiet", text="now"))
            with anyio.fail_after(10):
                await until(lambda: answers)
        assert answers == [["now"]]
        # It gives up when its time is over.
        assert texts(await nova.call(channel.Read(channel="quiet", since=atlas.seq, after=atlas.seq, wait_s=0.2))) == []


async def test_answers_with_large_bodies_still_fit(rig: Rig) -> None:
    """However much is in a task, a board or a channel, asking for it works."""
    body = "ä" * 90_000
    async with rig.connect("atlas", namespace="large") as atlas:
        await atlas.call(channel.Open(channel="large"))
        for number in range(8):
            await atlas.call(task.Open(task=f"large-{number}", title="x", body=body))
            await atlas.call(task.Amend(task="large-0", body=body + str(number)))
            await atlas.call(channel.Post(channel="large", text=body))
        assert (await atlas.call(task.Show(task="large-0"))).task.body.endswith("7")
        assert (await atlas.call(task.Board())).counts["open"] == 8
        assert (await atlas.call(task.List())).tasks
        assert (await atlas.call(channel.Read(channel="large"))).messages
