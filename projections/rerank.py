"""Rerankers: what looks at a question and a text together, and says how well the one answers the other.

    [recall] reranker = "<plug-in>" or "<plug-in>:<…>"        an entry point of the group synbus.rerankers

Rules:
* A plug-in's entry point is called with what stands behind the colon and gives a Reranker.
* It is asked about the texts that recall found best, at most TOP. They are put in the order of its scores; what it was
  not asked about stays behind them, and scores that are equal change nothing.
* Scores have to be finite numbers, one for each text.
* What may only be processed on this device is not shown to a reranker elsewhere, and keeps its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from bus.errors import InvalidRequest
from projections.plugins import plugin

GROUP = "synbus.rerankers"
TOP = 50
TEXT = 4_000
"""Of a text, so many characters are shown."""


class Reranker(Protocol):
    """What a plug-in gives. `remote` (False if it is not there) says that texts leave this machine."""

    def score(self, question: str, texts: Sequence[str]) -> Any:
        """A number for each text; greater is better."""
        ...


class Loaded(NamedTuple):
    """A reranker, and whether texts leave this machine."""

    reranker: Reranker
    remote: bool

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """Raises InvalidRequest for what are no scores."""
        given = self.reranker.score(question, [text[:TEXT] for text in texts])
        try:
            scores = np.array(given, np.float64)
        except (TypeError, ValueError) as error:
            raise _garbage(len(texts), str(error)) from None
        if scores.shape != (len(texts),) or not np.isfinite(scores).all():
            raise _garbage(len(texts), f"an array of shape {scores.shape}, finite or not")
        return [float(score) for score in scores]


def load(setting: str) -> Loaded:
    """The reranker that a setting names. Raises InvalidRequest, or whatever it raises itself."""
    name, _, argument = setting.partition(":")
    reranker = plugin(GROUP, name)(argument)
    return Loaded(reranker, bool(getattr(reranker, "remote", False)))


def _garbage(texts: int, found: str) -> InvalidRequest:
    return InvalidRequest(
        "the reranker gave no scores that can be used",
        code="bad_scores",
        entity="recall.reranker",
        expected=f"{texts} finite numbers",
        found=found,
        hint="Look at the plug-in that recall.reranker names",
    )
