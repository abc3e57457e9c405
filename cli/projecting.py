"""`bus projector`: a host that follows a bus elsewhere. What is typed, and what is printed.

Rules:
* `invite` runs where the bus runs; everything else on the host that follows.
* What serves the home is in `cli.projector`, kept alive by the supervisor like a bus of its own: any command of an
  agent starts it when it does not run, and `bus down` stops it.
* `status` starts nothing; it ends with 6 when the projector does not run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import typer
from msgspec.structs import replace

from bus import auth, remote
from bus.clock import SystemClock
from bus.config import Settings
from bus.domain import agent, log
from bus.durations import span
from bus.errors import InvalidRequest, NotFound, Refused, Unavailable
from bus.files import is_locked
from bus.home import HOME_FILE, Home, open_home
from bus.lifecycle import ensure_up, status
from bus.model import Reply
from bus.protocol import decode_progress, decode_reply
from bus.remote import Following, Remote
from bus.server import Server
from bus.subjects import care_subject
from cli import answers, asking
from cli.fields import Field, Typed
from cli.generate import Command, make_command
from cli.groups import Group, make_group
from cli.lifecycle import embedded
from cli.options import Common
from cli.render import Part, Screen, progress_bar, write_json

if TYPE_CHECKING:
    from bus.transport import Connection

TEXT = """A host that follows a bus elsewhere: it answers its own agents' queries and forwards their commands.

Where the bus runs, `bus projector invite` makes the credentials. On the other host, `bus projector run` follows; agents
there use `bus` as if the bus were theirs."""
VERBS = {
    "invite": "make credentials for another host and its agents (where the bus runs)",
    "run": "follow a bus elsewhere until interrupted",
    "status": "how far it is, how old what it knows is, and whether the bus is in reach",
    "rebuild": "make the tables anew from the log, beside those that are read",
    "verify": "fold the raw log and compare it with the tables",
}
LOOK_S = 0.1
LONG_S = 600.0
"""So long a rebuild or a proof may say nothing."""
_HOST = Field(name="host", flags=(), metavar="HOST", help="a name for the other host", place=0, required=True)
_AGENTS = Field(
    name="agents",
    flags=(),
    shape="many",
    metavar="AGENT",
    help="the agents that live there; who is not registered yet is now",
    place=1,
    required=True,
)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`bus projector status`. `stale_s`: seconds since the tables were known to contain everything that was stored
    (None: they never were). `said_s`: seconds since the projector said all this."""

    up: bool
    home: str
    url: str
    projector: str
    agents: tuple[str, ...]
    pid: int | None
    restarts: int
    connected: bool
    problem: str | None
    position: int
    head: int
    lag_seq: int
    stale_s: float | None
    skipped: int
    said_s: float | None
    counters: dict[str, int]


def group() -> Group:
    """`bus projector`."""
    acts: dict[str, tuple[tuple[Field, ...], Callable[[Common, Typed], None], str]] = {
        "invite": (
            (_HOST, _AGENTS),
            _invite,
            "Make credentials with which another host can follow this bus, and forward for the agents that live there. "
            "Whoever has them can read everything, private messages included.",
        ),
        "run": (
            (),
            _run,
            "Follow the bus at BUS_URL with the credentials BUS_CREDS until interrupted. Once it has run, neither is "
            "needed again.",
        ),
        "status": ((), _status, "Show how the projector is. Ends with 6 when it does not run."),
        "rebuild": ((), _rebuild, "Make the tables anew from the log. Queries are answered meanwhile."),
        "verify": ((), _verify, "Fold the raw log and compare every table's digest. Ends with 1 when one differs."),
    }

    def made(verb: str) -> Command:
        fields, act, text = acts[verb]
        sample = "bus projector invite laptop nova wren" if fields else f"bus projector {verb}"
        return make_command(verb, fields, act, text, sample)

    found = make_group("projector", {verb: partial(made, verb) for verb in VERBS}, TEXT)
    found.sections = lambda: (("Commands", list(VERBS.items())),)
    return found


# --- where the bus runs ---------------------------------------------------------------------------------------------


