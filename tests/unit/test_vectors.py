"""The index of vectors: exact against a plain computation, as of any moment, by graph and without, and its files."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from projections import vectors
from projections.query import Near
from projections.vectors import Collected, file_of

METRICS = ("cosine", "dot", "euclidean")
History = list[tuple[int, int, list[float] | None]]


def history(chance: random.Random, count: int, dimension: int) -> History:
    """(kid, seq, numbers or None) of a life of vectors, some of which are replaced, deleted, or the same as another."""
    said: History = []
    for seq in range(1, count + 1):
        kid = chance.randint(1, max(1, count // 3))
        if chance.random() < 0.15:
            said.append((kid, seq, None))
        elif said and chance.random() < 0.1 and said[-1][2] is not None:
            said.append((kid, seq, said[-1][2]))
        else:
            said.append((kid, seq, [chance.uniform(-1, 1) for _ in range(dimension)]))
    return said


def filled(said: History, dimension: int, metric: str) -> Collected:
    collected = Collected(dimension, metric)
    for kid, seq, numbers in said:
        collected.put(kid, seq, numbers)
    return collected


def score(metric: str, one: Sequence[float], other: Sequence[float]) -> float:
    if metric == "euclidean":
        return -math.dist(one, other)
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other)) if metric == "cosine" else dot


def plain(
    said: History, metric: str, asked: Sequence[float], seq: int, kids: Sequence[int] | None
) -> list[tuple[int, int, float]]:
    """All that is valid at `seq`, the nearest first."""
    now: dict[int, tuple[int, list[float] | None]] = {}
    for kid, at, numbers in said:
        if at <= seq:
            now[kid] = (at, numbers)
    rows = [
        (kid, at, score(metric, asked, numbers))
        for kid, (at, numbers) in now.items()
        if numbers is not None and (kids is None or kid in kids)
    ]
    return sorted(rows, key=lambda row: (-round(row[2], 6), row[1]))


def same(found: list[Near], expected: list[tuple[int, int, float]]) -> None:
    assert [round(near.score, 4) for near in found] == [round(row[2], 4) for row in expected]
    # Numbers are kept in 32 bits, so what is as good as equal may change places.
    assert {near.kid for near in found[:-1]} <= {row[0] for row in expected} | {near.kid for near in found}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_are_those_of_a_plain_computation_at_every_moment(metric: str, seed: int) -> None:
    chance = random.Random(seed)
    said = history(chance, 120, 5)
    collected = filled(said, 5, metric)
    for seq in (0, 1, 40, 119, 120, 500):
        asked = [chance.uniform(-1, 1) for _ in range(5)]
        kids = None if chance.random() < 0.5 else chance.sample(range(1, 41), 15)
        expected = plain(said, metric, asked, seq, kids)
        found, among = collected.nearest(asked, 7, seq, kids)
        assert among == len(expected)
        assert len(found) == min(7, among)
        same(found, expected[:7])


def test_an_answer_about_the_past_is_the_one_that_was_given_then() -> None:
    chance = random.Random(5)
    said = history(chance, 300, 8)
    collected = Collected(8, "cosine")
    asked = [chance.uniform(-1, 1) for _ in range(8)]
    given = []
    for kid, seq, numbers in said:
        collected.put(kid, seq, numbers)
        given.append((seq, collected.nearest(asked, 10, seq)))
    for seq, answer in given:
        assert collected.nearest(asked, 10, seq) == answer


def test_of_equals_the_older_comes_first() -> None:
    said: History = [(kid, kid, [1.0, 2.0, 3.0]) for kid in range(1, 200)]
    found, among = filled(said, 3, "cosine").nearest([1.0, 2.0, 3.0], 5, 1000)
    assert ([near.kid for near in found], among) == ([1, 2, 3, 4, 5], 199)
    assert found[0].score == pytest.approx(1.0, abs=1e-6)


def test_numbers_near_nought_and_far_from_it_have_a_direction() -> None:
    collected = filled([(1, 1, [1e-300, 0.0]), (2, 2, [0.0, 1e15])], 2, "cosine")
    found, _ = collected.nearest([1e-200, 0.0], 2, 2)
    assert [(near.kid, round(near.score, 6)) for near in found] == [(1, 1.0), (2, 0.0)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as many is less here."""
    monkeypatch.setattr(vectors, "EXACT", 100)
    monkeypatch.setattr(vectors, "SAVE_ROWS", 200)
    monkeypatch.setattr(vectors, "SAVE_REST", 30)


def grown(collected: Collected, path: Path) -> None:
    while collected.grow(path):
        pass


@pytest.mark.usefixtures("few")
def test_little_of_a_graph_is_to_be_made_again_at_the_next_start(tmp_path: Path) -> None:
    path, chance = tmp_path / "g" / "x.usearch", np.random.default_rng(3)
    collected = Collected(4, "cosine")
    for upto, kept in ((300, 300), (320, 300), (340, 340)):
        for n in range(collected.size, upto):
            collected.put(n, n + 1, chance.normal(size=4).tolist())
        grown(collected, path)
        assert msgspec.json.decode(path.with_suffix(".usearch.json").read_bytes())["rows"] == kept


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_finds_nearly_all_of_the_nearest_at_a_third_of_the_rows(metric: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    collected = Collected(16, metric)
    for n in range(3000):
        collected.put(n % 1000, n + 1, chance.normal(size=16).tolist())
    asked = chance.normal(size=(50, 16)).tolist()
    exact = [collected.nearest(one, 10, 1900)[0] for one in asked]
    grown(collected, tmp_path / "g" / "x.usearch")
    hits = 0
    for one, expected in zip(asked, exact, strict=True):
        found, among = collected.nearest(one, 10, 1900)
        assert among == 1000
        hits += len(set(found) & set(expected))
    assert hits >= 0.97 * 500


@pytest.mark.usefixtures("few")
def test_what_the_graph_has_not_taken_in_yet_is_found_too(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    collected = Collected(8, "cosine")
    for n in range(400):
        collected.put(n, n + 1, chance.normal(size=8).tolist())
    grown(collected, tmp_path / "x.usearch")
    collected.put(400, 401, [1.0] * 8)
    (near, *_), _ = collected.nearest([1.0] * 8, 3, 401)
    assert near.kid == 400


@pytest.mark.usefixtures("few")
def test_a_graph_is_read_again_and_a_damaged_or_foreign_one_is_made_anew(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    rows = [(n, n + 1, chance.normal(size=8).tolist()) for n in range(500)]
    path = file_of(tmp_path, "main", "texts")
    first = filled(list(rows), 8, "cosine")
    grown(first, path)
    kept = path.read_bytes()
    asked = rows[7][2]

    def warned(said: History) -> list[str]:
        again = filled(said, 8, "cosine")
        with capture_logs() as told:
            grown(again, path)
        assert again.nearest(asked, 5, 500)[0] == first.nearest(asked, 5, 500)[0]
        return [line["error"] for line in told]

    assert warned(list(rows)) == []
    for damaged in (kept[:-1], kept[:2000] + bytes(500) + kept[2500:], b""):
        path.write_bytes(damaged)
        assert warned(list(rows)) == ["the file is damaged"]
        assert path.read_bytes() != damaged
    path.with_suffix(".usearch.json").write_text("{")
    assert len(warned(list(rows))) == 1
    other = [(n, seq + 1, numbers) for n, seq, numbers in rows]
    again = filled(other, 8, "cosine")
    with capture_logs() as told:
        grown(again, path)
    assert [line["error"] for line in told] == ["it is of other rows"]
