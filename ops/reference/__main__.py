"""Write the pages, or with `--check` say which are stale."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ops.reference.events import events_page
from ops.reference.operations import operations_page
from ops.reference.settings import settings_page

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"events.md": events_page, "operations.md": operations_page, "settings.md": settings_page}


def stale() -> dict[str, str]:
    """The pages that are not as they should be: what they should be, by name."""
    made = {name: make() for name, make in PAGES.items()}
    return {name: text for name, text in made.items() if _read(DOCS / name) != text}


def main(arguments: Sequence[str]) -> int:
    pages = stale()
    for name, text in pages.items():
        if "--check" in arguments:
            print(f"docs/{name} is stale: run ops/docs", file=sys.stderr)
        else:
            (DOCS / name).write_text(text)
            print(f"docs/{name} written")
    return 1 if pages and "--check" in arguments else 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
