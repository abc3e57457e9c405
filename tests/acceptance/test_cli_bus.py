"""The bus itself on the command line: init, up, down, status, doctor, adopt; the shell; what a command costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.commands import BUS, KEPT, Repo, fresh_repo, shared_repo
from tests.acceptance.support import copy_live, wait_until

__all__ = ["fresh_repo", "shared_repo"]

pytestmark = pytest.mark.skipif(not Path(BUS).exists(), reason="the package is not installed")


# --- the bus itself -------------------------------------------------------------------------------------------------


def test_init_says_what_it_did_and_can_be_repeated(fresh: Repo) -> None:
    assert fresh.bus("post", "dev", "hi").code == 4
    assert "bus init" in fresh.bus("post", "dev", "hi").err
    assert not fresh.home.exists()
    made = fresh.bus("init", "--owner", "boss", "--tenant", "acme")
    assert made.code == 0
    assert str(fresh.home) in made.out
    again = fresh.bus("init")
    assert again.code == 0
    assert "already" in again.out
    assert fresh.ok("init") == {
        "home": str(fresh.home),
        "created": False,
        "tenant": "acme",
        "owner": "boss",
        "namespace": "repo",
    }
    assert fresh.bus("init", "--owner", "other").code == 3
    assert not fresh.alive()


def test_up_down_and_status(fresh: Repo) -> None:
    assert fresh.bus("status").code == 4
    fresh.bus("init")
    down = fresh.bus("status", "--json")
    assert (down.code, down.json["up"]) == (6, False)
    assert fresh.ok("down")["stopped"] is False
    assert fresh.ok("up")["started"] is True
    assert fresh.ok("up")["started"] is False
    head = fresh.ok("join", "dev")["seq"]
    wait_until(lambda: (fresh.status()["position"] or 0) >= head, what="the daemon's report")
    status = fresh.status()
    assert status["up"] is True
    assert status["leading"] is True
    assert (status["lag_seq"], status["skipped"]) == (0, 0)
    assert {status["supervisor"], status["server"], status["daemon"]} <= set(fresh.alive())
    text = fresh.bus("status")
    assert text.code == 0
    assert f"daemon {status['daemon']}" in text.out
    assert fresh.ok("down")["stopped"] is True
    assert not fresh.alive()
    assert fresh.bus("status").code == 6
    assert fresh.ok("read", "dev")["messages"] == []


def test_doctor_finds_what_is_right_and_what_is_wrong(fresh: Repo) -> None:
    assert fresh.bus("doctor").code == 1
    fresh.bus("init")
    stopped = fresh.bus("doctor", "--json")
    assert stopped.code == 0
    assert {check["name"]: check["verdict"] for check in stopped.json["checks"]}["bus"] == "warn"
    assert not fresh.alive()
    fresh.ok("who")
    report = fresh.bus("doctor", "--json")
    assert report.code == 0, report
    verdicts = {check["name"]: check["verdict"] for check in report.json["checks"]}
    assert {
        "server",
        "home",
        "file system",
        "disk",
        "bus",
        "clock",
        "answer",
        "log settings",
        "events",
        "quota",
    } == set(verdicts)
    assert "fail" not in verdicts.values()
    fresh.home.chmod(0o755)
    wrong = fresh.bus("doctor")
    assert wrong.code == 1
    assert "chmod" in wrong.out
    fresh.home.chmod(0o700)


def test_a_copied_home_is_refused_until_it_is_adopted(fresh: Repo, tmp_path: Path) -> None:
    fresh.bus("init")
    copy = tmp_path / "copy"
    copy_live(fresh.home, copy)
    refused = fresh.bus("who", "--home", str(copy))
    assert refused.code == 3
    assert "adopt" in refused.err
    assert fresh.bus("adopt", "--home", str(copy)).code == 0
    assert fresh.bus("status", "--home", str(copy)).code == 6


def test_the_home_is_found_by_variable_and_option(repo: Repo, tmp_path: Path) -> None:
    elsewhere = {"BUS_HOME": str(repo.home), "BUS_AGENT": "nova", "BUS_NAMESPACE": "elsewhere"}
    seq = repo.ok("join", "here", env=elsewhere, cwd=tmp_path)["seq"]
    event = repo.ok("log", "show", str(seq))["event"]
    assert (event["namespace"], event["agent"]) == ("elsewhere", "nova")
    assert repo.ok("channel", "list", "--home", str(repo.home), "--namespace", "elsewhere", cwd=tmp_path)["channels"]


# --- the shell ------------------------------------------------------------------------------------------------------


def complete(repo: Repo, shell: str, line: str) -> list[str]:
    words = line.split(" ")
    env = {"_BUS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, "COMP_WORDS": line}
    env |= {"COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return re.findall(r"[-\w.]+", repo.bus(env=env).out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_without_a_bus(fresh: Repo, shell: str) -> None:
    assert {"post", "task", "doctor"} <= set(complete(fresh, shell, "bus "))
    assert "claim" in complete(fresh, shell, "bus task cl")
    assert "--lease" in complete(fresh, shell, "bus claim --l")
    assert "task.claim" in complete(fresh, shell, "bus call task.c")
    assert "auditor" in complete(fresh, shell, "bus agent grant nova a")
    assert not fresh.home.exists()
    assert not fresh.alive()


def test_the_shell_completes_agents(repo: Repo) -> None:
    repo.ok("who", "--as", "nova")
    assert complete(repo, "bash", "bus who --as n") == ["nova"]
    assert complete(repo, "bash", "bus dm post no") == ["nova"]


def test_completion_can_be_installed(fresh: Repo, tmp_path: Path) -> None:
    env = KEPT | {"HOME": str(tmp_path)}
    shown = subprocess.run(
        ["bash", "-c", f"{BUS} --show-completion; true"], capture_output=True, text=True, env=env, check=True
    )
    assert "_BUS_COMPLETE=complete_bash" in shown.stdout
    done = subprocess.run(
        ["bash", "-c", f"{BUS} --install-completion; true"], capture_output=True, text=True, env=env, check=True
    )
    assert "bash completion installed" in done.stdout
    assert (tmp_path / ".bash_completions" / "bus.sh").exists()


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_post_imports_no_database_and_little_else(repo: Repo) -> None:
    words = ["post", "dev", "light", "--as", "atlas"]
    program = f"import sys; from cli.main import main; main({words!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=repo.path, env=KEPT, check=True
    )
    imported = set(done.stdout.splitlines()[-1].split())
    assert "nats" in imported
    databases = {"duckdb", "projections", "usearch", "numpy"}
    slow = {"pydantic", "psutil", "typer", "rich", "anyio", "nats.js", "importlib.metadata", "stringprep"}
    assert imported.isdisjoint(databases | slow)


def test_debug_shows_where_it_happened(repo: Repo) -> None:
    assert "Traceback" in repo.bus("claim", "t-nowhere", "--debug").err
    assert "Traceback" in repo.bus("claim", "t-nowhere", env={"BUS_DEBUG": "1"}).err
    assert "Traceback" not in repo.bus("claim", "t-nowhere").err
