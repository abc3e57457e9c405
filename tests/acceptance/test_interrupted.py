"""`bus work`, interrupted: how a worker stops, how it loses a task, and what it survives."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.acceptance.commands import BUS, WAIT_S, Repo, fresh_repo, shared_repo
from tests.acceptance.support import wait_until
from tests.acceptance.yard import WAIT_FOR_GO, Yard, ended, events, gone

__all__ = ["fresh_repo", "shared_repo"]

pytestmark = pytest.mark.skipif(not Path(BUS).exists(), reason="the package is not installed")


@pytest.fixture
def yard(repo: Repo, tmp_path: Path) -> Yard:
    return Yard(repo, tmp_path)


# --- stopping -------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_gives_its_task_back(yard: Yard) -> None:
    yard.open("t", "u")
    # That it ends well when it is told to does not mean that the work is done.
    with yard.working("trap 'exit 0' TERM; echo $$ > pid; while :; do sleep 0.05; done") as worker:
        pid = yard.pid()
        worker.process.terminate()
        done = ended(worker)
    assert (done.code, done.err) == (0, "")
    assert [line["event"] for line in done.lines][-3:] == ["stopping", "released", "ended"]
    assert gone(pid)
    assert {yard.task(key)["state"] for key in ("t", "u")} == {"open"}
    assert "task.released" in yard.types()


def test_a_worker_may_finish_what_it_has_begun(yard: Yard) -> None:
    yard.open("t", "u")
    with yard.working("echo $$ > pid; " + WAIT_FOR_GO, "--on-stop", "finish") as worker:
        yard.pid()
        worker.process.terminate()
        worker.line('"stopping"')
        (yard.folder / "go").touch()
        done = ended(worker)
    assert done.code == 0
    assert [yard.task(key)["state"] for key in ("t", "u")] == ["done", "open"]


def test_a_second_signal_stops_at_once(yard: Yard) -> None:
    yard.open("t")
    with yard.working("echo $$ > pid; sleep 1000", "--on-stop", "finish") as worker:
        pid = yard.pid()
        worker.process.send_signal(signal.SIGINT)
        worker.line('"stopping"')
        worker.process.send_signal(signal.SIGINT)
        done = ended(worker)
    assert (done.code, done.err) == (130, "")
    assert gone(pid)
    assert yard.task("t")["state"] == "open"


def test_an_idle_worker_stops_at_once(yard: Yard) -> None:
    with yard.working("true") as worker:
        wait_until(lambda: psutil.Process(worker.process.pid).net_connections(), what="its connection")
        yard.open("t")
        worker.line('"done"')
        worker.process.terminate()
        assert ended(worker).code == 0


def test_a_command_that_ignores_the_end_is_killed(yard: Yard) -> None:
    yard.open("t")
    script = "trap '' TERM; (trap '' TERM; echo $$ > pid2; while :; do sleep 1; done) & echo $$ > pid; sleep 1000; wait"
    with yard.working(script, "--grace", "300ms") as worker:
        pids = [yard.pid(), yard.pid("pid2")]
        worker.process.terminate()
        assert ended(worker).code == 0
    assert all(gone(pid) for pid in pids)
    assert yard.task("t")["state"] == "open"


def test_a_worker_that_is_killed_leaves_no_command_behind(yard: Yard) -> None:
    yard.open("t")
    with yard.working(
        "trap '' TERM; echo $$ > pid; sleep 1000; sleep 1000", "--lease", "2s", "--grace", "300ms"
    ) as worker:
        pid = yard.pid()
        worker.process.kill()
        wait_until(lambda: gone(pid), what="the end of its command")
    assert events(yard.work("true", "--max", "1"))[1] == ("done", "t")


# --- losing ---------------------------------------------------------------------------------------------------------


def test_a_command_stops_when_its_task_is_cancelled(yard: Yard) -> None:
    yard.open("t", "u")
    with yard.working("echo $$ > pid.$BUS_TASK; sleep 1000") as worker:
        pid = yard.pid("pid.t")
        yard.ok("task", "cancel", "t", "--reason", "not needed")
        lost = json.loads(worker.line('"lost"'))
        assert (lost["task"], lost["why"]) == ("t", "it is cancelled")
        assert gone(pid)
        assert yard.pid("pid.u")
        worker.process.terminate()
        assert ended(worker).code == 0
    told = yard.ok("inbox", "--as", "nova")["items"]
    assert "owner cancelled task t, which you held: not needed" in [item["text"] for item in told]


def test_a_command_stops_when_somebody_else_holds_its_task(yard: Yard) -> None:
    yard.ok("who", "--as", "atlas")
    yard.open("t")
    with yard.working("echo $$ > pid; sleep 1000", "--max", "1") as worker:
        pid = yard.pid()
        yard.ok("handoff", "t", "atlas", "--direct", "--as", "nova")
        assert json.loads(worker.line('"lost"'))["why"] == "it is claimed, held by atlas"
        assert ended(worker).code == 0
    assert gone(pid)
    assert yard.task("t")["owner"] == "atlas"


def test_a_command_does_not_outlive_the_cap(fresh: Repo, tmp_path: Path) -> None:
    fresh.bus("init")
    (fresh.home / "config.toml").write_text("[lease]\ndefault_s = 2\ncap_s = 10\n")
    folder = tmp_path / "yard"
    folder.mkdir()
    yard = Yard(fresh, folder)
    yard.open("t")
    done = yard.work("echo $$ > pid; sleep 1000", "--max", "1", "--lease", "3s", "--grace", "3s")
    assert events(done) == [("took", "t"), ("failed", "t"), ("ended", None)]
    assert gone(yard.pid())
    assert yard.task("t")["reason"].startswith("it was stopped because its claim reached its cap")
    assert "task.renewed" in yard.types()


# --- surviving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["daemon", "server"])
def test_a_worker_survives_the_end_of_a_process_of_the_bus(fresh: Repo, tmp_path: Path, kind: str) -> None:
    fresh.bus("init")
    folder = tmp_path / "yard"
    folder.mkdir()
    yard = Yard(fresh, folder)
    yard.open("t")
    with yard.working("echo $$ > pid; " + WAIT_FOR_GO) as worker:
        yard.pid()
        os.kill(fresh.status()[kind], signal.SIGKILL)
        (folder / "go").touch()
        assert json.loads(worker.line('"done"'))["task"] == "t"
        os.kill(wait_until(lambda: fresh.status()[kind]), signal.SIGKILL)
        yard.open("u")
        assert json.loads(worker.line('"done"'))["task"] == "u"
        worker.process.terminate()
        assert ended(worker).code == 0
    assert [kind for kind in yard.types() if kind in ("task.claimed", "task.completed")] == [
        "task.claimed",
        "task.completed",
    ] * 2


def test_nobody_has_to_listen_to_a_worker(yard: Yard) -> None:
    yard.open("t", "u")
    with yard.working("true", "--idle-exit", "100ms") as worker:
        assert worker.process.stdout is not None
        worker.process.stdout.close()
        assert worker.process.wait(WAIT_S) == 0
        assert worker.process.stderr is not None
        assert worker.process.stderr.read() == b""
    assert {yard.task(key)["state"] for key in ("t", "u")} == {"done"}
