"""The commands of operations: every one under its family, the daily ones also at the top, four with a hand of polish.

Rules:
* Every command builds the request struct of its operation and shows the answer; what is allowed is not known here.
* A family's group may have a default verb: `bus inbox` peeks, `bus log` lists, `bus dm nova hello` posts.
* A family is imported when one of its commands is built: `bus post` does without the others.
* Only building a command imports typer; what is typed plainly needs none (`cli/words.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bus.errors import InvalidRequest
from bus.families import MODULES, UNASKED, operation_named, operations_of
from bus.model import Operation, PageQuery, Query, Request
from cli import asking
from cli.fields import Field, Typed, fields_of, request_of
from cli.options import Act, Common
from cli.render import Screen
from cli.repository import from_here

if TYPE_CHECKING:
    from bus.domain import inbox, log
    from cli.generate import Command
    from cli.groups import Group

DAILY: Mapping[str, tuple[str, str]] = {
    "join": ("channel.join", "become a member of a channel; opens it if need be"),
    "leave": ("channel.leave", "stop being a member"),
    "post": ("channel.post", "say something in a channel"),
    "read": ("channel.read", "the newest messages of a channel, or live with --follow"),
    "who": ("agent.who", "who is there, and what they hold"),
    "claim": ("task.claim", "take a task: only you hold it until the lease ends"),
    "renew": ("task.renew", "make the lease of a task you hold end later"),
    "release": ("task.release", "give a task you hold back"),
    "done": ("task.complete", "finish a task you hold"),
    "fail": ("task.fail", "say that a task you hold could not be done"),
    "next": ("task.next", "take the best task that is waiting"),
    "handoff": ("task.handoff", "pass a task you hold to another agent"),
    "reserve": ("reservation.reserve", "keep paths or globs for yourself for a while"),
    "remind": ("reminder.set", "be reminded at a time, in a while, or every so often"),
    "remember": ("memory.write", "keep a fact or a rule for everybody, or for yourself"),
    "recall": ("memory.recall", "what is remembered and was said about a question, the best first"),
    "wake": ("journal.wake", "what you must know when you start: claims, unread, directives, your journal"),
}
"""Short names of operations at the top level, and what they do.
`inbox`, `dm`, `intent`, `log` and `replay` are groups with a default verb."""
RUN = "replay.run"
"""What `bus replay` stands for: no operation, but one of three."""
DEFAULTS = {"dm": "post", "inbox": "peek", "intent": "declare", "log": "list", "replay": "run"}
EXAMPLES = {
    "task.open": 'bus task open "fix auth" --priority 2 --label backend',
    "task.claim": "bus claim t-4k7mzq2xwd --lease 10m",
    "task.complete": 'bus done t-4k7mzq2xwd --result "merged"',
    "task.next": "bus next --lease 30m --label backend",
    "channel.read": "bus read dev --limit 20",
    "dm.post": 'bus dm nova "can you review #12?"',
    "inbox.peek": "bus inbox --ack",
    "intent.declare": 'bus intent "fix auth" --text "rotate the signing keys" --lease 30m',
    "reservation.reserve": 'bus reserve src/auth/ "tests/**/test_auth*.py" --reason "new tokens" --lease 1h',
    "reservation.release": "bus reservation release --all",
    "reservation.check": 'bus reservation check "src/**/*.py"',
    "reminder.set": 'bus remind "look at the build" --in 20m',
    "directive.give": 'bus directive give "run the tests" --to nova --due-in 2h',
    "journal.write": 'bus journal write --focus "the parser" --next-step "test odd input"',
    "memory.write": 'bus remember "tests need a running server" --subject ci --tag tests',
    "memory.supersede": 'bus memory supersede m-4k7mzq2xwd "the port is 4222"',
    "memory.assemble": "bus memory assemble --category do_not",
    "memory.recall": 'bus recall "why did we change the port?" --k 5 --explain',
    "session.open": "bus session open s-1 --title auth --strategy window --recent-turns 30",
    "session.add": "bus session add s-1 user - < question.txt",
    "session.configure": "bus session configure s-1 --compact-at-tokens 50000",
    "session.compact": "bus session compact s-1 --keep 4 --wait 1m",
    "session.context": 'bus session context s-1 --query "which port?" --budget-tokens 8000',
    "session.messages": "bus session messages s-1 --limit 20 --as-of -1d",
    "session.to_string": "bus session to-string s-1",
    "session.history": "bus session history s-1 --since 41",
    "kv.set": """bus kv set build:status '{"state": "red"}' --expires-in 1h""",
    "kv.merge": """bus kv merge build:status '{"state": "green", "note": null}'""",
    "kv.get": "bus kv get build:status --as-of -10m",
    "kv.delete": "bus kv delete build:status --expect 41",
    "kv.history": "bus kv history build:status --limit 5",
    "kv.list": "bus kv list --prefix build:",
    "stream.append": """bus stream append user:4321 '{"asked": "where the keys are"}'""",
    "stream.read": "bus stream read user:4321 --limit 20",
    "vault.create": 'bus vault create notes/plan.md "# The plan"',
    "vault.write": "bus vault write notes/plan.md - < plan.md",
    "vault.patch": 'bus vault patch notes/plan.md --old "Monday" --new "Tuesday"',
    "vault.delete": "bus vault delete notes/plan.md",
    "vault.rename": "bus vault rename notes archive/notes",
    "vault.read": "bus vault read notes/plan.md --as-of -1d",
    "vault.list": "bus vault list --directory notes",
    "vault.history": "bus vault history notes/plan.md",
    "vault.diff": "bus vault diff notes/plan.md --start 41",
    "vault.expand": 'bus vault expand "Follow @[notes/plan.md], but faster"',
    "memories.view": "bus memories view /memories/plan.md --view-range 1,20",
    "memories.create": 'bus memories create /memories/plan.md "# The plan"',
    "memories.str_replace": 'bus memories str-replace /memories/plan.md "Monday" --new-str "Tuesday"',
    "memories.insert": 'bus memories insert /memories/plan.md 2 "* test it"',
    "memories.delete": "bus memories delete /memories/plan.md",
    "memories.rename": "bus memories rename /memories/plan.md /memories/done.md",
    "vector.upsert": """bus vector upsert texts readme '[0.1, 0.7, -0.2]' --metadata '{"lang": "en"}'""",
    "vector.query": """bus vector query texts '[0.2, 0.6, -0.1]' --k 3 --where '{"lang": "en"}'""",
    RUN: 'bus replay --as-of -10m --sql "select state, count(*) from task group by 1"',
    "log.list": "bus log --from 1 --to 20 --json",
}
FOLLOW = Field(name="follow", flags=("--follow", "-f"), shape="flag", help="go on showing what is new, until Ctrl-C")
ACK = Field(name="ack", flags=("--ack",), shape="flag", help="mark what was shown as read")
LOG_PAGE = 1000
FOLLOWED = ("channel.read", "dm.read", "inbox.peek", "log.list", "task.board")


FAMILIES = tuple(name for name in MODULES if name not in UNASKED)
"""The groups of operations that can be asked for."""


def asked(family: str) -> list[Operation]:
    """The operations of a family that can be asked for."""
    return [operation for operation in operations_of(family) if not operation.internal]


def verbs_of(family: str) -> dict[str, Operation]:
    """The same, by what is typed behind the family's name."""
    return {operation.verb.replace("_", "-"): operation for operation in asked(family)}


