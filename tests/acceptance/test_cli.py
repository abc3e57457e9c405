"""The command `bus` as people and agents use it: the examples as typed, what is shown, how it ends, following."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.acceptance.commands import BUS, KEPT, WAIT_S, Done, Repo, fresh_repo, listening, shared_repo
from tests.acceptance.support import wait_until

__all__ = ["fresh_repo", "shared_repo"]

pytestmark = pytest.mark.skipif(not Path(BUS).exists(), reason="the package is not installed")


# --- the examples that must work as typed ---------------------------------------------------------------------------


def test_the_examples_work_as_typed(repo: Repo) -> None:
    def typed(line: str) -> Done:
        import shlex

        command, *words = shlex.split(line)
        assert command == "bus"
        return repo.bus(*words)

    assert typed("bus join dev --as atlas").code == 0
    posted = typed('bus post dev "reviewing PR 403" --as atlas --json').json
    assert posted["seq"] > 0
    opened = typed('bus task open "fix auth" --priority 2 --json').json
    assert re.fullmatch(r"t-[a-z0-9]{10}", opened["task"])
    task = opened["task"]
    claimed = typed(f"bus claim {task} --lease 10m --as nova --json").json
    assert claimed["seq"] == claimed["fence"] > opened["seq"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", claimed["expires"])
    refused = typed(f"bus claim {task} --lease 10m --as atlas")
    assert refused.code == 3
    assert "nova" in refused.err
    done = typed(f'bus done {task} --result "merged" --as nova')
    assert done.code == 0
    assert "done" in done.out
    read = typed("bus read dev --limit 20 --json").json
    assert [row["text"] for row in read["messages"]] == ["reviewing PR 403"]
    assert read["seq"] >= read["messages"][0]["seq"] == posted["seq"]
    lines = typed("bus log --from 1 --to 20 --json").lines
    seqs = [line["seq"] for line in lines]
    assert seqs == list(range(1, len(seqs) + 1))
    keys = ["seq", "time", "type", "namespace", "entity", "agent", "causes", "data"]
    assert all(list(line)[:8] == keys for line in lines)
    table = typed(f"bus replay --as-of {claimed['seq']} --table task --json").json
    row = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert (row["task"], row["state"], row["owner"]) == (task, "claimed", "nova")
    counted = typed('bus replay --as-of -10m --sql "select state, count(*) from task group by 1" --json')
    assert counted.code == 0
    assert counted.json["seq"] == 0
    proved = typed(f"bus replay --as-of {claimed['seq']} --from-log --verify --json").json
    assert proved["equal"] is True
    assert proved["seq"] == claimed["seq"]
    assert proved["tables"]["task"]["rows"] == 1
    assert proved["tables"]["task"]["digest"]


def test_the_day_of_an_agent(repo: Repo) -> None:
    repo.ok("join", "day", "--as", "atlas")
    repo.ok("join", "day", "--as", "nova")
    asked = repo.ok("post", "day", "can you look, @nova?", "--as", "atlas")
    repo.ok("dm", "nova", "it is urgent", "--as", "atlas")
    unread = repo.ok("inbox", "--as", "nova")
    assert [item["text"] for item in unread["items"]] == ["can you look, @nova?", "it is urgent"]
    assert repo.bus("inbox", "ack", "--upto", str(unread["upto"] + 1000), "--as", "nova").code == 3
    assert repo.ok("inbox", "--ack", "--as", "nova")["items"] == unread["items"]
    assert repo.ok("inbox", "--as", "nova")["items"] == []
    repo.ok("post", "day", "I do", "--reply-to", str(asked["seq"]), "--as", "nova")
    thread = repo.ok("read", "day", "--thread", str(asked["seq"]))
    assert [row["text"] for row in thread["messages"]] == ["can you look, @nova?", "I do"]
    task = repo.ok("task", "open", "look", "--label", "day", "--as", "atlas")["task"]
    claim = repo.ok("next", "--label", "day", "--as", "nova")
    assert claim["task"] == task
    repo.ok("post", "day", "looking", "--fence", f"{task}:{claim['fence']}", "--as", "nova")
    stale = repo.bus("post", "day", "mine", "--fence", f"{task}:{claim['fence'] - 1}", "--as", "atlas", "--json")
    assert stale.code == 3
    repo.ok("renew", task, "--lease", "1h", "--as", "nova")
    handed = repo.ok("handoff", task, "atlas", "--notes", "half done", "--direct", "--as", "nova")
    shown = repo.ok("log", "show", str(handed["seq"]))
    assert shown["event"]["type"] == "task.handed_off"
    assert repo.ok("task", "show", task)["task"]["owner"] == "atlas"
    assert {one["agent"]: one["tasks"] for one in repo.ok("who")["agents"]}["atlas"] == [task]
    repo.ok("fail", task, "--reason", "no time", "--retry", "--as", "atlas")
    assert repo.ok("task", "list", "--label", "day")["tasks"][0]["state"] == "open"
    assert repo.ok("leave", "day", "--as", "nova")["channel"] == "day"


# --- output and exit codes ------------------------------------------------------------------------------------------


def test_errors_end_with_the_code_of_their_class(repo: Repo) -> None:
    for code, kind, words in (
        (2, "InvalidRequest", ("read", "dev", "--as-of", "99999999")),
        (4, "NotFound", ("claim", "t-nowhere")),
        (4, "NotFound", ("read", "nowhere")),
        (5, "NotAllowed", ("log", "--as", "atlas")),
        (5, "NotAllowed", ("agent", "grant", "atlas", "owner", "--as", "atlas")),
    ):
        done = repo.bus(*words, "--json")
        problem = done.json["error"]
        assert (done.code, problem["kind"]) == (code, kind)
    said = repo.bus("claim", "t-nowhere")
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith("error: task t-nowhere: ")
    assert "Traceback" not in said.err


def test_a_remote_bus_that_is_not_there_is_unavailable(repo: Repo, tmp_path: Path) -> None:
    creds = repo.home / "creds" / "owner.creds"
    remote = ("--url", "nats://127.0.0.1:1", "--creds", str(creds), "--timeout", "1s")
    done = repo.bus("who", *remote, "--json")
    assert (done.code, done.json["error"]["kind"]) == (6, "Unavailable")
    assert repo.bus("who", "--url", "nats://127.0.0.1:1").code == 2
    assert repo.bus("who", *remote[:2], "--creds", str(tmp_path / "none")).code == 4
    assert repo.bus("up", *remote).code == 2


def test_hostile_names_are_refused_and_get_no_credentials(repo: Repo) -> None:
    before = sorted(path.name for path in (repo.home / "creds").iterdir())
    for words in (("who", "--as", "*"), ("who", "--as", "../x"), ("join", "a.b"), ("who", "--namespace", ">")):
        done = repo.bus(*words)
        assert (done.code, done.out) == (2, ""), words
    assert sorted(path.name for path in (repo.home / "creds").iterdir()) == before


def test_hostile_texts_do_nothing_to_the_terminal(repo: Repo) -> None:
    text = "\x1b[2J\x1b]0;title\x07\u202eevil\r\n#1 forged"
    posted = repo.ok("post", "hostile", text, "--as", "atlas") if repo.bus("join", "hostile").code == 0 else None
    assert posted is not None
    assert repo.ok("read", "hostile")["messages"][0]["text"] == text
    for words in (("read", "hostile"), ("log",), ("log", "show", str(posted["seq"])), ("channel", "search", "evil")):
        said = repo.bus(*words)
        assert said.code == 0
        assert not set(said.out) & set("\x1b\x07\r\u202e")
        assert not re.search(r"^#1 forged", said.out, re.MULTILINE)
    refused = repo.bus("claim", "\x1b[31m")
    assert refused.code == 2
    assert "\x1b" not in refused.err


def test_bytes_that_are_no_text_are_refused(repo: Repo) -> None:
    done = subprocess.run(
        [os.fsencode(BUS), b"post", b"dev", b"\xff\xfe", b"--json"],
        capture_output=True,
        cwd=repo.path,
        env=KEPT,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "InvalidRequest"
    assert repo.bus("post", "dev", "-", stdin=b"\xff\xfe").code == 2


def test_texts_come_from_standard_input(repo: Repo) -> None:
    repo.ok("join", "pipes")
    repo.ok("post", "pipes", "-", stdin="erste\nzweite ✓\n".encode())
    assert repo.ok("read", "pipes")["messages"][-1]["text"] == "erste\nzweite ✓"
    task = repo.ok("task", "open", "long", "--body", "-", stdin=b"x" * 100_000)["task"]
    assert len(repo.ok("task", "show", task)["task"]["body"]) == 100_000
    repo.ok("call", "channel.post", "-", stdin=b'{"channel": "pipes", "text": "from JSON"}')
    assert repo.ok("read", "pipes", "--limit", "1")["messages"][0]["text"] == "from JSON"


def test_call_answers_errors_as_json(repo: Repo) -> None:
    done = repo.bus("call", "task.claim", '{"task": "t-nowhere"}')
    assert (done.code, done.json["error"]["code"]) == (4, "not_found")
    assert repo.bus("call", "task.claim", '{"tusk": 1}').json["error"]["kind"] == "InvalidRequest"


def test_a_reader_that_goes_away_is_no_error(repo: Repo) -> None:
    for words in ("log --from 1", "log --from 1 --json", "--help", "read dev --json"):
        with subprocess.Popen(
            [BUS, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=repo.path, env=KEPT
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            said = process.stderr.read()
            assert (process.wait(WAIT_S), said) in ((0, b""), (1, b"")), words


def test_the_log_is_listed_whole_when_a_range_is_asked_for(repo: Repo) -> None:
    task = repo.ok("task", "open", "counted", "--as", "atlas")["task"]
    repo.ok("claim", task, "--as", "atlas")
    head = repo.ok("call", "log.list", stdin=b"")["seq"]
    whole = repo.bus("log", "--from", "1", "--to", str(head), "--json").lines
    assert [line["seq"] for line in whole] == list(range(1, head + 1))
    assert [line["seq"] for line in repo.bus("log", "--from", "2", "--limit", "3", "--json").lines] == [2, 3, 4]
    newest = repo.bus("log", "--limit", "3", "--json").lines
    assert newest[0]["seq"] >= head - 2
    claims = repo.bus("log", "--from", "1", "--type", "task.claimed", "--json").lines
    assert {line["type"] for line in claims} == {"task.claimed"}


# --- what an agent has seen -----------------------------------------------------------------------------------------


def test_a_command_reads_what_the_one_before_it_wrote(repo: Repo) -> None:
    repo.ok("join", "seen", "--as", "atlas")
    for n in range(5):
        seq = repo.ok("post", "seen", str(n), "--as", "atlas")["seq"]
        assert int(repo.seen("atlas").read_text()) >= seq
        assert repo.ok("read", "seen", "--as", "atlas")["messages"][-1]["text"] == str(n)


def test_a_log_that_was_set_back_is_said_and_accepted(repo: Repo) -> None:
    repo.ok("who", "--as", "atlas")
    repo.seen("atlas").write_text("99999999\n")
    said = repo.bus("who", "--as", "atlas")
    assert said.code == 0
    assert said.err.startswith("warning: ")
    assert repo.bus("who", "--as", "atlas").err == ""
    repo.seen("atlas").write_text("nonsense")
    assert repo.bus("who", "--as", "atlas").err == ""
    repo.seen("atlas").unlink()
    repo.seen("atlas").mkdir()
    assert repo.bus("who", "--as", "atlas").err == "", "it is only a help, and never an error"
    repo.seen("atlas").rmdir()


# --- following ------------------------------------------------------------------------------------------------------


def test_following_shows_what_comes_until_interrupted(repo: Repo) -> None:
    repo.ok("join", "live", "--as", "nova")
    repo.ok("post", "live", "before", "--as", "atlas")
    with (
        listening(repo, "read", "live", "--follow", "--json") as channel,
        listening(repo, "log", "--follow", "--type", "channel.posted") as log,
        listening(repo, "inbox", "-f", "--ack", "--as", "nova") as inbox,
    ):
        assert json.loads(channel.line("before"))["text"] == "before"
        log.line("before")
        inbox.line("before")
        repo.ok("post", "live", "after", "--as", "atlas")
        channel.line("after")
        log.line(r"live  .*after")
        inbox.line("after")
        for follower in (channel, log):
            assert follower.interrupt() == Done(130, "", "")
        wait_until(lambda: repo.ok("inbox", "--as", "nova")["items"] == [])
        assert inbox.interrupt() == Done(130, "", "")


def test_following_survives_a_daemon_that_is_killed(fresh: Repo) -> None:
    fresh.bus("init")
    fresh.ok("join", "live")
    with listening(fresh, "channel", "read", "live", "--follow") as follower:
        fresh.ok("post", "live", "one")
        follower.line("one")
        os.kill(fresh.status()["daemon"], signal.SIGKILL)
        fresh.ok("post", "live", "two")
        follower.line("two")
        assert follower.interrupt().code == 130


def test_an_interrupt_while_waiting_is_quiet(repo: Repo) -> None:
    repo.ok("join", "silent")
    head = repo.ok("who")["seq"]
    with listening(repo, "read", "silent", "--since", str(head), "--wait", "30") as waiting:
        wait_until(lambda: _is_connected(waiting.process.pid))
        assert waiting.interrupt() == Done(130, "", "")


def _is_connected(pid: int) -> bool:
    return any(one.status == psutil.CONN_ESTABLISHED for one in psutil.Process(pid).net_connections())
