"""From a command line to the request struct it means, without any bus."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus.domain import agent, channel, directive, dm, inbox, journal, log, registry, reminder
from bus.domain import task_requests as task
from bus.model import Operation, Request
from bus.operation import OPERATIONS
from cli import asking, daily, main
from cli.fields import fields_of
from cli.groups import Group
from cli.options import Common

Typed = Callable[..., tuple[Common, Request]]
Fails = Callable[..., dict[str, Any]]
ISO = "an ISO instant with its time zone, such as 2030-01-31T12:00:00Z"
PUBLIC = [operation for operation in OPERATIONS.values() if not operation.internal]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """`typed("post", "dev", "hi")` -> what would be asked."""
    asked: list[tuple[Common, Request]] = []

    def perform(common: Common, operation: Operation, request: Request) -> None:
        assert type(request) is operation.request
        asked.append((common, request))

    def run(function: Any, common: Common, *arguments: Any) -> None:
        asked.append((common, next(one for one in arguments if isinstance(one, Request))))

    monkeypatch.setattr(asking, "perform", perform)
    monkeypatch.setattr(asking, "run", run)

    def read(*words: str) -> tuple[Common, Request]:
        asked.clear()
        assert main.main(words) == 0
        return asked[0]

    return read


@pytest.fixture
def fails(capsysbinary: pytest.CaptureFixture[bytes]) -> Fails:
    """`fails("post")` -> the problem that ends the command; its exit code has to be 2."""

    def read(*words: str) -> dict[str, Any]:
        assert main.main(["--json", *words]) == 2
        said = capsysbinary.readouterr()
        assert said.err == b""
        problem: dict[str, Any] = json.loads(said.out)["error"]
        return problem

    return read


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("join dev", channel.Join(channel="dev")),
        ("channel join dev", channel.Join(channel="dev")),
        ("leave dev", channel.Leave(channel="dev")),
        ("post dev hello", channel.Post(channel="dev", text="hello")),
        ("post dev --text hello", channel.Post(channel="dev", text="hello")),
        ("post --channel dev hello", channel.Post(channel="dev", text="hello")),
        (
            "post dev hi --reply-to 3 --mention nova --mentions atlas --refs 1,2 --ref #5 --causes 7 --cause 8",
            channel.Post(
                channel="dev",
                text="hi",
                reply_to=3,
                mentions=("nova", "atlas"),
                refs=(1, 2, 5),
                causes=(7, 8),
            ),
        ),
        ("post dev -- --json", channel.Post(channel="dev", text="--json")),
        ("post dev hi --fence t-1:9", channel.Post(channel="dev", text="hi", fence="t-1:9")),
        ("post dev hi --fence 9 --correlation c", channel.Post(channel="dev", text="hi", fence=9, correlation="c")),
        ("channel react dev 12 +1 --remove", channel.React(channel="dev", message=12, emoji="+1", remove=True)),
        ("channel edit dev 12 other", channel.Edit(channel="dev", message=12, text="other")),
        ("channel search word --channel dev", channel.Search(text="word", channel="dev")),
        ("channel list --archived", channel.List(archived=True)),
        ("channel list --no-archived", channel.List(archived=False)),
        ("channel list", channel.List()),
        ("read dev --limit 20 --since 4", channel.Read(channel="dev", limit=20, since=4)),
        ("read dev --as-of -10m", channel.Read(channel="dev", as_of="-10m")),
        ("read dev --as-of 12 --wait 1.5s", channel.Read(channel="dev", as_of=12, wait_s=1.5)),
        ("read dev --follow", channel.Read(channel="dev")),
        ("dm nova psst", dm.Post(to="nova", text="psst")),
        ("dm post nova psst", dm.Post(to="nova", text="psst")),
        ("dm --reply-to 3 nova psst", dm.Post(to="nova", text="psst", reply_to=3)),
        ("dm --as atlas read nova", dm.Read(to="nova")),
        ("dm list", dm.List()),
        ("inbox", inbox.Peek()),
        ("inbox --limit 3", inbox.Peek(limit=3)),
        ("inbox peek --limit 3", inbox.Peek(limit=3)),
        ("inbox ack 12", inbox.Ack(upto=12)),
        ("inbox ack --upto 12", inbox.Ack(upto=12)),
        ("who", agent.Who()),
        ("agent grant nova auditor", agent.Grant(agent="nova", authority="auditor")),
        ("remind look --in 20m", reminder.Set(text="look", in_s=1200)),
        ("remind x --every 1d --to nova", reminder.Set(text="x", every="1d", to="nova")),
        ("wake --as-of -2h", journal.Wake(as_of="-2h")),
        ("directive give x --role dev --due-in 2d", directive.Give(text="x", role="dev", due_in_s=172_800)),
        ("journal write --done a --done b --next-step c", journal.Write(done=("a", "b"), next_steps=("c",))),
        ("agent register nova --harness h --parent atlas", agent.Register(agent="nova", harness="h", parent="atlas")),
        ("model register m/1 --context-tokens 9", registry.RegisterModel(model="m/1", context_tokens=9)),
        ("task open title", task.Open(title="title")),
        ("task open --from-message 3", task.Open(from_message=3)),
        (
            "task open title --priority 2 --label a --label b,c --need t-1 --class bug --task t-9",
            task.Open(title="title", priority=2, labels=("a", "b,c"), needs=("t-1",), class_="bug", task="t-9"),
        ),
        ("claim t-1", task.Claim(task="t-1")),
        ("claim t-1 --lease 10m", task.Claim(task="t-1", lease_s=600)),
        ("claim t-1 --lease 1h30m", task.Claim(task="t-1", lease_s=5400)),
        ("claim t-1 --lease 90", task.Claim(task="t-1", lease_s=90)),
        ("task renew t-1", task.Renew(task="t-1")),
        ("release t-1 --reason r", task.Release(task="t-1", reason="r")),
        ("done t-1 --result merged", task.Complete(task="t-1", result="merged")),
        ("fail t-1 --retry", task.Fail(task="t-1", retry=True)),
        ("next --lease 30m --class bug", task.Next(lease_s=1800, classes=("bug",))),
        ("handoff t-1 nova --notes n --direct", task.Handoff(task="t-1", to="nova", notes="n", direct=True)),
        ("task amend t-1 --labels ", task.Amend(task="t-1", labels=())),
        ("task amend t-1 --body ", task.Amend(task="t-1", body="")),
        ("log", log.List(newest=True)),
        ("log --from 1 --to 20", log.List(start=1, end=20)),
        ("log list --start 1 --end 20", log.List(start=1, end=20)),
        ("log --type task.claimed --since 3", log.List(type="task.claimed", since=3)),
        ("log show #12", log.Show(event=12)),
        ("replay", log.Tables()),
        ("replay --as-of 12 --from-log --verify", log.Tables(as_of=12, from_log=True, verify=True)),
        ("replay --as-of 12 --table task", log.Table(as_of=12, table="task")),
        ("replay --sql select --limit 5", log.Sql(sql="select", limit=5)),
        ("replay --sql select --timeout 60", log.Sql(sql="select", timeout_s=60)),
        ("replay table task", log.Table(table="task")),
        ("replay sql select --sql-timeout 5s", log.Sql(sql="select", timeout_s=5)),
    ],
)
def test_a_command_line_means_a_request(typed: Typed, words: str, request_: Request) -> None:
    assert typed(*words.split(" "))[1] == request_


@pytest.mark.parametrize(
    "words",
    [
        "--as nova --home h --namespace n --json --timeout 5s post dev hi",
        "post dev hi --as nova --home h --namespace n --json --timeout 5s",
        "--as other post --as nova dev --home h hi --namespace n --json --timeout 5",
        "--json channel --as nova post --home h dev hi --namespace=n --timeout=5000ms",
    ],
)
def test_global_options_stand_anywhere(typed: Typed, words: str) -> None:
    common, request = typed(*words.split(" "))
    assert common == Common(agent="nova", home="h", namespace="n", json=True, timeout_s=5)
    assert request == channel.Post(channel="dev", text="hi")


def test_a_remote_bus_is_named_by_options(typed: Typed) -> None:
    common, _ = typed("who", "--url", "nats://host:4222", "--creds", "me.creds")
    assert common == Common(url="nats://host:4222", creds="me.creds")


def test_a_text_comes_from_standard_input(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"zwei\nZeilen\n")))
    assert typed("post", "dev", "-")[1] == channel.Post(channel="dev", text="zwei\nZeilen")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"body")))
    assert typed("task", "open", "t", "--body", "-")[1] == task.Open(title="t", body="body")


def test_bad_standard_input_is_refused(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert "UTF-8" in fails("post", "dev", "-")["message"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * (asking.STDIN_BYTES + 1))))
    assert fails("post", "dev", "-")["code"] == "too_large"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("post dev", {"message": "TEXT is missing", "code": "missing"}),
        ("claim", {"message": "TASK is missing"}),
        ("inbox ack", {"message": "UPTO is missing"}),
        ("post dev a b", {"code": "usage"}),
        ("post --channel dev a b", {"message": "one argument too many", "found": "'b'"}),
        ("post dev a --priority 3", {"code": "usage"}),
        ("post Dev a", {"message": "bad CHANNEL", "found": "'Dev'"}),
        ("post dev a --mention nova --mention *", {"message": "bad --mentions", "found": "'*'"}),
        ("task open x --priority 12", {"message": "bad --priority", "expected": "a whole number <= 9"}),
        ("task open x --priority many", {"message": "bad --priority", "expected": "a whole number"}),
        ("claim t-1 --lease 5x", {"message": "bad --lease", "found": "'5x'"}),
        ("claim t-1 --lease 1.5s", {"expected": "whole seconds"}),
        ("remind x --at soon", {"message": "bad --at", "expected": ISO}),
        ("remind x --at 2030-01-31T12:00:00", {"message": "bad --at", "expected": ISO}),
        ("remind x --in -5m", {"message": "bad --in", "found": "'-5m'"}),
        ("remind x --in 0s", {"message": "bad --in", "expected": "a whole number >= 1"}),
        ("claim t-1 --lease 0s", {"message": "bad --lease"}),
        ("claim ../x", {"message": "bad TASK"}),
        ("claim t-1 --fence 0", {"message": "bad --fence"}),
        ("agent grant nova king", {"message": "bad AUTHORITY", "expected": "one of auditor, owner"}),
        ("task list --state gone", {"message": "bad --state"}),
        ("read dev --limit 0", {"message": "bad --limit"}),
        ("read dev --limit", {"code": "usage"}),
        ("replay --table a --sql b", {"code": "usage"}),
        ("replay --table a --verify", {"code": "usage"}),
        ("replay --limit 3", {"code": "usage"}),
        ("nonsense", {"code": "usage"}),
        ("task nonsense", {"code": "usage"}),
        ("clam t-1", {"hint": "Did you mean claim?"}),
        ("who --timeout soon", {"message": "bad --timeout"}),
        ("who --timeout 0s", {"message": "bad --timeout"}),
        ("call", {"message": "OPERATION is missing"}),
        ("call task.nonsense", {"code": "unknown_operation"}),
        ("call task.claim {", {"code": "invalid"}),
        ("call log.seal {}", {"code": "unknown_operation"}),
        ("help nonsense", {"code": "unknown_operation"}),
    ],
)
def test_bad_usage_says_what_was_expected(fails: Fails, words: str, found: dict[str, str]) -> None:
    problem = fails(*words.split(" "))
    assert found.items() <= problem.items(), problem


@pytest.mark.parametrize("name", ["*", ">", "a.b", "../x", "Ä", "a" * 64, "-x", "a b", "a\nb", "_", "\x1b[31m"])
def test_hostile_names_get_nowhere(fails: Fails, name: str) -> None:
    for words in ([f"--as={name}", "who"], [f"--namespace={name}", "who"], ["join", "--", name]):
        assert fails(*words)["kind"] == "InvalidRequest"
    assert fails("who", "--as", "system")["code"] == "reserved_name"


def test_errors_are_for_people_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["claim", "t 1"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == "error: bad TASK"
    assert "'t 1'" in said.err
    assert "Traceback" not in said.err


def test_json_requests_are_passed_through(typed: Typed) -> None:
    common, request = typed("call", "task.open", '{"title": "t", "class": "bug"}')
    assert common.json
    assert request == task.Open(title="t", class_="bug")
    assert typed("call", "agent.who")[1] == agent.Who()


def test_a_json_request_comes_from_standard_input(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"task": "t-1"}')))
    assert typed("call", "task.claim", "-")[1] == task.Claim(task="t-1")


@pytest.mark.parametrize("operation", PUBLIC, ids=lambda operation: str(operation.name))
def test_every_operation_has_a_command_with_help(operation: Operation, capsys: pytest.CaptureFixture[str]) -> None:
    verb = operation.verb.replace("_", "-")
    assert main.main([operation.family, verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert " ".join(operation.help.split())[:40] in " ".join(text.split())
    assert "Example:" in text
    for field in fields_of(operation):
        assert field.shown in text
        assert field.help or field.place is not None, f"{operation.name} does not say what {field.name} is"


def test_help_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (*daily.DAILY, *daily.FAMILIES, *main.LIFECYCLE, *main.REFERENCE):
        assert f"\n  {name} " in text
    assert main.main([]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("word", ["task", "dm", "inbox", "log", "replay", "post", "init", "call"])
def test_short_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([word, "-h"]) == 0
    assert f"Usage: bus {word} " in capsys.readouterr().out


def test_examples_of_help_can_be_typed(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    def words(example: str) -> list[str]:
        return shlex.split(example.partition(" < ")[0])[1:]

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"what a file says")))
    root = main.root()
    for name in daily.DAILY:
        assert typed(*words(root.get_command(None, name).epilog))
    for family in daily.FAMILIES:
        group = root.get_command(None, family)
        assert isinstance(group, Group)
        for member in group.members:
            assert typed(*words(group.get_command(None, member).epilog))


def test_daily_verbs_are_operations() -> None:
    assert {name for name, _ in daily.DAILY.values()} <= {operation.name for operation in PUBLIC}
    assert set(daily.EXAMPLES) - {daily.RUN} <= {operation.name for operation in PUBLIC}
    assert set(daily.DAILY).isdisjoint(daily.FAMILIES)


def test_help_describes_operations(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main.main(["help", "task", "claim", "--json"]) == 0
    described = json.loads(capsysbinary.readouterr().out)
    assert described["operation"] == "task.claim"
    assert "lease_s" in described["request"]["$defs"]["Claim"]["properties"]
    assert main.main(["help", "--json"]) == 0
    every = json.loads(capsysbinary.readouterr().out)["operations"]
    assert [one["operation"] for one in every] == [operation.name for operation in PUBLIC]
    assert main.main(["help", "task.claim"]) == 0
    assert b"--lease" in capsysbinary.readouterr().out


HEAVY = ("duckdb", "projections", "usearch", "numpy", "pydantic", "rich", "nats", "asyncio", "anyio")


@pytest.mark.parametrize("words", [["--help"], ["post", "--help"], ["task", "--help"], ["claim"], ["help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    import subprocess

    program = f"import sys; from cli.main import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = done.stderr.split()
    assert "typer" in imported
    assert set(imported).isdisjoint(HEAVY)


def test_the_version_imports_nothing() -> None:
    import subprocess

    program = "import sys; known = {*sys.modules}; sys.argv = ['bus', '--version']; from cli.main import run; run(); "
    program += "print(*{*sys.modules} - known)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, imported = done.stdout.splitlines()
    assert re.fullmatch(r"bus \d+\.\d+\.\d+\w*", said)
    assert set(imported.split()) == {"cli", "cli.main", "bus", "gc", "__future__"}


def test_a_command_ends_when_everything_is_said() -> None:
    import subprocess

    program = "import atexit, sys; atexit.register(print, 'taken apart'); sys.argv = ['bus', {}]; "
    program += "from cli.main import run; run()"
    for word, code, said in (("--help", 0, b"Usage: bus"), ("nonsense", 2, b"no command")):
        done = subprocess.run([sys.executable, "-c", program.format(repr(word))], capture_output=True, check=False)
        assert done.returncode == code
        assert said in done.stdout + done.stderr
        assert b"taken apart" not in done.stdout
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program.format("'--help'")], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
