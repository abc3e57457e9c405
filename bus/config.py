"""Settings of one process: the only reader of environment variables and of TOML.

    flags  >  BUS_* variables  >  <home>/config.toml  >  defaults

Rules: an unknown key, a value out of its range and a bad name are errors that say where the value came from. Numbers
carry their unit at the end of their name (`_s`, `_bytes`). Finding the home never creates anything:

    BUS_HOME or --home            that directory
    inside a git repository       <git-common-dir>/bus: shared by all linked worktrees, never committed or cloned;
                                  a submodule and a bare repository have their own
    elsewhere                     .bus/ of the nearest directory upwards that has one, else of this directory
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bus.errors import InvalidRequest, NotAllowed, NotFound
from bus.subjects import SYSTEM, check_name, is_name
from bus.tunables import ConfigFile

OWNER = "owner"
CONFIG_FILE = "config.toml"
DOT_HOME = ".bus"
GIT_TIMEOUT_S = 10

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one process works with. `url` and `creds` are set together, for a remote bus; None means the embedded one.
    `home` may not exist yet."""

    home: Path
    agent: str
    namespace: str
    url: str | None = None
    creds: Path | None = None
    nats_server: Path | None = None
    file: ConfigFile = ConfigFile()


class _Choice:
    """Picks the strongest source of each setting and remembers its name for error messages."""

    def __init__(self, flags: Mapping[str, str | None], environ: Mapping[str, str]) -> None:
        self._flags, self._environ = flags, environ
        self.file: Mapping[str, str | None] = {}
        self.file_path = ""

    def get(self, key: str) -> tuple[str | None, str]:
        """-> (value or None, where it came from). An empty variable counts as unset."""
        flag, variable = "--as" if key == "agent" else f"--{key.replace('_', '-')}", f"BUS_{key.upper()}"
        if value := self._flags.get(key):
            return value, flag
        if value := self._environ.get(variable):
            return value, variable
        return self.file.get(key), f"{key} in {self.file_path}"


