"""Keys and credentials on disk: `keys/`, `creds/` and the record of what was issued to whom.

    keys/<key>.nk           the seeds; `operator`, `system`, `account` and one per role
    keys/account.jwt        the tenant's account as last signed (quotas, roles, revocations)
    keys/issued.jsonl       one line for every user that was issued or revoked
    creds/<user>.creds      what a user connects with

Rules: issuing reads one role's key only. The daemon reads its own file in `creds/` and nothing in `keys/`. Changes are
made under one lock, so two processes that use a new name at once get the same credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from bus import auth
from bus.clock import SystemClock
from bus.errors import NotAllowed, NotFound, Refused
from bus.files import locked, write_atomic

DAEMON = "main"
LOCK_TIMEOUT_S = 10


class Issue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `keys/issued.jsonl`: a user that was issued or revoked, and when (seconds since 1970)."""

    at_s: int
    name: str
    public: str
    revoked: bool = False


def now_s() -> int:
    """This host's time in whole seconds since 1970, as JWTs carry it."""
    return SystemClock().server_ns() // 1_000_000_000


def create_keys(directory: Path) -> str:
    """Make all keys of a new bus in `directory` and return the public key of its tenant's account."""
    keys = auth.new_keys()
    for name, pair in msgspec.structs.asdict(keys).items():
        write_atomic(directory / f"{name}.nk", pair.seed.encode())
    return keys.account.public


class Keyring(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one home. `account` is the public key of its tenant's account, by which the log is stored."""

    keys: Path
    creds: Path
    account: str

    def load(self) -> auth.Keys:
        """All keys, the operator's included: for `bus` commands only. Raises Refused when one is missing or another."""
        keys = auth.Keys(**{name: self._key(name) for name in auth.KEY_NAMES})
        if keys.account.public != self.account:
            raise Refused(
                "the account key is not the one of this log",
                code="wrong_key",
                entity=str(self.keys / "account.nk"),
                expected=self.account,
                found=keys.account.public,
                hint="Put the original key back: under another one the log would seem empty",
            )
        return keys

    def known(self, name: str) -> str | None:
        """The text of an agent's credentials, or None when it has none here."""
        auth.user_name("agent", name)
        known = self._read(name)
        return known.text if known is not None else None

    def agent(self, name: str) -> auth.Credentials:
        """The credentials of an agent, issued now if it has none. Raises NotAllowed when they were revoked."""
        auth.user_name("agent", name)
        known = self._read(name)
        if known is not None:
            return known
        with self._locked():
            known = self._read(name)
            if known is not None:
                return known
            if any(issue.revoked for issue in self._issues() if issue.name == name):
                raise NotAllowed(
                    "the credentials of this agent were revoked",
                    code="revoked",
                    entity=name,
                    hint="To issue new ones: bus agent rotate",
                )
            return self._issue(self._mint("agent", name))

    def daemon(self) -> auth.Credentials:
        """The daemon's credentials, from its own file alone. Raises NotFound before a supervisor has issued them."""
        known = self._read(auth.user_name("daemon", DAEMON))
        if known is None:
            raise NotFound("the daemon has no credentials yet", entity=str(self.creds), hint="Start the bus: bus up")
        return known

    def ensure_daemon(self) -> auth.Credentials:
        """The daemon's credentials, issued now if it has none."""
        with self._locked():
            return self._read(auth.user_name("daemon", DAEMON)) or self._issue(self._mint("daemon", DAEMON))

    def projector(self, name: str, agents: Sequence[str]) -> auth.Credentials:
        """New credentials for the projector of another host, which forwards for `agents`."""
        with self._locked():
            return self._issue(self._mint("projector", name, agents=agents))

    def admin(self, ttl_s: int = auth.ADMIN_TTL_S) -> auth.Credentials:
        """Credentials for creating streams that expire after `ttl_s` seconds. They are kept nowhere."""
        return self._mint("admin", "main", ttl_s)

    def rotate(self, name: str) -> tuple[auth.Credentials, str]:
        """New credentials for an agent, and the account JWT that voids its old ones, to be pushed to the server."""
        with self._locked():
            account = self._revoke(name)
            return self._issue(self._mint("agent", name)), account

    def revoke(self, name: str) -> str:
        """Void everything issued to an agent and return the account JWT to push. Raises NotFound if nothing was."""
        with self._locked():
            return self._revoke(name)

    def sign_account(
        self, tenant: str, quota: auth.Quota, daemon_publish: Iterable[str], projector_publish: Iterable[str]
    ) -> str:
        """The account JWT for these quotas and rights; the one on disk when it says the same, else a successor."""
        keys = self.load()
        with self._locked():
            previous = self.account_jwt()
            signed = auth.account_jwt(keys, tenant, quota, daemon_publish, projector_publish, now_s(), previous)
            if signed != previous:
                write_atomic(self.keys / "account.jwt", signed.encode())
            return signed

    def account_jwt(self) -> str | None:
        """The account JWT as last signed, or None before the first start."""
        try:
            return (self.keys / "account.jwt").read_text()
        except FileNotFoundError:
            return None

    def _revoke(self, name: str) -> str:
        user = auth.user_name("agent", name)
        issues = [issue for issue in self._issues() if issue.name == user]
        publics = sorted({issue.public for issue in issues})
        if not publics:
            raise NotFound("no credentials were ever issued to this agent", code="no_credentials", entity=name)
        current = self.account_jwt()
        if current is None:
            raise NotFound("this bus has never run", entity=str(self.keys), hint="Start it: bus up")
        # What was issued later than that stays valid, so a clock that was set back must not let anything through.
        at_s = max(now_s(), *(issue.at_s for issue in issues))
        account = auth.revoked(current, self._key("operator"), publics, at_s)
        write_atomic(self.keys / "account.jwt", account.encode())
        self._record(*(Issue(at_s=at_s, name=user, public=public, revoked=True) for public in publics))
        (self.creds / f"{user}.creds").unlink(missing_ok=True)
        return account

    def _mint(
        self, role: auth.Role, name: str, ttl_s: int | None = None, agents: Sequence[str] = ()
    ) -> auth.Credentials:
        return auth.mint(role, name, self._key(role), self.account, now_s(), ttl_s, agents)

    def _issue(self, creds: auth.Credentials) -> auth.Credentials:
        self._record(Issue(at_s=creds.issued_s, name=creds.name, public=creds.public))
        write_atomic(self.creds / f"{creds.name}.creds", creds.text.encode())
        return creds

    def _record(self, *issues: Issue) -> None:
        lines = [msgspec.json.encode(issue) + b"\n" for issue in (*self._issues(), *issues)]
        write_atomic(self.keys / "issued.jsonl", b"".join(lines))

    def _issues(self) -> list[Issue]:
        try:
            lines = (self.keys / "issued.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Issue) for line in lines]

    def _read(self, user: str) -> auth.Credentials | None:
        path = self.creds / f"{user}.creds"
        try:
            return auth.read_credentials(path.read_text())
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise NotAllowed("the credentials may not be read", code="no_permission", entity=str(path)) from error

    def _key(self, name: str) -> auth.KeyPair:
        path = self.keys / f"{name}.nk"
        try:
            return auth.pair_of(path.read_text().strip())
        except FileNotFoundError as error:
            raise Refused(
                "a key of this home is missing", code="no_key", entity=str(path), hint="Put it back from a backup"
            ) from error
        except PermissionError as error:
            raise NotAllowed("the key may not be read", code="no_permission", entity=str(path)) from error

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.keys / ".lock", timeout_s=LOCK_TIMEOUT_S)
