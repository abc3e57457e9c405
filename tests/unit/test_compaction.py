"""Compacting: what is noticed, what is summarised and when, and that a summariser that fails or hangs harms nobody."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from bus.domain import session_requests as ask
from bus.domain.session import Session, SessionCompacted, own_key
from bus.errors import BusError, Unavailable
from bus.operation import CODEC
from bus.subjects import SYSTEM
from bus.tunables import ConfigFile, SessionLimits
from cli import compaction
from cli.compaction import Compactor
from projections.extract import Said
from tests.unit.desk import Desk, desk

LIMITS = SessionLimits(compact_at_tokens=100, summary_tokens=50, timeout_s=20, retries=2, retry_s=10)


class Writer:
    """A summariser that a test tells what to give. `asked` is what it was asked."""

    id = "writer"

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[Said]]] = []
        self.give: Callable[[], Any] = lambda: f"summary {len(self.asked)}"

    def summarise(self, before: str, said: Sequence[Said], within: int) -> str:
        self.asked.append((before, said))
        text: str = self.give()
        return text


class House:
    """A desk whose sessions are compacted when a test takes a step."""

    def __init__(self, one: Desk, limits: SessionLimits) -> None:
        self.desk = one
        self.writer = Writer()
        self.leads = True
        self.compactor = Compactor(
            one.tables.store,
            one.tables.reached,
            one.leader.executor.world,
            self.execute,
            one.clock,
            ConfigFile(session=limits),
            lambda: self.leads,
        )
        self._noticed = 0

    async def execute(self, request: Any) -> None:
        asked = self.desk.leader.ask(SYSTEM, request)
        await self.desk.leader.drain()
        await self.desk.fold()
        if isinstance(asked.results[0], BusError):
            raise asked.results[0]

    async def notice(self) -> None:
        """Tell the compactor of what was stored since."""
        for record in self.desk.leader.log.records[self._noticed :]:
            self.compactor.noticed(CODEC.decode(record))
        self._noticed = len(self.desk.leader.log.records)

    async def say(self, *sizes: int, agent: str = "atlas", **fields: Any) -> list[int]:
        """Add turns of so many tokens, and tell the compactor."""
        seqs = []
        for size in sizes:
            turn = ask.Add(**({"session": "s", "role": "user", "content": f"say {size}", "tokens": size} | fields))
            seqs.append((await self.desk.do(agent, turn)).seq)
        await self.notice()
        return seqs

    async def ask(self, request: Any, agent: str = "atlas") -> Any:
        reply = await self.desk.do(agent, request)
        await self.notice()
        return reply

    async def step(self, times: int = 1) -> None:
        with anyio.fail_after(30):
            for _ in range(times):
                await self.compactor.step()
                await self.notice()

    def state(self, agent: str = "atlas") -> Session:
        entry = self.desk.leader.executor.world.entry(Session, "default", own_key("s", agent))
        assert entry is not None
        state: Session = entry.state
        return state

    @property
    def trouble(self) -> str:
        """What does not work."""
        helpers = self.compactor.helpers()
        assert [(helper.name, helper.ok) for helper in helpers] == [("summariser", False)] * len(helpers)
        return helpers[0].found if helpers else ""

    @property
    def compactions(self) -> list[SessionCompacted]:
        facts = [CODEC.decode(record).fact for record in self.desk.leader.log.records]
        return [fact for fact in facts if isinstance(fact, SessionCompacted)]


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with desk(tmp_path, "atlas", "nova") as one:
        made = House(one, LIMITS)
        monkeypatch.setattr(compaction, "summariser_of", lambda setting, endpoint: made.writer)
        with structlog.testing.capture_logs():
            yield made


# --- when and what --------------------------------------------------------------------------------------------------


async def test_the_oldest_turns_get_a_summary_when_there_are_too_many_tokens(house: House) -> None:
    await house.ask(ask.Open(session="s", recent_tokens=40))
    seqs = await house.say(40, 30, 30)
    await house.step()
    assert house.compactions == []
    seqs += await house.say(10)
    await house.step()
    (made,) = house.compactions
    assert made == SessionCompacted(summary="summary 1", upto=seqs[1], start=0, summariser="writer")
    ((before, said),) = house.writer.asked
    assert (before, said) == ("", [Said("user", "say 40"), Said("user", "say 30")])
    await house.step(3)
    assert len(house.compactions) == 1

    seqs += await house.say(90)
    await house.step()
    again = house.compactions[1]
    assert (again.start, again.upto) == (seqs[1], seqs[3])
    assert house.writer.asked[1] == ("summary 1", [Said("user", "say 30"), Said("user", "say 10")])
    assert house.trouble == ""


async def test_system_turns_are_left_and_an_assistant_has_the_name_of_its_agent(house: House) -> None:
    await house.say(5000, role="system")
    await house.step()
    assert house.compactions == []
    await house.say(90, 90, role="assistant")
    await house.step()
    assert house.writer.asked[0][1] == [Said("atlas", "say 90")]


async def test_each_agents_session_is_summarised_by_itself(house: House) -> None:
    await house.say(90, 90)
    await house.say(90, 90, agent="nova")
    await house.step()
    assert len(house.compactions) == 2
    assert house.state("nova").summary != house.state("atlas").summary


async def test_somebody_can_ask_for_it_and_a_threshold_can_change(house: House) -> None:
    seqs = await house.say(10, 10, 10)
    await house.ask(ask.Compact(session="s", keep=2))
    await house.step()
    assert (house.state().compacted, house.state().asked) == (seqs[0], None)
    await house.ask(ask.Compact(session="s", keep=2))
    await house.step()
    assert len(house.compactions) == 1, "there is nothing to summarise"
    await house.ask(ask.Configure(session="s", compact_at_tokens=15, recent_tokens=1))
    await house.step()
    assert house.state().compacted == seqs[1]


async def test_much_is_handed_over_in_parts(house: House) -> None:
    house.compactor._limits = SessionLimits(compact_at_tokens=100, summary_tokens=50, part_tokens=100)
    await house.say(60, 60, 60, 20)
    await house.step()
    assert [before for before, _ in house.writer.asked] == ["", "summary 1", "summary 2"]
    assert [one.text for _, said in house.writer.asked for one in said] == ["say 60"] * 3
    assert house.compactions[0].summary == "summary 3"


# --- who leads ------------------------------------------------------------------------------------------------------


async def test_only_the_leader_does_it_and_one_that_leads_anew_finds_what_waits(house: House) -> None:
    house.leads = False
    await house.say(90, 90)
    first = await house.say(10, agent="nova")
    await house.say(10, agent="nova")
    await house.ask(ask.Compact(session="s"), agent="nova")
    await house.say(80, agent="nova")
    await house.step()
    assert house.compactions == []
    house.leads = True
    house.compactor.take_over()
    await house.step()
    assert len(house.compactions) == 2
    assert [house.state("nova").compacted] == first, "what was asked for meanwhile is done"
    await house.say(20, agent="nova")
    await house.step()
    assert len(house.compactions) == 3, "what was there before is counted"


async def test_a_leader_that_knows_nothing_of_a_session_counts_its_turns(house: House) -> None:
    house.leads = False
    await house.say(60)
    house.leads = True
    await house.say(60)
    await house.step()
    assert len(house.compactions) == 1


# --- what goes wrong ------------------------------------------------------------------------------------------------


async def test_what_fails_is_tried_again_after_growing_pauses_then_left(house: House) -> None:
    def fail() -> Any:
        raise RuntimeError("no ink")

    good, house.writer.give = house.writer.give, fail
    await house.say(90, 90)
    for pause_s, tries in ((0, 1), (9, 1), (1, 2), (19, 2), (1, 3), (1000, 3)):
        house.desk.clock.pass_s(pause_s)
        await house.step()
        assert len(house.writer.asked) == tries
    assert "1 of the sessions" in house.trouble
    assert "no ink" in house.trouble
    assert "s" not in house.trouble.split(), "a session is not named"
    assert house.state().begins == 0, "nothing is lost"
    await house.say(90)
    await house.step()
    assert len(house.writer.asked) == 3

    house.writer.give = good
    await house.ask(ask.Compact(session="s"))
    await house.step()
    assert len(house.compactions) == 1
    assert house.trouble == ""


async def test_one_that_hangs_harms_nobody_and_is_asked_again_when_it_has_ended(house: House) -> None:
    house.compactor._limits = SessionLimits(compact_at_tokens=100, summary_tokens=50, timeout_s=0.2, retries=4)
    good, until, ended = house.writer.give, threading.Event(), threading.Event()

    def hang() -> Any:
        until.wait()
        house.writer.give = good
        ended.set()
        return ""

    house.writer.give = hang
    await house.say(90, 90)
    await house.step()
    assert "did not answer in time" in house.trouble
    await house.say(90, 90, agent="nova")
    await house.step()
    assert "2 of the sessions" in house.trouble
    assert (house.state().begins, house.state("nova").begins) == (0, 0), "nothing is lost"
    until.set()
    assert await anyio.to_thread.run_sync(ended.wait, 20)
    with anyio.fail_after(20):
        while house.trouble:
            house.desk.clock.pass_s(100)
            await house.step()
    assert house.state().summary
    assert house.state("nova").summary


async def test_what_became_of_a_session_meanwhile_is_not_overwritten(house: House) -> None:
    seqs = await house.say(90, 90, 90)
    real = house.execute

    async def late(request: Any) -> None:
        house.compactor._execute = real
        await house.desk.do("atlas", ask.Compact(session="s", summary="mine", upto=seqs[0]))
        await real(request)

    house.compactor._execute = late
    await house.step()
    assert [fact.summary for fact in house.compactions] == ["mine"]
    await house.step()
    assert [(fact.start, fact.upto) for fact in house.compactions] == [(0, seqs[0]), (seqs[0], seqs[1])]
    assert house.trouble == ""


async def test_a_summary_that_cannot_be_stored_is_tried_again(house: House) -> None:
    real = house.execute

    async def away(request: Any) -> None:
        house.compactor._execute = real
        raise Unavailable("the log does not answer")

    house.compactor._execute = away
    await house.say(90, 90)
    await house.step()
    assert "does not answer" in house.trouble
    house.desk.clock.pass_s(10)
    await house.step()
    assert len(house.compactions) == 1


async def test_a_setting_that_names_no_summariser_is_said_when_a_daemon_begins_to_lead(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    house.compactor._limits = SessionLimits(compact_at_tokens=100, summariser="nobody")
    house.compactor.take_over()
    await house.step()
    assert "nobody" in house.trouble
    await house.say(90, 90)
    await house.step()
    assert house.state().begins == 0


async def test_one_that_a_setting_names_is_shown_when_all_is_well_too(house: House) -> None:
    house.compactor._limits = SessionLimits(summariser="openai:small-1")
    (helper,) = house.compactor.helpers()
    assert (helper.setting, helper.ok, helper.found) == ("openai:small-1", True, "ready")


async def test_it_runs_by_itself(house: House) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.compactor.run)
        await house.say(90, 90)
        with anyio.fail_after(20):
            while not house.compactions:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