def load(
    *,
    home: str | Path | None = None,
    agent: str | None = None,
    namespace: str | None = None,
    url: str | None = None,
    creds: str | Path | None = None,
    nats_server: str | Path | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of a process started in `cwd` with these flags. Raises InvalidRequest for a bad value or file."""
    cwd = (cwd or Path.cwd()).absolute()
    environ = os.environ if environ is None else environ
    flags = {"home": home, "agent": agent, "namespace": namespace, "url": url, "creds": creds}
    flags["nats_server"] = nats_server
    choice = _Choice({key: str(value) if value else None for key, value in flags.items()}, environ)

    chosen, _ = choice.get("home")
    common = git_common_dir(cwd, environ) if chosen is None or not (namespace or environ.get("BUS_NAMESPACE")) else None
    place = _absolute(chosen, cwd) if chosen else _find_home(cwd, common)
    file = read_config_file(place / CONFIG_FILE)
    choice.file_path = str(place / CONFIG_FILE)
    choice.file = {key: getattr(file, key) for key in ("agent", "namespace", "url", "creds", "nats_server")}

    url, url_from = choice.get("url")
    credentials, creds_from = choice.get("creds")
    if (url is None) != (credentials is None):
        raise InvalidRequest(
            "a remote bus needs an address and credentials",
            code="bad_setting",
            expected="both BUS_URL and BUS_CREDS, or neither",
            found=f"only {url_from if url else creds_from}",
        )
    server, _ = choice.get("nats_server")
    return Settings(
        home=place,
        agent=_name(choice, "agent") or OWNER,
        namespace=_name(choice, "namespace") or project_name(common / "bus" if common else place),
        url=url,
        creds=_absolute(credentials, cwd) if credentials else None,
        nats_server=_absolute(server, cwd) if server else None,
        file=file,
    )


def read_config_file(path: Path) -> ConfigFile:
    """The tunables in `path`; all defaults when there is no such file. Raises InvalidRequest naming the bad key."""
    return read_toml(path, ConfigFile) or ConfigFile()


def read_toml(path: Path, kind: type[T]) -> T | None:
    """The TOML file at `path` as a struct, or None when there is none. Raises InvalidRequest naming the key at fault,
    NotAllowed when the file may not be read."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise NotAllowed("the file may not be read", code="no_permission", entity=str(path)) from error
    try:
        return msgspec.convert(tomllib.loads(text.decode()), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise InvalidRequest(
            f"the file is not valid: {_readable(str(error))}",
            code="bad_config",
            entity=str(path),
            hint="Correct it, or remove a key to get its default",
        ) from error


def git_common_dir(cwd: Path, environ: Mapping[str, str]) -> Path | None:
    """The git directory that all worktrees of the repository around `cwd` share, or None outside of one.

    Raises InvalidRequest when there is a repository but git is missing or refuses it.
    """
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**environ, "LC_ALL": "C"},
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        if not any((directory / ".git").exists() for directory in (cwd, *cwd.parents)):
            return None
        raise InvalidRequest(
            "this is a git repository, but git does not run here",
            code="no_git",
            entity=str(cwd),
            hint="Install git 2.31 or newer, or name the home with BUS_HOME",
        ) from error
    output = os.fsdecode(done.stdout).removesuffix("\n")
    if done.returncode == 0 and output.startswith("/"):
        return Path(output)
    problem = os.fsdecode(done.stderr).strip()
    if done.returncode != 0 and "not a git repository" in problem:
        return None
    raise InvalidRequest(
        "git does not say where this repository keeps its data",
        code="git_refused",
        entity=str(cwd),
        expected="an absolute path from `git rev-parse --path-format=absolute --git-common-dir` (git 2.31 or newer)",
        found=repr(problem or output),
        hint="Follow git's advice, or name the home with BUS_HOME",
    )


def project_name(home: Path) -> str:
    """The namespace of the project a home belongs to: the directory name of the main worktree, of the bare repository,
    or of the directory around `.bus/`, made to fit the rule of names. All worktrees of a repository agree on it."""
    holder = home.parent if home.name in ("bus", DOT_HOME) else home
    if holder.name == ".git":
        holder = holder.parent
    text = unicodedata.normalize("NFKD", holder.name.removesuffix(".git")).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", text).strip("-_")[:63].rstrip("-_")
    return name if is_name(name) else "project"


def child_environment() -> dict[str, str]:
    """The environment of a process of ours: this one's, with the packages importable when run from a checkout."""
    root = Path(__file__).resolve().parent.parent
    environment = dict(os.environ)
    if root != Path(sysconfig.get_paths()["purelib"]).resolve():
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else str(root)
    return environment


def environment() -> dict[str, str]:
    """The environment of this process, for a program of the user's."""
    return dict(os.environ)


def secret(variable: str) -> str | None:
    """What the environment variable that a setting names holds; None when it is not set, or empty."""
    return os.environ.get(variable) or None


def search_path() -> str:
    """Where programs are looked for (PATH)."""
    return os.environ.get("PATH", os.defpath)


def _find_home(cwd: Path, common: Path | None) -> Path:
    if common is not None:
        return common / "bus"
    for directory in (cwd, *cwd.parents):
        if (directory / DOT_HOME).is_dir():
            return directory / DOT_HOME
    if not cwd.is_dir():
        raise NotFound("the working directory is gone", code="no_directory", entity=str(cwd))
    return cwd / DOT_HOME


def _absolute(text: str, cwd: Path) -> Path:
    return cwd / Path(text).expanduser()


def _name(choice: _Choice, key: str) -> str | None:
    value, source = choice.get(key)
    if value is None:
        return None
    try:
        check_name(value, key)
    except InvalidRequest as error:
        problem = error.problem
        raise InvalidRequest(
            f"{source}: {problem.message}", code=problem.code, expected=problem.expected, found=problem.found
        ) from None
    if key == "agent" and value == SYSTEM:
        raise InvalidRequest(
            f"{source}: `{SYSTEM}` is the author of the bus's own events, no agent can be it",
            code="reserved_name",
            hint="Choose another name",
        )
    return value


def _readable(text: str) -> str:
    """msgspec's message with the key that is at fault named in full (`log.max_byte`)."""
    unknown = re.fullmatch(r"Object contains unknown field `(.*?)`(?: - at `\$\.?(.*)`)?", text)
    if unknown:
        return f"unknown key `{'.'.join(filter(None, (unknown[2], unknown[1])))}`"
    wrong = re.fullmatch(r"(.*) - at `\$\.(.*)`", text)
    return f"`{wrong[2]}`: {wrong[1]}" if wrong else text


def as_toml(values: Mapping[str, Any]) -> str:
    """A flat table of strings and integers as TOML, in the order given. Raises ValueError for text TOML cannot hold."""
    lines = []
    for key, value in values.items():
        if isinstance(value, int):
            lines.append(f"{key} = {value}")
            continue
        value.encode()
        # A JSON string is a TOML basic string, except that TOML also wants the delete character escaped.
        quoted = msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
        lines.append(f"{key} = {quoted}")
    return "\n".join(lines) + "\n"
