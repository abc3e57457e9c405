"""What every command takes and does: the global options, and words that become fields.

Rules:
* The global options work everywhere, before and behind the command's name; those behind it win.
* Nothing here knows typer, which takes longer to import than a daemon takes to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bus.durations import duration
from bus.errors import InvalidRequest
from cli.fields import Field, Typed, value_of

Act = Callable[["Common", Typed], int | None]
"""What a command does. It ends with the exit code that this returns, and with 0 for None."""


class Common(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The global options as typed; None means that the environment or the configuration decides."""

    home: str | None = None
    agent: str | None = None
    namespace: str | None = None
    url: str | None = None
    creds: str | None = None
    json: bool = False
    timeout_s: float | None = None
    debug: bool = False


def _patience(word: str) -> float:
    seconds = duration(word)
    if seconds <= 0:
        raise ValueError("more than nothing")
    return seconds


GLOBALS = (
    Field(name="home", flags=("--home",), metavar="DIR", help="the bus's home (default: found from here)"),
    Field(name="agent", flags=("--as",), metavar="AGENT", help="who asks (default: BUS_AGENT, else the owner)"),
    Field(name="namespace", flags=("--namespace",), metavar="NAME", help="the project (default: this directory's)"),
    Field(name="url", flags=("--url",), metavar="URL", help="a remote bus"),
    Field(name="creds", flags=("--creds",), metavar="FILE", help="credentials for a remote bus"),
    Field(name="json", flags=("--json",), shape="flag", help="print one JSON document (streams: JSON lines)"),
    Field(name="timeout_s", flags=("--timeout",), metavar="TIME", read=_patience, help="wait at most so long"),
    Field(name="debug", flags=("--debug",), shape="flag", help="show tracebacks (also: BUS_DEBUG=1)"),
)


def common_of(levels: Sequence[Typed]) -> Common:
    """The global options of a command. Those of a later level win: what is typed behind its name stands last."""
    found: dict[str, Any] = {}
    for level in levels:
        for field in GLOBALS:
            value = value_of(msgspec.structs.replace(field, name=f"global_{field.name}"), level, str)
            if value is not None:
                found[field.name] = value
    return Common(**found)


def first_word(words: Sequence[str]) -> int | None:
    """Where the first word stands that is neither a global option nor its value; None when another option comes first,
    or none."""
    valued = {flag for field in GLOBALS if field.shape == "one" for flag in field.flags}
    flags = {flag for field in GLOBALS if field.shape == "flag" for flag in field.flags}
    place = 0
    while place < len(words):
        word = words[place]
        if word in valued:
            place += 2
        elif word in flags or word.partition("=")[0] in valued:
            place += 1
        else:
            return None if word.startswith("-") else place
    return None


def usage(fields: Sequence[Field]) -> str:
    """The arguments and `[OPTIONS]`, as a usage line has them."""
    words = [
        field.metavar + ("..." if field.shape == "many" else "") if field.required else f"[{field.metavar}]"
        for field in fields
        if field.place is not None
    ]
    return " ".join([*words, "[OPTIONS]"])


def placed(fields: Sequence[Field], typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed by field: words fill the arguments that were not given as options, in order."""
    found = dict(typed)
    places = [field for field in fields if field.place is not None]
    words = [word for field in places if (word := typed.get(field.param)) not in (None, [])]
    open_places = []
    for field in places:
        option = found.pop(f"{field.param}option", None)
        found[field.param] = option
        if option is None or option == []:
            open_places.append(field)
    if len(words) > len(open_places):
        raise InvalidRequest(
            "one argument too many", code="usage", expected=usage(fields), found=repr(words[len(open_places)])
        )
    for field, word in zip(open_places, words, strict=False):
        found[field.param] = word
    return found
