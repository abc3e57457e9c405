"""docs/events.md: what is written into the log, and the tables that follow from it."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import msgspec

from bus import events
from bus.events import Event, Fact
from bus.model import Command, Family
from bus.operation import FAMILIES
from bus.subjects import BUCKETS, STREAM, TENANT
from ops.reference.layout import one_line, page, rules_of, subject_of, table
from ops.reference.structs import Field, fields, own_fields, sample
from projections.schema import Schema, Table, discover
from projections.views.events import EVENT

HEADERS = {
    events.MSG_ID: "id of the event: a random UUIDv7, never used twice",
    events.TYPE: "name of the fact, such as `task.claimed`",
    events.SCHEMA: "version of the fact's shape",
    events.ENTITY: "what the event is about, percent-encoded",
    events.AGENT: "its author, or `system` for what the bus does by itself",
    events.REQUEST: "id of the request that led to it, and a digest of what was asked",
    events.CAUSES: "seqs of the events that led to it, separated by commas",
    events.CORRELATION: "one id for everything that belongs together, percent-encoded",
    events.AT: "when it happened, where that is not when it was stored",
    events.TRACE: "W3C trace context of the request",
}
INTERVAL = ("kid", "seq_from", "seq_to", "namespace")
COLUMNS_WIDTH = 112


def events_page() -> str:
    """docs/events.md."""
    return page(
        "# Events",
        f"""An event is one message of the stream `{STREAM}`. Its subject is `log.<namespace>.<family>.<bucket>`, its
        headers are below, and its body is the fact as JSON, at most {events.BODY_BYTES:,} bytes. What belongs to the
        whole tenant stands in the namespace `{TENANT}`. The bucket is the crc32 of the entity's key modulo
        {BUCKETS:,}. Order is the seq, which is the message's sequence number in the stream.""",
        """A field that a body does not have takes its default; a field that a reader does not know is ignored. An event
        of an unknown type or a newer version, and one whose body cannot be read, is kept and skipped: it has a row in
        the table `event` that says why. [Operations](operations.md) says what appends which event.""",
        table(("header", "meaning"), [(f"`{name}`", text) for name, text in HEADERS.items()]),
        "Families: " + ", ".join(f"[{family.name}](#{family.name})" for family in FAMILIES) + ".",
        """Each family has tables of its entities, and of the elements of their collections (`item`), with one row per
        version. They begin with `kid` (the seq of the entity's first event), `seq_from` and `seq_to` (the row is valid
        from this event until before that one) and `namespace`, all BIGINT but the last; below, `…` stands for these.
        The column `audience` is null where every agent of the tenant may see the row, and `|atlas|nova|` where only
        these may.""",
        *(text for family in FAMILIES for text in _family_events(family)),
        "## Tables of facts",
        "One row per event or message, valid from `seq` on, for ever.",
        *(text for table in _fact_tables() for text in (f"### {table.name}", _columns([table]))),
    )


def _family_events(family: Family) -> Iterator[str]:
    entity = _schema().entities[family.state]
    yield f"## {family.name}"
    yield subject_of(family)
    if not family.operations:
        yield rules_of(family)
    shared = family.bucket_key("one") == family.bucket_key("another")
    bucket = "all of a namespace share one" if shared else "crc32 of the key"
    where = "the whole tenant, `_`" if _is_tenant_wide(family) else "that of the request"
    yield f"Entity: `{entity.name}` and its key. Namespace: {where}. Bucket: {bucket}. Tables:"
    yield _columns([entity, *entity.items])
    for fact in family.facts:
        yield from _fact(family, fact)


def _fact(family: Family, fact: type[Fact]) -> Iterator[str]:
    yield f"### {fact.type}"
    rows = _rows_of(family, fact)
    adds = f" It adds to {' and '.join(f'[{name}](#{name})' for name in rows)}." if rows else ""
    yield f"{one_line(fact.__doc__)} Version {fact.schema}.{adds}"
    found = [explained(family, field) for field in fields(fact)]
    if found:
        yield table(
            ("field", "type", "default", "meaning"),
            [(f"`{f.name}`", f.type, "" if f.required else f.default or "absent", f.meaning) for f in found],
        )


def explained(family: Family, field: Field) -> Field:
    """The field, with the words of the request's field of that name if it has none of its own."""
    if field.meaning:
        return field
    for operation in family.operations:
        for known in own_fields(operation.request, Command) if operation.kind == "do" else ():
            if known.name == field.name and known.meaning:
                return field._replace(meaning=known.meaning)
    return field


def _rows_of(family: Family, fact: type[Fact]) -> list[str]:
    """The tables of facts that an event of this type adds to, tried out with one that has something in every field."""
    body = sample(fact)
    event = Event(
        seq=41,
        time_ns=0,
        subject="",
        namespace="default",
        family=family.name,
        bucket=0,
        id="",
        type=fact.type,
        schema=fact.schema,
        entity="atlas+nova",
        agent="atlas",
        fact=body,
        data=msgspec.json.encode(body),
    )
    return sorted({name for view in _schema().views for name, _ in view.fold(event)})


def _fact_tables() -> list[Table]:
    return [EVENT, *(table for view in _schema().views for table in view.tables)]


def _columns(tables: Iterable[Table]) -> str:
    """Tables as a block: name(column TYPE, …), folded between columns."""
    lines = []
    for one in tables:
        columns = [f"{name}\0{kind}" for name, kind in one.columns.items()]
        if one.has_end:
            columns[: len(INTERVAL)] = ["…"]
        line = f"{one.name}({', '.join(columns)})"
        lines += textwrap.wrap(line, COLUMNS_WIDTH, subsequent_indent=" " * (len(one.name) + 1))
    return "\n".join(("```", *lines, "```")).replace("\0", " ")


@cache
def _schema() -> Schema:
    return Schema(FAMILIES, discover(), EVENT)


def _is_tenant_wide(family: Family) -> bool:
    """Whether the family's events are appended in the tenant's own namespace: some `Emit(State, …, TENANT)` says so."""
    return family.state.__name__ in _named_with_tenant()


@cache
def _named_with_tenant() -> frozenset[str]:
    """What stands beside TENANT in the calls of Emit."""
    found: set[str] = set()
    for module in [module for name, module in sys.modules.items() if name.startswith("bus.domain.")]:
        assert module.__file__ is not None
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Emit":
                names = [arg.id for arg in node.args if isinstance(arg, ast.Name)]
                found |= set(names) if "TENANT" in names else set()
    return frozenset(found)
