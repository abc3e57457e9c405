"""A whole bus for a test: a home with its processes, client processes that write down what they are told, the raw log.

Rules: nothing here sleeps in the hope that something has happened; every wait has a condition and ends in a failure.
Every process is ended by the id under which it was started or found, after looking that it belongs to this home.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import psutil
from nats.aio.client import Client, RawCredentials
from nats.errors import ConnectionClosedError

from bus import config, lifecycle
from bus import home as homes
from bus.client import Bus
from bus.home import Home
from bus.server import read_server

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "test"
WAIT_S = 30.0
OWNER = "owner"
BATCH = 1000
META = ("Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence")
"""Headers of a reading, not of the record."""


class Record(NamedTuple):
    """One message of the log as the server has it."""

    seq: int
    time_ns: int
    subject: str
    headers: dict[str, str]
    data: bytes


def copy_live(source: Path, target: Path) -> None:
    """Copy a directory whose processes go on: what they remove while it is copied may be missing in the copy."""
    try:
        shutil.copytree(source, target, symlinks=True)
    except shutil.Error as error:
        kept = [problem for problem in error.args[0] if os.path.lexists(problem[0])]
        assert not kept, kept


def wait_until(condition: Callable[[], Any], timeout_s: float = WAIT_S, what: str = "") -> Any:
    """The first true value of `condition`; a failure when there is none for much too long."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what or condition}"
        time.sleep(0.01)
    return value


