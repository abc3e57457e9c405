"""Asking a model over HTTP, against a real server: what is sent, and every way in which no answer is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec
import pytest

from bus.errors import InvalidRequest
from bus.tunables import Endpoint
from projections.openai import Unanswered, ask
from tests.unit.endpoint import Model, model

KEY = "sk-0123456789"


class Said(msgspec.Struct):
    """An answer of the form that is expected."""

    text: str


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    monkeypatch.delenv("SYNBUS_TEST_KEY", raising=False)
    with model() as one:
        yield one


def unanswered(endpoint: Endpoint, code: str) -> Unanswered:
    with pytest.raises(Unanswered) as caught:
        ask(endpoint, "things", {"a": 1}, Said)
    error = caught.value
    assert error.code == code, str(error)
    assert all((error.problem.entity, error.problem.expected, error.problem.found, error.problem.hint))
    assert error.problem.kind == "Unavailable"
    return error


def test_what_is_sent_and_what_comes_back(server: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda asked: {"text": "ü", "more": [1]}
    assert ask(server.endpoint(), "things", {"a": "ü"}, Said) == Said("ü")
    monkeypatch.setenv("SYNBUS_TEST_KEY", KEY)
    ask(server.endpoint(), "things", {"a": "ü"}, Said)
    assert [(one.path, one.key, one.body) for one in server.asked] == [
        ("/v1/things", None, {"a": "ü"}),
        ("/v1/things", f"Bearer {KEY}", {"a": "ü"}),
    ]


@pytest.mark.parametrize("status", [301, 401, 429, 500])
def test_a_refusal_is_told_without_the_key(server: Model, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("SYNBUS_TEST_KEY", KEY)
    server.answer = lambda asked: (status, f"I do not like {KEY}".encode() + b"\xff" * 5000)
    error = unanswered(server.endpoint(), "bad_status")
    assert str(status) in str(error)
    assert "I do not like" in str(error)
    assert KEY not in repr(error.problem)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "data", [b"", b"no json", b"\xff\xfe", b'{"text": 1}', b"[1]", b"[" * 100_000, b'{"text": "\\ud800"}']
)
def test_an_answer_of_another_form(server: Model, data: bytes) -> None:
    server.answer = lambda asked: data
    unanswered(server.endpoint(), "bad_answer")


def test_an_answer_that_is_too_long(server: Model) -> None:
    server.answer = lambda asked: {"text": "x" * 1_100_000}
    unanswered(server.endpoint(answer_bytes=1_000_000), "too_large")


@pytest.mark.parametrize("how", ["hold", "drip"])
def test_an_answer_that_does_not_end(server: Model, how: str) -> None:
    setattr(server, how, True)
    server.answer = lambda asked: b'{"text": "'
    unanswered(server.endpoint(timeout_s=0.3), "timed_out")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://127.0.0.1:99999", "http://[::1", "http://\udcff"])
def test_nobody_is_there(url: str) -> None:
    unanswered(Endpoint(base_url=url, timeout_s=5), "unreachable")


def test_without_the_library_it_is_said_how_to_get_it(server: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(InvalidRequest, match=r"synbus\[http\]"):
        ask(server.endpoint(), "things", {}, Said)
