"""Ranking: what of everything said is most likely meant by a question, as of one event.

    own      BM25 of the wording itself
    near     the same, summed over it and its neighbours on both sides
    wide     the same, summed over two neighbours on both sides

Rules:
* Scores are `OWN * own + NEAR * near + WIDE * wide`, times AUTHOR when the question names exactly one author and this
  is the one, times TIME when it names a month or a day and this is of then. They know nothing of age: recency is no
  sign of what is meant.
* How rare a word is, and how long texts are, is counted over what the asker may see as of that event: neither what came
  later nor what is private to somebody else moves a score.
* The same question as of the same event has the same scores, bit by bit, and what has the same score is ordered by its
  seq, the newest first.
* Everything here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bus.subjects import SYSTEM
from projections.lexical import names, spans, words
from projections.lexical_index import KINDS, Flags, Index, Ints, Said

K1, B = 1.2, 0.75
OWN, NEAR, WIDE = 2.0, 0.5, 1.0
AUTHOR, TIME = 1.5, 1.4

Floats = NDArray[np.float64]


class Found(NamedTuple):
    """Something that fits a question, and why."""

    kind: str
    ident: int
    place: tuple[str, str]
    """The namespace and the key of its entity."""
    author: str
    said: Said
    score: float
    own: float
    near: float
    wide: float
    by_author: float
    """What the score was multiplied by because of who said it."""
    by_time: float
    """What the score was multiplied by because of when."""


class Term(NamedTuple):
    """A word of the question: in how many texts it is, and what it adds to the text in question."""

    word: str
    texts: int
    weight: float


class Ranking:
    """One question as of event `seq`, over what may be seen."""

    def __init__(
        self, index: Index, question: str, seq: int, namespaces: tuple[str, ...], may_see: Callable[[str | None], bool]
    ) -> None:
        self.words = tuple(dict.fromkeys(words(question)))
        self._index = index
        self._visible = index.visible(seq, namespaces, may_see)
        self.texts = int(self._visible.sum())
        """How many texts were looked at."""
        self._weights: list[tuple[str, int, Ints, Floats]] = []
        slots = index.ident.size
        # The last place is that of no slot: whatever has no neighbour has that one.
        self._own = np.zeros(slots + 1)
        self._count()
        before, behind = index.neighbours()
        self._near = self._own + self._own[before] + self._own[behind]
        self._wide = self._near + self._own[before[before]] + self._own[behind[behind]]
        self._author = self._named(question)
        self._time = self._then(question)
        self.score = (OWN * self._own + NEAR * self._near + WIDE * self._wide) * self._author * self._time
        (rows,) = np.nonzero(self._visible)
        self._row = np.full(slots + 1, -1)
        """By slot: the row that is visible of it."""
        self._row[index.slot.values[rows]] = rows
        self.score[self._row < 0] = 0.0
        self._names = list(index.authors)

    def best(self, kinds: Sequence[str], first: int) -> Iterator[list[Found]]:
        """What fits, best first, in lists that get longer; the first has so many, or more with the same score."""
        among = np.isin(self._index.kind.values, [KINDS.index(kind) for kind in kinds])
        (fitting,) = np.nonzero((self.score[:-1] > 0) & among)
        scores, idents = self.score[fitting], self._index.ident.values[fitting]
        done, upto = 0, first
        while done < len(fitting):
            if upto < len(fitting):
                # Those with the score of the last one have to be put in order with it.
                least = np.partition(scores, len(scores) - upto)[len(scores) - upto]
                (top,) = np.nonzero(scores >= least)
            else:
                top = np.arange(len(fitting))
            order = top[np.lexsort((-idents[top], -scores[top]))]
            yield [self._found(int(slot)) for slot in fitting[order[done:]]]
            done, upto = len(order), len(order) * 8

    def explain(self, kind: str, ident: int) -> list[Term]:
        """What each word of the question adds to the text itself."""
        (slots,) = np.nonzero((self._index.ident.values == ident) & (self._index.kind.values == KINDS.index(kind)))
        found = []
        for word, texts, at, weights in self._weights:
            (here,) = np.nonzero(at == slots[0])
            if len(here):
                found.append(Term(word, texts, float(weights[here[0]])))
        return found

    def _found(self, slot: int) -> Found:
        index = self._index
        return Found(
            kind=KINDS[index.kind.values[slot]],
            ident=int(index.ident.values[slot]),
            place=index.places[slot],
            author=self._names[index.author.values[slot]],
            said=index.said[self._row[slot]],
            score=float(self.score[slot]),
            own=float(self._own[slot]),
            near=float(self._near[slot]),
            wide=float(self._wide[slot]),
            by_author=float(self._author[slot]),
            by_time=float(self._time[slot]),
        )

    # --- what is scored ----------------------------------------------------------------------------------------

    def _count(self) -> None:
        """BM25 of every text for every word of the question."""
        if not self.texts:
            return
        length = self._index.length.values
        mean = int(length[self._visible].sum()) / self.texts or 1.0
        for word in self.words:
            rows, counts = self._index.occurrences(word)
            seen = self._visible[rows]
            rows, counts = rows[seen], counts[seen]
            texts = len(rows)
            if not texts:
                continue
            rarity = math.log(1 + (self.texts - texts + 0.5) / (texts + 0.5))
            weights = rarity * counts * (K1 + 1) / (counts + K1 * (1 - B + B * length[rows] / mean))
            at = self._index.slot.values[rows].astype(np.int64)
            # A slot has one visible row, so no place is met twice.
            self._own[at] += weights
            self._weights.append((word, texts, at, weights))

    def _named(self, question: str) -> Floats:
        """By slot: AUTHOR where the only author whom the question names said it."""
        factor = np.ones(len(self._own))
        authors = self._index.author.values
        visible = self._index.slot.values[self._visible]
        mentioned = sorted(names(question) - {SYSTEM})
        named = [known for name in mentioned if (known := self._index.authors.get(name)) is not None]
        speaking = [known for known in named if bool((authors[visible] == known).any())]
        if len(speaking) == 1:
            factor[:-1][authors == speaking[0]] = AUTHOR
        return factor

    def _then(self, question: str) -> Floats:
        """By slot: TIME where it is of a month or a day that the question names."""
        factor = np.ones(len(self._own))
        named = spans(question)
        if named and self.texts:
            rows = np.nonzero(self._visible)[0]
            ordinals, which = np.unique(self._index.day.values[rows], return_inverse=True)
            fits: Flags = np.array(
                [any(span.contains(date.fromordinal(int(day))) for span in named) for day in ordinals], np.bool_
            )
            factor[self._index.slot.values[rows[fits[which]]]] = TIME
        return factor
