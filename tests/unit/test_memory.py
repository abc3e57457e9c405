"""Memories: what an entry may say, who may change it, what counts as the same, and what nobody else is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bus.domain.memory import (
    Memory,
    MemoryAppended,
    MemoryContradicted,
    MemoryLinked,
    MemoryPinned,
    MemoryResolved,
    MemoryRestored,
    MemoryRetracted,
    MemoryRevised,
    MemorySuperseded,
    MemoryUnlinked,
    MemoryUnpinned,
    MemoryWritten,
    key_of,
    name_of,
    readers,
)
from bus.domain.memory_requests import (
    Append,
    Contradict,
    Link,
    MemoryReply,
    Pin,
    Resolve,
    Restore,
    Retract,
    Revise,
    Supersede,
    Unpin,
    Write,
)
from bus.errors import InvalidRequest, NotAllowed, NotFound
from bus.model import Command
from tests.unit.stage import Stage

DAY = datetime(2030, 1, 1, tzinfo=UTC)
NEXT = datetime(2030, 1, 2, tzinfo=UTC)


def written(stage: Stage, content: str = "tests need a server", agent: str = "atlas", **fields: Any) -> str:
    reply = stage.do(agent, Write(content=content, **fields))
    assert isinstance(reply, MemoryReply)
    return reply.memory


def known(stage: Stage, name: str, agent: str = "atlas") -> Memory:
    state = stage.state(Memory, key_of(name, agent))
    assert isinstance(state, Memory)
    return state


# --- writing ------------------------------------------------------------------------------------------------------


def test_an_entry_keeps_everything_that_is_said_of_it(stage: Stage) -> None:
    request = Write(
        content="tests need a server",
        subject="repo:bus",
        category="convention",
        priority=3,
        salience=0.75,
        confidence=0.5,
        tags=("tests", "ci"),
        metadata={"b": [1, None], "a": "x"},
        valid_from=DAY,
        valid_to=NEXT,
        source="README",
        refs=(3,),
        trust_tier="device_only",
        embedding=(0.5, -1.0),
    )
    ((key, fact),) = stage.facts("atlas", request)
    assert isinstance(fact, MemoryWritten)
    assert fact.embedding == (0.5, -1.0), "the event keeps the vector"
    reply = stage.do("atlas", request)
    assert (reply.seq, reply.existing) == (stage.seq, False)
    assert key.startswith("m-")
    assert known(stage, reply.memory) == Memory(
        author="atlas",
        editor="atlas",
        scope="shared",
        content="tests need a server",
        subject="repo:bus",
        category="convention",
        priority=3,
        salience=0.75,
        confidence=0.5,
        tags=frozenset(("tests", "ci")),
        metadata='{"a":"x","b":[1,null]}',
        valid_from=DAY,
        valid_to=NEXT,
        source="README",
        refs=frozenset((3,)),
        trust_tier="device_only",
        embedded=reply.seq,
    )


@pytest.mark.parametrize("again", ["Tests  need a SERVER", "tests need\na server ", "ｔｅｓｔｓ need a server"])
def test_the_same_again_is_found_and_not_written(stage: Stage, again: str) -> None:
    name = written(stage, subject="ci")
    reply = stage.do("nova", Write(content=again, subject="ci", priority=9))
    assert (reply.memory, reply.existing) == (name, True)
    assert known(stage, name).priority == 0
    assert written(stage, subject="other") != name
    assert written(stage, scope="private", subject="ci") != name
    assert written(stage, namespace="lab", subject="ci") != name


def test_what_does_not_hold_any_more_is_not_the_same(stage: Stage) -> None:
    name = written(stage)
    stage.do("atlas", Retract(memory=name))
    other = written(stage)
    assert other != name
    stage.refused("atlas", Restore(memory=name), "duplicate")
    stage.do("atlas", Revise(memory=other, content="something else"))
    stage.do("atlas", Restore(memory=name))
    assert written(stage) == name, "a restored entry is found again"
    stage.refused("atlas", Revise(memory=other, content="Tests need a server"), "duplicate")


def test_private_entries_of_two_agents_are_never_the_same(stage: Stage) -> None:
    mine, theirs = (written(stage, "a secret", agent, scope="private") for agent in ("atlas", "nova"))
    assert mine != theirs
    assert stage.do("nova", Write(content="a secret", scope="private")).memory == theirs


def test_bridges_are_refused_until_there_are_some(stage: Stage) -> None:
    stage.refused("atlas", Write(content="x", scope="commissure"), "no_commissure")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Write(content=" \n"), "no_text"),
        (Write(content="x", valid_from=NEXT, valid_to=DAY), "bad_validity"),
        (Write(content="x", valid_from=DAY, valid_to=DAY), "bad_validity"),
        (Write(content="x", metadata={"a": "x" * 16_000}), "too_large"),
        (Write(content="x", embedding=(1.0, float("nan"))), "bad_vector"),
        (Write(content="x", embedding=(float("inf"),)), "bad_vector"),
        (Write(content="x", embedding=(1e200,)), "bad_vector"),
    ],
)
def test_what_no_entry_can_say_is_refused(stage: Stage, request_: Write, code: str) -> None:
    stage.refused("atlas", request_, code, InvalidRequest)


# --- changing -----------------------------------------------------------------------------------------------------


def test_a_line_is_added(stage: Stage) -> None:
    name = written(stage, "one")
    assert stage.facts("atlas", Append(memory=name, text="two")) == [(name, MemoryAppended(text="two"))]
    stage.do("atlas", Append(memory=name, text="two"))
    assert known(stage, name).content == "one\ntwo"
    stage.refused("atlas", Append(memory=name, text=" "), "no_text", InvalidRequest)
    stage.refused("atlas", Append(memory=name, text="x" * 200_000), "too_large", InvalidRequest)
    written(stage, "one two three")
    stage.refused("atlas", Append(memory=name, text="three"), "duplicate")


def test_a_revision_changes_what_is_given_and_nothing_else(stage: Stage) -> None:
    name = written(stage, "one", tags=("a",), metadata={"a": 1}, valid_from=DAY)
    unchanged = Revise(memory=name, content="one", tags=("a",), metadata={"a": 1})
    assert stage.facts("atlas", unchanged) == []
    assert stage.do("atlas", unchanged).seq == stage.seq
    revise = Revise(memory=name, content="One", tags=(), metadata={}, priority=5, embedding=(1.0,), reason="typo")
    fact = MemoryRevised(content="One", tags=(), metadata={}, priority=5, embedding=(1.0,), reason="typo")
    assert stage.facts("atlas", revise) == [(name, fact)]
    stage.do("atlas", revise)
    state = known(stage, name)
    assert (state.content, state.tags, state.metadata, state.priority) == ("One", frozenset(), "{}", 5)
    assert state.valid_from == DAY
    stage.refused("atlas", Revise(memory=name, valid_to=DAY), "bad_validity", InvalidRequest)


def test_another_entry_takes_its_place(stage: Stage) -> None:
    name = written(stage, "port 80", subject="web", category="convention", tags=("net",), priority=2)
    reply = stage.do("atlas", Supersede(memory=name, content="port 443", priority=4, reason="tls"))
    old, new = known(stage, name), known(stage, reply.memory)
    assert (old.state, old.superseded_by) == ("superseded", reply.memory)
    assert (new.supersedes, new.subject, new.category, new.priority) == (name, "web", "convention", 4)
    assert new.tags == {"net"}
    assert reply.seq == stage.seq
    for request in (
        Supersede(memory=name, content="x"),
        Revise(memory=name, content="x"),
        Append(memory=name, text="x"),
        Retract(memory=name),
        Restore(memory=name),
        Contradict(memory=name, other=reply.memory),
    ):
        error = stage.refused("atlas", request, "not_active")
        assert reply.memory in str(error)
    again = Supersede(memory=reply.memory, content="PORT 443")
    stage.refused("atlas", again, "duplicate", InvalidRequest)


def test_a_retracted_entry_can_be_restored(stage: Stage) -> None:
    name = written(stage)
    assert stage.facts("atlas", Restore(memory=name)) == []
    retract = Retract(memory=name, reason="wrong")
    assert stage.facts("atlas", retract) == [(name, MemoryRetracted(reason="wrong"))]
    stage.do("atlas", retract)
    assert known(stage, name).state == "retracted"
    assert stage.facts("atlas", retract) == []
    error = stage.refused("atlas", Revise(memory=name, content="x"), "not_active")
    assert f"bus memory restore {name}" in str(error)
    assert stage.facts("atlas", Restore(memory=name)) == [(name, MemoryRestored())]
    stage.do("atlas", Restore(memory=name))
    assert known(stage, name).state == "active"


def test_only_the_author_and_owners_change_an_entry(stage: Stage) -> None:
    name = written(stage)
    for request in (
        Append(memory=name, text="x"),
        Revise(memory=name, content="x"),
        Supersede(memory=name, content="x"),
        Retract(memory=name),
        Restore(memory=name),
    ):
        error = stage.refused("nova", request, "not_allowed", NotAllowed)
        assert "atlas" in str(error)
    stage.do("olga", Revise(memory=name, content="y"))
    assert (known(stage, name).author, known(stage, name).editor) == ("atlas", "olga")


def test_whoever_reads_it_may_pin_it(stage: Stage) -> None:
    name = written(stage)
    assert stage.facts("nova", Unpin(memory=name)) == []
    assert stage.facts("nova", Pin(memory=name)) == [(name, MemoryPinned())]
    stage.do("nova", Pin(memory=name))
    assert known(stage, name).pinned
    assert stage.facts("atlas", Pin(memory=name)) == []
    assert stage.facts("atlas", Unpin(memory=name)) == [(name, MemoryUnpinned())]
    stage.do("atlas", Unpin(memory=name))
    assert not known(stage, name).pinned


def test_links_are_made_and_taken_back(stage: Stage) -> None:
    one, other = written(stage, "one"), written(stage, "two")
    assert stage.facts("nova", Link(memory=one, other=other)) == [(one, MemoryLinked(other=other))]
    stage.do("nova", Link(memory=one, other=other))
    assert known(stage, one).links == {other: stage.seq}
    assert stage.facts("nova", Link(memory=one, other=other)) == []
    assert stage.facts("nova", Link(memory=other, other=one, remove=True)) == []
    remove = Link(memory=one, other=other, remove=True)
    assert stage.facts("nova", remove) == [(one, MemoryUnlinked(other=other))]
    stage.do("nova", remove)
    assert known(stage, one).links == {}
    stage.refused("nova", Link(memory=one, other=one), "same_entry", InvalidRequest)


def test_a_contradiction_stands_once_until_it_is_resolved(stage: Stage) -> None:
    one, other = written(stage, "port 80"), written(stage, "port 443")
    request = Contradict(memory=one, other=other, reason="one port")
    assert stage.facts("nova", request) == [(one, MemoryContradicted(other=other, reason="one port"))]
    stage.do("nova", request)
    seq = stage.seq
    assert known(stage, one).contradictions == {other: seq}
    assert stage.facts("iris", request) == []
    assert stage.do("iris", Contradict(memory=other, other=one)).seq == seq
    resolve = Resolve(memory=other, other=one, resolution="443")
    assert stage.facts("iris", resolve) == [(one, MemoryResolved(other=other, resolution="443"))]
    stage.do("iris", resolve)
    assert known(stage, one).contradictions == {}
    stage.refused("iris", resolve, "not_found", NotFound)


# --- what is private ----------------------------------------------------------------------------------------------

_EVERY: tuple[type[Command], ...] = (Append, Revise, Supersede, Retract, Restore, Pin, Unpin)


def every(name: str, other: str) -> list[Command]:
    """Everything that can be asked about an entry."""
    texts = {Append: {"text": "x"}, Revise: {"content": "x"}, Supersede: {"content": "x"}}
    single: list[Command] = [kind(memory=name, **texts.get(kind, {})) for kind in _EVERY]
    pairs: list[Command] = []
    for one, two in ((name, other), (other, name)):
        pairs += [Link(memory=one, other=two), Contradict(memory=one, other=two), Resolve(memory=one, other=two)]
    return [*single, *pairs]


def test_a_private_entry_does_not_exist_for_anybody_else(stage: Stage) -> None:
    name, shared = written(stage, "a secret", scope="private"), written(stage, "no secret")
    assert name.startswith("p-")
    assert readers(key_of(name, "atlas")) == ("atlas",)
    assert name_of(key_of(name, "atlas")) == name
    for request in every(name, shared):
        for agent in ("nova", "olga"):
            error = stage.refused(agent, request, "not_found", NotFound)
            stranger = "p-nobody"
            about = type(request)(**{k: stranger if v == name else v for k, v in _fields(request).items()})
            same = stage.refused(agent, about, "not_found", NotFound)
            assert str(error).replace(name, stranger) == str(same), "told apart from one that never was"


def _fields(request: Command) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


def test_a_shared_entry_does_not_tell_of_a_private_one(stage: Stage) -> None:
    private, shared = written(stage, "a secret", scope="private"), written(stage, "no secret")
    stage.refused("atlas", Link(memory=shared, other=private), "private")
    stage.do("atlas", Link(memory=private, other=shared))
    stage.do("atlas", Contradict(memory=shared, other=private))
    assert known(stage, shared) == Memory(author="atlas", editor="atlas", scope="shared", content="no secret")
    assert list(known(stage, private).contradictions) == [shared]
    stage.do("atlas", Resolve(memory=shared, other=private))
    assert known(stage, private).contradictions == {}
    new = stage.do("atlas", Supersede(memory=private, content="another secret")).memory
    assert known(stage, new).scope == "private"
    assert readers(key_of(new, "atlas")) == ("atlas",)


# --- what a log may bring -----------------------------------------------------------------------------------------


def test_odd_events_change_nothing(stage: Stage) -> None:
    for fact in (MemoryAppended(text="x"), MemoryPinned(), MemoryResolved(other="m-1")):
        stage.given("atlas", "m-none", fact)
    assert stage.state(Memory, "m-none") is None
    name = written(stage)
    before = known(stage, name)
    odd = (MemoryWritten(content="x", scope="shared"), MemoryRestored(), MemoryUnpinned(), MemoryUnlinked(other="m-1"))
    for one in odd:
        stage.given("nova", name, one)
    assert known(stage, name) is before
    stage.do("atlas", Retract(memory=name))
    before = known(stage, name)
    for two in (MemoryRetracted(), MemoryAppended(text="x"), MemoryRevised(content="x"), MemorySuperseded(by="m-1")):
        stage.given("nova", name, two)
    assert known(stage, name) is before
