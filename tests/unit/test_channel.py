"""Channels: opening, membership, messages, pins, reactions, mentions, archiving."""

from __future__ import annotations

from typing import Any

import pytest

from bus.domain.agent import Deactivate
from bus.domain.channel import (
    Archive,
    Channel,
    ChannelArchived,
    ChannelEdited,
    ChannelJoined,
    ChannelLeft,
    ChannelOpened,
    ChannelPinned,
    ChannelPosted,
    ChannelReacted,
    ChannelUnpinned,
    Edit,
    Join,
    Leave,
    Open,
    Pin,
    Post,
    React,
    Unpin,
)
from bus.errors import NotAllowed, NotFound
from bus.events import Fact
from bus.subjects import TENANT
from tests.unit.stage import Stage


@pytest.fixture
def posted(stage: Stage) -> int:
    """atlas opened dev and posted a message; its seq."""
    stage.do("atlas", Open(channel="dev"))
    seq = stage.do("atlas", Post(channel="dev", text="hello")).seq
    assert isinstance(seq, int)
    return seq


def channel(stage: Stage, key: str = "dev") -> Channel:
    known = stage.state(Channel, key)
    assert isinstance(known, Channel)
    return known


# --- open, join, leave, archive -----------------------------------------------------------------------------------


def test_opening_twice_finds_the_channel(stage: Stage) -> None:
    assert stage.facts("atlas", Open(channel="dev", topic="t")) == [("dev", ChannelOpened(topic="t"))]
    first = stage.do("atlas", Open(channel="dev", topic="t"))
    assert stage.do("nova", Open(channel="dev")) == first
    assert channel(stage) == Channel(topic="t")


def test_joining_opens_what_does_not_exist(stage: Stage) -> None:
    assert stage.facts("atlas", Join(channel="dev")) == [("dev", ChannelOpened()), ("dev", ChannelJoined())]
    reply = stage.do("atlas", Join(channel="dev"))
    assert (reply.seq, reply.channel) == (stage.seq, "dev")
    assert channel(stage).members == {"atlas"}
    assert stage.facts("nova", Join(channel="dev")) == [("dev", ChannelJoined())]


def test_joining_and_leaving_twice_change_nothing(stage: Stage) -> None:
    first = stage.do("atlas", Join(channel="dev"))
    assert stage.do("atlas", Join(channel="dev")) == first
    assert stage.facts("nova", Leave(channel="dev")) == []
    assert stage.facts("atlas", Leave(channel="dev")) == [("dev", ChannelLeft())]
    stage.do("atlas", Leave(channel="dev"))
    assert channel(stage).members == frozenset()
    stage.refused("atlas", Leave(channel="ops"), "not_found", NotFound)


def test_an_archived_channel_can_be_left_but_not_written(stage: Stage, posted: int) -> None:
    stage.do("nova", Join(channel="dev"))
    assert stage.facts("atlas", Archive(channel="dev", reason="r")) == [("dev", ChannelArchived(reason="r"))]
    first = stage.do("atlas", Archive(channel="dev", reason="r"))
    assert stage.do("atlas", Archive(channel="dev")) == first
    writes = [
        Open(channel="dev"),
        Join(channel="dev"),
        Post(channel="dev", text="x"),
        Edit(channel="dev", message=posted, text="x"),
        Pin(channel="dev", message=posted),
        Unpin(channel="dev", message=posted),
        React(channel="dev", message=posted, emoji="+1"),
    ]
    for request in writes:
        stage.refused("atlas", request, "archived")
    stage.do("nova", Leave(channel="dev"))
    assert channel(stage).members == frozenset()
    stage.refused("atlas", Archive(channel="ops"), "not_found", NotFound)


# --- messages -----------------------------------------------------------------------------------------------------


def test_anybody_posts_member_or_not(stage: Stage, posted: int) -> None:
    request = Post(channel="dev", text="hi", refs=(1, 2), attachments=("sha256:" + "0" * 64,))
    fact = ChannelPosted(text="hi", refs=(1, 2), attachments=("sha256:" + "0" * 64,))
    assert stage.facts("nova", request) == [("dev", fact)]
    assert stage.do("nova", request).seq == stage.seq
    error = stage.refused("nova", Post(channel="ops", text="x"), "not_found", NotFound)
    assert "bus join ops" in str(error)


def test_channels_belong_to_a_namespace(stage: Stage, posted: int) -> None:
    stage.refused("atlas", Post(channel="dev", text="x", namespace="other"), "not_found", NotFound)
    stage.do("atlas", Open(channel="dev", namespace="other"))
    stage.refused("atlas", Pin(channel="dev", message=posted, namespace="other"), "not_found", NotFound)


def test_a_reply_names_whom_it_answers(stage: Stage, posted: int) -> None:
    request = Post(channel="dev", text="yes", reply_to=posted)
    assert stage.facts("nova", request) == [
        ("dev", ChannelPosted(text="yes", reply_to=posted, reply_to_agent="atlas")),
    ]


def test_messages_are_touched_in_their_own_conversation_only(stage: Stage, posted: int) -> None:
    stage.do("atlas", Open(channel="ops"))
    opening = posted - 1
    for seq in (posted, opening, 999):
        here: list[Any] = [
            Post(channel="ops", text="x", reply_to=seq),
            Edit(channel="ops", message=seq, text="x"),
            Pin(channel="ops", message=seq),
            Unpin(channel="ops", message=seq),
            React(channel="ops", message=seq, emoji="+1"),
        ]
        for request in here:
            stage.refused("atlas", request, "not_found", NotFound)
    stage.refused("atlas", Pin(channel="dev", message=opening), "not_found", NotFound)


