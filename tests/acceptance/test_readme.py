"""The README and the how-to guides are true: their commands are run as they are typed, in order, in a fresh repository.

* In a ```console block, a line that begins with `$ ` is run; the lines below it are what it prints. `…` stands for
  anything, as a line of its own for any number of lines.
* Times, digests and counts of events differ from run to run. So do seqs: those of a page are learnt where they are
  printed, and from then on stand for the real ones, in commands too.
* A ```python block is run as a program.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/howto/agents.md",
    "docs/howto/audit.md",
    "docs/howto/any-client.md",
    "docs/howto/meaning.md",
    "docs/howto/remote.md",
    "docs/howto/sessions.md",
    "docs/howto/workers.md",
)
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.M | re.S)
VARYING = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)"
    r"|(?P<digest>\b[0-9a-f]{16}\b)"
    r"|(?P<count>\d+(?= events\b))"
    r'|(?P<seq>(?<=#)\d+|(?<=\bfence )\d+|(?<="seq":)\d+|(?<="fence":)\d+)'
    r"|(?P<any>…)"
)
PATTERNS = {"time": r"\S+", "digest": r"[0-9a-f]{16}", "count": r"\d+", "any": r".*"}
TIMEOUT_S = 60.0


class Reader:
    """Somebody who types what a page says, in a repository of their own, and compares."""

    def __init__(self, folder: Path) -> None:
        self._shop = folder / "shop"
        self._exported = folder / "exported"
        self._seqs: dict[str, str] = {}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BUS_")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        self._environment = environment
        self._shop.mkdir()
        self._exported.touch()
        subprocess.run(["git", "init", "--quiet", str(self._shop)], check=True)

    def follow(self, text: str) -> None:
        """Do everything that the page `text` says."""
        for kind, body in BLOCK.findall(text):
            if kind == "python":
                self._run([sys.executable, "-c", body], body)
            else:
                for step in re.split(r"^\$ ", body, flags=re.M)[1:]:
                    command, *expected = step.rstrip("\n").split("\n")
                    self._type(command, expected)

    def close(self) -> None:
        subprocess.run(["bus", "down"], cwd=self._shop, env=self._environment, capture_output=True, check=False)

    def _type(self, command: str, expected: list[str]) -> None:
        real = re.sub(r"\b\d+\b", lambda found: self._seqs.get(found[0], found[0]), command)
        # What is exported by one command holds for the next.
        script = f'source "{self._exported}"\n{real}\ncode=$?\nexport -p >"{self._exported}"\nexit $code'
        printed = self._run(["bash", "-c", script], command)
        if expected:
            self._compare(command, expected, printed.split("\n"))

    def _run(self, words: list[str], what: str) -> str:
        done = subprocess.run(
            words,
            cwd=self._shop,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{what}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout.rstrip("\n")

    def _compare(self, command: str, expected: list[str], printed: list[str]) -> None:
        said = f"$ {command}\nexpected:\n{chr(10).join(expected)}\nprinted:\n{chr(10).join(printed)}"
        place, skipping = 0, False
        for line in expected:
            if line.strip() == "…":
                skipping = True
                continue
            while skipping and place < len(printed) and not self._matches(line, printed[place]):
                place += 1
            assert place < len(printed), said
            assert self._matches(line, printed[place]), said
            place, skipping = place + 1, False
        assert skipping or place == len(printed), said

    def _matches(self, expected: str, printed: str) -> bool:
        pattern, seqs, end = "", [], 0
        for found in VARYING.finditer(expected):
            pattern += re.escape(expected[end : found.start()])
            end = found.end()
            if found["seq"]:
                seqs.append(found["seq"])
                pattern += self._seqs.get(found["seq"], r"(\d+)")
            else:
                pattern += PATTERNS[str(found.lastgroup)]
        matched = re.fullmatch(pattern + re.escape(expected[end:]), printed)
        if matched is None:
            return False
        unknown = [seq for seq in seqs if seq not in self._seqs]
        self._seqs |= dict(zip(unknown, matched.groups(), strict=True))
        return True


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_shows_is_what_happens(page: str, reader: Reader) -> None:
    if (ROOT / "docs").exists():
        text = (ROOT / page).read_text()
    elif page == "README.md":  # away from the checkout: the one that the installed package carries
        text = str(importlib.metadata.metadata("synbus").get_payload())
    else:
        pytest.skip("the guides are in the checkout only")
    assert BLOCK.search(text)
    reader.follow(text)
