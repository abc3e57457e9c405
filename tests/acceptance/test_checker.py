"""The judge itself: it passes what is right, and names every wrong that the other tests rely on it to find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.checker import Diaries, check
from tests.acceptance.support import Record

EARLY, LATE = "2030-01-01T00:00:00Z", "2030-01-01T01:00:00Z"
SECOND_NS = 1_000_000_000
START_NS = 1_893_456_000 * SECOND_NS


def record(seq: int, type_: str, agent: str, entity: str = "T", request: str = "", **data: Any) -> Record:
    headers = {"Nats-Msg-Id": f"e{seq}", "Bus-Type": type_, "Bus-Entity": entity, "Bus-Agent": agent}
    headers |= {"Bus-Request": f"{request} digest"} if request else {}
    family = type_.partition(".")[0]
    return Record(seq, START_NS + seq * SECOND_NS, f"log.test.{family}.1", headers, json.dumps(data).encode())


def told(client: str, op: str, request: str, body: dict[str, Any], knew: int = 0, **outcome: Any) -> dict[str, Any]:
    return {"client": client, "op": op, "request": request, "body": body, "knew": knew, **outcome}


OPENED = record(1, "task.opened", "owner", title="x")
CLAIMED = record(2, "task.claimed", "a", request="r1", expires=EARLY, until=LATE)
CLAIM = told("a", "task.claim", "r1", {"task": "T"}, reply={"seq": 2, "fence": 2, "task": "T", "expires": EARLY})
EXPIRED = record(3, "task.expired", "system", owner="a", fence=2)
AGAIN = record(4, "task.claimed", "b", request="r2", expires=LATE, until=LATE)
LOST = {"kind": "Refused", "code": "claimed", "details": {"owner": "a", "fence": 2}}
GOOD = [OPENED, CLAIMED, EXPIRED, AGAIN]


def test_what_is_right_passes() -> None:
    posted = record(5, "channel.posted", "b", "dev", "r3", text="hello")
    done = record(6, "task.completed", "b", "T", "r4", result="ok")
    history = [
        CLAIM,
        told("b", "task.claim", "r0", {"task": "T"}, knew=2, error=LOST),
        told("b", "task.claim", "r2", {"task": "T"}, reply={"seq": 4, "fence": 4, "task": "T", "expires": LATE}),
        told("b", "channel.post", "r3", {"text": "hello", "fence": "T:4"}, reply={"seq": 5}),
        told("a", "task.complete", "r9", {"task": "T", "fence": 2}, error={"kind": "Refused", "code": "stale_fence"}),
        told("b", "task.complete", "r4", {"task": "T", "result": "ok", "fence": 4}, reply={"seq": 6}),
        told("c", "task.claim", "r5", {"task": "T"}, error={"kind": "Unavailable", "code": "timeout"}),
    ]
    assert check([*GOOD, posted, done], history) == []


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([OPENED, CLAIMED._replace(seq=3)], "has seq 3"),
        ([OPENED, CLAIMED._replace(headers={**CLAIMED.headers, "Nats-Msg-Id": "e1"})], "event id e1 is there 2 times"),
        ([OPENED, CLAIMED, record(3, "task.claimed", "b", expires=LATE)], "claimed while"),
        ([record(1, "task.claimed", "a", expires=LATE)], "claimed while None"),
        ([OPENED, CLAIMED, record(3, "task.completed", "b")], "by b: it was a with T"),
        ([OPENED, record(2, "task.released", "a")], "it was None"),
        ([OPENED, CLAIMED, record(3, "task.expired", "system", owner="a", fence=1)], "it was a with T"),
        ([OPENED, CLAIMED, record(3, "task.expired", "b", owner="a", fence=2)], "only the system says so"),
        ([OPENED, CLAIMED, EXPIRED._replace(time_ns=START_NS - SECOND_NS)], "the lease ran until"),
        ([OPENED, record(2, "task.opened", "owner")], "opened twice"),
        ([OPENED, record(2, "task.reopened", "a")], "reopened while open"),
        ([OPENED, CLAIMED, EXPIRED, record(4, "task.claimed", "a", request="r1", expires=LATE)], "more than once"),
        (
            [
                *GOOD,
                *(record(n, "channel.posted", "b", "dev", r, text="x") for n, r in ((5, "r7"), (6, ""), (7, "r7"))),
            ],
            "request r7 of b took effect more than once",
        ),
    ],
)
def test_a_log_that_contradicts_itself_is_found_out(records: list[Record], wrong: str) -> None:
    assert any(wrong in sentence for sentence in check(records, [])), check(records, [])


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (told("a", "task.claim", "r1", {"task": "T"}, reply={**CLAIM["reply"], "seq": 9}), "which is lost"),
        (told("a", "task.claim", "rX", {"task": "T"}, reply=CLAIM["reply"]), "expected"),
        (told("b", "task.claim", "r1", {"task": "T"}, reply=CLAIM["reply"]), "given to ['a', 'b']"),
        (told("a", "task.claim", "r1", {"task": "U"}, reply=CLAIM["reply"]), "it is about T, not U"),
        (told("a", "task.claim", "r1", {"task": "T"}, reply={**CLAIM["reply"], "expires": LATE}), "told until"),
        (told("a", "task.claim", "r1", {"task": "T"}, reply={**CLAIM["reply"], "fence": 1}), "is not the seq"),
        (told("a", "channel.post", "r3", {"text": "y"}, reply={"seq": 5}), "text is 'x', asked was 'y'"),
        (told("a", "channel.post", "r3", {"text": "x", "fence": "T:2"}, reply={"seq": 5}), "which ended with #3"),
        (told("c", "channel.post", "r3", {"text": "x", "fence": "T:4"}, reply={"seq": 5}), "which was b with T"),
        (told("c", "task.claim", "r0", {"task": "T"}, knew=3, error=LOST), "which ended with #3; the client knew #3"),
        (told("c", "task.claim", "r0", {"task": "U"}, error=LOST), "but it was a with T"),
        (told("c", "task.claim", "r0", {"task": "T"}, error={"kind": "Defect", "code": "defect"}), "defect"),
        (told("c", "task.claim", "r0", {"task": "T"}, error={"kind": "Refused", "code": "odd"}), "odd"),
        (
            told("b", "task.complete", "r0", {"fence": 4}, error={"kind": "Refused", "code": "stale_fence"}),
            "but it was b with T under fence 4 to the end",
        ),
    ],
)
def test_a_client_that_was_told_something_else_is_found_out(line: dict[str, Any], wrong: str) -> None:
    records = [*GOOD, record(5, "channel.posted", "a", "dev", "r3", text="x")]
    assert any(wrong in sentence for sentence in check(records, [CLAIM, line])), check(records, [CLAIM, line])


def test_a_torn_line_counts_for_nothing(tmp_path: Path) -> None:
    diaries = Diaries(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b'{"reply": 1}\n{"rep')
    assert diaries.read() == [{"reply": 1}]
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'\n{"reply": 2}\n')
    assert (diaries.read(), diaries.acknowledged) == ([{"reply": 1}, {"reply": 2}], 2)
