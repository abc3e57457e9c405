"""`bus doctor`: everything that has to be right for a bus to work, looked at one by one.

Rules:
* It changes nothing and starts nothing. Every check ends in one line, `ok`, `warn` or `fail`, and says what to do.
* It ends with 1 when a check failed, with 0 otherwise; warnings are for people.
* A check that cannot be made because of an earlier failure is left out.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Literal

import anyio
import msgspec
import typer

from bus import server
from bus.clock import SystemClock, from_ns
from bus.config import Settings
from bus.errors import BusError, Refused
from bus.files import network_file_system
from bus.home import Home, open_home
from bus.lifecycle import Helper
from cli import asking
from cli.fields import Typed
from cli.generate import Command, make_command
from cli.lifecycle import State, embedded, read_daemon, state_of
from cli.options import Common
from cli.render import Cell, Screen, size, write_json

Verdict = Literal["ok", "warn", "fail"]
DISK_FAIL, DISK_WARN = 100_000_000, 1_000_000_000
CLOCK_WARN_S = 5.0
FRESH_S = 15.0
"""What the daemon said about itself is used when it is not older than this."""
QUOTA_WARN_DAYS = 30
EVENTS_MAX = 10_000_000
"""The supported size of a tenant in this version."""
ASK_S = 5.0


class Check(msgspec.Struct, frozen=True):
    """One line of the report."""

    name: str
    verdict: Verdict
    text: str
    hint: str = ""


def command() -> Command:
    text = "Check everything that a bus needs. Ends with 1 when something is wrong; starts nothing."
    return make_command("doctor", (), _doctor, text)


def _doctor(common: Common, typed: Typed) -> None:
    settings = embedded(common)
    checks = list(_checks(common, settings))
    failed = any(check.verdict == "fail" for check in checks)
    if common.json:
        write_json({"ok": not failed, "checks": checks})
    else:
        _show(Screen(sys.stdout), checks)
    if failed:
        raise typer.Exit(1)


def _show(screen: Screen, checks: list[Check]) -> None:
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    rows: list[list[Cell]] = [
        [(check.verdict, styles[check.verdict]), (check.name, "bold"), check.text] for check in checks
    ]
    screen.table(("", "check", "what was found"), rows)
    for check in checks:
        if check.hint:
            screen.line((f"{check.name}: ", "bold"), check.hint)


def _checks(common: Common, settings: Settings) -> Iterator[Check]:
    yield _tried("server", lambda: _binary(settings))
    try:
        opened = open_home(settings.home)
    except BusError as error:
        yield _failed("home", error)
        return
    yield Check("home", "ok", f"{opened.path}, private, where it was made")
    yield _tried("file system", lambda: _file_system(opened))
    yield _tried("disk", lambda: _disk(opened, settings))
    state = state_of(opened)
    if not state.up:
        yield Check("bus", "warn", "it is not running", "Any command starts it: bus up")
        return
    yield Check("bus", "ok", f"up at {state.url}, processes {state.supervisor}, {state.server}, {state.daemon}")
    if opened.follows:
        yield Check("follows", "ok", f"{state.follows}; `bus projector status` and `bus projector verify` say the rest")
        return
    yield _tried("clock", lambda: _clock(opened))
    yield _tried("answer", lambda: _answer(common))
    yield _tried("log settings", lambda: _log_settings(opened, state))
    yield _tables(state)
    yield from (_helper(helper) for helper in state.helpers)
    yield _quota(opened, settings, state)


def _tried(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except BusError as error:
        return _failed(name, error)
    except ImportError as error:
        return Check(name, "warn", f"cannot be looked at: {error}")


def _failed(name: str, error: BusError) -> Check:
    problem = error.problem
    hint = problem.hint or ""
    return Check(name, "fail", str(error).removesuffix(hint).strip().rstrip("."), hint)


def _binary(settings: Settings) -> Check:
    binary = server.find_server(settings.nats_server)
    return Check("server", "ok", f"nats-server {server.check_version(binary)} at {binary}")


def _file_system(opened: Home) -> Check:
    kind = network_file_system(opened.path)
    if kind is None:
        return Check("file system", "ok", "local")
    return Check(
        "file system",
        "warn",
        f"the home is on a network file system ({kind})",
        "Locks and durable writes may not hold there: put the home on a local disk (BUS_HOME)",
    )


def _disk(opened: Home, settings: Settings) -> Check:
    free = shutil.disk_usage(opened.path).free
    if free < DISK_FAIL:
        return Check("disk", "fail", f"{size(free)} free", "Make room: the log cannot grow")
    if free < DISK_WARN:
        return Check("disk", "warn", f"{size(free)} free", "Make room soon")
    if free < settings.file.log.max_bytes:
        return Check(
            "disk", "ok", f"{size(free)} free, less than the log's quota of {size(settings.file.log.max_bytes)}"
        )
    return Check("disk", "ok", f"{size(free)} free")


def _clock(opened: Home) -> Check:
    """The daemon's idea of the server's time against this process's clock."""
    found = _said_at(opened)
    now = from_ns(SystemClock().server_ns())
    if found is None:
        return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")
    off_s = (now - found).total_seconds()
    if off_s < -CLOCK_WARN_S or off_s > CLOCK_WARN_S + FRESH_S:
        return Check(
            "clock",
            "warn",
            f"this host and the log's server differ by about {abs(off_s):.0f} s",
            "Deadlines are judged by the server's time; set this host's clock right to read times right",
        )
    return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC, like the server's")


