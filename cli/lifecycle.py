"""The bus itself: `bus init`, `up`, `down`, `status`, `adopt`.

Rules:
* `status` starts nothing; it ends with 6 when the bus is not running, so that scripts can ask.
* These act on the embedded bus of a home. A remote bus is looked after where it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import typer

from bus import config, home, lifecycle, remote
from bus.config import Settings
from bus.durations import span
from bus.errors import InvalidRequest, Unavailable
from bus.home import HOME_FILE, Home, open_home
from bus.lifecycle import DaemonFile, Helper
from cli.asking import settings_of
from cli.fields import Field, Typed
from cli.generate import Command, make_command
from cli.options import Common
from cli.render import Part, Screen, size, write_json

_TENANT = Field(
    name="tenant", flags=("--tenant",), metavar="NAME", help="the organisation it belongs to", default="local"
)
_OWNER = Field(
    name="owner", flags=("--owner",), metavar="AGENT", help="the agent that may do everything", default=config.OWNER
)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`bus status`. `head` is the log's last event, `position` how far the tables are; both None while it is down.
    `follows` is the address of the bus that a projector follows here."""

    up: bool
    home: str
    follows: str | None
    tenant: str
    url: str | None
    supervisor: int | None
    server: int | None
    daemon: int | None
    server_version: str | None
    uptime_s: float | None
    restarts: int
    leading: bool | None
    head: int | None
    position: int | None
    lag_seq: int | None
    skipped: int | None
    counters: dict[str, int]
    helpers: list[Helper]
    store_bytes: int
    projections_bytes: int
    logs_bytes: int


def commands() -> dict[str, Callable[[], Command]]:
    """What makes the commands of this file, by name."""
    return {
        "init": lambda: make_command(
            "init", (_TENANT, _OWNER), _init, "Make a bus for this repository or directory.", "bus init --owner atlas"
        ),
        "up": lambda: make_command("up", (), _up, "Start the bus (any other command does so too)."),
        "down": lambda: make_command("down", (), _down, "Stop the bus; nothing is lost."),
        "status": lambda: make_command(
            "status", (), _status, "Show what runs, where, and how far it is. Ends with 6 when the bus is down."
        ),
        "adopt": lambda: make_command(
            "adopt", (), _adopt, "Make a copied or moved home this place's own: a bus of its own from now on."
        ),
    }


def read_daemon(opened: Home) -> DaemonFile | None:
    """How the daemon said it was, or None when it has not said anything (or something else)."""
    try:
        return msgspec.json.decode((opened.run / "daemon.json").read_bytes(), type=DaemonFile)
    except (OSError, msgspec.MsgspecError):
        return None


def state_of(opened: Home) -> State:
    """What `bus status` shows."""
    found = lifecycle.status(opened)
    said = read_daemon(opened)
    said = said if said is not None and said.pid == found.daemon else None
    return State(
        up=found.server is not None and found.daemon is not None,
        home=found.home,
        follows=followed.url if (followed := remote.read(opened)) is not None else None,
        tenant=found.tenant,
        url=found.url,
        supervisor=found.supervisor,
        server=found.server,
        daemon=found.daemon,
        server_version=found.version,
        uptime_s=found.uptime_s,
        restarts=found.restarts,
        leading=said.leading if said else None,
        head=said.position + said.lag_seq if said else None,
        position=said.position if said else None,
        lag_seq=said.lag_seq if said else None,
        skipped=said.skipped if said else None,
        counters=said.counters if said else {},
        helpers=said.helpers if said else [],
        store_bytes=found.store_bytes,
        projections_bytes=found.projections_bytes,
        logs_bytes=found.logs_bytes,
    )


def embedded(common: Common) -> Settings:
    """The settings, of an embedded bus. Raises InvalidRequest for a remote one."""
    settings = settings_of(common)
    if settings.url is not None:
        raise InvalidRequest(
            "this command is for a bus on this machine",
            code="remote",
            found=settings.url,
            hint="Unset BUS_URL and BUS_CREDS, or run it where the bus runs",
        )
    return settings


