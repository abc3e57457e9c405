"""One client process: `python -m bench.worker ROLE`, its spec as one line of JSON on standard input.

    connect -> "ready" -> wait for a line -> work -> one line of JSON (crew.Result)

A role is an async generator: it connects, yields once, and yields its Result when it has worked.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from pkgutil import resolve_name
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from bench.crew import Result

Role = Callable[[dict[str, Any]], AsyncIterator[Result | None]]

ROLES = {
    "raw_publish": "bench.clients:raw_publish",
    "raw_batches": "bench.clients:raw_batches",
    "raw_claim": "bench.clients:raw_claim",
    "raw_follow": "bench.clients:raw_follow",
    "open": "bench.clients:open_all",
    "post": "bench.clients:post",
    "flood": "bench.clients:flood",
    "burn": "bench.clients:burn",
    "claim": "bench.clients:claim",
    "next": "bench.clients:take_next",
    "follow": "bench.clients:follow",
    "fill": "bench.history:fill",
    "stages": "bench.stages:measure",
    "bare_answer": "bench.bare:answer",
    "bare_ask": "bench.bare:ask",
    "hold": "bench.coordinating:hold",
    "decide": "bench.coordinating:decide",
    "talk": "bench.coordinating:talk",
    "look": "bench.coordinating:look",
    "soak": "bench.soaking:soak",
    "ask": "bench.reading:ask",
    "direct": "bench.reading:direct",
    "remember": "bench.recalling:fill",
    "recall": "bench.recalling:ask",
    "bare_recall": "bench.recalling:bare",
    "keep": "bench.recalling:keep",
    "nearest": "bench.recalling:nearest",
}
"""Where each role is. Only that module is imported: a client of the bus needs no database, and starts in a third of the
time without one."""


async def run(role: Role, spec: dict[str, Any]) -> None:
    steps = role(spec)
    await anext(steps)
    print("ready", flush=True)
    # In a thread: a connection that does not answer pings for seconds is given up by the server.
    await anyio.to_thread.run_sync(sys.stdin.readline)
    cpu_s = time.process_time()
    result = await anext(steps)
    assert result is not None
    result = msgspec.structs.replace(result, cpu_s=time.process_time() - cpu_s)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.flush()
    async for _ in steps:
        raise RuntimeError("a role yields twice")


def main() -> None:
    spec = msgspec.json.decode(sys.stdin.readline())
    role: Role = resolve_name(ROLES[sys.argv[1]])
    anyio.run(run, role, spec, backend_options={"use_uvloop": sys.platform != "win32"})


if __name__ == "__main__":
    main()