def named(name: str) -> Operation:
    """The operation of that name, which exists."""
    operation = operation_named(name)
    assert operation is not None, name
    return operation


def command(path: str, operation: Operation) -> Command:
    """The command of an operation that is typed as `bus PATH`."""
    from cli.generate import operation_command

    made = operation_command(path, operation, *meant(operation))
    made.epilog = EXAMPLES.get(operation.name, made.epilog)
    return made


def meant(operation: Operation) -> tuple[tuple[Field, ...], Act]:
    """What may be typed for an operation, and what is then done."""
    if operation.name == "session.compact":
        # No other command needs it.
        from cli import compacting

        return (*fields_of(operation), compacting.WAIT), partial(compacting.act, operation)
    fields = fields_of(operation, {"start": "--from", "end": "--to"} if operation.name == "log.list" else {})
    if operation.name not in FOLLOWED:
        return fields, partial(_act, operation, fields)
    own = (FOLLOW, ACK) if operation.name == "inbox.peek" else (FOLLOW,)
    acts: dict[str, Act] = {"inbox.peek": partial(_inbox, operation, fields), "log.list": partial(_log, fields)}
    return (*fields, *own), acts.get(operation.name, partial(_read, operation, fields))


def daily_command(name: str) -> Command:
    """The command of a daily verb."""
    return command(name, named(DAILY[name][0]))


