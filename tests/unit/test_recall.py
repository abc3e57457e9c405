"""Ranking: what is found first, why, and that neither later events nor what others keep to themselves move a score."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any

from projections.lexical_index import Index, Wording
from projections.recall import AUTHOR, TIME, Found, Ranking

DAY = datetime(2030, 5, 1)
HERE = ("default",)


class Shelf:
    """An index that a test fills."""

    def __init__(self) -> None:
        self.index = Index()
        self.seq = 0

    def put(self, text: str | None, **fields: Any) -> int:
        self.seq += 1
        blank: dict[str, Any] = {"kind": "message", "ident": self.seq, "entity": "dev", "namespace": "default"}
        blank |= {"audience": None, "thread": None, "author": "atlas", "time": DAY}
        self.index.put(Wording(seq=self.seq, text=text, **(blank | fields)))
        return self.seq

    def rank(self, question: str, seq: int | None = None, agent: str = "nova", namespaces: Any = HERE) -> Ranking:
        def may_see(audience: str | None) -> bool:
            return audience is None or f"|{agent}|" in audience

        return Ranking(self.index, question, self.seq if seq is None else seq, namespaces, may_see)

    def found(self, question: str, **asked: Any) -> list[Found]:
        return every(self.rank(question, **asked))


def every(ranking: Ranking, kinds: Iterable[str] = ("memory", "message", "journal"), first: int = 2) -> list[Found]:
    return [one for part in ranking.best(tuple(kinds), first) for one in part]


def idents(found: Iterable[Found]) -> list[int]:
    return [one.ident for one in found]


def test_rare_words_count_more_than_common_ones_and_short_texts_more_than_long_ones() -> None:
    shelf = Shelf()
    common = [shelf.put("the server runs") for _ in range(5)]
    rare = shelf.put("the parser of the server")
    long = shelf.put("the parser and so many other words stand beside it here today")
    assert idents(shelf.found("parser server"))[:2] == [rare, long]
    assert idents(shelf.found("server")) == [rare, *reversed(common)]


def test_equal_scores_come_newest_first_however_they_are_cut() -> None:
    shelf = Shelf()
    seqs = [shelf.put("one parser") for _ in range(50)]
    for first in (1, 3, 50, 1000):
        assert idents(every(shelf.rank("parser"), first=first)) == seqs[::-1]


def test_what_stands_next_to_it_counts_within_a_thread() -> None:
    shelf = Shelf()
    alone = shelf.put("parser")
    before = shelf.put("why?", thread=("dev",))
    shelf.put("unrelated", thread=("ops",))
    said = shelf.put("parser", thread=("dev",))
    behind = shelf.put("so be it", thread=("dev",))
    far = shelf.put("really", thread=("dev",))
    found = {one.ident: one for one in shelf.found("parser")}
    assert set(found) == {alone, before, said, behind, far}
    assert found[before].own == found[behind].own == 0
    assert found[before].near == found[behind].near == found[said].own
    assert (found[far].near, found[far].wide) == (0, found[said].own)
    assert max(found.values(), key=lambda one: one.score).ident in (alone, said)


def test_threads_of_different_readers_do_not_touch() -> None:
    shelf = Shelf()
    shelf.put("parser", thread=("user:1",), audience="|atlas|")
    mine = shelf.put("mine", thread=("user:1",), audience="|nova|")
    shared = shelf.put("shared", thread=("user:1",))
    assert shelf.found("parser") == []
    assert set(idents(shelf.found("mine shared"))) == {mine, shared}


def test_what_others_keep_to_themselves_moves_no_score() -> None:
    plain, crowded = Shelf(), Shelf()
    for shelf in (plain, crowded):
        shelf.put("the parser is slow")
    for _ in range(5):
        crowded.put("parser parser atlas", audience="|atlas|", author="iris")
        crowded.put("parser", namespace="lab")
    shelves = (plain, crowded)
    for question in ("parser", "what did iris say about the parser", "atlas iris parser"):
        scores = [[(one.ident, one.score) for one in shelf.found(question)] for shelf in shelves]
        assert scores[0] == scores[1]
    assert plain.rank("parser").texts == crowded.rank("parser").texts == 1
    assert crowded.rank("parser", agent="atlas").texts == 6
    assert crowded.rank("parser", namespaces=("lab",)).texts == 5


def test_as_of_an_event_nothing_later_counts() -> None:
    shelf = Shelf()
    first = shelf.put("the parser is slow", kind="memory", thread=("p",))
    shelf.put("another text about the weather")
    asked = [shelf.found("parser slow atlas")]
    moments = [shelf.seq]
    shelf.put("the parser is quick", kind="memory", ident=first, thread=("p",))
    asked.append(shelf.found("parser slow atlas"))
    moments.append(shelf.seq)
    shelf.put("parser slow", thread=("p",), kind="memory")
    shelf.put(None, kind="memory", ident=first)
    asked.append(shelf.found("parser slow atlas"))
    moments.append(shelf.seq)
    assert len({repr(found) for found in asked}) == 3
    for moment, found in zip(moments, asked, strict=True):
        assert shelf.found("parser slow atlas", seq=moment) == found
    assert shelf.found("parser", seq=0) == []


def test_an_entry_that_came_back_is_found_again() -> None:
    shelf = Shelf()
    first = shelf.put("the parser", kind="memory")
    shelf.put(None, kind="memory", ident=first)
    assert shelf.found("parser") == []
    shelf.put("the parser", kind="memory", ident=first)
    assert [one.seq for one in shelf.found("parser")] == [3]
    shelf.put("the parser", kind="memory", ident=first)
    assert [one.seq for one in shelf.found("parser")] == [3], "the same words are no new wording"
    shelf.put(None, kind="memory", ident=99)
    assert shelf.index.ident.size == 2, "nobody and that entry"


def test_only_the_one_author_who_is_named_counts_more() -> None:
    shelf = Shelf()
    theirs = shelf.put("the parser is slow", author="iris")
    ours = shelf.put("the parser is slow")
    assert idents(shelf.found("parser")) == [ours, theirs]
    found = shelf.found("What did Iris's parser do?")
    assert (idents(found), found[0].by_author) == ([theirs, ours], AUTHOR)
    assert {one.by_author for one in shelf.found("iris atlas parser")} == {1.0}
    shelf.put("unrelated", author="system")
    assert {one.by_author for one in shelf.found("system parser")} == {1.0}


def test_what_is_of_the_time_that_is_named_counts_more() -> None:
    shelf = Shelf()
    june = shelf.put("the parser", kind="memory", time=datetime(2030, 6, 2), true_from=None)
    true_in_june = shelf.put("the parser", kind="memory", true_from=datetime(2029, 6, 2).date())
    may = shelf.put("the parser", kind="memory")
    found = {one.ident: one.by_time for one in shelf.found("the parser in June")}
    assert found == {june: TIME, true_in_june: TIME, may: 1.0}
    found = {one.ident: one.by_time for one in shelf.found("the parser on June 2, 2029")}
    assert found == {june: 1.0, true_in_june: TIME, may: 1.0}


def test_each_word_says_what_it_adds() -> None:
    shelf = Shelf()
    shelf.put("the parser")
    seq = shelf.put("the slow parser")
    ranking = shelf.rank("slow parser weather")
    (found,) = islice((one for one in every(ranking) if one.ident == seq), 1)
    terms = ranking.explain(found)
    assert [(term.word, term.texts) for term in terms] == [("slow", 1), ("parser", 2)]
    assert sum(term.weight for term in terms) == found.own


def test_nothing_is_found_where_nothing_is() -> None:
    shelf = Shelf()
    assert shelf.found("parser") == []
    shelf.put(" ")
    assert shelf.found("parser") == []
    assert shelf.rank("the of and").words == ()