async def until(condition: Callable[[], Any], timeout_s: float = WAIT_S, what: str = "") -> Any:
    """`wait_until` for coroutines; `condition` may be one itself."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if hasattr(value, "__await__"):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"waited too long for {what or condition}"
        await anyio.sleep(0.01)


async def settled(client: Client) -> None:
    """Return when the server has handled all that was sent. (The PING of nats-py's flush overtakes what is pending.)"""
    await client._flush_pending(force_flush=True)
    await client.flush()


class Rig:
    """A home of its own with everything that runs for it. `config` is the text of its config.toml."""

    def __init__(self, folder: Path, config: str = "", home: Home | None = None) -> None:
        self.folder = folder
        if home is None:
            self.home = homes.create(folder / "bus")
            (self.home.path / "config.toml").write_text(config)
        else:
            self.home = home
        self._children: list[Child] = []

    # --- processes ---------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the bus if it does not run."""
        lifecycle.ensure_up(self.home)

    def pid(self, kind: str) -> int | None:
        """Of the running `supervisor`, `server` or `daemon` (the supervised one) of this home."""
        supervised, server = lifecycle.read_supervised(self.home), read_server(self.home)
        pids = {
            "supervisor": supervised.pid if supervised else None,
            "daemon": supervised.daemon if supervised else None,
            "server": server.pid if server else None,
        }
        pid = pids[kind]
        return pid if pid is not None and self._is_ours(pid) else None

    def kill(self, kind: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process of the bus, as soon as there is one. -> its pid"""
        pid: int = wait_until(lambda: self.pid(kind), what=f"a {kind} to signal")
        os.kill(pid, number)
        if number == signal.SIGKILL:
            wait_until(lambda: not self._is_ours(pid), what=f"the end of the {kind}")
        return pid

    def status(self) -> dict[str, Any]:
        """What the leading daemon says of itself, or nothing."""
        try:
            said: dict[str, Any] = json.loads((self.home.run / "daemon.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return said

    def spawn(self, *command: str, **options: Any) -> Child:
        """Start `python -m …` as a child of this test."""
        child = Child([sys.executable, "-P", "-m", *command], **options)
        self._children.append(child)
        return child

    def client(self, mode: str, agent: str, module: str = "clients", **options: Any) -> Child:
        """Start a client process (see `tests.acceptance.clients`); its history is `self.diary(agent)`."""
        arguments = [f"--{key}={value}" for key, value in options.items()]
        place = [f"--home={self.home.path}", f"--agent={agent}", f"--diary={self.diary(agent)}"]
        return self.spawn(f"tests.acceptance.{module}", mode, *place, *arguments)

    def second_daemon(self, *flags: str) -> Child:
        """Start a daemon that no supervisor knows of."""
        return self.spawn("cli.daemon", "--home", str(self.home.path), *flags)

    def diary(self, agent: str) -> Path:
        return self.folder / f"{agent}.jsonl"

    def close(self) -> None:
        """End everything that was started for this home, by its id, and see that it is gone."""
        for child in self._children:
            child.kill()
        supervised = lifecycle.read_supervised(self.home) if self.home.path.exists() else None
        if supervised is not None and self._is_ours(supervised.pid):
            os.kill(supervised.pid, signal.SIGCONT)
        if self.home.path.exists():
            lifecycle.down(self.home, timeout_s=5)
        wait_until(lambda: not self.processes(), what="the end of all processes")

    def processes(self) -> list[int]:
        """Every living process that has this home on its command line."""
        return [process.pid for process in psutil.process_iter() if self._is_ours(process.pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            line = process.cmdline()
            return process.status() != psutil.STATUS_ZOMBIE and any(str(self.home.path) in word for word in line)
        except psutil.Error:
            return False

    # --- talking to it -----------------------------------------------------------------------------------------

    def connect(self, agent: str = OWNER, **options: Any) -> contextlib.AbstractAsyncContextManager[Bus]:
        """A client in this process."""
        return Bus.connect(agent, home=self.home.path, **{"namespace": NAMESPACE, **options})

    @asynccontextmanager
    async def raw(self, creds: Any, **options: Any) -> AsyncIterator[tuple[Client, list[str]]]:
        """-> (a NATS client with these credentials, the errors that the server reports to it)"""
        errors: list[str] = []

        async def on_error(error: Exception) -> None:
            errors.append(str(error).lower())

        server = wait_until(lambda: read_server(self.home))
        known = {"allow_reconnect": False, "error_cb": on_error, "inbox_prefix": creds.inbox} | options
        client = Client()
        try:
            await client.connect(server.url, user_credentials=RawCredentials(creds.text), **known)
            yield client, errors
        finally:
            await client.close()
            if client._transport is not None:
                client._transport.close()  # After the server has ended the connection, nats-py leaves its socket open.

    async def log(self, after: int = 0) -> list[Record]:
        """Every record of the log behind `after`, from the server itself."""
        records: list[Record] = []
        deadline = time.monotonic() + 4 * WAIT_S
        while not await self._read_on(records, after):
            assert time.monotonic() < deadline, f"the log could not be read beyond {len(records)} records"
        return records

    async def _read_on(self, records: list[Record], after: int) -> bool:
        """Add what follows, up to the end of the log. -> whether that was reached: a server closes the connection of a
        test that gets no processor for seconds."""
        async with self.raw(self.home.keyring.daemon()) as (client, _):
            inbox = client.new_inbox()
            messages = await client.subscribe(inbox)
            while True:
                start = (records[-1].seq if records else after) + 1
                request = {"seq": start, "batch": BATCH, "next_by_subj": ">"}
                try:
                    await client.publish("$JS.API.DIRECT.GET.LOG", json.dumps(request).encode(), reply=inbox)
                    for _ in range(BATCH + 1):
                        message = await messages.next_msg(timeout=WAIT_S)
                        headers = dict(message.headers or {})
                        if "Nats-Sequence" not in headers:
                            break
                        records.append(_record(headers, message.data))
                except ConnectionClosedError:
                    return False
                if headers.get("Status") == "404" or headers.get("Nats-Num-Pending") == "0":
                    return True

    async def log_when(self, condition: Callable[[list[Record]], bool]) -> list[Record]:
        """The log as soon as `condition` is true of it."""
        deadline = time.monotonic() + WAIT_S
        while not condition(records := await self.log()):
            assert time.monotonic() < deadline, f"waited too long for {condition}"
            await anyio.sleep(0.1)
        return records


def _record(headers: dict[str, str], data: bytes) -> Record:
    stamp = headers["Nats-Time-Stamp"]
    whole, _, rest = stamp.removesuffix("Z").partition(".")
    seconds = int(time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))) - time.timezone
    return Record(
        int(headers["Nats-Sequence"]),
        seconds * 1_000_000_000 + int(rest.ljust(9, "0") or 0),
        headers["Nats-Subject"],
        {name: value for name, value in headers.items() if name not in META},
        data,
    )


class Child:
    """A process of this test. It is told to begin by a line on its standard input, and to end by the end of it."""

    def __init__(self, command: list[str], **options: Any) -> None:
        # Children that are tests find each other here; the packages come from wherever they are installed.
        environment = config.child_environment() | {"PYTHONPATH": str(ROOT)} | options.pop("environ", {})
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        self.pid = self.process.pid
        self._said = b""

    def line(self, timeout_s: float = WAIT_S) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._said:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"waited too long for a line of {self.process.args}"
            if select.select([self.process.stdout], [], [], left_s)[0]:
                piece = os.read(self.process.stdout.fileno(), 65_536)
                assert piece, f"{self.process.args} ended with status {self.process.wait()}"
                self._said += piece
        text, _, self._said = self._said.partition(b"\n")
        return text.decode()

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def end(self, timeout_s: float = WAIT_S) -> None:
        """Let it finish, and see that it did so well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout_s) == 0
        self.kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing while the block runs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to finish anything."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe and pipe.close()


@contextlib.contextmanager
def running(folder: Path, config: str = "") -> Iterator[Rig]:
    """A bus that is up, for as long as the context lasts."""
    rig = Rig(folder, config)
    try:
        rig.up()
        yield rig
    finally:
        rig.close()
