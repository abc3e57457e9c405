"""Starting and stopping: whatever is killed in whatever order, a home has one supervisor, one server and one daemon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from bus import config, files, home, lifecycle, server
from bus.errors import BusError, NotAllowed, NotFound, Refused, Unavailable
from bus.subjects import log_subject
from bus.transport import connect
from tests.acceptance.support import copy_live

MakeBus = Callable[..., Any]
WaitUntil = Callable[..., None]
Problem = Callable[[type[BusError], Any], BusError]


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are gone (or zombies that nobody collects)."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.005)


def assert_one_of_each(bus: Any, wait_until: WaitUntil) -> None:
    wait_until(lambda: len(bus.daemons()) == 1 and lifecycle.status(bus.home).daemon is not None)
    status = lifecycle.status(bus.home)
    assert bus.servers() == [status.server]
    assert bus.supervisors() == [status.supervisor]
    assert bus.daemons() == [status.daemon]


class TestUp:
    def test_up_and_down(self, make_bus: MakeBus, wait_until: WaitUntil) -> None:
        bus = make_bus()
        assert lifecycle.status(bus.home).supervisor is None
        found = bus.up()
        assert bus.up() == found
        assert_one_of_each(bus, wait_until)
        status = lifecycle.status(bus.home)
        assert (status.url, status.version, status.restarts) == (found.url, "2.15.1", 0)
        assert status.store_bytes > 0
        assert status.uptime_s is not None
        assert 0 <= status.uptime_s < 60
        assert lifecycle.down(bus.home)
        assert not lifecycle.down(bus.home)
        assert bus.servers() == bus.supervisors() == bus.daemons() == []
        assert not any((bus.home.run / name).exists() for name in lifecycle.RUN_FILES)
        # Clients find the server again where it was.
        assert bus.up().url == found.url

    def test_everything_it_makes_is_private(self, make_bus: MakeBus) -> None:
        bus = make_bus()
        bus.up()
        lifecycle.down(bus.home)
        loose = [path for path in bus.home.path.rglob("*") if path.stat().st_mode & 0o077]
        assert [path.name for path in loose if not path.name.startswith("nats-server.log")] == ["config.toml"]

    def test_the_log_is_there_and_stays(self, make_bus: MakeBus) -> None:
        bus = make_bus("log.max_bytes = 50_000_000")

        async def publish() -> tuple[int, int]:
            creds = bus.home.keyring.ensure_daemon()
            async with connect(bus.up().url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection:
                ack = await connection.request(log_subject("ns", "task", 7), b"{}")
                info = await connection.request("$JS.API.STREAM.INFO.LOG", b"")
            return json.loads(ack.data)["seq"], json.loads(info.data)["config"]["max_bytes"]

        assert anyio.run(publish) == (1, 50_000_000)
        kill(*bus.servers(), *bus.supervisors())
        assert anyio.run(publish) == (2, 50_000_000)

    @pytest.mark.parametrize("callers", [2, 8])
    def test_many_at_once_start_one(self, make_bus: MakeBus, wait_until: WaitUntil, callers: int) -> None:
        bus = make_bus()
        script = (
            "import sys; from pathlib import Path; from bus import home, lifecycle;"
            "print(lifecycle.ensure_up(home.open_home(Path(sys.argv[1])), daemon=sys.argv[2:]).pid)"
        )
        daemon = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        command = [sys.executable, "-c", script, str(bus.home.path), *daemon]
        environment = config.child_environment()
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(callers)]
        pids = {int(process.communicate(timeout=30)[0]) for process in processes}
        assert [process.returncode for process in processes] == [0] * callers
        assert pids == set(bus.servers())
        assert_one_of_each(bus, wait_until)


class TestKilled:
    @pytest.mark.parametrize(
        "victims",
        [
            "supervisor",
            "server",
            "daemon",
            "supervisor server",
            "server supervisor",
            "daemon supervisor",
            "supervisor up server",
        ],
    )
    def test_in_any_order_there_is_one_of_each(self, make_bus: MakeBus, wait_until: WaitUntil, victims: str) -> None:
        bus = make_bus()
        bus.up()
        assert_one_of_each(bus, wait_until)
        status = lifecycle.status(bus.home)
        for victim in victims.split():
            if victim == "up":
                bus.up()
            elif victim == "server":
                kill(*bus.servers())
            else:
                kill(getattr(status, victim))
        if victims == "daemon":
            wait_until(lambda: lifecycle.status(bus.home).daemon not in (None, status.daemon))
        bus.up()
        assert_one_of_each(bus, wait_until)
        assert "supervisor" not in victims or bus.supervisors() != [status.supervisor]

    def test_a_server_that_outlives_its_supervisor_keeps_the_store(self, make_bus: MakeBus) -> None:
        bus = make_bus()
        bus.up()
        kill(*bus.supervisors())
        assert len(bus.servers()) == 1
        assert not files.is_locked(bus.home.supervisor_lock)
        with pytest.raises(Unavailable) as caught:
            files.take_lock(bus.home.store_lock)
        assert caught.value.code == "locked"
        assert lifecycle.down(bus.home)
        os.close(files.take_lock(bus.home.store_lock))

    def test_the_daemon_ends_with_its_supervisor(self, make_bus: MakeBus, wait_until: WaitUntil) -> None:
        bus = make_bus()
        bus.up()
        assert_one_of_each(bus, wait_until)
        kill(*bus.supervisors())
        wait_until(lambda: bus.daemons() == [])

    def test_no_second_server_on_a_store_that_is_in_use(self, make_bus: MakeBus) -> None:
        bus = make_bus()
        lock = files.take_lock(bus.home.store_lock)
        with pytest.raises(Unavailable) as caught:
            bus.up()
        assert caught.value.code == "store_in_use"
        assert bus.servers() == []
        os.close(lock)
        bus.up()

    def test_no_second_supervisor(self, make_bus: MakeBus) -> None:
        bus = make_bus()
        bus.up()
        command = [sys.executable, "-P", "-m", "cli.supervisor", "--home", str(bus.home.path)]
        done = subprocess.run(command, capture_output=True, env=config.child_environment(), check=False, timeout=30)
        assert json.loads(done.stdout)["problem"]["code"] == "locked"
        assert len(bus.supervisors()) == len(bus.servers()) == 1


class TestDown:
    def test_the_daemon_may_finish_while_the_server_runs(self, make_bus: MakeBus, wait_until: WaitUntil) -> None:
        bus = make_bus()
        script = """