def group(family: str) -> Group:
    """The group of a family's commands."""
    from cli.groups import make_group

    verbs = verbs_of(family)
    members: dict[str, Callable[[], Any]] = {
        verb: partial(command, f"{family} {verb}", operation) for verb, operation in verbs.items()
    }
    rows = [(verb, summary(operation)) for verb, operation in verbs.items()]
    if family == "replay":
        members = {"run": _replay_command, **members}
    made = make_group(family, members, _about(family, asked(family)[0]))
    made.sections = lambda: (("Commands", rows),)
    made.default = DEFAULTS.get(family)
    return made


def _about(family: str, operation: Operation) -> str:
    """What a family is: the first line of the file that defines it."""
    module = sys.modules.get(f"bus.domain.{family}") or sys.modules[operation.request.__module__]
    return (module.__doc__ or family).partition("\n")[0]


def summary(operation: Operation) -> str:
    """The first sentence of an operation's help."""
    text = " ".join(operation.help.split())
    for end in (". ", ": ", "; "):
        text = text.partition(end)[0]
    return text.rstrip(".")


# --- what commands do -----------------------------------------------------------------------------------------------


def _act(operation: Operation, fields: tuple[Field, ...], common: Common, typed: Typed) -> None:
    request = from_here(request_of(operation, fields, typed, asking.stdin_text))
    asking.perform(common, operation, request)


def _read(operation: Operation, fields: tuple[Field, ...], common: Common, typed: Typed) -> None:
    request = request_of(operation, fields, typed, asking.stdin_text)
    if not typed.get(FOLLOW.param):
        asking.perform(common, operation, request)
        return
    assert isinstance(request, PageQuery)
    asking.run(_follow, common, request)


async def _follow(common: Common, request: PageQuery) -> None:
    screen = Screen(sys.stdout)

    async def shown(answer: Any) -> None:
        asking.show_items(common, screen, answer)

    async with asking.connected(common, asking.FOLLOW_TIMEOUT_S) as asker:
        await asking.follow(asker, request, shown)


def _inbox(operation: Operation, fields: tuple[Field, ...], common: Common, typed: Typed) -> None:
    request = request_of(operation, fields, typed, asking.stdin_text)
    asking.run(_peek, common, request, bool(typed.get(FOLLOW.param)), bool(typed.get(ACK.param)))


async def _peek(common: Common, request: inbox.Peek, follow: bool, ack: bool) -> None:
    """Show first, acknowledge then: what was not shown because the reader went away stays unread."""
    from bus.domain import inbox

    if ack and request.as_of is not None:
        raise InvalidRequest("--ack marks what is unread now, --as-of looks back: use one of them", code="usage")
    screen = Screen(sys.stdout)

    async def shown(answer: inbox.Items) -> None:
        if follow:
            asking.show_items(common, screen, answer)
        else:
            asking.show(common, request, answer)
        if ack and answer.items:
            await asker.call(inbox.Ack(upto=answer.upto))

    async with asking.connected(common, asking.FOLLOW_TIMEOUT_S if follow else None) as asker:
        if follow:
            await asking.follow(asker, request, shown)
        else:
            await shown(await asker.call(request))


