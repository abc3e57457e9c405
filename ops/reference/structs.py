"""Structs in words: what a field is called, what it may hold, what it means; and examples of what it may hold.

Rule: a description is the field's own: `Meta(description=…)`, or the text that stands below it in the class.
"""

from __future__ import annotations

import ast
import inspect as python
import re
import textwrap
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import NODEFAULT, UNSET, inspect

from bus import model

KINDS = (("Name", "name"), ("Key", "key"), ("Digest", "digest"))
PATTERNS = {get_args(getattr(model, name))[1].pattern: word for name, word in KINDS}
FENCE = re.compile(r".*\}:\[1-9\].*")
SEQ_MAX = (1 << 53) - 1
INSTANT = datetime(2030, 1, 31, 12, tzinfo=UTC)

EXAMPLES: dict[str, Any] = {
    "agent": "nova",
    "authority": "auditor",
    "channel": "dev",
    "collection": "texts",
    "content": "tests need a running server",
    "data": {"asked": "where the keys are"},
    "directive": "d-2m8q",
    "emoji": "+1",
    "event": 41,
    "file_text": "# The plan\n",
    "harness": "claude-code",
    "insert_line": 2,
    "insert_text": "* test it\n",
    "key": "fix auth",
    "lease_s": 600,
    "limit": 20,
    "memory": "m-4k7z",
    "message": 41,
    "model": "local-8b",
    "numbers": [0.1, 0.7, -0.2],
    "other": "m-9c2d",
    "paths": ["src/auth/"],
    "personality": "reviewer",
    "new_path": "archive/plan.md",
    "old_path": "/memories/plan.md",
    "old_str": "Monday",
    "patch": {"state": "green"},
    "path": "notes/plan.md",
    "priority": 2,
    "query": "why did we change the port?",
    "reminder": "r-5c1x",
    "result": "merged",
    "role": "user",
    "session": "s-1",
    "sql": "select state, count(*) from task group by 1",
    "stream": "user:4321",
    "table": "task",
    "task": "t-7f3k",
    "text": "ready for review",
    "title": "fix auth",
    "to": "nova",
    "upto": 57,
    "value": {"state": "red"},
    "vector": "readme",
}
PARTICULAR: dict[str, dict[str, Any]] = {
    "bus.domain.vault_memories": {"path": "/memories/plan.md", "new_path": "/memories/done.md"},
}
"""Examples that differ in the requests of one module."""
ABOUT = ("channel", "task", "agent", "to")
TELLING = ("title", "priority", "lease_s", "result", "limit", "harness")
"""Optional fields that an example of a request shows."""


class Field(NamedTuple):
    """A field as a page shows it. `default` is empty when there is none."""

    name: str
    type: str
    required: bool
    default: str
    meaning: str


def fields(struct: type[msgspec.Struct], null: bool = True) -> list[Field]:
    """The fields of `struct` in their order. Without `null`, types do not mention that a field may be null."""
    found = []
    for field in _info(struct).fields:
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        shown = "" if default in (NODEFAULT, None, UNSET) else f"`{msgspec.json.encode(default).decode()}`"
        kind = "moment" if field.name == "as_of" else words(field.type, null)
        meaning = _phrase(description(field.type) or attribute_docs(struct).get(field.name, ""))
        found.append(Field(field.encode_name, kind, field.required, shown, meaning))
    return found


