"""The grammar of subjects: names, tokens, buckets, and where answers may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import InvalidRequest
from bus.subjects import (
    BUCKETS,
    SYSTEM,
    TENANT,
    TOKEN_BYTES,
    Ask,
    ask_filter,
    ask_subject,
    bucket_of,
    check_name,
    inbox_prefix,
    is_name,
    log_subject,
    may_reply_to,
    parse_ask,
    parse_log,
    token,
    untoken,
)


@pytest.mark.parametrize("name", ["a", "0", "atlas", "a-b_c", "9-", "x" * 63, SYSTEM])
def test_names(name: str) -> None:
    assert is_name(name)
    assert check_name(name, "agent") == name


@pytest.mark.parametrize(
    "name", ["", "*", ">", "a.b", "a b", "Atlas", "-a", "_a", TENANT, "a\n", "x" * 64, "ä", "a*", "a\x00", "٣"]
)
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidRequest) as caught:
        check_name(name, "agent")
    assert caught.value.code == "bad_name"


def test_a_long_bad_name_is_shown_in_short() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_name("x" * 5000, "agent")
    assert len(str(caught.value)) < 300


@given(st.text(min_size=1, max_size=60).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_tokens_are_safe_and_reversible(text: str) -> None:
    try:
        encoded = token(text)
    except InvalidRequest:
        assert len(text.encode()) * 3 > TOKEN_BYTES
        return
    assert untoken(encoded) == text
    assert encoded.isascii()
    assert not set(encoded) & set(". *>\r\n\t:~")
    assert 0 < len(encoded) <= TOKEN_BYTES


def test_a_token_has_a_limit() -> None:
    assert token("x" * TOKEN_BYTES) == "x" * TOKEN_BYTES
    for text in ("", "x" * (TOKEN_BYTES + 1), "." * 67):
        with pytest.raises(InvalidRequest):
            token(text)


def test_buckets_are_part_of_the_format() -> None:
    assert [bucket_of(key) for key in ("", "dev", "T-17", "agents", "größe")] == [0, 261, 231, 878, 393]
    assert BUCKETS == 1024


def test_log_subjects_there_and_back() -> None:
    assert log_subject("default", "task", 7) == "log.default.task.7"
    assert parse_log("log.default.task.7") == ("default", "task", 7)
    assert parse_log("log._.agent.1023") == ("_", "agent", 1023)


@pytest.mark.parametrize(
    "subject",
    [
        "log.default.task",
        "log.default.task.7.8",
        "log.default.task.x",
        "log.default.task.-1",
        "log.default.task.1024",
        "log.default.task.07",
        "log.default.task.+7",
        "log.default.task. 7",
        "log.default.task.1_0",
        "log.default.task.٣",
        "LOG.default.task.7",
        "ask.default.task.7",
        "log.default.task." + "9" * 5000,
    ],
)
def test_what_is_no_log_subject(subject: str) -> None:
    with pytest.raises(ValueError):
        parse_log(subject)


def test_ask_subjects_there_and_back() -> None:
    assert ask_subject("atlas", "do", "task.claim") == "ask.atlas.do.task.claim"
    assert parse_ask("ask.atlas.do.task.claim") == Ask("atlas", "do", "task", "claim")
    assert ask_filter("atlas", "see") == "ask.atlas.see.>"
    for bad in ("ask.atlas.do.task", "ask.atlas.be.task.claim", "tell.atlas.do.task.claim", "ask.a.do.x.y.z", ""):
        with pytest.raises(ValueError):
            parse_ask(bad)


def test_answers_go_to_the_inbox_of_who_asked_and_nowhere_else() -> None:
    assert may_reply_to("atlas", inbox_prefix("atlas") + ".1")
    elsewhere = [
        "",
        "_INBOX.atlas",
        "_INBOX.atlas2.1",
        "_INBOX.nova.1",
        "_INBOX.atlas.*",
        "_INBOX.atlas.>",
        "ask.nova.do.task.claim",
        "log.default.task.7",
        "x_INBOX.atlas.1",
    ]
    assert not [reply for reply in elsewhere if may_reply_to("atlas", reply)]
