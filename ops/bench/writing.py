"""Sections A, B and C: posting, posting beside floods, and racing for tasks."""

from __future__ import annotations

from typing import Any

import msgspec

from bench import crew
from bench.crew import Crew, Result, latencies, rate
from bench.figures import Figures, at_least, at_most, p50, percentile
from bench.ground import Ground, cores


class Sizes(msgspec.Struct, frozen=True):
    """How much each measurement does."""

    rounds: int = 5
    crowd_rounds: int = 3
    singles: int = 400
    writers: int = 30
    per_writer: int = 150
    clients: int = 4
    concurrent: int = 40_000
    channels: int = 500
    batches: int = 150
    flood_s: float = 6.0
    racers: int = 8
    race_tasks: int = 1000
    next_tasks: int = 4000


SMALL = Sizes(
    rounds=1,
    crowd_rounds=1,
    singles=40,
    writers=2,
    per_writer=15,
    clients=2,
    concurrent=600,
    channels=20,
    batches=6,
    flood_s=1.0,
    racers=2,
    race_tasks=40,
    next_tasks=60,
)
IN_FLIGHT = 256
BATCH = 256


class _Round(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of many writers, right after one of raw publishes. `cpu_s` is per post and process."""

    rate: float
    raw_rate: float
    p50_s: float
    p99_s: float
    settled_s: float
    cpu_s: dict[str, float]


class Writing:
    """The three sections on one bus."""

    def __init__(self, ground: Ground, sizes: Sizes) -> None:
        self.ground = ground
        self.sizes = sizes
        self.home = str(ground.home.path)
        ground.up()
        self.agents = [f"writer-{n:02}" for n in range(max(sizes.writers, sizes.racers, sizes.clients))]
        ground.register([*self.agents, "flood-0", "flood-1"])
        self.bare = [f"bare-{n:02}" for n in range(max(sizes.writers, sizes.clients))]
        for name in self.bare:
            ground.home.keyring.agent(name)
        self.channels = [f"channel-{n:03}" for n in range(sizes.channels)]
        self.open(channels=["dev", "flood", *self.channels])
        self.raw = {"url": ground.url, "creds": str(ground.raw_creds_file())}

    def open(self, **what: list[str]) -> None:
        crew.run_one("open", home=self.home, agent="owner", **what)

    def posts(self, count: int, in_flight: int, clients: int, channels: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "home": self.home,
                "agent": self.agents[n],
                "count": count // clients,
                "in_flight": in_flight // clients,
                "channels": channels,
                "seed": n * 97,
                "settle": True,
            }
            for n in range(clients)
        ]

    def raw_singles(self) -> Result:
        self.ground.new_raw_stream()
        return crew.run_one("raw_publish", count=self.sizes.singles, **self.raw)

    def raw_batches(self, in_flight: int) -> float:
        self.ground.new_raw_stream()
        spec = {"batches": self.sizes.batches, "size": BATCH, "in_flight": in_flight}
        return rate([crew.run_one("raw_batches", **spec, **self.raw)])

    def ceiling(self, mode: str, count: int, clients: int, in_flight: int) -> float:
        """Asks a second that a process answers which does hardly anything (`bench.bare`)."""
        self.ground.new_raw_stream()
        each = count // clients
        answerer = Crew("bare_answer", [{"mode": mode, "count": each * clients, **self.raw}])
        creds = self.ground.home.path / "creds"
        specs = [
            {
                "url": self.ground.url,
                "agent": name,
                "agent_creds": str(creds / f"{name}.creds"),
                "count": each,
                "in_flight": in_flight // clients,
            }
            for name in self.bare[:clients]
        ]
        answerer.go()
        results = crew.run("bare_ask", specs)
        answerer.results()
        return rate(results)

    # --- A -----------------------------------------------------------------------------------------------------

    def posting(self) -> Figures:
        """A. Posts through the bus beside raw durable publishes."""
        figures, sizes = Figures("A"), self.sizes
        mine, raws, ratios = [], [], []
        for _ in range(sizes.rounds):
            raw = self.raw_singles()
            bus = crew.run("post", self.posts(sizes.singles, 1, 1, ["dev"]))
            raws.append(p50(raw.took_s))
            mine.append(p50(latencies(bus)))
            ratios.append(mine[-1] / raws[-1])
        figures.add(
            "post, one writer, p50",
            p50(mine) * 1e3,
            "ms",
            limit=p50(raws) * 1e3,
            beside="raw durable publish",
            ratio=p50(ratios),
            target=at_most(2.5),
            note=f"median of {sizes.rounds} rounds, best {min(ratios):.2f}x",
        )
        writers = sizes.writers
        crowd = (sizes.per_writer * writers, writers, writers)
        found = self._crowd(figures, f"{writers} writers", 3, *crowd, ["dev"])
        self.ceilings(figures, f"{writers} writers", *crowd, found)
        one, crowd = f"{IN_FLIGHT} in flight, 1 channel", (sizes.concurrent, sizes.clients, IN_FLIGHT)
        found = self._crowd(figures, one, 10, *crowd, ["dev"])
        self.ceilings(figures, f"{IN_FLIGHT} in flight", *crowd, found)
        many = f"{IN_FLIGHT} in flight, {sizes.channels} channels"
        best = self._crowd(figures, many, 10, sizes.concurrent, sizes.clients, IN_FLIGHT, self.channels)
        for in_flight in (1, 2):
            batched = self.raw_batches(in_flight)
            figures.add(
                f"raw atomic batches of {BATCH}, {in_flight} in flight",
                batched,
                "/s",
                limit=best,
                beside=many,
            )
        return figures

    def _crowd(
        self,
        figures: Figures,
        what: str,
        times: float,
        count: int,
        clients: int,
        in_flight: int,
        channels: list[str],
    ) -> float:
        """Throughput of many writers, and what it costs: the median of some rounds. -> posts a second."""
        rounds = [self._round(count, clients, in_flight, channels) for _ in range(self.sizes.crowd_rounds)]
        found = p50([one.rate for one in rounds])
        ratios = [one.rate / one.raw_rate for one in rounds]
        typical = sorted(rounds, key=lambda one: one.rate)[len(rounds) // 2]
        took = f"p50 {typical.p50_s * 1e3:.1f} p99 {typical.p99_s * 1e3:.0f} ms"
        figures.add(
            f"post, {what}",
            found,
            "/s",
            limit=p50([one.raw_rate for one in rounds]),
            beside="raw publishes one by one",
            ratio=p50(ratios),
            target=at_least(times),
            note=f"{took}, tables {typical.settled_s:.2f} s later; best {max(one.rate for one in rounds):,.0f}/s, "
            f"{max(ratios):.1f}x",
        )
        cheapest = min(rounds, key=lambda one: sum(one.cpu_s.values())).cpu_s
        total = sum(cheapest.values())
        split = ", ".join(f"{name} {seconds * 1e6:.0f}" for name, seconds in cheapest.items())
        best, alone = cores() / total, 1 / cheapest["daemon"]
        figures.add(
            f"  CPU per post, {what}",
            total * 1e6,
            "us",
            note=f"{split}; {cores()} cores could do {best:,.0f}/s, one for the daemon {alone:,.0f}/s",
        )
        return found

    def ceilings(
        self,
        figures: Figures,
        what: str,
        count: int,
        clients: int,
        in_flight: int,
        found: float,
        beside: str = "post",
    ) -> None:
        """What is possible here at all, beside what was reached."""
        raw = rate([self.raw_singles()])
        for mode, name in (("echo", "ask and answer, nothing stored"), ("commit", "bare group commit")):
            bare = self.ceiling(mode, count, clients, in_flight)
            note = f"{bare / raw:.2f}x the raw publishes one by one: a ceiling here"
            figures.add(f"  {name}, {what}", bare, "/s", limit=found, beside=beside, note=note)

    def _round(self, count: int, clients: int, in_flight: int, channels: list[str]) -> _Round:
        raw = self.raw_singles()
        people = Crew("post", self.posts(count, in_flight, clients, channels))
        before = {name: self.ground.usage(name).cpu_s for name in ("daemon", "server")}
        people.go()
        results = people.results()
        posts = sum(result.count for result in results)
        cpu = {name: (self.ground.usage(name).cpu_s - was) / posts for name, was in before.items()}
        cpu["clients"] = sum(result.cpu_s for result in results) / posts
        took = latencies(results)
        return _Round(
            rate=rate(results),
            raw_rate=rate([raw]),
            p50_s=p50(took),
            p99_s=percentile(took, 0.99),
            settled_s=max(result.extra["settled_s"] for result in results),
            cpu_s=cpu,
        )

    # --- B -----------------------------------------------------------------------------------------------------

    def floods(self) -> Figures:
        """B. An honest agent beside two that fire without waiting."""
        figures, sizes = Figures("B"), self.sizes
        quiet = p50(latencies(crew.run("post", self.posts(sizes.singles, 1, 1, ["dev"]))))
        busy = self._beside("burn", [{"seconds": sizes.flood_s}] * 2, quiet)
        creds = self.ground.home.path / "creds"
        floods = [
            {
                "url": self.ground.url,
                "agent": name,
                "flood_creds": str(creds / f"{name}.creds"),
                "seconds": sizes.flood_s,
            }
            for name in ("flood-0", "flood-1")
        ]
        flooded = self._beside("flood", floods, quiet)
        figures.add(
            "post beside two busy loops, p50",
            p50(busy[0]) * 1e3,
            "ms",
            limit=quiet * 1e3,
            beside="the same undisturbed",
        )
        figures.add(
            "post beside two floods, p50",
            p50(flooded[0]) * 1e3,
            "ms",
            limit=quiet * 1e3,
            beside="the same undisturbed",
            target=at_most(10),
            note=f"p99 {percentile(flooded[0], 0.99) * 1e3:.0f} ms, {flooded[1]:,.0f} asks/s fired at it",
        )
        return figures

    def _beside(self, role: str, specs: list[dict[str, Any]], quiet: float) -> tuple[list[float], float]:
        """How long posts take while others do `role`. -> (latencies, operations a second of the others)."""
        # More than there is time for, even undisturbed; those after the others' end are left out.
        honest = Crew("post", self.posts(int(self.sizes.flood_s / quiet), 1, 1, ["dev"]))
        others = Crew(role, specs)
        others.go()
        honest.go()
        posts, done = honest.results()[0], others.results()
        end = min(result.end_s for result in done)
        at, during = posts.start_s, []
        for took in posts.took_s:
            at += took
            if at <= end or not during:
                during.append(took)
        return during, rate(done)

    # --- C -----------------------------------------------------------------------------------------------------

    def races(self) -> Figures:
        """C. Several claim the same tasks: who asks first, and who takes the next one."""
        figures, sizes = Figures("C"), self.sizes
        ratios, mine, raws = [], [], []
        for round_ in range(min(3, sizes.rounds)):
            prefix = f"race{round_}"
            self.open(tasks=[f"{prefix}-{n}" for n in range(sizes.race_tasks)])
            self.ground.new_raw_stream()
            common = {"tasks": sizes.race_tasks, **self.raw}
            raw = crew.run("raw_claim", [{"seed": n, **common} for n in range(sizes.racers)])
            specs = [
                {"home": self.home, "agent": name, "tasks": sizes.race_tasks, "seed": n, "prefix": prefix}
                for n, name in enumerate(self.agents[: sizes.racers])
            ]
            bus = crew.run("claim", specs)
            for results in (raw, bus):
                wins = sum(result.extra["wins"] for result in results)
                if wins != sizes.race_tasks:
                    raise RuntimeError(f"{wins} winners of {sizes.race_tasks} tasks")
            raws.append(rate(raw))
            mine.append(rate(bus))
            ratios.append(mine[-1] / raws[-1])
        figures.add(
            f"claim race, {sizes.racers} processes, {sizes.race_tasks} tasks",
            p50(mine),
            "attempts/s",
            limit=p50(raws),
            beside="raw compare-and-set",
            ratio=p50(ratios),
            target=at_least(0.7),
            note=f"exactly one winner each; best {max(ratios):.2f}x",
        )
        self.open(tasks=[f"next-{n}" for n in range(sizes.next_tasks)])
        specs = [{"home": self.home, "agent": name} for name in self.agents[: sizes.racers]]
        before = self.ground.usage("daemon").cpu_s
        taken = crew.run("next", specs)
        count = sum(result.count for result in taken)
        cpu = (self.ground.usage("daemon").cpu_s - before) / count
        figures.add(
            f"task.next, {sizes.racers} workers",
            rate(taken),
            "claims/s",
            limit=p50(mine),
            beside="claim race",
            target=at_least(1000, "value"),
            note=f"{count} claims, daemon {cpu * 1e6:.0f} us each, "
            f"clients {sum(result.cpu_s for result in taken) / count * 1e6:.0f} us",
        )
        crowd = (sizes.next_tasks, sizes.racers, sizes.racers)
        self.ceilings(figures, f"{sizes.racers} workers", *crowd, rate(taken), beside="claims")
        return figures