def _said_at(opened: Home) -> datetime | None:
    said = read_daemon(opened)
    return datetime.fromisoformat(said.at) if said is not None else None


def _answer(common: Common) -> Check:
    from bus.domain.agent import Who

    async def ask() -> tuple[int, float]:
        clock = SystemClock()
        async with asking.connected(common, ASK_S) as asker:
            began_ns = clock.monotonic_ns()
            answer = await asker.call(Who())
            return answer.seq, (clock.monotonic_ns() - began_ns) / 1e6

    seq, took_ms = anyio.run(ask)
    return Check("answer", "ok", f"the daemon answers at #{seq} in {took_ms:.0f} ms")


def _log_settings(opened: Home, state: State) -> Check:
    """Have the server's own word that nobody can delete from the log."""
    from bus.provision import create_log
    from bus.transport import connect

    async def look() -> None:
        assert state.url is not None
        admin = opened.keyring.admin()
        async with connect(state.url, creds=admin.text, name=admin.name, inbox=admin.inbox) as connection:
            await create_log(connection)

    try:
        anyio.run(look)
    except Refused as error:
        return _failed("log settings", error)
    return Check("log settings", "ok", "no deletion, no expiry, no rewriting")


def _tables(state: State) -> Check:
    if state.skipped:
        text = f"{state.skipped} events cannot be read by this version"
        return Check("events", "warn", text, "They are kept; upgrade, or look at them with `bus log --json`")
    if state.lag_seq:
        return Check("events", "warn", f"the tables are {state.lag_seq} events behind")
    return Check("events", "ok", f"all of #1 to #{state.head} were read")


def _helper(helper: Helper) -> Check:
    """An embedder, a reranker or a summariser, as the daemon finds it."""
    if helper.ok:
        return Check(helper.name, "ok", f"{helper.setting}: {helper.found}")
    hint = f"{helper.without}; correct config.toml, then `bus down`"
    return Check(helper.name, "warn", f"{helper.setting}: {helper.found}", hint)


def _quota(opened: Home, settings: Settings, state: State) -> Check:
    """When the log will be full if it grows on as it has."""
    limit = settings.file.log.max_bytes
    used = max(state.store_bytes / limit, (state.head or 0) / EVENTS_MAX)
    now = from_ns(SystemClock().server_ns())
    age = max(now - datetime.fromisoformat(opened.file.created), timedelta(hours=1))
    text = f"{size(state.store_bytes)} of {size(limit)}, {state.head or 0:,} of {EVENTS_MAX:,} events"
    if used >= settings.file.log.soft_limit_ratio:
        return Check("quota", "fail", text, "Raise log.max_bytes in config.toml, or begin a new bus")
    left_days = (1 - used) / used * (age / timedelta(days=1)) if used else float("inf")
    if left_days > 36_500:
        return Check("quota", "ok", text)
    full = now + timedelta(days=left_days)
    text += f"; full about {full:%Y-%m-%d} at this pace"
    verdict: Verdict = "warn" if left_days < QUOTA_WARN_DAYS and age > timedelta(days=1) else "ok"
    return Check("quota", verdict, text)
