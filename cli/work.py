"""`bus work`: a command runs for each task that an agent takes. What is typed, and what is printed.

Rule: what the worker does is in `cli.worker`. Nobody has to listen to it: when its output is closed it works on.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from typing import Any

import typer
from msgspec.structs import replace

from bus import config
from bus.domain import task_requests as ask
from bus.durations import duration
from bus.errors import InvalidRequest, NotFound
from bus.operation import OPERATION_OF
from cli import asking
from cli.fields import Field, Typed, fields_of, request_of, value_of
from cli.generate import Command, make_command
from cli.guard import Guard
from cli.options import Common
from cli.render import Part, Screen, give_up_output, write_json
from cli.worker import Plan, Worker

LEASE_S = 120
"""Short: what a worker that dies has claimed is free again soon."""
MOST = 64
GRACE_S = 10.0
POLICIES = ("release", "finish")
SHELL = "/bin/sh"
TEXT = """Take the best task, run a command for it, and go on with the next.

The command gets the task as JSON on standard input, and BUS_TASK, BUS_FENCE, BUS_AGENT, BUS_HOME, BUS_NAMESPACE,
BUS_CHANNEL and BUS_RESULT in its environment, so that `bus post "$BUS_CHANNEL" "half way" --fence "$BUS_FENCE"` works
in it. Exit code 0 completes the task, any other fails it (and it is tried again while it has retries left). The result
is what the command writes to the file BUS_RESULT, as text or as {"result": "...", "refs": [SEQ]}; without that it is
the end of its output.

The lease is renewed while the command runs. A command is stopped, with everything that it has started, when its claim
is lost or reaches its cap. SIGTERM or Ctrl-C stops the worker; a second one stops it at once."""
EXAMPLE = "bus work --as nova --label docs --exec 'claude -p \"do the task on standard input\"'"


def _count(most: int) -> Any:
    def read(word: str) -> int:
        if not (word.isdecimal() and word.isascii() and 1 <= int(word[:9]) <= most):
            raise ValueError(f"a whole number from 1 to {most}")
        return int(word)

    return read


def _policy(word: str) -> str:
    if word not in POLICIES:
        raise ValueError(" or ".join(POLICIES))
    return word


OWN = (
    Field(name="exec", flags=("--exec",), metavar="COMMAND", required=True, help="what runs for each task"),
    Field(name="shell", flags=("--shell",), shape="flag", help="let a shell read COMMAND"),
    Field(
        name="channel",
        flags=("--channel",),
        metavar="NAME",
        help="where the output is told now and then (default: the channel of the message the task comes from)",
    ),
    Field(name="parallel", flags=("--parallel",), metavar="N", read=_count(MOST), help="so many at once", default="1"),
    Field(name="max", flags=("--max",), metavar="N", read=_count(10**9), help="end after so many tasks"),
    Field(
        name="idle_exit", flags=("--idle-exit",), metavar="TIME", read=duration, help="end when there was nothing to do"
    ),
    Field(
        name="on_stop",
        flags=("--on-stop",),
        metavar="release|finish",
        choices=POLICIES,
        read=_policy,
        help="stop the commands and give their tasks back, or let them finish",
        default="release",
    ),
    Field(
        name="grace",
        flags=("--grace",),
        metavar="TIME",
        read=duration,
        help="a command that is stopped is killed after so long",
        default="10s",
    ),
)
_NEXT = OPERATION_OF[ask.Next]


def _taking() -> tuple[Field, ...]:
    """The options of `bus next` that say which tasks are taken, and how."""
    shown = [field for field in fields_of(_NEXT) if not field.common]
    return tuple(replace(field, default="2m") if field.name == "lease_s" else field for field in shown)


def command() -> Command:
    """The command `bus work`."""
    taking = _taking()
    return make_command("work", (*OWN, *taking), lambda common, typed: _work(taking, common, typed), TEXT, EXAMPLE)


def _work(taking: tuple[Field, ...], common: Common, typed: Typed) -> None:
    asking.run(work, common, plan_of(taking, typed))


def plan_of(taking: tuple[Field, ...], typed: Typed) -> Plan:
    """What was typed. Raises InvalidRequest, or NotFound when there is no such program."""
    given = {field.name: value for field in OWN if (value := value_of(field, typed, str)) is not None}
    wanted = request_of(_NEXT, taking, typed, str)
    assert isinstance(wanted, ask.Next)
    return Plan(
        words=_words(given.pop("exec", ""), bool(given.pop("shell", False))),
        wanted=replace(wanted, lease_s=wanted.lease_s or LEASE_S),
        most=given.pop("max", None),
        idle_exit_s=given.pop("idle_exit", None),
        grace_s=given.pop("grace", GRACE_S),
        **given,
    )


def _words(text: str, shell: bool) -> tuple[str, ...]:
    """The words of the command, the first of which can be started."""
    if not text.strip():
        raise InvalidRequest("--exec is missing", code="missing", hint="See `bus work --help`")
    if shell:
        return (SHELL, "-c", text)
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidRequest(
            "bad --exec", code="invalid", expected="words, quoted like a shell's", found=str(error)
        ) from None
    if shutil.which(words[0], path=config.search_path()) is None:
        raise NotFound(
            "there is no such program",
            entity=words[0],
            expected="a program on PATH or a path to one",
            hint="With --shell it can be anything that a shell understands",
        )
    return words


class Told:
    """Says what happens: JSON lines, or lines for people. Nobody has to listen."""

    def __init__(self, common: Common) -> None:
        self._json = common.json
        self._screen = Screen(sys.stdout)

    def __call__(self, event: str, **details: Any) -> None:
        try:
            if self._json:
                write_json({"event": event, **details})
            else:
                self._line(event, details)
        except BrokenPipeError:
            give_up_output()

    def _line(self, event: str, details: dict[str, Any]) -> None:
        parts: list[Part] = [(f"#{details['seq']}  ", "cyan")] if "seq" in details else []
        parts.append((event, "bold"))
        parts += [f"  {details[key]}" for key in ("task", "title", "signal") if key in details]
        notes = [f"{key} {details[key]}" for key in details if key not in ("seq", "task", "title", "signal", "why")]
        self._screen.line(*parts, (f"  {', '.join(notes)}" if notes else "", "dim"), f"  {details.get('why', '')}")
        self._screen.flush()


async def work(common: Common, plan: Plan) -> None:
    """Work until told to stop, or until the plan is fulfilled."""
    async with asking.connected(common, asking.FOLLOW_TIMEOUT_S) as asker:
        guard = Guard(plan.grace_s)
        try:
            worker = Worker(asker, asking.settings_of(common), plan, Told(common), guard)
            await worker.run()
        finally:
            guard.close()
    if worker.failure is not None:
        raise worker.failure
    if worker.stopped_by == signal.SIGINT:
        raise typer.Exit(128 + signal.SIGINT)
