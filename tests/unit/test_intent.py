"""Intents: one declarer a key, the same however it is written, until it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain import intent as intents
from bus.domain.intent import (
    Declare,
    Intent,
    IntentDeclared,
    IntentExpired,
    IntentExtended,
    IntentWithdrawn,
    Withdraw,
    Wording,
    expire,
)
from bus.domain.wording import ALIKE, Wordings, _in_at_least, at_most, key_of, likeness
from bus.errors import InvalidRequest, NotFound
from bus.model import Limits
from bus.subjects import SYSTEM
from tests.unit.stage import Stage


def intent(stage: Stage, key: str = "fix-auth") -> Intent:
    known = stage.state(Intent, key)
    assert isinstance(known, Intent)
    return known


# --- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("fix auth", "fix-auth"),
        ("  Fix\t AUTH!", "fix-auth"),
        ("fix_auth", "fix-auth"),
        ("ﬁx ＡＵＴＨ", "fix-auth"),
        ("fix\u00adauth", "fixauth"),
        ("src/Login.py", "src/login.py"),
        ("./src//x/../login.py/", "src/login.py"),
        ("src\\login.py", "src/login.py"),
        ("v1.2", "v1.2"),
        ("well... yes", "well-yes"),
        ("हिन्दी", "हिन्दी"),
        ("🚀", "🚀"),
    ],
)
def test_what_means_the_same_is_one_key(said: str, key: str) -> None:
    assert key_of(said) == key


@given(st.text())
def test_the_key_of_a_key_is_that_key(said: str) -> None:
    try:
        key = key_of(said)
    except InvalidRequest:
        return
    assert key_of(key) == key


@pytest.mark.parametrize("said", ["", " ", "!?", "-", "./", "../x", "a/../..", "x" * 201, "ü" * 67])
def test_a_key_of_nothing_or_of_too_much_is_refused(stage: Stage, said: str) -> None:
    stage.refused("atlas", Declare(key=said), "bad_key", InvalidRequest)
    stage.refused("atlas", Withdraw(key=said), "bad_key", InvalidRequest)


# --- declaring ----------------------------------------------------------------------------------------------------


def test_the_first_has_it_and_the_others_are_told_who_and_until_when(stage: Stage) -> None:
    request = Declare(key="Fix auth", text="new tokens", lease_s=60)
    fact = IntentDeclared(said="Fix auth", text="new tokens", lease_s=60, expires=stage.at(60), until=stage.at(86_400))
    assert stage.facts("atlas", request) == [("fix-auth", fact)]
    reply = stage.do("atlas", request)
    assert (reply.seq, reply.key, reply.declared, reply.expires) == (stage.seq, "fix-auth", stage.seq, stage.at(60))
    assert reply.warnings == []
    error = stage.refused("nova", Declare(key="fix  AUTH"), "declared")
    assert error.details == {
        "agent": "atlas",
        "declared": stage.seq,
        "text": "new tokens",
        "expires": stage.at(60).isoformat(),
    }
    assert "atlas is about to do this: new tokens" in str(error)
    assert f"event #{stage.seq}, until 2030-01-01T12:01:00Z" in str(error)


def test_a_key_is_one_of_its_namespace(stage: Stage) -> None:
    stage.do("atlas", Declare(key="fix auth"))
    assert stage.do("nova", Declare(key="fix auth", namespace="other")).declared == stage.seq


def test_declaring_again_makes_the_end_later_and_changes_the_text(stage: Stage) -> None:
    declared = stage.do("atlas", Declare(key="fix auth", text="a", lease_s=60)).seq
    stage.pass_s(10)
    extended = IntentExtended(declared=declared, text="a", lease_s=60, expires=stage.at(60))
    assert stage.facts("atlas", Declare(key="fix auth")) == [("fix-auth", extended)]
    reply = stage.do("atlas", Declare(key="Fix Auth", text="b", lease_s=120))
    assert (reply.seq, reply.declared, reply.expires) == (stage.seq, declared, stage.at(120))
    assert (intent(stage).text, intent(stage).lease_s, intent(stage).declared) == ("b", 120, declared)


def test_declaring_again_at_once_changes_nothing_and_never_shortens(stage: Stage) -> None:
    first = stage.do("atlas", Declare(key="fix auth", lease_s=60))
    assert stage.do("atlas", Declare(key="fix auth", lease_s=60)) == first
    assert stage.do("atlas", Declare(key="fix auth", lease_s=1)) == first
    assert stage.seq == first.seq


def test_an_intent_has_a_default_and_a_cap() -> None:
    stage = Stage(Limits(lease_default_s=30, lease_cap_s=100))
    assert stage.do("atlas", Declare(key="a")).expires == stage.at(30)
    assert stage.do("atlas", Declare(key="b", lease_s=600)).expires == stage.at(100)
    end = stage.at(100)
    stage.pass_s(29)
    assert stage.do("atlas", Declare(key="a", lease_s=90)).expires == end
    stage.pass_s(1)
    assert stage.facts("atlas", Declare(key="a", lease_s=90)) == []
    assert stage.do("atlas", Declare(key="a", lease_s=90)).expires == end


# --- ends ---------------------------------------------------------------------------------------------------------


def test_withdrawing_frees_the_key(stage: Stage) -> None:
    declared = stage.do("atlas", Declare(key="fix auth")).seq
    withdrawn = IntentWithdrawn(declared=declared, reason="done")
    assert stage.facts("atlas", Withdraw(key="FIX auth", reason="done")) == [("fix-auth", withdrawn)]
    reply = stage.do("atlas", Withdraw(key="fix auth"))
    assert (reply.seq, reply.key, reply.state) == (stage.seq, "fix-auth", "withdrawn")
    assert stage.do("atlas", Withdraw(key="fix auth")) == reply
    assert list(stage.view.due(stage.at(1e9))) == []
    assert stage.do("nova", Declare(key="fix auth")).declared == stage.seq
    assert intent(stage).agent == "nova"


def test_only_the_one_who_declared_it_withdraws_it(stage: Stage) -> None:
    stage.refused("nova", Withdraw(key="fix auth"), "not_found", NotFound)
    stage.do("atlas", Declare(key="fix auth"))
    error = stage.refused("nova", Withdraw(key="fix auth"), "declared")
    assert error.problem.expected == "declared by nova"


def test_an_overdue_intent_ends_by_an_event_of_system(stage: Stage) -> None:
    declared = stage.do("atlas", Declare(key="fix auth", lease_s=60)).seq
    assert list(stage.view.due(stage.at(59.9))) == []
    assert list(stage.view.due(stage.at(60))) == [(Intent, "default", "fix-auth")]
    assert list(expire(intent(stage), "fix-auth", stage.at(59.9))) == []
    (emit,) = expire(intent(stage), "fix-auth", stage.at(60))
    assert (emit.entity, emit.agent) == ("fix-auth", SYSTEM)
    assert emit.fact == IntentExpired(agent="atlas", declared=declared)
    stage.given(SYSTEM, "fix-auth", emit.fact)
    assert (intent(stage).state, intent(stage).expires) == ("expired", None)
    assert list(stage.view.due(stage.at(1e9))) == []


@pytest.mark.parametrize("agent", ["atlas", "nova"])
def test_a_command_that_meets_an_overdue_intent_brings_its_end_in_the_same_batch(stage: Stage, agent: str) -> None:
    declared = stage.do("atlas", Declare(key="fix auth", lease_s=60)).seq
    stage.pass_s(60)
    decision = stage.decide(agent, Declare(key="fix auth", lease_s=5))
    assert isinstance(decision, list)
    ended, begun = decision
    assert (ended.agent, ended.fact) == (SYSTEM, IntentExpired(agent="atlas", declared=declared))
    assert isinstance(begun.fact, IntentDeclared)
    assert stage.facts(agent, Withdraw(key="fix auth")) == [("fix-auth", ended.fact)]
    assert stage.do(agent, Declare(key="fix auth", lease_s=5)).declared == stage.seq
    assert intent(stage).agent == agent


def test_withdrawing_what_is_overdue_says_that_it_expired(stage: Stage) -> None:
    stage.do("atlas", Declare(key="fix auth", lease_s=60))
    stage.pass_s(60)
    assert stage.do("atlas", Withdraw(key="fix auth")).state == "expired"


def test_an_event_that_makes_no_sense_changes_nothing(stage: Stage) -> None:
    stage.given("atlas", "x", IntentWithdrawn(declared=1))
    assert stage.state(Intent, "x") is None
    declared = stage.do("atlas", Declare(key="x")).seq
    before = intent(stage, "x")
    later = {"lease_s": 9, "expires": stage.at(999)}
    for agent, fact in (
        ("nova", IntentDeclared(said="x", until=stage.at(999), **later)),
        ("nova", IntentExtended(declared=declared, **later)),
        ("atlas", IntentExtended(declared=declared - 1, **later)),
        ("nova", IntentWithdrawn(declared=declared)),
        ("atlas", IntentWithdrawn(declared=declared - 1)),
        (SYSTEM, IntentExpired(agent="atlas", declared=declared - 1)),
    ):
        stage.given(agent, "x", fact)
        assert intent(stage, "x") is before


# --- warnings -----------------------------------------------------------------------------------------------------


def test_intents_that_are_worded_alike_are_a_warning(stage: Stage) -> None:
    stage.do("atlas", Declare(key="fix the auth", text="rotate the tokens"))
    stage.do("iris", Declare(key="paint the shed"))
    (warning,) = stage.do("nova", Declare(key="fix auth")).warnings
    assert (warning.key, warning.agent, warning.text) == ("fix-the-auth", "atlas", "rotate the tokens")
    assert warning.seq == intent(stage, "fix-the-auth").declared
    (by_text,) = stage.do("nova", Declare(key="security", text="Rotate tokens")).warnings
    assert by_text.key == "fix-the-auth"
    # The same is said when it is declared again, and not any more once the other has ended.
    assert [one.key for one in stage.do("nova", Declare(key="security", text="Rotate tokens")).warnings] == [
        "fix-the-auth"
    ]
    stage.do("atlas", Withdraw(key="fix the auth"))
    assert stage.do("nova", Declare(key="security", text="Rotate tokens")).warnings == []


def test_paths_of_one_directory_and_other_namespaces_are_no_warning(stage: Stage) -> None:
    stage.do("atlas", Declare(key="src/auth/login.py"))
    stage.do("atlas", Declare(key="fix auth", namespace="other"))
    assert stage.do("nova", Declare(key="src/auth/logins.py")).warnings == []
    assert stage.do("nova", Declare(key="fix auth")).warnings == []


def test_the_most_alike_come_first_and_not_too_many(stage: Stage) -> None:
    for number in range(8):
        stage.do("atlas", Declare(key=f"fix auth {'really ' * number}"))
    found = stage.do("nova", Declare(key="fix the auth")).warnings
    assert len(found) == 5
    assert [one.likeness for one in found] == sorted((one.likeness for one in found), reverse=True)


WORDS = st.lists(st.sampled_from(("fix", "the", "auth", "of", "authors", "Ä", "🚀")), max_size=6).map(" ".join)


@given(st.text() | WORDS, st.text() | WORDS)
def test_texts_are_never_more_alike_than_their_marks_say(one: str, other: str) -> None:
    assert at_most(one)(other) >= likeness(one, other)


UNUSUAL = "".join(map(chr, range(0x3300, 0x33C8)))
"""Each of these characters stands for several, so that there are more trigrams than marks."""


@given(st.lists(st.text(max_size=9) | WORDS | st.just(UNUSUAL[:150]), max_size=12), WORDS | st.just(UNUSUAL))
def test_every_text_that_may_be_nearly_the_same_is_found(texts: list[str], asked: str) -> None:
    wordings = Wordings()
    for number, text in enumerate(texts):
        wordings.put(str(number), "something else, which does not count any more")
        wordings.put(str(number), text)
        if number % 3 == 0:
            wordings.put(str(number), None)
    bound = at_most(asked)
    likely = {number for number, text in enumerate(texts) if number % 3 and bound(text) >= ALIKE}
    assert likely <= {int(name) for name in wordings.likely(asked)} <= {n for n in range(len(texts)) if n % 3}


@given(st.integers(1, 20), st.lists(st.integers(0, 255), max_size=20))
def test_bits_are_counted_together(least: int, numbers: list[int]) -> None:
    counted = [sum(number >> place & 1 for number in numbers) for place in range(8)]
    assert _in_at_least(least, numbers) == sum((count >= least) << place for place, count in enumerate(counted))


def test_what_is_worded_otherwise_is_not_even_looked_at(stage: Stage) -> None:
    lease = {"lease_s": 600, "expires": stage.at(600), "until": stage.at(900)}
    for number in range(1000):
        stage.given("atlas", f"topic-{number}", IntentDeclared(said="x", text=f"mend part {number}", **lease))

    def found(asked: Wording, namespace: str = "default") -> int:
        return len(list(stage.view.found(Intent, namespace, asked)))

    assert found(Wording("key", "paint-the-shed")) == found(Wording("text", "it is not green enough")) == 0
    assert found(Wording("text", "mend part 7")) == found(Wording("key", "topic-1")) == 1000
    assert found(Wording("key", "mend part 7")) == found(Wording("text", "mend part 7"), "other") == 0


def test_what_is_worded_otherwise_costs_next_to_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = {"lease_s": 600, "expires": stage.at(600), "until": stage.at(900)}
    for number in range(1000):
        stage.given("atlas", f"topic-{number}", IntentDeclared(said="x", text=f"mend part {number}", **lease))
    compared: list[str] = []
    monkeypatch.setattr(intents, "likeness", lambda one, other: compared.append(other) or likeness(one, other))
    assert stage.do("nova", Declare(key="paint the shed", text="it is not green enough")).warnings == []
    assert compared == []
    warnings = stage.do("nova", Declare(key="subject 7", text="mend part 7")).warnings
    assert (len(warnings), warnings[0].key) == (5, "topic-7")
    assert len(compared) < 100, "also when a thousand are worded alike"


def test_likeness() -> None:
    assert likeness("Fix auth!", "fix  AUTH") == 1
    assert likeness("", "") == likeness("fix", "") == likeness("paint", "rewrite") == 0
    assert likeness("fix auth", "fix the auth") > likeness("fix auth", "fix authentication") > 0.5
