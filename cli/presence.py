"""Who is there: an agent that asks for something is; the longer it has asked for nothing, the further away it is.

    a request here, or at a daemon that stands by  ->  heard  ->  agent.presence_changed, by `system`, when it changes

Rules:
* That an agent was heard is no event and is forgotten with the daemon; only a change is written.
* A leader that takes over goes on from what the log says: who was away then is not taken for one that has come back,
  and who is gone for good is offline in the end, however often the leader changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bus.clock import Clock
from bus.domain import agent
from bus.subjects import TENANT
from bus.tunables import PresenceLimits
from bus.world import World


class Presence:
    """When each agent was heard last, as far as this daemon knows."""

    def __init__(self, world: World, clock: Clock, limits: PresenceLimits) -> None:
        self.heard_ns: dict[str, int] = {}
        """Monotonic time of each agent's newest request."""
        self._world = world
        self._clock = clock
        self._news: set[str] = set()
        self._quiet_ns: tuple[tuple[int, agent.Presence], ...] = (
            (int(limits.offline_after_s * 1e9), "offline"),
            (int(limits.away_after_s * 1e9), "away"),
            (int(limits.idle_after_s * 1e9), "idle"),
        )

    def heard(self, name: str) -> None:
        """This agent has asked for something here."""
        self.heard_ns[name] = self._clock.monotonic_ns()
        self._news.add(name)

    def told(self, names: Iterable[str]) -> None:
        """Another daemon has heard these agents just now."""
        now_ns = self._clock.monotonic_ns()
        self.heard_ns.update(dict.fromkeys(names, now_ns))

    def news(self) -> list[str]:
        """Who was heard here since this was asked last."""
        news, self._news = sorted(self._news), set()
        return news

    def take_over(self) -> None:
        """Count everybody as heard when the log's word of their presence began to be true, at the latest."""
        now_ns = self._clock.monotonic_ns()
        least_ns = {"online": 0} | {word: quiet_ns for quiet_ns, word in self._quiet_ns if word != "offline"}
        for _, name, entry in self._world.entries(agent.Agent):
            quiet_ns = least_ns.get(entry.state.presence)
            if quiet_ns is not None:
                self.heard_ns[name] = max(self.heard_ns.get(name, 0), now_ns - quiet_ns)

    def changes(self) -> Iterator[agent.ChangePresence]:
        """What is to be recorded now."""
        now_ns = self._clock.monotonic_ns()
        for name, heard_ns in list(self.heard_ns.items()):
            entry = self._world.entry(agent.Agent, TENANT, name)
            if entry is None or not entry.state.active:
                continue
            quiet_ns = now_ns - heard_ns
            presence: agent.Presence = next(
                (word for after_ns, word in self._quiet_ns if quiet_ns >= after_ns), "online"
            )
            if presence != entry.state.presence:
                yield agent.ChangePresence(agent=name, presence=presence)
