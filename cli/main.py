"""`bus`: the command line. Finds the command, runs it, and turns every way to end into output and an exit code.

    0 done · 2 bad usage or invalid input · 3 refused · 4 not found · 5 not allowed · 6 unavailable · 1 a defect
    130 interrupted; whoever reads the output may go away at any time (0)

Rules:
* An error goes to standard error; with `--json` it is the one document on standard output, `{"error": {...}}`, shaped
  like the answer of the bus itself, and standard error stays empty.
* `bus --version` imports nothing but this file; a command imports its own families' code and never a database.
* Nothing is decided here: what is allowed and what it means is the bus's business.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
"""That of `typing`, whose import takes longer than all else that `bus --version` does."""
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from bus.errors import BusError
    from cli.groups import Group, Sections

INTERRUPTED = 130
TEXT = """Coordination and shared memory for teams of AI agents.

Everything that is written is an event of one log, so every question can be asked about any moment."""


def run() -> None:
    """The entry point of the command `bus`."""
    # Nothing of what is imported from here on is ever thrown away: looking for garbage in it costs a tenth of the time.
    gc.disable()
    arguments = sys.argv[1:]
    if arguments[:1] in (["--version"], ["-V"]):
        from bus import __version__

        sys.stdout.write(f"bus {__version__}\n")
        return
    # What a terminal or a pipe cannot encode is shown escaped; it never ends a command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    _leave(main(arguments))


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    words = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    as_json = "--json" in words
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        try:
            code = _report(error, as_json=as_json)
        except BrokenPipeError:
            code = _reader_gone()
    return code


def _dispatch(arguments: Sequence[str]) -> int:
    from cli import words

    if (plain := words.read(arguments)) is not None:
        return plain.carry_out()
    code = root().main(args=list(arguments), prog_name="bus", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _leave(code: int) -> None:
    """End this process. What was said is out, and whatever was opened is closed: what remains is to take an interpreter
    apart that ends anyway, which takes a tenth of the time of a whole command."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # There is none, or nobody who reads it: `main` has said so.
            continue
    os._exit(code)


def _reader_gone() -> int:
    from cli.render import give_up_output

    give_up_output()
    return 0


# --- errors ---------------------------------------------------------------------------------------------------------


def _report(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong and return the exit code."""
    from cli.render import ReaderGone, Screen, write_json

    if isinstance(error, BrokenPipeError | ReaderGone):
        return _reader_gone()
    known = _known(error)
    problem = known.problem
    if as_json:
        write_json({"error": problem})
        return known.exit_code
    screen = Screen(sys.stderr)
    about = f"{problem.entity}: " if problem.entity and problem.entity not in problem.message else ""
    first, *rest = (about + problem.message).split("\n")
    screen.line(("error: ", "bold red"), first)
    for line in rest:
        screen.line(line, indent=2)
    for word, text in (("expected", problem.expected), ("found", problem.found)):
        if text is not None:
            screen.line((f"{word:<8}  ", "dim"), text, indent=2)
    if problem.hint:
        screen.block(problem.hint, indent=2, style="dim")
    return known.exit_code


def _known(error: Exception) -> BusError:
    """`error` as one of ours."""
    from bus.errors import BusError, Defect, InvalidRequest

    if isinstance(error, BusError):
        return error
    # typer does not name the parent of all its usage errors; it is the one of the error that it does name. (Who has not
    # imported it has met none.)
    typer: Any = sys.modules.get("typer")
    if typer is not None and isinstance(error, typer.BadParameter.__mro__[1]):
        context = getattr(error, "ctx", None)
        hint = f"See `{context.command_path} --help`" if context is not None else "See `bus --help`"
        message = error.format_message().rstrip(".")
        if "extra argument" in message:
            hint = f"A text of several words goes in quotes. {hint}"
        return InvalidRequest(message, code="usage", hint=hint)
    return Defect(
        f"{type(error).__name__}: {error}",
        hint="This is a defect of bus. --debug shows where it happened; the logs are in the home (see `bus status`)",
    )


# --- commands -------------------------------------------------------------------------------------------------------

LIFECYCLE = {
    "init": "make a bus for this repository or directory",
    "up": "start it (any other command does so too)",
    "down": "stop it",
    "status": "what runs, and how far it is",
    "doctor": "check everything that it needs",
    "adopt": "make a copied or moved home a bus of its own",
}
REFERENCE = {
    "call": "ask for any operation with JSON",
    "help": "describe operations and their fields",
}
PROJECTOR = {"projector": "follow a bus elsewhere, for the agents of this host"}
GUARD = {"guard": "refuse commits of paths that another agent holds"}
WORK = {"work": "take tasks one after the other and run a command for each"}
GROUPS = {
    "dm": "say something to one agent alone",
    "intent": "what agents are about to do, so that two do not begin the same",
    "inbox": "what is addressed to you and unread",
    "log": "the events themselves",
    "replay": "the state of any moment, proved from the log",
}
"""Families with a default verb: they are daily commands as well."""


def root() -> Group:
    """The command `bus`."""
    from functools import partial

    from cli.daily import DAILY, FAMILIES
    from cli.groups import make_group

    members: dict[str, Callable[[], Any]] = {name: partial(_daily, name) for name in DAILY}
    members |= {name: partial(_family, name) for name in (*GROUPS, *FAMILIES)}
    members |= dict.fromkeys(WORK, _work) | dict.fromkeys(GUARD, _guard)
    members |= dict.fromkeys(PROJECTOR, _projector)
    members |= {name: partial(_lifecycle, name) for name in LIFECYCLE}
    members |= {name: partial(_reference, name) for name in REFERENCE}
    group = make_group("bus", members, TEXT, completion=True)
    group.sections = _sections
    return group


def _sections() -> Sections:
    from cli.daily import DAILY, FAMILIES, asked

    daily = [(name, text) for name, (_, text) in DAILY.items()]
    verbs = [(name, ", ".join(one.verb.replace("_", "-") for one in asked(name))) for name in FAMILIES]
    return (
        ("Every day", [*daily, *WORK.items(), *GROUPS.items()]),
        ("The bus itself", [*LIFECYCLE.items(), *GUARD.items(), *PROJECTOR.items()]),
        ("Everything, by family", verbs),
        ("For programs", list(REFERENCE.items())),
    )


def _daily(name: str) -> Any:
    from cli import daily

    return daily.daily_command(name)


def _family(name: str) -> Any:
    from cli import daily

    return daily.group(name)


def _work() -> Any:
    from cli import work

    return work.command()


def _guard() -> Any:
    from cli import precommit

    return precommit.group()


def _projector() -> Any:
    from cli import projecting

    return projecting.group()


def _lifecycle(name: str) -> Any:
    from cli import doctor, lifecycle

    return doctor.command() if name == "doctor" else lifecycle.commands()[name]()


def _reference(name: str) -> Any:
    from cli import reference

    return reference.call_command() if name == "call" else reference.help_command()


if __name__ == "__main__":
    run()
