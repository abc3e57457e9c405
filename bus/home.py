"""The home: one directory on disk that holds everything of an embedded bus.

    home.toml     what it is, who made it, where              keys/         signing keys (never read by the daemon)
    config.toml   tunables (optional)                         creds/        one .creds file per user
    remote.toml   the bus elsewhere that it follows, if it is a projector's (see bus/remote.py)
    jetstream/    the server's store: the log                 accounts/     account JWTs as the server keeps them
    projections/  tables and indexes; can be rebuilt          run/          locks, pids, address
    logs/         of server, daemon and supervisor

Rules:
* Directories are 0700 and files 0600. A home of another user, or one that others may enter, is not opened.
* `home.toml` is written last: a directory without it is not a home yet, and creating it again finishes the work.
* A copied or moved home is refused until it is adopted: two buses must never believe that they are the same one.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import msgspec

from bus import auth
from bus.clock import SystemClock, from_ns
from bus.config import CONFIG_FILE, OWNER, as_toml, read_toml
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.files import is_locked, locked, write_atomic
from bus.keyring import Keyring, create_keys
from bus.subjects import check_name

FORMAT = 1
HOME_FILE = "home.toml"
REMOTE_FILE = "remote.toml"
STORE_LOCK = "store.lock"
DIRECTORIES = ("keys", "creds", "accounts", "jetstream", "projections", "run", "logs")


class HomeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`home.toml`. `machine`, `path` and `inode` say where the home was made or last adopted; `id` is its own, and
    `account` the public key of the tenant's account."""

    tenant: str
    owner: str
    account: str
    created: str
    format: int = FORMAT
    id: str = ""
    machine: str = ""
    path: str = ""
    inode: int = 0


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """A home that was opened: it is ours, and where it was made."""

    path: Path
    file: HomeFile

    @property
    def keyring(self) -> Keyring:
        return Keyring(keys=self.path / "keys", creds=self.path / "creds", account=self.file.account)

    @property
    def follows(self) -> bool:
        """Whether it follows a bus elsewhere, and has no log of its own."""
        return (self.path / REMOTE_FILE).exists()

    @property
    def accounts(self) -> Path:
        return self.path / "accounts"

    @property
    def jetstream(self) -> Path:
        return self.path / "jetstream"

    @property
    def projections(self) -> Path:
        return self.path / "projections"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def supervisor_lock(self) -> Path:
        """Locked by the one supervisor of this home. No file of its own: one that nobody tidies away."""
        return self.path / HOME_FILE

    @property
    def store_lock(self) -> Path:
        """Locked as long as a nats-server lives on this home's store, even one whose supervisor is gone. It lies with
        the store, so that it is not tidied away without it."""
        return self.jetstream / STORE_LOCK

    @property
    def start_lock(self) -> Path:
        """Held while somebody starts or stops the supervisor."""
        return self.run / "start.lock"


def create(path: Path, *, tenant: str = "local", owner: str = OWNER) -> Home:
    """Make the home at `path` with its keys; one that is there already is opened.

    Raises Refused when that one has another tenant or owner, or when a log lies there without its `home.toml`;
    NotAllowed when the directory cannot be made.
    """
    check_name(tenant, "tenant")
    auth.user_name("agent", owner)
    _check_empty(path)
    _make_directories(path)
    with locked(path / "run" / "create.lock", timeout_s=10):
        if not (path / HOME_FILE).exists():
            if any((path / "jetstream").iterdir()):
                raise Refused(
                    f"a log is here, but {HOME_FILE} is missing",
                    code="no_home_file",
                    entity=str(path),
                    hint=f"Put {HOME_FILE} and keys/ back from a backup: new keys could not open this log",
                )
            file = HomeFile(
                tenant=tenant,
                owner=owner,
                account=create_keys(path / "keys"),
                created=from_ns(SystemClock().server_ns()).isoformat(timespec="seconds"),
            )
            _write(path, file)
    home = open_home(path)
    if (home.file.tenant, home.file.owner) != (tenant, owner):
        raise Refused(
            "there is a home already",
            code="home_exists",
            entity=str(path),
            expected=f"tenant {tenant} of {owner}",
            found=f"tenant {home.file.tenant} of {home.file.owner}",
        )
    return home


def open_home(path: Path) -> Home:
    """The home at `path`, checked.

    Raises NotFound when there is none, NotAllowed when it is not this user's alone, and Refused when it was copied or
    moved here, or made by a newer version.
    """
    file = _read(path)
    here = _place(path)
    same_machine = not file.machine or not here["machine"] or file.machine == here["machine"]
    if same_machine and (file.path, file.inode) == (here["path"], here["inode"]):
        return Home(path=path.resolve(), file=file)
    moved = same_machine and file.inode == here["inode"]
    raise Refused(
        "this home was moved" if moved else "this home is a copy",
        code="home_moved" if moved else "home_copied",
        entity=str(path),
        expected=f"{file.path}, inode {file.inode}, machine {file.machine[:8]}",
        found=f"{here['path']}, inode {here['inode']}, machine {str(here['machine'])[:8]}",
        hint="If the original is gone or shall be another bus from now on: bus adopt it. Otherwise remove it",
    )


