"""An adapter for harnesses that ask for turns of a dialogue: they are written through `Bus` and asked with `recall`.

    index(docs)       docs: dicts with id, text, ts (ISO 8601), speaker, session, in the order of time
    search(query, k)  -> ids, the best first
    close()

Rules:
* It does what a user would: a bus of its own, an agent for each speaker, an entry of the memory for each turn, with the
  session as its subject and the day as the time since when it is true.
* With an embedder (`Semantic`: the one that EMBEDDER names, as in the settings) nothing is asked before all turns have
  their vectors.
* Nothing is known of any data set here, and none is part of this repository.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bus import Bus, lifecycle
from bus import home as homes
from bus.config import CONFIG_FILE, as_toml
from bus.domain.memory_requests import Write
from bus.domain.recall import ANSWERED, Hits, Recall

READER = "reader"
LOOK_S = 0.2


class Turns:
    """One dialogue in a bus of its own."""

    name = "synbus"

    def __init__(self, embedder: str = "") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="synbus-eval-"))
        self._home = homes.create(self._folder / "bus")
        if embedder:
            (self._home.path / CONFIG_FILE).write_text(f"[recall]\n{as_toml({'embedder': embedder})}")
        self._embeds = bool(embedder)
        self._ids: dict[str, str] = {}
        self._starting = start_blocking_portal()
        self._portal: BlockingPortal = self._starting.__enter__()
        self._stack = AsyncExitStack()
        self._reader: Bus | None = None

    def index(self, docs: Sequence[dict[str, Any]]) -> None:
        """Write every turn."""
        self._portal.call(self._index, docs)

    def search(self, query: str, k: int) -> list[str]:
        """The ids of the turns that recall gives."""
        found: list[str] = self._portal.call(self._search, query, k)
        return found

    def close(self) -> None:
        """End the bus and remove it."""
        self._portal.call(self._stack.aclose)
        self._starting.__exit__(None, None, None)
        lifecycle.down(self._home)
        shutil.rmtree(self._folder)

    async def _index(self, docs: Sequence[dict[str, Any]]) -> None:
        speakers = dict.fromkeys(doc["speaker"] for doc in docs)
        agents = {speaker: await self._connected(_agent(speaker)) for speaker in speakers}
        for doc in docs:
            bus = agents[doc["speaker"]]
            when = datetime.fromisoformat(doc["ts"]).replace(tzinfo=UTC)
            request = Write(content=doc["text"], subject=f"session:{doc['session']}", valid_from=when)
            reply = await bus.call(request)
            # The same words in one session are one entry.
            self._ids.setdefault(reply.memory, doc["id"])
        self._reader = await self._connected(READER)
        while self._embeds and (await self._recalled(docs[0]["text"], 1)).legs["dense"] != ANSWERED:
            await anyio.sleep(LOOK_S)

    async def _connected(self, agent: str) -> Bus:
        return await self._stack.enter_async_context(Bus.connect(agent=agent, home=self._home.path))

    async def _search(self, query: str, k: int) -> list[str]:
        answer = await self._recalled(query, k)
        return [self._ids[hit.memory] for hit in answer.hits if hit.memory in self._ids]

    async def _recalled(self, query: str, k: int) -> Hits:
        assert self._reader is not None
        answer: Hits = await self._reader.call(Recall(query=query, k=k, kinds=("memory",)))
        return answer


class Semantic(Turns):
    """The same with an embedder."""

    def __init__(self) -> None:
        super().__init__(os.environ["EMBEDDER"])
        self.name = f"synbus, {os.environ['EMBEDDER'].rpartition('/')[2]}"


def _agent(speaker: str) -> str:
    """A name that an agent may have."""
    return re.sub(r"[^a-z0-9]+", "-", speaker.casefold()).strip("-") or "somebody"
