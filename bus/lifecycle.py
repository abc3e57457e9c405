"""Starting, stopping and looking at the processes of a home.

    command --ensure_up--> supervisor --+--> nats-server   inherits the lock of the store
         (cli/supervisor.py)           `--> daemon        its standard input ends when the supervisor dies

Rules:
* At most one supervisor per home: it locks the home. Who starts or stops one holds `run/start.lock` meanwhile, so any
  number of commands may find the bus down at once.
* A supervisor is up when `run/server.json` names a server that greets with this home's id.
* The supervisor outlives the command that started it; its first words to that command are the server or the problem.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from bus import config
from bus.clock import SystemClock, from_ns
from bus.errors import NotAllowed, Problem, Unavailable, from_problem
from bus.files import is_locked, locked, take_lock, write_atomic
from bus.home import Home
from bus.server import Server, end_process, live, read_server, stop_orphans, tail
from bus.tunables import ProcessLimits

POLL_S = 0.02
DOWN_MARGIN_S = 10.0
"""What a supervisor needs besides the time that its children get."""
SPAWNS = 2
"""How often one call starts a supervisor: one may be killed at once, but one that always dies has to be reported."""
LOG_LINES = 5
RUN_FILES = ("server.json", "supervisor.json", "daemon.json")
"""What says who runs; gone when nobody does."""


SERVER_STUCK = 75
"""A daemon ends with this status when its server answers but does not store: only a new server does then. (One that met
a full disk refuses to write for ever, also when there is room again.)"""
STOPPED = "stopped"
"""In `run/` from `down` to the next start: who was connected leaves the bus as it is, who comes anew starts it."""


class Supervised(msgspec.Struct, frozen=True, kw_only=True):
    """`run/supervisor.json`. `daemon` is None while it is down; `arguments` is its command line, by which a later
    supervisor recognises it. `restarts` counts children that ended by themselves."""

    pid: int
    started: datetime
    arguments: list[str]
    daemon: int | None = None
    restarts: int = 0


class Helper(msgspec.Struct, frozen=True, kw_only=True):
    """How an embedder, a reranker or a summariser is. `setting` is what the settings say, `found` how far it is, or
    what is wrong; `without` is what goes on when it does not work."""

    name: str
    setting: str
    ok: bool
    found: str
    without: str


class DaemonFile(msgspec.Struct, frozen=True, kw_only=True):
    """`run/daemon.json`: how the leading daemon was a few seconds ago."""

    pid: int
    leading: bool
    position: int
    lag_seq: int
    skipped: int
    at: str
    counters: dict[str, int] = {}
    helpers: list[Helper] = []


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What runs for a home. Pids and `url` are None for what does not run; sizes are in bytes."""

    home: str
    tenant: str
    supervisor: int | None
    server: int | None
    daemon: int | None
    url: str | None
    version: str | None
    uptime_s: float | None
    restarts: int
    store_bytes: int
    projections_bytes: int
    logs_bytes: int


class Report(msgspec.Struct, frozen=True):
    """What a starting supervisor says to the command that started it: one of the two."""

    server: Server | None = None
    problem: Problem | None = None


def ensure_up(home: Home, *, timeout_s: float = ProcessLimits().start_timeout_s, daemon: Sequence[str] = ()) -> Server:
    """The running server of `home`, started if need be; any number of processes may call this at once.

    `daemon` replaces the command of the daemon (`--home H` is appended). Raises Unavailable with the last lines of the
    logs when nothing answers within `timeout_s` seconds, or the error with which the supervisor ended.
    """
    deadline = time.monotonic() + timeout_s
    spawned = 0
    while (server := live(home)) is None:
        if time.monotonic() > deadline:
            raise _not_up(home, timeout_s)
        if is_locked(home.supervisor_lock):
            time.sleep(POLL_S)  # It is starting, or restarting its server.
            continue
        try:
            lock = take_lock(_start_lock(home))
        except Unavailable as error:
            if error.code != "locked":
                raise
            time.sleep(POLL_S)
            continue
        try:
            # Whoever held the lock before may have started it meanwhile.
            if not is_locked(home.supervisor_lock):
                if spawned == SPAWNS:
                    raise _not_up(home, timeout_s)
                spawned += 1
                (home.run / STOPPED).unlink(missing_ok=True)
                server = _spawn(home, daemon, deadline)
                if server is not None:
                    return server
        finally:
            os.close(lock)
    return server


def down(home: Home, *, timeout_s: float = ProcessLimits().stop_timeout_s) -> bool:
    """Stop the supervisor with all it keeps, and whatever a killed one left behind; True if there was anything.

    The daemon gets `timeout_s` seconds to finish what it accepted; what does not end is killed.
    """
    deadline = time.monotonic() + timeout_s + DOWN_MARGIN_S
    with locked(_start_lock(home), timeout_s=timeout_s + DOWN_MARGIN_S):
        ran = is_locked(home.supervisor_lock)
        while is_locked(home.supervisor_lock):
            supervised = read_supervised(home)
            if supervised is None or not _is_ours(supervised.pid, ["cli.supervisor", str(home.path)]):
                _check_deadline(home, deadline)
                time.sleep(POLL_S)
                continue
            end_process(supervised.pid, max(0.0, deadline - time.monotonic()))
            break
        lock = take_lock(home.supervisor_lock, timeout_s=DOWN_MARGIN_S)
        try:
            write_atomic(home.run / STOPPED, b"")
            return bool(stop_leftovers(home, timeout_s)) or ran
        finally:
            os.close(lock)


