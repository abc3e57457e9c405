"""Sessions: who may do what with which one, what a turn is, and which summaries are refused."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from bus.domain.session import (
    Session,
    SessionAdded,
    SessionCleared,
    SessionCompacted,
    SessionCompactionAsked,
    SessionConfigured,
    SessionOpened,
    own_key,
    readers,
)
from bus.domain.session_requests import Add, Clear, Compact, Configure, Open, Replace
from bus.errors import InvalidRequest, NotAllowed, NotFound
from bus.operation import CODEC, OPERATIONS
from bus.protocol import decode_request
from bus.subjects import SYSTEM
from tests.unit.stage import Stage

MINE = own_key("s", "atlas")


def add(stage: Stage, content: str = "hi", agent: str = "atlas", session: str = "s", **fields: Any) -> int:
    return int(stage.do(agent, Add(session=session, role="user", content=content, **fields)).seq)


def state(stage: Stage, key: str = MINE) -> Session:
    found: Session = stage.state(Session, key)
    return found


# --- whose it is ----------------------------------------------------------------------------------------------------


def test_the_first_turn_begins_a_private_session(stage: Stage) -> None:
    turn = Add(session="s", role="user", content="hello, ü")
    opened, added = SessionOpened(name="s"), SessionAdded(role="user", content="hello, ü", tokens=3)
    assert stage.facts("atlas", turn) == [(MINE, opened), (MINE, added)]
    reply = stage.do("atlas", turn)
    assert (reply.seq, reply.session, reply.tokens, reply.opened) == (stage.seq, "s", 3, True)
    assert stage.facts("atlas", turn) == [(MINE, added)]
    assert stage.do("atlas", turn).opened is False
    assert state(stage) == Session(owner="atlas", name="s", scope="private")


def test_a_private_session_does_not_exist_for_anybody_else(stage: Stage) -> None:
    add(stage)
    for request in (Clear(session="s"), Configure(session="s", recent_turns=1), Compact(session="s")):
        for other in ("nova", "olga"):
            stage.refused(other, request, "not_found", NotFound)
    add(stage, agent="nova")
    assert state(stage, own_key("s", "nova")).owner == "nova"
    assert state(stage).owner == "atlas"
    assert readers(MINE) == ("atlas",)
    assert "s" not in MINE.partition("+")[2].split(), "its name stands in no key"


def test_a_shared_session_is_everybodys_to_write_and_its_owners_to_keep(stage: Stage) -> None:
    opened = stage.do("atlas", Open(session="s", scope="shared", title="plan", recent_turns=3))
    assert (opened.session, opened.existing) == ("s", False)
    add(stage, agent="nova")
    assert (state(stage, "s").owner, readers("s")) == ("atlas", None)
    for request in (Clear(session="s"), Configure(session="s", recent_turns=1), Compact(session="s")):
        stage.refused("nova", request, "not_allowed", NotAllowed)
        assert stage.facts("olga", request), "an owner of the tenant may"
        assert stage.facts("atlas", request)


def test_opening_what_is_there_says_so_and_changes_nothing(stage: Stage) -> None:
    first = stage.do("atlas", Open(session="s", recent_turns=3))
    again = stage.do("atlas", Open(session="s", recent_turns=9))
    assert (again.existing, again.seq, state(stage).recent_turns) == (True, first.seq, 3)
    stage.refused("atlas", Open(session="s", scope="shared"), "exists")
    stage.do("nova", Open(session="t", scope="shared"))
    stage.refused("atlas", Open(session="t"), "exists")
    assert stage.do("nova", Open(session="s", scope="shared")).existing is False, "atlas's own is nobody's business"


def test_ones_own_session_comes_before_everybodys(stage: Stage) -> None:
    add(stage)
    stage.do("nova", Open(session="s", scope="shared"))
    assert stage.facts("atlas", Clear(session="s")) == [(MINE, SessionCleared())]
    assert [key for key, _ in stage.facts("nova", Clear(session="s"))] == ["s"]


# --- how it is kept -------------------------------------------------------------------------------------------------


def test_what_is_changed_is_an_event_and_what_is_not_is_none(stage: Stage) -> None:
    stage.do("atlas", Open(session="s", strategy="window", recent_turns=5, compact_at_tokens=10))
    assert stage.facts("atlas", Configure(session="s", strategy="window", recent_turns=5, compact_at_tokens=10)) == []
    request = Configure(
        session="s", strategy="vector", recent_turns=5, recent_tokens=7, nearest=2, compact_at_tokens=0, title="x"
    )
    changed = SessionConfigured(strategy="vector", recent_tokens=7, nearest=2, compact_at_tokens=0, title="x")
    assert stage.facts("atlas", request) == [(MINE, changed)]
    stage.do("atlas", request)
    known = state(stage)
    assert (known.strategy, known.recent_turns, known.recent_tokens, known.nearest, known.compact_at_tokens) == (
        "vector",
        5,
        7,
        2,
        0,
    )
    stage.refused("atlas", Configure(session="x"), "not_found", NotFound)


# --- turns ----------------------------------------------------------------------------------------------------------


def test_tokens_are_what_was_counted_or_a_quarter_of_the_bytes(stage: Stage) -> None:
    counted = Add(session="s", role="tool", content="12345", tokens=77, metadata={"call": "c-1"})
    ((_, _), (_, fact)) = stage.facts("atlas", counted)
    assert fact == SessionAdded(role="tool", content="12345", tokens=77, metadata={"call": "c-1"})
    assert [stage.do("atlas", replace(counted, tokens=n)).tokens for n in (None, 0)] == [2, 0]


@pytest.mark.parametrize("content", ["", "  \n"])
def test_a_turn_says_something_or_carries_something(stage: Stage, content: str) -> None:
    stage.refused("atlas", Add(session="s", role="assistant", content=content), "no_text", InvalidRequest)
    assert stage.facts("atlas", Add(session="s", role="assistant", content=content, metadata={"calls": ["c-1"]}))


def test_what_no_event_can_hold_is_refused(stage: Stage) -> None:
    big = Add(session="s", role="user", content="x", metadata={"a": "x" * 20_000})
    stage.refused("atlas", big, "too_large", InvalidRequest)
    ((_, _), (_, fact)) = stage.facts("atlas", Add(session="s", role="user", content="x" * 1_000_000))
    with pytest.raises(InvalidRequest) as caught:
        CODEC.body(fact)
    assert caught.value.code == "too_large"


def test_embeddings_of_a_session_have_one_dimension(stage: Stage) -> None:
    for numbers in ((float("nan"),), (1.0, float("inf")), (0.0, 0.0), (1e300,)):
        odd = Add(session="s", role="user", content="x", embedding=numbers)
        stage.refused("atlas", odd, "bad_vector", InvalidRequest)
    add(stage, "one", embedding=(1.0, 2.0))
    assert state(stage).dimension == 2
    three = Add(session="s", role="user", content="x", embedding=(1.0, 2.0, 3.0))
    stage.refused("atlas", three, "bad_dimension", InvalidRequest)
    add(stage, "none")
    add(stage, "two", embedding=(3.0, 4.0))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("add", b'{"session": "s", "role": "robot", "content": "x"}'),
        ("add", b'{"session": "s", "role": "user"}'),
        ("add", b'{"session": "a b", "role": "user", "content": "x"}'),
        ("add", b'{"session": "a+b", "role": "user", "content": "x"}'),
        ("add", b'{"session": "s", "role": "user", "content": "\\ud800"}'),
        ("add", b'{"session": "s", "role": "user", "content": "\xff"}'),
        ("add", b'{"session": "s", "role": "user", "content": "x", "tokens": -1}'),
        ("add", b'{"session": "s", "role": "user", "content": "' + b"x" * 1_000_001 + b'"}'),
        ("open", b'{"session": "s", "strategy": "all"}'),
        ("open", b'{"session": "s", "recent_turns": 0}'),
        ("open", b'{"session": "s", "compact_at_tokens": -1}'),
        ("open", b'{"session": "s", "scope": "commissure"}'),
        ("configure", b'{"session": "s", "recent_tokens": 0}'),
        ("context", b'{"session": "s", "budget_tokens": -1}'),
        ("context", b'{"session": "s", "recent_tokens": 1000000000}'),
        ("context", b'{"session": "s", "k": 0}'),
        ("context", b'{"session": "s", "strategy": "all"}'),
        ("context", b'{"session": "s", "kinds": ["secrets"]}'),
        ("context", b'{"session": "s", "embedding": [NaN]}'),
        ("compact", b'{"session": "s", "keep": 0}'),
        ("compact", b'{"session": "s", "upto": 0}'),
    ],
)
def test_what_is_no_request_is_refused_before_it_is_decided(name: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(OPERATIONS[f"session.{name}"], body)
    assert caught.value.code == "invalid"


# --- summaries ------------------------------------------------------------------------------------------------------


def test_asking_for_a_summary_is_an_event_that_a_summary_answers(stage: Stage) -> None:
    one, _ = add(stage), add(stage)
    assert stage.facts("atlas", Compact(session="s")) == [(MINE, SessionCompactionAsked())]
    asked = stage.do("atlas", Compact(session="s", keep=3)).seq
    assert (state(stage).asked, state(stage).keep) == (asked, 3)
    stage.do("atlas", Compact(session="s", summary="hi was said", upto=one))
    known = state(stage)
    assert (known.asked, known.compacted, known.begins) == (None, one, one)
    assert (known.summary, known.summarised, known.summariser) == ("hi was said", stage.seq, "agent:atlas")


def test_a_summary_of_ones_own_names_the_last_turn_it_stands_for(stage: Stage) -> None:
    one, two = add(stage), add(stage)
    for odd in ({"summary": "x"}, {"upto": one}, {"summary": "x", "upto": one, "keep": 2}):
        stage.refused("atlas", Compact(session="s", **odd), "what", InvalidRequest)
    stage.refused("atlas", Compact(session="s", summary=" ", upto=one), "no_text", InvalidRequest)
    other = add(stage, agent="nova")
    for missing in (other, other - 1, 1, 99):
        stage.refused("atlas", Compact(session="s", summary="x", upto=missing), "not_found", NotFound)
    done = Compact(session="s", summary="x", upto=two)
    assert stage.facts("atlas", done) == [
        (MINE, SessionCompacted(summary="x", upto=two, start=0, summariser="agent:atlas"))
    ]
    stage.do("atlas", done)
    for late in (one, two):
        stage.refused("atlas", Compact(session="s", summary="y", upto=late), "compacted")


def replacing(start: int, upto: int, **fields: Any) -> Replace:
    return Replace(**({"key": MINE, "start": start, "upto": upto, "summary": "x", "summariser": "test"} | fields))


def test_each_turn_is_summarised_once(stage: Stage) -> None:
    one, two = add(stage), add(stage)
    request = replacing(0, one)
    assert stage.facts(SYSTEM, request) == [(MINE, SessionCompacted(summary="x", upto=one, start=0, summariser="test"))]
    first = stage.do(SYSTEM, request)
    assert stage.do(SYSTEM, request) == first, "said again, it changes nothing"
    stage.refused(SYSTEM, replacing(0, two), "compacted")
    stage.refused(SYSTEM, replacing(0, one, summariser="another"), "compacted")
    assert stage.facts(SYSTEM, replacing(one, two))
    stage.refused(SYSTEM, replacing(0, one, key="nobody"), "not_found", NotFound)


def test_what_was_cleared_meanwhile_is_not_summarised(stage: Stage) -> None:
    one = add(stage)
    cleared = stage.do("atlas", Clear(session="s")).seq
    known = state(stage)
    assert (known.cleared, known.begins, known.summary) == (cleared, cleared, "")
    stage.refused(SYSTEM, replacing(0, one), "compacted")
    stage.refused(SYSTEM, replacing(cleared, one), "compacted")
    stage.refused("atlas", Compact(session="s", summary="x", upto=one), "compacted")
    two = add(stage)
    stage.do(SYSTEM, replacing(cleared, two))
    assert state(stage).begins == two
    again = stage.do("atlas", Clear(session="s")).seq
    assert (state(stage).summary, state(stage).summarised, state(stage).begins) == ("", None, again)


# --- events that no decision made -----------------------------------------------------------------------------------


def test_events_that_make_no_sense_change_nothing(stage: Stage) -> None:
    for fact in (
        SessionAdded(role="user", content="x", tokens=1),
        SessionCleared(),
        SessionCompactionAsked(),
        SessionConfigured(recent_turns=3),
        SessionCompacted(summary="x", upto=1),
    ):
        stage.given("atlas", "nobody", fact)
        assert stage.state(Session, "nobody") is None
    one = add(stage)
    known = state(stage)
    for odd in (
        SessionOpened(name="other", scope="shared"),
        SessionCompacted(summary="x", upto=1 << 50),
        SessionConfigured(),
    ):
        stage.given("nova", MINE, odd)
        assert state(stage) is known
    stage.given("nova", MINE, SessionCompacted(summary="x", upto=one))
    before = state(stage)
    stage.given("nova", MINE, SessionCompacted(summary="y", upto=one))
    assert state(stage) is before
