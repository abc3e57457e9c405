"""The error tree: exit codes, messages, and the way across the wire."""

from __future__ import annotations

import msgspec
import pytest

from bus.errors import (
    KINDS,
    BusError,
    Defect,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Problem,
    Refused,
    Unavailable,
    from_problem,
)
from bus.log import LogFull, WrongExpectedSeq


def test_exit_codes() -> None:
    codes = {InvalidRequest: 2, Refused: 3, NotFound: 4, NotAllowed: 5, Unavailable: 6, Defect: 1}
    assert {kind: kind.exit_code for kind in KINDS.values()} == codes


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Refused("no"), "no"),
        (Refused("no", entity="task T"), "task T: no"),
        (Refused("task T is gone", entity="task T"), "task T is gone"),
        (Refused("no", expected="a", found="b"), "no (expected a, found b)"),
        (Refused("no", found="b"), "no (found b)"),
        (Refused("no", expected="a"), "no (expected a)"),
        (Refused("no", entity="task T", expected="a", hint="Do this"), "task T: no (expected a). Do this"),
    ],
)
def test_messages(error: BusError, text: str) -> None:
    assert str(error) == text


def test_a_code_is_the_kinds_own_unless_given() -> None:
    assert (Refused("x").code, Refused("x", code="claimed").code) == ("refused", "claimed")


def test_errors_travel() -> None:
    sent = Refused(
        "no", code="claimed", entity="task T", expected="a", found="b", hint="h", retry_after_s=1.5, owner="n"
    )
    body = msgspec.json.encode(sent.problem)
    error = from_problem(msgspec.json.decode(body, type=Problem))
    assert type(error) is Refused
    assert error.problem == sent.problem
    assert (str(error), error.details) == (str(sent), {"owner": "n"})


def test_a_kind_of_the_future_is_a_defect_that_keeps_its_words() -> None:
    error = from_problem(Problem(kind="Overslept", code="late", message="too late", hint="Get up"))
    assert type(error) is Defect
    assert (error.code, str(error)) == ("late", "too late. Get up")


def test_errors_of_the_log_arrive_as_what_they_are() -> None:
    assert isinstance(LogFull("full"), Refused)
    conflict = WrongExpectedSeq("log.default.task.7", 3, 5)
    assert (conflict.subject, conflict.expected_seq, conflict.found_seq) == ("log.default.task.7", 3, 5)
    assert (conflict.code, conflict.exit_code) == ("conflict", 3)
    assert "last seq 5" in str(conflict)
    assert "later" in str(WrongExpectedSeq("s", 3, None))
