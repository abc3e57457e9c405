"""Figures: what was measured, the limit it stands beside, their ratio, and whether the target holds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table

Bound = Literal["<=", ">="]


class Target(msgspec.Struct, frozen=True):
    """What is to hold. `of` says whether `bound` is about the figure itself or about its ratio to the limit."""

    of: Literal["value", "ratio"]
    bound: Bound
    number: float

    def holds(self, value: float, ratio: float | None) -> bool | None:
        measured = value if self.of == "value" else ratio
        if measured is None:
            return None
        return measured <= self.number if self.bound == "<=" else measured >= self.number

    def text(self, unit: str) -> str:
        return f"{self.bound} {shown(self.number)}{f' {unit}' if self.of == 'value' else 'x'}"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the bench. `limit` was measured in the same run; without a target it only explains another line."""

    section: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    beside: str = ""
    ratio: float | None = None
    target: str = ""
    holds: bool | None = None
    note: str = ""


class Figures:
    """The lines of one run, in order."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.lines: list[Figure] = []

    def add(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        limit: float | None = None,
        beside: str = "",
        ratio: float | None = None,
        target: Target | None = None,
        note: str = "",
    ) -> None:
        """Add a line. The ratio is value / limit unless it is given (a median over rounds)."""
        if ratio is None and limit:
            ratio = value / limit
        self.lines.append(
            Figure(
                section=self.section,
                what=what,
                value=value,
                unit=unit,
                limit=limit,
                beside=beside,
                ratio=ratio,
                target=target.text(unit) if target is not None else "",
                holds=target.holds(value, ratio) if target is not None else None,
                note=note,
            )
        )


def at_most(number: float, of: Literal["value", "ratio"] = "ratio") -> Target:
    return Target(of, "<=", number)


def at_least(number: float, of: Literal["value", "ratio"] = "ratio") -> Target:
    return Target(of, ">=", number)


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def shown(number: float | None) -> str:
    """A number with three digits that count."""
    if number is None:
        return ""
    if number == 0 or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def print_table(lines: Sequence[Figure], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("", "left"),
        ("figure", "left"),
        ("measured", "right"),
        ("", "left"),
        ("beside", "right"),
        ("", "left"),
        ("ratio", "right"),
        ("target", "left"),
        ("holds", "left"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=name != "")  # type: ignore[arg-type]
    for line in lines:
        holds = "" if line.holds is None else "yes" if line.holds else "[red]NO[/]"
        table.add_row(
            line.section,
            line.what,
            shown(line.value),
            line.unit,
            shown(line.limit),
            line.beside,
            f"{shown(line.ratio)}x" if line.ratio is not None else "",
            line.target,
            holds,
            line.note,
        )
    console.print(table)


def as_json(lines: Sequence[Figure], about: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode({**about, "figures": lines}), indent=2)
