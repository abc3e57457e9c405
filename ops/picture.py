"""docs/terminal.svg: the picture of the README, made from what `bus` really prints on a terminal.

Run it with the Python of `.venv`. It needs nothing and leaves nothing: the bus lives in a temporary directory.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

TARGET = Path(__file__).resolve().parent.parent / "docs" / "terminal.svg"
COLUMNS, ROWS = 96, 200
BEFORE = ("bus init", "bus join dev --as atlas", "bus join dev --as nova")
SHOWN = (
    'bus task open "fix auth" --priority 2 --as atlas',
    "bus claim {task} --lease 10m --as nova",
    "bus claim {task} --as atlas",
    'bus post dev "half way, @atlas please look at the tests" --as nova --fence {task}:{fence}',
    'bus done {task} --result "merged" --as nova',
    "bus inbox --as atlas",
    "bus replay --as-of {fence} --sql 'select task, state, owner from task'",
    "bus replay --sql 'select task, state, owner from task'",
)
FOREIGN = re.compile(r"@font-face \{.*?\}|<!--.*?-->", re.S)
"""rich's pictures fetch a font from the network; any monospaced one will do."""
ERASED = re.compile(r"[^\n]*━[^\n]*\n?|\x1b\[[0-9;?]*[A-HJ-Zhl]|\r")
"""Bars that show how far a command is, and what moves the cursor to take them away again."""


def run(command: str, cwd: str) -> str:
    """What `command` prints on a terminal of its own."""
    ours, theirs = pty.openpty()
    words = shlex.split(command)
    words[0] = str(Path(sys.executable).parent / words[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUS_")}
    environment |= {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color", "BUS_NAMESPACE": "shop"}
    process = subprocess.Popen(words, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 65536):
            printed += part
    except OSError:  # the other end was closed: the command has ended
        pass
    os.close(ours)
    process.wait()
    return ERASED.sub("", printed.decode())


def main() -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["git", "init", "--quiet", directory], check=True)
        names: dict[str, str] = {}
        try:
            for command in BEFORE:
                run(command, directory)
            for command in SHOWN:
                typed = command.format(**names)
                printed = run(typed, directory)
                if found := re.search(r"\bt-[a-z0-9]{10}\b", printed):
                    names.setdefault("task", found[0])
                if found := re.search(r"fence (\d+)", printed):
                    names.setdefault("fence", found[1])
                console.print(Text.assemble(("$ ", "bold cyan"), (typed, "bold")))
                console.print(Text.from_ansi(printed.rstrip("\n")))
        finally:
            run("bus down", directory)
    svg = console.export_svg(title="bus", theme=SVG_EXPORT_THEME, unique_id="bus")
    TARGET.write_text(FOREIGN.sub("", svg).replace("Fira Code, monospace", "monospace"))


if __name__ == "__main__":
    main()
