"""What daemons say to each other: what is handed over, to whom, and what becomes of nonsense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest
import structlog

from bus.domain import agent, channel, inbox, recall
from bus.errors import Unavailable
from bus.protocol import encode_answer
from bus.tunables import PresenceLimits
from bus.wire import Message
from cli.peers import QUEUE, Peers
from cli.presence import Presence
from tests.unit.leader import Leader, founded

SHOW = inbox.Show(upto=3, seqs=(3,))
NOTE = recall.Note(question=recall.digest("what?"), seqs=(3,))


class Wire:
    """A connection between two daemons that delivers by hand."""

    def __init__(self) -> None:
        self.connected = True
        self.listening: dict[str, Callable[[Message], None]] = {}
        self.answers: list[Any] = []
        self.sent: list[str] = []
        self.error: Unavailable | None = None
        self.carry: Callable[[], Awaitable[None]] | None = None

    async def subscribe(self, subject: str, callback: Callable[[Message], None], queue: str = "") -> Any:
        assert queue == (QUEUE if subject.startswith("daemon.do.") else "")
        self.listening[subject] = callback
        return self

    def unsubscribe(self) -> None:
        self.listening.clear()

    def send(self, subject: str, data: bytes) -> None:
        self.sent.append(subject)
        if subject.startswith("_INBOX."):
            self.answers.append(msgspec.json.decode(data))
        else:
            self.deliver(subject, data)

    def deliver(self, subject: str, data: bytes, reply: str = "") -> None:
        fitting = [call for name, call in self.listening.items() if subject.startswith(name.removesuffix(">"))]
        for callback in fitting:
            callback(Message(subject, reply, {}, data))

    async def request(self, subject: str, data: bytes, timeout_s: float) -> Message:
        if self.error is not None:
            raise self.error
        self.deliver(subject, data, "_INBOX._daemon-main.1")
        assert self.carry is not None
        await self.carry()
        return Message("_INBOX._daemon-main.1", "", {}, msgspec.json.encode(self.answers.pop()))


async def pair() -> tuple[Leader, Wire, Peers, Peers, Presence]:
    """-> (the leader, the wire, the leader's peers, those of a daemon that stands by, the leader's presence)"""
    leader, wire = await founded("atlas", "nova"), Wire()
    wire.carry = leader.drain
    presence = Presence(leader.view.world, leader.clock, PresenceLimits())
    line: Any = wire
    leading = Peers(line, leader.executor, presence, lambda: leader.leads)
    standing = Peers(line, leader.executor, presence, lambda: False)
    await leading.lead()
    return leader, wire, leading, standing, presence


async def test_what_was_shown_is_recorded_by_the_leader_before_it_is_answered() -> None:
    leader, _, _, standing, _ = await pair()
    await standing.record(SHOW, "atlas")
    record = leader.log.records[-1]
    assert (record.headers["Bus-Type"], record.headers["Bus-Agent"]) == ("inbox.shown", "atlas")


async def test_the_leader_itself_has_stored_what_it_shows() -> None:
    leader, wire, leading, _, _ = await pair()
    stored_when_shown: list[int] = []

    async def show() -> None:
        await leading.record(SHOW, "nova")
        stored_when_shown.append(len(leader.log.records))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show)
        await anyio.wait_all_tasks_blocked()
        before = len(leader.log.records)
        await leader.drain()
    assert wire.sent == []
    assert stored_when_shown == [before + 1]
    assert leader.log.records[before].headers["Bus-Agent"] == "nova"


async def test_what_the_leader_refuses_itself_is_noted_and_shown_all_the_same() -> None:
    leader, _, leading, _, _ = await pair()
    await leader.do("olga", agent.Deactivate(agent="atlas"))
    with structlog.testing.capture_logs() as logs:
        await leading.record(SHOW, "atlas")
    assert [entry["event"] for entry in logs] == ["not recorded"]


async def test_a_leader_that_cannot_store_shows_nothing() -> None:
    leader, _, leading, _, _ = await pair()
    error = Unavailable("the log does not answer", code="no_log")

    async def lost(*_: Any) -> None:
        raise error

    leader.executor.execute = lost  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        await leading.record(SHOW, "atlas")


def shown_to(leader: Leader) -> list[str]:
    """To whom something was shown by recalls, as the log says."""
    told = [record.headers for record in leader.log.records]
    return [headers["Bus-Agent"] for headers in told if headers["Bus-Type"] == "exposure.shown"]


async def test_what_recalls_show_gathers_until_the_agent_does_something() -> None:
    leader, _, leading, _, _ = await pair()
    for name in ("atlas", "nova", "atlas"):
        await leading.record(NOTE, name)
    await leader.drain()
    assert shown_to(leader) == []
    leading.settle("atlas")
    leading.settle("olga")
    await leader.drain()
    assert shown_to(leader) == ["atlas", "atlas"]


async def test_what_recalls_show_is_recorded_soon_without_anything_else() -> None:
    leader, _, leading, _, _ = await pair()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leading.run)
        for _ in range(2):
            await leading.record(NOTE, "atlas")
            before = len(shown_to(leader))
            with anyio.fail_after(10):
                while len(shown_to(leader)) == before:
                    await leader.drain()
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert shown_to(leader) == ["atlas", "atlas"]


async def test_who_stands_down_records_what_has_gathered_and_gathers_nothing_more() -> None:
    leader, _, leading, _, _ = await pair()
    await leading.record(NOTE, "atlas")
    leading.stand_by()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leading.record, NOTE, "nova")
        await anyio.wait_all_tasks_blocked()
        await leader.drain()
    assert shown_to(leader) == ["atlas", "nova"]


async def test_who_stands_by_gathers_nothing() -> None:
    leader, _, _, standing, _ = await pair()
    await standing.record(NOTE, "atlas")
    assert shown_to(leader) == ["atlas"]


@pytest.mark.parametrize("code", ["no_responders", "timeout", "disconnected"])
async def test_without_a_leader_nothing_is_shown(code: str) -> None:
    _, wire, _, standing, _ = await pair()
    wire.error = Unavailable("no", code=code)
    with pytest.raises(Unavailable) as caught:
        await standing.record(SHOW, "atlas")
    problem = caught.value.problem
    assert (problem.code, problem.retry_after_s) == ("no_leader", 0.2)
    assert all((problem.entity, problem.expected, problem.found, problem.hint))


async def test_who_leads_no_more_records_nothing() -> None:
    leader, _, _, standing, _ = await pair()
    before = len(leader.log.records)
    leader.leads = False
    with pytest.raises(Unavailable) as caught:
        await standing.record(SHOW, "atlas")
    assert caught.value.code == "no_leader"
    assert len(leader.log.records) == before


async def test_what_the_leader_refuses_is_noted_and_shown_all_the_same() -> None:
    leader, _, _, standing, _ = await pair()
    await leader.do("olga", agent.Deactivate(agent="atlas"))
    with structlog.testing.capture_logs() as logs:
        await standing.record(SHOW, "atlas")
    assert [entry["event"] for entry in logs] == ["not recorded"]


@pytest.mark.parametrize(
    ("subject", "body", "code"),
    [
        ("daemon.do.atlas.channel.post", encode_answer(channel.Post(channel="dev", text="x")), "not_internal"),
        ("daemon.do.atlas.inbox.peek", b"{}", "not_internal"),
        ("daemon.do.atlas.no.such", b"{}", "not_internal"),
        ("daemon.do.*.inbox.show", encode_answer(SHOW), "not_internal"),
        ("daemon.do.atlas.inbox.show", b"{", "invalid"),
        ("daemon.do.atlas.inbox.show", b'{"upto":1,"seqs":[1],"colour":2}', "invalid"),
        ("daemon.do.atlas", b"{}", "defect"),
    ],
)
async def test_nothing_else_can_be_handed_over(subject: str, body: bytes, code: str) -> None:
    leader, wire, _, _, _ = await pair()
    before = len(leader.log.records)
    with structlog.testing.capture_logs():
        wire.deliver(subject, body, "_INBOX._daemon-main.1")
    await leader.drain()
    assert [answer["error"]["code"] for answer in wire.answers] == [code]
    assert len(leader.log.records) == before


async def test_the_leader_hears_whom_the_others_have_heard() -> None:
    _, wire, leading, standing, presence = await pair()
    standing.tell(["atlas"])
    for body in (b"{", b"[1]", b'["*", "no name"]'):
        wire.deliver("daemon.seen", body)
    assert set(presence.heard_ns) == {"atlas"}
    wire.connected = False
    standing.tell(["nova"])
    leading.stand_by()
    wire.connected = True
    standing.tell(["nova"])
    assert set(presence.heard_ns) == {"atlas"}
