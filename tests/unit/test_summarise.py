"""Summaries: what the extractive one keeps, what a model is asked, and what of an answer is taken for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain.tokens import tokens
from bus.errors import InvalidRequest, Unavailable
from bus.tunables import Endpoint
from projections import plugins
from projections.extract import LONGEST, Said, summarise
from projections.openai import Unanswered
from projections.summarise import Extractive, OpenAi, summarised, summariser_of
from tests.unit.endpoint import model

TALK = (
    Said("user", "Hello! The parser drops the last token of every file. Can you look into src/parser.py?"),
    Said("atlas", "I will. One moment please."),
    Said("atlas", "The parser stops at the last token because read_token() ignores the end of the file."),
    Said("user", "Lovely weather today, by the way."),
    Said("atlas", "I changed read_token() in src/parser.py: the parser now reads the last token of the file."),
    Said("user", "I changed read_token() in src/parser.py, good: the parser now reads the last token."),
)

# --- of sentences ---------------------------------------------------------------------------------------------------


def test_it_keeps_what_the_talk_is_about_in_its_order_and_says_nothing_twice() -> None:
    assert summarise("", TALK, 64).split("\n") == [
        "user: The parser drops the last token of every file.",
        "atlas: The parser stops at the last token because read_token() ignores the end of the file.",
        "atlas: I changed read_token() in src/parser.py: the parser now reads the last token of the file.",
    ]
    assert "weather" in summarise("", TALK, 1000)


def test_the_summary_before_is_summarised_with_what_came_after() -> None:
    before = summarise("", TALK[:3], 30)
    both = summarise(before, TALK[3:], 60)
    assert set(before.split("\n")) & set(both.split("\n"))
    assert summarise(both, (), 1000) == both


def test_what_is_long_is_cut_and_what_has_no_words_is_no_trouble() -> None:
    (line,) = summarise("", [Said("tool", "word " * 1000)], 1000).split("\n")
    assert len(line) == len("tool: ") + LONGEST
    assert summarise("", [], 100) == summarise(" \n", [Said("user", " \n ")], 100) == ""
    assert summarise("", [Said("user", "the of and!")], 100) == "user: the of and!"
    assert summarise("", TALK, 1) == ""


said_by = st.tuples(st.sampled_from(("user", "atlas")), st.text(max_size=80))


@given(st.lists(said_by), st.text(max_size=80), st.integers(0, 40))
def test_it_is_never_longer_than_it_may_be_and_always_the_same(said: list[Any], before: str, within: int) -> None:
    turns = [Said(*one) for one in said]
    summary = summarise(before, turns, within)
    assert tokens(summary) <= within
    assert summarise(before, turns, within) == summary


# --- of a model -----------------------------------------------------------------------------------------------------


def answering(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {}}


def test_a_model_is_told_the_summary_so_far_and_the_turns() -> None:
    with model() as server:
        server.answer = lambda asked: answering("  they fixed the parser\n")
        one = summariser_of("openai:small-1", server.endpoint())
        assert isinstance(one, OpenAi)
        assert summarised(one, "before", TALK[:1], 200) == "they fixed the parser"
        assert one.id == "openai:small-1"
        (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    system, user = asked.body["messages"]
    assert asked.body["model"] == "small-1"
    assert (system["role"], user["role"]) == ("system", "user")
    assert "150 words" in system["content"]
    assert "before" in user["content"]
    assert "user: Hello! The parser" in user["content"]


@pytest.mark.parametrize("answer", [{"choices": []}, answering(""), answering(" \n"), answering("long " * 1000)])
def test_an_answer_that_is_no_summary_is_none(answer: dict[str, Any]) -> None:
    with model() as server:
        server.answer = lambda asked: answer
        with pytest.raises(Unavailable) as caught:
            summarised(OpenAi(server.endpoint(), "m"), "", TALK, 100)
    assert caught.value.code == "no_summary"


@pytest.mark.parametrize("answer", [answering(None), answering(7), {"error": "x"}, (500, b"no"), b"\xff"])
def test_garbage_of_an_endpoint_is_said(answer: Any) -> None:
    with model() as server:
        server.answer = lambda asked: answer
        with pytest.raises(Unanswered):
            summarised(OpenAi(server.endpoint(), "m"), "", TALK, 100)


# --- of a plug-in ---------------------------------------------------------------------------------------------------


class Odd:
    """A plug-in that gives what a test wants."""

    id = "odd:1"

    def __init__(self, give: Callable[[], Any]) -> None:
        self.give = give

    def summarise(self, before: str, said: Sequence[Said], within: int) -> str:
        text: str = self.give()
        return text


@pytest.mark.parametrize("give", [lambda: None, lambda: b"x", lambda: "", lambda: "x" * 10_000])
def test_whatever_a_plug_in_gives_is_looked_at(give: Callable[[], Any]) -> None:
    with pytest.raises(Unavailable) as caught:
        summarised(Odd(give), "", TALK, 100)
    assert caught.value.code == "no_summary"
    assert caught.value.problem.hint


def test_text_that_no_event_can_hold_is_mended() -> None:
    assert summarised(Odd(lambda: "a\ud800b"), "", TALK, 100) == "a?b"


class Entry:
    """An entry point."""

    def __init__(self, name: str, thing: Any) -> None:
        self.name, self._thing = name, thing

    def load(self) -> Any:
        return self._thing


def test_a_plug_in_is_found_by_its_name_and_told_what_stands_behind_the_colon(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def make(rest: str) -> Odd:
        told.append(rest)
        return Odd(lambda: "fine")

    entries = [Entry("odd", make)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries if group == "synbus.summarisers" else [])
    endpoint = Endpoint()
    assert summarised(summariser_of("odd:a:b", endpoint), "", TALK, 100) == "fine"
    assert summariser_of("odd", endpoint).id == "odd:1"
    assert told == ["a:b", ""]
    assert isinstance(summariser_of("extractive", endpoint), Extractive)
    for setting in ("nobody", "openai", "openai:", "extractive:x", ""):
        with pytest.raises(InvalidRequest) as caught:
            summariser_of(setting, endpoint)
        assert caught.value.code == "no_plugin"
        assert "synbus.summarisers" in str(caught.value)
