"""docs/operations.md: what can be asked, how, and how it can end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from bus import model
from bus.errors import KINDS, BusError
from bus.model import Command, Operation, PageQuery, Query
from bus.operation import FAMILIES, OPERATIONS
from cli import daily, projecting
from cli.fields import PAGING
from cli.fields import Field as Typed
from cli.main import GROUPS, LIFECYCLE, REFERENCE
from cli.replays import Replays
from ops.reference.layout import fields_table, one_line, page, rules_of, subject_of, table
from ops.reference.refusals import Raised, raised_anywhere, raised_by
from ops.reference.structs import Field, example, fields, own_fields, shapes
from projections import query

SERVING = (
    "bus.authority",
    "bus.events",
    "bus.execute",
    "bus.jetstream",
    "bus.log",
    "bus.pipeline",
    "bus.protocol",
    "bus.requests",
)
SERVING += ("cli.api", "cli.intake", "projections.store")
"""What is raised in these modules can be the answer to any request."""
ASKING = ("bus.client", "bus.replies", "bus.transport")
"""And what is raised in these is said by a client that gets no answer."""

COMMANDS = LIFECYCLE | REFERENCE | {"replay": GROUPS["replay"]}
COMMANDS |= {f"projector {verb}": text for verb, text in projecting.VERBS.items()}


def operations_page() -> str:
    """docs/operations.md."""
    families = {name: daily.asked(name) for name in daily.FAMILIES}
    return page(
        "# Operations",
        """One operation is one request struct: one call of the Python client, one command of `bus`, one NATS subject. A
        command (`do`) is decided by the leader and appends events; a query (`see`) reads tables. The author is the
        agent in the subject, which the broker enforces. [Any client](howto/any-client.md) shows the wire,
        [Events](events.md) what is written.""",
        """A *seq* is a whole number from 1, a *position* a seq or 0. A *name* matches `[a-z0-9][a-z0-9_-]{0,62}`, a
        *key* `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`, a *digest* is `sha256:` and 64 hex digits. An *instant* is ISO 8601 with
        its zone. A *moment* is a seq, an instant (the longest prefix of the log whose events were all stored by then),
        or a time ago such as `-10m` (s, m, h, d, w). Unknown fields are errors.""",
        "Families: " + ", ".join(f"[{name}](#{name})" for name in families) + ".",
        "## The command line",
        """Every command ends with 0 when it was done, else with the exit code of its error: 2 bad usage or invalid
        input, 3 refused, 4 not found, 5 not allowed, 6 unavailable or timed out, 1 a defect. `--json` prints one JSON
        document, and streams as JSON lines; an error is the document then. These commands are no operations; flags that
        all have are in [Settings](settings.md).""",
        table(("command", "what it does"), [(f"`bus {name}`", text) for name, text in COMMANDS.items()]),
        "## What all requests have",
        fields_table(fields(model.Request, null=False)),
        "Commands also have these. A reply has at least `seq`: the event that records its effect.",
        fields_table(own_fields(Command, model.Request)),
        """Queries also have these. An answer has at least `seq`, the position it was given at, and that event's `time`;
        `stale_s` says for how many seconds whoever answers has not known everything that is stored, unless that is a
        moment ago.""",
        fields_table(own_fields(Query, model.Request)),
        """Queries that answer a page also have these. The answer's `next` (an inbox: `upto`) is the `since` of the next
        page.""",
        fields_table(own_fields(PageQuery, Query)),
        f"""Besides the codes that stand with an operation, any request can end with {_codes_of(SERVING)}; a command
        with a `fence` also with `bad_fence`, `stale_fence`. On a host that [follows a bus
        elsewhere](howto/remote.md#a-host-that-follows), what is not answered there can end with `out_of_reach`. A
        client that gets no answer says {_codes_of(ASKING)}.
        [All codes](#error-codes).""",
        *(text for name, operations in families.items() for text in _family_operations(name, operations)),
        "## Asked by the daemon itself",
        "No door offers these; they explain who wrote some of the events.",
        table(("operation", "what for"), [(f"`{op.name}`", one_line(op.help)) for op in _internal()]),
        "## Shapes",
        "What replies hold.",
        *(text for shape in _all_shapes() for text in _shape(shape)),
        "## Error codes",
        """An error is `{"error": {"kind", "code", "message", …}}`. Programs look at `code`; the command line ends with
        the exit code. `…` stands for what is filled in. A code without an operation above comes from starting a bus,
        connecting to one, or the command line.""",
        _code_table(),
    )


def _family_operations(name: str, operations: list[Operation]) -> Iterator[str]:
    family = next(family for family in FAMILIES if operations[0] in family.operations)
    yield f"## {name}"
    if name == family.name:
        yield subject_of(family)
        yield rules_of(family)
    for operation in operations:
        yield from _operation(operation)


def _operation(operation: Operation) -> Iterator[str]:
    bases = {"do": (Command,), "see": (Query, PageQuery) if issubclass(operation.request, PageQuery) else (Query,)}
    yield f"### {operation.name}"
    yield one_line(operation.help)
    yield "\n".join(
        (
            f"* Command line: {_command_line(operation)}",
            f"* Subject: `ask.<agent>.{operation.kind}.{operation.name}`, {_who(operation)}",
            f"* Errors: {_refusals(operation)}",
        )
    )
    own = own_fields(operation.request, *bases[operation.kind])
    if own:
        yield fields_table(own)
    yield f"```json\n{example(operation.request)}\n```"
    base = model.Reply if operation.kind == "do" else model.Answer
    gives = own_fields(operation.reply_type, base)
    reply = [field for field in fields(operation.reply_type) if field.name in {own.name for own in gives}]
    yield "Reply: " + ("; ".join(_in_line(field) for field in reply) or "the `seq`") + "."


def _who(operation: Operation) -> str:
    who = f"for agents with the authority `{operation.authority}`" if operation.authority else "for every agent"
    if operation.kind == "see":
        return who
    return f"{who}; {'served' if operation.essential else 'refused'} while the log is nearly full"


def _command_line(operation: Operation) -> str:
    path = f"{operation.family} {operation.verb.replace('_', '-')}"
    typed = daily.command(path, operation).fields
    words = ["bus", path, *(field.metavar for field in typed if field.place is not None)]
    own = [field for field in typed if field.place is None and not field.common and field.name not in PAGING]
    line = f"`{' '.join([*words, *map(_option, own)])}`"
    short = [name for name, (known, _) in daily.DAILY.items() if known == operation.name]
    if daily.DEFAULTS.get(operation.family) == operation.verb:
        short.append(operation.family)
    return line + "".join(f", short `bus {name}`" for name in short)


def _option(field: Typed) -> str:
    flag = field.flags[0].replace("/", " | ")
    value = "" if field.shape in ("flag", "switch") else f" {field.metavar}"
    return f"[{flag}{value}]" + ("..." if field.shape == "many" else "")


def _refusals(operation: Operation) -> str:
    found = {raised.code: raised for raised in raised_by(_decider(operation))}
    shown = [f"`{code}` ({found[code].kind.exit_code})" for code in sorted(found)]
    return ", ".join(shown) or "only those of all requests"


def _decider(operation: Operation) -> Callable[..., Any]:
    if operation.decide is not None:
        return operation.decide
    known = query.answerers().get(operation.request)
    if known is not None:
        return known.handle
    wanted = f"log.{operation.request.__name__}"
    return next(m for m in vars(Replays).values() if getattr(m, "__annotations__", {}).get("request") == wanted)


def _internal() -> list[Operation]:
    return [operation for operation in OPERATIONS.values() if operation.internal]


def _all_shapes() -> list[type[msgspec.Struct]]:
    """The structs inside replies, each after the one that holds it."""
    found: list[type[msgspec.Struct]] = []
    todo = [operation.reply_type for operation in OPERATIONS.values() if not operation.internal]
    while todo:
        for shape in shapes(todo.pop(0)):
            if shape not in found:
                found.append(shape)
                todo.append(shape)
    names = [shape.__name__ for shape in found]
    assert len(set(names)) == len(names), f"two shapes have one name: {sorted(names)}"
    return sorted(found, key=lambda shape: shape.__name__)


def _shape(shape: type[msgspec.Struct]) -> Iterator[str]:
    yield f"### {shape.__name__}"
    # A struct without a docstring has its signature there.
    if shape.__doc__ and not shape.__doc__.startswith(f"{shape.__name__}("):
        yield one_line(shape.__doc__)
    yield "; ".join(_in_line(field) for field in fields(shape)) + "."


def _code_table() -> str:
    by_code: dict[tuple[str, type[BusError]], list[Raised]] = {}
    for raised in sorted(raised_anywhere(), key=lambda raised: (raised.code, raised.module, raised.message)):
        kind = next(kind for kind in raised.kind.__mro__ if kind in KINDS.values())
        by_code.setdefault((raised.code, kind), []).append(raised)
    rows = []
    for (code, kind), found in by_code.items():
        messages = list(dict.fromkeys(raised.message for raised in found if raised.message.strip("….: ")))
        rows.append((f"`{code}`", str(kind.exit_code), kind.__name__, "; ".join(messages)))
    return table(("code", "exit", "kind", "said when"), rows)


def _in_line(field: Field) -> str:
    meaning = f": {field.meaning}" if field.meaning else ""
    return f"`{field.name}` ({field.type}{meaning})"


def _codes_of(modules: Iterable[str]) -> str:
    codes = sorted({raised.code for raised in raised_anywhere() if raised.module in modules})
    return ", ".join(f"`{code}`" for code in codes)