def _invite(common: Common, typed: Typed) -> None:
    host, agents = typed.get(_HOST.param), typed.get(_AGENTS.param) or []
    if not isinstance(host, str) or not agents:
        missing = "HOST" if not isinstance(host, str) else "AGENT"
        raise InvalidRequest(f"{missing} is missing", code="missing", hint="See `bus projector invite --help`")
    auth.user_name("projector", host)
    opened = open_home(embedded(common).home)
    if opened.follows:
        raise Refused(
            "this home follows a bus elsewhere",
            code="follows",
            entity=str(opened.path),
            expected="the home of the bus itself",
            found="the home of a projector",
            hint="Run it where the bus runs",
        )
    anyio.run(_register, replace(common, agent=opened.file.owner), agents)
    creds = opened.keyring.projector(host, agents)
    path = str(opened.keyring.creds / f"{creds.name}.creds")
    url = status(opened).url
    if common.json:
        write_json({"projector": host, "agents": list(creds.agents), "creds": path, "url": url})
        return
    screen = Screen(sys.stdout)
    screen.line("credentials of projector ", (host, "bold"), f" for {', '.join(creds.agents)}: {path}")
    screen.line(f"the bus is at {url}", indent=2)


async def _register(common: Common, agents: list[str]) -> None:
    """Register those that are not. Raises InvalidRequest for names that may not be, before anything is written."""
    for name in agents:
        auth.user_name("agent", name)
    async with asking.connected(common) as asker:
        for name in agents:
            await asker.call(agent.Register(agent=name))


# --- on the host that follows ---------------------------------------------------------------------------------------


def _run(common: Common, typed: Typed) -> None:
    from cli.supervisor import supervise

    settings = asking.settings_of(common)
    opened, followed = _following(settings, common.debug)

    def ready(server: Server) -> None:
        if common.json:
            write_json({"event": "started", "home": str(opened.path), "url": followed.url, "server": server.url})
            return
        screen = Screen(sys.stdout)
        screen.line("following ", (followed.url, "bold"), f" for {', '.join(followed.creds.agents)}")
        screen.line(f"agents on this host: BUS_HOME={opened.path}, and BUS_AGENT={followed.creds.agents[0]}", indent=2)
        screen.flush()

    try:
        supervise(opened, ready)
    except Unavailable as error:
        if error.code != "locked":
            raise
        raise _in_use(opened) from None
    if common.json:
        write_json({"event": "stopped", "home": str(opened.path)})


def _in_use(opened: Home) -> Refused:
    what = "the projector of this home" if opened.follows else "a bus of its own"
    return Refused(
        f"{what} runs here already",
        code="in_use",
        entity=str(opened.path),
        expected="a home that nobody serves",
        found="one with a supervisor",
        hint="`bus status` shows it, `bus down` stops it; --home or BUS_HOME names another home",
    )


def _following(settings: Settings, debug: bool) -> tuple[Home, Remote]:
    """The home of a projector, and what it follows: what is named now, or what it followed before. Raises BusError when
    the bus does not accept us, or cannot be reached and never could."""
    place = settings.home
    known = open_home(place) if (place / HOME_FILE).exists() else None
    if known is not None and is_locked(known.supervisor_lock):
        raise _in_use(known)
    if settings.url is not None and settings.creds is not None:
        wanted = Remote(url=settings.url, creds=remote.read_credentials(settings.creds))
    elif known is not None and (followed := remote.read(known)) is not None:
        wanted = followed
    else:
        raise InvalidRequest(
            "nothing says which bus to follow",
            code="no_remote",
            entity=str(place),
            expected="BUS_URL and BUS_CREDS, or --url and --creds",
            found="neither",
            hint=f"For credentials: {remote.INVITE}",
        )
    try:
        anyio.run(_reach, wanted, debug)
    except Unavailable as error:
        if known is None or not known.follows:
            raise
        Screen(sys.stderr).line(("warning: ", "yellow"), f"{error} What is known here is answered meanwhile.")
    return remote.follow(place, wanted), wanted


async def _reach(wanted: Remote, debug: bool) -> None:
    # The network comes when it is needed: `bus projector status` does without.
    from cli.uplink import reach

    asking.keep_output_clean(debug)
    await reach(wanted)


def _home(common: Common) -> tuple[Home, Remote]:
    """The home of a projector that has been run. Raises NotFound."""
    opened = open_home(asking.settings_of(common).home)
    followed = remote.read(opened)
    if followed is None:
        raise NotFound(
            "no projector was run here",
            code="no_projector",
            entity=str(opened.path),
            expected="a home that follows a bus elsewhere",
            found="a bus of its own",
            hint="bus projector run; --home or BUS_HOME names another home",
        )
    return opened, followed


