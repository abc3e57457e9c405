"""Command lines that are read without typer: the commands of operations, as people and agents mostly type them.

Rules:
* What is read here means what it means to typer; a test compares the two, command by command.
* Whatever is not plain is typer's, which is good at saying what is wrong: help, completion, an option that there is
  not, a word too many, a value too few. (typer takes a fifth of the time that `bus post` may take.)
* Nothing is imported before it is known that the first word names an operation or a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bus import config
from bus.model import Operation
from cli.fields import Field, Typed
from cli.options import GLOBALS, Act, common_of, first_word, placed

OTHERS = ("BUS_DEBUG", "_BUS_COMPLETE")
"""Variables that make a command line mean something else."""


class Plain(NamedTuple):
    """A command line that was read: what it does, and what was typed before (at each level) and behind its name."""

    act: Act
    fields: tuple[Field, ...]
    before: Sequence[Typed]
    behind: Typed

    def carry_out(self) -> int:
        """Do it. Raises what the command raises."""
        return self.act(common_of([*self.before, self.behind]), placed(self.fields, self.behind)) or 0


def read(arguments: Sequence[str]) -> Plain | None:
    """What a command line means, or None when that is not plain."""
    place = first_word(arguments)
    if place is None or any(variable in config.environment() for variable in OTHERS):
        return None
    above, rest = [list(arguments[:place])], list(arguments[place + 1 :])
    operation = _operation(arguments[place], above, rest)
    if operation is None:
        return None
    from cli.daily import meant

    fields, act = meant(operation)
    if not rest and any(field.required for field in fields):
        return None  # It may be help that is wanted.
    before = [_typed((), words) for words in above]
    behind = _typed(fields, rest)
    plain = [level for level in (*before, behind) if level is not None and "global_debug_" not in level]
    return Plain(act, fields, plain[:-1], plain[-1]) if len(plain) == len(before) + 1 else None


def _operation(name: str, above: list[list[str]], rest: list[str]) -> Operation | None:
    """The operation of the command `name`. What is typed before a family's verb moves from `rest` to `above`."""
    from cli.daily import DAILY, DEFAULTS, FAMILIES, named, verbs_of

    if name in DAILY:
        return named(DAILY[name][0])
    if name not in FAMILIES:
        return None
    verbs = verbs_of(name)
    place = first_word(rest)
    if place is not None and rest[place] in verbs:
        verb = rest[place]
        above.append(rest[:place])
        del rest[: place + 1]
        return verbs[verb]
    # The verb may be left out: then these are the words of the one that is meant.
    return verbs.get(DEFAULTS.get(name, ""))


def _typed(fields: tuple[Field, ...], words: list[str]) -> dict[str, Any] | None:
    """What was typed, by parameter; None when it is not plain."""
    options = _options(fields)
    typed: dict[str, Any] = {}
    places: list[str] = []
    rest = words[::-1]
    while rest:
        word = rest.pop()
        if word == "--":
            places += rest[::-1]
            break
        if not word.startswith("-") or word == "-":
            places.append(word)
            continue
        flag, equals, value = word.partition("=")
        param, shape, meaning = options.get(flag, ("", "", False))
        if not param or (equals and (shape in ("flag", "switch") or not flag.startswith("--"))):
            return None
        if shape in ("flag", "switch"):
            typed[param] = meaning
            continue
        if not equals:
            if not rest:
                return None
            value = rest.pop()
        typed[param] = [*typed.get(param, ()), value] if shape in ("many", "pairs") else value
    return typed if _fill(typed, fields, places) else None


def _options(fields: tuple[Field, ...]) -> dict[str, tuple[str, str, bool]]:
    """-> by flag: the parameter, the field's shape, and what the flag means where it takes no value."""
    found: dict[str, tuple[str, str, bool]] = {}
    every = [(field.param if field.place is None else f"{field.param}option", field) for field in fields]
    for param, field in [*every, *((f"global_{field.param}", field) for field in GLOBALS)]:
        for flag in field.flags:
            on, _, off = flag.partition("/")
            found[on] = (param, field.shape, True)
            if off:
                found[off] = (param, field.shape, False)
    return found


def _fill(typed: dict[str, Any], fields: tuple[Field, ...], words: list[str]) -> bool:
    """Give the words to the arguments in their order. False when there are too many, or when it is not plain whose
    they are."""
    places = [field for field in fields if field.place is not None]
    for field in places:
        if field.shape == "many" and words:
            if field is not places[-1]:
                return False
            typed[field.param], words = words, []
        elif words:
            typed[field.param], *words = words
    return not words
