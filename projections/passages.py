"""Passages: the parts of a file by which it is found, each so long that it can be read at a glance.

Rules:
* A passage is made of blocks: lines without a blank one between them. Blocks that follow one another are one passage as
  long as that stays short; a block that is too long is cut between lines, a line that is too long is cut where it is.
* In Markdown a heading begins a passage, unless what stands before it is hardly anything, and is never its end.
* A passage is also found by the heading that it stands under.
* Everything here is pure: the same text has the same passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

SHORT, LONG = 500, 1_500
"""Blocks are gathered into passages of so many characters; a block may have so many."""
LEAST = 40
"""A heading begins a passage when the one before has so many."""
_MARKDOWN = (".md", ".markdown", ".mdx")
_HEADING = re.compile(r"#{1,6} +(.*?)[ #]*")


class Passage(NamedTuple):
    """A part of a file. `line` is its first line, counted from 1; `under` the heading that it stands under."""

    line: int
    text: str
    under: str


def passages(path: str, content: str) -> list[Passage]:
    """The parts of a file, in their order."""
    has_headings = path.casefold().endswith(_MARKDOWN)
    found: list[Passage] = []
    first, parts, size, under, heading, is_bare = 0, list[str](), 0, "", "", False
    for line, block, begun in _blocks(content, has_headings):
        is_section = begun is not None and size >= LEAST
        if parts and (is_section or (size + len(block) > SHORT and not is_bare)):
            found.append(Passage(first, "\n\n".join(parts), under))
            parts, size = [], 0
        if not parts:
            first, under = line, heading
        heading, is_bare = (heading, False) if begun is None else (begun, "\n" not in block)
        parts.append(block)
        size += len(block)
    if parts:
        found.append(Passage(first, "\n\n".join(parts), under))
    return found


def _blocks(content: str, has_headings: bool) -> Iterator[tuple[int, str, str | None]]:
    """(first line, text, the heading that it begins with) of every block."""
    first, lines, size, heading = 0, list[str](), 0, None
    for number, whole in enumerate(content.split("\n"), 1):
        for line in (whole[at : at + LONG] for at in range(0, len(whole) or 1, LONG)):
            begun = _HEADING.fullmatch(line) if has_headings else None
            is_blank = not line.strip()
            if lines and (is_blank or begun or size + len(line) > LONG):
                yield first, "\n".join(lines), heading
                lines, size, heading = [], 0, None
            if is_blank:
                continue
            if not lines:
                first, heading = number, begun[1] if begun else None
            lines.append(line)
            size += len(line) + 1
    if lines:
        yield first, "\n".join(lines), heading
