"""Keys and JWTs of the broker, in pure Python: operator -> tenant account -> one scoped signing key per role -> user.

    agent        publish ask.<me>.>            subscribe _INBOX.<me>.>
    daemon       publish log.>, _INBOX.>,      subscribe ask.>, daemon.>, its own inbox
                 daemon.>, $KV.leader.>,
                 named API
    projector    publish ask.<its agents>.>,   subscribe the inboxes of its agents, its own inbox
                 API for reading the log
    admin        publish the JetStream API     subscribe its own inbox

Rules:
* A user's rights are those of the signing key of its role; the server expands `{{name()}}` in the key's template. So a
  user JWT holds no rights, and minting one needs neither the server nor the operator key.
* Only names that match the rule of `bus/subjects.py` are ever minted: the broker would expand an agent named `*` into
  the right to ask as anyone. Every role but `agent` gets the user name `_<role>-<name>`, which no agent can have, so
  that no agent's inbox is ever a daemon's.
* This module reads and writes no files (`bus/home.py` does). Randomness for keys comes from libsodium.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import nkeys
from nacl.utils import random as random_bytes

from bus.errors import InvalidRequest, Unavailable
from bus.subjects import DAEMONS, SYSTEM, check_name, inbox_prefix

Role = Literal["agent", "daemon", "projector", "admin"]
ROLES: tuple[Role, ...] = ("agent", "daemon", "projector", "admin")
KEY_NAMES = ("operator", "system", "account", *ROLES)

LEADER_SUBJECTS = "$KV.leader.>"
CLAIMS_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
ADMIN_PUBLISH = ("$JS.API.>", "$JS.ACK.>", "$JS.SNAPSHOT.>")

AGENT_SUBSCRIPTIONS = 64
AGENT_PAYLOAD_BYTES = 1_048_576
UNLIMITED = -1
ADMIN_TTL_S = 120

_KINDS = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_BEGIN_JWT, _END_JWT = "-----BEGIN NATS USER JWT-----", "------END NATS USER JWT------"
_BEGIN_SEED, _END_SEED = "-----BEGIN USER NKEY SEED-----", "------END USER NKEY SEED------"
_TAG = "agent:"
"""Before the name of each agent that a projector asks for, in the tags of its JWT."""


class KeyPair(msgspec.Struct, frozen=True):
    """An ed25519 pair as NATS writes it. `seed` is the secret."""

    seed: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"

    def sign(self, data: bytes) -> bytes:
        return bytes(nkeys.from_seed(bytearray(self.seed.encode())).sign(data))


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """All secrets of one embedded bus: who holds them can do everything. Never given to the daemon."""

    operator: KeyPair
    system: KeyPair
    account: KeyPair
    agent: KeyPair
    daemon: KeyPair
    projector: KeyPair
    admin: KeyPair

    def role(self, role: Role) -> KeyPair:
        pair: KeyPair = getattr(self, role)
        return pair


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's limits at the server: stored bytes on disk and in memory, streams and consumers."""

    disk_bytes: int
    memory_bytes: int = 64_000_000
    streams: int = 32
    consumers: int = 256


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """One user: the text of its `.creds` file, its name at the broker, its public key, and the inbox it listens to.
    `account` is the public key of its tenant's account; `agents` are those a projector asks for."""

    name: str
    public: str
    text: str
    issued_s: int
    account: str = ""
    agents: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Credentials({self.name}, {self.public})"

    @property
    def inbox(self) -> str:
        return inbox_prefix(self.name)

    @property
    def role(self) -> str:
        """The role that its name says, which is one of ROLES or that of a short-lived helper."""
        return self.name[1:].partition("-")[0] if self.name.startswith("_") else "agent"


def new_pair(kind: Literal["operator", "account", "user"]) -> KeyPair:
    return pair_of(nkeys.encode_seed(random_bytes(32), _KINDS[kind]).decode())


def pair_of(seed: str) -> KeyPair:
    """The pair of a seed. Raises InvalidRequest when it is none."""
    try:
        public = nkeys.from_seed(bytearray(seed.encode())).public_key
    except Exception as error:  # the library raises whatever its base32 decoder raises, besides its own errors
        raise InvalidRequest("a key is damaged", code="bad_key", expected="an nkey seed (S…)") from error
    return KeyPair(seed, public.decode())


def new_keys() -> Keys:
    return Keys(**{name: new_pair("operator" if name == "operator" else "account") for name in KEY_NAMES})


