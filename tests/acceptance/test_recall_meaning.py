"""Recall with an embedder and a reranker that are plug-ins of a real daemon: what was killed, and what hangs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.domain.channel import Join, Post
from bus.domain.memory_requests import Write
from bus.domain.recall import ANSWERED, Recall
from tests.acceptance.commands import BUS
from tests.acceptance.support import Rig, running, until
from tests.unit.installed import install

STOP = "to be or not to be"
"""Only an embedder finds this: words that stand in almost every text are not looked for."""
CONFIG = '[recall]\nembedder = "hashed"\nreranker = "shortest"\ntimeout_s = 1.0\n'


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "site"), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("SYNBUS_TEST_FOLDER", str(tmp_path))
    with running(tmp_path, CONFIG) as rig:
        yield rig


def said(rig: Rig, name: str) -> Any:
    """What a command says with `--json`."""
    done = subprocess.run([BUS, name, "--json", "--home", str(rig.home.path)], capture_output=True, check=True)
    return json.loads(done.stdout)


async def test_an_embedder_and_a_reranker_help_and_nothing_depends_on_them(rig: Rig) -> None:
    async with rig.connect() as bus:
        await bus.call(Write(content=f"{STOP}, that is the question", subject="hamlet"))
        await bus.call(Join(channel="dev"))
        for number in range(5):
            await bus.call(Post(channel="dev", text=f"{STOP} {number}, or something else"))
        ask = Recall(query=f"{STOP} parser", explain=True)
        with anyio.fail_after(30):
            while (found := await bus.call(ask)).legs["dense"] != ANSWERED:  # It may still be loaded.
                await anyio.sleep(0.05)
        assert found.legs == {"words": ANSWERED, "dense": ANSWERED, "rerank": ANSWERED}
        assert len(found.hits) == 10, "what every tenant begins with is there, too"
        assert all(hit.why.cosine is not None and hit.why.own == 0 for hit in found.hits)
        lengths = [len(hit.text) for hit in found.hits]
        assert lengths == sorted(lengths), "the reranker likes short texts"

        rig.kill("daemon")
        again = await bus.call(Recall(query=f"{STOP} parser", explain=True, as_of=found.seq))
        with anyio.fail_after(30):
            while again.legs["dense"] != ANSWERED:
                await anyio.sleep(0.05)
                again = await bus.call(Recall(query=f"{STOP} parser", explain=True, as_of=found.seq))
        assert again == found

        # What the daemon says of itself it says every few seconds.
        await until(lambda: said(rig, "status")["helpers"])
        checks = {check["name"]: check for check in said(rig, "doctor")["checks"]}
        assert checks["embedder"]["verdict"] == checks["reranker"]["verdict"] == "ok"
        helpers = {helper["name"]: helper for helper in said(rig, "status")["helpers"]}
        assert helpers["embedder"]["setting"] == "hashed"

        await bus.call(Write(content="the parser is slow"))
        hung = await bus.call(Recall(query="slow parser embedder: hang"))
        assert hung.hits[0].text == "the parser is slow"
        assert hung.legs["dense"] == "the embedder did not answer in time"
        with anyio.fail_after(30):  # Sixty time-outs would take longer.
            for _ in range(60):
                assert (await bus.call(Recall(query="slow parser"))).hits[0].text == "the parser is slow"
