"""Recall: what the ranking chose, with what does not fit left out.

Rules:
* What is chosen among is what the reader may see; it is read as `projections.views.recalled` says.
* Filters by what only memories have (subject, metadata, scope) leave only memories. What says the same as something
  better is left out.
* Without `valid_at`, memories have to be true when the event that is read as of was stored: asked again as of that
  event, the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace

from bus.domain import recall as ask
from bus.errors import InvalidRequest
from bus.subjects import TENANT
from projections.query import Reader, answers, has_values
from projections.recall import Found, Ranking
from projections.views.recalled import hits

SPARE = 2
"""So many times as much is read at first as is asked for: some of it may not fit, or say the same."""
TOKEN_BYTES = 4
"""A token has about so many bytes."""


@answers(ask.Recall, "hits")
def recall(reader: Reader, request: ask.Recall) -> ask.Hits:
    return _Search(reader, request).answer()


class _Search:
    """One question."""

    def __init__(self, reader: Reader, request: ask.Recall) -> None:
        self.reader = reader
        self.request = request
        self.time = reader.time_of(reader.seq)
        with reader.index() as index:
            self.ranking = Ranking(index, request.query, reader.seq, (request.namespace, TENANT), reader.may_see)
        if not self.ranking.words:
            raise InvalidRequest(
                "the question has no word to look for",
                code="no_words",
                entity=f"question {request.query[:40]!r}",
                expected="a word that does not stand in almost every text",
                found=repr(request.query[:80]),
                hint="Name what it is about",
            )

    def answer(self) -> ask.Hits:
        request, hits = self.request, list[ask.Hit]()
        said: set[str] = set()
        room = request.budget_tokens
        for found, hit in self._fitting():
            text = " ".join(hit.text.casefold().split())
            if text in said:
                continue
            if room is not None and (room := room - tokens(hit.text)) < 0:
                break
            said.add(text)
            hits.append(self._explained(found, hit) if request.explain else hit)
            if len(hits) == request.k:
                break
        return ask.Hits(
            seq=self.reader.seq,
            time=self.time,
            hits=hits,
            words=list(self.ranking.words),
            texts=self.ranking.texts,
        )

    def _explained(self, found: Found, hit: ask.Hit) -> ask.Hit:
        terms = [ask.Term(word=one.word, texts=one.texts, weight=one.weight) for one in self.ranking.explain(found)]
        return replace(hit, why=replace(hit.why, terms=terms))

    def _fitting(self) -> Iterator[tuple[Found, ask.Hit]]:
        """What fits the filters, the best first."""
        request, moment = self.request, self.request.valid_at or self.time
        only_memories = request.subject is not None or request.scope is not None or bool(request.where)
        kinds = [kind for kind in request.kinds or ask.KINDS if kind == "memory" or not only_memories]
        for found in self.ranking.best(kinds, SPARE * request.k):
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


def tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode()) // TOKEN_BYTES)
