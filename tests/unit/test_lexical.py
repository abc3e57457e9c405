"""Words: what a text is found by, and what a question names."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.lexical import WORD, Span, names, spans, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The tests were running", ["test", "run"]),
        ("What's the user's plan? Don't!", ["user", "plan"]),
        ("parseUserInput", ["parseuserinput", "pars", "user", "input"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("TS2345", ["ts2345", "ts", "2345"]),
        ("ECONNREFUSED", ["econnrefus"]),
        ("bus/task_claims.py:12", ["bus/task_claims.py:12", "bus", "task", "claim", "py", "12"]),
        ("fix-auth, (fix-auth)", ["fix-auth", "fix", "auth", "fix-auth", "fix", "auth"]),
        ("v1.2.3", ["v1.2.3", "v1", "v", "1", "2", "3"]),
        ("Grüße aus Köln", ["grüsse", "aus", "köln"]),
        ("東京 42", ["東京", "42"]),
        ("", []),
        ("the and of to", []),
        (" \n\t.,;:!? --", []),
    ],
)
def test_a_text_is_found_by_its_words_and_by_code_whole_and_in_parts(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_what_is_typed_as_it_stands_in_a_text_finds_it() -> None:
    for text in ("parseUserInput", "src/parseUserInput.py", "E0599", "bus.domain.memory", "--from-log"):
        assert set(words(text)) & set(words(f"see ({text}), please"))
    assert set(words("parse user input")) < set(words("parseUserInput"))


def test_whatever_is_written_has_words_of_some_length() -> None:
    odd = ("x" * 10_000, "/".join("ab" for _ in range(5_000)), "\ud800 lone", "a\0b", "’’’'''", "_" * 100)
    for text in odd:
        assert all(0 < len(word) <= 60 for word in words(text))


def test_names_of_agents_stand_in_a_question_in_any_case() -> None:
    assert {"atlas", "code-bot_2"} <= names("What did Atlas's friend, Code-Bot_2, say?")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("what happened in May 2023?", [Span(2023, 5, None)]),
        ("since September", [Span(None, 9, None)]),
        ("on 8 May, 2023 and on June 3rd", [Span(2023, 5, 8), Span(None, 6, 3)]),
        ("on the 3rd of Sept", [Span(None, 9, 3)]),
        ("2024-02-29 or 2024-03", [Span(2024, 2, 29), Span(2024, 3, None)]),
        ("May I march?", []),
        ("it may be", []),
        ("version 2023-99", []),
    ],
)
def test_months_and_days_are_read(text: str, found: list[Span]) -> None:
    assert spans(text) == found


def test_a_span_contains_its_days() -> None:
    assert Span(2023, 5, None).contains(date(2023, 5, 31))
    assert Span(None, 5, 8).contains(date(1999, 5, 8))
    assert not Span(2023, 5, 8).contains(date(2023, 5, 9))
    assert not Span(2022, 5, None).contains(date(2023, 5, 8))


pieces = st.lists(
    st.one_of(st.from_regex(r"[A-Z]?[a-z]{2,8}|[A-Z]{2,4}|[0-9]{1,4}", fullmatch=True)), min_size=1, max_size=4
)


@given(pieces, st.sampled_from(("", "_", "-", ".", "/", "::", ":")))
def test_an_identifier_is_found_whole_in_any_case_and_in_every_part(parts: list[str], between: str) -> None:
    name = between.join(parts)
    found = words(name)
    for shouted in (name, f"in `{name}`:", f'"{name}"', f"({name}).", f"see {name}, then"):
        assert set(found) <= set(words(shouted))
    if between:
        assert set(words(" ".join(parts))) <= set(found), "each part is found"
        assert set(found) == set(words(name.lower())) | set(found), "and so is what is written without capital letters"
    if len(parts) > 1 and between and len(name) <= WORD:
        assert name.casefold() in found


@given(st.text(max_size=300))
def test_whatever_a_text_is_its_words_can_be_looked_for(text: str) -> None:
    found = words(text)
    assert all(0 < len(word) <= WORD and not word.isspace() for word in found)
    assert words(text) == found
    assert set(words(text.replace("\n", " "))) == set(found)
