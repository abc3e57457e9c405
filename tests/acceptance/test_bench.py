"""The bench works: every section runs, very small, and prints all of its lines. What it measures is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {
    "A": ("post, one writer", "writers", "in flight, 1 channel", "CPU per post", "raw atomic batches"),
    "B": ("two busy loops", "two floods"),
    "C": ("claim race", "task.next"),
    "D": ("read alone", "decode alone", "fold alone", "rows alone", "store alone", "replay of", "nothing folded"),
    "E": ("another's follow", "queryable"),
    "F": ("one task", "channel tail", "board", "page of 50", "inbox"),
    "G": ("daemon after folding", "nats-server after folding", "daemon after a restart"),
    "H": ("bus",),
    "I": ("reserve,", "reserve refused", "declare,", "declare refused", "inbox peek", "wake card", "its size"),
    "M": ("recall among", "as of their middle", "words of", "recalled", "kv get", "nearest", "found", "RSS"),
    "S": ("agents for", "killed meanwhile", "channel.post", "inbox.peek", "task.next", "backlog", "contradictions"),
    "T": ("leader killed", "leader frozen", "leader cut off"),
}


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "ops" / "bench").is_dir(), reason="the bench is not part of the package")
@pytest.mark.parametrize("sections", ["ABC", "DFG", "EH", "I", "M", "S", "T"])
def test_prints_every_line(tmp_path: Path, sections: str) -> None:
    found = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--small", "--only", sections, "--json", str(found)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "ops")])}
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads(found.read_bytes())["figures"]
    for section in sections:
        names = [line["what"] for line in lines if line["section"] == section]
        for expected in EXPECTED[section]:
            assert any(expected in name for name in names), f"{expected!r} is not among {names}"
    assert all(line["value"] > 0 for line in lines if line["section"] not in "HS")
    assert [line for line in lines if "contradictions" in line["what"] and line["value"]] == []
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
