"""Every operation stands on every door, with every field of its request.

The command line: `bus family verb`, each field as an option, what is required as an argument as well.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from msgspec import inspect as msgs

from bus.model import Operation, Request
from bus.operation import OPERATIONS
from cli import asking, main
from cli.fields import Field, fields_of

PUBLIC = [operation for operation in OPERATIONS.values() if not operation.internal]
TEXTS = ("nova", "t-1", "sha256:" + "0" * 64, "t-1:12")
"""One of them fits every pattern that a text may have to match."""
BY_OTHER_NAMES = {"namespace": "--namespace"}
"""Fields that are global options."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    found: list[Request] = []

    def run(function: Any, common: Any, *arguments: Any) -> None:
        found.append(next(one for one in arguments if isinstance(one, Request)))

    monkeypatch.setattr(asking, "perform", lambda common, operation, request: found.append(request))
    monkeypatch.setattr(asking, "run", run)
    return found


def _sample(kind: msgs.Type) -> Any:
    """A value of that type, other than what it is by default."""
    match kind:
        case msgs.Metadata():
            return _sample(kind.type)
        case msgs.UnionType(types=types):
            return _sample(next(one for one in types if not isinstance(one, msgs.NoneType)))
        case msgs.BoolType():
            return True
        case msgs.IntType():
            return max(3, kind.ge or 0)
        case msgs.FloatType():
            return min(3.0, kind.le if kind.le is not None else 3.0)
        case msgs.LiteralType(values=values):
            return values[0]
        case msgs.StrType(pattern=pattern):
            return next(text for text in TEXTS if pattern is None or re.search(pattern, text))
        case msgs.VarTupleType(item_type=item) | msgs.ListType(item_type=item) | msgs.FrozenSetType(item_type=item):
            return [_sample(item), _sample(item)]
        case msgs.DictType():
            return {"key": "value"}
        case msgs.DateTimeType():
            return "2030-01-31T12:00:00Z"
        case _:
            return "value"


def _words(field: Field, value: Any) -> list[str]:
    """What is typed for `value`."""
    flag = field.flags[0].partition("/")[0]
    if value is True:
        return [flag]
    if isinstance(value, dict):
        return [word for key, one in value.items() for word in (flag, f"{key}={one}")]
    return [word for one in _each(field, value) for word in (flag, _word(one))]


def _each(field: Field, value: Any) -> list[Any]:
    """What is typed one after another: a vector is one word."""
    return value if isinstance(value, list) and field.shape == "many" else [value]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _samples(operation: Operation) -> dict[str, Any]:
    info = msgs.type_info(operation.request)
    assert isinstance(info, msgs.StructType)
    return {field.encode_name: _sample(field.type) for field in info.fields}


@pytest.mark.parametrize("operation", PUBLIC, ids=lambda operation: str(operation.name))
def test_every_field_is_an_option_of_the_command_line(operation: Operation, asked: list[Request]) -> None:
    values = _samples(operation)
    fields = fields_of(operation)
    assert {field.name for field in fields} | set(BY_OTHER_NAMES) == set(values)
    del values["namespace"]
    words = [word for field in fields for word in _words(field, values[field.name])]
    assert main.main([operation.family, operation.verb.replace("_", "-"), *words]) == 0
    assert asked == [msgspec.convert(values, operation.request)]


@pytest.mark.parametrize("operation", PUBLIC, ids=lambda operation: str(operation.name))
def test_what_is_required_is_an_argument_of_the_command_line(operation: Operation, asked: list[Request]) -> None:
    values = _samples(operation)
    required = [field for field in fields_of(operation) if field.required]
    words = [_word(one) for field in required for one in _each(field, values[field.name])]
    assert main.main([operation.family, operation.verb.replace("_", "-"), *words]) == 0
    given = {field.name: values[field.name] for field in required}
    if operation.name == "log.list":
        given["newest"] = True  # Without a range the command line shows the end of the log.
    assert asked == [msgspec.convert(given, operation.request)]


@pytest.mark.parametrize("operation", PUBLIC, ids=lambda operation: str(operation.name))
def test_every_operation_can_be_called_with_json(operation: Operation, asked: list[Request]) -> None:
    values = _samples(operation)
    assert main.main(["call", operation.name, _word(values)]) == 0
    assert asked == [msgspec.convert(values, operation.request)]


def test_what_the_daemon_asks_itself_stands_on_no_door(
    asked: list[Request], capsys: pytest.CaptureFixture[str]
) -> None:
    for operation in OPERATIONS.values():
        if operation.internal:
            assert main.main(["call", operation.name, "{}"]) == 2
            assert main.main([operation.family, operation.verb.replace("_", "-")]) == 2
    assert not asked
