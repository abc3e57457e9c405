"""What people and programs see: one screen for terminals and pipes, JSON for programs.

Rules:
* With `--json` there is exactly one JSON document on standard output (a stream: one per line), and nothing else.
* Without it, a terminal gets colour, folded lines and relative times; a pipe gets plain, stable text.
* No text of a message, name or error reaches the terminal raw: control characters, and others that hide or reorder
  text, are shown escaped. `Screen` does that for everything it prints, so no caller can forget it.
* rich is imported for terminals only; `NO_COLOR` and `TERM=dumb` are its business.
"""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from bus.clock import Clock, SystemClock, from_ns
from bus.durations import span
from bus.protocol import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

JOINERS = "\u200c\u200d"
"""They are part of written languages and of emoji; everything else that has no width of its own is shown."""
GAP = "  "
MIN_WIDTH = 20
BAR_AFTER_NS = 500_000_000

Part = str | tuple[str, str]
"""A piece of a line: text, or text and its style."""
Cell = Part | list[Part]


# --- text -----------------------------------------------------------------------------------------------------------


def clean(text: str, newline: str = "⏎") -> str:
    r"""`text` with everything escaped that could act on a terminal or hide: `\x1b`, `\u202e`. A newline becomes
    `newline`, a tab four spaces."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _shown(char, newline) for char in text)


def _shown(char: str, newline: str) -> str:
    if char == "\n":
        return newline
    if char == "\t":
        return "    "
    if char in JOINERS or unicodedata.category(char) in ("Zs", "Co"):
        return char
    return char.encode("unicode_escape").decode()


def width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def ago(seconds: float) -> str:
    """A distance in time, short: `3m ago`, `in 2h`, `now`."""
    size = abs(seconds)
    if size < 1:
        return "now"
    text = span(size)
    return f"{text} ago" if seconds > 0 else f"in {text}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def utc_text(moment: datetime) -> str:
    """`2030-01-31T12:00:05Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the screen -----------------------------------------------------------------------------------------------------


class Screen:
    """Standard output (or error) for people. `terminal` decides how it looks."""

    def __init__(self, out: TextIO, *, terminal: bool | None = None, now: datetime | None = None) -> None:
        self.terminal = out.isatty() if terminal is None else terminal
        self.now = now or from_ns(SystemClock().server_ns())
        self._out = out
        self._rich: Console | None = None

    def line(self, *parts: Part, indent: int = 0) -> None:
        """One logical line; on a terminal it is folded under its indent."""
        if not self.terminal:
            self._out.write(" " * indent + "".join(clean(_text(part)) for part in parts).rstrip() + "\n")
            return
        from rich.text import Text

        console = self._console()
        for line in self._styled(parts).wrap(console, max(MIN_WIDTH, console.width - indent), overflow="fold"):
            line.rstrip()
            console.print(Text(" " * indent).append_text(line), soft_wrap=True)

    def block(self, text: str, indent: int = 0, style: str = "") -> None:
        """A text of several lines, every one indented: what somebody wrote cannot look like a line of ours."""
        for line in clean(text, "\n").split("\n"):
            self.line((line, style), indent=indent)

    def message(self, head: Sequence[Part], text: str) -> None:
        """A head and what was said: behind it when it is one line, else below it."""
        if "\n" in text:
            self.line(*head)
            self.block(text, indent=4)
        else:
            self.line(*head, GAP, text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Rows under headings; cells wrap on a terminal, and are never cut off in a pipe."""
        if not rows:
            return
        headings = [clean(column.upper()) for column in columns]
        if self.terminal:
            from rich.table import Table

            table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
            for heading in headings:
                table.add_column(heading, overflow="fold")
            for row in rows:
                table.add_row(*(self._styled(_parts(cell)) for cell in row))
            self._console().print(table)
            return
        lines = [headings]
        lines += [["".join(clean(_text(part)) for part in _parts(cell)) for cell in row] for row in rows]
        widths = [max(width(line[n]) for line in lines) for n in range(len(columns))]
        for line in lines:
            cells = (cell + " " * (size - width(cell)) for cell, size in zip(line, widths, strict=True))
            self._out.write(GAP.join(cells).rstrip() + "\n")

    def note(self, text: str) -> None:
        """Something only a person needs: `nothing unread`. A pipe does not get it."""
        if self.terminal:
            self.line((text, "dim"))

    def time(self, moment: datetime | None) -> str:
        """Absolute and relative on a terminal; in a pipe UTC, which does not change with the hour of reading."""
        if moment is None:
            return "-"
        if not self.terminal:
            return utc_text(moment)
        here, today = moment.astimezone(), self.now.astimezone().date()
        clock = f"{here:%H:%M:%S}" if here.date() == today else f"{here:%Y-%m-%d %H:%M}"
        return f"{clock} ({ago((self.now - moment).total_seconds())})"

    def flush(self) -> None:
        self._out.flush()

    def _console(self) -> Console:
        if self._rich is None:
            from rich.console import Console

            self._rich = Console(file=self._out, highlight=False, markup=False, emoji=False)
        return self._rich

    def _styled(self, parts: Sequence[Part]) -> Text:
        from rich.text import Text

        styled = Text(overflow="fold")
        for part in parts:
            styled.append(clean(_text(part)), style=part[1] if isinstance(part, tuple) else None)
        return styled


def _text(part: Part) -> str:
    return part[0] if isinstance(part, tuple) else part


def _parts(cell: Cell) -> Sequence[Part]:
    return cell if isinstance(cell, list) else [cell]


# --- programs -------------------------------------------------------------------------------------------------------


class ReaderGone(Exception):
    """Whoever read the output has gone away, as `head` does when it has enough."""


def write_json(value: Any) -> None:
    """One JSON document on one line of standard output, at once."""
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def give_up_output() -> None:
    """Whoever read our output has gone: what is left of it, and the flush at exit, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- long work ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None] | None]:
    """What to call with progress, or None when standard error is no terminal and nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    with contextlib.ExitStack() as stack:
        yield _Bar(stack, SystemClock()).report


class _Bar:
    """A bar that appears when the work turns out to be long, and is gone when it is done."""

    def __init__(self, stack: contextlib.ExitStack, clock: Clock) -> None:
        self._stack = stack
        self._clock = clock
        self._due_ns = clock.monotonic_ns() + BAR_AFTER_NS
        self._update: Callable[..., None] | None = None

    def report(self, progress: Progress) -> None:
        if self._update is None:
            if self._clock.monotonic_ns() < self._due_ns:
                return
            self._update = self._shown()
        self._update(description=clean(progress.what), completed=progress.done, total=progress.total or None)

    def _shown(self) -> Callable[..., None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        # The default columns would read what the daemon says as markup.
        what = TextColumn("{task.description}", markup=False)
        columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = self._stack.enter_context(Bar(*columns, console=Console(stderr=True), transient=True))
        return partial(bar.update, bar.add_task("", total=None))
