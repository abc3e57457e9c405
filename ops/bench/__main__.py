"""The bench: `ops/bench/run [--small | --full] [--only A,B…] [--json FILE]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console

from bench import commands, coordination, machine, past, remembering, soak, takeover, writing
from bench.figures import Figure, Figures, as_json, print_table
from bench.ground import ground

SECTIONS = "ABCDEFGHIMST"


def measured(wanted: str, small: bool, directory: Path | None, repeat: int) -> Iterator[Figures]:
    """The figures of the sections, as soon as there are any."""
    for _ in range(repeat):
        if set(wanted) & set("ABC"):
            with ground(directory) as place:
                bus = writing.Writing(place, writing.SMALL if small else writing.Sizes())
                parts: dict[str, Callable[[], Figures]] = {"A": bus.posting, "B": bus.floods, "C": bus.races}
                yield from (part() for section, part in parts.items() if section in wanted)
        sizes = past.SMALL if small else past.Sizes()
        if "E" in wanted:
            with ground(directory) as place:
                yield past.news(place, sizes)
        if "H" in wanted:
            with ground(directory) as place:
                yield commands.starting(place, 3 if small else 15)
        if "I" in wanted:
            with ground(directory) as place:
                yield coordination.coordination(place, coordination.SMALL if small else coordination.Sizes())
        if "M" in wanted:
            with ground(directory) as place:
                yield remembering.remembered(place, remembering.SMALL if small else remembering.Sizes())
        if "S" in wanted:
            with ground(directory) as place:
                yield soak.soaked(place, soak.SMALL if small else soak.Sizes())
        if "T" in wanted:
            with ground(directory) as place:
                yield takeover.silences(place, 1 if small else 5)
        if set(wanted) & set("DFG"):
            if not set(wanted) & set("FG"):
                sizes = msgspec.structs.replace(sizes, events=sizes.fold)
            with ground(directory) as place:
                long = past.Past(place, sizes)
                if "D" in wanted:
                    yield long.fold()
                if set(wanted) & set("FG"):
                    yield from (found for found in long.read_and_weigh() if found.section in wanted)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ops/bench/run", description="Measure the bus beside the limits of its parts."
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="seconds, only to see that everything works")
    size.add_argument("--full", action="store_true", help="minutes and a few GB in the temporary directory (default)")
    parser.add_argument("--only", default=SECTIONS, help=f"sections to measure, of {SECTIONS} (default: all)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--directory", type=Path, help="where to put the buses (default: the temporary directory)")
    parser.add_argument("--repeat", type=int, default=1, help="measure so many times, one after another")
    arguments = parser.parse_args()
    wanted = arguments.only.upper().replace(",", "")
    if not wanted or set(wanted) - set(SECTIONS):
        parser.error(f"--only takes sections of {SECTIONS}")
    console = Console(width=None if sys.stdout.isatty() else 220, highlight=False, soft_wrap=True)
    about = machine.about_machine()
    console.print(" ".join(f"{name}={value}" for name, value in about.items()))
    lines: list[Figure] = []
    for figures in measured(wanted, arguments.small, arguments.directory, arguments.repeat):
        print_table(figures.lines, console)
        lines += figures.lines
        if arguments.json is not None:
            arguments.json.write_bytes(as_json(lines, about))
    missed = [line.what for line in lines if line.holds is False]
    console.print(f"\n{sum(line.holds is True for line in lines)} targets hold, {len(missed)} do not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
