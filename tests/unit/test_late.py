"""What clients note for themselves: where it goes, and how much of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from bus import late
{before}
logger = late.Logger("test")
logger.warning("a warning")
{between}
logger.debug("a detail", number=7)
"""


@pytest.mark.parametrize(
    ("before", "between", "said"),
    [
        ("", "", ["a warning"]),
        ("late.say('critical')", "", []),
        ("late.say('debug')", "", ["a warning", "a detail"]),
        ("", "late.say('debug')", ["a warning", "a detail"]),
    ],
)
def test_what_is_said_goes_to_standard_error(before: str, between: str, said: list[str]) -> None:
    script = SCRIPT.format(before=before, between=between)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert [text for text in ("a warning", "a detail") if text in done.stderr] == said