def _init(common: Common, typed: Typed) -> None:
    settings = embedded(common)
    existed = (settings.home / HOME_FILE).exists()
    asked = {key: typed[f"{key}_"] for key in ("tenant", "owner") if typed.get(f"{key}_") is not None}
    if existed:
        # One that is there keeps its tenant and owner, unless others are asked for: then it is refused.
        known = open_home(settings.home).file
        asked = {"tenant": known.tenant, "owner": known.owner} | asked
    opened = home.create(settings.home, **asked)
    if common.json:
        write_json(
            {
                "home": str(opened.path),
                "created": not existed,
                "tenant": opened.file.tenant,
                "owner": opened.file.owner,
                "namespace": settings.namespace,
            }
        )
        return
    screen = Screen(sys.stdout)
    screen.line("there is a bus already: " if existed else "made a bus: ", (str(opened.path), "bold"))
    owner = f"owner {opened.file.owner}, tenant {opened.file.tenant}, namespace {settings.namespace}"
    screen.line((owner, "dim"), indent=2)
    if not existed:
        screen.line("try:")
        for line in ("bus join dev --as atlas", 'bus post dev "hello" --as atlas', "bus read dev", "bus --help"):
            screen.line(line, indent=2)


def _up(common: Common, typed: Typed) -> None:
    settings = embedded(common)
    opened = open_home(settings.home)
    ran = lifecycle.status(opened).server is not None
    timeout_s = common.timeout_s or settings.file.process.start_timeout_s
    server = lifecycle.ensure_up(opened, timeout_s=timeout_s)
    if common.json:
        write_json({"up": True, "started": not ran, "home": str(opened.path), "url": server.url})
        return
    Screen(sys.stdout).line("the bus runs already: " if ran else "the bus is up: ", (str(opened.path), "bold"))


def _down(common: Common, typed: Typed) -> None:
    settings = embedded(common)
    opened = open_home(settings.home)
    stopped = lifecycle.down(opened, timeout_s=common.timeout_s or settings.file.process.stop_timeout_s)
    if common.json:
        write_json({"up": False, "stopped": stopped, "home": str(opened.path)})
        return
    Screen(sys.stdout).line("the bus is down: " if stopped else "the bus was not running: ", (str(opened.path), "bold"))


def _adopt(common: Common, typed: Typed) -> None:
    settings = embedded(common)
    opened = home.adopt(settings.home)
    if common.json:
        write_json({"home": str(opened.path), "id": opened.file.id})
        return
    Screen(sys.stdout).line("adopted: ", (str(opened.path), "bold"), ", a bus of its own from now on")


def _status(common: Common, typed: Typed) -> None:
    state = state_of(open_home(embedded(common).home))
    if common.json:
        write_json(state)
    else:
        _show(Screen(sys.stdout), state)
    if not state.up:
        raise typer.Exit(Unavailable.exit_code)


def _show(screen: Screen, state: State) -> None:
    up: Part = ("up", "green") if state.up else ("down", "red") if state.server is None else ("starting", "yellow")
    rows: list[tuple[str, list[Part]]] = [
        ("bus", [up, f" for {span(state.uptime_s)}" if state.uptime_s is not None else ""]),
        ("home", [state.home]),
        ("tenant", [state.tenant]),
    ]
    if state.follows is not None:
        rows.append(("follows", [f"{state.follows}: see `bus projector status`"]))
    if state.server is not None:
        pids = f"supervisor {state.supervisor}, server {state.server}, daemon {state.daemon or '-'}"
        rows.append(("address", [f"{state.url} (nats-server {state.server_version})"]))
        rows.append(("processes", [pids, (f", {state.restarts} restarts", "yellow") if state.restarts else ""]))
    if state.head is not None:
        lag: Part = ("up to date", "green") if not state.lag_seq else (f"{state.lag_seq} events behind", "yellow")
        rows.append(("log", [f"#{state.head}"]))
        rows.append(("tables", [f"#{state.position}, ", lag]))
        rows.append(("leader", [("yes", "green") if state.leading else ("no", "yellow")]))
        if state.skipped:
            rows.append(("skipped", [(f"{state.skipped} events that this version cannot read", "yellow")]))
    for helper in state.helpers:
        rows.append((helper.name, [f"{helper.setting}: ", helper.found if helper.ok else (helper.found, "yellow")]))
    sizes = (
        f"log {size(state.store_bytes)}, tables {size(state.projections_bytes)}, diagnostics {size(state.logs_bytes)}"
    )
    rows.append(("size", [sizes]))
    for name, parts in rows:
        screen.line((f"{name:<10}", "dim"), *parts)
