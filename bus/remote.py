"""A home that follows a bus elsewhere: where that is, and the credentials of its projector.

    remote.toml              the address
    creds/_remote.creds      credentials of kind projector, with the agents that live on this host

Rules:
* A home with a log of its own never follows another, and one that follows never gets a log.
* Only the agents that the credentials name are agents of this host; the broker there refuses all others.
* `remote.toml` is written last: without it nothing is followed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bus import auth, home
from bus.config import as_toml, read_toml
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.files import write_atomic
from bus.home import REMOTE_FILE, Home

CREDS = "_remote.creds"
"""No agent and no role has this name."""
STATUS_FILE = "projector.json"
ENDING = "ending"
"""The code with which a projector that ends leaves to the next one what it was asked."""
INVITE = "where the bus runs, `bus projector invite HOST AGENT ...` makes them"


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`remote.toml`: the address of the bus that is followed."""

    url: str


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """The bus elsewhere, as one host may use it."""

    url: str
    creds: auth.Credentials

    def check_agent(self, name: str) -> None:
        """Raise NotAllowed unless `name` is an agent of this host."""
        if name not in self.creds.agents:
            raise NotAllowed(
                "this agent does not live on this host",
                code="not_of_this_host",
                entity=f"agent {name}",
                expected=" or ".join(self.creds.agents),
                found=name,
                hint=f"Name one of them (--as or BUS_AGENT), or follow with other credentials: {INVITE}",
            )


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """`run/projector.json`: how the projector was a moment ago, times in seconds since 1970 by the clock of its host.

    `account` is the tenant's account at the bus, `head` the last event that the log is known to have. The tables
    contained everything that was stored at `complete_s` (None: they never did).
    """

    pid: int
    url: str
    account: str
    projector: str
    agents: tuple[str, ...]
    connected: bool
    problem: str | None
    position: int
    head: int
    skipped: int
    complete_s: float | None
    at_s: float
    counters: dict[str, int] = {}


def read_credentials(path: Path) -> auth.Credentials:
    """The credentials in `path`, of a projector. Raises NotFound, NotAllowed, or InvalidRequest for any others."""
    try:
        found = auth.read_credentials(path.read_text(errors="replace"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(
            "there are no such credentials", entity=str(path), hint=f"BUS_CREDS names them; {INVITE}"
        ) from error
    except PermissionError as error:
        raise NotAllowed("the credentials may not be read", code="no_permission", entity=str(path)) from error
    if found.role != "projector" or not found.agents:
        raise InvalidRequest(
            "these are not credentials of a projector",
            code="not_projector",
            entity=str(path),
            expected="a projector's, which name the agents of this host",
            found=f"those of {found.role} {found.name}" if found.role == "agent" else f"those of a {found.role}",
            hint=f"Follow with others: {INVITE}",
        )
    return found


def read(opened: Home) -> Remote | None:
    """What this home follows; None when it has a bus of its own."""
    file = read_toml(opened.path / REMOTE_FILE, RemoteFile)
    return None if file is None else Remote(url=file.url, creds=read_credentials(opened.keyring.creds / CREDS))


def read_following(opened: Home) -> Following | None:
    """How the projector of this home said it was, or None when it has not said anything (or something else)."""
    try:
        return msgspec.json.decode((opened.run / STATUS_FILE).read_bytes(), type=Following)
    except (OSError, msgspec.MsgspecError):
        return None


def follow(path: Path, remote: Remote) -> Home:
    """The home at `path`, made if there is none, which follows `remote` from now on. Raises Refused when it has a bus
    of its own."""
    opened = home.open_home(path) if (path / home.HOME_FILE).exists() else home.create(path)
    if not opened.follows and opened.keyring.account_jwt() is not None:
        raise Refused(
            "there is a bus of its own here",
            code="own_bus",
            entity=str(opened.path),
            expected="a home that follows a bus elsewhere, or none",
            found="a home with a log",
            hint="Give the projector a home of its own: --home DIR, or BUS_HOME",
        )
    write_atomic(opened.keyring.creds / CREDS, remote.creds.text.encode())
    write_atomic(opened.path / REMOTE_FILE, as_toml({"url": remote.url}).encode())
    return opened
