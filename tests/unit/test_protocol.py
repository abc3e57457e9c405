"""Requests and answers on the wire: strict on the way in, lenient on the way out."""

from __future__ import annotations

import pytest

from bus.domain import task_requests as ask
from bus.domain.channel import Post
from bus.errors import Defect, InvalidRequest, Refused
from bus.model import Command, Query
from bus.operation import OPERATIONS
from bus.protocol import (
    Progress,
    check_request_id,
    decode_answer,
    decode_progress,
    decode_request,
    encode_answer,
    encode_progress,
    encode_request,
)

CLAIM = OPERATIONS["task.claim"]
OPEN = OPERATIONS["task.open"]
POST = OPERATIONS["channel.post"]


def test_a_request_there_and_back() -> None:
    request = ask.Open(title="x", class_="code", needs=("a",), namespace="other", after=5, causes=(1, 2))
    body = encode_request(request)
    assert b'"class":"code"' in body
    assert decode_request(OPEN, body) == request


def test_an_empty_body_has_no_fields() -> None:
    assert decode_request(OPERATIONS["task.next"], b"") == ask.Next()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b"\xff", "invalid"),
        (b"{}", "task"),
        (b'{"task":3}', "$.task"),
        (b'{"task":"T","leas":1}', "leas"),
        (b'{"task":"T","lease_s":0}', "$.lease_s"),
        (b'{"task":"T","lease_s":604801}', "$.lease_s"),
        (b'{"task":"a b"}', "$.task"),
        (b'{"task":"T\\n"}', "$.task"),
        (b'{"task":"T","namespace":"_"}', "$.namespace"),
        (b'{"task":"T","after":-1}', "$.after"),
        (b'{"task":"T","fence":"T"}', "$.fence"),
        (b'{"task":"T","fence":"T:0"}', "$.fence"),
        (b'{"task":"T","fence":0}', "$.fence"),
        (b'{"task":"T","causes":[0]}', "$.causes"),
        (b'{"task":"T","x":' + b"[" * 100_000 + b"}", "task.claim"),
        (b'{"task":"\\ud800x"}', ""),
    ],
)
def test_a_bad_request_is_told_which_field_is_at_fault(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(CLAIM, body)
    assert said in str(caught.value)
    assert "task.claim" in str(caught.value)
    assert caught.value.exit_code == 2


LEASED = [name for name, operation in OPERATIONS.items() if "lease_s" in operation.request.__struct_fields__]


@pytest.mark.parametrize("name", LEASED)
@pytest.mark.parametrize("lease_s", ["0", "-1", "-600", "604801", "1e9", "0.5", '"10m"', "true", "1" * 40])
def test_a_lease_is_some_seconds_and_at_most_a_week(name: str, lease_s: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(OPERATIONS[name], f'{{"lease_s":{lease_s}}}'.encode())
    assert "$.lease_s" in str(caught.value)


def test_everything_that_can_be_held_has_a_lease() -> None:
    assert {"task.claim", "task.next", "task.renew", "task.handoff", "intent.declare"} <= set(LEASED)
    assert {"reservation.reserve", "reservation.renew"} <= set(LEASED)


@pytest.mark.parametrize("name", ["a..b", ".a", "A", "", "*"])
def test_names_are_checked_on_the_way_in(name: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_request(POST, encode_request(Post(channel=name, text="x")))


def test_a_text_that_is_no_unicode_is_refused_by_the_sender() -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        encode_request(Post(channel="dev", text="\ud800"))


def test_request_ids() -> None:
    assert check_request_id("a-B_9") == "a-B_9"
    for text in ("", "x" * 65, "a b", "a\n", "a.b", "ä"):
        with pytest.raises(InvalidRequest) as caught:
            check_request_id(text)
        assert caught.value.code == "bad_request_id"


def test_answers_there_and_back() -> None:
    reply = ask.TaskReply(seq=9, task="T", state="open")
    assert decode_answer(OPEN, encode_answer(reply)) == reply


def test_an_answer_of_a_newer_daemon_may_have_more_fields() -> None:
    assert decode_answer(OPEN, b'{"seq":9,"task":"T","state":"open","newer":1}').seq == 9


def test_an_error_is_raised_as_what_it_was() -> None:
    body = encode_answer(Refused("no", code="claimed", entity="task T", owner="nova"))
    assert body.startswith(b'{"error":')
    with pytest.raises(Refused) as caught:
        decode_answer(CLAIM, body)
    assert (caught.value.code, caught.value.details) == ("claimed", {"owner": "nova"})


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'{"seq":"x"}', b'{"error":3}', b"\xff"])
def test_an_answer_that_cannot_be_read_is_a_defect_not_a_crash(body: bytes) -> None:
    with pytest.raises(Defect) as caught:
        decode_answer(CLAIM, body)
    assert caught.value.problem.entity == "task.claim"


def test_progress_is_told_from_answers() -> None:
    progress = Progress(done=1, total=3, what="folding")
    assert decode_progress(encode_progress(progress)) == progress
    assert decode_progress(encode_answer(ask.TaskReply(seq=1, task="T", state="open"))) is None


def test_the_table_of_operations_is_sound() -> None:
    for name, operation in OPERATIONS.items():
        assert operation.name == name == f"{operation.family}.{operation.verb}"
        assert operation.help, f"{name} has no help"
        if operation.kind == "do":
            assert issubclass(operation.request, Command)
            assert operation.reply is not None
        else:
            assert issubclass(operation.request, Query)
            assert not operation.essential
    assert len({operation.request for operation in OPERATIONS.values()}) == len(OPERATIONS)
