"""What may be typed for a request: its fields as arguments and options, and typed words as the request struct.

Rules:
* The request struct is the only source: names, types, limits, descriptions and defaults all come from it.
* A required field is an argument, and an option as well (`bus inbox ack 12`, `bus inbox ack --upto 12`); every other
  field is an option. `lease_s` is `--lease` and takes a duration (`90s`, `10m`, `1h30m`; a bare number is seconds).
* Words are read here, but what is valid is said by the struct: a door never decides.
* Nothing here reads anything but its arguments; the text of standard input is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec import inspect as msgs

from bus.durations import duration, duration_text
from bus.errors import InvalidRequest
from bus.model import Key, Name, Operation, Request
from bus.subjects import NAME_RULE

Shape = Literal["flag", "switch", "one", "many", "pairs"]
"""`flag`: present or not · `switch`: --x or --no-x · `one`: a word · `many`: repeatable · `pairs`: KEY=VALUE."""

SEQ_MAX = (1 << 53) - 1
LONG_TEXT = 500
"""A text that may be so long can be read from standard input (`-`)."""
GLOBAL_FLAGS = frozenset(
    ("--home", "--as", "--namespace", "--url", "--creds", "--json", "--timeout", "--debug", "--help", "--version")
)
PAGING = ("limit", "since")
COMMON = ("after", "fence", "causes", "correlation", "as_of", "wait_s")
"""Fields that whole kinds of operations have; help lists them last, and apart."""
FIRST = ("channel", "task", "agent", "to", "message")
LAST = ("text",)
METAVARS = {"as_of": "MOMENT", "to": "AGENT", "fence": "FENCE", "sql": "SELECT"}
_KEY_RULE = "1 to 64 of A-Z, a-z, 0-9, _ and -, beginning with a letter or digit"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be typed. `name` is the field's name in JSON, `place` its position among the arguments."""

    name: str
    flags: tuple[str, ...]
    shape: Shape = "one"
    read: Callable[[str], Any] = str
    metavar: str = "TEXT"
    help: str = ""
    default: str = ""
    choices: tuple[str, ...] = ()
    place: int | None = None
    required: bool = False
    stdin: bool = False
    common: bool = False

    @property
    def param(self) -> str:
        """The name as a Python identifier that is no keyword."""
        return f"{self.name}_"

    @property
    def shown(self) -> str:
        """The field as the user knows it."""
        return self.metavar if self.place is not None else self.flags[0].partition("/")[0]


# --- a struct's fields ----------------------------------------------------------------------------------------------


def fields_of(operation: Operation, names: Mapping[str, str] | None = None) -> tuple[Field, ...]:
    """The fields of an operation's request, arguments first. `names` gives some fields another first option name."""
    info = msgs.type_info(operation.request)
    assert isinstance(info, msgs.StructType)
    given = [field for field in info.fields if field.encode_name != "namespace"]
    places = _places(given)
    taken = {f"--{_option_name(field)}" for field in given}
    fields = [_field(operation, field, places, taken, names or {}) for field in given]
    late = {name: order for order, name in enumerate((*PAGING, *COMMON), start=1)}
    return tuple(sorted(fields, key=lambda field: (field.place is None, field.place or 0, late.get(field.name, 0))))


def _places(fields: list[msgs.Field]) -> dict[str, int]:
    """The arguments in their order: what it is about, then what is said about it."""

    def rank(name: str) -> int:
        return FIRST.index(name) if name in FIRST else 100 + (name in LAST)

    required = sorted((field.encode_name for field in fields if field.required), key=rank)
    if not required:
        # A request may also name its new entity: `bus task open "fix auth"`.
        required = [field.encode_name for field in fields if field.encode_name == "title"]
    return {name: place for place, name in enumerate(required)}


def _field(
    operation: Operation, field: msgs.Field, places: dict[str, int], taken: set[str], names: Mapping[str, str]
) -> Field:
    name, (kind, help_text) = field.encode_name, _plain(field.type)
    shape, leaf = _shape(kind, field)
    long = f"--{_option_name(field)}"
    flags = [f"--{operation.verb.replace('_', '-')}-{long[2:]}" if long in GLOBAL_FLAGS else long]
    if shape == "many" and (singular := _singular(flags[0])) and singular not in taken:
        flags.append(singular)
    if name in names:
        flags.insert(0, names[name])
    seconds = _is_duration(name, leaf)
    choices = tuple(str(value) for value in leaf.values) if isinstance(leaf, msgs.LiteralType) else ()
    return Field(
        name=name,
        flags=tuple(f"{flag}/--no-{flag[2:]}" for flag in flags) if shape == "switch" else tuple(flags),
        shape=shape,
        read=(lambda word: duration(word, whole=isinstance(leaf, msgs.IntType))) if seconds else _reader(leaf),
        metavar=_metavar(name, leaf, seconds, places),
        help=help_text,
        default=_default(field, seconds),
        choices=choices,
        place=places.get(name),
        required=field.required,
        stdin=isinstance(leaf, msgs.StrType) and leaf.pattern is None and (leaf.max_length or SEQ_MAX) >= LONG_TEXT,
        common=name in COMMON,
    )


