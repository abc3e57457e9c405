"""Creating the streams of a tenant: what an operator does once, with rights that the daemon never has.

Rules: creating twice is harmless. A stream that exists is checked, and only its size is changed to what the settings
say now: TTL, rollup and schedules silently undo the denials, so a log that has them is no log any more and is named as
what it is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus.errors import BusError, Refused, Unavailable
from bus.jetstream import LEADER, LEADER_STREAM, ApiError
from bus.subjects import LOG_SUBJECTS, STREAM
from bus.transport import Connection

DUPLICATE_WINDOW_NS = 120_000_000_000
CREATE_S = 10.0
_NOT_FOUND = 10059

LOG_CONFIG: dict[str, Any] = {
    "name": STREAM,
    "description": "Every event of the tenant, for ever",
    "subjects": [LOG_SUBJECTS],
    "storage": "file",
    "retention": "limits",
    "discard": "new",
    "deny_delete": True,
    "deny_purge": True,
    "allow_atomic": True,
    "allow_direct": True,
    "duplicate_window": DUPLICATE_WINDOW_NS,
}
LEADER_CONFIG: dict[str, Any] = {
    "name": LEADER_STREAM,
    "description": "The lease of the leading daemon",
    "subjects": [f"$KV.{LEADER}.>"],
    "storage": "file",
    "retention": "limits",
    "discard": "new",
    "max_msgs_per_subject": 1,
    "deny_delete": True,
    "allow_direct": True,
    "duplicate_window": DUPLICATE_WINDOW_NS,
}
_NEVER: dict[str, tuple[Any, ...]] = {
    "allow_rollup_hdrs": (False,),
    "allow_msg_ttl": (False,),
    "subject_delete_marker_ttl": (0,),
    "allow_msg_schedules": (False,),
    "allow_msg_counter": (False,),
    "no_ack": (False,),
    "sealed": (False,),
    "max_age": (0,),
    "max_msgs": (-1, 0),
    "max_msg_size": (-1, 0),
    "persist_mode": ("", "default"),
    "mirror": (None,),
    "sources": (None, []),
    "republish": (None,),
    "subject_transform": (None,),
}
"""Settings that must be as if they had never been mentioned: the default first."""


async def create_log(connection: Connection, max_bytes: int = -1, replicas: int = 1) -> None:
    """Create the log (at most `max_bytes`; -1: no limit of its own) and the bucket of the leader's lease. Raises
    Refused when one exists with settings that a log must not have."""
    log = LOG_CONFIG | {"max_bytes": max_bytes, "num_replicas": replicas}
    await _ensure(connection, log, _NEVER | {"max_msgs_per_subject": (-1, 0)})
    await _ensure(connection, LEADER_CONFIG | {"num_replicas": replicas}, {"max_age": (0,), "no_ack": (False,)})


async def _ensure(connection: Connection, config: dict[str, Any], never: dict[str, tuple[Any, ...]]) -> None:
    name = config["name"]
    found = await _api(connection, f"$JS.API.STREAM.INFO.{name}", b"")
    error = _error(found)
    if error is not None and error.err_code == _NOT_FOUND:
        found = await _api(connection, f"$JS.API.STREAM.CREATE.{name}", msgspec.json.encode(config))
        error = _error(found)
    if error is not None:
        raise _failed(name, error)
    _check(name, config, never, found["config"])
    if config.get("max_bytes", -1) != found["config"].get("max_bytes", -1):
        resized = msgspec.json.encode(found["config"] | {"max_bytes": config["max_bytes"]})
        error = _error(await _api(connection, f"$JS.API.STREAM.UPDATE.{name}", resized))
        if error is not None:
            raise _failed(name, error)


def _check(name: str, config: dict[str, Any], never: dict[str, tuple[Any, ...]], found: dict[str, Any]) -> None:
    """Size and replicas may have been changed since; everything else is as it was created."""
    free = ("max_bytes", "num_replicas", "description")
    expected: dict[str, tuple[Any, ...]] = {key: (value,) for key, value in config.items() if key not in free}
    wrong = [
        (key, values[0], found.get(key, values[0] if key in never else None))
        for key, values in (expected | never).items()
        if found.get(key, values[0] if key in never else None) not in values
    ]
    if wrong:
        raise Refused(
            f"the stream {name} is not set up as a log must be",
            code="bad_stream",
            entity=name,
            expected=", ".join(f"{key}={value}" for key, value, _ in wrong),
            found=", ".join(f"{key}={value}" for key, _, value in wrong),
            hint="Somebody changed it by hand: find out what was lost before using it",
        )


async def _api(connection: Connection, subject: str, body: bytes) -> dict[str, Any]:
    answer = await connection.request(subject, body, timeout_s=CREATE_S)
    decoded: dict[str, Any] = msgspec.json.decode(answer.data, type=dict[str, Any])
    return decoded


def _error(answer: dict[str, Any]) -> ApiError | None:
    return msgspec.convert(answer["error"], ApiError) if "error" in answer else None


def _failed(name: str, error: ApiError) -> BusError:
    return Unavailable(
        "the server did not set up the stream",
        code="refused",
        entity=name,
        found=f"{error.err_code} {error.description}",
    )
