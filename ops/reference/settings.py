"""docs/settings.md: flags, variables and the configuration file."""

from __future__ import annotations

import inspect as python
from collections.abc import Iterator

import msgspec

from bus import config
from bus.tunables import ConfigFile
from cli.options import GLOBALS
from ops.reference.layout import one_line, page, table
from ops.reference.structs import fields

MEANINGS = {
    "home": "the directory that holds the bus",
    "agent": "who asks; default: the owner of the home, `owner`",
    "namespace": "the project; default: the name of the directory around the home",
    "url": "address of a remote bus; together with `creds`",
    "creds": "credentials file for a remote bus",
    "nats_server": "the nats-server to run instead of the one that is installed with Synbus",
    "log_level": "from which level on the daemon writes to its log: `debug`, `info`, `warning` or `error`",
}
NOT_IN_FILE = ("home",)


def settings_page() -> str:
    """docs/settings.md."""
    return page(
        "# Settings",
        """A flag wins over a variable, a variable over `config.toml` in the home, and that over the default. The bus
        refuses to work with a key it does not know or a value out of range, and says where it came from. The daemon
        reads the file when it starts: `bus down`, then any command, makes a change count.""",
        "## Where the home is",
        """Inside a git repository it is `<git-common-dir>/bus`, shared by all linked worktrees; a submodule and a bare
        repository have their own. Elsewhere it is `.bus/` of the nearest directory upwards that has one, else of this
        directory. `BUS_HOME` names another.""",
        "## Flags and variables",
        table(("flag", "variable", "key in the file", "meaning"), _chosen()),
        """`--json`, `--timeout` and `--debug` are flags only, except that `BUS_DEBUG=1` is the same as `--debug`. Every
        command has these flags, before or behind its name.""",
        "## config.toml",
        "Numbers end in their unit: `_s` seconds, `_bytes` bytes.",
        *_tables(),
    )


def _chosen() -> list[tuple[str, str, str, str]]:
    names = [name for name in python.signature(config.load).parameters if name not in ("cwd", "environ")]
    flags = {field.name: field.flags[0] for field in GLOBALS}
    keys = {field.encode_name for field in msgspec.structs.fields(ConfigFile)}
    rows = []
    for name in names:
        key = f"`{name}`" if name in keys else ""
        rows.append((f"`{flags[name]}`" if name in flags else "", f"`BUS_{name.upper()}`", key, MEANINGS[name]))
    level = next(field for field in fields(ConfigFile) if field.name == "log_level")
    rows.append(("", "", "`log_level`", f"{MEANINGS['log_level']}; default: {level.default.replace(chr(34), '')}"))
    return rows


def _tables() -> Iterator[str]:
    for field in msgspec.structs.fields(ConfigFile):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield f"### {field.encode_name}"
            # The docstring begins with the table's name: `[log]`: how large …
            text = one_line(field.type.__doc__).partition("`: ")[2]
            yield f"{text[:1].upper()}{text[1:]}"
            rows = [(f"`{one.name}`", one.type, _toml(one.default)) for one in fields(field.type)]
            yield table(("key", "type", "default"), rows)


def _toml(default: str) -> str:
    """A default as it may stand in TOML, thousands apart."""
    whole, point, rest = default.strip("`").partition(".")
    if not whole.isdecimal():
        return default
    return f"`{int(whole):_}{point}{rest}`"
