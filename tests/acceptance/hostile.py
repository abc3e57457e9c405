"""A hostile agent: any NATS client with the credentials of an agent, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client

from tests.acceptance.support import Rig, settled, until


class Mallory:
    """An agent with credentials of its own and bad intentions. `errors` is what the server reports to it."""

    def __init__(self, client: Client, errors: list[str], name: str) -> None:
        self.client = client
        self.errors = errors
        self.name = name

    async def ask(self, operation: str, body: Any, timeout_s: float = 10, **headers: str) -> dict[str, Any]:
        """The answer to a request, as it stands on the wire. `body`: bytes, or what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        known = {name.replace("_", "-"): value for name, value in headers.items()} or None
        message = await self.client.request(f"ask.{self.name}.{operation}", data, timeout=timeout_s, headers=known)
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    async def refused(self, operation: str, body: Any, timeout_s: float = 10, **headers: str) -> dict[str, Any]:
        answer = await self.ask(operation, body, timeout_s, **headers)
        assert "error" in answer, (operation, body, answer)
        error: dict[str, Any] = answer["error"]
        assert error["kind"] != "Defect", (operation, str(body)[:200], error)
        return error

    async def denied(self, do: Any, what: str) -> None:
        """See that the server refuses what `do` does."""
        self.errors.clear()
        await do
        await settled(self.client)
        assert self.errors, what
        assert "permissions violation" in self.errors[0], self.errors

    async def send_raw(self, subject: str, reply: str, headers: bytes, body: bytes) -> None:
        """Publish a block of headers byte for byte."""
        size = len(headers) + len(body)
        command = f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode() + headers + body + b"\r\n"
        await self.client._send_command(command)
        await self.client.flush()


@asynccontextmanager
async def acting(rig: Rig, name: str = "mallory") -> AsyncIterator[Mallory]:
    async with rig.raw(rig.home.keyring.agent(name)) as (client, errors):
        yield Mallory(client, errors, name)


async def written(rig: Rig, after: int) -> list[tuple[str, str]]:
    """(type, author) of everything written since, presence apart."""
    records = await rig.log(after)
    found = [(record.headers.get("Bus-Type", ""), record.headers.get("Bus-Agent", "")) for record in records]
    return [pair for pair in found if pair[0] != "agent.presence_changed"]


async def count(rig: Rig, name: str, more_than: int) -> None:
    """Wait until the daemon's own count of something is above a number."""
    await until(lambda: rig.status().get("counters", {}).get(name, 0) > more_than, what=f"{name} > {more_than}")
