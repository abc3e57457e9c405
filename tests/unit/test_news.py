"""News: a table is left alone only when it is known to have nothing new."""

from __future__ import annotations

from projections.news import News


def test_what_was_not_told_may_be_anywhere() -> None:
    news = News()
    assert news.may_be_in("memory", 0)
    news.tell(["memory"], 10, 12)
    assert news.may_be_in("memory", 9)
    assert news.may_be_in("vector", 9)
    assert not news.may_be_in("vector", 10)
    assert news.may_be_in("memory", 11)
    assert not news.may_be_in("memory", 12)
    news.tell(["vector"], 12, 13)
    assert news.may_be_in("vector", 10)
    assert news.may_be_in("memory", 10)
    assert not news.may_be_in("memory", 12)


def test_what_the_tables_hold_is_known_from_the_start() -> None:
    news = News()
    news.know({"memory": 7, "vector": None})
    assert news.may_be_in("memory", 6)
    assert not news.may_be_in("memory", 7)
    assert not news.may_be_in("vector", 0)
    news.tell(["vector"], 7, 9)
    assert news.may_be_in("vector", 0)
    news.know({"memory": None, "vector": None})  # Other tables, which are empty.
    assert not news.may_be_in("memory", 0)
