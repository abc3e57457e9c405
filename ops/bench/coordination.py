"""Section I: intents and reservations beside many others, inboxes and wake cards beside many messages."""

from __future__ import annotations

from typing import Any

import msgspec

from bench import crew
from bench.figures import Figures, at_most, p50, percentile
from bench.ground import Ground

HOLDERS = ("holder-0", "holder-1", "holder-2", "holder-3")
READERS = ("behind", "up-to-date")
LEFT = 10
"""So many messages the one that is up to date has not read."""


class Sizes(msgspec.Struct, frozen=True):
    """How much is held, how much is there to read, and how often each is asked."""

    held: int = 1000
    messages: int = 100_000
    times: int = 200


SMALL = Sizes(held=40, messages=2000, times=10)


def coordination(ground: Ground, sizes: Sizes) -> Figures:
    """I. What agents ask for to keep out of each other's way, and what they ask for first."""
    figures = Figures("I")
    ground.up()
    ground.register([*HOLDERS, *READERS, "asker"])
    _deciding(figures, ground, sizes)
    _looking(figures, ground, sizes)
    return figures


def _deciding(figures: Figures, ground: Ground, sizes: Sizes) -> None:
    home, each = str(ground.home.path), sizes.held // len(HOLDERS)
    crew.run("hold", [{"home": home, "agent": name, "count": each} for name in HOLDERS])
    ground.new_raw_stream()
    raw = {"url": ground.url, "creds": str(ground.raw_creds_file())}
    limit = p50(crew.run_one("raw_publish", count=sizes.times, **raw).took_s)
    spec = {"home": home, "agent": "asker", "other": HOLDERS[0], "held": each, "count": sizes.times}
    took: dict[str, list[float]] = crew.run_one("decide", **spec).extra
    for name in ("reserve", "reserve refused", "release", "declare", "declare refused", "withdraw"):
        _add(figures, f"{name}, {sizes.held} reservations and intents", took[name], 5, limit, "raw durable publish")


def _looking(figures: Figures, ground: Ground, sizes: Sizes) -> None:
    home = str(ground.home.path)
    ground.down()
    ground.up(idle=True)
    readers = dict(zip(READERS, (sizes.messages, LEFT), strict=True))
    raw: dict[str, Any] = {"url": ground.url, "creds": str(ground.raw_creds_file())}
    crew.run_one("talk", readers=readers, count=sizes.messages, **raw)
    ground.down()
    ground.up()
    ground.settle()
    for name in READERS:
        found = crew.run_one("look", home=home, agent=name, giver="asker", count=sizes.times).extra
        what = f"{sizes.messages:,} messages" + (", all unread" if name == "behind" else f", {LEFT} unread")
        rest = p50(found["rest"])
        _add(figures, f"inbox peek, {what}", found["peek"], 10, rest, "a list of one channel")
        _add(figures, f"inbox digest, {what}", found["digest"], None, rest, "a list of one channel")
        _add(figures, f"wake card, {what}", found["wake"], 50, rest, "a list of one channel")
        figures.add(f"  its size, {what}", found["wake_bytes"], "bytes", target=at_most(2048, "value"))


def _add(figures: Figures, what: str, took: list[float], target_ms: float | None, limit: float, beside: str) -> None:
    figures.add(
        f"{what}, p50",
        p50(took) * 1e3,
        "ms",
        limit=limit * 1e3,
        beside=beside,
        target=at_most(target_ms, "value") if target_ms is not None else None,
        note=f"p99 {percentile(took, 0.99) * 1e3:.1f} ms, best {min(took) * 1e3:.2f}",
    )
