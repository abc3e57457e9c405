"""`bus call` and `bus help`: every operation by its name, with JSON in and out.

Rules:
* `bus call` prints the reply as JSON whether or not `--json` is given: it is for programs.
* `bus help` asks nothing of a bus: it describes what this version knows.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import typer
from msgspec.structs import replace

from bus.errors import BusError, InvalidRequest
from bus.model import Operation
from bus.operation import OPERATIONS
from bus.protocol import decode_request
from cli import asking
from cli.fields import Field, Typed, fields_of
from cli.generate import Command, make_command
from cli.options import Common
from cli.render import Cell, Screen, write_json

_NAME = Field(name="operation", flags=(), metavar="OPERATION", help="family.verb", place=0, required=True)
_BODY = Field(
    name="request", flags=(), metavar="REQUEST", help="the request as JSON (default: {})", place=1, stdin=True
)
_WORDS = Field(name="operation", flags=(), metavar="OPERATION", help="family.verb, or a family", place=0, shape="many")


def operation_names(incomplete: str = "") -> list[str]:
    """The names of all operations that can be asked for, for completion."""
    return [name for name, one in OPERATIONS.items() if not one.internal and name.startswith(incomplete)]


def call_command() -> Command:
    text = "Ask for any operation with its request as JSON; prints the reply as JSON."
    name = replace(_NAME, choices=tuple(operation_names()))
    sample = 'bus call task.open \'{"title": "fix auth", "priority": 2}\''
    return make_command("call", (name, _BODY), _call, text, sample)


def help_command() -> Command:
    text = "Describe the operations and their fields. With --json: their JSON schemas."
    words = replace(_WORDS, choices=tuple(operation_names()))
    return make_command("help", (words,), _help, text, "bus help task.claim")


def _call(common: Common, typed: Typed) -> None:
    common = replace(common, json=True)
    try:
        operation = _operation(_required(typed))
        body = typed.get(_BODY.param)
        text = asking.stdin_text() if body == "-" else body or "{}"
        request = decode_request(operation, text.encode("utf-8", "surrogateescape"))
        asking.perform(common, operation, request)
    except BusError as error:
        write_json({"error": error.problem})
        raise typer.Exit(error.exit_code) from None


def _operation(name: str) -> Operation:
    known = operation_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise InvalidRequest(
            "no such operation",
            code="unknown_operation",
            found=name,
            hint=f"Near: {', '.join(near)}" if near else "`bus help` lists them",
        )
    return OPERATIONS[name]


def _required(typed: Typed) -> str:
    name = typed.get(_NAME.param)
    if not isinstance(name, str):
        raise InvalidRequest("OPERATION is missing", code="missing", hint="`bus help` lists them")
    return name


# --- help -----------------------------------------------------------------------------------------------------------


def _help(common: Common, typed: Typed) -> None:
    words: list[str] = typed.get(_WORDS.param) or []
    # `bus help task claim` is meant like `bus help task.claim`.
    asked = ".".join(words).replace("-", "_")
    members = [one for one in map(OPERATIONS.__getitem__, operation_names()) if asked in ("", one.family, one.name)]
    if not members:
        members = [_operation(asked)]
    if common.json:
        one = [schema(operation) for operation in members]
        write_json(one[0] if len(one) == 1 and members[0].name == asked else {"operations": one})
        return
    screen = Screen(sys.stdout)
    describe: Callable[[Screen, list[Operation]], None] = _one if asked == members[0].name else _list
    describe(screen, members)


def schema(operation: Operation) -> dict[str, Any]:
    """An operation as programs need it: what it takes and what it answers."""
    return {
        "operation": operation.name,
        "kind": "command" if operation.kind == "do" else "query",
        "help": " ".join(operation.help.split()),
        "authority": operation.authority,
        "request": msgspec.json.schema(operation.request),
        "reply": msgspec.json.schema(operation.reply_type),
    }


def _list(screen: Screen, members: list[Operation]) -> None:
    rows: list[list[Cell]] = [[(one.name, "bold"), " ".join(one.help.split())] for one in members]
    screen.table(("operation", "what it does"), rows)
    screen.note("`bus help FAMILY.VERB` shows the fields of one; `bus call FAMILY.VERB JSON` asks for it")


def _one(screen: Screen, members: list[Operation]) -> None:
    operation = members[0]
    screen.line((operation.name, "bold"), f"  ({'command' if operation.kind == 'do' else 'query'})")
    screen.block(" ".join(operation.help.split()), indent=2)
    if operation.authority is not None:
        screen.line(f"needs the authority {operation.authority}", indent=2)
    rows: list[list[Cell]] = []
    for field in fields_of(operation):
        typed_as = field.metavar if field.place is not None else field.flags[0]
        notes = [field.help, "required" if field.required else "", f"default {field.default}" if field.default else ""]
        rows.append([(field.name, "bold"), typed_as, "; ".join(filter(None, notes))])
    screen.table(("field", "typed as", "what it is"), rows)
    reply = msgspec.structs.fields(operation.reply_type)
    screen.table(("reply", "type"), [[(field.encode_name, "bold"), _kind(field.type)] for field in reply])


def _kind(kind: Any) -> str:
    """A type as Python writes it, without the names of modules. That a field may be absent is not its type."""
    plain = kind.__name__ if isinstance(kind, type) and not get_args(kind) else re.sub(r"\b\w+\.", "", str(kind))
    return plain.removesuffix(" | UnsetType")
