"""A host elsewhere that follows the bus of a test, and the network between the two.

The network is a proxy that can be cut (every connection breaks, and none comes through) or stalled (nothing breaks and
nothing arrives).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from msgspec import UNSET

from bus import remote
from bus.client import Bus
from bus.domain import agent, channel
from bus.errors import BusError
from bus.remote import Remote
from bus.server import read_server
from tests.acceptance.support import Rig, until
from tests.contract.conftest import Proxy

AGENTS = ("nova", "wren")


class Far:
    """A host elsewhere with a projector, and the network to it."""

    def __init__(self, rig: Rig, proxy: Proxy) -> None:
        creds = rig.home.keyring.projector("far", AGENTS)
        self.near, self.proxy = rig, proxy
        self.rig = Rig(rig.folder, home=remote.follow(rig.folder / "far", Remote(url=proxy.url, creds=creds)))

    def connect(self, name: str = "nova", **options: Any) -> Any:
        return self.rig.connect(name, **options)

    def said(self) -> remote.Following | None:
        return remote.read_following(self.rig.home)

    async def up(self) -> None:
        """Start it, and wait until it knows everything."""
        await anyio.to_thread.run_sync(self.rig.up)
        await until(self.complete, what="complete tables")

    def complete(self) -> bool:
        said = self.said()
        return said is not None and said.complete_s is not None and said.connected

    def cut(self) -> None:
        self.proxy.up = False
        self.proxy.cut()

    async def cut_off(self) -> None:
        self.cut()
        await until(lambda: (said := self.said()) is not None and not said.connected, what="the loss to be noticed")

    def heal(self) -> None:
        self.proxy.up = True


@asynccontextmanager
async def elsewhere(rig: Rig) -> AsyncIterator[Far]:
    """A host that is not started yet; its agents are registered."""
    async with rig.connect() as owner:
        for name in AGENTS:
            await owner.call(agent.Register(agent=name))
        await owner.call(channel.Open(channel="work"))
    server = read_server(rig.home)
    assert server is not None
    proxy = Proxy(server.url)
    await proxy.start()
    host = Far(rig, proxy)
    try:
        yield host
    finally:
        await anyio.to_thread.run_sync(host.rig.close)
        await proxy.stop()


async def refused(what: Any, kind: type[BusError], code: str) -> BusError:
    with pytest.raises(kind) as caught:
        await what
    assert caught.value.code == code, caught.value
    return caught.value


async def fresh(bus: Bus) -> bool:
    return (await bus.call(channel.Read(channel="work"))).stale_s is UNSET


async def verified(far: Far) -> bool:
    """Whether its tables are what the raw log says."""
    code, out, _ = await anyio.to_thread.run_sync(command, far.rig, "projector", "verify", "--json")
    return (code, json.loads(out)["equal"]) == (0, True)


def command(rig: Rig, *words: str, home: Path | None = None, **environ: str) -> tuple[int, str, str]:
    """Run one command in the home. -> exit code, standard output, standard error"""
    child = rig.spawn("cli.main", *words, "--home", str(home or rig.home.path), environ=environ, stderr=-1)
    out, err = child.process.communicate(timeout=60)
    return child.process.returncode, out.decode(), err.decode()
