"""Postings: whatever was put is found, however it has been sorted and put together meanwhile."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from projections import postings
from projections.postings import OFTEN, Postings

texts = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), max_size=60)


@given(texts, st.integers(1, 40), st.integers(8, 200))
def test_segments_have_what_was_put_in_the_order_of_rows(rows: list[list[str]], tail: int, most: int) -> None:
    with mock.patch.object(postings, "TAIL", tail), mock.patch.object(postings, "MOST", most):
        kept = Postings()
        for row, text in enumerate(rows):
            kept.put(2 * row, Counter(text))
            for word in "ax":
                assert _found(kept, word) == _put(rows[: row + 1], word)
        for word in "abcdefgh":
            assert _found(kept, word) == _put(rows, word)


def _put(rows: list[list[str]], word: str) -> list[tuple[int, int]]:
    return [(2 * row, text.count(word)) for row, text in enumerate(rows) if word in text]


def _found(kept: Postings, word: str) -> list[tuple[int, int]]:
    rows, counts = kept.occurrences(word)
    return list(zip(rows.tolist(), counts.tolist(), strict=True))


def test_there_are_few_segments_and_none_is_too_large() -> None:
    with mock.patch.object(postings, "TAIL", 8), mock.patch.object(postings, "MOST", 256):
        kept = Postings()
        for row in range(400):
            kept.put(row, {f"w{row}": 1, "all": 1})
        sizes = [len(segment.rows) for segment in kept._segments]
        assert max(sizes) <= 256
        assert len(sizes) <= 10
        assert kept.occurrences("all")[0].tolist() == list(range(400))


def test_very_many_of_one_word_count_as_many() -> None:
    kept = Postings()
    kept.put(0, {"word": OFTEN + 1, "other": 10**12})
    assert [kept.occurrences(word)[1].tolist() for word in ("word", "other", "none")] == [[OFTEN], [OFTEN], []]
    assert kept.occurrences("none")[0].dtype == np.int32


def test_a_word_that_is_no_unicode_is_a_word() -> None:
    kept = Postings()
    kept.put(3, {"\ud800": 1})
    assert _found(kept, "\ud800") == [(3, 1)]
