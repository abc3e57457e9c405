"""Reading sessions: turns, text, history, lists, what a model is shown, and what recall finds of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bus.domain import channel, recall
from bus.domain import memory_requests as memory
from bus.domain import session_requests as ask
from bus.domain.recall import ExposureShown
from bus.errors import InvalidRequest, NotFound
from bus.operation import CODEC
from tests.unit.desk import Desk, caught, desk


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, "atlas", "nova") as found:
        yield found


async def say(one: Desk, *lines: str, agent: str = "atlas", session: str = "s", **fields: Any) -> list[int]:
    """Add turns that are written as `role: content`. -> their seqs"""
    seqs = []
    for line in lines:
        role, _, content = line.partition(": ")
        reply = await one.do(agent, ask.Add(session=session, role=role, content=content, **fields))  # type: ignore[arg-type]
        seqs.append(reply.seq)
    return seqs


async def shown(one: Desk, agent: str = "atlas", **asked: Any) -> ask.ModelContext:
    answer = await one.see(agent, ask.BuildContext(session="s", **asked))
    assert isinstance(answer, ask.ModelContext)
    assert answer.tokens == sum(block.tokens for block in answer.blocks) <= answer.budget_tokens
    return answer


def lines(answer: ask.ModelContext, tier: str = "recent") -> list[str]:
    return [f"{block.role}: {block.content}" for block in answer.blocks if block.tier == tier]


TALK = ("user: where is the parser?", "assistant: in src", "user: and its tests?", "assistant: in tests")


# --- turns ----------------------------------------------------------------------------------------------------------


async def test_turns_are_read_as_they_were_and_without_those_that_a_summary_stands_for(one: Desk) -> None:
    (system,) = await say(one, "system: be brief")
    seqs = await say(one, *TALK)
    done = await one.do("atlas", ask.Compact(session="s", summary="it is about the parser", upto=seqs[1]))
    page = await one.see("atlas", ask.Messages(session="s"))
    assert [turn.seq for turn in page.messages] == [system, *seqs[2:]]
    whole = await one.see("atlas", ask.Messages(session="s", replaced=True))
    assert [(turn.seq, turn.replaced) for turn in whole.messages] == [
        (system, False),
        *((seq, seq <= seqs[1]) for seq in seqs),
    ]
    before = await one.see("atlas", ask.Messages(session="s", as_of=done.seq - 1))
    assert [turn.seq for turn in before.messages] == [system, *seqs]
    text = await one.see("atlas", ask.ToString(session="s"))
    assert text.text.splitlines() == ["summary: it is about the parser", "system: be brief", *TALK[2:]]
    rest = await one.see("atlas", ask.ToString(session="s", since=seqs[2]))
    assert rest.text == TALK[3]


async def test_what_was_cleared_is_in_the_history_and_as_of_before(one: Desk) -> None:
    seqs = await say(one, *TALK)
    cleared = (await one.do("atlas", ask.Clear(session="s"))).seq
    assert (await one.see("atlas", ask.Messages(session="s", replaced=True))).messages == []
    assert len((await one.see("atlas", ask.Messages(session="s", as_of=cleared - 1))).messages) == 4
    (again,) = await say(one, "user: anew")
    past = await one.see("atlas", ask.History(session="s"))
    assert [event.seq for event in past.history] == [seqs[0] - 1, *seqs, cleared, again]
    assert past.history[1].data["content"] == "where is the parser?"
    page = await one.see("atlas", ask.History(session="s", limit=2, before=cleared))
    assert [event.seq for event in page.history] == seqs[2:]
    page = await one.see("atlas", ask.History(session="s", limit=2, since=seqs[3]))
    assert [event.seq for event in page.history] == [cleared, again]


async def test_a_list_and_a_session_say_how_much_is_in_it(one: Desk) -> None:
    seqs = await say(one, "system: be brief", *TALK, tokens=10)
    await one.do("nova", ask.Open(session="open", scope="shared", title="all of us", strategy="window"))
    await say(one, "user: mine", agent="nova", session="s")
    await one.do("atlas", ask.Compact(session="s", summary="x" * 8, upto=seqs[2]))
    found = await one.see("atlas", ask.List())
    assert [(row.session, row.owner, row.scope, row.messages, row.message_tokens) for row in found.sessions] == [
        ("s", "atlas", "private", 3, 30),
        ("open", "nova", "shared", 0, 0),
    ]
    assert (found.sessions[0].last, found.sessions[0].summary_tokens) == (seqs[4], 2)
    assert [row.session for row in (await one.see("atlas", ask.List(owner="nova"))).sessions] == ["open"]
    assert [row.session for row in (await one.see("nova", ask.List(scope="private"))).sessions] == ["s"]
    detail = await one.see("atlas", ask.Get(session="s"))
    assert detail.session == found.sessions[0]
    assert (detail.summary, detail.compacted, detail.summariser) == ("x" * 8, seqs[2], "agent:atlas")
    assert detail.waiting is False
    await one.do("atlas", ask.Compact(session="s"))
    assert (await one.see("atlas", ask.Get(session="s"))).waiting is True


@pytest.mark.parametrize(
    "request_",
    [
        ask.Get(session="s"),
        ask.Messages(session="s"),
        ask.ToString(session="s"),
        ask.History(session="s"),
        ask.BuildContext(session="s"),
    ],
)
async def test_a_private_session_is_nobody_elses(one: Desk, request_: Any) -> None:
    before = one.tables.position
    await say(one, *TALK)
    await one.see("atlas", request_)
    for agent, asked in (("nova", {}), ("olga", {}), ("atlas", {"as_of": before})):
        error = await caught(one.see(agent, replace(request_, **asked)), NotFound, "not_found")
        assert error.problem.hint
    assert (await one.see("olga", ask.List())).sessions == []


# --- what a model is shown ------------------------------------------------------------------------------------------


async def test_each_strategy_shows_its_own(one: Desk) -> None:
    await one.do("atlas", ask.Open(session="s", recent_turns=2, recent_tokens=10, nearest=2))
    (system,) = await say(one, "system: be brief", tokens=5)
    seqs = await say(one, *TALK, tokens=5)
    (made,) = [(await one.do("atlas", ask.Compact(session="s", summary="the parser", upto=seqs[1]))).seq]

    both = await shown(one)
    assert both.strategy == "summary_buffer"
    assert [(block.tier, block.seqs) for block in both.blocks] == [
        ("system", [system]),
        ("summary", [made]),
        ("recent", [seqs[2]]),
        ("recent", [seqs[3]]),
    ]
    assert [block.cache_control for block in both.blocks] == [{"type": "ephemeral"}] * 2 + [None] * 2
    assert both.left_out == []
    alone = await shown(one, strategy="summary")
    assert (lines(alone, "summary"), lines(alone)) == (["system: the parser"], [TALK[3]])
    window = await shown(one, strategy="window")
    assert (lines(window, "summary"), lines(window)) == ([], list(TALK[2:]))
    assert [(one_.tier, one_.items, one_.tokens) for one_ in window.left_out] == [("recent", 2, 10)]
    fitting = await shown(one, strategy="token_budget", budget_tokens=22)
    assert lines(fitting) == list(TALK[1:])
    assert "17 tokens" in fitting.left_out[0].why
    near = await shown(one, strategy="vector", query="where is the parser?")
    assert (lines(near, "search"), lines(near)) == ([TALK[0], TALK[1]], list(TALK[2:]))


async def test_a_budget_is_kept_and_what_is_left_out_is_said(one: Desk) -> None:
    await say(one, "system: one", "system: two", tokens=10)
    seqs = await say(one, *TALK, tokens=10)
    await one.do("atlas", ask.Compact(session="s", summary="x" * 40, upto=seqs[0]))
    tight = await shown(one, budget_tokens=35)
    assert [block.tier for block in tight.blocks] == ["system", "system", "summary"]
    assert [(left.tier, left.items, left.tokens) for left in tight.left_out] == [("recent", 3, 30)]
    capped = await shown(one, system_tokens=10, summary_tokens=9, recent_tokens=20)
    assert [block.tier for block in capped.blocks] == ["system", "recent", "recent"]
    assert [(left.tier, left.items, left.tokens) for left in capped.left_out] == [
        ("system", 1, 10),
        ("summary", 1, 10),
        ("recent", 1, 10),
    ]
    nothing = await shown(one, budget_tokens=0)
    assert (nothing.blocks, nothing.tokens) == ([], 0)
    assert {left.tier for left in nothing.left_out} == {"system", "summary", "recent"}


async def test_the_last_turn_comes_before_what_a_search_finds(one: Desk) -> None:
    for number in range(5):
        await one.do("nova", memory.Write(content=f"the parser, part {number}"))
    await say(one, "user: the parser?", tokens=80)
    answer = await shown(one, query="parser", budget_tokens=100)
    assert lines(answer) == ["user: the parser?"]
    assert 0 < sum(block.tokens for block in answer.blocks if block.tier == "search") <= 20
    assert [left.tier for left in answer.left_out] == ["search"]


async def test_a_search_shows_what_a_recall_finds_and_nothing_twice(one: Desk) -> None:
    await one.do("nova", memory.Write(content="the parser is slow"))
    await one.do("nova", memory.Write(content="the parser is secret", scope="private"))
    await one.do("nova", channel.Join(channel="dev"), channel.Post(channel="dev", text="the parser is new"))
    await say(one, *TALK)
    answer = await shown(one, query="parser", k=5)
    found = lines(answer, "search")
    assert [line.partition(": ")[2].partition(" ")[2] for line in found] == [
        "message by nova: the parser is new",
        "memory by nova: the parser is slow",
    ]
    assert len({seq for block in answer.blocks for seq in block.seqs}) == len(answer.blocks)
    assert lines(await shown(one, query="parser", kinds=("memory",)), "search") == found[1:]
    assert (await shown(one, query="the of and")).left_out[0].tier == "search"


async def test_the_nearest_turns_are_found_by_the_askers_vectors(one: Desk) -> None:
    seqs = []
    for line, numbers in (("north", (0.0, 1.0)), ("east", (1.0, 0.0)), ("up", ())):
        seqs += await say(one, f"user: {line}", embedding=numbers)
    seqs += await say(one, "user: now")
    answer = await shown(one, strategy="vector", embedding=(0.1, 2.0), recent_tokens=1)
    assert [block.seqs for block in answer.blocks] == [[seqs[0]], [seqs[1]], [seqs[3]]]
    asked = ask.BuildContext(session="s", embedding=(1.0, 2.0, 3.0))
    await caught(one.see("atlas", asked), InvalidRequest, "bad_dimension")
    none = await shown(one, strategy="vector")
    await one.do("atlas", ask.Clear(session="s"))
    again = await say(one, "user: anew", embedding=(0.0, 1.0))
    assert [block.seqs for block in (await shown(one, embedding=(0.0, 1.0), recent_tokens=0)).blocks] == [again]
    assert none.left_out[0].why == "there is no question to look for"


async def test_an_answer_of_a_tool_does_not_come_without_its_call(one: Desk) -> None:
    await one.do("atlas", ask.Open(session="s", strategy="window", recent_turns=2))
    await say(one, "user: list it", "assistant: calls ls", "tool: a b c", "assistant: there are three")
    assert lines(await shown(one)) == ["assistant: there are three"]
    await say(one, "user: thanks")
    assert len(lines(await shown(one))) == 2


async def test_what_is_shown_is_an_exposure(one: Desk) -> None:
    await one.do("nova", memory.Write(content="the parser is slow"))
    await say(one, *TALK)
    answer = await shown(one, query="parser")
    await one.leader.drain()
    (fact,) = [
        event.fact for record in one.leader.log.records if (event := CODEC.decode(record)).type == "exposure.shown"
    ]
    assert isinstance(fact, ExposureShown)
    assert fact.seqs == tuple(seq for block in answer.blocks for seq in block.seqs)


# --- recall ---------------------------------------------------------------------------------------------------------


async def test_turns_are_recalled_until_they_are_cleared_and_as_of_before(one: Desk) -> None:
    seqs = await say(one, *TALK)
    await one.do("atlas", ask.Compact(session="s", summary="x", upto=seqs[1]))
    asked = recall.Recall(query="parser", kinds=("turn",))
    found = await one.see("atlas", asked)
    assert (found.hits[0].seq, found.hits[0].session, found.hits[0].agent) == (seqs[0], "s", "user")
    assert {hit.seq for hit in found.hits} == set(seqs[:3]), "what stands beside it counts"
    assert (await one.see("nova", asked)).hits == []
    assert (await one.see("nova", asked)).texts == 0, "what others keep to themselves moves no score"
    cleared = (await one.do("atlas", ask.Clear(session="s"))).seq
    assert (await one.see("atlas", asked)).hits == []
    then = await one.see("atlas", recall.Recall(query="parser", kinds=("turn",), as_of=cleared - 1))
    assert then.hits == found.hits


async def test_an_assistant_speaks_in_the_name_of_its_agent(one: Desk) -> None:
    await one.do("nova", ask.Open(session="s", scope="shared"))
    await say(one, "assistant: the parser is mine", agent="nova")
    await say(one, "assistant: the parser is slow", agent="atlas")
    found = await one.see("atlas", recall.Recall(query="what did nova say of the parser?"))
    assert [hit.agent for hit in found.hits] == ["nova", "atlas"]
    assert found.hits[0].why.author > 1
