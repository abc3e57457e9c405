"""Streams: items about one thing."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from bus.domain.stream import Append, Stream, StreamAppended
from bus.errors import InvalidRequest
from tests.unit.stage import Stage


def test_an_item_is_appended_and_its_seq_names_it(stage: Stage) -> None:
    request = Append(stream="user:4321", data={"said": "ü"})
    fact = StreamAppended(data=Raw('{"said":"ü"}'.encode()))
    assert stage.facts("atlas", request) == [("user:4321", fact)]
    reply = stage.do("atlas", request)
    assert (reply.seq, reply.stream) == (stage.seq, "user:4321")
    assert stage.do("nova", request).seq == stage.seq > reply.seq, "the same words are another item"


def test_a_stream_does_not_change_with_its_items(stage: Stage) -> None:
    stage.do("atlas", Append(stream="a", data=1))
    first = stage.state(Stream, "a")
    assert first == Stream(opener="atlas")
    stage.do("nova", Append(stream="a", data=2))
    assert stage.state(Stream, "a") is first


@pytest.mark.parametrize("name", ["a\nb", "\u2028", "x" * 201])
def test_the_name_of_a_stream_is_printable_and_short(stage: Stage, name: str) -> None:
    stage.refused("atlas", Append(stream=name, data=1), "bad_key", InvalidRequest)


@pytest.mark.parametrize(("data", "code"), [("\ud800", "not_json"), (object(), "not_json")])
def test_what_is_no_json_is_refused(stage: Stage, data: Any, code: str) -> None:
    stage.refused("atlas", Append(stream="a", data=data), code, InvalidRequest)
