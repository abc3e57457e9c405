"""Room in the log: what is decided counts against it at once, and a full log is a refusal, not a defect."""

from __future__ import annotations

import pytest

from bus.domain import task_requests as ask
from bus.domain.channel import Open, Post
from bus.errors import Refused, from_problem
from bus.log import LogFull
from tests.unit.leader import Leader, founded


@pytest.fixture
async def leader() -> Leader:
    leader = await founded("atlas")
    await leader.do("atlas", Open(channel="dev"))
    await leader.do("atlas", ask.Open(title="x", task="T"))
    await leader.do("atlas", ask.Claim(task="T"))
    return leader


async def test_what_is_decided_fills_the_log_before_it_is_measured_again(leader: Leader) -> None:
    leader.executor.measured(10_000)
    posts = [leader.ask("atlas", Post(channel="dev", text="x" * 2000)) for _ in range(8)]
    release = leader.ask("atlas", ask.Release(task="T"))
    await leader.drain()
    taken = [asked for asked in posts if asked.results and not isinstance(asked.results[0], Refused)]
    assert 3 <= len(taken) <= 5
    assert {asked.error.code for asked in posts if asked not in taken} == {"quota"}
    assert release.reply.state == "open"
    leader.executor.measured(10_000)
    assert (await leader.do("atlas", Post(channel="dev", text="x"))).seq
    leader.executor.measured(None)
    assert (await leader.do("atlas", Post(channel="dev", text="x" * 100_000))).seq


async def test_a_full_log_is_a_refusal_on_the_wire_too(leader: Leader) -> None:
    leader.log.errors = [LogFull("the log is full", found="10077")]
    error = await leader.refused("atlas", Post(channel="dev", text="x"))
    travelled = from_problem(error.problem)
    assert (type(travelled), travelled.code, travelled.exit_code) == (Refused, "log_full", 3)
