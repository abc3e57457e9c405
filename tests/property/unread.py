"""What an inbox digest has to say, counted from what the events say with loops."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from bus.domain import inbox
from tests.property.told import Told


def digest(told: Told, me: str, request: inbox.Digest, head: Any, now: datetime) -> inbox.Counts:
    after = max(told.acked.get(me, 0), request.since or 0)
    waiting = {seq: why["reasons"] for seq, why in sorted(told.addressed.get(me, {}).items()) if seq > after}
    places: dict[tuple[str, str | None, str | None], list[int]] = {}
    for seq in waiting:
        event = told.events[seq - 1]
        said = seq in told.messages
        room = event.entity if said and event.family == "channel" else None
        others = [name for name in event.entity.split("+") if name != me] or [me]
        places.setdefault((event.namespace, room, others[0] if said and room is None else None), []).append(seq)
    piles = []
    for (namespace, room, other), seqs in places.items():
        since = told.time(seqs[0])
        assert since is not None
        pile = inbox.Pile(
            namespace=namespace,
            channel=room,
            dm=other,
            unread=len(seqs),
            reasons=dict(Counter(reason for seq in seqs for reason in waiting[seq])),
            first=seqs[0],
            last=seqs[-1],
            since=since,
        )
        piles.append(pile)
    piles.sort(key=lambda pile: (-pile.unread, pile.first))
    reasons = Counter(reason for why in waiting.values() for reason in why)
    return inbox.Counts(unread=len(waiting), reasons=dict(reasons), piles=piles[: request.limit], **head)
