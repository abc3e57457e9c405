"""What client processes do with memories and vectors: write very many, ask for some, and the same with bare libraries.

Rules:
* Texts are of made-up words with the frequencies of a language, 20 to 60 of them; a question is six words that are
  neither the commonest nor the rarest.
* Vectors lie in a space of few dimensions, as those of texts do, with some noise in all of them.
* Everybody who is given the same seed makes the same texts, questions and vectors.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import accumulate
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.clients import Spec, Watch, bus_of, raw_connection
from bench.clients import now as clock
from bench.crew import Result
from bench.history import append_all
from bus.clock import EPOCH, RandomIds
from bus.domain import kv, vector
from bus.domain.channel import ChannelPosted
from bus.domain.memory import MemoryWritten
from bus.domain.memory_requests import Write
from bus.domain.recall import Recall
from bus.events import Draft, Fact, RequestId
from bus.jetstream import JetStreamLog
from bus.operation import CODEC, FAMILIES, FAMILY_OF
from bus.subjects import TENANT, bucket_of
from projections.lexical import words
from projections.lexical_rows import Lexicon
from projections.reader import Reader
from projections.recall import Ranking
from projections.schema import Schema, discover
from projections.store import Store
from projections.views import events

COLLECTION = "notes"
BATCH = 200
WORDS, ASKED_AMONG = 20_000, 3_000
MESSAGES = 10
"""To so many memories comes one message."""
CHANNELS, SUBJECTS, AUTHORS = 7, 5_000, 11
LATENT = 40
TOP = 10

Matrix = NDArray[np.float32]


class _Language:
    """Made-up words, and texts of them."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        syllables = [one + other for one in "bdfgklmnprstvz" for other in "aeiou"]
        self._words = ["".join(self._chance.choices(syllables, k=4)) for _ in range(WORDS)]
        self._weights = list(accumulate(1 / (number + 2) for number in range(WORDS)))

    def text(self) -> str:
        return " ".join(self._chance.choices(self._words, cum_weights=self._weights, k=self._chance.randint(20, 60)))

    def questions(self, count: int) -> list[str]:
        return [" ".join(self._chance.choices(self._words[20:ASKED_AMONG], k=6)) for _ in range(count)]


def _drafts(facts: Iterator[tuple[str, str, Fact]], namespace: str) -> Iterator[Draft]:
    ids = RandomIds()
    for number, (family, key, fact) in enumerate(facts):
        yield Draft(
            id=ids.event_id(),
            namespace=namespace,
            family=family,
            bucket=bucket_of(FAMILY_OF[family].bucket_key(key)),
            entity=key,
            agent=f"agent-{number % AUTHORS:02}",
            fact=fact,
            request=RequestId(ids.event_id(), "0123456789abcdef"),
        )


def _items(seed: int, memories: int) -> Iterator[tuple[str, str, Fact]]:
    language = _Language(seed)
    for number in range(memories):
        subject = f"subject-{number % SUBJECTS}"
        yield "memory", f"m-{seed}-{number}", MemoryWritten(content=language.text(), scope="shared", subject=subject)
        if number % MESSAGES == 0:
            yield "channel", f"channel-{number // MESSAGES % CHANNELS}", ChannelPosted(text=language.text())


def matrix(seed: int, count: int, dimension: int) -> Matrix:
    """So many vectors, rounded as they are written."""
    chance = np.random.default_rng(seed)
    space = chance.normal(size=(min(LATENT, dimension), dimension))
    made = chance.normal(size=(count, len(space))) @ space + 0.3 * chance.normal(size=(count, dimension))
    rounded: Matrix = (made / np.linalg.norm(made, axis=1, keepdims=True)).round(4).astype(np.float32)
    return rounded


def _vectors(spec: Spec) -> Iterator[tuple[str, str, Fact]]:
    yield "collection", COLLECTION, vector.CollectionOpened(dimension=spec["dimension"], metric="cosine")
    for number, row in enumerate(matrix(spec["seed"], spec["vectors"], spec["dimension"])):
        numbers = tuple(float(f"{value:.4f}") for value in row)
        yield "vector", vector.key_of(COLLECTION, f"v-{number}"), vector.VectorUpserted(numbers=numbers)


async def fill(spec: Spec) -> AsyncIterator[Result | None]:
    """Write `memories` and messages, and then `vectors`, past the daemon. Reports the last seq before, and of each."""
    async with raw_connection(spec) as connection:
        log = JetStreamLog(connection, CODEC)
        yield None
        watch, seqs = Watch(), [(await log.head()).seq]
        for facts in (_items(spec["seed"], spec["memories"]), _vectors(spec) if spec["vectors"] else iter(())):
            await append_all(log, _drafts(facts, spec["namespace"]), BATCH)
            seqs.append((await log.head()).seq)
        yield watch.result(count=seqs[-1] - seqs[0], seqs=seqs)


