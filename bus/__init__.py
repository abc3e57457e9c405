"""The bus: the log, its rules, and a thin client.

Every write is an immutable event in a NATS JetStream log; this package decides which events may be written and folds
them into state. It knows nothing of tables (`projections`) or doors (`cli`).
"""

from __future__ import annotations

TYPE_CHECKING = False
"""That of `typing`, which takes its time to import: `bus --version` needs this file and nothing else."""
if TYPE_CHECKING:
    from typing import Any

    from bus.client import Bus as Bus

__all__ = ["Bus", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The client brings the network along; whoever only needs the version or the errors does not pay for it.
    if name == "Bus":
        from bus.client import Bus

        return Bus
    raise AttributeError(name)