def adopt(path: Path) -> Home:
    """Make a copied or moved home this place's own. Its log and keys stay; addresses and pids of the original go.

    Raises Refused while a server runs on it.
    """
    file = _read(path)
    _make_directories(path)
    if is_locked(path / "jetstream" / STORE_LOCK):
        raise Refused(
            "a server is running on this home",
            code="in_use",
            entity=str(path),
            hint="Move it back and stop the bus there first: bus down",
        )
    for name in ("server.json", "supervisor.json"):
        (path / "run" / name).unlink(missing_ok=True)
    _write(path, file)
    return open_home(path)


def machine_id() -> str:
    """A digest of this machine's id, or an empty string where it has none (many containers)."""
    raw = ""
    if sys.platform == "darwin":
        command = ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
        raw = next((line.split('"')[3] for line in output.splitlines() if '"IOPlatformUUID"' in line), "")
    else:
        for candidate in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
            if candidate.is_file():
                raw = candidate.read_text().strip()
                break
    # The id itself is confidential by its own manual; an application keeps a digest.
    return sha256(f"synbus {raw}".encode()).hexdigest()[:32] if raw else ""


def _read(path: Path) -> HomeFile:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise NotFound(
            "there is no bus here", code="no_home", entity=str(path), hint="Create one: run bus init"
        ) from error
    except NotADirectoryError as error:
        raise _not_a_directory(path) from error
    except PermissionError as error:
        raise NotAllowed("the home may not be entered", code="no_permission", entity=str(path)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _not_a_directory(path)
    if found.st_uid != os.geteuid():
        raise NotAllowed(
            "this home belongs to another user",
            code="other_user",
            entity=str(path),
            expected=f"user id {os.geteuid()}",
            found=f"user id {found.st_uid}",
            hint="Run bus as that user, or use a home of your own (BUS_HOME)",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise NotAllowed(
            "others may enter this home, and it holds keys",
            code="open_home",
            entity=str(path),
            expected="mode 0700",
            found=f"mode {stat.S_IMODE(found.st_mode):04o}",
            hint=f"Close it: chmod -R go-rwx '{path}'; on a disk without modes, use a home elsewhere (BUS_HOME)",
        )
    file = read_toml(path / HOME_FILE, HomeFile)
    if file is None:
        raise NotFound(
            f"there is no bus here: {HOME_FILE} is missing",
            code="no_home",
            entity=str(path),
            hint="Create one: run bus init",
        )
    if file.format > FORMAT:
        raise Refused(
            "this home was made by a newer version",
            code="newer_home",
            entity=str(path),
            expected=f"format {FORMAT} or older",
            found=f"format {file.format}",
            hint="Upgrade synbus",
        )
    return file


def _write(path: Path, file: HomeFile) -> None:
    here = msgspec.structs.replace(file, id=uuid4().hex, **_place(path))
    try:
        text = as_toml(msgspec.structs.asdict(here))
    except ValueError as error:
        raise InvalidRequest(
            "the path of a home has to be text", code="bad_home", entity=repr(os.fspath(path)), expected="UTF-8"
        ) from error
    write_atomic(path / HOME_FILE, text.encode())


def _place(path: Path) -> dict[str, str | int]:
    real = path.resolve()
    return {"machine": machine_id(), "path": str(real), "inode": real.stat().st_ino}


def _make_directories(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in DIRECTORIES:
            (path / name).mkdir(mode=0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _not_a_directory(path) from error
    except OSError as error:
        raise NotAllowed(
            f"the home cannot be made: {error.strerror}", code="no_permission", entity=str(path)
        ) from error


def _check_empty(path: Path) -> None:
    """Refuse to make a home of a directory that has another use; make one of ours private."""
    if not path.is_dir() or (path / HOME_FILE).exists():
        return
    # Another process may be making the same home: its unfinished file is no other use.
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(f".{HOME_FILE}.")}
    others = names - {*DIRECTORIES, CONFIG_FILE, HOME_FILE, REMOTE_FILE}
    if others:
        raise Refused(
            "a home is made in a directory of its own",
            code="not_empty",
            entity=str(path),
            expected="an empty directory, or none",
            found=f"{min(others)!r} in it",
        )
    if path.stat().st_uid == os.geteuid():
        path.chmod(0o700)


def _not_a_directory(path: Path) -> InvalidRequest:
    return InvalidRequest(
        "a home has to be a directory", code="bad_home", entity=str(path), found="something else there, or on the way"
    )
