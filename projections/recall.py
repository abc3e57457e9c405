"""Ranking: what of everything said is most likely meant by a question, as of one event.

    own      BM25 of the wording itself
    near     the same, summed over it and its neighbours on both sides
    wide     the same, summed over two neighbours on both sides
    meaning  how near the vector is to that of the question: 1 for the nearest of all, 0 for number DEPTH

Rules:
* Scores are `OWN * own + NEAR * near + WIDE * wide`, times AUTHOR when the question names exactly one author and this
  is the one, times TIME when it names a month or a day and this is of then. They know nothing of age: recency is no
  sign of what is meant.
* Where there are vectors, `MEANING * meaning` is added first, in units of the best score by words. Scores are fused and
  not ranks: ranks throw away by how much words fit, and a weak leg then drags a strong one down.
* How rare a word is, and how long texts are, is counted over what the asker may see as of that event: neither what came
  later nor what is private to somebody else moves a score.
* The same question as of the same event has the same scores, bit by bit, and what has the same score is ordered by its
  seq, the newest first, and parts of one thing as they stand in it.
* Everything here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bus.subjects import SYSTEM
from projections.lexical import names, spans, words
from projections.lexical_index import KINDS, Flags, Index, Ints

K1, B = 1.2, 0.75
OWN, NEAR, WIDE = 2.0, 0.5, 1.0
AUTHOR, TIME = 1.5, 1.4
MANY = 4
"""Where more than one text in so many has a word of the question, windows are made of all."""
MEANING = 0.4
DEPTH = 200
"""So many of the nearest vectors count."""

Floats = NDArray[np.float64]


class Found(NamedTuple):
    """Something that fits a question, and why."""

    slot: int
    kind: str
    ident: int
    part: int
    namespace: str
    entity: str
    author: str
    seq: int
    """The event that gave it this wording."""
    time: datetime
    """When that was said."""
    score: float
    own: float
    near: float
    wide: float
    meaning: float
    """What was added for its vector."""
    cosine: float | None
    """How near that is, if it is among the nearest."""
    by_author: float
    """What the score was multiplied by because of who said it."""
    by_time: float
    """What the score was multiplied by because of when."""


class Term(NamedTuple):
    """A word of the question: in how many texts it is, and what it adds to the text in question."""

    word: str
    texts: int
    weight: float


Nearest = Callable[[Ints], tuple[Ints, Floats]]
"""Of these slots, the DEPTH whose vectors are nearest to that of the question, and their cosines."""


class Ranking:
    """One question as of event `seq`, over what may be seen. Making it needs the index for itself; what has been ranked
    can be read whatever is put into the index meanwhile."""

    def __init__(
        self,
        index: Index,
        question: str,
        seq: int,
        namespaces: tuple[str, ...],
        may_see: Callable[[str | None], bool],
        nearest: Nearest | None = None,
    ) -> None:
        self.words = tuple(dict.fromkeys(words(question)))
        self._index = index
        visible = index.visible(seq, namespaces, may_see)
        self.texts = int(np.count_nonzero(visible))
        """How many texts were looked at."""
        self._weights: list[tuple[str, int, Ints, Floats]] = []
        own = np.zeros(index.ident.size)
        self._count(own, visible)
        before, behind = index.before.values, index.behind.values
        reached = _reached(own, before, behind)
        cosines = np.full(len(own), np.nan)
        if nearest is not None:
            near, found = nearest(index.slot.values[visible])
            cosines[near], reached[near] = found, True
        self._rows = np.flatnonzero(visible & reached[index.slot.values])
        self._slots = index.slot.values[self._rows]
        one, other = before[self._slots], behind[self._slots]
        self._own = own[self._slots]
        self._near = self._own + own[one] + own[other]
        self._wide = self._near + own[before[one]] + own[behind[other]]
        by_words = OWN * self._own + NEAR * self._near + WIDE * self._wide
        self._cosine = cosines[self._slots]
        self._meaning = MEANING * (by_words.max(initial=0.0) or 1.0) * _scaled(self._cosine)
        self._author = self._named(question, visible)
        self._time = self._then(question)
        self.score = (by_words + self._meaning) * self._author * self._time

    def best(self, kinds: Sequence[str], first: int) -> Iterator[list[Found]]:
        """What fits, best first, in lists that get longer; the first has so many, or more with the same score."""
        among = np.isin(self._index.kind.values[self._slots], [KINDS.index(kind) for kind in kinds])
        fitting = np.flatnonzero(((self.score > 0) | ~np.isnan(self._cosine)) & among)
        slots = self._slots[fitting]
        scores, idents, parts = self.score[fitting], self._index.ident.values[slots], self._index.part.values[slots]
        done, upto = 0, first
        while done < len(fitting):
            if upto < len(fitting):
                # Those with the score of the last one have to be put in order with it.
                least = np.partition(scores, len(scores) - upto)[len(scores) - upto]
                top = np.flatnonzero(scores >= least)
            else:
                top = np.arange(len(fitting))
            order = top[np.lexsort((parts[top], -idents[top], -scores[top]))]
            yield [self._found(int(place)) for place in fitting[order[done:]]]
            done, upto = len(order), len(order) * 8

    def explain(self, found: Found) -> list[Term]:
        """What each word of the question adds to the text itself."""
        terms = []
        for word, texts, at, weights in self._weights:
            here = np.flatnonzero(at == found.slot)
            if len(here):
                terms.append(Term(word, texts, float(weights[here[0]])))
        return terms

    def _found(self, place: int) -> Found:
        index, slot, row = self._index, self._slots[place], int(self._rows[place])
        return Found(
            slot=int(slot),
            kind=KINDS[index.kind.values[slot]],
            ident=int(index.ident.values[slot]),
            part=int(index.part.values[slot]),
            namespace=index.groups.things[index.group.values[slot]][0],
            entity=index.entities.things[index.entity.values[slot]],
            author=index.authors.things[index.author.values[slot]],
            seq=int(index.begins.values[row]),
            time=index.time_of(row),
            score=float(self.score[place]),
            own=float(self._own[place]),
            near=float(self._near[place]),
            wide=float(self._wide[place]),
            meaning=float(self._meaning[place]),
            cosine=None if math.isnan(self._cosine[place]) else float(self._cosine[place]),
            by_author=float(self._author[place]),
            by_time=float(self._time[place]),
        )

    # --- what is scored ----------------------------------------------------------------------------------------

    def _count(self, own: Floats, visible: Flags) -> None:
        """BM25 of every text for every word of the question, added up by slot in `own`."""
        if not self.texts:
            return
        length = self._index.length.values
        mean = int(np.sum(length, where=visible, dtype=np.int64)) / self.texts or 1.0
        for word in self.words:
            rows, counts = self._index.occurrences(word)
            seen = visible[rows]
            rows, often = rows[seen], counts[seen].astype(np.float64)
            texts = len(rows)
            if not texts:
                continue
            rarity = math.log(1 + (self.texts - texts + 0.5) / (texts + 0.5))
            weights = rarity * often * (K1 + 1) / (often + K1 * (1 - B + B * length[rows] / mean))
            at = self._index.slot.values[rows]
            # A slot has one visible row, so no place is met twice.
            own[at] += weights
            self._weights.append((word, texts, at, weights))

    def _named(self, question: str, visible: Flags) -> Floats:
        """AUTHOR where the only author whom the question names said it."""
        factor = np.ones(len(self._slots))
        authors, slot = self._index.author.values, self._index.slot.values
        mentioned = sorted(names(question) - {SYSTEM})
        named = [known for name in mentioned if (known := self._index.authors.known(name)) is not None]
        speaking = [known for known in named if bool((visible & (authors == known)[slot]).any())]
        if len(speaking) == 1:
            factor[authors[self._slots] == speaking[0]] = AUTHOR
        return factor

    def _then(self, question: str) -> Floats:
        """TIME where it is of a month or a day that the question names."""
        factor = np.ones(len(self._slots))
        named = spans(question)
        if named and len(self._rows):
            ordinals, which = np.unique(self._index.day.values[self._rows], return_inverse=True)
            fits: Flags = np.array(
                [any(span.contains(date.fromordinal(int(day))) for span in named) for day in ordinals], np.bool_
            )
            factor[fits[which]] = TIME
        return factor


def _reached(own: Floats, before: Ints, behind: Ints) -> Flags:
    """By slot: whether it has a word of the question, or stands next to one that has."""
    scored = np.flatnonzero(own)
    if len(scored) * MANY > len(own):
        return np.ones(len(own), np.bool_)  # Nearly all of them, which is found out soonest by looking.
    reached = np.zeros(len(own), np.bool_)
    reached[scored] = True
    for column in (before, behind):
        beside = column[scored]
        reached[beside] = True
        reached[column[beside]] = True
    return reached


def _scaled(cosines: Floats) -> Floats:
    """From 0 for the least of them to 1 for the greatest; 0 also where there is none."""
    known = cosines[~np.isnan(cosines)]
    if not len(known):
        return np.zeros(len(cosines))
    least, most = known.min(), known.max()
    scaled: Floats = (cosines - least) / (most - least) if most > least else np.where(np.isnan(cosines), 0.0, 1.0)
    return np.nan_to_num(scaled)
