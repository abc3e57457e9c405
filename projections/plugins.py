"""What others add by installing it: objects that a package names in its entry points.

Rule: nothing is imported but what a setting names, and only when it is used.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from bus.errors import InvalidRequest


def plugin(group: str, name: str) -> Any:
    """What the entry point `name` of `group` is. Raises InvalidRequest when there is none."""
    known = entry_points(group=group)
    for point in known:
        if point.name == name:
            return point.load()
    raise InvalidRequest(
        "no plug-in of this name is installed",
        code="no_plugin",
        entity=f"{group} {name!r}",
        expected=", ".join(sorted({point.name for point in known})) or f"a package with an entry point in {group}",
        found="none",
        hint="Install it where the bus is installed, or correct the setting, then `bus down`",
    )
