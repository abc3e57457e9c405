"""What reaches the terminal and the pipe."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import fields

from bus.domain import agent, channel, inbox, log, message
from bus.domain import task_requests as task
from bus.durations import span
from bus.model import Request
from bus.operation import OPERATIONS
from bus.protocol import Progress
from cli import answers, render
from cli.render import Screen, ago, clean, size, width

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
HOSTILE = "\x1b[2Jpwned\x07\r\x9b31m\u202egnp.exe\u2066\x00\u200b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["pipe", "terminal"])
def out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return io.StringIO() if request.param == "pipe" else Terminal()


def shown(answer: Any, request: Request | None = None, out: io.StringIO | None = None) -> str:
    out = out or io.StringIO()
    answers.show(Screen(out, now=NOW), request or agent.Who(), answer)
    return out.getvalue()


def row(**given: Any) -> message.MessageRow:
    return message.MessageRow(**{"seq": 7, "time": NOW, "agent": "nova", "channel": "dev", "text": "hi"} | given)


def messages(*rows: message.MessageRow) -> message.Messages:
    return message.Messages(seq=9, time=NOW, messages=list(rows), next=7)


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("Grüße 漢字 👩‍💻 e\u0301", "Grüße 漢字 👩‍💻 e\u0301"),
        ("a\tb", "a    b"),
        ("a\nb", "a⏎b"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("\u202ereversed", r"\u202ereversed"),
        ("\u2028", r"\u2028"),
        ("\ufeff\u200b", r"\ufeff\u200b"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_no_answer_writes_raw_control_characters(out: io.StringIO) -> None:
    names = dict.fromkeys(("type", "namespace", "entity", "agent", "data"), HOSTILE)
    event = log.LogRow(seq=1, time=NOW, **names)
    item = inbox.Item(seq=1, time=NOW, reasons=[HOSTILE], agent=HOSTILE, namespace=HOSTILE, text=HOSTILE)
    hostile = messages(row(text=HOSTILE, agent=HOSTILE, reactions={HOSTILE: [HOSTILE]}))
    for answer in (
        hostile,
        inbox.Items(seq=1, time=NOW, items=[item], upto=1, remaining=0),
        log.LogPage(seq=1, time=NOW, events=[event]),
        log.EventDetail(
            seq=1, time=NOW, event=event, subject=HOSTILE, headers={HOSTILE: HOSTILE}, causes=[], effects=[]
        ),
        log.Rows(seq=1, time=NOW, columns=[HOSTILE], rows=[[HOSTILE], [{HOSTILE: HOSTILE}]]),
        lease(title=HOSTILE, body=HOSTILE + "\n" + HOSTILE, labels=(HOSTILE,)),
    ):
        shown(answer, out=out)
    # Colours of ours are the only escapes there may be.
    text = out.getvalue()
    for code in range(110):
        text = text.replace(f"\x1b[{code}m", "").replace(f"\x1b[1;{code}m", "").replace(f"\x1b[2;{code}m", "")
    assert not set(text) & set("\x1b\x07\r\x9b\x00\u202e\u2066\u200b")
    assert r"\x1b[2Jpwned" in text


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("👍", 2), ("", 0), ("äöü", 3)])
def test_width_is_what_a_terminal_needs(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "now"), (0.4, "now"), (5, "5s ago"), (200, "3m ago"), (-7300, "in 2h"), (9e5, "10d ago")]
)
def test_relative_times(seconds: float, text: str) -> None:
    assert ago(seconds) == text


def test_sizes_and_spans() -> None:
    assert [size(n) for n in (0, 999, 1500, 15_000, 2_500_000, 5e9, 7e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "15 kB",
        "2.5 MB",
        "5.0 GB",
        "7.0 TB",
    ]
    assert [span(n) for n in (0, 59, 60, 3599, 7200, 2e5)] == ["0s", "59s", "1m", "59m", "2h", "2d"]


# --- the screen -----------------------------------------------------------------------------------------------------


def test_times_are_stable_in_a_pipe_and_relative_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = NOW - timedelta(minutes=3)
    assert Screen(io.StringIO(), now=NOW).time(moment) == "2030-01-31T11:57:00Z"
    assert Screen(Terminal(), now=NOW).time(moment).endswith(" (3m ago)")
    assert Screen(io.StringIO(), now=NOW).time(None) == "-"


def test_a_pipe_gets_no_colour_and_no_notes() -> None:
    pipe = io.StringIO()
    screen = Screen(pipe, now=NOW)
    screen.line(("red", "red"), " plain")
    screen.note("for people only")
    assert pipe.getvalue() == "red plain\n"


def test_a_terminal_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    screen = Screen(terminal, now=NOW)
    screen.line(("red", "red"))
    screen.note("for people")
    assert "\x1b[31mred" in terminal.getvalue()
    assert "for people" in terminal.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    Screen(terminal, now=NOW).line(("red", "red"))
    assert terminal.getvalue() == "red\n"


def test_text_is_never_markup(out: io.StringIO) -> None:
    Screen(out, now=NOW).line("[bold]a[/bold] [link=x]b[/] :smile: https://x.y [1, 2]")
    assert "[bold]a[/bold] [link=x]b[/] :smile: https://x.y [1, 2]" in out.getvalue()


def test_tables_line_up_whatever_is_in_them() -> None:
    pipe = io.StringIO()
    Screen(pipe, now=NOW).table(
        ("name", "text"), [["漢字", "a"], [("x", "bold"), "line\nbreak"], [["y", ("z", "")], "b"]]
    )
    assert pipe.getvalue() == "NAME  TEXT\n漢字  a\nx     line⏎break\nyz    b\n"
    Screen(pipe).table(("a",), [])
    assert pipe.getvalue().count("\n") == 4


def test_long_words_are_folded_on_a_terminal_and_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        Screen(out, now=NOW).line("x" * 100)
    assert max(map(len, terminal.getvalue().splitlines())) == 40
    assert terminal.getvalue().replace("\n", "") == "x" * 100
    assert pipe.getvalue() == "x" * 100 + "\n"


def test_what_somebody_wrote_cannot_look_like_a_line_of_ours() -> None:
    text = shown(messages(row(text="one\n#8  2030-01-31T12:00:00Z  owner  two"), row(seq=9)))
    assert text.splitlines() == [
        "#7  2030-01-31T12:00:00Z  nova",
        "    one",
        "    #8  2030-01-31T12:00:00Z  owner  two",
        "#9  2030-01-31T12:00:00Z  nova  hi",
    ]


# --- answers --------------------------------------------------------------------------------------------------------


def lease(**given: Any) -> task.LeaseReply:
    known = {
        "seq": 12,
        "task": "t-1",
        "fence": 12,
        "expires": NOW,
        "lease_s": 600,
        "title": "t",
        "body": "",
        "labels": (),
        "priority": 2,
    }
    return task.LeaseReply(**known | given)


def test_messages_show_what_belongs_to_them() -> None:
    one = row(reply_to=3, edited=8, pinned=True, reactions={"+1": ["atlas", "nova"]})
    assert shown(messages(one)).splitlines() == [
        "#7  2030-01-31T12:00:00Z  nova to #3 (edited, pinned)  hi",
        "    +1 atlas, nova",
    ]


def test_inbox_items_say_why_they_are_there() -> None:
    item = inbox.Item(
        seq=3, time=NOW, reasons=["channel", "mention"], agent="nova", namespace="n", text="hi", channel="dev"
    )
    text = shown(inbox.Items(seq=9, time=NOW, items=[item], upto=3, remaining=2))
    assert text == "#3  2030-01-31T12:00:00Z  nova in dev [channel, mention]  hi\n"


def test_a_claim_says_until_when_and_what() -> None:
    assert shown(lease(body="b1\nb2", labels=("x",))).splitlines() == [
        "#12  task t-1 is yours until 2030-01-31T12:00:00Z",
        "    t",
        "    b1",
        "    b2",
        "    fence 12, priority 2, label x",
    ]


def test_events_are_listed_with_what_is_unusual() -> None:
    known = {"time": NOW, "type": "task.opened", "namespace": "n", "entity": "t-1", "agent": "nova"}
    page = log.LogPage(
        seq=3,
        time=NOW,
        events=[
            log.LogRow(seq=1, data={"title": "t"}, **known),
            log.LogRow(seq=2, redacted=True, **known),
            log.LogRow(seq=3, data="?", problem="unknown type", correlation="c", causes=[1], **known),
        ],
    )
    assert shown(page).splitlines() == [
        '#1  2030-01-31T12:00:00Z  nova  task.opened  n/t-1  {"title":"t"}',
        "#2  2030-01-31T12:00:00Z  nova  task.opened  n/t-1  (not for you)",
        '#3  2030-01-31T12:00:00Z  nova  task.opened  n/t-1  "?"',
        "    cannot be read: unknown type",
    ]
    lines = answers.documents(page)
    keys = ["seq", "time", "type", "namespace", "entity", "agent", "causes", "data"]
    assert list(lines[0]) == keys
    assert list(lines[1]) == [*keys, "redacted"]
    assert list(lines[2]) == [*keys, "correlation", "problem"]


def test_a_difference_between_log_and_tables_is_shown() -> None:
    tables = {
        "task": log.TableDigest(rows=1, digest="a" * 64, equal=False, log_rows=2, log_digest="b" * 64),
        "dm": log.TableDigest(rows=0, digest="c" * 64, equal=True, log_rows=0, log_digest="c" * 64),
    }
    text = shown(log.Moment(seq=3, time=NOW, tables=tables, equal=False, events=3, skipped=1))
    assert f"NO: the log gives 2 rows, {'b' * 16}" in text
    assert "1 of them cannot be read" in text
    assert "DIFFERENT" in text
    assert "yes" in text


def test_rows_and_replies_without_a_renderer_are_shown_from_their_fields(out: io.StringIO) -> None:
    rows = log.Rows(seq=1, time=NOW, columns=["a", "b"], rows=[[1, None], [True, {"x": [1]}]])
    shown(rows, out=out)
    shown(channel.ChannelReply(seq=5, channel="dev"), out=out)
    shown(agent.Agents(seq=5, time=NOW, agents=[_agent()]), out=out)
    text = out.getvalue()
    assert '{"x":[1]}' in text
    assert "dev" in text
    assert "auditor, owner" in text
    assert "PERSONALITY" not in text, "a column without anything in it is left out"


def _agent() -> agent.AgentRow:
    return agent.AgentRow(
        agent="nova",
        seq=3,
        harness="",
        device="",
        model="m",
        personality="",
        parent=None,
        active=True,
        presence="online",
        authority=["auditor", "owner"],
        models=[],
        roles=[],
    )


def test_people_are_told_that_there_is_more() -> None:
    terminal = Terminal()
    shown(messages(row(), row()), channel.Read(channel="dev", limit=2, as_of=9), terminal)
    assert "--before 7" in terminal.getvalue()
    assert "as of #9" in terminal.getvalue()
    shown(messages(row(), row()), channel.Read(channel="dev", limit=2, since=3), terminal)
    assert "--since 7" in terminal.getvalue()
    shown(messages(), channel.Read(channel="dev"), terminal)
    assert "no messages" in terminal.getvalue()
    assert shown(messages(), channel.Read(channel="dev")) == ""


@pytest.mark.parametrize("name", sorted({operation.reply_type.__qualname__ for operation in OPERATIONS.values()}))
def test_every_kind_of_answer_can_be_shown(name: str, out: io.StringIO) -> None:
    kind = next(one.reply_type for one in OPERATIONS.values() if one.reply_type.__qualname__ == name)
    if name in ("TaskDetail", "EventDetail", "MemoryDetail", "SessionDetail"):
        return  # They hold one thing that cannot be empty; other tests show them.
    empty: dict[str, Any] = {
        "seq": 1,
        "time": NOW,
        "expires": NOW,
        "labels": (),
        "columns": {},
        "counts": {},
        "tables": {},
        "legs": {"dense": "x"},
    }
    values = {
        field.name: empty.get(field.name, [] if "list" in str(field.type) else 0 if field.type in (int, float) else "x")
        for field in fields(kind)
        if field.required
    }
    if name == "Rows":
        values["columns"] = []
    shown(kind(**values), out=out)


# --- programs -------------------------------------------------------------------------------------------------------


def test_json_is_one_line_of_utf8(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    render.write_json({"text": "漢\n\x1b", "time": NOW})
    data = capsysbinary.readouterr().out
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert b"\x1b" not in data
    assert json.loads(data) == {"text": "漢\n\x1b", "time": "2030-01-31T12:00:00Z"}


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    with render.progress_bar() as report:
        assert report is None
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with render.progress_bar() as report:
        assert report is not None
        report(Progress(done=1, total=2, what="folding"))
    assert terminal.getvalue() == "", "what is done at once needs no bar"
    monkeypatch.setattr(render, "BAR_AFTER_NS", 0)
    with render.progress_bar() as report:
        assert report is not None
        report(Progress(done=1, total=2, what="folding [red]x[/red] \x1b[5m"))
    assert r"folding [red]x[/red] \x1b[5m" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()