def user_name(role: Role, name: str) -> str:
    """The name a user has at the broker. Raises InvalidRequest for anything that may not be minted."""
    check_name(name, role)
    if role != "agent":
        return f"_{role}-{name}"
    if name == SYSTEM:
        raise InvalidRequest(
            f"`{SYSTEM}` is the author of the bus's own events, no agent can be it", code="reserved_name", entity=name
        )
    return name


def operator_jwt(keys: Keys, now_s: int) -> str:
    claims = {"type": "operator", "version": 2, "system_account": keys.system.public}
    return _encode(keys.operator.public, "synbus", claims, keys.operator, now_s)


def system_jwt(keys: Keys, now_s: int) -> str:
    return _encode(keys.system.public, "SYS", _account({}, []), keys.operator, now_s)


def account_jwt(
    keys: Keys,
    tenant: str,
    quota: Quota,
    daemon_publish: Iterable[str],
    projector_publish: Iterable[str],
    now_s: int,
    previous: str | None = None,
) -> str:
    """The tenant's account: quotas, the templates of its roles, revocations.

    `daemon_publish` and `projector_publish` are the subjects of the JetStream API that these roles need, named one by
    one. `previous` is the JWT it replaces: its revocations are kept, and it is returned itself if nothing has changed.
    """
    check_name(tenant, "tenant")
    before = decode(previous) if previous else {}
    revocations = before.get("nats", {}).get("revocations", {})
    limits = {
        "mem_storage": quota.memory_bytes,
        "disk_storage": quota.disk_bytes,
        "streams": quota.streams,
        "consumer": quota.consumers,
    }
    scopes = [_scope(keys, role, *rights) for role, rights in _rights(daemon_publish, projector_publish).items()]
    claims = _account(limits, scopes)
    if revocations:
        claims["revocations"] = revocations
    if previous and before.get("nats") == claims and before.get("name") == tenant:
        return previous
    return _encode(keys.account.public, tenant, claims, keys.operator, _successor_s(before, now_s))


def revoked(account: str, operator: KeyPair, publics: Iterable[str], at_s: int) -> str:
    """The account JWT `account` with everything void that the users `publics` were issued up to `at_s`."""
    before = decode(account)
    claims = before["nats"]
    revocations = {**claims.get("revocations", {}), **dict.fromkeys(publics, at_s)}
    return _encode(
        before["sub"], before["name"], {**claims, "revocations": revocations}, operator, _successor_s(before, at_s)
    )


def mint(
    role: Role,
    name: str,
    signing: KeyPair,
    account: str,
    now_s: int,
    ttl_s: int | None = None,
    agents: Sequence[str] = (),
) -> Credentials:
    """Credentials of one user, signed with its role's key, offline. `account` is the account's public key; `agents` are
    those a projector forwards for (at least one). Raises InvalidRequest for names that are never minted."""
    claims: dict[str, Any] = {"type": "user", "version": 2, "issuer_account": account}
    if (role == "projector") != bool(agents):
        raise InvalidRequest("a projector forwards for named agents, others for none", entity=name, code="bad_agents")
    if agents:
        claims["tags"] = [f"{_TAG}{user_name('agent', agent)}" for agent in dict.fromkeys(agents)]
    return _user(user_name(role, name), claims, signing, now_s, ttl_s)


def mint_system(keys: Keys, now_s: int, ttl_s: int = ADMIN_TTL_S) -> Credentials:
    """Short-lived credentials that may push account JWTs and nothing else."""
    name = "_system-claims"
    claims = {
        "type": "user",
        "version": 2,
        "pub": {"allow": [CLAIMS_UPDATE]},
        "sub": {"allow": [f"{inbox_prefix(name)}.>"]},
        "subs": AGENT_SUBSCRIPTIONS,
        "data": UNLIMITED,
        "payload": AGENT_PAYLOAD_BYTES,
    }
    return _user(name, claims, keys.system, now_s, ttl_s)


