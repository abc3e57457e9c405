"""Postings: in which rows a word occurs, and how often, in as few bytes as will do.

    tail      what came last, in the order in which it came
    segment   postings that are sorted by word: made of a full tail, or of two smaller segments side by side

Rules:
* A word is its 64-bit digest. Names, numbers and ids make most words occur once, and a digest is a tenth of what a word
  takes in a dictionary.
* Rows are put in ascending order and nothing is ever taken out, so what a word occurs in is ascending as well, however
  the segments have been put together.
* How often a word occurs in a row is counted up to OFTEN: more says no more.
* Everything here is pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from projections.columns import Column

Rows = NDArray[np.int32]
Counts = NDArray[np.uint8]
OFTEN = 255
TAIL = 1 << 16
"""So many postings come together before they are sorted; every question looks through all of them."""
MOST = 1 << 20
"""Segments of more are not put together any more: it would take as long as a question may."""
KNOWN = 1 << 14
"""Words whose digest is at hand."""


class _Segment(NamedTuple):
    """The postings of word `words[i]` are those from `starts[i]` to `starts[i + 1]`."""

    words: NDArray[np.uint64]
    starts: NDArray[np.int32]
    rows: Rows
    counts: Counts


class Postings:
    """All postings of an index."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._new()

    def _new(self) -> None:
        self._words, self._rows, self._counts = (Column(kind, room=TAIL) for kind in (np.uint64, np.int32, np.uint8))

    def put(self, row: int, counts: Mapping[str, int]) -> None:
        """These words occur so often in a row, which comes after all that were put before."""
        if not counts:
            return
        self._words.extend(array("Q", map(_digest, counts)))
        self._rows.extend(np.full(len(counts), row, np.int32))
        self._counts.extend(np.minimum(np.fromiter(counts.values(), np.int64, len(counts)), OFTEN))
        if self._words.size >= TAIL:
            self._segments.append(_sorted(self._words.values, self._rows.values, self._counts.values))
            self._new()
            self._join()

    def _join(self) -> None:
        """Put the last segments together as long as they are of about the same size."""
        while len(self._segments) > 1:
            one, other = self._segments[-2:]
            if len(one.rows) > 2 * len(other.rows) or len(one.rows) + len(other.rows) > MOST:
                break
            self._segments[-2:] = [_joined(one, other)]

    def occurrences(self, word: str) -> tuple[Rows, Counts]:
        """The rows in which a word occurs, ascending, and how often in each."""
        digest = np.uint64(_digest(word))
        found = [part for segment in self._segments if (part := _within(segment, digest)) is not None]
        last = np.flatnonzero(self._words.values == digest)
        found.append((self._rows.values[last], self._counts.values[last]))
        rows, counts = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(counts)


@lru_cache(maxsize=KNOWN)
def _digest(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _within(segment: _Segment, digest: np.uint64) -> tuple[Rows, Counts] | None:
    place = int(np.searchsorted(segment.words, digest))
    if place == len(segment.words) or segment.words[place] != digest:
        return None
    start, end = segment.starts[place], segment.starts[place + 1]
    return segment.rows[start:end], segment.counts[start:end]


def _sorted(words: NDArray[np.uint64], rows: Rows, counts: Counts) -> _Segment:
    order = np.argsort(words, kind="stable")
    known, starts = np.unique(words[order], return_index=True)
    return _Segment(known, np.append(starts, len(words)).astype(np.int32), rows[order], counts[order])


def _joined(one: _Segment, other: _Segment) -> _Segment:
    """Of each word first what stands in `one`, whose rows come before those of `other`."""
    words = np.union1d(one.words, other.words)
    places = [np.searchsorted(words, segment.words) for segment in (one, other)]
    sizes = np.zeros((2, len(words)), np.int32)
    for size, place, segment in zip(sizes, places, (one, other), strict=True):
        size[place] = np.diff(segment.starts)
    starts = np.concatenate((np.zeros(1, np.int32), np.cumsum(sizes.sum(axis=0), dtype=np.int32)))
    rows, counts = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint8)
    begins = (starts[:-1], starts[:-1] + sizes[0])
    for begin, size, place, segment in zip(begins, sizes, places, (one, other), strict=True):
        to = np.repeat(begin[place] - segment.starts[:-1], size[place]) + np.arange(len(segment.rows), dtype=np.int32)
        rows[to], counts[to] = segment.rows, segment.counts
    return _Segment(words, starts, rows, counts)
