"""The layer that all doors share: read levels, queries that wait, page sizes, exposures, authority, moments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bus.clock import from_ns
from bus.domain import agent, channel, log
from bus.errors import BusError, Defect, InvalidRequest, NotAllowed, Refused, Unavailable
from bus.operation import OPERATION_OF, OPERATIONS
from bus.protocol import Progress
from cli import api
from cli.api import as_error, find_operation
from cli.moments import parse_moment
from tests.unit.desk import Desk, Later, caught, talking

READ = channel.Read(channel="dev", since=0)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with talking(tmp_path) as found:
        yield found


# --- read levels -------------------------------------------------------------------------------------------------


async def test_local_is_answered_from_what_the_tables_have(one: Desk) -> None:
    behind = one.tables.position
    await one.leader.do("nova", channel.Post(channel="dev", text="not folded yet"))
    answer = await one.see("atlas", READ)
    assert (answer.seq, [m.text for m in answer.messages]) == (behind, ["first"])


async def test_after_waits_until_the_tables_contain_the_event(one: Desk) -> None:
    reply = await one.leader.do("nova", channel.Post(channel="dev", text="second"))
    later = Later(one, "atlas", msgspec.structs.replace(READ, after=reply.seq))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        await anyio.wait_all_tasks_blocked()
        assert one.tables.reads == []
        await one.fold()
    assert [m.text for m in later.outcome.messages] == ["first", "second"]
    assert later.outcome.seq >= reply.seq


async def test_after_beyond_the_log_is_an_error_at_once(one: Desk) -> None:
    head = len(one.leader.log.records)
    error = await caught(one.see("atlas", channel.List(after=head + 1)), InvalidRequest, "future")
    assert (error.problem.expected, error.problem.found) == (f"at most #{head}", f"#{head + 1}")
    await caught(one.api.contain(head + 1), InvalidRequest, "future")


async def test_tables_that_do_not_come_are_said_to_lag(one: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = await one.leader.do("nova", channel.Post(channel="dev", text="second"))
    monkeypatch.setattr(api, "AFTER_S", 0.0)
    error = await caught(one.see("atlas", channel.List(after=reply.seq)), Unavailable, "lagging")
    assert error.problem.retry_after_s
    await caught(one.see("atlas", channel.List(as_of=reply.seq)), Unavailable, "lagging")


async def test_a_decision_can_wait_for_what_it_must_rest_on(one: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    known = one.leader.executor.known_seq
    one.leader.log.put("log.default.nobody.1", {}, b"{}")
    assert one.api.knows(known)
    assert not one.api.knows(known + 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.api.contain, known + 1)
        await anyio.wait_all_tasks_blocked()
        one.leader.fold()
    assert one.api.knows(known + 1)
    one.leader.log.put("log.default.nobody.1", {}, b"{}")
    monkeypatch.setattr(api, "AFTER_S", 0.0)
    await caught(one.api.contain(known + 2), Unavailable, "lagging")


async def test_as_of_takes_a_seq_in_every_spelling(one: Desk) -> None:
    posted = one.tables.position
    await one.do("nova", channel.Post(channel="dev", text="second"))
    for as_of in (posted, f"{posted}", f"#{posted}", f" #{posted} "):
        answer = await one.see("atlas", msgspec.structs.replace(READ, as_of=as_of))
        assert (answer.seq, [m.text for m in answer.messages]) == (posted, ["first"])


async def test_as_of_takes_an_instant_and_a_time_ago(one: Desk) -> None:
    before = one.tables.position
    one.clock.pass_s(600)
    await one.do("nova", channel.Post(channel="dev", text="second"))
    at = from_ns(one.clock.ns)
    for as_of, seq in (
        ("-1s", before),
        ("-0s", before + 1),
        ("-10m", before),
        ("-601s", 0),
        ("-52w", 0),
        (at.isoformat(), before + 1),
        ((at - timedelta(microseconds=1)).isoformat(), before),
        (at.replace(tzinfo=None).isoformat(), before + 1),
        (at.astimezone(tz=None).isoformat(), before + 1),
        ("0001-01-01", 0),
        (0, 0),
    ):
        answer = await one.see("atlas", agent.List(as_of=as_of))
        assert answer.seq == seq, as_of
    assert answer.agents == []
    assert answer.time is None


async def test_an_instant_counts_what_was_stored_by_then_even_if_the_tables_come_later(one: Desk) -> None:
    reply = await one.leader.do("nova", channel.Post(channel="dev", text="second"))
    later = Later(one, "atlas", msgspec.structs.replace(READ, as_of="-0s"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        await anyio.wait_all_tasks_blocked()
        await one.fold()
    assert later.outcome.seq == reply.seq


@pytest.mark.parametrize(
    ("as_of", "code"),
    [
        ("yesterday", "bad_moment"),
        ("", "bad_moment"),
        ("#", "bad_moment"),
        ("-10", "bad_moment"),
        ("-10y", "bad_moment"),
        (-1, "bad_moment"),
        (10**9, "future"),
        ("#1000000", "future"),
        ("9999-12-31", "future"),
        ("2030-01-01T12:00:02Z", "future"),
    ],
)
async def test_as_of_refuses_what_is_no_moment_or_has_not_come(one: Desk, as_of: int | str, code: str) -> None:
    await caught(one.see("atlas", agent.List(as_of=as_of)), InvalidRequest, code)


NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1042", 1042),
        ("#0", 0),
        ("-90s", NOW - timedelta(seconds=90)),
        ("-2h", NOW - timedelta(hours=2)),
        ("-1d", NOW - timedelta(days=1)),
        ("-1h30m", NOW - timedelta(minutes=90)),
        ("-3w", NOW - timedelta(weeks=3)),
        ("-999999999w", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2029-12-31", datetime(2029, 12, 31, tzinfo=UTC)),
        ("2029-12-31T01:02:03+02:00", datetime(2029, 12, 30, 23, 2, 3, tzinfo=UTC)),
    ],
)
def test_parse_moment(text: str, moment: datetime | int) -> None:
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "now", "10m", "--10m", "1e9", "##1", "12345678901234567", "x" * 500])
def test_parse_moment_refuses(text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_moment(text, NOW)
    assert error.value.code == "bad_moment"
    assert len(error.value.problem.found or "") < 100


# --- who may -----------------------------------------------------------------------------------------------------

AUDITORS: list[Any] = [
    log.List(),
    log.Show(event=1),
    log.Tables(),
    log.Table(table="task"),
    log.Sql(sql="select 1"),
]


@pytest.mark.parametrize("request_", AUDITORS, ids=lambda r: type(r).__name__)
async def test_the_log_and_replays_are_for_auditors(one: Desk, request_: Any) -> None:
    await caught(one.see("atlas", request_), NotAllowed, "not_allowed")
    assert one.tables.reads == []
    if not isinstance(request_, log.Show):
        await one.see("olga", request_)


def test_nothing_of_the_log_is_open_to_everybody() -> None:
    for operation in OPERATIONS.values():
        if operation.family in ("log", "replay"):
            assert operation.authority == "auditor" or operation.internal, operation.name


async def test_a_replay_is_asked_at_the_moment_and_may_report(one: Desk) -> None:
    def report(progress: Progress) -> None: ...

    request = log.Tables(as_of=3)
    assert await one.see("olga", request, report) == request
    assert one.replayed == [(request, "olga", 3, report)]


@pytest.mark.parametrize("name", ["nobody", "*", "system", ""])
async def test_who_is_not_registered_sees_nothing(one: Desk, name: str) -> None:
    await caught(one.see(name, channel.List()), NotAllowed, "unknown_agent")


async def test_a_deactivated_agent_is_refused_before_the_tail_says_so(one: Desk) -> None:
    asked = one.leader.ask("olga", agent.Deactivate(agent="atlas"))
    await one.see("atlas", channel.List())  # Not stored yet, so not yet true.
    await one.leader.step()
    assert asked.reply.agent == "atlas"
    await caught(one.see("atlas", channel.List()), NotAllowed, "inactive")
    await one.leader.do("olga", agent.Reactivate(agent="atlas"))
    await one.see("atlas", channel.List())


# --- the rest ----------------------------------------------------------------------------------------------------


async def test_commands_are_answered_encoded_when_they_are_stored(one: Desk) -> None:
    bodies: list[bytes] = []
    posted = channel.Post(channel="dev", text="hi")
    one.api.do(OPERATION_OF[channel.Post], posted, "atlas", bodies.append, request_id="r1", trace=None)
    one.api.do(OPERATION_OF[channel.Post], posted, "atlas", bodies.append, request_id="r1", trace=None)
    one.api.do(OPERATION_OF[channel.Leave], channel.Leave(channel="none"), "atlas", bodies.append)
    await one.leader.drain()
    replies = [msgspec.json.decode(body) for body in bodies]
    assert [r["seq"] for r in replies if "seq" in r] == [len(one.leader.log.records)] * 2
    assert [r["error"]["kind"] for r in replies if "error" in r] == ["NotFound"]


async def test_what_an_agent_does_is_decided_after_what_it_was_shown(one: Desk) -> None:
    one.api.do(OPERATION_OF[channel.Post], channel.Post(channel="dev", text="hi"), "atlas", lambda _: None)
    assert (one.settled, one.leader.executor.waiting) == ([("atlas", 0)], 1)


def test_operations_are_found_by_name_and_kind() -> None:
    assert find_operation("channel.post", "do") is OPERATION_OF[channel.Post]
    cases: list[tuple[str, str, Callable[..., BusError], str]] = [
        ("channel.post", "see", InvalidRequest, "unknown_operation"),
        ("channel.read", "do", InvalidRequest, "unknown_operation"),
        ("no.such", "do", InvalidRequest, "unknown_operation"),
        ("inbox.show", "do", NotAllowed, "internal"),
        ("tenant.found", "do", NotAllowed, "internal"),
    ]
    for name, kind, error, code in cases:
        with pytest.raises(error) as found:  # type: ignore[call-overload]
            find_operation(name, kind)
        assert found.value.code == code


def test_what_is_no_error_of_the_bus_is_a_defect() -> None:
    known = Refused("no")
    assert as_error("x.y", known) is known
    defect = as_error("x.y", ZeroDivisionError("oh"))
    assert isinstance(defect, Defect)
    assert "x.y" in str(defect)


# --- how old ----------------------------------------------------------------------------------------------------------


async def test_who_is_there_says_how_old_that_is(one: Desk) -> None:
    """Seconds since the tables were known to contain all of the log, however long nothing happens."""
    head = len(one.leader.log.records)
    one.clock.pass_s(100)
    one.api.log_ended(head, one.clock.monotonic_ns())
    one.clock.pass_s(3)
    assert (await one.see("atlas", agent.Who())).age_s == 3
    # The log goes on, and the tables do not: the answer grows old.
    await one.leader.do("nova", channel.Post(channel="dev", text="not folded yet"))
    one.api.log_ended(head + 1, one.clock.monotonic_ns())
    one.clock.pass_s(60)
    assert (await one.see("atlas", agent.Who())).age_s == 63
    await one.fold()
    assert (await one.see("atlas", agent.Who())).age_s == 60
    # What was is as old as it is.
    assert (await one.see("atlas", agent.Who(as_of=head))).age_s == 163


# --- elsewhere -----------------------------------------------------------------------------------------------------


async def test_a_query_that_is_answered_elsewhere_is_not_read_here(one: Desk) -> None:
    asked: list[tuple[Any, str]] = []

    async def elsewhere(request: Any, who: str) -> Any:
        asked.append((request, who))
        return channel.Channels(seq=10**6, time=None, channels=[])

    parts = (one.leader.executor, one.tables, one.clock, {}, 1_000_000, None)
    host = api.Api(*parts, {channel.List: elsewhere})
    request = channel.List(after=10**6)
    answer = await host.see(OPERATION_OF[channel.List], request, "atlas")
    assert answer.seq == 10**6
    assert asked == [(request, "atlas")]
    assert one.tables.reads == []
    with pytest.raises(NotAllowed):
        await host.see(OPERATION_OF[channel.List], request, "nobody")


async def test_an_answer_says_how_old_it_is_unless_that_is_a_moment_ago(one: Desk) -> None:
    head = len(one.leader.log.records)
    one.api.log_ended(head, one.clock.monotonic_ns())
    one.clock.pass_s(api.STALE_S)
    assert (await one.see("atlas", READ)).stale_s is msgspec.UNSET
    one.clock.pass_s(5)
    assert (await one.see("atlas", READ)).stale_s == api.STALE_S + 5
    assert (await one.see("atlas", msgspec.structs.replace(READ, as_of=head))).stale_s is msgspec.UNSET
    # That the log has grown makes nothing fresh before the tables have it, too.
    await one.leader.do("nova", channel.Post(channel="dev", text="second"))
    one.api.log_ended(head + 1, one.clock.monotonic_ns())
    assert (await one.see("atlas", READ)).stale_s == api.STALE_S + 5
    await one.fold()
    assert (await one.see("atlas", READ)).stale_s is msgspec.UNSET


async def test_what_is_known_from_before_is_as_old_as_it_is(one: Desk) -> None:
    one.api.current_at(one.clock.monotonic_ns() - 3_600_000_000_000)
    assert (await one.see("atlas", READ)).stale_s == 3600


async def test_a_log_that_is_out_of_reach_is_waited_for_and_said_to_lag(
    one: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "AFTER_S", 0.0)
    one.leader.log.head_error = Unavailable("away", code="out_of_reach")
    await caught(one.see("atlas", channel.List(after=10**6)), Unavailable, "lagging")
    await caught(one.see("atlas", channel.List(as_of=10**6)), Unavailable, "lagging")
