"""How a page looks: paragraphs, tables of fields, and what the docstring of a family's module says."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence

from bus.model import Family
from ops.reference.structs import Field

NOTE = "<!-- Made by ops/docs from the code. Change the code, then run it again. -->"
WIDTH = 120
BLOCKS = ("|", "```", "* ", "#")
"""How parts of a page begin that are laid out already."""


def page(title: str, *parts: str) -> str:
    """A whole page; everything that is no block is a paragraph and gets folded."""
    texts = [part if part.startswith(BLOCKS) else textwrap.fill(one_line(part), WIDTH) for part in parts if part]
    return "\n\n".join((title, NOTE, *texts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def fields_table(found: Sequence[Field]) -> str:
    """The fields of a request."""
    rows = [
        (f"`{field.name}`", field.type, "**required**" if field.required else field.default or "none", field.meaning)
        for field in found
    ]
    return table(("field", "type", "default", "meaning"), rows)


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def subject_of(family: Family) -> str:
    """The first sentence of the family's module."""
    return one_line(_docstring(family).partition("\n\n")[0])


def rules_of(family: Family) -> str:
    """The rules in the family's module, without what they say about other modules."""
    _, _, rules = _docstring(family).partition("\n* ")
    found = []
    for rule in rules.split("\n* "):
        text = re.sub(r" \(`bus\.[^)]*\)", "", one_line(rule))
        if text and "`bus." not in text:
            found.append(textwrap.fill(text, WIDTH, initial_indent="* ", subsequent_indent="  "))
    return "\n".join(found)


def _docstring(family: Family) -> str:
    return textwrap.dedent(sys.modules[family.state.__module__].__doc__ or "")
