"""Sessions as people see them."""

from __future__ import annotations

from bus.domain import session_requests as session
from bus.domain.task_requests import Happening
from tests.unit.test_render import HOSTILE, NOW, Terminal, shown

ROW = session.SessionRow(
    session="s-1",
    seq=7,
    opened=7,
    owner="nova",
    scope="private",
    strategy="window",
    messages=2,
    message_tokens=30,
    last=9,
    summary_tokens=4,
)


def test_sessions_are_a_table() -> None:
    lines = shown(session.Sessions(seq=9, time=NOW, sessions=[ROW])).splitlines()
    assert lines[0].split() == ["SESSION", "OWNER", "SCOPE", "STRATEGY", "TURNS", "TOKENS", "SUMMARY"]
    assert lines[1].split() == ["s-1", "nova", "private", "window", "2", "30", "4"]


def test_a_session_is_its_summary_and_how_it_is_kept() -> None:
    answer = session.SessionDetail(
        seq=9,
        time=NOW,
        session=ROW,
        recent_turns=5,
        recent_tokens=50,
        nearest=3,
        compact_at_tokens=None,
        summary=f"they fixed it\n{HOSTILE}",
        summarised=8,
        summariser="extractive",
        compacted=6,
        cleared=0,
        waiting=True,
    )
    text = shown(answer)
    assert "they fixed it" in text
    assert "\x1b" not in text
    for line in ("strategy  window", "recent_turns  5", "summariser  extractive", "waiting  yes"):
        assert line in text


def test_turns_say_who_spoke_and_which_a_summary_stands_for() -> None:
    turns = [
        session.Turn(seq=7, time=NOW, role="user", agent="nova", content="where?", tokens=2, replaced=True),
        session.Turn(seq=8, time=NOW, role="assistant", agent="nova", content=HOSTILE, tokens=3),
    ]
    lines = shown(session.TurnPage(seq=9, time=NOW, messages=turns)).splitlines()
    assert lines[0] == "#7  2030-01-31T12:00:00Z  user  2 tokens (summarised)  where?"
    assert lines[1].startswith("#8  2030-01-31T12:00:00Z  assistant nova  3 tokens")
    assert "\x1b" not in "".join(lines)
    assert shown(session.SessionText(seq=9, time=NOW, text="user: where?")) == "user: where?\n"


def test_a_context_is_its_blocks_and_what_is_left_out() -> None:
    cached = {"type": "ephemeral"}
    blocks = [
        session.Block(tier="system", role="system", content="be brief", tokens=2, seqs=[7], cache_control=cached),
        session.Block(tier="recent", role="user", content="where?", tokens=2, seqs=[8]),
    ]
    left_out = [
        session.LeftOut(tier="recent", items=3, tokens=90, why="more than 2 tokens"),
        session.LeftOut(tier="search", items=0, tokens=0, why="there is no question to look for"),
    ]
    answer = session.ModelContext(
        seq=9,
        time=NOW,
        session="s-1",
        strategy="window",
        tokens=4,
        budget_tokens=10,
        blocks=blocks,
        left_out=left_out,
    )
    assert shown(answer).splitlines() == [
        "system  system  #7  2 tokens  cached  be brief",
        "recent  user  #8  2 tokens  where?",
        "left out of recent: 3, 90 tokens: more than 2 tokens",
        "left out of search: there is no question to look for",
    ]
    assert "window: 4 of 10 tokens" in shown(answer, None, Terminal())


def test_a_history_is_lines() -> None:
    event = Happening(seq=7, time=NOW, type="session.added", agent="nova", data={"content": "x" * 300})
    (line,) = shown(session.Happenings(seq=9, time=NOW, history=[event])).splitlines()
    assert line.startswith("#7  2030-01-31T12:00:00Z  nova  session.added  {")
    assert len(line) < 220
    added = session.AddReply(seq=7, session="s-1", tokens=3, opened=True)
    assert shown(added) == "#7  session s-1  3 tokens (it begins)\n"
    assert shown(session.SessionReply(seq=7, session="s-1", existing=True)).endswith("(it was there already)\n")