def _plain(kind: msgs.Type) -> tuple[msgs.Type, str]:
    """-> (the type without its wrappers and without None, its description)."""
    text = ""
    while True:
        if isinstance(kind, msgs.Metadata):
            text = text or (kind.extra_json_schema or {}).get("description", "")
            kind = kind.type
        elif isinstance(kind, msgs.UnionType) and len(rest := _without_none(kind)) == 1:
            kind = rest[0]
        else:
            return kind, text


def _without_none(kind: msgs.UnionType) -> list[msgs.Type]:
    return [one for one in kind.types if not isinstance(one, msgs.NoneType)]


def _shape(kind: msgs.Type, field: msgs.Field) -> tuple[Shape, msgs.Type]:
    if isinstance(kind, msgs.BoolType):
        return ("flag" if field.default is False else "switch"), kind
    if isinstance(kind, msgs.VarTupleType | msgs.ListType | msgs.FrozenSetType | msgs.SetType):
        item = _plain(kind.item_type)[0]
        # A vector is one JSON array: nobody types hundreds of options, and -0.2 would look like one.
        return ("one", kind) if isinstance(item, msgs.FloatType) else ("many", item)
    if isinstance(kind, msgs.DictType):
        return "pairs", kind
    return "one", kind


def _option_name(field: msgs.Field) -> str:
    name = field.encode_name
    return (name[:-2] if _is_duration(name, _plain(field.type)[0]) else name).replace("_", "-")


def _is_duration(name: str, kind: msgs.Type) -> bool:
    return name.endswith("_s") and isinstance(kind, msgs.IntType | msgs.FloatType)


def _singular(flag: str) -> str | None:
    for ending, one in (("sses", "ss"), ("ies", "y"), ("s", "")):
        if flag.endswith(ending):
            return flag[: -len(ending)] + one
    return None


def _metavar(name: str, leaf: msgs.Type, seconds: bool, places: dict[str, int]) -> str:
    if name in METAVARS:
        return METAVARS[name]
    if name in places:
        return name.upper().replace("_", "-")
    if isinstance(leaf, msgs.LiteralType):
        return "|".join(str(value) for value in leaf.values)
    if seconds:
        return "TIME"
    if isinstance(leaf, msgs.IntType):
        return "SEQ" if leaf.le == SEQ_MAX else "N"
    if isinstance(leaf, msgs.StrType | msgs.DateTimeType):
        return "NAME" if isinstance(leaf, msgs.StrType) and leaf.pattern else "TEXT"
    return "NUMBER" if isinstance(leaf, msgs.FloatType) else "KEY=VALUE" if isinstance(leaf, msgs.DictType) else "JSON"


def _default(field: msgs.Field, seconds: bool) -> str:
    value = field.default
    if value is msgspec.NODEFAULT or value is None or value in ("", (), False, 0):
        return ""
    return duration_text(float(value)) if seconds else str(value)


# --- reading words --------------------------------------------------------------------------------------------------


def _reader(leaf: msgs.Type) -> Callable[[str], Any]:
    match leaf:
        case msgs.IntType():
            return _whole_number
        case msgs.FloatType():
            return _number
        case msgs.LiteralType(values=values):
            return lambda word: _choice(word, values)
        case msgs.UnionType(types=types) if any(isinstance(_plain(one)[0], msgs.IntType) for one in types):
            return lambda word: int(word.removeprefix("#")) if _is_seq(word) else word
        case msgs.StrType() | msgs.DateTimeType() | msgs.DateType() | msgs.UUIDType() | msgs.BytesType():
            return str
        case _:
            return _json_or_text if isinstance(leaf, msgs.AnyType) else _json


def _is_seq(word: str) -> bool:
    return word.removeprefix("#").isdecimal() and word.isascii() and len(word) < 18


def _whole_number(word: str) -> int:
    # Seqs are printed as #12 and may be typed like that.
    if not re.fullmatch(r"#?-?[0-9]{1,17}", word.strip()):
        raise ValueError("a whole number")
    return int(word.strip().removeprefix("#"))


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError("a number") from None


