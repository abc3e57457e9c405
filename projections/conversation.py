"""Which turns of a conversation are kept as they were said, and which are summarised or left out.

Rules:
* What is kept is always the newest, without a gap, and at least the last turn, however long it is.
* It does not begin with the answer of a tool: a model that is shown one without the turn that called the tool takes it
  for an error. Such turns go with those before them.
* System turns are no part of this: they are neither summarised nor left out for being old.
* Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bus.domain.session import SUMMARISING, Session

SHARE = 2
"""A compaction keeps at most this part of what a session may have before it is compacted: otherwise the next turn would
need another one."""


class Turn(NamedTuple):
    """What has to be known of a turn to choose it."""

    seq: int
    role: str
    tokens: int


def newest(turns: Sequence[Turn], most: int | None = None, within: int | None = None, *, least: int = 1) -> list[Turn]:
    """The newest of `turns` (which are in their order), at most so many, of at most so many tokens in all; but at least
    `least` of them."""
    kept: list[Turn] = []
    total = 0
    for turn in reversed(turns):
        total += turn.tokens
        if len(kept) == most or (within is not None and total > within and len(kept) >= least):
            break
        kept.append(turn)
    while len(kept) > least and kept[-1].role == "tool":
        kept.pop()
    return kept[::-1]


def threshold_of(session: Session, usual: int) -> int:
    """How many tokens a session may have before it is compacted by itself; 0: as many as there are."""
    if session.strategy not in SUMMARISING:
        return 0
    return usual if session.compact_at_tokens is None else session.compact_at_tokens


def to_compact(session: Session, turns: Sequence[Turn], usual: int) -> list[Turn]:
    """Of the turns that no summary stands for yet, those that are to be summarised now: none, or the oldest ones."""
    if session.asked is not None:
        before = [turn for turn in turns if turn.seq < session.asked]
        chosen = _before(before, newest(before, most=session.keep))
        if chosen:
            return chosen
    threshold = threshold_of(session, usual)
    if not threshold or sum(turn.tokens for turn in turns) <= threshold:
        return []
    most = 1 if session.strategy == "summary" else None
    return _before(turns, newest(turns, most, min(session.recent_tokens, threshold // SHARE)))


def _before(turns: Sequence[Turn], kept: Sequence[Turn]) -> list[Turn]:
    return list(turns[: len(turns) - len(kept)])


def parts(turns: Sequence[Turn], within: int) -> Iterator[list[Turn]]:
    """`turns` in pieces of at most so many tokens, or of one turn that has more."""
    part, total = list[Turn](), 0
    for turn in turns:
        if part and total + turn.tokens > within:
            yield part
            part, total = [], 0
        part.append(turn)
        total += turn.tokens
    if part:
        yield part
