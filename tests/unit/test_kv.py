"""Values by key: compare-and-set, merges, and ends that are events."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from bus.domain.kv import (
    Delete,
    Kv,
    KvDeleted,
    KvExpired,
    KvMerged,
    KvSet,
    Merge,
    Set,
    expire,
)
from bus.domain.merge import DEPTH
from bus.errors import InvalidRequest, NotFound
from bus.operation import OPERATIONS
from bus.protocol import decode_request
from bus.subjects import SYSTEM
from tests.unit.stage import Stage


def value(stage: Stage, key: str = "a", namespace: str = "default") -> Any:
    known = stage.state(Kv, key, namespace)
    assert isinstance(known, Kv)
    return json.loads(known.value) if known.state == "set" else known.state


def raw(what: Any) -> Raw:
    return Raw(json.dumps(what, separators=(",", ":")).encode())


# --- setting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [None, False, 0, "", "ü\0", [], {}, {"a": [1, 2.5, {"b": None}]}, 1 << 70])
def test_any_json_is_a_value(stage: Stage, what: Any) -> None:
    reply = stage.do("atlas", Set(key="a", value=what))
    assert (reply.seq, reply.key, reply.expires) == (stage.seq, "a", None)
    assert value(stage) == what


def test_a_value_is_one_of_its_namespace(stage: Stage) -> None:
    stage.do("atlas", Set(key="a", value=1))
    stage.do("nova", Set(key="a", value=2, namespace="other"))
    assert (value(stage), value(stage, namespace="other")) == (1, 2)


def test_setting_what_is_there_changes_nothing(stage: Stage) -> None:
    first = stage.do("atlas", Set(key="a", value={"x": 1}))
    assert stage.do("nova", Set(key="a", value={"x": 1})) == first
    assert stage.seq == first.seq
    assert stage.do("nova", Set(key="a", value={"x": 1.0})).seq > first.seq


@pytest.mark.parametrize("key", ["\n", "a\0b", "a\u202eb", "\u200b", "x" * 201, "ü" * 40, "a/" * 60])
def test_a_key_is_printable_and_short(stage: Stage, key: str) -> None:
    for request in (Set(key=key, value=1), Merge(key=key, patch={}), Delete(key=key)):
        stage.refused("atlas", request, "bad_key", InvalidRequest)


@pytest.mark.parametrize("what", [object(), "\ud800"])
def test_what_is_no_json_is_refused(stage: Stage, what: Any) -> None:
    stage.refused("atlas", Set(key="a", value=what), "not_json", InvalidRequest)
    stage.refused("atlas", Merge(key="a", patch={"a": what}), "not_json", InvalidRequest)


def test_what_is_nested_too_deeply_is_refused(stage: Stage) -> None:
    deep: Any = 1
    for _ in range(DEPTH + 1):
        deep = {"a": deep}
    stage.refused("atlas", Set(key="a", value=deep), "too_deep", InvalidRequest)
    stage.refused("atlas", Merge(key="a", patch=deep), "too_deep", InvalidRequest)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"key": "a"}',
        b'{"key": "", "value": 1}',
        b'{"key": "a", "value": NaN}',
        b'{"key": "a", "value": "\xff"}',
        b'{"key": "a\xff", "value": 1}',
        b'{"key": "a", "value": "\\ud800"}',
        b'{"key": "a", "value": 1e999}',
        b'{"key": "a", "value": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"key": "a", "value": 1, "expect": -1}',
        b'{"key": "a", "value": 1, "expires_in_s": 0}',
        b'{"key": "a", "value": 1, "expires_at": "2030-01-01T00:00:00"}',
        b'{"key": "a", "value": 1, "vlaue": 2}',
    ],
)
def test_what_is_no_request_is_refused_before_it_is_decided(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(OPERATIONS["kv.set"], body)
    assert caught.value.code == "invalid"


# --- compare-and-set ------------------------------------------------------------------------------------------------


def test_of_all_that_expect_one_version_one_succeeds(stage: Stage) -> None:
    first = stage.do("atlas", Set(key="a", value=1, expect=0)).seq
    error = stage.refused("nova", Set(key="a", value=1, expect=0), "conflict")
    assert error.details == {"version": first}
    assert error.problem.found == f"version #{first}"
    second = stage.do("nova", Set(key="a", value=1, expect=first)).seq
    assert second > first, "an expected change is one, even to the same value"
    for request in (Set(key="a", value=2, expect=first), Merge(key="a", patch=2, expect=first)):
        assert stage.refused("atlas", request, "conflict").details == {"version": second}
    assert stage.refused("atlas", Delete(key="a", expect=first), "conflict").details == {"version": second}
    third = stage.do("atlas", Merge(key="a", patch=1, expect=second)).seq
    assert third > second
    assert stage.do("atlas", Delete(key="a", expect=third)).state == "deleted"


def test_what_is_gone_has_version_zero(stage: Stage) -> None:
    assert stage.refused("atlas", Set(key="a", value=1, expect=7), "conflict").details == {"version": 0}
    first = stage.do("atlas", Set(key="a", value=1, expires_in_s=60)).seq
    stage.pass_s(60)
    assert stage.refused("atlas", Set(key="a", value=2, expect=first), "conflict").details == {"version": 0}
    stage.do("atlas", Set(key="a", value=2, expect=0))
    stage.do("atlas", Delete(key="a"))
    stage.do("atlas", Merge(key="a", patch={"x": 1}, expect=0))
    assert value(stage) == {"x": 1}


# --- merging --------------------------------------------------------------------------------------------------------


def test_a_merge_changes_parts(stage: Stage) -> None:
    stage.do("atlas", Set(key="a", value={"x": 1, "y": {"z": 2, "w": 3}}))
    merged = KvMerged(value=raw({"x": 1, "y": {"w": 3, "v": 4}}))
    patch = {"y": {"z": None, "v": 4}}
    assert stage.facts("nova", Merge(key="a", patch=patch)) == [("a", merged)]
    reply = stage.do("nova", Merge(key="a", patch=patch))
    assert (reply.seq, reply.value) == (stage.seq, {"x": 1, "y": {"w": 3, "v": 4}})
    assert stage.do("nova", Merge(key="a", patch=patch)) == reply
    assert stage.seq == reply.seq


def test_a_merge_into_nothing_makes_a_value(stage: Stage) -> None:
    assert stage.do("atlas", Merge(key="a", patch={"x": {"y": None}})).value == {"x": {}}
    assert stage.do("atlas", Merge(key="b", patch=[1])).value == [1]


def test_a_merge_keeps_the_end_unless_it_gives_another(stage: Stage) -> None:
    stage.do("atlas", Set(key="a", value={"x": 1}, expires_in_s=60))
    end = stage.at(60)
    stage.pass_s(10)
    assert stage.do("atlas", Merge(key="a", patch={"y": 1})).expires == end
    assert stage.do("atlas", Merge(key="a", patch={"y": 1}, expires_in_s=100)).expires == stage.at(100)
    assert stage.do("atlas", Set(key="a", value={"x": 1})).expires is None


# --- ends -----------------------------------------------------------------------------------------------------------


def test_a_deleted_value_is_gone_and_deleting_again_changes_nothing(stage: Stage) -> None:
    stage.refused("atlas", Delete(key="a"), "not_found", NotFound)
    stage.do("atlas", Set(key="a", value=1))
    assert stage.facts("nova", Delete(key="a")) == [("a", KvDeleted())]
    reply = stage.do("nova", Delete(key="a"))
    assert (reply.seq, reply.key, reply.state) == (stage.seq, "a", "deleted")
    assert stage.do("nova", Delete(key="a")) == reply
    assert value(stage) == "deleted"
    assert stage.do("nova", Set(key="a", value=1)).seq == stage.seq
    assert value(stage) == 1


def test_an_overdue_value_ends_by_an_event_of_system(stage: Stage) -> None:
    end = stage.do("atlas", Set(key="a", value=1, expires_in_s=60)).expires
    assert end == stage.at(60)
    assert list(stage.view.due(stage.at(59.9))) == []
    assert list(stage.view.due(stage.at(60))) == [(Kv, "default", "a")]
    known = stage.state(Kv, "a")
    assert list(expire(known, "a", stage.at(59.9))) == []
    (emit,) = expire(known, "a", stage.at(60))
    assert (emit.entity, emit.agent, emit.fact) == ("a", SYSTEM, KvExpired(expires=stage.at(60)))
    stage.given(SYSTEM, "a", emit.fact)
    assert value(stage) == "expired"
    assert list(stage.view.due(stage.at(1e9))) == []


def test_a_command_that_meets_an_overdue_value_brings_its_end_in_the_same_batch(stage: Stage) -> None:
    end = stage.do("atlas", Set(key="a", value={"x": 1}, expires_in_s=60)).expires
    stage.pass_s(60)
    ended = ("a", KvExpired(expires=end))
    assert stage.facts("nova", Set(key="a", value=2)) == [ended, ("a", KvSet(value=raw(2)))]
    assert stage.facts("nova", Merge(key="a", patch={"y": 2})) == [ended, ("a", KvMerged(value=raw({"y": 2})))]
    assert stage.facts("nova", Delete(key="a")) == [ended]
    assert stage.do("nova", Delete(key="a")).state == "expired"
    assert stage.do("nova", Delete(key="a")).seq == stage.seq


def test_an_end_lies_ahead_and_is_said_once(stage: Stage) -> None:
    at = stage.at(60)
    assert stage.do("atlas", Set(key="a", value=1, expires_at=at)).expires == at
    stage.refused("atlas", Set(key="a", value=1, expires_at=at, expires_in_s=60), "bad_expiry", InvalidRequest)
    for early in (stage.now, stage.now - timedelta(days=1)):
        stage.refused("atlas", Set(key="a", value=1, expires_at=early), "bad_expiry", InvalidRequest)
        stage.refused("atlas", Merge(key="a", patch=1, expires_at=early), "bad_expiry", InvalidRequest)


def test_an_event_that_makes_no_sense_changes_nothing(stage: Stage) -> None:
    for fact in (KvDeleted(), KvExpired(expires=stage.now)):
        stage.given("atlas", "a", fact)
        assert stage.state(Kv, "a") is None
    stage.do("atlas", Set(key="a", value=1, expires_in_s=60))
    stage.given(SYSTEM, "a", KvExpired(expires=stage.at(61)))
    assert value(stage) == 1
    stage.given("atlas", "a", KvDeleted())
    before = stage.state(Kv, "a")
    for fact in (KvDeleted(), KvExpired(expires=stage.at(60))):
        stage.given("atlas", "a", fact)
        assert stage.state(Kv, "a") is before


def test_a_value_that_an_administrator_wrote_can_be_merged_into(stage: Stage) -> None:
    stage.given("atlas", "a", KvSet(value=Raw(b'{"a": "\xff')))
    assert stage.do("atlas", Merge(key="a", patch={"x": 1})).value == {"x": 1}
