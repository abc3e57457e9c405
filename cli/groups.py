"""Groups of commands, which build their members when they are needed.

Rules:
* Only what is asked for is built: `bus post` makes one command, not a hundred, and help lists without building.
* A group may have a default member, whose name can be left out: `bus inbox --ack`, `bus dm nova hello`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from bus.errors import InvalidRequest
from cli.generate import (
    HELP,
    Command,
    explanation_of,
    format_fields,
    format_globals,
    global_parameters,
    label_of,
    sign,
    unconverted,
)
from cli.options import GLOBALS, first_word, usage

SETUP = (
    ("--install-completion", "let the shell you use complete commands, options and operations"),
    ("--show-completion", "print what that would install"),
    ("--version", "print the version"),
)
NEAR = 3
"""So many names are suggested for one that was mistyped."""


Sections = Sequence[tuple[str, Sequence[tuple[str, str]]]]
"""(heading, (command, short text) ...)."""


class Group(TyperGroup):
    """Commands that are built when they are needed. With a `default`, its name may be left out."""

    members: Mapping[str, Callable[[], Any]] = {}
    sections: Callable[[], Sections] = tuple
    """How help lists the members, without building them."""
    default: str | None = None

    def get_help_option(self, ctx: Any) -> Any:
        return unconverted(super().get_help_option(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.members)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and cmd_name in self.members:
            self.commands[cmd_name] = self.members[cmd_name]()
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], self.members, NEAR)
            raise InvalidRequest(
                f"there is no command `{ctx.command_path} {args[0]}`",
                code="usage",
                hint=f"Did you mean {' or '.join(near)}?" if near else f"See `{ctx.command_path} --help`",
            )
        return args[0] if command is not None else None, command, args[1:]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        asks_help = args[:1] != [] and args[0] in HELP["help_option_names"]
        place = first_word(args)
        names_none = (place is None or args[place] not in self.members) and not asks_help
        if self.default is not None and names_none and (args or self._runs_alone(ctx)):
            args = [self.default, *args]
        return super().parse_args(ctx, args or ["--help"])

    def _runs_alone(self, ctx: Any) -> bool:
        """Whether the default command needs nothing typed."""
        command = self.get_command(ctx, self.default or "")
        return isinstance(command, Command) and not any(field.required for field in command.fields)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        if self.default is not None and isinstance(command := self.get_command(ctx, self.default), Command):
            formatter.write_usage(ctx.command_path, usage(command.fields))
        formatter.write_usage(ctx.command_path, "COMMAND ...", prefix="Usage: " if self.default is None else "   or: ")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, rows in self.sections():
            with formatter.section(title):
                formatter.write_dl(list(rows))
        if self.default is not None and isinstance(command := self.get_command(ctx, self.default), Command):
            format_fields(command.fields, formatter)
        if ctx.parent is None:
            with formatter.section("Everywhere, before or behind the command"):
                formatter.write_dl([(label_of(field), explanation_of(field)) for field in GLOBALS])
            with formatter.section("Setting up"):
                formatter.write_dl(SETUP)
        else:
            format_globals(formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        found = super().shell_complete(ctx, incomplete)
        if self.default is not None and incomplete.startswith("-"):
            known = {item.value for item in found}
            more = self.get_command(ctx, self.default).shell_complete(ctx, incomplete)
            found += [item for item in more if item.value not in known]
        return found


def make_group(name: str, members: Mapping[str, Callable[[], Any]], text: str, *, completion: bool = False) -> Group:
    """A group of commands that takes the global options itself."""

    def callback(context: typer.Context, **typed: Any) -> None:
        pass

    sign(callback, global_parameters())
    app = typer.Typer(
        name=name, cls=Group, help=text, add_completion=completion, rich_markup_mode=None, context_settings=HELP
    )
    app.callback()(callback)
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    group.members = members
    for param in group.params:
        unconverted(param)
    return group
