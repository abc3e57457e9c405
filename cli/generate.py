"""Commands made from descriptions: one typer command from the fields of an operation, or of a hand-made list.

Rules:
* A command is a name, its Fields and what it does with what was typed; operations and hand-made commands are built the
  same way, so the global options work everywhere, before and behind the command's name.
* typer parses, completes and finds the command; values stay as they were typed, because the request structs say what
  is valid. (typer's own conversion would import pydantic, a third of the time that `bus post` may take.)
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Optional, TypeVar

import typer
from typer.core import TyperCommand

from bus.errors import BusError
from bus.model import Operation
from bus.subjects import is_name
from cli.fields import Field, Typed
from cli.options import GLOBALS, Act, common_of, placed, usage
from cli.render import ReaderGone

SAMPLES = {
    "channel": "dev",
    "task": "t-4k7mzq2xwd",
    "session": "s-1",
    "directive": "d-4k7mzq2xwd",
    "reminder": "r-4k7mzq2xwd",
    "to": "nova",
    "agent": "nova",
    "message": "12",
    "key": '"fix auth"',
    "paths": "src/auth/",
    "event": "12",
    "upto": "12",
    "text": '"the tests pass"',
    "title": '"fix auth"',
    "emoji": "+1",
    "table": "task",
    "sql": '"select count(*) from task"',
}
"""What examples in help texts are made of, by field."""

P = TypeVar("P")
HELP = {"help_option_names": ["--help", "-h"]}
AGENT_FIELDS = ("agent", "to", "owner", "opener", "member", "parent", "giver", "setter")
"""Fields that take the name of an agent: the shell completes it."""


def _above(context: Any) -> list[Typed]:
    levels: list[Typed] = []
    while (context := context.parent) is not None:
        levels.insert(0, context.params)
    return levels


class _AsTyped:
    """Stands in for typer's conversion of values: what was typed is passed on."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        return value


# --- commands -------------------------------------------------------------------------------------------------------


class Command(TyperCommand):
    """A command whose help is laid out from its fields."""

    fields: tuple[Field, ...] = ()

    def get_help_option(self, ctx: Any) -> Any:
        return unconverted(super().get_help_option(ctx))

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, usage(self.fields))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        format_fields(self.fields, formatter)
        format_globals(formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{self.epilog}\n")


def format_fields(fields: Sequence[Field], formatter: Any) -> None:
    """Arguments, a command's own options, and those that all commands or queries have."""
    sections = (
        ("Arguments", [field for field in fields if field.place is not None]),
        ("Options", [field for field in fields if field.place is None and not field.common]),
        ("Position and context", [field for field in fields if field.place is None and field.common]),
    )
    for title, members in sections:
        if members:
            with formatter.section(title):
                formatter.write_dl([(label_of(field), explanation_of(field)) for field in members])


def format_globals(formatter: Any) -> None:
    with formatter.section("Everywhere"):
        formatter.write_text(", ".join(label_of(field) for field in GLOBALS) + " (see bus --help)")


def label_of(field: Field) -> str:
    if field.place is not None:
        return field.metavar
    label = ", ".join(field.flags)
    return label if field.shape in ("flag", "switch") else f"{label} {field.metavar}"


def explanation_of(field: Field) -> str:
    notes = []
    if field.place is not None and field.choices:
        notes.append(", ".join(field.choices))
    if field.stdin:
        notes.append("- reads standard input")
    if field.shape in ("many", "pairs") and field.place is None:
        notes.append("repeatable")
    if field.default:
        notes.append(f"default {field.default}")
    return " ".join([field.help, f"[{'; '.join(notes)}]"] if notes else [field.help]).strip()


def make_command(name: str, fields: tuple[Field, ...], act: Act, text: str, example: str = "") -> Command:
    """A command that calls `act` with the global options and what was typed."""

    def callback(context: typer.Context, **typed: Any) -> int | None:
        common = common_of([*_above(context), typed])
        try:
            return act(common, placed(fields, typed))
        except typer.Exit:
            raise
        except BrokenPipeError as error:
            # typer would take it for an error and end with 1.
            raise ReaderGone from error
        except Exception:
            if common.debug:
                traceback.print_exc()
            raise

    sign(callback, [*_parameters(fields), *global_parameters()])
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Command, help=text, epilog=example, context_settings=HELP)(callback)
    command = typer.main.get_command(app)
    assert isinstance(command, Command)
    command.fields = fields
    for param in command.params:
        unconverted(param)
    return command


def operation_command(path: str, operation: Operation, fields: tuple[Field, ...], act: Act) -> Command:
    """The command of an operation: `path` is what is typed before its arguments."""
    return make_command(path.rpartition(" ")[2], fields, act, operation.help, example(f"bus {path}", fields))


def example(path: str, fields: Sequence[Field]) -> str:
    """A line that can be typed."""
    words = [
        SAMPLES.get(field.name) or (field.choices[0] if field.choices else field.name)
        for field in fields
        if field.place is not None
    ]
    return " ".join([path, *words])


def _parameters(fields: Sequence[Field]) -> list[inspect.Parameter]:
    """Arguments (which may be given as options too, without being listed as such), then options."""
    places = [field for field in fields if field.place is not None]
    found = [_argument(field) for field in places]
    found += [_option(field, f"{field.param}option", hidden=True) for field in places if field.flags]
    return found + [_option(field, field.param) for field in fields if field.place is None]


def global_parameters() -> list[inspect.Parameter]:
    return [
        _option(field, f"global_{field.param}", envvar="BUS_DEBUG" if field.name == "debug" else None)
        for field in GLOBALS
    ]


def _argument(field: Field) -> inspect.Parameter:
    kind: Any = list[str] if field.shape == "many" else str
    info = typer.Argument(metavar=field.metavar, help=field.help, autocompletion=_completion(field))
    return _parameter(field.param, kind, info)


def _option(field: Field, param: str, *, hidden: bool = False, envvar: str | None = None) -> inspect.Parameter:
    kind: Any = {"flag": bool, "switch": bool, "one": str}.get(field.shape, list[str])
    info = typer.Option(
        *field.flags,
        metavar=None if kind is bool else field.metavar,
        help=field.help,
        hidden=hidden,
        envvar=envvar,
        autocompletion=_completion(field),
    )
    return _parameter(param, kind, info)


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    annotation = Annotated[Optional[kind], info]  # noqa: UP045 - the type is only known at run time
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _completion(field: Field) -> Callable[[str], list[str]] | None:
    if not field.choices and field.name not in AGENT_FIELDS:
        return None

    def complete(incomplete: str) -> list[str]:
        return [one for one in field.choices or _known_agents() if one.startswith(incomplete)]

    return complete


def _known_agents() -> list[str]:
    """The agents that have credentials in the home, whether or not a bus runs."""
    from bus import config

    with contextlib.suppress(BusError, OSError):
        names = (path.stem for path in (config.load().home / "creds").glob("*.creds"))
        return sorted(name for name in names if is_name(name))
    return []


def sign(callback: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
    """Give `callback` the signature that typer reads."""
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    every = [context, *parameters]
    callback.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    callback.__annotations__ = {parameter.name: parameter.annotation for parameter in every}


def unconverted(param: P) -> P:
    """`param`, without typer's conversion of its value."""
    # An attribute that only newer typers have. Should it change, values arrive converted to text, and a little later.
    name = "_runtime_param"
    if hasattr(param, name):
        setattr(param, name, _AsTyped())
    return param
