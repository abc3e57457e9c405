"""Memories and recall through real processes: what is private stays so whichever way somebody looks, recall gives what
it gave, also after a restart, and what was shown is recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bus.client import Bus
from bus.domain import channel, dm, journal, log
from bus.domain.memory_requests import (
    Append,
    Assemble,
    Contradict,
    List,
    Retract,
    Revise,
    Search,
    Show,
    Supersede,
    Write,
)
from bus.domain.recall import Recall, digest
from bus.errors import BusError, InvalidRequest, NotFound
from bus.model import Request
from bus.subjects import TENANT
from tests.acceptance.support import Rig, until

SECRET = "xylophone"
QUESTION = "who fixes the parser?"


async def answer(bus: Bus, request: Request) -> bytes:
    """What a request is answered, or refused with, as it travels."""
    try:
        return msgspec.json.encode(await bus.call(request))
    except BusError as error:
        return msgspec.json.encode(error.problem)


async def test_a_tenant_begins_with_rules_that_everybody_finds(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect() as owner:
        rules = (await atlas.call(Assemble())).memories
        assert len(rules) == 15
        assert {(rule.author, rule.source, rule.namespace) for rule in rules} == {
            ("system", "synbus:default-v1", TENANT)
        }
        recalled = await atlas.call(Recall(query="may I write a password into a message?", namespace="elsewhere"))
        assert recalled.hits[0].memory == "seed-no-secrets"
        atlas.seq = (await owner.call(Retract(memory="seed-no-secrets"))).seq
        assert len((await atlas.call(Assemble())).memories) == 14
    written = [record for record in await rig.log() if record.headers["Bus-Type"] == "memory.written"]
    rig.kill("daemon")
    async with rig.connect("atlas") as atlas:
        assert len((await atlas.call(Assemble())).memories) == 14, "nothing is written again"
        again = [record for record in await rig.log() if record.headers["Bus-Type"] == "memory.written"]
        assert again == written


async def test_a_private_entry_is_shown_to_its_author_alone_whichever_way_somebody_looks(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas, rig.connect() as owner, rig.connect("nova") as nova:
        shared = (await atlas.call(Write(content="the shed has a door", subject="shed"))).memory
        mine = (
            await atlas.call(
                Write(content=f"the {SECRET} is in the shed", subject="shed", scope="private", tags=(SECRET,))
            )
        ).memory
        seq = (await atlas.call(Contradict(memory=mine, other=shared, reason=f"no {SECRET}"))).seq
        assert (await atlas.call(Recall(query=SECRET))).hits[0].memory == mine
        looks: list[Request] = [
            Show(memory=mine),
            List(state="any", author="atlas"),
            List(tag=SECRET),
            Search(text=SECRET[:5]),
            Assemble(categories=("fact",)),
            Recall(query=f"{SECRET[:-1]} shed atlas", k=100, explain=True),
            Recall(query="shed", subject="shed", scope="private"),
            Append(memory=mine, text="x"),
            Revise(memory=mine, content="x"),
            Supersede(memory=mine, content="x"),
            Contradict(memory=shared, other=mine),
            Show(memory=shared),
            log.List(family="memory", limit=1000),
            log.Show(event=seq),
            log.Sql(sql="select * from memory"),
            log.Sql(sql="select * from event where family = 'memory'"),
            log.Sql(sql="select * from memory_tags"),
            log.Sql(sql="select * from memory_contradictions"),
            log.Table(table="memory"),
            log.Table(table="memory", from_log=True),
            log.Sql(sql="select * from memory", from_log=True),
        ]
        for bus in (nova, owner):
            for request in looks:
                said = await answer(bus, request)
                assert SECRET.encode() not in said, (bus.agent, request)
                names_it = mine.encode() in said and not isinstance(request, log.List | log.Sql | log.Show)
                assert not names_it or mine in str(request), (bus.agent, request)
        same = [(await answer(owner, Show(memory=name))).replace(name.encode(), b"") for name in (mine, "p-nobody")]
        assert same[0] == same[1], "told apart from one that never was"
        theirs = await nova.call(Recall(query=f"{SECRET} shed door"))
        mine_gone = await nova.call(Recall(query="shed door"))
        assert [(hit.seq, hit.score) for hit in theirs.hits] == [(hit.seq, hit.score) for hit in mine_gone.hits]
        assert theirs.texts == mine_gone.texts == 15 + 1
        assert (await nova.call(Show(memory=shared))).memory.contradicts == []
        assert (await atlas.call(Show(memory=shared))).memory.contradicts == [mine]


async def test_recall_gives_what_it_gave_also_after_a_restart(rig: Rig) -> None:
    given: list[tuple[str, int, Any]] = []

    async def ask(*buses: Bus) -> None:
        for bus in buses:
            found = await bus.call(Recall(query=QUESTION, k=50))
            assert found.hits
            given.append((bus.agent, found.seq, msgspec.json.encode(found)))

    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova:
        await atlas.call(channel.Join(channel="dev"))
        await atlas.call(Write(content="nova fixes the parser", subject="parser"))
        await ask(atlas)
        posted = await nova.call(channel.Post(channel="dev", text="I fix the parser today"))
        await nova.call(channel.Post(channel="dev", text="and then the lexer"))
        await ask(nova, atlas)
        await atlas.call(dm.Post(to="nova", text="do not fix it, the parser is mine"))
        kept = await atlas.call(Write(content="fix the parser first", scope="private"))
        await nova.call(journal.Write(focus="the parser", next_steps=("fix it",)))
        await ask(nova, atlas)
        await nova.call(channel.Edit(channel="dev", message=posted.seq, text="I fix the lexer today"))
        await atlas.call(Revise(memory=kept.memory, content="fix the parser last"))
        await ask(nova, atlas)
        await atlas.call(Retract(memory=kept.memory))
        await ask(nova, atlas)
    assert len({body for *_, body in given}) > len(given) / 2, "what happened made a difference"
    rig.kill("daemon")
    for agent, seq, body in given:
        async with rig.connect(agent) as bus:
            assert msgspec.json.encode(await bus.call(Recall(query=QUESTION, k=50, as_of=seq))) == body


async def test_the_two_clocks_are_independent(rig: Rig) -> None:
    now = datetime.now(UTC)
    async with rig.connect("atlas") as atlas:
        old = await atlas.call(Write(content="the port is 80", valid_to=now - timedelta(days=1)))
        new = await atlas.call(Write(content="the port is 443", valid_from=now - timedelta(days=1)))

        async def ports(**asked: Any) -> list[str]:
            return [hit.memory for hit in (await atlas.call(Recall(query="which port?", **asked))).hits]

        assert await ports() == [new.memory]
        assert await ports(valid_at=now - timedelta(days=2)) == [old.memory]
        assert await ports(as_of=old.seq) == []
        assert await ports(as_of=old.seq, valid_at=now - timedelta(days=2)) == [old.memory]
        assert await ports(valid_at=now + timedelta(days=1), as_of=old.seq) == []


async def test_what_was_recalled_is_recorded_and_what_was_asked_is_not(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas:
        written = await atlas.call(Write(content="the parser is slow", metadata={"a": 1}))
        await atlas.call(Recall(query=QUESTION, where={"a": 1}))
        await atlas.call(Recall(query=QUESTION, where={"a": True}))

        async def shown() -> list[Any]:
            return [record for record in await rig.log() if record.headers["Bus-Type"] == "exposure.shown"]

        (record,) = await until(shown)
        assert record.headers["Bus-Agent"] == "atlas"
        assert msgspec.json.decode(record.data) == {"question": digest(QUESTION), "seqs": [written.seq]}


async def test_questions_that_mean_nothing_are_told_so(rig: Rig) -> None:
    async with rig.connect("atlas") as atlas:
        for request, code in (
            (Recall(query="the and of"), "no_words"),
            (Recall(query=" ?! "), "no_words"),
            (Recall(query=""), "invalid"),
            (Recall(query="x", k=0), "invalid"),
            (Recall(query="x", k=1_000_000), "invalid"),
            (Recall(query="x", kinds=("vault",)), "invalid"),  # type: ignore[arg-type]
            (Write(content="x", scope="everybody"), "invalid"),  # type: ignore[arg-type]
            (Write(content="x", category="opinion"), "invalid"),  # type: ignore[arg-type]
            (Write(content="x", trust_tier="none"), "invalid"),  # type: ignore[arg-type]
            (Write(content="x", salience=1.5), "invalid"),
            (Write(content="x", embedding=(float("nan"),)), "invalid"),
            (Write(content="x" * 200_001), "invalid"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                await atlas.call(request)
            assert caught.value.code == code, request
            assert "xpected" in str(caught.value) or "Invalid enum value" in str(caught.value), request
        assert (await atlas.call(Recall(query="zygote"))).hits == []
        with pytest.raises(NotFound):
            await atlas.call(Show(memory="m-none"))
