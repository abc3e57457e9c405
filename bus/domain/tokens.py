"""Tokens: how much of a model's attention a text takes, estimated where nobody has counted.

Rule: a token is taken for four bytes of UTF-8, rounded up. Models differ; who needs it exactly counts with the model's
own tokeniser and says so.
"""

from __future__ import annotations

TOKEN_BYTES = 4


def tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode("utf-8", "replace")) // TOKEN_BYTES)
