"""Recall: what the ranking chose, read from the tables, with what does not fit left out.

Rules:
* What was said stands in the index, and only what the reader may see is looked at there; what is known of memories is
  read through the reader.
* Filters by what only memories have (subject, metadata, scope) leave only memories. What says the same as something
  better is left out.
* Without `valid_at`, memories have to be true when the event that is read as of was stored: asked again as of that
  event, the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from bus.domain import recall as ask
from bus.domain.memory_requests import MemoryRow
from bus.errors import InvalidRequest
from bus.subjects import TENANT
from projections.lexical_index import Index
from projections.query import Reader, answers, has_values, utc
from projections.recall import Found, Ranking
from projections.views import memory
from projections.views.messages import shown_name

SPARE = 2
"""So many times as much is read at first as is asked for: some of it may not fit, or say the same."""
TOKEN_BYTES = 4
"""A token has about so many bytes."""


@answers(ask.Recall, "hits")
def recall(reader: Reader, request: ask.Recall) -> ask.Hits:
    with reader.index() as index:
        return _Search(reader, request, index).answer()


class _Search:
    """One question, while the index is held."""

    def __init__(self, reader: Reader, request: ask.Recall, index: Index) -> None:
        self.reader = reader
        self.request = request
        self.time = reader.time_of(reader.seq)
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
        terms = self.ranking.explain(found.kind, found.ident)
        words = [ask.Term(word=term.word, texts=term.texts, weight=term.weight) for term in terms]
        return replace(hit, why=replace(hit.why, terms=words))

    def _fitting(self) -> Iterator[tuple[Found, ask.Hit]]:
        """What fits the filters, the best first."""
        request = self.request
        only_memories = request.subject is not None or request.scope is not None or bool(request.where)
        kinds = [kind for kind in request.kinds or ask.KINDS if kind == "memory" or not only_memories]
        for found in self.ranking.best(kinds, SPARE * request.k):
            read = self._read(found)
            for one in found:
                hit = read.get((one.kind, one.ident))
                if hit is not None:
                    yield one, hit

    def _read(self, found: Sequence[Found]) -> dict[tuple[str, int], ask.Hit]:
        of: Mapping[str, dict[int, Found]] = {kind: {} for kind in ask.KINDS}
        for one in found:
            of[one.kind][one.ident] = one
        journals = ((seq, _hit(one, one.said.text)) for seq, one in of["journal"].items())
        hits = [*self._memories(of["memory"]), *self._messages(of["message"]), *journals]
        return {(hit.kind, ident): hit for ident, hit in hits}

    def _memories(self, found: Mapping[int, Found]) -> Iterator[tuple[int, ask.Hit]]:
        if not found:
            return
        moment = self.request.valid_at or self.time
        rows = memory.whole(self.reader, self.request.namespace, [(kid, *one.place) for kid, one in found.items()])
        for row in rows:
            if _fits(row, self.request, moment):
                hit = _hit(found[row.written], row.content)
                yield row.written, replace(hit, **{name: getattr(row, name) for name in _SAME})

    def _messages(self, found: Mapping[int, Found]) -> Iterator[tuple[int, ask.Hit]]:
        for seq, one in found.items():
            hit, (namespace, conversation) = replace(_hit(one, one.said.text), seq=seq), one.place
            name = shown_name(conversation, self.reader.agent)
            # What belongs to no namespace is a conversation of two.
            yield seq, replace(hit, dm=name) if namespace == TENANT else replace(hit, channel=name)


def _hit(found: Found, text: str) -> ask.Hit:
    """What all kinds have in common."""
    return ask.Hit(
        seq=found.said.seq,
        kind=found.kind,
        score=found.score,
        why=ask.Why(own=found.own, near=found.near, wide=found.wide, author=found.by_author, time=found.by_time),
        namespace=found.place[0],
        agent=found.author,
        text=text,
        time=utc(found.said.time),
    )


_SAME = (
    *("memory", "subject", "category", "scope", "tags", "metadata", "valid_from", "valid_to"),
    *("trust_tier", "pinned", "contradicts"),
)


def _fits(row: MemoryRow, request: ask.Recall, moment: datetime | None) -> bool:
    """Whether a memory is what was asked for, and true then."""
    if moment is not None and (
        (row.valid_from is not None and row.valid_from > moment)
        or (row.valid_to is not None and row.valid_to <= moment)
    ):
        return False
    return (
        request.subject in (None, row.subject)
        and request.scope in (None, row.scope)
        and has_values(row.metadata, request.where)
    )


def tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode()) // TOKEN_BYTES)
