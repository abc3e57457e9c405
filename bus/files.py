"""Small files replaced atomically, locks on files, and what kind of file system a path lies on.

Rules: everything is made 0600. A lock is a `flock` on an open file: it is free the moment the last process that holds
(or has inherited) the descriptor is gone, however it died, so a lock is never stale and never has to be broken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bus.errors import NotAllowed, NotFound, Unavailable

LOCK_POLL_S = 0.02
_NETWORK = re.compile(
    r"9p|afpfs|afs|beegfs|ceph|cifs|davfs|fuse\.(ceph|glusterfs|s3fs|sshfs)|gfs2|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2"
    r"|smb[23]?|smbfs|virtiofs|webdav"
)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` so that a reader, or a crash at any moment, sees the old content or the new one. Mode 0600."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _denied(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def take_lock(path: Path, *, timeout_s: float = 0.0, shared: bool = False) -> int:
    """Lock `path`, waiting at most `timeout_s`, and return the descriptor: closing it frees the lock.

    Raises Unavailable (code `locked`) when another process keeps it, or when the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _denied(path, error) from error
    deadline = time.monotonic() + timeout_s
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    while (problem := _flock(descriptor, mode)) is not None:
        left_s = deadline - time.monotonic()
        if isinstance(problem, BlockingIOError) and left_s > 0:
            time.sleep(min(LOCK_POLL_S, left_s))
            continue
        os.close(descriptor)
        if isinstance(problem, BlockingIOError):
            raise Unavailable("another process holds this lock", code="locked", entity=str(path), retry_after_s=1.0)
        raise Unavailable(
            f"this file system has no usable locks: {problem.strerror}",
            code="no_locks",
            entity=str(path),
            hint="Put the home on a local disk (BUS_HOME)",
        )
    return descriptor


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold the lock on `path` for the body. Raises Unavailable when it cannot be had within `timeout_s`."""
    descriptor = take_lock(path, timeout_s=timeout_s)
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on `path` for itself. Asking takes a shared lock for an instant, so whoever
    takes the exclusive one has to be ready to try again."""
    if not path.exists():
        return False
    try:
        os.close(take_lock(path, shared=True))
    except Unavailable as error:
        if error.code != "locked":
            raise
        return True
    return False


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that holds `path`, or None when it is local (or cannot be told).

    On one, locks and fsync may not mean what they should.
    """
    import psutil  # type: ignore[import-untyped, unused-ignore]  # only `bus doctor` asks

    target = path.resolve()
    mounts = [(Path(mount.mountpoint), mount.fstype) for mount in psutil.disk_partitions(all=True)]
    holding = [(len(point.parts), kind) for point, kind in mounts if target.is_relative_to(point)]
    # The last mount on a point hides the earlier ones.
    kind = max(reversed(holding), key=lambda mount: mount[0], default=(0, ""))[1].lower()
    return kind if _NETWORK.fullmatch(kind) else None


def _flock(descriptor: int, mode: int) -> OSError | None:
    try:
        fcntl.flock(descriptor, mode)
    except OSError as error:
        return error
    return None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _denied(path: Path, error: OSError) -> NotFound | NotAllowed:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound("there is no such directory", code="no_directory", entity=str(path.parent))
    return NotAllowed(f"the file cannot be written: {error.strerror}", code="no_permission", entity=str(path))


def sync(path: Path) -> None:
    """Return when what was written to a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def set_aside(path: Path, aside: Path) -> None:
    """Move a file, if it exists; one that was set aside earlier goes in any case."""
    aside.unlink(missing_ok=True)
    if path.exists():
        path.replace(aside)
