"""What `<home>/config.toml` may say, with its defaults.

Rules:
* A key that is unknown, or a value that makes no sense, is an error when the file is read (`bus.config`), never later.
* Numbers carry their unit at the end of their name. A secret never stands here: a setting names the variable that holds
  it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Bytes = Annotated[int, Meta(ge=1_000_000)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Ratio = Annotated[float, Meta(gt=0, le=1)]


class LogLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: how large the tenant's log may grow, and from which share of that only closing events are accepted. The
    same is true while less than `disk_reserve_bytes` are free on the disk of the log."""

    max_bytes: Bytes = 5_000_000_000
    soft_limit_ratio: Ratio = 0.9
    disk_reserve_bytes: Annotated[int, Meta(ge=0)] = 100_000_000


class StorageLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[storage]`: the tenant's quotas at the server: everything it stores (log, attachments, leases), its streams and
    consumers. `max_bytes` has to be at least the log's."""

    max_bytes: Bytes = 10_000_000_000
    memory_bytes: Bytes = 64_000_000
    streams: Count = 32
    consumers: Count = 256


class AskLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ask]`: what the daemon takes on before it answers `busy`, and how long a client waits.

    `pending` counts asks that wait in the whole daemon, `pending_per_agent` those of one agent. An agent that exceeds
    `rate_per_s` (after a burst of `burst`) or `bytes_per_s` (after `burst_bytes`) is not listened to for `mute_s`; the
    rate is far above what one that waits for its answers can reach. A reply larger than `reply_bytes` is paged.
    """

    timeout_s: Seconds = 10.0
    pending: Count = 10_000
    pending_per_agent: Count = 1_000
    rate_per_s: Annotated[float, Meta(gt=0)] = 20_000.0
    burst: Count = 20_000
    bytes_per_s: Bytes = 20_000_000
    burst_bytes: Bytes = 32_000_000
    mute_s: Seconds = 1.0
    reply_bytes: Bytes = 1_000_000


class LeaseLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lease]`: how long a claim, a reservation or an intent lasts unless the request says otherwise, and at most."""

    default_s: Seconds = 600.0
    cap_s: Seconds = 86_400.0


class PresenceLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[presence]`: an agent that has asked for nothing for so long is `idle`, `away`, then `offline`. Each has to be
    longer than the one before it."""

    idle_after_s: Seconds = 120.0
    away_after_s: Seconds = 600.0
    offline_after_s: Seconds = 3600.0


class ProcessLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[process]`: how long starting and stopping may take, and the size from which a log file is rotated."""

    start_timeout_s: Seconds = 20.0
    stop_timeout_s: Seconds = 15.0
    log_file_bytes: Bytes = 10_000_000


class GuardLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[guard]`: what becomes of a commit when the bus cannot be asked who holds its paths."""

    unreachable: Literal["allow", "refuse"] = "allow"


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[session]`: when sessions are compacted, and by whom. One that shows a summary gets a new one when its turns
    have more than `compact_at_tokens` tokens; a session may say otherwise. `summariser` is `extractive` (made here, of
    sentences as they were said), `openai:<model>` (see `[openai]`), or the name of a plug-in, and perhaps a colon and
    what it is told. A summary has about `summary_tokens`; what is to be summarised is handed over in parts of at most
    `part_tokens`. A summariser that fails, or has not answered for `timeout_s`, is asked again after `retry_s`, then
    after twice as long, `retries` times; then the session stays as it is until somebody asks for a summary, or another
    daemon leads."""

    summariser: Annotated[str, Meta(min_length=1, max_length=200)] = "extractive"
    compact_at_tokens: Count = 100_000
    summary_tokens: Annotated[int, Meta(ge=50, le=50_000)] = 2_000
    part_tokens: Annotated[int, Meta(ge=100)] = 50_000
    timeout_s: Seconds = 120.0
    retries: Annotated[int, Meta(ge=0, le=20)] = 5
    retry_s: Seconds = 10.0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[openai]`: the HTTP endpoint that is asked when a setting names a model as `openai:<model>`: OpenAI's, or any
    that speaks its protocol, such as a server on this machine. `key_variable` is the environment variable of the daemon
    that holds the key; when it is not set, none is sent. What is not answered whole within `timeout_s`, or is longer
    than `answer_bytes`, is no answer."""

    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s?#@]+\Z")] = "https://api.openai.com/v1"
    key_variable: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z")] = "OPENAI_API_KEY"
    timeout_s: Seconds = 60.0
    answer_bytes: Bytes = 16_000_000


class RecallOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[recall]`: what recall uses beside words. `embedder` makes vectors of texts and questions: `model2vec:<path or
    name>`, `fastembed:<name>`, `sentence-transformers:<name>`, `openai:<model>` (see `[openai]`), or the name of a
    plug-in, with what it is to be given behind a colon; none if it is empty. `reranker` names a plug-in that puts what
    was found best in order. A question is answered without what does not answer within `timeout_s`."""

    embedder: str = ""
    reranker: str = ""
    timeout_s: Seconds = 2.0


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`<home>/config.toml`, whole."""

    agent: str | None = None
    namespace: str | None = None
    url: str | None = None
    creds: str | None = None
    nats_server: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log: LogLimits = LogLimits()
    storage: StorageLimits = StorageLimits()
    ask: AskLimits = AskLimits()
    lease: LeaseLimits = LeaseLimits()
    presence: PresenceLimits = PresenceLimits()
    process: ProcessLimits = ProcessLimits()
    guard: GuardLimits = GuardLimits()
    session: SessionLimits = SessionLimits()
    openai: Endpoint = Endpoint()
    recall: RecallOptions = RecallOptions()

    def __post_init__(self) -> None:
        if self.log.max_bytes > self.storage.max_bytes:
            raise ValueError(
                f"log.max_bytes is {self.log.max_bytes}, more than storage.max_bytes, which is {self.storage.max_bytes}"
            )
        if self.lease.default_s > self.lease.cap_s:
            raise ValueError(f"lease.default_s is {self.lease.default_s}, more than lease.cap_s, {self.lease.cap_s}")
        quiet = self.presence
        if not quiet.idle_after_s < quiet.away_after_s < quiet.offline_after_s:
            raise ValueError(
                "presence.idle_after_s, presence.away_after_s and presence.offline_after_s have to grow, but they are "
                f"{quiet.idle_after_s}, {quiet.away_after_s} and {quiet.offline_after_s}"
            )