def read_credentials(text: str) -> Credentials:
    """What a `.creds` file says about its user. Raises InvalidRequest when it is not one."""
    try:
        token = text.split(_BEGIN_JWT)[1].split(_END_JWT)[0].strip()
        claims = decode(token)
        return _credentials(claims["name"], claims["sub"], text, claims["iat"], claims["nats"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest(
            "these are not NATS user credentials",
            code="bad_creds",
            expected=f"a block between {_BEGIN_JWT} and {_END_JWT}",
            hint="Ask whoever runs the bus for a new file",
        ) from error


def decode(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified. Raises ValueError when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("a JWT has three parts")
    claims: dict[str, Any] = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    return claims


async def push_account(url: str, keys: Keys, account: str, now_s: int) -> None:
    """Give a running server the account JWT `account`. Raises Unavailable when it does not take it."""
    from bus.transport import connect  # a process that only mints loads no NATS client

    creds = mint_system(keys, now_s)
    async with connect(url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection:
        reply = await connection.request(CLAIMS_UPDATE, account.encode(), timeout_s=5)
    answer = msgspec.json.decode(reply.data)
    if answer.get("data", {}).get("code") != 200:
        raise Unavailable(
            "the server did not accept the account", code="claims_refused", entity=url, found=repr(answer.get("error"))
        )


def _rights(daemon: Iterable[str], projector: Iterable[str]) -> dict[Role, tuple[list[str], list[str]]]:
    """What each role may publish and subscribe to, as templates that the server expands for each user."""
    own = f"{inbox_prefix('{{name()}}')}.>"
    its_agents = "{{tag(agent)}}"
    return {
        "agent": (["ask.{{name()}}.>"], [own]),
        "daemon": (sorted({"log.>", "_INBOX.>", DAEMONS, LEADER_SUBJECTS, *daemon}), ["ask.>", DAEMONS, own]),
        "projector": (sorted({f"ask.{its_agents}.>", *projector}), [own, f"{inbox_prefix(its_agents)}.>"]),
        "admin": (list(ADMIN_PUBLISH), [own]),
    }


def _scope(keys: Keys, role: Role, publish: list[str], subscribe: list[str]) -> dict[str, Any]:
    template = {
        "pub": {"allow": publish},
        "sub": {"allow": subscribe},
        "subs": AGENT_SUBSCRIPTIONS if role == "agent" else UNLIMITED,
        "data": UNLIMITED,
        "payload": AGENT_PAYLOAD_BYTES if role == "agent" else UNLIMITED,
        # A leaf node would bring the rights of its whole server along.
        "allowed_connection_types": ["STANDARD", "WEBSOCKET"],
    }
    return {"kind": "user_scope", "key": keys.role(role).public, "role": role, "template": template}


def _account(limits: Mapping[str, int], scopes: list[dict[str, Any]]) -> dict[str, Any]:
    base = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), UNLIMITED)
    claims: dict[str, Any] = {
        "type": "account",
        "version": 2,
        "limits": {**base, "wildcards": True, "leaf": 0, **limits},
        # A user that no role covers may do nothing.
        "default_permissions": {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}},
    }
    if scopes:
        claims["signing_keys"] = scopes
    return claims


def _successor_s(before: Mapping[str, Any], now_s: int) -> int:
    """The server keeps the newer of two JWTs by their second of issue, so a successor is never dated in the same."""
    return max(now_s, int(before.get("iat", 0)) + 1)


def _user(name: str, claims: dict[str, Any], signing: KeyPair, now_s: int, ttl_s: int | None) -> Credentials:
    if ttl_s is not None and ttl_s <= 0:
        raise InvalidRequest("credentials have to last", code="bad_ttl", expected="at least 1 s", found=f"{ttl_s} s")
    pair = new_pair("user")
    token = _encode(pair.public, name, claims, signing, now_s, None if ttl_s is None else now_s + ttl_s)
    text = f"{_BEGIN_JWT}\n{token}\n{_END_JWT}\n\n{_BEGIN_SEED}\n{pair.seed}\n{_END_SEED}\n"
    return _credentials(name, pair.public, text, now_s, claims)


def _credentials(name: str, public: str, text: str, issued_s: int, claims: Mapping[str, Any]) -> Credentials:
    agents = tuple(tag.removeprefix(_TAG) for tag in claims.get("tags", ()) if tag.startswith(_TAG))
    account = claims.get("issuer_account", "")
    return Credentials(name=name, public=public, text=text, issued_s=issued_s, account=account, agents=agents)


def _encode(
    subject: str, name: str, nats: Mapping[str, Any], issuer: KeyPair, now_s: int, expires_s: int | None = None
) -> str:
    claims: dict[str, Any] = {"iat": now_s, "iss": issuer.public, "name": name, "sub": subject, "nats": nats}
    if expires_s is not None:
        claims["exp"] = expires_s
    digest = hashlib.sha256(msgspec.json.encode(claims, order="sorted")).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = _b64(msgspec.json.encode({"typ": "JWT", "alg": "ed25519-nkey"}))
    signed = f"{head}.{_b64(msgspec.json.encode(claims))}"
    return f"{signed}.{_b64(issuer.sign(signed.encode()))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
