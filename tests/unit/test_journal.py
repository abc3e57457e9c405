"""Journals: an entry says something, and only its owner writes in one."""

from __future__ import annotations

from bus.domain.journal import Journal, JournalWritten, Write
from bus.errors import InvalidRequest
from tests.unit.stage import Stage


def test_an_entry_is_written_into_ones_own_journal(stage: Stage) -> None:
    request = Write(focus="the parser", done=("lexer",), decisions=("no regex",), next_steps=("test it", "ship it"))
    fact = JournalWritten(
        focus="the parser", done=("lexer",), decisions=("no regex",), next_steps=("test it", "ship it")
    )
    assert stage.facts("atlas", request) == [("atlas", fact)]
    reply = stage.do("atlas", request)
    assert reply.seq == stage.seq
    assert stage.state(Journal, "atlas") == Journal(last=stage.seq, focus="the parser")
    again = stage.do("atlas", request)
    assert again.seq > reply.seq, "the same words are another entry"
    assert stage.state(Journal, "atlas").last == again.seq


def test_one_thing_is_enough_and_nothing_is_not(stage: Stage) -> None:
    for request in (Write(focus="x"), Write(done=("x",)), Write(decisions=("x",)), Write(next_steps=("x",))):
        stage.do("atlas", request)
    for request in (Write(), Write(focus=" "), Write(done=("\n", " "))):
        stage.refused("atlas", request, "no_text", InvalidRequest)


def test_what_an_administrator_wrote_into_anothers_journal_does_not_count(stage: Stage) -> None:
    stage.given("nova", "atlas", JournalWritten(focus="not mine"))
    assert stage.state(Journal, "atlas") is None
