"""Sections D to G: folding a long log, how fast news arrives, reading the past, and what that takes of memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from bench import crew
from bench.figures import Figures, at_least, at_most, p50, percentile
from bench.ground import Ground
from bench.history import agent_of
from bench.reading import KINDS
from bus.provision import DUPLICATE_WINDOW_NS
from projections.store import FILE

MB = 1 << 20


class Sizes(msgspec.Struct, frozen=True):
    """How much each measurement does. The limits of memory are those of `events` = 1,000,000."""

    events: int = 1_000_000
    fold: int = 200_000
    queries: int = 300
    news: int = 200
    forget_s: float = DUPLICATE_WINDOW_NS / 1e9
    """So long the server keeps the ids of messages. A million that were written in a minute are 200 MB of its memory,
    and no bus writes so many."""


SMALL = Sizes(events=6_000, fold=3_000, queries=10, news=15, forget_s=0.0)


def news(ground: Ground, sizes: Sizes) -> Figures:
    """E. From a post to another's follow, and to one's own query."""
    figures = Figures("E")
    ground.up()
    ground.register(["writer", "reader"])
    ground.new_raw_stream()
    deliver = "_INBOX._daemon-bench.push"
    ground.push_to(deliver)
    raw = crew.run_one(
        "raw_follow", count=sizes.news, deliver=deliver, url=ground.url, creds=str(ground.raw_creds_file())
    )
    found = crew.run_one(
        "follow", home=str(ground.home.path), agent="writer", reader="reader", channel="dev", count=sizes.news
    )
    parts: dict[str, list[float]] = found.extra
    figures.add(
        "post -> another's follow, p50",
        p50(parts["followed"]) * 1e3,
        "ms",
        limit=p50(raw.took_s) * 1e3,
        beside="raw publish -> consumer",
        target=at_most(20, "value"),
        note=f"p99 {percentile(parts['followed'], 0.99) * 1e3:.0f} ms",
    )
    post, read = p50(parts["posts"]) * 1e3, p50(parts["reads"]) * 1e3
    figures.add(
        "post -> queryable, p50",
        p50(parts["queryable"]) * 1e3,
        "ms",
        limit=post + read,
        beside="post + read of what is there",
        target=at_most(40, "value"),
        note=f"post {post:.2f}, read {read:.2f} ms; p99 {percentile(parts['queryable'], 0.99) * 1e3:.0f} ms",
    )
    return figures


class Past:
    """A long log, and what is measured on it."""

    def __init__(self, ground: Ground, sizes: Sizes) -> None:
        self.ground = ground
        self.sizes = sizes
        self.home = str(ground.home.path)
        ground.up()
        ground.register([agent_of(0)])
        ground.down()
        ground.up(idle=True)
        self.raw = {"url": ground.url, "creds": str(ground.raw_creds_file())}
        filled = crew.run_one("fill", upto=sizes.events, **self.raw)
        self.fill_rate = crew.rate([filled])
        self.filled_s = time.monotonic()
        self.tasks: Sequence[Any] = filled.extra["tasks"]

    # --- D -----------------------------------------------------------------------------------------------------

    def fold(self) -> Figures:
        """D. Replay of the log into scratch tables, with the daemon doing nothing."""
        figures, upto = Figures("D"), min(self.sizes.fold, self.sizes.events)
        self.ground.down()
        self.ground.up(idle=True)
        raw = {"url": self.ground.url, "creds": str(self.ground.raw_creds_file())}
        found = crew.run_one("stages", upto=upto, directory=str(self.ground.home.path.parent), **raw).extra
        took, cpu = found["took"], {name: seconds / upto * 1e6 for name, seconds in found["cpu"].items()}
        total, bare = took.pop("fold_log"), took.pop("bare")
        for name, seconds in took.items():
            figures.add(
                f"  {name} alone",
                upto / seconds,
                "events/s",
                note=f"{seconds / sum(took.values()):.0%} of the stages; CPU {cpu[name]:.1f} us an event",
            )
        slowest = min(upto / seconds for seconds in took.values())
        figures.add(
            f"replay of {upto:,} events",
            upto / total,
            "events/s",
            limit=upto / sum(took.values()),
            beside="the stages one after another",
            target=at_least(30_000, "value"),
            note=f"aim 60,000; slowest stage {slowest:,.0f}/s; CPU {cpu['fold_log']:.1f} us an event",
        )
        figures.add(
            "  read into one table, nothing folded",
            upto / bare,
            "events/s",
            limit=upto / total,
            beside="replay",
            note=f"CPU {cpu['bare']:.1f} us an event: a ceiling here",
        )
        return figures

    # --- F and G -----------------------------------------------------------------------------------------------

    def read_and_weigh(self) -> tuple[Figures, Figures]:
        """F. Queries as of random moments. G. Resident memory after folding, and after a restart."""
        past, memory = Figures("F"), Figures("G")
        events = self.sizes.events
        self.ground.down()
        time.sleep(max(0.0, self.filled_s + self.sizes.forget_s - time.monotonic()))
        start = time.perf_counter()
        self.ground.up()
        self._wait()
        caught_up_s = time.perf_counter() - start
        past.add(
            f"daemon catches up with {events:,} events",
            events / caught_up_s,
            "events/s",
            limit=self.fill_rate,
            beside="they were written",
        )
        self._weigh(memory, "after folding")
        self.ground.settle()
        asked = self._ask()
        self._weigh(memory, "after reading")
        self.ground.down()
        start = time.perf_counter()
        self.ground.up()
        self._wait()
        restart_s = time.perf_counter() - start
        self._weigh(memory, "after a restart", note=f"which took {restart_s:.1f} s")
        self.ground.down()
        self._compare(past, asked)
        return past, memory

    def spec(self) -> dict[str, Any]:
        return {"tasks": self.tasks, "count": self.sizes.queries, "upto": self.sizes.events, "seed": 7}

    def _wait(self) -> None:
        """Until the tables have everything."""
        once = {**self.spec(), "count": 1, "kinds": []}
        crew.run_one("ask", home=self.home, agent=agent_of(0), until=self.sizes.events, **once)

    def _ask(self) -> dict[str, list[float]]:
        return crew.run_one("ask", home=self.home, agent=agent_of(0), **self.spec()).extra

    def _compare(self, figures: Figures, asked: dict[str, list[float]]) -> None:
        """The daemon's answers beside the same handlers in a process of their own, without a daemon."""
        path = self.ground.home.projections / FILE
        copy = self.ground.home.path.parent / "direct.duckdb"
        shutil.copy(path, copy)
        direct = crew.run_one("direct", path=str(copy), **self.spec()).extra
        copy.unlink()
        names = {
            "entity": ("one task with its history", 5),
            "tail": ("channel tail of 50", 10),
            "board": ("a namespace's board", 50),
            "list": ("a namespace's tasks, page of 50", 50),
            "inbox": ("an inbox with 8 channels, page of 50", 50),
        }
        for kind in KINDS:
            name, limit = names[kind]
            bare = direct.get(f"bare {kind}")
            figures.add(
                f"as of: {name}, p50",
                p50(asked[kind]) * 1e3,
                "ms",
                limit=p50(direct[kind]) * 1e3,
                beside="its SQL in process",
                target=at_most(limit, "value"),
                note=f"p99 {percentile(asked[kind], 0.99) * 1e3:.0f} ms, best {min(asked[kind]) * 1e3:.1f}; "
                f"CPU {p50(direct[f'cpu {kind}']) * 1e3:.1f} ms"
                + (f"; barest SQL {p50(bare) * 1e3:.1f} ms" if bare else ""),
            )

    def _weigh(self, figures: Figures, when: str, note: str = "") -> None:
        for name, limit in (("daemon", 1024), ("server", 150)):
            rss = self.ground.usage(name).rss / MB
            shown = "nats-server" if name == "server" else name
            figures.add(f"{shown} {when}, RSS", rss, "MB", target=at_most(limit, "value"), note=note)
