"""The bus: the log, its rules, and a thin client.

Every write is an immutable event in a NATS JetStream log; this package decides which events may be written and folds
them into state. It knows nothing of tables (`projections`) or doors (`cli`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bus.client import Bus as Bus

__all__ = ["Bus"]


def __getattr__(name: str) -> Any:
    # The client brings the network along; whoever only needs the version or the errors does not pay for it.
    if name == "Bus":
        from bus.client import Bus

        return Bus
    raise AttributeError(name)
