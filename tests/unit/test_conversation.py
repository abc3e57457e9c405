"""Which turns are kept, and which are summarised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain.session import STRATEGIES, Session
from projections.conversation import Turn, newest, parts, threshold_of, to_compact


def turns(*sizes: int, roles: str = "") -> list[Turn]:
    """Turns of so many tokens; `roles` says by its letters which of them are the answers of a tool."""
    said = roles.ljust(len(sizes), "u")
    return [Turn(n, "tool" if said[n - 1] == "t" else "user", size) for n, size in enumerate(sizes, 1)]


def session(**fields: Any) -> Session:
    return Session(**({"owner": "atlas", "name": "s", "scope": "private", "recent_tokens": 30} | fields))


def seqs(found: list[Turn]) -> list[int]:
    return [turn.seq for turn in found]


def test_the_newest_are_kept_as_far_as_they_fit() -> None:
    four = turns(10, 20, 30, 40)
    assert seqs(newest(four)) == [1, 2, 3, 4]
    assert seqs(newest(four, 2)) == [3, 4]
    assert seqs(newest(four, 3, 89)) == [3, 4]
    assert seqs(newest(four, within=90)) == [2, 3, 4]
    assert seqs(newest(four, within=39)) == [4], "the last one is kept, however long it is"
    assert newest(four, within=39, least=0) == []
    assert newest([]) == []


def test_what_is_kept_does_not_begin_with_the_answer_of_a_tool() -> None:
    assert seqs(newest(turns(1, 1, 1, 1, roles="uutu"), 2)) == [4]
    assert seqs(newest(turns(1, 1, 1, roles="utt"), 2)) == [3], "the last one is kept, whatever it is"
    assert newest(turns(1, 1, 1, roles="utt"), 2, least=0) == []


def test_a_session_is_compacted_when_it_has_more_than_it_may() -> None:
    five = turns(20, 20, 20, 20, 20)
    assert to_compact(session(), five, 100) == []
    assert seqs(to_compact(session(), five, 99)) == [1, 2, 3, 4]
    assert seqs(to_compact(session(recent_tokens=60), five, 99)) == [1, 2, 3], "at most half is kept"
    assert seqs(to_compact(session(compact_at_tokens=50), five, 1000)) == [1, 2, 3, 4]
    assert to_compact(session(compact_at_tokens=0), five, 10) == []
    assert seqs(to_compact(session(strategy="summary", recent_tokens=60), five, 99)) == [1, 2, 3, 4]


@pytest.mark.parametrize("strategy", [one for one in STRATEGIES if "summary" not in one])
def test_what_shows_no_summary_gets_one_only_when_it_is_asked_for(strategy: str) -> None:
    five = turns(20, 20, 20, 20, 20)
    assert threshold_of(session(strategy=strategy, compact_at_tokens=1), 1) == 0
    assert to_compact(session(strategy=strategy), five, 1) == []
    assert seqs(to_compact(session(strategy=strategy, asked=9), five, 1)) == [1, 2, 3, 4]


def test_what_was_asked_for_is_of_the_turns_before_it() -> None:
    five = turns(1, 1, 1, 1, 1)
    assert seqs(to_compact(session(asked=4, keep=2), five, 100)) == [1]
    assert to_compact(session(asked=3, keep=2), five, 100) == []
    assert to_compact(session(asked=3, keep=2), [], 100) == []
    assert seqs(to_compact(session(asked=2), turns(60, 60, 60), 100)) == [1, 2], "it has more than it may as well"


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 100))
def test_parts_are_everything_in_order_and_none_is_larger_than_it_has_to_be(sizes: list[int], within: int) -> None:
    whole = turns(*sizes)
    found = list(parts(whole, within))
    assert [turn for part in found for turn in part] == whole
    assert all(len(part) == 1 or sum(turn.tokens for turn in part) <= within for part in found)
    assert all(found)
