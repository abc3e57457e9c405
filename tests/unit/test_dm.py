"""Direct messages: one conversation per pair, mentions that stay inside it, and touching messages."""

from __future__ import annotations

from typing import Any

import pytest

from bus.domain.agent import Deactivate
from bus.domain.channel import ChannelOpened, ChannelPosted
from bus.domain.dm import (
    Dm,
    DmEdited,
    DmPinned,
    DmPosted,
    DmReacted,
    DmUnpinned,
    Edit,
    Pin,
    Post,
    React,
    Unpin,
    pair,
    readers,
)
from bus.errors import NotAllowed, NotFound
from bus.subjects import TENANT
from tests.unit.stage import Stage

KEY = "atlas+nova"


@pytest.fixture
def posted(stage: Stage) -> int:
    """atlas wrote to nova; the message's seq."""
    seq = stage.do("atlas", Post(to="nova", text="hello")).seq
    assert isinstance(seq, int)
    return seq


def test_a_pair_is_one_conversation_whoever_writes() -> None:
    assert pair("atlas", "nova") == pair("nova", "atlas") == KEY
    assert readers(KEY) == ("atlas", "nova")
    assert pair("atlas", "atlas") == "atlas+atlas"


def test_the_first_message_begins_it_for_the_whole_tenant(stage: Stage) -> None:
    decision = stage.decide("nova", Post(to="atlas", text="hi", namespace="other"))
    assert isinstance(decision, list)
    assert [(emit.entity, emit.namespace, emit.fact) for emit in decision] == [
        (KEY, TENANT, DmPosted(to="atlas", text="hi"))
    ]
    stage.do("nova", Post(to="atlas", text="hi"))
    assert stage.state(Dm, KEY, TENANT) == Dm()


def test_whom_one_can_write_to(stage: Stage) -> None:
    assert stage.facts("atlas", Post(to="atlas", text="a note")) != []
    stage.refused("atlas", Post(to="ghost", text="x"), "not_found", NotFound)
    stage.do("olga", Deactivate(agent="nova"))
    stage.refused("atlas", Post(to="nova", text="x"), "inactive")


def test_a_mention_of_a_third_does_not_leave_the_conversation(stage: Stage) -> None:
    request = Post(to="nova", text="@iris and @nova and @atlas", mentions=("olga",))
    ((_, fact),) = stage.facts("atlas", request)
    assert isinstance(fact, DmPosted)
    assert fact.mentions == ("nova", "atlas")
    assert stage.do("atlas", request).mentions == ("nova", "atlas")


def test_replies_stay_in_the_conversation(stage: Stage, posted: int) -> None:
    request = Post(to="atlas", text="yes", reply_to=posted)
    fact = DmPosted(to="atlas", text="yes", reply_to=posted, reply_to_agent="atlas")
    assert stage.facts("nova", request) == [(KEY, fact)]
    stage.refused("iris", Post(to="atlas", text="x", reply_to=posted), "not_found", NotFound)
    stage.given("atlas", "dev", ChannelOpened())
    public = stage.given("atlas", "dev", ChannelPosted(text="x"))
    stage.refused("nova", Post(to="atlas", text="x", reply_to=public), "not_found", NotFound)


def test_only_its_author_edits_a_message(stage: Stage, posted: int) -> None:
    assert stage.facts("atlas", Edit(to="nova", message=posted, text="x")) == [
        (KEY, DmEdited(message=posted, text="x"))
    ]
    stage.refused("nova", Edit(to="atlas", message=posted, text="x"), "not_allowed", NotAllowed)


def test_a_stranger_cannot_touch_and_learns_nothing(stage: Stage, posted: int) -> None:
    touches: list[Any] = [
        Edit(to="nova", message=posted, text="x"),
        Pin(to="nova", message=posted),
        Unpin(to="nova", message=posted),
        React(to="nova", message=posted, emoji="x"),
    ]
    for who in ("iris", "olga"):
        for request in touches:
            error = stage.refused(who, request, "not_found", NotFound)
            assert "hello" not in str(error)
        stage.do(who, Post(to="nova", text="mine"))
        for request in touches:
            stage.refused(who, request, "not_found", NotFound)


def test_pins_are_a_set(stage: Stage, posted: int) -> None:
    assert stage.facts("nova", Unpin(to="atlas", message=posted)) == []
    assert stage.facts("nova", Pin(to="atlas", message=posted)) == [(KEY, DmPinned(message=posted))]
    stage.do("nova", Pin(to="atlas", message=posted))
    again = stage.do("atlas", Pin(to="nova", message=posted))
    assert (again.seq, again.message) == (stage.seq, posted)
    before = stage.state(Dm, KEY, TENANT)
    assert before == Dm(pins=frozenset({posted}))
    stage.given("nova", KEY, DmPinned(message=posted), TENANT)
    stage.given("nova", KEY, DmEdited(message=posted, text="x"), TENANT)
    assert stage.state(Dm, KEY, TENANT) is before
    assert stage.facts("atlas", Unpin(to="nova", message=posted)) == [(KEY, DmUnpinned(message=posted))]


def test_reactions(stage: Stage, posted: int) -> None:
    assert stage.facts("nova", React(to="atlas", message=posted, emoji="+1")) == [
        (KEY, DmReacted(message=posted, emoji="+1"))
    ]


def test_an_event_about_no_conversation_begins_none(stage: Stage) -> None:
    stage.given("atlas", KEY, DmPinned(message=1), TENANT)
    stage.given("atlas", KEY, DmEdited(message=1, text="x"), TENANT)
    assert stage.state(Dm, KEY, TENANT) is None
