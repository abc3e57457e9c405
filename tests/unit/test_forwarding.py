"""Commands that are decided elsewhere: what is sent for whom, what comes back, and who is mentioned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from bus.domain import channel, inbox, message
from bus.errors import BusError, Refused, Unavailable
from bus.execute import Call
from bus.model import Reply
from bus.operation import CODEC, OPERATION_OF
from bus.protocol import encode_answer
from bus.wire import Message
from bus.world import World
from cli.forwarding import Forwarder
from tests.unit.leader import Clock, Leader, founded

POST = channel.Post(channel="dev", text="hi", after=41)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class There:
    """The bus elsewhere: it answers with `body`, or raises `error`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, dict[str, str], float]] = []
        self.body = encode_answer(message.PostReply(seq=42))
        self.error: BusError | None = None

    async def ask(self, agent: str, subject: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Message:
        self.asked.append((agent, subject, body, dict(headers), timeout_s))
        if self.error is not None:
            raise self.error
        return Message(f"_INBOX.{agent}.1", "", {}, self.body)


class Host:
    def __init__(self, leader: Leader, there: There, forwarder: Forwarder) -> None:
        self.leader, self.there, self.forwarder = leader, there, forwarder
        self.clock: Clock = leader.clock

    async def do(self, agent: str, request: Any, **known: Any) -> Reply | BusError:
        results: list[Reply | BusError] = []
        self.forwarder.submit(Call(OPERATION_OF[type(request)], request, agent, results.append, **known))
        await anyio.wait_all_tasks_blocked()
        (result,) = results
        return result


@asynccontextmanager
async def host(*agents: str) -> AsyncIterator[Host]:
    leader, there = await founded(*agents), There()
    async with anyio.create_task_group() as tasks:
        parts: Any = (there, leader.view.world, leader.clock, tasks)
        yield Host(leader, there, Forwarder(*parts, timeout_s=10, heard_s=30))


async def test_a_command_goes_to_the_leader_as_it_came() -> None:
    async with host("nova") as one:
        result = await one.do("nova", POST, request_id="the-id", trace=TRACE)
        assert isinstance(result, message.PostReply)
        assert result.seq == 42
        ((agent, subject, body, headers, timeout_s),) = one.there.asked
        assert (agent, subject, timeout_s) == ("nova", "ask.nova.do.channel.post", 10)
        assert headers == {"Bus-Request": "the-id", "traceparent": TRACE}
        assert msgspec.json.decode(body) == {"after": 41, "channel": "dev", "text": "hi"}
        await one.do("nova", POST)
        assert one.there.asked[-1][3] == {}


async def test_an_error_from_there_is_the_answer_here() -> None:
    async with host("nova") as one:
        one.there.body = encode_answer(Refused("held by atlas", code="claimed", fence=7))
        result = await one.do("nova", POST)
        assert isinstance(result, Refused)
        assert (result.code, result.details) == ("claimed", {"fence": 7})
        one.there.error = Unavailable("away", code="out_of_reach")
        result = await one.do("nova", POST)
        assert (type(result), result.code) == (Unavailable, "out_of_reach")  # type: ignore[union-attr]
        one.there.error = None
        one.there.body = b"nonsense"
        result = await one.do("nova", POST)
        assert isinstance(result, BusError)
        assert result.code == "defect"


async def test_a_query_that_is_recorded_is_asked_there() -> None:
    async with host("nova") as one:
        one.there.body = encode_answer(inbox.Items(seq=9, time=None, items=[], upto=0, remaining=0))
        answer = await one.forwarder.see(inbox.Peek(wait_s=3), "nova")
        assert answer.seq == 9
        assert one.there.asked[0][1:] == ("ask.nova.see.inbox.peek", b'{"wait_s":3}', {}, 13.0)
        one.there.error = Unavailable("away", code="out_of_reach")
        with pytest.raises(Unavailable):
            await one.forwarder.see(inbox.Peek(), "nova")


async def test_the_world_is_what_has_come_here_and_commands_wait_elsewhere() -> None:
    leader, there = await founded("nova"), There()
    world = World(leader.view.world.families.values())
    async with anyio.create_task_group() as tasks:
        parts: Any = (there, world, leader.clock, tasks)
        forwarder = Forwarder(*parts, timeout_s=10, heard_s=30)
        assert (forwarder.known_seq, forwarder.knows(10**9)) == (0, True)
        for record in leader.log.records:
            forwarder.fold(CODEC.decode(record))
        assert forwarder.known_seq == len(leader.log.records)
        await forwarder.reached(10**9)


async def test_who_is_heard_only_here_is_mentioned_now_and_then() -> None:
    async with host("nova", "wren") as one:
        one.there.body = encode_answer(channel.Channels(seq=1, time=None, channels=[]))
        await one.forwarder.mention()
        assert one.there.asked == []
        for seconds, mentioned in ((0, ["nova", "wren"]), (29, []), (1, ["nova", "wren"]), (15, [])):
            one.clock.pass_s(seconds)
            one.there.asked.clear()
            for name in ("wren", "nova"):
                one.forwarder.heard(name)
            await one.forwarder.mention()
            assert [asked[0] for asked in one.there.asked] == mentioned
        # Whoever is heard there anyway need not be mentioned, nor who is not heard here any more.
        one.forwarder.heard("nova")
        await one.forwarder.see(channel.List(), "nova")
        one.clock.pass_s(20)
        one.there.asked.clear()
        await one.forwarder.mention()
        assert [asked[0] for asked in one.there.asked] == ["wren"]
        one.clock.pass_s(100)
        await one.forwarder.mention()
        assert len(one.there.asked) == 1


async def test_one_that_cannot_be_mentioned_does_not_stand_before_others() -> None:
    async with host("nova", "wren") as one:
        one.there.error = Unavailable("nobody", code="no_responders")
        for name in ("nova", "wren"):
            one.forwarder.heard(name)
        await one.forwarder.mention()
        assert [asked[0] for asked in one.there.asked] == ["nova", "wren"]
        # It is not tried at every turn.
        await one.forwarder.mention()
        assert len(one.there.asked) == 2