def was_stopped(home: Home) -> bool:
    """Whether somebody has stopped the bus on purpose and nobody has started it since."""
    return (home.run / STOPPED).exists()


def status(home: Home) -> Status:
    """What runs for `home`, and how much it stores."""
    supervised = read_supervised(home) if is_locked(home.supervisor_lock) else None
    server = live(home)
    now = from_ns(SystemClock().server_ns())
    return Status(
        home=str(home.path),
        tenant=home.file.tenant,
        supervisor=supervised.pid if supervised else None,
        server=server.pid if server else None,
        daemon=supervised.daemon if supervised else None,
        url=server.url if server else None,
        version=server.version if server else None,
        uptime_s=max(0.0, (now - supervised.started).total_seconds()) if supervised else None,
        restarts=supervised.restarts if supervised else 0,
        store_bytes=_size(home.jetstream),
        projections_bytes=_size(home.projections),
        logs_bytes=_size(home.logs),
    )


def read_supervised(home: Home) -> Supervised | None:
    """What `run/supervisor.json` says, or None when it is missing or damaged."""
    try:
        return msgspec.json.decode((home.run / "supervisor.json").read_bytes(), type=Supervised)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def stop_leftovers(home: Home, timeout_s: float) -> list[int]:
    """Stop the daemon and the servers of a supervisor that is gone, and return their pids. The caller holds the lock of
    the supervisor."""
    stopped = []
    supervised = read_supervised(home)
    if supervised is not None and supervised.daemon is not None and _is_ours(supervised.daemon, supervised.arguments):
        # It is ending already, because its standard input has: it only needs its time.
        end_process(supervised.daemon, timeout_s)
        stopped.append(supervised.daemon)
    stopped += stop_orphans(home, timeout_s)
    for name in RUN_FILES:
        (home.run / name).unlink(missing_ok=True)
    return stopped


def _start_lock(home: Home) -> Path:
    """The file that is locked by whoever starts or stops a supervisor. Its directory may have been tidied away."""
    try:
        home.run.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise NotAllowed(
            f"the home cannot be written: {error.strerror}", code="no_permission", entity=str(home.run)
        ) from error
    return home.start_lock


def _spawn(home: Home, daemon: Sequence[str], deadline: float) -> Server | None:
    """Start a supervisor that outlives this process, and wait for its report. None when it said nothing (it was killed,
    or takes too long) or when there was one already (whose starter was killed). Raises the error it ended with."""
    command = [sys.executable, "-P", "-m", "cli.supervisor", "--home", str(home.path)]
    try:
        errors = os.open(home.logs / "supervisor.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        message = f"the logs of this home cannot be written: {error.strerror}"
        raise NotAllowed(message, code="no_permission", entity=str(home.logs)) from error
    process = subprocess.Popen(
        [*command, "--daemon", *daemon] if daemon else command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=home.path,
        env=config.child_environment(),
        start_new_session=True,
    )
    os.close(errors)
    assert process.stdout is not None
    said = b""
    with process:
        # The process forks and ends; its child keeps the pipe until it has reported.
        while (left_s := deadline - time.monotonic()) > 0 and select.select([process.stdout], [], [], left_s)[0]:
            piece = os.read(process.stdout.fileno(), 65_536)
            if not piece:
                break
            said += piece
    report = msgspec.json.decode(said, type=Report) if said else Report()
    problem = report.problem
    if problem is not None and (problem.code, problem.entity) != ("locked", str(home.supervisor_lock)):
        raise from_problem(problem)
    return report.server


def _is_ours(pid: int, arguments: Sequence[str]) -> bool:
    """Whether the process `pid` has all of `arguments` on its command line: pids are given out again."""
    import psutil  # type: ignore[import-untyped, unused-ignore]  # not needed on the way of a running bus

    try:
        line = psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return bool(line) and all(any(wanted in word for word in line) for wanted in arguments)


def _check_deadline(home: Home, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(
            "a supervisor runs, but does not say which process it is",
            code="no_supervisor_pid",
            entity=str(home.run / "supervisor.json"),
            hint="Look for a process `cli.supervisor --home` of this home and end it",
        )


def _not_up(home: Home, timeout_s: float) -> Unavailable:
    found = read_server(home)
    said = "\n".join(_log_ends(home)) or "(nothing)"
    return Unavailable(
        "the bus does not start",
        code="not_up",
        entity=str(home.path),
        expected=f"an answer within {timeout_s:g} s",
        found=f"none from {found.url}" if found else "no server",
        hint=f"The logs end:\n{said}",
    )


def _log_ends(home: Home) -> Iterator[str]:
    for path in sorted((*home.logs.glob("*.log"), *home.logs.glob("*.err"))):
        for line in tail(path).splitlines()[-LOG_LINES:]:
            yield f"{path.name}: {line}"


def _size(directory: Path) -> int:
    """Bytes of all files below `directory`; what vanishes meanwhile counts as nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(folder, name).stat().st_size
    return total