def _log(fields: tuple[Field, ...], common: Common, typed: Typed) -> None:
    from bus.domain import log

    operation = named("log.list")
    request = request_of(operation, fields, typed, asking.stdin_text)
    assert isinstance(request, log.List)
    follow = bool(typed.get(FOLLOW.param))
    limited = typed.get("limit_") is not None
    if request.start is None and request.since is None and request.end is None:
        request = replace(request, newest=True)
    if follow:
        asking.run(_follow, common, request)
    else:
        asking.run(_list_log, common, request, not limited and request.start is not None)


async def _list_log(common: Common, request: log.List, whole: bool) -> None:
    """One page; or, when a range was asked for, all of its pages."""
    screen = Screen(sys.stdout)
    if whole:
        request = replace(request, limit=LOG_PAGE, newest=False)
    async with asking.connected(common) as asker:
        while True:
            answer: log.LogPage = await asker.call(request)
            asking.show_items(common, screen, answer)
            if not whole or not answer.events or answer.next == request.end:
                break
            request = replace(request, since=answer.next)
    if not answer.events and request.since is None and not common.json:
        screen.note("no events")


# --- replay ---------------------------------------------------------------------------------------------------------

_REPLAYED = ("replay.tables", "replay.table", "replay.sql")


def _replay_command() -> Command:
    """`bus replay`: one command for the three questions about a moment."""
    found: dict[str, Field] = {}
    for name in _REPLAYED:
        for field in fields_of(named(name)):
            found.setdefault(field.name, replace(field, place=None, required=False))
    found["table"] = replace(found["table"], help="the rows of this table instead of a summary of all")
    found["sql"] = replace(found["sql"], help="the answer to this select instead")
    found["limit"] = replace(found["limit"], default="")
    # Waiting for an event makes no sense for a look back.
    fields = tuple(field for name, field in found.items() if name != "wait_s")
    from cli.generate import make_command

    text = "Show the state of a moment: every table's rows and digest, one table's rows, or the answer to a select."
    return make_command("run", fields, partial(_replay, fields), text, EXAMPLES[RUN])


def _replay(fields: tuple[Field, ...], common: Common, typed: Typed) -> int:
    chosen = [name for name, key in (("replay.sql", "sql_"), ("replay.table", "table_")) if typed.get(key) is not None]
    from bus.domain import log

    if len(chosen) > 1:
        raise InvalidRequest("--table and --sql are two questions: use one of them", code="usage")
    operation = named(chosen[0] if chosen else "replay.tables")
    theirs = {field.name for field in fields_of(operation)}
    for field in fields:
        if field.name not in theirs and typed.get(field.param) is not None:
            raise InvalidRequest(
                f"{field.shown} does not go together with {_shown(chosen)}",
                code="usage",
                hint="See `bus replay --help`",
            )
    request: Request = request_of(operation, fields_of(operation), typed, asking.stdin_text)
    if isinstance(request, log.Sql) and typed.get("timeout_s_") is None and common.timeout_s is not None:
        request = replace(request, timeout_s=common.timeout_s)
    assert isinstance(request, Query)
    return asking.run(_replayed, common, operation, request)


def _shown(chosen: list[str]) -> str:
    return f"--{chosen[0].partition('.')[2]}" if chosen else "a summary (give --table or --sql)"


async def _replayed(common: Common, operation: Operation, request: Query) -> int:
    answer = await asking.ask(common, operation, request)
    asking.show(common, request, answer)
    # What the log says and what the tables say must never differ: it is a defect, and the command ends like one.
    return 1 if getattr(answer, "equal", None) is False else 0
