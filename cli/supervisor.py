"""The supervisor: the process that keeps nats-server and the daemon of one home alive.

    python -m cli.supervisor --home H [--daemon COMMAND …]

Commands do not run this themselves: `bus/lifecycle.py` starts and stops it.

Rules:
* It locks the home, then stops whatever a killed supervisor left behind, then locks the store, and only then starts a
  server, which inherits the lock of the store.
* `run/server.json` names a server only once it can be used: account and streams are in place.
* It sleeps until a child ends, a signal comes or the daemon writes to its log. Every few seconds it looks whether its
  home is still there: nobody else would stop the server of a repository that was deleted.
* The operator's keys are read when the server is started, and not kept. Nothing here knows what the daemon does.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType

import anyio
import msgspec

from bus import config, server
from bus.clock import SystemClock, from_ns
from bus.errors import BusError, Defect, Unavailable
from bus.files import take_lock, write_atomic
from bus.home import Home, open_home
from bus.lifecycle import RUN_FILES, SERVER_STUCK, Report, Supervised, down, ensure_up, status, stop_leftovers
from bus.server import Server

LOCK_TIMEOUT_S = 2.0
STORE_TIMEOUT_S = 5.0
SERVER_STOP_S = 5.0
CHECK_S = 5.0
BACKOFF_MIN_S, BACKOFF_MAX_S, STABLE_S = 0.1, 10.0, 60.0
LOG_FILES = 3

__all__ = ["Supervisor", "down", "ensure_up", "main", "status"]

_log = logging.getLogger("supervisor")


class Backoff:
    """When a child that ended may be started again: at once after a long life, else after a doubling delay."""

    def __init__(self) -> None:
        self.due = 0.0
        self._delay_s = 0.0
        self._started = 0.0

    def started(self) -> None:
        self._started = time.monotonic()

    def ended(self) -> None:
        now = time.monotonic()
        longer_s = min(max(2 * self._delay_s, BACKOFF_MIN_S), BACKOFF_MAX_S)
        self._delay_s = 0.0 if now - self._started > STABLE_S else longer_s
        self.due = now + self._delay_s


class Supervisor:
    """Server and daemon of one home. `command` is the daemon's command line."""

    def __init__(self, home: Home, settings: config.Settings, command: Sequence[str]) -> None:
        self._home = home
        self._settings = settings
        self._command = list(command)
        self._inode = home.path.stat().st_ino
        self._store_lock = -1
        self._server: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._known: Server | None = None
        self._url = ""
        self._server_backoff, self._daemon_backoff = Backoff(), Backoff()
        self._daemon_log = _Output(home.logs / "daemon.log", settings.file.process.log_file_bytes)
        self._supervised = Supervised(
            pid=os.getpid(), started=from_ns(SystemClock().server_ns()), arguments=self._command
        )
        self._selector = selectors.DefaultSelector()
        self._serving = False
        self._stopping = ""
        self._checked = time.monotonic()

    def run(self, ready: Callable[[Server], None]) -> None:
        """Serve until a signal comes or the home is gone. `ready` is told of the first server. Raises BusError when
        that one does not start."""
        self._listen_for_signals()
        try:
            stop_leftovers(self._home, self._settings.file.process.stop_timeout_s)
            self._announce()
            self._store_lock = _take_store(self._home)
            ready(self._start_server())
            self._serving = True
            while not self._stopping:
                self._keep_server()
                self._keep_daemon()
                self._sleep(self._next_due())
                self._check_home()
            _log.info("stopping: %s", self._stopping)
        finally:
            self._stop_daemon()
            self._stop_server()
            for name in RUN_FILES:
                (self._home.run / name).unlink(missing_ok=True)

    def _start_server(self) -> Server:
        # Only here does a supervisor need a NATS client, and it would not for a server that is started again.
        from bus.jetstream import DAEMON_PUBLISH, PROJECTOR_PUBLISH

        home, quota = self._home, server.quota(self._settings)
        account = home.keyring.sign_account(home.file.tenant, quota, DAEMON_PUBLISH, PROJECTOR_PUBLISH)
        home.keyring.ensure_daemon()
        self._server_backoff.started()
        self._server, found = server.start(home, self._settings, account, self._store_lock)
        _log.info("nats-server %s runs as %d on %s", found.version, found.pid, found.url)
        if not home.follows:
            anyio.run(_create_streams, home, found.url, self._settings.file.log.max_bytes)
        if self._url not in ("", found.url):
            _log.warning("the port was taken: the daemon has to connect to another")
            self._stop_daemon()
        self._known, self._url = found, found.url
        self._announce()
        return found

    def _keep_server(self) -> None:
        if self._server is not None and self._server.poll() is not None:
            _log.error("nats-server ended with status %s", self._server.returncode)
            self._server = self._known = None
            self._ended(self._server_backoff)
        if self._server is None and time.monotonic() >= self._server_backoff.due:
            try:
                self._start_server()
            except BusError as error:
                _log.error("%s", error)
                self._stop_server()
                self._ended(self._server_backoff)

    def _keep_daemon(self) -> None:
        if self._daemon is not None and self._daemon.poll() is not None:
            status = self._daemon.returncode
            _log.error("the daemon ended with status %s", status)
            self._close_daemon()
            self._ended(self._daemon_backoff)
            if status == SERVER_STUCK:
                _log.error("nats-server does not store: it is started again")
                self._stop_server()
                self._ended(self._server_backoff)
        if self._daemon is None and self._server is not None and time.monotonic() >= self._daemon_backoff.due:
            self._daemon_backoff.started()
            self._daemon = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._home.path,
                env=config.child_environment(),
            )
            assert self._daemon.stdout is not None
            self._selector.register(self._daemon.stdout, selectors.EVENT_READ, self._read_daemon)
            self._supervised = msgspec.structs.replace(self._supervised, daemon=self._daemon.pid)
            self._announce()
            _log.info("the daemon runs as %d", self._daemon.pid)

    def _ended(self, backoff: Backoff) -> None:
        backoff.ended()
        self._supervised = msgspec.structs.replace(self._supervised, restarts=self._supervised.restarts + 1)
        self._announce()

    def _next_due(self) -> float:
        due = [backoff.due for child, backoff in self._children() if child is None]
        return max(0.0, min([time.monotonic() + CHECK_S, *due]) - time.monotonic())

    def _children(self) -> list[tuple[subprocess.Popen[bytes] | None, Backoff]]:
        children = [(self._server, self._server_backoff)]
        return [*children, (self._daemon, self._daemon_backoff)] if self._server is not None else children

    def _sleep(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def _read_daemon(self) -> None:
        assert self._daemon is not None
        assert self._daemon.stdout is not None
        piece = os.read(self._daemon.stdout.fileno(), 65_536)
        if piece:
            self._daemon_log.write(piece)
        else:
            self._selector.unregister(self._daemon.stdout)

    def _stop_server(self) -> None:
        if self._server is not None:
            server.stop(self._server, SERVER_STOP_S)
            self._server = self._known = None

    def _stop_daemon(self) -> None:
        """Let the daemon finish what it accepted; its log is read on, so that it never waits for us."""
        if self._daemon is None:
            return
        self._daemon.terminate()
        deadline = time.monotonic() + self._settings.file.process.stop_timeout_s
        while self._daemon.poll() is None:
            if time.monotonic() > deadline:
                _log.error("the daemon does not finish: killed")
                self._daemon.kill()
                self._daemon.wait()
                break
            self._sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        self._close_daemon()

    def _close_daemon(self) -> None:
        """Forget a daemon that has ended, after its last words."""
        assert self._daemon is not None
        assert self._daemon.stdout is not None
        assert self._daemon.stdin is not None
        os.set_blocking(self._daemon.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while self._daemon.stdout in (key.fileobj for key in self._selector.get_map().values()):
                self._read_daemon()
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._daemon.stdout)
        self._daemon.stdout.close()
        self._daemon.stdin.close()
        self._daemon = None
        self._supervised = msgspec.structs.replace(self._supervised, daemon=None)

    def _announce(self) -> None:
        """Write down who runs. Once it serves, a supervisor goes on without (a full disk may be emptied): the next
        check tries again."""
        try:
            self._home.run.mkdir(mode=0o700, exist_ok=True)
            write_atomic(self._home.run / "supervisor.json", msgspec.json.encode(self._supervised))
            if self._known is not None:
                write_atomic(self._home.run / "server.json", msgspec.json.encode(self._known))
            else:
                (self._home.run / "server.json").unlink(missing_ok=True)
        except (OSError, BusError) as error:
            if not self._serving:
                raise
            _log.error("the files in run/ cannot be written: %s", error)

    def _check_home(self) -> None:
        if time.monotonic() < self._checked + CHECK_S:
            return
        self._checked = time.monotonic()
        try:
            if self._home.path.stat().st_ino != self._inode:
                self._stopping = "another home is in its place"
            elif self._known is not None and server.read_server(self._home) != self._known:
                self._announce()
        except OSError as error:
            self._stopping = f"the home is gone ({error})"

    def _listen_for_signals(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._selector.register(reading, selectors.EVENT_READ, lambda: os.read(reading, 4096))

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = signal.Signals(number).name

        # Whoever started us may have blocked or ignored any of these.
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # The end of a child only has to wake the selector.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)


class _Output:
    """A file that takes what the daemon prints, rotated by size."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._handler = RotatingFileHandler(path, maxBytes=limit_bytes, backupCount=LOG_FILES, encoding="utf-8")
        self._handler.terminator = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes) -> None:
        self._handler.emit(logging.makeLogRecord({"msg": self._decoder.decode(data)}))


async def _create_streams(home: Home, url: str, max_bytes: int) -> None:
    from bus.provision import create_log
    from bus.transport import connect

    creds = home.keyring.admin()
    async with connect(url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection:
        await create_log(connection, max_bytes)


def _take_store(home: Home) -> int:
    try:
        return take_lock(home.store_lock, timeout_s=STORE_TIMEOUT_S)
    except Unavailable as error:
        if error.code != "locked":
            raise
        raise Unavailable(
            "another nats-server keeps the store of this home",
            code="store_in_use",
            entity=str(home.jetstream),
            hint="Find the process that has this directory open, and end it",
        ) from None


def _report(report: Report) -> None:
    """Tell the command that started this process, which may be gone, and let go of its pipe."""
    with contextlib.suppress(OSError):
        os.write(1, msgspec.json.encode(report))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def supervise(home: Home, ready: Callable[[Server], None], daemon: Sequence[str] = ()) -> None:
    """Keep server and daemon of `home` alive until a signal comes. `ready` is told of the first server; `daemon`
    replaces the command of the daemon. Raises Unavailable (code `locked`) when another process does so already."""
    os.umask(0o077)
    settings = config.load(home=home.path, namespace=home.file.tenant, cwd=home.path)
    handler = RotatingFileHandler(
        home.logs / "supervisor.log", maxBytes=settings.file.process.log_file_bytes, backupCount=LOG_FILES
    )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, handlers=[handler])
    command = daemon or [sys.executable, "-P", "-m", "cli.projector" if home.follows else "cli.daemon"]
    lock = take_lock(home.supervisor_lock, timeout_s=LOCK_TIMEOUT_S)
    Supervisor(home, settings, [*command, "--home", str(home.path)]).run(ready)
    os.close(lock)


def main() -> None:
    """Detach, supervise, end."""
    parser = argparse.ArgumentParser(prog="cli.supervisor", description="Keep the processes of a home alive.")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--daemon", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    if os.fork():
        # The command that started us waits for this process only, and nobody has to wait for the other.
        os._exit(0)
    try:
        supervise(open_home(arguments.home), lambda found: _report(Report(server=found)), arguments.daemon)
    except BusError as error:
        _log.error("%s", error)
        _report(Report(problem=error.problem))
        sys.exit(error.exit_code)
    except Exception as error:
        _log.exception("the supervisor failed")
        _report(Report(problem=Defect(f"the supervisor failed: {error!r}", entity=str(arguments.home)).problem))
        raise


if __name__ == "__main__":
    main()
