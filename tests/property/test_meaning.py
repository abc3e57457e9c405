"""Random commands with an embedder and a reranker beside them, plugged in as others do it: whatever happened later, was
embedded in which slices, or was killed, recall as of an event gives what it gave then, to the bit."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.clock import SystemClock, from_ns
from bus.domain.recall import ANSWERED, Recall
from bus.operation import CODEC
from bus.tunables import Endpoint, RecallOptions
from projections.lexical_rows import Lexicon
from projections.recalling import Recalling
from projections.store import FILE
from tests.property.folding import Folding
from tests.property.happenings import Step, steps
from tests.property.play import Play
from tests.property.sayings import ASKING
from tests.unit.installed import install

EXAMPLES = max(3, int(os.environ.get("SYNBUS_EXAMPLES", "12")) // 4)
QUESTIONS = ("to be", "what did ada fix in the parser", "slow 50%")
Given = dict[tuple[int, str, str], Any]


class Asking:
    """Tables that follow a play, and what recall answered so far."""

    def __init__(self, play: Play, folding: Folding, recalling: Recalling) -> None:
        self.play, self.folding, self.recalling = play, folding, recalling
        self.now = from_ns(play.clock.now_ns) + timedelta(hours=1)

    async def fold_to(self, seq: int) -> None:
        """As a worker does it."""
        store = self.folding.store
        for record in self.play.log.records[store.position : seq]:
            event = CODEC.decode(record)
            self.folding.rows.take([record], [event], [self.folding.world.fold(event)])
        await store.write(self.folding.rows.cut())

    async def ask(self, seq: int, me: str, question: str) -> Any:
        def read(handle: Any, request: Any) -> Any:
            return self.folding.store.read(seq, me, self.now, partial(_handled, handle, request))

        answer = await self.recalling.answer(Recall(query=question, k=50, explain=True), seq, read)
        assert set(answer.legs.values()) <= {ANSWERED, "the question has no word to look for"}, answer.legs
        return answer


def _handled(handle: Any, request: Any, reader: Any) -> Any:
    return handle(reader, request)


@asynccontextmanager
async def asking(folder: Path, play: Play) -> AsyncIterator[Asking]:
    """The tables in `folder`, with help."""
    folding = Folding(folder / FILE)
    options = RecallOptions(embedder="hashed", reranker="shortest", timeout_s=20)
    recalling = Recalling(options, Endpoint(), folding.store, SystemClock())
    async with anyio.create_task_group() as parts:
        parts.start_soon(recalling.run)
        with anyio.fail_after(20):
            while folding.store.indexes.dense is None:
                await anyio.sleep(0.001)
        yield Asking(play, folding, recalling)
        parts.cancel_scope.cancel()
    await folding.store.close()


async def check(folder: Path, what: Sequence[Step], moments: Sequence[float]) -> None:
    play = Play()
    await play.run(what)
    end = len(play.log.records)
    gave: Given = {}
    async with asking(folder, play) as one:
        for seq in sorted({int(end * moment) for moment in moments} | {end}):
            await one.fold_to(seq)
            for me in ASKING[:3]:
                gave |= {(seq, me, question): await one.ask(seq, me, question) for question in QUESTIONS}
        for (seq, me, question), answer in gave.items():
            assert await one.ask(seq, me, question) == answer, (seq, me, question)
    for path in list(folder.glob("meaning/*/*.vectors"))[:1]:
        path.unlink()  # What is lost is made again.
    async with asking(folder, play) as one:
        for (seq, me, question), answer in gave.items():
            assert await one.ask(seq, me, question) == answer, (seq, me, question)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    derandomize=True,
)
@given(what=steps, moments=st.lists(st.floats(0, 1), min_size=2, max_size=4), slice_=st.sampled_from((1, 7, 5_000)))
def test_recall_as_of_an_event_gives_what_it_gave_then(what: list[Step], moments: list[float], slice_: int) -> None:
    kept = Lexicon.slice
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        install(site)
        sys.path.insert(0, str(site))
        try:
            Lexicon.slice = slice_
            anyio.run(check, Path(folder) / "home", what, moments)
        finally:
            Lexicon.slice = kept
            sys.path.remove(str(site))
