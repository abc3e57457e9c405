"""From the tables to the vectors, whatever an administrator wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from projections.news import News
from projections.vector_rows import Embeddings

GOOD = (1, 1, "main", "texts", "texts/a", "active", 1, 2, "cosine", '{"numbers":[1.0,2.0]}')


@pytest.mark.parametrize("numbers", ["[1.0]", "[1.0,2.0,3.0]", "[1e300,1.0]", "[0.0,0.0]", "[]"])
def test_numbers_that_cannot_be_compared_are_near_nothing(tmp_path: Path, numbers: str) -> None:
    odd = (2, 2, "main", "texts", "texts/b", "active", 2, 2, "cosine", f'{{"numbers":{numbers}}}')

    def chunks(sql: str) -> Iterator[list[Any]]:
        yield [GOOD, odd] if "from vector" in sql else []

    with Embeddings(tmp_path, News()).upto(2, chunks) as collections:
        found, among = collections[("main", "texts")].nearest((1.0, 2.0), 5, 2)
    assert ([near.kid for near in found], among) == ([1], 1)
