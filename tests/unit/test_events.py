"""The codec: the envelope there and back, upcasts, and records that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from bus.domain.task import TaskOpened
from bus.errors import InvalidRequest
from bus.events import (
    AGENT,
    BODY_BYTES,
    CAUSES,
    ENTITY,
    MSG_ID,
    REQUEST,
    SCHEMA,
    TYPE,
    Codec,
    Draft,
    Event,
    Fact,
    Record,
    RequestId,
    Unknown,
)
from bus.operation import CODEC


class NoteWritten(Fact, frozen=True, kw_only=True):
    """Version 1 had `text`; version 2 `body`; version 3 has `lines`."""

    type: ClassVar[str] = "note.written"
    schema: ClassVar[int] = 3
    upcasts: ClassVar[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {
        1: lambda body: {"body": body["text"]},
        2: lambda body: {"lines": body["body"].split("\n")},
    }
    lines: tuple[str, ...] = ()
    weight: int = 1


NOTES = Codec([NoteWritten])


def draft(fact: Fact, **fields: Any) -> Draft:
    given = {"id": "e1", "namespace": "default", "family": "note", "bucket": 7, "entity": "n", "agent": "atlas"}
    return Draft(fact=fact, **(given | fields))


def record(headers: dict[str, str] | None = None, data: bytes = b"{}", subject: str = "log.default.note.7") -> Record:
    known = {MSG_ID: "e1", TYPE: "note.written", SCHEMA: "3", ENTITY: "n", AGENT: "atlas"}
    return Record(5, 10**18, subject, known | (headers or {}), data)


def reason(event: Event) -> str:
    assert isinstance(event.fact, Unknown)
    return event.fact.reason


# --- there and back -----------------------------------------------------------------------------------------------


def test_every_field_survives() -> None:
    sent = draft(
        NoteWritten(lines=("a", "ö")),
        entity="t/1 ü.~",
        request=RequestId("r-1", "0123456789abcdef"),
        causes=(3, 4),
        correlation="c/1",
        at=datetime(2030, 1, 1, tzinfo=UTC),
        trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    headers, body = NOTES.encode(sent)
    event = NOTES.decode(Record(9, 123, sent.subject, headers, body))
    assert event == Event(
        seq=9,
        time_ns=123,
        subject="log.default.note.7",
        namespace="default",
        family="note",
        bucket=7,
        id="e1",
        type="note.written",
        schema=3,
        entity="t/1 ü.~",
        agent="atlas",
        fact=NoteWritten(lines=("a", "ö")),
        data=body,
        request=RequestId("r-1", "0123456789abcdef"),
        causes=(3, 4),
        correlation="c/1",
        at="2030-01-01T00:00:00+00:00",
    )
    assert event.subject == sent.subject == "log.default.note.7"
    assert all(value.isascii() and value.isprintable() for value in headers.values())


def test_defaults_are_not_written() -> None:
    headers, body = NOTES.encode(draft(NoteWritten()))
    assert body == b"{}"
    assert set(headers) == {MSG_ID, TYPE, SCHEMA, ENTITY, AGENT}


def test_a_body_that_is_encoded_already_is_used_as_it_is() -> None:
    fact = NoteWritten(lines=("a",))
    body = NOTES.body(fact)
    assert NOTES.encode(draft(fact, body=body))[1] is body


def test_a_body_has_a_limit() -> None:
    at_limit = "x" * (BODY_BYTES - len(b'{"lines":[""]}'))
    assert len(NOTES.body(NoteWritten(lines=(at_limit,)))) == BODY_BYTES
    with pytest.raises(InvalidRequest) as caught:
        NOTES.encode(draft(NoteWritten(lines=(at_limit + "x",))))
    assert caught.value.code == "too_large"
    assert str(BODY_BYTES) in str(caught.value)


def test_an_entity_key_has_a_limit() -> None:
    for key in ("", "x" * 201, "ü" * 34):
        with pytest.raises(InvalidRequest) as caught:
            NOTES.encode(draft(NoteWritten(), entity=key))
        assert caught.value.code == "bad_key"


# --- versions -----------------------------------------------------------------------------------------------------


def test_old_versions_walk_the_chain() -> None:
    for schema, body in (
        ("1", b'{"text":"a\\nb"}'),
        ("2", b'{"body":"a\\nb","weight":9}'),
        ("3", b'{"lines":["a","b"]}'),
    ):
        event = NOTES.decode(record({SCHEMA: schema}, body))
        assert event.fact == NoteWritten(lines=("a", "b"))
        assert event.schema == int(schema)


def test_a_missing_version_is_the_first() -> None:
    headers = record().headers
    del headers[SCHEMA]
    assert NOTES.decode(Record(1, 0, "log.default.note.7", headers, b'{"text":"a"}')).fact == NoteWritten(lines=("a",))


@pytest.mark.parametrize("schema", ["4", "0", "-1", "x", "", "1e3", "9" * 5000, "³"])
def test_versions_this_one_does_not_know(schema: str) -> None:
    assert "not known here" in reason(NOTES.decode(record({SCHEMA: schema})))


def test_a_type_must_bring_an_upcast_for_every_older_version() -> None:
    class Gap(Fact, frozen=True, kw_only=True):
        type: ClassVar[str] = "note.gap"
        schema: ClassVar[int] = 2

    with pytest.raises(ValueError, match="version 2 but its upcasts are"):
        Codec([Gap])


def test_two_facts_cannot_share_a_name() -> None:
    class Same(Fact, frozen=True, kw_only=True):
        type: ClassVar[str] = "note.written"

    with pytest.raises(ValueError, match=r"two facts are named note\.written"):
        Codec([NoteWritten, Same])
    assert Codec([NoteWritten, NoteWritten]).types == {"note.written": NoteWritten}


# --- leniency -----------------------------------------------------------------------------------------------------


def test_unknown_fields_are_ignored_and_missing_ones_take_their_default() -> None:
    event = NOTES.decode(record(data=b'{"newer":{"a":[1]},"weight":4}'))
    assert event.fact == NoteWritten(weight=4)


@pytest.mark.parametrize(
    ("headers", "data", "found"),
    [
        ({TYPE: "note.burnt"}, b"{}", "unknown type 'note.burnt'"),
        ({TYPE: ""}, b"{}", "no Bus-Type header"),
        ({}, b"", "does not decode"),
        ({}, b"{", "does not decode"),
        ({}, b"[]", "does not decode"),
        ({}, b"\xff\xfe", "does not decode"),
        ({}, b'{"lines":3}', "does not decode"),
        ({}, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "does not decode"),
        ({SCHEMA: "1"}, b"[" * 100_000, "does not decode"),
        ({SCHEMA: "1"}, b"{}", "does not decode"),
        ({SCHEMA: "1"}, b'{"text":3}', "does not decode"),
        ({SCHEMA: "2"}, b'{"body":null}', "does not decode"),
    ],
)
def test_what_cannot_be_read_is_unknown_and_says_why(headers: dict[str, str], data: bytes, found: str) -> None:
    event = NOTES.decode(record(headers, data))
    assert found in reason(event)
    assert (event.seq, event.data, event.entity) == (5, data, "n")


@pytest.mark.parametrize("schema", ["1", "3"])
def test_a_fact_must_be_in_its_own_family_and_name_entity_and_author(schema: str) -> None:
    body = b'{"text":"a","lines":["a"]}'
    assert "belong" in reason(NOTES.decode(record({SCHEMA: schema}, body, "log.default.task.7")))
    for header in (ENTITY, AGENT):
        headers = record({SCHEMA: schema}).headers
        del headers[header]
        assert header in reason(NOTES.decode(Record(5, 0, "log.default.note.7", headers, body)))


@pytest.mark.parametrize("subject", ["", "log", "log.a.note", "log.a.note.x", "log.a.note.1.2", "ask.a.note.1"])
def test_a_subject_that_is_none_of_the_log(subject: str) -> None:
    event = NOTES.decode(record(subject=subject))
    assert (event.namespace, event.family, event.bucket) == ("", "", -1)
    assert isinstance(event.fact, Unknown)


@pytest.mark.parametrize(
    ("causes", "expected"),
    [("1,2", (1, 2)), ("", ()), ("x", ()), ("1,", ()), ("-1", ()), ("1," + "9" * 30, ()), ("²", ())],
)
def test_causes_that_are_no_seqs_are_none(causes: str, expected: tuple[int, ...]) -> None:
    assert NOTES.decode(record({CAUSES: causes})).causes == expected


def test_a_request_header_without_a_digest() -> None:
    assert NOTES.decode(record({REQUEST: "r1"})).request == RequestId("r1", "")


def test_numbers_no_table_could_hold_do_not_decode() -> None:
    headers = {TYPE: "task.opened", SCHEMA: "1"}
    big = CODEC.decode(record(headers, b'{"title":"x","priority":99999999999999999999}', "log.default.task.7"))
    assert "does not decode" in reason(big)
    assert CODEC.decode(record(headers, b'{"title":"x"}', "log.default.task.7")).fact == TaskOpened(title="x")


def test_facts_say_their_name_and_version_themselves() -> None:
    for name, fact in CODEC.types.items():
        assert fact.type == name
        assert "type" in vars(fact)
        family, _, happened = name.partition(".")
        assert family.isalpha()
        assert happened.replace("_", "").isalpha()
