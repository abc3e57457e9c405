"""Time and ids that count: they are the same in every run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Time:
    """A clock that stands still unless it is moved; every event is stored a millisecond after the one before."""

    now_ns: int = 1_760_000_000_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def server_ns(self) -> int:
        return self.now_ns

    def stamp_ns(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def observe(self, server_ns: int) -> None:
        pass

    def advance(self, server_ns: int) -> None:
        pass


@dataclass
class Ids:
    """Ids in counting order."""

    count: int = 0
    named: dict[str, int] = field(default_factory=lambda: {"m": 0, "p": 0})

    def event_id(self) -> str:
        self.count += 1
        return f"id-{self.count}"

    def short(self, prefix: str) -> str:
        """Entries of the memory are counted apart, so that a command can name one."""
        if prefix in self.named:
            self.named[prefix] += 1
            return f"{prefix}-{self.named[prefix]}"
        self.count += 1
        return f"{prefix}-{self.count}"