async def ask(spec: Spec) -> AsyncIterator[Result | None]:
    """Recall through the bus; the first question waits until everything can be recalled."""
    async with bus_of(spec) as bus:
        asked = _Language(spec["seed"]).questions(spec["count"] + 1)
        yield None
        await bus.call(Recall(query=asked.pop(), k=TOP, after=spec["after"]))
        watch = Watch()
        for text in asked:
            request = Recall(query=text, k=TOP, as_of=spec.get("as_of"))
            await watch.run(lambda request=request: bus.call(request))  # type: ignore[misc]
        yield watch.result()


async def keep(spec: Spec) -> AsyncIterator[Result | None]:
    """From a memory written to its being recalled; reading a value right after that, and with nothing beside it."""
    async with bus_of(spec) as bus:
        await bus.call(kv.Set(key="plan", value={"step": 1}))
        yield None
        watch = Watch()
        took: dict[str, list[float]] = {"recallable": [], "get": [], "get beside": [], "write": []}

        async def get(kind: str) -> None:
            start = clock()
            await bus.call(kv.Get(key="plan"))
            took[kind].append(clock() - start)

        for number in range(spec["count"]):
            start, word = clock(), f"unheard{number}of"
            await bus.call(Write(content=f"something {word} here"))
            took["write"].append(clock() - start)
            while not (await bus.call(Recall(query=word, k=1))).hits:
                pass
            took["recallable"].append(clock() - start)
            await get("get beside")
        for _ in range(spec["count"]):
            await get("get")
        yield watch.result(**took)


async def bare(spec: Spec) -> AsyncIterator[Result | None]:
    """On a copy of the tables, without a daemon: taking the words in, ranking alone, and a plain library on the same
    words."""
    import bm25s

    store = Store(Path(spec["path"]), Schema(FAMILIES, discover(), events.EVENT))
    asked = _Language(spec["seed"]).questions(spec["count"])
    yield None
    watch, took = Watch(), dict[str, Any]()
    start, busy = clock(), process_time()
    for _ in range(-(-store.position // Lexicon.slice)):
        store.indexes.lexicon.step(store.position, store.chunks)
    took["index"], took["index cpu"] = clock() - start, process_time() - busy
    space = (spec["namespace"], TENANT)

    def ranked(reader: Reader) -> list[float]:
        return _times(asked, lambda text: next(_ranking(reader, text, space).best(("memory", "message"), 2 * TOP)))

    took["ranking"] = await store.read(store.position, "agent-00", EPOCH, ranked)
    texts = [text for (text,) in store._all(_TEXTS, [spec["namespace"]] * 2)]
    await store.close()
    library = bm25s.BM25()
    library.index([words(text) for text in texts], show_progress=False)
    took["library"] = _times(asked, lambda text: np.argpartition(library.get_scores(words(text)), -TOP)[-TOP:])
    yield watch.result(count=len(texts), **took)


_TEXTS = "select content from memory where namespace = ? union all select text from message where namespace = ?"


def _ranking(reader: Reader, text: str, space: tuple[str, ...]) -> Ranking:
    with reader.index() as index:
        return Ranking(index, text, reader.seq, space, reader.may_see)


def _times(asked: list[str], look: Callable[[str], Any]) -> list[float]:
    took = []
    for text in asked:
        start = clock()
        look(text)
        took.append(clock() - start)
    return took


async def nearest(spec: Spec) -> AsyncIterator[Result | None]:
    """The nearest vectors through the bus, as of the moment when `valid` of them were there; how many of the nearest
    were found; and the same by comparing all of them with numpy, and by the graph alone."""
    made = matrix(spec["seed"], spec["vectors"], spec["dimension"])[: spec["valid"]]
    pick = np.random.default_rng(spec["seed"] + 1)
    asked = made[pick.integers(0, len(made), spec["count"])] + 0.05 * pick.normal(size=(spec["count"], made.shape[1]))
    asked = asked.astype(np.float32)
    scaled = made / np.linalg.norm(made, axis=1, keepdims=True)
    async with bus_of(spec) as bus:
        yield None
        watch = Watch()
        exact: list[float] = []
        found = 0
        for one in asked:
            numbers = tuple(float(value) for value in one)
            request = vector.Nearest(collection=COLLECTION, numbers=numbers, k=TOP, as_of=spec["as_of"])
            answer = await watch.run(lambda request=request: bus.call(request))  # type: ignore[misc]
            start = clock()
            best = np.argpartition(scaled @ one, -TOP)[-TOP:]
            exact.append(clock() - start)
            found += len({f"v-{number}" for number in best} & {row.vector for row in answer.found})
        graph = _graph(spec.get("graph"), spec["dimension"], asked)
        yield watch.result(exact=exact, graph=graph, found=found / (TOP * len(asked)))


def _graph(path: str | None, dimension: int, asked: Matrix) -> list[float]:
    """How long the graph in that file takes, by itself."""
    if path is None:
        return []
    from usearch.index import Index

    graph = Index(ndim=dimension, metric="ip", dtype="f16")
    graph.load(path)
    took = []
    for one in asked:
        start = clock()
        graph.search(one, TOP)
        took.append(clock() - start)
    return took
