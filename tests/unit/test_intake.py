"""What agents ask: who it was, where answers may go, what is malformed, who is busy, and whom nobody listens to."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from bus.domain import agent
from bus.errors import Refused, Unavailable
from bus.protocol import Progress
from tests.unit.office import DONE, office


def both(*agents: str) -> set[str]:
    return {f"ask.{name}.{kind}.>" for name in agents for kind in ("do", "see")}


# --- who, and where to -------------------------------------------------------------------------------------------


async def test_the_subject_alone_says_who_asks() -> None:
    async with office("atlas", "nova") as one:
        one.ask("atlas", Bus_Agent="olga", Agent="olga", Bus_Request="r-1", traceparent="t")
        one.ask("atlas", "see.channel.list", b"")
        await one.settle()
        assert [asked[:2] for asked in one.clerk.asked] == [("atlas", "channel.post"), ("atlas", "channel.list")]
        assert one.clerk.asked[0][3] == {"request_id": "r-1", "trace": "t"}
        assert one.line.sent[0] == ("_INBOX.atlas.1", DONE)
        one.ask("atlas", body=b'{"channel":"dev","text":"hi","agent":"olga"}', reply="_INBOX.atlas.c.2")
        assert one.line.sent[-1][0] == "_INBOX.atlas.c.2"
        assert len(one.clerk.asked) == 2


FOREIGN = ["", "ask.nova.do.channel.post", "_INBOX.nova.1", "_INBOX.atlas", "_INBOX.atlasx.1", "_INBOX.atlas.>"]
FOREIGN += ["_INBOX.*.1", "_INBOX.atlas.*", "log.default.task.1", "_inbox.atlas.1", "$JS.API.STREAM.DELETE.LOG"]


@pytest.mark.parametrize("reply", FOREIGN)
async def test_an_answer_goes_nowhere_else(reply: str) -> None:
    async with office("atlas", "nova") as one:
        one.ask("atlas", reply=reply)
        one.ask("atlas", "see.channel.list", b"", reply=reply)
        one.ask("atlas", "do.no.such", reply=reply)
        one.ask("atlas", body=b"{", reply=reply)
        await one.settle()
        assert (one.line.sent, one.clerk.asked, one.intake.pending) == ([], [], 0)
        assert one.intake.counters["foreign_reply"] == 4
        assert one.heard == []


async def test_a_request_that_was_taken_on_shows_that_its_agent_is_there() -> None:
    async with office("atlas", "nova") as one:
        one.ask("atlas")
        one.ask("nova", "see.channel.list", b"")
        assert one.heard == ["atlas", "nova"]


# --- what is malformed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "body", "code"),
    [
        ("do.channel.post", b"{", "invalid"),
        ("do.channel.post", b"\xff\xfe", "invalid"),
        ("do.channel.post", b"[]", "invalid"),
        ("do.channel.post", b"[" * 5000, "invalid"),
        ("do.channel.post", b"", "invalid"),
        ("do.channel.post", b'{"channel":"dev","text":"hi","colour":1}', "invalid"),
        ("do.channel.post", b'{"channel":"DEV!","text":"hi"}', "invalid"),
        ("see.channel.list", b'{"limit":0}', "invalid"),
        ("do.no.such", b"{}", "unknown_operation"),
        ("see.channel.post", b"{}", "unknown_operation"),
        ("do.channel.list", b"{}", "unknown_operation"),
        ("do.inbox.show", b'{"upto":1,"seqs":[]}', "internal"),
        ("do.tenant.found", b'{"tenant":"a","owner":"b"}', "internal"),
        ("do.channel", b"{}", "bad_subject"),
        ("do.channel.post.now", b"{}", "bad_subject"),
    ],
)
async def test_what_cannot_be_meant_is_answered_clearly(operation: str, body: bytes, code: str) -> None:
    async with office("atlas") as one:
        one.ask("atlas", operation, body)
        problem = one.error()
        assert problem["code"] == code
        assert problem["kind"] == ("NotAllowed" if code == "internal" else "InvalidRequest")
        assert (one.clerk.asked, one.intake.pending) == ([], 0)
        assert one.intake.counters["bad_subject"] == (code == "bad_subject")


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 65, "ü", "a\nb", "*"])
async def test_a_bad_request_id_is_refused(request_id: str) -> None:
    async with office("atlas") as one:
        one.ask("atlas", Bus_Request=request_id)
        assert one.error()["code"] == "bad_request_id"
        assert (one.clerk.asked, one.intake.pending) == ([], 0)


# --- bounds ------------------------------------------------------------------------------------------------------


async def test_who_has_too_much_under_way_is_told_busy_until_something_is_answered() -> None:
    async with office("atlas", "nova", pending_per_agent=2) as one:
        one.clerk.holds = True
        for _ in range(3):
            one.ask("atlas")
        problem = one.error()
        assert (problem["code"], problem["retry_after_s"]) == ("busy", 0.1)
        assert one.intake.pending == 2
        one.ask("nova")
        assert one.intake.pending == 3
        one.clerk.held.pop(0)(DONE)
        one.ask("atlas")
        assert (one.intake.pending, one.intake.counters["busy"]) == (3, 1)


async def test_all_together_have_a_bound_too() -> None:
    async with office("atlas", "nova", pending=2) as one:
        one.clerk.holds = True
        one.ask("atlas")
        one.ask("nova")
        one.ask("olga")
        assert one.error()["code"] == "busy"
        for answered in one.clerk.held:
            answered(DONE)
        one.ask("olga")
        assert len(one.clerk.asked) == 3


def flood(one: Any, name: str = "atlas", **ask: Any) -> int:
    """Ask until nobody listens. -> how many got through."""
    count = 0
    while one.ask(name, **ask):
        count += 1
        assert count < 100
    return count


@pytest.mark.parametrize(
    "ask",
    [
        {},
        {"operation": "see.channel.list"},
        {"operation": "do.no.such"},
        {"operation": "do.nothing"},
        {"body": b"{"},
        {"reply": "log.default.task.1"},
    ],
)
async def test_who_floods_is_not_listened_to_whatever_it_sends(ask: dict[str, Any]) -> None:
    async with office("atlas", "nova", burst=5, rate_per_s=1, mute_s=1) as one:
        assert flood(one, **ask) == 6
        assert one.listens_to() == both("nova", "olga")
        one.ask("nova")
        assert one.intake.counters["muted"] == 1
        one.clock.pass_s(0.9)
        await one.settle()
        assert "ask.atlas.do.>" not in one.listens_to()
        one.clock.pass_s(0.2)
        await one.settle()
        assert one.listens_to() == both("atlas", "nova", "olga")
        one.answers()
        one.ask("atlas")
        assert one.answers() == [{"seq": 1}]


async def test_who_sends_too_many_bytes_is_not_listened_to() -> None:
    async with office("atlas", burst_bytes=1000, bytes_per_s=10) as one:
        assert flood(one, body=b'{"channel":"dev","text":"' + b"x" * 300 + b'"}') == 4
        assert one.answers()[-1]["error"]["code"] == "busy"
        assert one.listens_to() == both("olga")


async def test_each_flood_costs_twice_as_long_up_to_a_minute_and_quiet_heals() -> None:
    async with office("atlas", burst=1, rate_per_s=1, mute_s=1) as one:
        waits = []
        for _ in range(8):
            flood(one)
            waits.append(one.answers()[-1]["error"]["retry_after_s"])
            one.clock.pass_s(waits[-1] + 0.01)
            await one.settle()
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
        one.clock.pass_s(61)
        flood(one)
        assert one.answers()[-1]["error"]["retry_after_s"] == 1


async def test_an_old_flood_does_not_make_a_later_wait_longer() -> None:
    async with office("atlas", burst=3, rate_per_s=1, mute_s=30, pending_per_agent=1) as one:
        flood(one)
        one.clock.pass_s(31)
        await one.settle()
        one.clerk.holds = True
        one.ask("atlas")
        one.answers()
        one.ask("atlas")
        assert one.error()["retry_after_s"] == 0.1


async def test_who_goes_on_though_busy_is_not_listened_to() -> None:
    async with office("atlas", pending_per_agent=2) as one:
        one.clerk.holds = True
        assert flood(one) == 5
        assert one.intake.counters == {"busy": 3, "muted": 1}


async def test_being_busy_now_and_then_is_no_flood() -> None:
    async with office("atlas", pending_per_agent=2) as one:
        one.clerk.holds = True
        for _ in range(10):
            for _ in range(3):
                assert one.ask("atlas")
            while one.clerk.held:
                one.clerk.held.pop()(DONE)
        assert one.intake.counters == {"busy": 10}


# --- whom it listens to ------------------------------------------------------------------------------------------


async def test_subscriptions_follow_the_active_agents() -> None:
    async with office("atlas") as one:
        assert one.listens_to() == both("atlas", "olga")
        await one.leader.do("olga", agent.Register(agent="nova"))
        await one.settle()
        assert one.listens_to() == both("atlas", "nova", "olga")
        await one.leader.do("olga", agent.Deactivate(agent="atlas"))
        await one.settle()
        assert one.listens_to() == both("nova", "olga")
        await one.leader.do("olga", agent.Reactivate(agent="atlas"))
        await one.settle()
        assert one.listens_to() == both("atlas", "nova", "olga")
    assert one.listens_to() == set()


@pytest.mark.parametrize("name", ["*", ">", "a.b", "A", "a b", "ü"])
async def test_what_is_no_name_is_never_listened_to(name: str) -> None:
    async with office("atlas") as one:
        headers = {"Bus-Type": "agent.registered", "Bus-Schema": "1", "Bus-Entity": name, "Bus-Agent": "x"}
        one.leader.log.put("log._.agent.1", headers, b"{}")
        one.leader.fold()
        await one.settle()
        assert one.listens_to() == both("atlas", "olga")


async def test_who_was_shut_out_is_not_answered_even_by_a_message_that_came_before() -> None:
    async with office("atlas") as one:
        subscription = next(s for s in one.line.subscriptions if s.subject == "ask.atlas.do.>")
        await one.leader.do("olga", agent.Deactivate(agent="atlas"))
        await one.settle()
        one.line.subscriptions.append(subscription)
        one.ask("atlas")
        assert (one.clerk.asked, one.line.sent) == ([], [])


async def test_commands_are_the_leaders_and_queries_everybodys() -> None:
    async with office("atlas", burst=2, rate_per_s=1) as one:
        one.ask("atlas")
        one.intake.deafen("do")
        assert one.listens_to() == {"ask.atlas.see.>", "ask.olga.see.>"}
        await one.settle()
        assert one.listens_to() == {"ask.atlas.see.>", "ask.olga.see.>"}
        one.intake.listen("do")
        await one.settle()
        assert one.listens_to() == both("atlas", "olga")
        assert flood(one) == 2  # Listening anew forgives nobody what came before.


async def test_a_lease_that_is_lost_while_it_begins_to_listen_leaves_nothing_behind() -> None:
    async with office("atlas") as one:
        one.intake.deafen("do")
        one.line.on_subscribed = lambda subject: one.intake.deafen("do")
        one.intake.listen("do")
        await one.settle()
        assert one.listens_to() == {"ask.atlas.see.>", "ask.olga.see.>"}


async def test_who_does_not_lead_looks_at_no_command() -> None:
    """Also not at one that came while it was frozen, or that has waited for what it must rest on."""
    async with office("atlas") as one:
        one.ask("atlas", body=b'{"channel":"dev","text":"hi","after":101}')
        await anyio.wait_all_tasks_blocked()
        one.leader.leads = False
        one.ask("atlas")
        assert one.error()["code"] == "not_leading"
        one.clerk.gate.set()
        await anyio.wait_all_tasks_blocked()
        problem = one.error()
        assert (problem["code"], problem["kind"], problem["retry_after_s"]) == ("not_leading", "Unavailable", 0.1)
        assert (one.clerk.asked, one.intake.pending) == ([], 0)


async def test_a_flood_while_it_begins_to_listen_leaves_nothing_behind() -> None:
    async with office("atlas", burst=2, rate_per_s=1, mute_s=1) as one:

        def flood_at_once(subject: str) -> None:
            if subject == "ask.nova.see.>":
                flood(one, "nova")

        await one.leader.do("olga", agent.Register(agent="nova"))
        one.line.on_subscribed = flood_at_once
        await one.settle()
        assert one.listens_to() == both("atlas", "olga")
        one.line.on_subscribed = None
        one.clock.pass_s(1.1)
        await one.settle()
        assert one.listens_to() == both("atlas", "nova", "olga")


# --- answers -----------------------------------------------------------------------------------------------------


async def test_an_answer_that_is_too_large_becomes_a_clear_error() -> None:
    async with office("atlas") as one:
        one.line.max_payload = 500
        one.clerk.body = b'"' + b"x" * 500 + b'"'
        one.ask("atlas")
        problem = one.error()
        assert (problem["code"], problem["found"]) == ("too_large", "502 bytes")
        assert "--limit" in problem["hint"]
        assert one.intake.pending == 0


async def test_an_answer_that_cannot_be_delivered_is_counted() -> None:
    async with office("atlas") as one:
        one.line.error = Unavailable("not connected")
        one.ask("atlas")
        one.line.error = None
        one.ask("atlas")
        assert one.answers() == [{"seq": 1}]
        assert (one.intake.counters["undelivered"], one.intake.pending) == (1, 0)


@pytest.mark.parametrize("operation", ["do.channel.post", "see.channel.list"])
async def test_a_defect_is_the_answer_and_the_intake_goes_on(operation: str) -> None:
    body = b"" if operation.startswith("see") else b'{"channel":"dev","text":"hi"}'
    async with office("atlas") as one:
        one.clerk.error = ZeroDivisionError("oh")
        one.ask("atlas", operation, body)
        await one.settle()
        problem = one.error()
        assert (problem["kind"], one.intake.pending) == ("Defect", 0)
        assert "ZeroDivisionError" in problem["message"]
        one.clerk.error = Refused("no", code="nope")
        one.ask("atlas", operation, body)
        await one.settle()
        assert one.error()["code"] == "nope"
        one.clerk.error = None
        one.ask("atlas", operation, body)
        await one.settle()
        assert one.answers()[0]["seq"] == 1


async def test_a_command_waits_for_what_it_must_rest_on() -> None:
    async with office("atlas") as one:
        body = b'{"channel":"dev","text":"hi","after":101}'
        one.ask("atlas", body=body, Bus_Request="r-1")
        await one.settle()
        assert (one.clerk.asked, one.intake.pending) == ([], 1)
        one.clerk.gate.set()
        await one.settle()
        assert (one.clerk.asked[0][3]["request_id"], one.answers()) == ("r-1", [{"seq": 1}])
        for error, kind in ((Unavailable("late", code="lagging"), "Unavailable"), (KeyError("oh"), "Defect")):
            one.clerk.error = error
            one.ask("atlas", body=body)
            await one.settle()
            assert one.error()["kind"] == kind
        assert one.intake.pending == 0


async def test_who_waits_is_told_when_the_daemon_ends() -> None:
    async with office("atlas", "nova") as one:
        one.clerk.holds = True
        one.ask("atlas", "see.channel.list", b"")
        one.ask("nova", body=b'{"channel":"dev","text":"hi","after":101}')
        await anyio.wait_all_tasks_blocked()
        one.ask("olga", "see.channel.list", b"")  # It has not even begun.
    assert {subject for subject, _ in one.line.sent} == {"_INBOX.atlas.1", "_INBOX.nova.1", "_INBOX.olga.1"}
    for answer in one.answers():
        assert (answer["error"]["code"], answer["error"]["retry_after_s"]) == ("ending", 0.1)
    assert one.intake.pending == 0


async def test_progress_is_reported_on_demand_only() -> None:
    async with office("atlas") as one:
        one.ask("atlas", "see.channel.list", b"")
        one.ask("atlas", "see.channel.list", b"", Bus_Progress="1", reply="_INBOX.atlas.7")
        await one.settle()
        silent, report = one.clerk.reports
        assert silent is None
        one.line.sent.clear()
        report(Progress(done=1, total=2, what="events"))
        ((subject, body),) = one.line.sent
        assert subject == "_INBOX.atlas.7"
        assert msgspec.json.decode(body) == {"progress": {"done": 1, "total": 2, "what": "events"}}
