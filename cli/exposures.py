"""What was put in front of an agent: which answers are recorded, and as what.

Rule: what is asked as of an earlier moment is shown too, and recorded; only what an inbox shows so is not, because what
it has shown may be acknowledged.
"""

from __future__ import annotations

from typing import Any

from bus.domain import inbox, recall, session_requests
from bus.model import Command, Query


def exposure(request: Query, answer: Any) -> Command | None:
    """What is recorded of an answer: what was put in front of the agent that asked."""
    if isinstance(request, inbox.Peek) and answer.items and request.as_of is None:
        seqs = tuple(item.seq for item in answer.items)
        return inbox.Show(upto=answer.upto, seqs=seqs, start=request.since or 0)
    if isinstance(request, recall.Recall) and answer.hits:
        return recall.Note(question=recall.digest(request.query), seqs=tuple(hit.seq for hit in answer.hits))
    if isinstance(request, session_requests.BuildContext) and answer.blocks:
        seqs = tuple(dict.fromkeys(seq for block in answer.blocks for seq in block.seqs))
        return recall.Note(question=recall.digest(request.query or ""), seqs=seqs)
    return None
