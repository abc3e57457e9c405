"""All subject grammar: who may say what, where. Nothing else in the project builds or takes apart a subject.

    log.<namespace>.<family>.<bucket>             one event; bucket = crc32(key) mod 1024
    ask.<agent>.<do|see>.<family>.<verb>          one request; the broker enforces the second token
    _INBOX.<agent>.<…>                            where that agent's replies go, and nobody else's
    daemon.is.<run>                               listened to as long as that connection of a daemon lives
    daemon.do.<agent>.<family>.<verb>             an internal command that a daemon hands to the leader for an agent
    daemon.seen                                   the agents that a daemon which stands by has heard
    daemon.care.<verb>                            what a command asks of the projector of its own home

Rules: names of agents, tenants and namespaces match NAME and nothing else is ever minted. Names of entities never
stand in a subject: they are hashed into buckets, so a million entities cost the server no more than a thousand.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote
from zlib import crc32

from bus.errors import InvalidRequest

BUCKETS = 1024
TENANT = "_"
"""The namespace of what belongs to the whole tenant (agents, dms, inboxes). It is no NAME, so no one can take it."""
SYSTEM = "system"
"""The author of events that no agent asked for. It is reserved: no agent can be registered under it."""
STREAM = "LOG"
LOG_SUBJECTS = "log.*.*.*"
TOKEN_BYTES = 200

DAEMONS = "daemon.>"
"""What daemons say to each other; nobody else may publish or subscribe there."""
HANDED = "daemon.do.>"
SEEN = "daemon.seen"
CARE = "daemon.care.*"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
NAME_RULE = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"


class Ask(NamedTuple):
    """A request subject taken apart."""

    agent: str
    kind: str
    family: str
    verb: str


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """Return `text` if it may name an agent, tenant, namespace or channel; raise InvalidRequest otherwise."""
    if _NAME.fullmatch(text) is None:
        shown = text if len(text) <= 40 else f"{text[:40]}… ({len(text)} characters)"
        raise InvalidRequest(f"bad {what} name", code="bad_name", expected=NAME_RULE, found=repr(shown))
    return text


@lru_cache(maxsize=1 << 16)
def token(text: str) -> str:
    """`text` percent-encoded so that it is one header- and subject-safe token of at most 200 bytes. Raises
    InvalidRequest."""
    encoded = quote(text, safe="-_").replace(".", "%2E").replace("~", "%7E")
    if not encoded or len(encoded) > TOKEN_BYTES:
        raise InvalidRequest(
            "a key is empty or too long",
            code="bad_key",
            entity=f"key {text[:40]!r}",
            expected=f"1 to {TOKEN_BYTES} bytes, each character but A-Z, a-z, 0-9, - and _ counting as %XX",
            found=f"{len(encoded)} bytes",
            hint="Choose a shorter one",
        )
    return encoded


def untoken(encoded: str) -> str:
    return unquote(encoded) if "%" in encoded else encoded


@lru_cache(maxsize=1 << 16)
def bucket_of(key: str) -> int:
    """The bucket of an entity's key: crc32 of its UTF-8 modulo 1,024. Part of the format; it never changes."""
    return crc32(key.encode()) % BUCKETS


@lru_cache(maxsize=1 << 16)
def log_subject(namespace: str, family: str, bucket: int) -> str:
    return f"log.{namespace}.{family}.{bucket}"


def parse_log(subject: str) -> tuple[str, str, int]:
    """-> (namespace, family, bucket). Raises ValueError for anything that is not a log subject."""
    root, namespace, family, bucket = subject.split(".")
    number = int(bucket)
    if root != "log" or str(number) != bucket or not 0 <= number < BUCKETS:
        raise ValueError(subject)
    return namespace, family, number


def ask_subject(agent: str, kind: str, operation: str) -> str:
    """`ask.<agent>.<kind>.<family>.<verb>` for an operation named `family.verb`."""
    return f"ask.{agent}.{kind}.{operation}"


def ask_filter(agent: str, kind: str) -> str:
    return f"ask.{agent}.{kind}.>"


def parse_ask(subject: str) -> Ask:
    """Raises ValueError when `subject` is not a request subject."""
    root, agent, kind, family, verb = subject.split(".")
    if root != "ask" or kind not in ("do", "see"):
        raise ValueError(subject)
    return Ask(agent, kind, family, verb)


def life_subject(run: str) -> str:
    return f"daemon.is.{run}"


def handed_subject(agent: str, operation: str) -> str:
    return f"daemon.do.{agent}.{operation}"


def parse_handed(subject: str) -> Ask:
    """Raises ValueError when `subject` is not that of a command handed to the leader."""
    root, kind, agent, family, verb = subject.split(".")
    if (root, kind) != ("daemon", "do"):
        raise ValueError(subject)
    return Ask(agent, kind, family, verb)


def care_subject(verb: str) -> str:
    return f"daemon.care.{verb}"


def inbox_prefix(agent: str) -> str:
    return f"_INBOX.{agent}"


def may_reply_to(agent: str, reply: str) -> bool:
    """Whether an answer may be sent there. A requester chooses its reply subject, and the daemon has more rights than
    it: answering anywhere else would let it write in another's name."""
    return reply.startswith(f"_INBOX.{agent}.") and "*" not in reply and ">" not in reply
