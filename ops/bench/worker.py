"""One client process: `python -m bench.worker ROLE`, its spec as one line of JSON on standard input.

    connect -> "ready" -> wait for a line -> work -> one line of JSON (crew.Result)

A role is an async generator: it connects, yields once, and yields its Result when it has worked.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from bench import bare, clients, coordinating, history, reading, recalling, soaking, stages
from bench.crew import Result

Role = Callable[[dict[str, Any]], AsyncIterator[Result | None]]

ROLES: dict[str, Role] = {
    "raw_publish": clients.raw_publish,
    "raw_batches": clients.raw_batches,
    "raw_claim": clients.raw_claim,
    "raw_follow": clients.raw_follow,
    "open": clients.open_all,
    "post": clients.post,
    "flood": clients.flood,
    "burn": clients.burn,
    "claim": clients.claim,
    "next": clients.take_next,
    "follow": clients.follow,
    "fill": history.fill,
    "stages": stages.measure,
    "bare_answer": bare.answer,
    "bare_ask": bare.ask,
    "hold": coordinating.hold,
    "decide": coordinating.decide,
    "talk": coordinating.talk,
    "look": coordinating.look,
    "soak": soaking.soak,
    "ask": reading.ask,
    "direct": reading.direct,
    "remember": recalling.fill,
    "recall": recalling.ask,
    "bare_recall": recalling.bare,
    "keep": recalling.keep,
    "nearest": recalling.nearest,
}


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
    anyio.run(run, ROLES[sys.argv[1]], spec, backend_options={"use_uvloop": sys.platform != "win32"})


if __name__ == "__main__":
    main()
