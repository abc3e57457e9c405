"""`bus work` with real processes: what commands get and leave behind, and which tasks a worker takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.commands import BUS, KEPT, WAIT_S, Repo, fresh_repo, shared_repo
from tests.acceptance.support import wait_until
from tests.acceptance.yard import WAIT_FOR_GO, Yard, ended, events, gone

__all__ = ["fresh_repo", "shared_repo"]

pytestmark = pytest.mark.skipif(not Path(BUS).exists(), reason="the package is not installed")


@pytest.fixture
def yard(repo: Repo, tmp_path: Path) -> Yard:
    return Yard(repo, tmp_path)


# --- what a command gets and leaves ---------------------------------------------------------------------------------


def test_a_command_gets_its_task_and_completes_it(yard: Yard) -> None:
    yard.open("t", priority="7")
    script = 'cat > task.json; env > env; printf \'{"result": "merged", "refs": [1, 2]}\' > "$BUS_RESULT"; echo noise'
    done = yard.work(script, "--max", "1")
    assert done.code == 0
    assert events(done) == [("took", "t"), ("done", "t"), ("ended", None)]
    claim = done.lines[0]["fence"]
    given = json.loads((yard.folder / "task.json").read_text())
    assert (given["task"], given["title"], given["priority"], given["fence"]) == ("t", "do t", 7, claim)
    environment = dict(line.split("=", 1) for line in (yard.folder / "env").read_text().splitlines() if "=" in line)
    assert environment["BUS_TASK"] == "t"
    assert environment["BUS_FENCE"] == f"t:{claim}"
    assert (environment["BUS_AGENT"], environment["BUS_NAMESPACE"]) == ("nova", yard.space)
    assert environment["BUS_HOME"] == str(yard.repo.home)
    task = yard.task("t")
    assert (task["state"], task["result"], task["refs"]) == ("done", "merged", [1, 2])
    assert not Path(environment["BUS_RESULT"]).parent.exists()


def test_a_result_is_a_text_or_else_the_output(yard: Yard) -> None:
    yard.open("text", "output", "odd")
    script = """case "$BUS_TASK" in
        text) printf 'as it is\\n' > "$BUS_RESULT"; echo noise;;
        odd) printf '{"verdict": 1}' > "$BUS_RESULT";;
        output) echo one; echo two >&2;;
    esac"""
    done = yard.work(script, "--max", "3")
    assert done.code == 0
    assert [yard.task(key)["result"] for key in ("text", "output", "odd")] == ["as it is", "one\ntwo", '{"verdict": 1}']


def test_a_command_writes_in_the_name_of_its_task(yard: Yard) -> None:
    yard.ok("join", "dev", "--as", "atlas")
    seq = yard.ok("post", "dev", "the build is red", "--as", "atlas")["seq"]
    key = yard.ok("task", "open", "--from-message", str(seq), "--as", "atlas")["task"]
    script = f'{BUS} post "$BUS_CHANNEL" "half way" --fence "$BUS_FENCE" && echo it was the cache'
    assert events(yard.work(script, "--max", "1"))[1] == ("done", key)
    said = [(row["agent"], row["text"]) for row in yard.ok("read", "dev")["messages"]]
    assert said[1] == ("nova", "half way")
    assert said[2] == ("nova", f"task {key}: the build is red\n{said[2][1].splitlines()[1]}\nit was the cache")
    assert len(said) == 3


def test_a_failure_is_tried_again_while_there_are_retries(yard: Yard) -> None:
    yard.open("t", retries="2")
    done = yard.work("echo no luck; exit 3", "--idle-exit", "200ms")
    assert done.code == 0
    assert [line.get("state") for line in done.lines if line["event"] == "failed"] == ["open", "open", "failed"]
    assert [line["exit"] for line in done.lines if line["event"] == "failed"] == [3, 3, 3]
    task = yard.task("t")
    assert (task["state"], task["failures"], task["reason"]) == ("failed", 3, "exit 3\nno luck")


def test_a_delayed_retry_is_waited_for(yard: Yard) -> None:
    yard.open("t", retries="1", retry_delay="1s")
    done = yard.work("test -e tried || { touch tried; kill -9 $$; }", "--max", "2")
    assert [line.get("state") for line in done.lines if "state" in line] == ["failed", "done"]
    assert done.lines[1]["retry_at"]
    assert yard.types().count("task.retried") == 1
    assert [line["reason"] for line in [yard.task("t")]] == ["ended by SIGKILL"]


def test_what_a_command_leaves_running_is_ended_with_it(yard: Yard) -> None:
    yard.open("t")
    done = yard.work("(trap '' TERM; sleep 1000) & echo $! > pid; exit 0", "--max", "1", "--grace", "200ms")
    assert events(done)[1] == ("done", "t")
    assert gone(yard.pid())


def test_much_output_is_few_short_messages(yard: Yard) -> None:
    yard.ok("channel", "open", "logs")
    yard.open("t")
    script = "seq 1 400000; echo the end"
    done = yard.work(script, "--max", "1", "--channel", "logs")
    assert events(done)[1] == ("done", "t")
    texts = [row["text"] for row in yard.ok("read", "logs")["messages"]]
    assert 1 <= len(texts) <= 5
    assert all(len(text) < 2_500 for text in texts)
    assert texts[-1].endswith("\nthe end")
    assert "bytes before this" in texts[-1]
    assert yard.task("t")["result"].endswith("\nthe end")
    assert len(yard.task("t")["result"]) < 2_500


# --- which tasks, and how many --------------------------------------------------------------------------------------


def test_a_worker_takes_what_fits_and_so_many(yard: Yard) -> None:
    yard.open("plain")
    yard.open("one", "two", "three", label="red")
    yard.open("hard", label="red", skill="sql", priority="9")
    done = yard.work("true", "--max", "2", "--label", "red")
    assert events(done) == [("took", "one"), ("done", "one"), ("took", "two"), ("done", "two"), ("ended", None)]
    done = yard.work("true", "--idle-exit", "200ms", "--label", "red", "--skill", "sql")
    assert [task for event, task in events(done) if event == "took"] == ["hard", "three"]
    assert events(done)[-2:] == [("idle", None), ("ended", None)]
    assert yard.task("plain")["state"] == "open"


def test_a_waiting_worker_takes_what_comes(yard: Yard) -> None:
    yard.open("other")
    yard.ok("claim", "other", "--as", "atlas")
    yard.open("needy", needs="other")
    with yard.working("true") as worker:
        wait_until(lambda: yard.ok("who")["agents"] and "nova" in [one["agent"] for one in yard.ok("who")["agents"]])
        yard.open("new")
        assert json.loads(worker.line('"done"'))["task"] == "new"
        yard.ok("done", "other", "--as", "atlas")
        assert json.loads(worker.line('"done"'))["task"] == "needy"
        worker.process.terminate()
        assert ended(worker).code == 0


def test_several_run_at_once_and_never_more(yard: Yard) -> None:
    keys = [f"t{n}" for n in range(6)]
    yard.open(*keys)
    # Each waits for two others: with fewer than three at once this would never end.
    script = """touch began.$BUS_TASK
        until [ "$(ls began.* | wc -l)" -ge 3 ]; do sleep 0.05; done"""
    done = yard.work(script, "--parallel", "3", "--idle-exit", "100ms")
    assert done.code == 0
    assert sorted(task for event, task in events(done) if event == "done") == keys
    held = most = 0
    for kind in yard.types():
        held += {"task.claimed": 1, "task.completed": -1}.get(kind, 0)
        most = max(most, held)
    assert most == 3


def test_an_idle_worker_waits_for_its_own_commands(yard: Yard) -> None:
    yard.open("t")
    with yard.working("echo $$ > pid; " + WAIT_FOR_GO, "--parallel", "2", "--idle-exit", "100ms") as worker:
        yard.pid()
        yard.open("u")
        worker.line('"took".*"u"')
        (yard.folder / "go").touch()
        done = ended(worker)
    assert done.code == 0
    assert {yard.task(key)["state"] for key in ("t", "u")} == {"done"}


def test_two_workers_do_everything_once(yard: Yard) -> None:
    keys = [f"t{n}" for n in range(12)]
    yard.open(*keys)
    options = ("--parallel", "2", "--idle-exit", "100ms")
    with yard.working('echo "$BUS_TASK" >> all', *options) as other:
        assert yard.work('echo "$BUS_TASK" >> all', *options).code == 0
        assert ended(other).code == 0
    assert sorted((yard.folder / "all").read_text().split()) == sorted(keys)
    assert yard.types().count("task.claimed") == yard.types().count("task.completed") == len(keys)


# --- bad usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "--exec is missing"),
        (("--exec", " "), 2, "--exec is missing"),
        (("--exec", "echo 'x"), 2, "bad --exec"),
        (("--exec", "no-such-program-here x"), 4, "no such program"),
        (("--exec", "true", "--parallel", "0"), 2, "bad --parallel"),
        (("--exec", "true", "--max", "x"), 2, "bad --max"),
        (("--exec", "true", "--idle-exit", "-1s"), 2, "bad --idle-exit"),
        (("--exec", "true", "--on-stop", "die"), 2, "bad --on-stop"),
        (("--exec", "true", "--lease", "0s"), 2, "bad --lease"),
        (("--exec", "true", "--channel", "A B"), 2, "channel"),
    ],
)
def test_bad_usage_is_explained(repo: Repo, words: tuple[str, ...], code: int, said: str) -> None:
    done = repo.bus("work", "--as", "nova", *words)
    assert (done.code, done.out.strip()) in ((code, ""), (code, "ended  tasks 0"))
    assert said in done.err


# --- tasks between real processes -----------------------------------------------------------------------------------


def test_a_message_that_many_make_a_task_of_is_one_task(yard: Yard) -> None:
    yard.ok("join", "dev", "--as", "atlas")
    seq = yard.ok("post", "dev", "look into this", "--as", "atlas")["seq"]
    words = ("task", "open", "--from-message", str(seq), "--json", *yard.common)
    asking = [
        subprocess.Popen([BUS, *words, "--as", f"a{n}"], stdout=subprocess.PIPE, cwd=yard.folder, env=KEPT)
        for n in range(6)
    ]
    told = [json.loads(process.communicate(timeout=WAIT_S)[0]) for process in asking]
    assert {one["task"] for one in told} == {f"m-{seq}"}
    assert len({one["seq"] for one in told}) == 1
    assert yard.types().count("task.opened") == 1