def state_of(opened: Home, followed: Remote) -> State:
    """What `bus projector status` shows."""
    runs = status(opened)
    said = remote.read_following(opened)
    now_s = SystemClock().server_ns() / 1e9
    empty = Following(
        pid=0,
        url=followed.url,
        account=followed.creds.account,
        projector=followed.creds.name,
        agents=followed.creds.agents,
        connected=False,
        problem=None,
        position=0,
        head=0,
        skipped=0,
        complete_s=None,
        at_s=now_s,
    )
    last = said or empty
    up = runs.daemon is not None and runs.server is not None
    return State(
        up=up,
        home=str(opened.path),
        url=last.url,
        projector=last.projector,
        agents=last.agents,
        pid=runs.daemon,
        restarts=runs.restarts,
        connected=up and last.connected,
        problem=last.problem if up else None,
        position=last.position,
        head=last.head,
        lag_seq=last.head - last.position,
        stale_s=round(max(0.0, now_s - last.complete_s), 1) if last.complete_s is not None else None,
        skipped=last.skipped,
        said_s=round(max(0.0, now_s - last.at_s), 1) if said is not None else None,
        counters=last.counters,
    )


def _status(common: Common, typed: Typed) -> None:
    state = state_of(*_home(common))
    if common.json:
        write_json(state)
    else:
        _show(Screen(sys.stdout), state)
    if not state.up:
        raise typer.Exit(Unavailable.exit_code)


def _show(screen: Screen, state: State) -> None:
    up: Part = ("up", "green") if state.up else ("down", "red")
    reach: Part = ("connected", "green") if state.connected else ("out of reach", "red")
    lag: Part = ("up to date", "green") if not state.lag_seq else (f"{state.lag_seq} events behind", "yellow")
    fresh = "never complete yet" if state.stale_s is None else f"as the bus was {span(state.stale_s)} ago"
    rows: list[tuple[str, list[Part]]] = [
        ("projector", [up, f" in {state.home}"]),
        ("bus", [state.url, " ", reach, f": {state.problem}" if state.problem else ""]),
        ("agents", [", ".join(state.agents)]),
        ("log", [f"#{state.head}"]),
        ("tables", [f"#{state.position}, ", lag, f", {fresh}"]),
    ]
    if state.skipped:
        rows.append(("skipped", [(f"{state.skipped} events that this version cannot read", "yellow")]))
    if state.restarts:
        rows.append(("restarts", [(str(state.restarts), "yellow")]))
    for name, parts in rows:
        screen.line((f"{name:<10}", "dim"), *parts)


def _verify(common: Common, typed: Typed) -> None:
    moment: log.Moment = anyio.run(_ask, common, "verify", log.Moment)
    if common.json:
        write_json(moment)
    else:
        answers.show(Screen(sys.stdout), log.Tables(verify=True), moment)
    if not moment.equal:
        raise typer.Exit(1)


def _rebuild(common: Common, typed: Typed) -> None:
    made: Reply = anyio.run(_ask, common, "rebuild", Reply)
    if common.json:
        write_json({"seq": made.seq})
        return
    Screen(sys.stdout).line((f"#{made.seq}", "cyan"), "  the tables were made anew from the log")


async def _ask(common: Common, verb: str, kind: type[Any]) -> Any:
    """Have the projector of this home do something that takes long; it is started if it does not run."""
    from bus.transport import connect

    asking.keep_output_clean(common.debug)
    opened, _ = _home(common)
    settings = asking.settings_of(common)
    server = await anyio.to_thread.run_sync(partial(ensure_up, opened, timeout_s=settings.file.process.start_timeout_s))
    creds = opened.keyring.daemon()
    asked = partial(_asked, verb=verb, kind=kind, silent_s=common.timeout_s or LONG_S)
    async with connect(server.url, creds=creds.text, name=f"projector {verb}", inbox=creds.inbox) as connection:
        # The server is up before the projector is.
        patient_until = anyio.current_time() + settings.file.process.start_timeout_s
        while (answer := await asked(connection)) is None and anyio.current_time() < patient_until:  # noqa: ASYNC110
            await anyio.sleep(LOOK_S)
    if answer is not None:
        return answer
    raise Unavailable(
        "the projector of this home does not answer",
        code="no_responders",
        entity=str(opened.path),
        expected=f"a projector within {settings.file.process.start_timeout_s:g} s",
        found="none",
        hint="`bus projector status` shows it; its log is logs/daemon.log in the home",
    )


async def _asked(connection: Connection, verb: str, kind: type[Any], silent_s: float) -> Any:
    """What it answers; None when there is none (yet)."""
    with progress_bar() as report:
        try:
            async for message in connection.request_many([(care_subject(verb), b"", None)], silent_s):
                progress = decode_progress(message.data)
                if progress is None:
                    return decode_reply(kind, f"projector {verb}", message.data)
                if report is not None:
                    report(progress)
        except Unavailable as error:
            if error.code not in ("no_responders", remote.ENDING):
                raise
    return None
