"""Which errors the code can raise, read from its syntax: for one function and what it calls, and for all modules.

Rule: an error is a call of a class of `bus.errors`; its code is the literal `code=…`, else the default of the class.
Functions are followed as far as they are named plainly; what a method of another object raises is not seen.
"""

from __future__ import annotations

import ast
import inspect as python
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from bus.errors import KINDS, BusError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bus", "projections", "cli")
ANSWERS = tuple(KINDS.values())
"""What a request can be answered with; other errors stay inside."""


class Raised(NamedTuple):
    """One place where an error is made. `message` has `…` where a value is filled in."""

    code: str
    kind: type[BusError]
    message: str
    module: str


@cache
def _tree(module: str) -> ast.Module:
    path = sys.modules[module].__file__
    assert path is not None
    return ast.parse(Path(path).read_text())


@cache
def _definition(module: str, name: str) -> ast.AST | None:
    """The function (`f`) or method (`C.f`) of that qualified name."""
    node: ast.AST = _tree(module)
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part]
        if not found:
            return None
        node = found[0]
    return node


def raised_by(function: Callable[..., Any]) -> set[Raised]:
    """The errors that `function` and the functions it calls can raise."""
    seen: set[tuple[str, str]] = set()
    found: set[Raised] = set()
    todo = [(function.__module__, function.__qualname__)]
    while todo:
        place = todo.pop()
        node = _definition(*place)
        if place in seen or node is None:
            continue
        seen.add(place)
        for call in (child for child in ast.walk(node) if isinstance(child, ast.Call)):
            target = _resolved(call.func, *place)
            if isinstance(target, type) and issubclass(target, ANSWERS):
                found |= set(_raised(call, target, place[0]))
            elif python.isfunction(target) and target.__module__.partition(".")[0] in PACKAGES:
                todo.append((target.__module__, target.__qualname__))
    return found


@cache
def raised_anywhere() -> frozenset[Raised]:
    """The errors of the whole project."""
    found: set[Raised] = set()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        if path.stem == "__main__":
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        import_module(name)
        for call in (node for node in ast.walk(_tree(name)) if isinstance(node, ast.Call)):
            target = _resolved(call.func, name, "")
            if isinstance(target, type) and issubclass(target, ANSWERS):
                found |= set(_raised(call, target, name))
    return frozenset(found)


def _resolved(func: ast.expr, module: str, within: str) -> Any:
    """What a call calls, as far as the names in the module tell."""
    if isinstance(func, ast.Name):
        return getattr(sys.modules[module], func.id, None)
    if not isinstance(func, ast.Attribute) or not isinstance(func.value, ast.Name):
        return None
    if func.value.id == "self":
        return getattr(getattr(sys.modules[module], within.partition(".")[0], None), func.attr, None)
    owner = getattr(sys.modules[module], func.value.id, None)
    return getattr(owner, func.attr, None) if hasattr(owner, "__file__") else None


def _raised(call: ast.Call, kind: type[BusError], module: str) -> Iterator[Raised]:
    code = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
    codes = [kind.default_code] if code is None else [text for text in _texts(code) if text.isidentifier()]
    messages = _texts(call.args[0]) if call.args else [""]
    for place, name in enumerate(codes):
        # code="a" if … else "b" goes with a message that is chosen in the same way.
        yield Raised(name, kind, messages[min(place, len(messages) - 1)], module)


def _texts(node: ast.expr) -> list[str]:
    """The texts that an expression may have, with `…` for what is filled in."""
    match node:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.JoinedStr(values=values):
            return ["".join(_texts(value)[0] for value in values)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body), *_texts(orelse)]
        case _:
            return ["…"]
