"""What clients note for themselves, packages they import without a part of them, and how they end undisturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from bus.late import shielded

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


PACKAGE = {
    "pack/__init__.py": "from pack.core import use\n",
    "pack/core.py": "import pack.part\n\ndef use():\n    return pack.part.VALUE\n",
    "pack/part/__init__.py": "from pack.part.inner import VALUE\n",
    "pack/part/inner.py": "VALUE = 7\n",
}
WITHOUT = """
import sys
from bus.late import import_without
import_without("pack.core", "pack.part", "wave")
"""


@pytest.mark.parametrize(
    ("core", "script"),
    [
        ("", "import pack; assert 'pack.part' not in sys.modules; assert pack.use() == 7 == pack.part.VALUE"),
        ("", "from pack.part.inner import VALUE; import pack; assert vars(pack)['part'].VALUE is VALUE; pack.use()"),
        ("", "import pack.part; assert pack.part is sys.modules['pack.part']; assert pack.part.inner.VALUE == 7"),
        ("", "import pack; assert not hasattr(pack, 'other')"),
        (
            "try:\n    from wave import open as found\nexcept ImportError:\n    found = None\n",
            "import pack, wave; assert pack.core.found is None; assert wave.open",
        ),
        ("", "import_without('pack.core', 'pack.part'); import pack; assert pack.use() == 7"),
        # A version that needs the part at once.
        ("from pack.part import VALUE\n", "import pack.core; assert 'pack.part.inner' in sys.modules; pack.core.use()"),
        ("VALUE = pack.part.VALUE\n", "import pack.core; assert pack.core.VALUE == 7"),
    ],
)
def test_a_part_that_is_left_out_is_there_when_it_is_used(tmp_path: Path, core: str, script: str) -> None:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + (core if name == "pack/core.py" else ""))
    program = f"import sys; sys.path.append({str(tmp_path)!r}){WITHOUT}{script}"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_somebody_has_imported_is_left_as_it_is() -> None:
    script = "import nats.js, sys; known = sys.modules['nats.js']; import bus.transport; assert nats.js is known"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_where_another_thread_may_import_it_too_a_package_is_imported_whole() -> None:
    script = "import sys, threading; end = threading.Event(); threading.Thread(target=end.wait).start(); "
    script += "import bus.transport; end.set(); assert 'nats.js.api' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_metadata_of_packages_are_there_for_who_uses_them() -> None:
    script = "import sys, bus.transport; assert 'importlib.metadata' not in sys.modules; "
    script += "from importlib.metadata import version; assert version('nats-py')"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_jetstream_of_the_nats_package_is_there_for_who_uses_it() -> None:
    script = "import bus.transport; import nats; nats.js.api.Header; from nats.js.api import Header; Header.STATUS"
    subprocess.run([sys.executable, "-c", script], check=True)


SHIELDED = """
import asyncio, sys
from bus.late import shielded

async def main():
    done = []
    async with shielded({limit_s}):
        await asyncio.sleep({body_s})
        done.append("whole")
    print(done, "anyio" in sys.modules)

asyncio.run(main())
"""


@pytest.mark.parametrize(("limit_s", "body_s", "said"), [(60, 0, "['whole'] False"), (0.01, 60, "[] False")])
def test_a_client_that_is_alone_needs_no_anyio_to_end(limit_s: float, body_s: float, said: str) -> None:
    script = SHIELDED.format(limit_s=limit_s, body_s=body_s)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said


@pytest.mark.parametrize(("limit_s", "body_s", "whole"), [(60, 0.01, True), (0.01, 60, False)])
async def test_what_is_shielded_is_not_cancelled_again(limit_s: float, body_s: float, whole: bool) -> None:
    ended: list[bool] = []
    with anyio.CancelScope() as scope:
        try:
            scope.cancel()
            await anyio.sleep(0)
        finally:
            async with shielded(limit_s):
                await anyio.sleep(body_s)
                ended.append(True)
            ended.append(False)
    assert ended == ([True, False] if whole else [False])
    assert scope.cancelled_caught