def test_only_its_author_edits_a_message(stage: Stage, posted: int) -> None:
    request = Edit(channel="dev", message=posted, text="hello!")
    assert stage.facts("atlas", request) == [("dev", ChannelEdited(message=posted, text="hello!"))]
    reply = stage.do("atlas", request)
    assert (reply.seq, reply.message) == (stage.seq, posted)
    for who in ("nova", "olga"):
        error = stage.refused(who, request, "not_allowed", NotAllowed)
        assert (error.problem.expected, error.problem.found) == ("atlas", who)


def test_pins_are_a_set(stage: Stage, posted: int) -> None:
    assert stage.facts("nova", Pin(channel="dev", message=posted)) == [("dev", ChannelPinned(message=posted))]
    assert stage.facts("nova", Unpin(channel="dev", message=posted)) == []
    stage.do("nova", Pin(channel="dev", message=posted))
    assert channel(stage).pins == {posted}
    again = stage.do("iris", Pin(channel="dev", message=posted))
    assert (again.seq, again.message) == (stage.seq, posted)
    assert stage.facts("iris", Unpin(channel="dev", message=posted)) == [("dev", ChannelUnpinned(message=posted))]
    stage.do("iris", Unpin(channel="dev", message=posted))
    assert channel(stage).pins == frozenset()


def test_reactions_are_recorded_and_taken_back(stage: Stage, posted: int) -> None:
    assert stage.facts("nova", React(channel="dev", message=posted, emoji="👍")) == [
        ("dev", ChannelReacted(message=posted, emoji="👍"))
    ]
    assert stage.facts("nova", React(channel="dev", message=posted, emoji="👍", remove=True)) == [
        ("dev", ChannelReacted(message=posted, emoji="👍", removed=True))
    ]


# --- mentions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@nova please look", ("nova",)),
        ("see @nova, @iris and @nova.", ("nova", "iris")),
        ("(@iris) @nova's", ("iris", "nova")),
        ("mail nova@iris.example and a/@nova", ()),
        ("@ghost @nova-x @Nova @nova_ @@nova", ()),
        ("no mention", ()),
    ],
)
def test_names_in_a_text_are_mentions_when_they_are_agents(stage: Stage, text: str, names: tuple[str, ...]) -> None:
    stage.do("atlas", Open(channel="dev"))
    ((_, fact),) = stage.facts("atlas", Post(channel="dev", text=text))
    assert isinstance(fact, ChannelPosted)
    assert fact.mentions == names
    assert stage.do("atlas", Post(channel="dev", text=text)).mentions == names


def test_explicit_mentions_come_first_once_each_and_must_be_active_agents(stage: Stage) -> None:
    stage.do("atlas", Open(channel="dev"))
    request = Post(channel="dev", text="@nova @olga", mentions=("iris", "nova", "iris"))
    ((_, fact),) = stage.facts("atlas", request)
    assert isinstance(fact, ChannelPosted)
    assert fact.mentions == ("iris", "nova", "olga")
    stage.refused("atlas", Post(channel="dev", text="x", mentions=("ghost",)), "not_found", NotFound)
    stage.do("olga", Deactivate(agent="iris"))
    stage.refused("atlas", Post(channel="dev", text="x", mentions=("iris",)), "inactive")
    ((_, fact),) = stage.facts("atlas", Post(channel="dev", text="@iris"))
    assert isinstance(fact, ChannelPosted)
    assert fact.mentions == ()


# --- events that make no sense ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact",
    [
        ChannelOpened(topic="other"),
        ChannelJoined(),
        ChannelPosted(text="x"),
        ChannelEdited(message=1, text="x"),
        ChannelPinned(message=5),
        ChannelUnpinned(message=6),
        ChannelReacted(message=5, emoji="x"),
    ],
)
def test_what_changes_nothing_leaves_the_very_same_state(stage: Stage, fact: Fact) -> None:
    stage.do("atlas", Join(channel="dev"))
    stage.given("atlas", "dev", ChannelPinned(message=5))
    before = channel(stage)
    stage.given("atlas", "dev", fact)
    assert channel(stage) is before
    stage.given("nova", "dev", ChannelLeft())
    assert channel(stage) is before


def test_nothing_but_leaving_happens_to_an_archived_channel(stage: Stage) -> None:
    stage.do("atlas", Join(channel="dev"))
    stage.do("atlas", Archive(channel="dev"))
    before = channel(stage)
    for fact in (ChannelJoined(), ChannelPinned(message=5), ChannelArchived(), ChannelOpened()):
        stage.given("nova", "dev", fact)
        assert channel(stage) is before
    stage.given("atlas", "dev", ChannelLeft())
    assert channel(stage).members == frozenset()


def test_an_event_about_no_channel_makes_none(stage: Stage) -> None:
    for fact in (ChannelJoined(), ChannelPosted(text="x"), ChannelPinned(message=1)):
        stage.given("atlas", "ghost", fact)
    assert stage.state(Channel, "ghost") is None
    assert stage.state(Channel, "ghost", TENANT) is None