def _choice(word: str, values: tuple[Any, ...] | list[Any]) -> Any:
    for value in values:
        if word == str(value):
            return value
    raise ValueError(f"one of {', '.join(map(str, values))}")


def _json(word: str) -> Any:
    try:
        return msgspec.json.decode(word)
    except (msgspec.MsgspecError, UnicodeError):
        raise ValueError("JSON") from None


def _json_or_text(word: str) -> Any:
    try:
        return _json(word)
    except ValueError:
        return word


def _pairs(words: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` words and JSON objects, later ones winning; a value that is JSON is taken as JSON."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if word.lstrip().startswith("{") and isinstance(whole := _json(word), dict):
            found |= whole
        elif equals and key:
            found[key] = _json_or_text(value)
        else:
            raise ValueError("KEY=VALUE or a JSON object")
    return found


# --- a request from what was typed ----------------------------------------------------------------------------------

Typed = Mapping[str, Any]
"""By `Field.param`: None for what was not typed, a word, a list of words, or a bool for flags and switches."""


def request_of(operation: Operation, fields: tuple[Field, ...], typed: Typed, stdin: Callable[[], str]) -> Request:
    """The request that was typed. `stdin` gives the text of standard input. Raises InvalidRequest."""
    values = {field.name: value for field in fields if (value := value_of(field, typed, stdin)) is not None}
    for field in fields:
        if field.required and field.name not in values:
            raise InvalidRequest(
                f"{field.shown} is missing",
                code="missing",
                hint=f"See `bus {operation.family} {operation.verb.replace('_', '-')} --help`",
            )
    try:
        return msgspec.convert(values, operation.request)
    except msgspec.ValidationError as error:
        raise _explained(error, fields, values) from None


def value_of(field: Field, typed: Typed, stdin: Callable[[], str]) -> Any:
    """What was typed for `field`, read; None when nothing was. Raises InvalidRequest."""
    word = typed.get(field.param)
    if word is None or word == [] or (field.shape == "flag" and word is False):
        return None
    if field.shape in ("flag", "switch"):
        return bool(word)
    try:
        if field.shape == "pairs":
            return _pairs(word)
        if word == [""]:
            return []  # The only way to say that a collection is to become empty.
        if field.shape == "many":
            return [field.read(part) for part in _parts(field, word)]
        return field.read(stdin() if field.stdin and word == "-" else word)
    except ValueError as error:
        shown = word if isinstance(word, str) else " ".join(word)
        raise _bad(field, str(error), shown) from None


def _parts(field: Field, words: list[str]) -> list[str]:
    # Numbers may also come as 3,4,5; a comma in a text belongs to the text.
    return [part for word in words for part in (word.split(",") if field.read is _whole_number else [word])]


def _bad(field: Field, expected: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        f"bad {field.shown}",
        code="invalid",
        expected=expected,
        found=repr(found if len(found) <= 80 else f"{found[:80]}… ({len(found)} characters)"),
    )


_PLAIN_WORDS = (("str of", "a text of"), ("int ", "a whole number "), ("float ", "a number "), ("array", "a list"))
_PATTERNS = {get_args(kind)[1].pattern: rule for kind, rule in ((Name, NAME_RULE), (Key, _KEY_RULE))}


def _explained(error: msgspec.ValidationError, fields: tuple[Field, ...], values: dict[str, Any]) -> InvalidRequest:
    """msgspec's complaint in the words of what was typed."""
    text, _, path = str(error).partition(" - at `$")
    at = re.match(r"\.(\w+)(?:\[(\d+|\.\.\.)\])?", path)
    field = next((field for field in fields if at and field.name == at[1]), None)
    if field is None:
        return InvalidRequest(str(error), code="invalid")
    pattern = re.fullmatch(r"Expected `str` matching regex (.*)", text)
    if "RFC3339" in text or "`datetime`" in text:
        expected = "an ISO instant with its time zone, such as 2030-01-31T12:00:00Z"
    elif pattern:
        expected = next((rule for regex, rule in _PATTERNS.items() if repr(regex) == pattern[1]), pattern[1])
    else:
        expected = text.removeprefix("Expected ").replace("`", "")
        for word, plain in _PLAIN_WORDS:
            expected = expected.replace(word, plain)
    found = values.get(field.name)
    if isinstance(found, list) and at and at[2] and at[2].isdecimal():
        found = found[int(at[2])]
    return _bad(field, expected, str(found))
