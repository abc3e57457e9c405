"""Recall with help from outside of the tables: a question's vector before they are read, an order after that.

    question -> embedder -> [tables: words and vectors, ranked] -> reranker -> answer
    tables -> wordings without a vector -> embedder -> dense index            (in the background)

Rules:
* No help is worth more than an answer: what fails, or does not come in time, is left out, and the answer says so.
* The vector of a question is made where no lock and no cursor is held.
* Nothing here is used, nor imported, unless a setting names an embedder or a reranker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog
from msgspec.structs import replace

from bus.clock import Clock
from bus.domain.recall import ANSWERED, Hit, Hits, Recall
from bus.domain.session_requests import BuildContext
from bus.lifecycle import Helper
from bus.tunables import Endpoint, RecallOptions
from projections import embed, rerank
from projections.dense import DEVICE_ONLY, Dense
from projections.guarded import PAUSE_S, Guarded, Unhelpful
from projections.query import Meant
from projections.store import Store
from projections.views.recall import answered, within
from projections.views.session_context import built

logger = structlog.get_logger(__name__)

VECTORS = "meaning"
"""Where vectors are kept between runs, beside the tables."""
LOAD_S = 600.0
BATCH_S = 60.0
BATCH, MOST = 16, 256
"""So many texts are embedded at a time: at first, and at most."""
QUICK_S, SLOW_S = 0.05, 0.25
"""A batch that took less, or more, is followed by one of twice, or half, as many: a question waits for one of them."""
RETRY_S = 5.0
WITHOUT = "Recall answers without it: see [recall]"
NEAR_EVENTS = 500
"""A question waits for vectors that are so few events behind, but not for more."""

Read = Callable[[Callable[[Any, Any], Any], Any], Awaitable[Any]]


class Recalling:
    """What `[recall]` names, for one store. `run` fills the dense index for ever."""

    def __init__(self, options: RecallOptions, endpoint: Endpoint, store: Store, clock: Clock) -> None:
        self.options = options
        self._store = store
        self._clock = clock
        self._directory: Path = store.path.parent / VECTORS
        self._embedder, self._reranker = None, None
        if options.embedder:
            self._embedder = Guarded("the embedder", lambda: embed.load(options.embedder, endpoint), clock)
        if options.reranker:
            self._reranker = Guarded("the reranker", lambda: rerank.load(options.reranker), clock)
        self._dense: Dense | None = None
        self._batch = BATCH
        self._caught_up = False
        """Whether the index has been complete since the start."""
        self._moved = anyio.Event()

    # --- the background ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Load the embedder, and give everything a vector as it comes."""
        said = ""
        try:
            while self._embedder is not None:
                try:
                    if self._dense is None:
                        await self._begin(self._embedder)
                    else:
                        await self._step(self._embedder, self._dense)
                except Unhelpful as error:
                    if said != (said := str(error)):
                        logger.warning("texts are not embedded", why=said)
                    await anyio.sleep(PAUSE_S)
                except Exception:  # Words answer without it.
                    logger.exception("texts could not be embedded")
                    await anyio.sleep(RETRY_S)
        finally:
            if self._dense is not None:
                self._dense.save()

    async def _begin(self, embedder: Guarded[embed.Loaded]) -> None:
        model = await embedder.call(lambda loaded: loaded, LOAD_S)
        self._dense = await anyio.to_thread.run_sync(Dense, self._directory, model)
        self._store.indexes.dense = self._dense

    async def _step(self, embedder: Guarded[embed.Loaded], dense: Dense) -> None:
        """Take in the next slice; wait for it, if there is none."""
        store = self._store
        if dense.position >= store.position:
            if not self._caught_up:
                await anyio.to_thread.run_sync(dense.finish)
                self._caught_up = True
            while dense.position >= store.position and await anyio.to_thread.run_sync(dense.grow):
                pass
            await store.reached(dense.position + 1)
        part = await anyio.to_thread.run_sync(dense.read, store.position, store.indexes.lexicon, store.chunks)
        texts = list(part.texts.items())
        while texts:
            now, texts = texts[: self._batch], texts[self._batch :]
            rows = await self._embedded(embedder, [text for _, text in now])
            made = {name: row for (name, _), row in zip(now, rows, strict=True) if row is not None}
            await anyio.to_thread.run_sync(dense.keep, made)
        await anyio.to_thread.run_sync(dense.take, part)
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    async def _embedded(self, embedder: Guarded[embed.Loaded], texts: Sequence[str]) -> Sequence[embed.Floats | None]:
        """A vector of each text; None where the embedder fails on that text alone."""
        began_ns = self._clock.monotonic_ns()
        try:
            rows = await embedder.call(lambda model: model.embed(texts), BATCH_S)
        except Unhelpful as error:
            if not error.refused:
                raise
            # Whoever cannot embed anything is not asked about each.
            await embedder.call(lambda model: model.embed([embed.PROBE]), BATCH_S)
            if len(texts) > 1:
                return [row for text in texts for row in await self._embedded(embedder, [text])]
            logger.warning("a text has no vector", text=texts[0][:80], error=str(error))
            return [None]
        took_s = (self._clock.monotonic_ns() - began_ns) / 1e9
        if took_s < QUICK_S:
            self._batch = min(MOST, 2 * self._batch)
        elif took_s > SLOW_S:
            self._batch = max(1, self._batch // 2)
        return list(rows)

    def helpers(self) -> list[Helper]:
        """How things are."""
        found = []
        if self._embedder is not None:
            position = self._store.position
            problem, said, setting = self._embedder.problem, self._lacking(position), self.options.embedder
            if self._dense is not None and self._dense.position >= position - NEAR_EVENTS:
                said = f"{self._dense.size} texts have a vector"
            found.append(
                Helper(name="embedder", setting=setting, ok=problem is None, found=problem or said, without=WITHOUT)
            )
        if self._reranker is not None:
            problem, setting = self._reranker.problem, self.options.reranker
            found.append(
                Helper(name="reranker", setting=setting, ok=problem is None, found=problem or "ready", without=WITHOUT)
            )
        return found

    # --- a question --------------------------------------------------------------------------------------------

    @property
    def helped(self) -> Mapping[type, Callable[[Any, int, Read], Awaitable[Any]]]:
        """What is answered with its help."""
        return {Recall: self.answer, BuildContext: self.context}

    async def answer(self, request: Recall, seq: int, read: Read) -> Hits:
        """The answer as of event `seq`; `read(handler, request)` runs a handler on the tables."""
        meant = await self._meant(request, seq)
        asked = request
        if self._reranker is not None:
            asked = replace(request, k=max(request.k, rerank.TOP), budget_tokens=None)
        hits: Hits = await read(partial(answered, meant=meant), asked)
        if self._reranker is None:
            return hits
        return await self._reranked(self._reranker, request, hits)

    async def context(self, request: BuildContext, seq: int, read: Read) -> Any:
        """The same for what a model is shown of a session."""
        meant = Meant()
        if request.query is not None and request.embedding is None:
            meant = await self._meant(Recall(query=request.query), seq)
        return await read(partial(built, meant=meant), request)

    async def _meant(self, request: Recall, seq: int) -> Meant:
        """The vector of a question."""
        if self._embedder is None or request.embedding is not None:
            return Meant()
        until_ns = self._clock.monotonic_ns() + int(self.options.timeout_s * 1e9)
        if self._dense is None or self._dense.position < seq - NEAR_EVENTS:
            return Meant(why_not=self._embedder.problem or self._lacking(seq))
        with anyio.move_on_after(self.options.timeout_s):
            while not self._is_complete(seq) and self._embedder.problem is None:
                await self._moved.wait()
        if not self._is_complete(seq):
            return Meant(why_not=self._embedder.problem or self._lacking(seq))
        left_s = max(0.0, (until_ns - self._clock.monotonic_ns()) / 1e9)
        try:
            rows = await self._embedder.call(
                lambda model: model.embed([request.query], is_query=True), left_s, urgent=True
            )
        except Unhelpful as error:
            return Meant(why_not=str(error))
        if not rows[0].any():
            return Meant(why_not="the question means nothing to the embedder")
        return Meant(vector=rows[0])

    def _is_complete(self, seq: int) -> bool:
        return self._dense is not None and self._dense.position >= seq

    def _lacking(self, seq: int) -> str:
        if self._dense is None:
            return "the embedder is being loaded"
        return f"vectors are being made: {self._dense.position} of {seq} events are done"

    async def _reranked(self, reranker: Guarded[rerank.Loaded], request: Recall, answer: Hits) -> Hits:
        top = answer.hits[: rerank.TOP]
        try:
            scores = await reranker.call(partial(_scores, request.query, top), self.options.timeout_s, urgent=True)
        except Unhelpful as error:
            hits, said = answer.hits, str(error)
        else:
            hits, said = [*_ordered(top, scores), *answer.hits[rerank.TOP :]], ANSWERED
        return replace(answer, hits=within(hits, request), legs={**answer.legs, "rerank": said})


def _scores(question: str, hits: Sequence[Hit], loaded: rerank.Loaded) -> dict[int, float]:
    """By place: the reranker's scores of those that it may see."""
    places = [place for place, hit in enumerate(hits) if not (loaded.remote and hit.trust_tier == DEVICE_ONLY)]
    scores = loaded.score(question, [hits[place].text for place in places]) if places else []
    return dict(zip(places, scores, strict=True))


def _ordered(hits: Sequence[Hit], scores: dict[int, float]) -> list[Hit]:
    """The hits with a score put in its order, in the places that they have together."""
    best = iter(sorted(scores, key=lambda place: -scores[place]))
    ordered = []
    for place, hit in enumerate(hits):
        if place in scores:
            chosen = next(best)
            why = replace(hits[chosen].why, rerank=scores[chosen])
            ordered.append(replace(hits[chosen], why=why))
        else:
            ordered.append(hit)
    return ordered
