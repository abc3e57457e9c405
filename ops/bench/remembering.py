"""Section M: how soon memories and vectors are found among many, beside bare libraries, and the memory it takes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from bench import crew
from bench.crew import Result
from bench.figures import Figures, at_least, at_most, p50, percentile
from bench.ground import Ground
from bench.recalling import COLLECTION
from projections.indexes import GRAPHS
from projections.store import FILE
from projections.vectors import EXACT, file_of

MB = 1 << 20
ASKER = "asker"
GROWN_S = 900.0
"""A graph is waited for so long at most."""


class Sizes(msgspec.Struct, frozen=True):
    """How much is remembered, and how often each is asked. The limits are those of 10,000 and 100,000 memories, and of
    100,000 vectors of 384 numbers; so many of them are valid as of the moment that is asked about."""

    few: int = 10_000
    many: int = 100_000
    vectors: int = 100_000
    valid: int = 30_000
    dimension: int = 384
    times: int = 200


SMALL = Sizes(few=300, many=1_000, vectors=500, valid=150, dimension=16, times=5)


def remembered(ground: Ground, sizes: Sizes) -> Figures:
    """M. Recall, the nearest vectors, values, and resident memory."""
    figures = Figures("M")
    ground.up()
    ground.register([ASKER])
    _recall(figures, ground, sizes, sizes.few, 10, 0)
    filled = _recall(figures, ground, sizes, sizes.many, 30, sizes.vectors)
    _keep(figures, ground, sizes)
    _nearest(figures, ground, sizes, filled)
    rss = ground.usage("daemon").rss / MB
    what = f"daemon with {sizes.few + sizes.many:,} memories and {sizes.vectors:,} vectors, RSS"
    figures.add(what, rss, "MB", target=at_most(1536, "value"))
    ground.down()
    return figures


def _recall(figures: Figures, ground: Ground, sizes: Sizes, memories: int, limit_ms: float, vectors: int) -> Result:
    """Write so many memories into a namespace of their own, and ask for some. -> what was written"""
    place: dict[str, Any] = {"namespace": f"of-{memories}", "seed": memories, "count": sizes.times}
    ground.down()
    ground.up(idle=True)
    raw = {"url": ground.url, "creds": str(ground.raw_creds_file())}
    more = {"memories": memories, "vectors": vectors, "dimension": sizes.dimension}
    filled = crew.run_one("remember", **place, **more, **raw)
    first, last, end = filled.extra["seqs"]
    ground.down()
    ground.up()
    spec = {"home": str(ground.home.path), "agent": ASKER, "after": end, **place}
    crew.run_one("recall", **{**spec, "count": 1})
    if vectors:
        _grown(_graph_of(ground, place["namespace"]), vectors)
    ground.settle()
    asked: dict[str, tuple[Result, float]] = {}
    for when, moment in (("now", None), ("as of their middle", (first + last) // 2)):
        before = ground.usage("daemon").cpu_s
        found = crew.run_one("recall", **spec, as_of=moment)
        asked[when] = found, (ground.usage("daemon").cpu_s - before) / (sizes.times + 1)
    ground.down()
    direct = _bare(ground, place)
    for when, (found, cpu_s) in asked.items():
        figures.add(
            f"recall among {memories:,} memories, {when}, p50",
            p50(found.took_s) * 1e3,
            "ms",
            limit=p50(direct["library"]) * 1e3,
            beside="bm25s alone",
            target=at_most(limit_ms, "value"),
            note=f"p99 {percentile(found.took_s, 0.99) * 1e3:.1f} ms, best {min(found.took_s) * 1e3:.1f}; "
            f"CPU of the daemon {cpu_s * 1e3:.1f} ms; ranking alone {p50(direct['ranking']) * 1e3:.1f} ms",
        )
    if vectors:
        note = f"CPU {direct['index cpu']:.1f} s"
        figures.add(f"words of {memories:,} memories", direct["index"], "s", target=at_most(60, "value"), note=note)
    ground.up()
    ground.settle()
    return filled


def _bare(ground: Ground, place: dict[str, Any]) -> dict[str, Any]:
    """What the parts take by themselves, on a copy of the tables."""
    folder = ground.home.path.parent / "bare"
    folder.mkdir()
    shutil.copy(ground.home.projections / FILE, folder / FILE)
    extra = crew.run_one("bare_recall", path=str(folder / FILE), **place).extra
    shutil.rmtree(folder)
    return extra


def _keep(figures: Figures, ground: Ground, sizes: Sizes) -> None:
    namespace = f"of-{sizes.many}"
    spec = {"home": str(ground.home.path), "agent": ASKER, "namespace": namespace, "count": sizes.times}
    took: dict[str, list[float]] = crew.run_one("keep", **spec).extra
    figures.add(
        "memory written -> recalled, p50",
        p50(took["recallable"]) * 1e3,
        "ms",
        limit=p50(took["write"]) * 1e3,
        beside="the write",
        target=at_most(50, "value"),
        note=f"p99 {percentile(took['recallable'], 0.99) * 1e3:.0f} ms, best {min(took['recallable']) * 1e3:.1f}",
    )
    note = f"p99 {percentile(took['get'], 0.99) * 1e3:.1f} ms, best {min(took['get']) * 1e3:.2f}"
    note += f"; right after a memory was written and recalled {p50(took['get beside']) * 1e3:.1f} ms"
    figures.add("kv get, p50", p50(took["get"]) * 1e3, "ms", target=at_most(3, "value"), note=note)


def _nearest(figures: Figures, ground: Ground, sizes: Sizes, filled: Result) -> None:
    namespace = f"of-{sizes.many}"
    moment = filled.extra["seqs"][1] + 1 + sizes.valid
    graph = _grown(_graph_of(ground, namespace), sizes.vectors)
    shape = {"vectors": sizes.vectors, "valid": sizes.valid, "dimension": sizes.dimension, "seed": sizes.many}
    spec = {"home": str(ground.home.path), "agent": ASKER, "namespace": namespace, "count": sizes.times}
    found = crew.run_one("nearest", **spec, **shape, as_of=moment, graph=graph)
    extra = found.extra
    among = f"{sizes.vectors:,} x {sizes.dimension}, {sizes.valid / sizes.vectors:.0%} valid"
    bare = f", usearch alone {p50(extra['graph']) * 1e3:.2f} ms" if extra["graph"] else ""
    figures.add(
        f"nearest of {among}, p50",
        p50(found.took_s) * 1e3,
        "ms",
        limit=p50(extra["exact"]) * 1e3,
        beside="all compared by numpy",
        target=at_most(5, "value"),
        note=f"p99 {percentile(found.took_s, 0.99) * 1e3:.1f} ms, best {min(found.took_s) * 1e3:.1f}{bare}",
    )
    figures.add(f"of the nearest 10 of {among}, found", extra["found"], "", target=at_least(0.97, "value"))


def _graph_of(ground: Ground, namespace: str) -> Path:
    return file_of(ground.home.projections / GRAPHS, namespace, COLLECTION)


def _grown(path: Path, vectors: int) -> str | None:
    """The file of the graph, once nearly all vectors are in it; None when they are so few that there is none."""
    if vectors <= EXACT:
        return None
    sidecar, deadline = path.with_suffix(f"{path.suffix}.json"), time.monotonic() + GROWN_S
    while time.monotonic() < deadline:
        if sidecar.exists() and msgspec.json.decode(sidecar.read_bytes())["rows"] > vectors - EXACT:
            return str(path)
        time.sleep(0.5)
    raise RuntimeError(f"no graph of {vectors} vectors in {path}")