def shapes(struct: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The structs that the fields of `struct` hold, directly."""
    return [kind.cls for field in _info(struct).fields for kind in _inside(field.type)]


def own_fields(struct: type[msgspec.Struct], *bases: type[msgspec.Struct]) -> list[Field]:
    """The fields that none of `bases` has, as the page of requests shows them."""
    common = {field.name for base in bases for field in fields(base)}
    own = [field for field in fields(struct, null=False) if field.name not in common]
    return sorted(own, key=lambda field: _rank(field.name, field.required))


def description(kind: inspect.Type) -> str:
    """The outermost `Meta(description=…)` of a type."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return (extra or {}).get("description", "") or description(inner)
        case inspect.UnionType(types=types):
            return next((text for one in types if (text := description(one))), "")
        case _:
            return ""


@cache
def attribute_docs(struct: type) -> dict[str, str]:
    """The texts below the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        if cls.__module__.partition(".")[0] not in ("bus", "projections", "cli"):
            continue
        body = ast.parse(textwrap.dedent(python.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                found[field.target.id] = " ".join(text.value.value.split())  # type: ignore[attr-defined]
    return found


def words(kind: inspect.Type, null: bool = True) -> str:
    """What a value of this type may be, in words."""
    match kind:
        case inspect.Metadata(type=inner):
            return words(inner, null)
        case inspect.UnionType(types=types):
            parts = [words(one) for one in types if not isinstance(one, inspect.NoneType)]
            return " or ".join([*parts, "null"] if null and len(parts) < len(types) else parts)
        case inspect.StrType(pattern=str(pattern)):
            return "TASK:SEQ" if FENCE.fullmatch(pattern) else PATTERNS.get(pattern, f"text matching `{pattern}`")
        case inspect.StrType(min_length=low, max_length=high):
            return f"text{_range(low, high, ' characters')}"
        case inspect.IntType(ge=low, le=high):
            return ("position" if low == 0 else "seq") if high == SEQ_MAX else f"number{_range(low, high)}"
        case inspect.FloatType(ge=low, gt=above, le=high):
            if above is not None:
                return f"number above {above:g}" + (f", at most {high:g}" if high is not None else "")
            return f"number{_range(low, high)}"
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values[:-1]) + f" or `{values[-1]}`"
        case inspect.VarTupleType(item_type=item, max_length=high) | inspect.ListType(item_type=item, max_length=high):
            return f"list of {words(item)}{_range(None, high, ' items')}"
        case inspect.FrozenSetType(item_type=item):
            return f"set of {words(item)}"
        case inspect.DictType(key_type=key, value_type=value):
            return f"object: {words(key)} → {words(value)}"
        case inspect.StructType(cls=cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case inspect.BoolType():
            return "true or false"
        case inspect.DateTimeType():
            return "instant"
        case inspect.AnyType() | inspect.RawType():
            return "any JSON"
        case _:
            raise TypeError(f"no words for {kind}")


def example(request: type[msgspec.Struct]) -> str:
    """A request of this type as JSON: what is required, and what is telling."""
    told = [field for field in _info(request).fields if field.required or field.encode_name in TELLING]
    told.sort(key=lambda field: _rank(field.encode_name, field.required))
    examples = EXAMPLES | PARTICULAR.get(request.__module__, {})
    shown = {field.encode_name: examples[field.encode_name] for field in told}
    msgspec.convert(shown, request)
    return msgspec.json.encode(shown).decode().replace('":', '": ').replace(',"', ', "')


def sample(struct: type[msgspec.Struct]) -> Any:
    """A `struct` with something in every field."""
    values = {field.encode_name: _value(field.encode_name, field.type) for field in _info(struct).fields}
    return msgspec.convert(values, struct)


def _value(name: str, kind: inspect.Type) -> Any:
    match kind:
        case inspect.Metadata(type=inner):
            return _value(name, inner)
        case inspect.UnionType(types=types):
            some = (one for one in types if not isinstance(one, inspect.NoneType))
            return _value(name, next(iter(some)))
        case inspect.StrType():
            return EXAMPLES.get(name, "nova") if isinstance(EXAMPLES.get(name, "nova"), str) else "nova"
        case inspect.IntType() | inspect.FloatType():
            return 7
        case inspect.BoolType():
            return True
        case inspect.DateTimeType():
            return INSTANT
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return [_value(name, item)]
        case inspect.DictType():
            return {}
        case inspect.RawType():
            return msgspec.Raw(msgspec.json.encode(EXAMPLES.get(name)))
        case _:
            raise TypeError(f"no sample for {kind}")


@cache
def _info(struct: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info


def _inside(kind: inspect.Type) -> list[inspect.StructType]:
    match kind:
        case inspect.StructType():
            return [kind]
        case inspect.Metadata(type=inner) | inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            return _inside(inner)
        case inspect.DictType(value_type=inner):
            return _inside(inner)
        case inspect.UnionType(types=types):
            return [found for one in types for found in _inside(one)]
        case _:
            return []


def _range(low: float | None, high: float | None, unit: str = "") -> str:
    if high is None and low is None:
        return ""
    if low is None:
        return f", at most {high:,}{unit}"
    if high is None:
        return f", at least {low:,}{unit}"
    return f", {low:,} to {high:,}{unit}"


def _rank(name: str, required: bool) -> tuple[bool, bool]:
    """What must be given comes first, and before all what the request is about."""
    return not required, name not in ABOUT


def _phrase(text: str) -> str:
    """A description as part of a table: without a capital and the full stop of a single sentence."""
    if ". " in text:
        return text
    return f"{text[:1].lower()}{text[1:]}".removesuffix(".")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