import json, pathlib, signal, socket, sys
run = pathlib.Path(sys.argv[-1], "run")
def finish(*_):
    port = int(json.loads((run / "server.json").read_text())["url"].rpartition(":")[2])
    print("last words", socket.create_connection(("127.0.0.1", port)).recv(4), "x" * 200_000, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
print("ready", flush=True)
signal.pause()
"""
        bus.up(daemon=[sys.executable, "-c", script])
        log = bus.home.logs / "daemon.log"
        wait_until(lambda: "ready" in server.tail(log))
        lifecycle.down(bus.home)
        assert "last words b'INFO'" in log.read_text()
        assert log.read_text().endswith("x\n")

    def test_one_that_does_not_finish_is_killed(self, make_bus: MakeBus, wait_until: WaitUntil) -> None:
        bus = make_bus("process.stop_timeout_s = 0.3")
        script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
        script += "while True: signal.pause()"
        bus.up(daemon=[sys.executable, "-c", script])
        wait_until(lambda: "deaf" in server.tail(bus.home.logs / "daemon.log"))
        assert lifecycle.down(bus.home)
        assert bus.daemons() == bus.servers() == []

    def test_a_frozen_supervisor_is_killed_and_what_it_left_is_stopped(
        self, make_bus: MakeBus, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bus = make_bus()
        bus.up()
        assert_one_of_each(bus, wait_until)
        monkeypatch.setattr(lifecycle, "DOWN_MARGIN_S", 0.5)
        os.kill(bus.supervisors()[0], signal.SIGSTOP)
        assert lifecycle.down(bus.home, timeout_s=0.5)
        assert bus.supervisors() == bus.servers() == bus.daemons() == []


class TestDaemon:
    def test_its_words_are_logged_and_rotated_and_it_is_started_again(
        self, make_bus: MakeBus, wait_until: WaitUntil
    ) -> None:
        bus = make_bus("process.log_file_bytes = 1_000_000")
        bus.up(daemon=[sys.executable, "-c", "print('é' * 300_000); import sys; sys.exit('broken')"])
        wait_until(lambda: (bus.home.logs / "daemon.log.1").exists())
        wait_until(lambda: lifecycle.status(bus.home).restarts >= 2)
        assert "broken" in server.tail(bus.home.logs / "daemon.log") + server.tail(bus.home.logs / "daemon.log.1")
        assert "the daemon ended with status 1" in server.tail(bus.home.logs / "supervisor.log")


class TestPlaces:
    def test_a_copy_gets_a_server_of_its_own_after_adoption(self, make_bus: MakeBus, tmp_path: Path) -> None:
        bus = make_bus()
        original = bus.up()
        copy_live(bus.home.path, tmp_path / "copy")
        with pytest.raises(Refused, match="bus adopt"):
            home.open_home(tmp_path / "copy")
        copy = make_bus(home=home.adopt(tmp_path / "copy"))
        assert copy.up().port != original.port
        assert server.live(bus.home) == original
        assert len(bus.servers()) == len(copy.servers()) == 1

    def test_a_taken_port_means_another(self, make_bus: MakeBus) -> None:
        bus = make_bus()
        first = bus.up()
        lifecycle.down(bus.home)
        with socket.create_server((server.HOST, first.port)):
            second = bus.up()
        assert second.port != first.port
        assert bus.up() == second

    def test_a_port_that_is_taken_while_running(self, make_bus: MakeBus, wait_until: WaitUntil) -> None:
        """The supervisor goes to another port and takes the daemon along."""
        bus = make_bus()
        first = bus.up()
        assert_one_of_each(bus, wait_until)
        daemon = lifecycle.status(bus.home).daemon
        supervisor = psutil.Process(bus.supervisors()[0])
        supervisor.suspend()
        kill(*bus.servers())
        wait_until(lambda: server._is_free(first.port))
        with socket.create_server((server.HOST, first.port)):
            supervisor.resume()
            wait_until(lambda: server.live(bus.home) is not None)
            assert bus.up().port != first.port
            wait_until(lambda: lifecycle.status(bus.home).daemon not in (None, daemon))

    def test_a_stranger_on_the_port_is_not_our_server(self, make_bus: MakeBus) -> None:
        bus, other = make_bus(), make_bus()
        bus.up()
        files.write_atomic(other.home.run / "server.json", (bus.home.run / "server.json").read_bytes())
        assert server.live(other.home) is None
        assert other.up().port != bus.up().port

    @pytest.mark.slow
    def test_a_home_whose_files_are_tidied_away_goes_on_and_one_that_is_gone_ends(
        self, make_bus: MakeBus, wait_until: WaitUntil
    ) -> None:
        bus = make_bus()
        found = bus.up()
        assert_one_of_each(bus, wait_until)
        shutil.rmtree(bus.home.run)
        wait_until(lambda: server.live(bus.home) == found)
        wait_until(lambda: shutil.rmtree(bus.home.path, ignore_errors=True) or not bus.home.path.exists())
        wait_until(lambda: not (bus.supervisors() or bus.servers() or bus.daemons()))


class TestProblems:
    @pytest.fixture
    def problem(self, wait_until: WaitUntil) -> Callable[[type[BusError], Any], BusError]:
        """`problem(kind, bus)` is the error with which it does not start; nothing is left running."""

        def start(kind: type[BusError], bus: Any) -> BusError:
            with pytest.raises(kind) as caught:
                bus.up()
            wait_until(lambda: not (bus.servers() or bus.supervisors()))
            return caught.value

        return start

    def test_a_server_of_the_wrong_version(
        self, problem: Problem, make_bus: MakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = tmp_path / "nats-server"
        fake.write_text("#!/bin/sh\necho 'nats-server: v2.10.25'\n")
        fake.chmod(0o700)
        monkeypatch.setenv("BUS_NATS_SERVER", str(fake))
        error = problem(Unavailable, make_bus())
        assert error.code == "server_version"
        assert "v2.10.25" in str(error)
        monkeypatch.setenv("BUS_NATS_SERVER", str(tmp_path / "none"))
        assert problem(NotFound, make_bus()).code == "no_server_binary"

    def test_a_server_that_dies_at_once_is_quoted(
        self, problem: Problem, make_bus: MakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = tmp_path / "nats-server"
        fake.write_text(
            "#!/bin/sh\n[ $1 = --version ] && echo 'nats-server: v2.15.1' && exit\necho 'no luck today'; exit 3\n"
        )
        fake.chmod(0o700)
        monkeypatch.setenv("BUS_NATS_SERVER", str(fake))
        error = problem(Unavailable, make_bus())
        assert error.code == "server_start"
        assert "no luck today" in str(error)
        assert "status 3" in str(error)

    def test_one_that_never_answers(
        self, problem: Problem, make_bus: MakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = tmp_path / "nats-server"
        fake.write_text("#!/bin/sh\n[ $1 = --version ] && echo 'nats-server: v2.15.1' && exit\nexec sleep 60\n")
        fake.chmod(0o700)
        monkeypatch.setenv("BUS_NATS_SERVER", str(fake))
        error = problem(Unavailable, make_bus("process.start_timeout_s = 0.5"))
        assert "no answer" in str(error)

    def test_nothing_in_time(self, make_bus: MakeBus) -> None:
        bus = make_bus()
        (bus.home.logs / "nats-server.log").write_text("[ERR] what went wrong\n")
        with pytest.raises(Unavailable, match="what went wrong") as caught:
            bus.up(timeout_s=0)
        assert caught.value.code == "not_up"

    def test_a_bad_config_file(self, make_bus: MakeBus) -> None:
        bus = make_bus("process.stop_timeuot_s = 1")
        with pytest.raises(BusError, match=r"unknown key `process\.stop_timeuot_s`") as caught:
            bus.up()
        assert caught.value.code == "bad_config"

    def test_a_store_that_is_no_directory(self, problem: Problem, make_bus: MakeBus) -> None:
        bus = make_bus()
        shutil.rmtree(bus.home.path / "accounts")
        (bus.home.path / "accounts").touch()
        assert "accounts" in str(problem(Unavailable, bus))

    def test_logs_that_cannot_be_written(self, problem: Problem, make_bus: MakeBus) -> None:
        bus = make_bus()
        shutil.rmtree(bus.home.logs)
        bus.home.logs.touch()
        assert problem(NotAllowed, bus).code == "no_permission"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_home_that_cannot_be_written(self, problem: Problem, make_bus: MakeBus) -> None:
        bus = make_bus()
        bus.home.run.chmod(0o500)
        assert problem(NotAllowed, bus).code == "no_permission"
        bus.home.run.chmod(0o700)
