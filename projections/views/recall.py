"""Recall: what the ranking chose, with what does not fit left out.

Rules:
* What is chosen among is what the reader may see; it is read as `projections.views.recalled` says.
* Filters by what only memories have (subject, metadata, scope) leave only memories. What says the same as something
  better is left out.
* Without `valid_at`, memories have to be true when the event that is read as of was stored: asked again as of that
  event, the answer is the same.
* A question that comes with a vector is compared with the vectors of the same dimension that memories came with, and
  with nothing that an embedder made: numbers of different models have nothing to say to each other. One that comes
  without is compared with what the embedder made of everything, if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import numpy as np
from msgspec.structs import replace

from bus.domain import recall as ask
from bus.domain.tokens import tokens
from bus.domain.vector import check_finite
from bus.errors import InvalidRequest
from bus.subjects import TENANT
from projections.lexical_index import KINDS, Index, Ints
from projections.query import (
    Kids,
    Meant,
    Near,
    Nearby,
    Numbers,
    Reader,
    answers,
    has_values,
    place_of_memories,
)
from projections.recall import DEPTH, Floats, Found, Ranking
from projections.views.recalled import hits

SPARE = 2
"""So many times as much is read at first as is asked for: some of it may not fit, or say the same."""
DIGITS = 6
"""Vectors are kept in 32 bits, which have no more to say of how near they are."""


@answers(ask.Recall, "hits")
def recall(reader: Reader, request: ask.Recall) -> ask.Hits:
    return answered(reader, request, Meant())


def answered(reader: Reader, request: ask.Recall, meant: Meant) -> ask.Hits:
    """The answer, with what an embedder made of the question."""
    return _Search(reader, request, meant).answer()


def ranking(reader: Reader, request: ask.Recall, meant: Meant) -> Ranking:
    """Everything that has to do with a question, ranked. Raises InvalidRequest when it asks for nothing."""
    return _Search(reader, request, meant).ranking


class _Search:
    """One question."""

    def __init__(self, reader: Reader, request: ask.Recall, meant: Meant) -> None:
        self.reader = reader
        self.request = request
        self.time = reader.time_of(reader.seq)
        self.legs = {"words": ask.ANSWERED}
        only_memories = request.subject is not None or request.scope is not None or bool(request.where)
        self.kinds = [kind for kind in request.kinds or ask.KINDS if kind == "memory" or not only_memories]
        if request.embedding is not None:
            check_finite(request.embedding, "the question")
        compares = request.embedding is not None or meant.vector is not None
        if not compares and meant.why_not is not None:
            self.legs["dense"] = meant.why_not
        with reader.index() as index:

            def nearest(slots: Ints) -> tuple[Ints, Floats]:
                return self._nearest(index, slots, meant)

            namespaces, near = (request.namespace, TENANT), nearest if compares else None
            self.ranking = Ranking(index, request.query, reader.seq, namespaces, reader.may_see, near)
        if not self.ranking.words:
            self.legs["words"] = "the question has no word to look for"
            if self.legs.get("dense") != ask.ANSWERED:
                raise self._wordless()

    def _nearest(self, index: Index, slots: Ints, meant: Meant) -> tuple[Ints, Floats]:
        """Of these slots, those whose vectors are nearest to that of the question."""
        wanted = [KINDS.index(kind) for kind in self.kinds]
        slots = slots[np.isin(index.kind.values[slots], wanted)]
        near: list[Near] = []
        embedding = self.request.embedding
        if embedding is not None:
            with self.reader.collections() as collections:
                held = collections.get(place_of_memories(len(embedding)))
                kids = index.ident.values[slots[index.kind.values[slots] == KINDS.index("memory")]]
                near = self._compared(held, embedding, kids) if held is not None else []
            near = [one._replace(kid=index.slots_of("memory", one.kid)[0]) for one in near]
            none = f"no memory that you can see came with a vector of {len(embedding)} numbers"
            self.legs["dense"] = ask.ANSWERED if near else none
        elif meant.vector is not None:
            dense = self.reader.dense()
            near = self._compared(dense, meant.vector, slots) if dense is not None else []
            self.legs["dense"] = ask.ANSWERED if dense is not None else "the vectors are being made"
        return np.array([one.kid for one in near], np.int64), np.array([one.score for one in near])

    def _compared(self, held: Nearby, numbers: Numbers, kids: Kids) -> list[Near]:
        near, _ = held.nearest(numbers, DEPTH, self.reader.seq, kids)
        return [one._replace(score=round(one.score, DIGITS)) for one in near]

    def _wordless(self) -> InvalidRequest:
        question = self.request.query
        return InvalidRequest(
            "the question has no word to look for",
            code="no_words",
            entity=f"question {question[:40]!r}",
            expected="a word that does not stand in almost every text",
            found=repr(question[:80]),
            hint="Name what it is about",
        )

    def answer(self) -> ask.Hits:
        return ask.Hits(
            seq=self.reader.seq,
            time=self.time,
            hits=within(self._distinct(), self.request),
            words=list(self.ranking.words),
            texts=self.ranking.texts,
            legs=self.legs,
        )

    def _distinct(self) -> Iterator[ask.Hit]:
        """What fits, without what says the same as something better."""
        said: set[str] = set()
        for found, hit in self._fitting():
            text = " ".join(hit.text.casefold().split())
            if text not in said:
                said.add(text)
                yield self._explained(found, hit) if self.request.explain else hit

    def _explained(self, found: Found, hit: ask.Hit) -> ask.Hit:
        terms = [ask.Term(word=one.word, texts=one.texts, weight=one.weight) for one in self.ranking.explain(found)]
        return replace(hit, why=replace(hit.why, terms=terms, cosine=found.cosine))

    def _fitting(self) -> Iterator[tuple[Found, ask.Hit]]:
        """What fits the filters, the best first."""
        request, moment = self.request, self.request.valid_at or self.time
        for found in self.ranking.best(self.kinds, SPARE * request.k):
            read = hits(self.reader, request.namespace, found)
            for one in found:
                hit = read.get(one.slot)
                if hit is not None and (hit.memory is None or _fits(hit, request, moment)):
                    yield one, hit


def _fits(hit: ask.Hit, request: ask.Recall, moment: datetime | None) -> bool:
    """Whether a memory is what was asked for, and true then."""
    if moment is not None and (
        (hit.valid_from is not None and hit.valid_from > moment)
        or (hit.valid_to is not None and hit.valid_to <= moment)
    ):
        return False
    return (
        request.subject in (None, hit.subject)
        and request.scope in (None, hit.scope)
        and has_values(hit.metadata, request.where)
    )


def within(hits: Iterable[ask.Hit], request: ask.Recall) -> list[ask.Hit]:
    """The first of these, as many as are asked for, in as many tokens."""
    chosen, room = list[ask.Hit](), request.budget_tokens
    for hit in hits:
        if room is not None and (room := room - tokens(hit.text)) < 0:
            break
        chosen.append(hit)
        if len(chosen) == request.k:
            break
    return chosen
