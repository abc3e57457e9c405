"""Command lines that are read without typer: they mean what they mean to typer, and what is not plain is left to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import BusError
from bus.model import Operation
from bus.operation import OPERATIONS
from cli import daily, main, words
from cli.fields import Field, Typed
from cli.options import GLOBALS, Common

PUBLIC = [operation for operation in OPERATIONS.values() if not operation.internal]
PATHS = [((name,), daily.named(full)) for name, (full, _) in daily.DAILY.items()]
PATHS += [((one.family, one.verb.replace("_", "-")), one) for one in PUBLIC]
PATHS += [((one.family,), one) for one in PUBLIC if daily.DEFAULTS.get(one.family) == one.verb]
WORDS = st.sampled_from(
    ["x", "3", "#5", "7s", "nova", "a b", "", "-", "{}", "a=b", "-1", "--", "--json", "--text", "ä"]
)
Meaning = tuple[str, Common, dict[str, Any]]


@st.composite
def options(draw: st.DrawFn, fields: tuple[Field, ...]) -> list[str]:
    """One option of `fields`, mostly as it should be."""
    field = draw(st.sampled_from(fields))
    flag = draw(st.sampled_from([part for one in field.flags for part in one.split("/")]))
    ways: list[list[str]] = [[flag]]
    if field.shape not in ("flag", "switch"):
        value = draw(WORDS)
        ways = [[flag, value], [f"{flag}={value}"], [flag, value], [flag]]
    return draw(st.sampled_from([*ways, ways[0], [f"{flag}=1"]]))


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command line, some of them wrong."""
    path, operation = draw(st.sampled_from(PATHS))
    fields = daily.meant(operation)[0]
    line: list[str] = []
    for word in path:
        line += [*chain(*draw(st.lists(options(GLOBALS), max_size=1))), word]
    parts = draw(st.lists(options((*fields, *GLOBALS)), max_size=4))
    parts += [[draw(WORDS)] for field in fields if field.place is not None]
    parts += draw(st.lists(st.sampled_from([["--"], ["extra"], ["--nonsense"], ["-f"]]), max_size=1))
    return [*line, *chain(*draw(st.permutations(parts)))]


def meaning(line: list[str], read: Callable[[list[str]], object]) -> list[Meaning] | str:
    """What a line does when it is read like that, or the error that it ends with."""
    done: list[Meaning] = []

    def watched(operation: Operation) -> tuple[tuple[Field, ...], Callable[[Common, Typed], None]]:
        fields, _ = meant(operation)

        def act(common: Common, typed: Typed) -> None:
            given_ = {field.name: typed.get(field.param) for field in fields}
            done.append(
                (operation.name, common, {name: value for name, value in given_.items() if value or value == ""})
            )

        return fields, act

    meant = daily.meant
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daily, "meant", watched)
        try:
            read(line)
        except BusError as error:
            return str(error)
    return done


def _is_there(field: Field, value: Any) -> bool:
    return value not in (None, []) and (value is not False or field.shape == "switch")


def by_typer(line: list[str]) -> None:
    main.root().main(args=list(line), prog_name="bus", standalone_mode=False)


def plainly(line: list[str]) -> None:
    plain = words.read(line)
    assert plain is not None
    plain.carry_out()


@settings(max_examples=150, deadline=None)
@given(lines())
def test_what_is_plain_means_what_it_means_to_typer(line: list[str]) -> None:
    if words.read(line) is not None:
        assert meaning(line, plainly) == meaning(line, by_typer), line


@pytest.mark.parametrize(("path", "operation"), PATHS, ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_every_operation_can_be_asked_for_plainly(path: tuple[str, ...], operation: Operation) -> None:
    fields = daily.meant(operation)[0]
    line = ["--json", *path, *("12" for field in fields if field.place is not None), "--as", "nova"]
    read = meaning(line, plainly)
    assert read == meaning(line, by_typer)
    assert isinstance(read, list)
    assert read[0][:2] == (operation.name, Common(json=True, agent="nova"))


@pytest.mark.parametrize(
    "line",
    [
        *("", "--help", "-h", "--version", "--install-completion", "nonsense", "init", "help task claim", "call x"),
        *("task", "post --help", "post -h", "post dev hi there", "post dev hi --nonsense", "post dev hi --reply-to"),
        *("task nonsense", "inbox nonsense", "inbox -fx", "channel list --archived=1", "post", "dm", "--as", "--as x"),
        *("replay", "replay --as-of 3", "--debug post dev hi", "post dev hi --debug", "-- post dev hi"),
    ],
)
def test_what_is_not_plain_is_left_to_typer(line: str) -> None:
    assert words.read(line.split()) is None


@pytest.mark.parametrize("variable", ["BUS_DEBUG", "_BUS_COMPLETE"])
def test_variables_that_mean_something_else_are_left_to_typer(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert words.read(["post", "dev", "hi"]) is not None
    monkeypatch.setenv(variable, "1")
    assert words.read(["post", "dev", "hi"]) is None


def test_no_two_commands_have_one_name() -> None:
    names = [*daily.DAILY, *daily.FAMILIES, *main.LIFECYCLE, *main.REFERENCE, *main.PROJECTOR, *main.GUARD, *main.WORK]
    assert len({*names}) == len(names)


@pytest.mark.parametrize("line", ["post dev hi", "inbox --json", "task list", "recall parser", "task claim"])
def test_a_plain_command_imports_no_typer(tmp_path: Path, line: str) -> None:
    program = f"import sys; from cli.main import main; main({line.split()!r}); print(*sys.modules)"
    environment = {"BUS_HOME": str(tmp_path / "none"), "PYTHONPATH": str(Path(words.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert ("typer" in done.stdout.split()) == (line == "task claim")
