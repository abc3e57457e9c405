"""What the agents of a simulation ask: random commands, legal and illegal, on few entities, so that they collide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from bus.domain import agent, channel, dm, inbox, registry
from bus.domain import task_requests as ask
from bus.model import Command

OWNER = "olga"
AGENTS = (OWNER, "atlas", "nova", "iris", "zoe")
TASKS = ("A", "B", "C", "D")
CHANNELS = ("dev", "ops")
NAMESPACES = ("default",) * 9 + ("side",)


class Memory:
    """What an agent remembers of its claims: (task, fence), right or wrong by now."""

    def __init__(self) -> None:
        self.fences: list[tuple[str, int]] = []


class Imagination:
    """Makes up the next command of an agent. Every text says which request it belongs to."""

    def __init__(self, random: Random, head: Callable[[], int]) -> None:
        self._random = random
        self._head = head
        self.fences: list[tuple[str, int]] = []
        """Every claim anybody was given."""
        self._makers: Sequence[tuple[int, Callable[[str, Memory, str], Command]]] = (
            (14, self._claim),
            (6, self._next),
            (10, self._work),
            (4, self._hand_over),
            (5, self._open),
            (4, self._amend),
            (12, self._post),
            (4, self._membership),
            (3, self._touch),
            (3, self._dm),
            (3, self._inbox),
            (4, self._people),
            (1, self._model),
        )

    def command(self, who: str, memory: Memory, name: str) -> Command:
        """A command of `who`; `name` is unique to the request."""
        (maker,) = self._random.choices([m for _, m in self._makers], [w for w, _ in self._makers])
        return maker(who, memory, name)

    def _task(self) -> str:
        return self._random.choice(TASKS)

    def _fence(self, memory: Memory, task: str | None = None) -> Any:
        """Often none; otherwise a fence the agent or somebody else was given at some time, or one that never was."""
        fences = self.fences if self._random.random() < 0.1 else memory.fences
        if self._random.random() < 0.6 or not fences:
            return None
        held, fence = self._random.choice(fences[-4:])
        if self._random.random() < 0.05:
            fence += 1
        return fence if held == task and self._random.random() < 0.5 else f"{held}:{fence}"

    def _some_seq(self) -> int:
        """Any seq, mostly a late one."""
        head = self._head()
        return max(1, head + 1 - int(self._random.expovariate(0.15)))

    def _claim(self, who: str, memory: Memory, name: str) -> Command:
        return ask.Claim(task=self._task(), lease_s=self._random.choice((5, 30, 600)))

    def _next(self, who: str, memory: Memory, name: str) -> Command:
        labels = ("x",) if self._random.random() < 0.2 else ()
        return ask.Next(lease_s=self._random.choice((5, 60)), labels=labels)

    def _work(self, who: str, memory: Memory, name: str) -> Command:
        task = memory.fences[-1][0] if memory.fences and self._random.random() < 0.8 else self._task()
        fence = self._fence(memory, task)
        kind = self._random.choice((ask.Renew, ask.Release, ask.Complete, ask.Fail, ask.Cancel, ask.Reopen, ask.Reopen))
        if kind is ask.Fail:
            return ask.Fail(task=task, fence=fence, retry=self._random.random() < 0.5, reason=name)
        if kind is ask.Complete:
            return ask.Complete(task=task, fence=fence, result=name)
        if kind is ask.Renew:
            return ask.Renew(task=task, fence=fence, lease_s=self._random.choice((None, 1, 900)))
        return kind(task=task, fence=fence, reason=name)  # type: ignore[call-arg]

    def _hand_over(self, who: str, memory: Memory, name: str) -> Command:
        task = memory.fences[-1][0] if memory.fences and self._random.random() < 0.7 else self._task()
        kind = self._random.randrange(4)
        if kind == 0:
            return ask.Accept(task=task)
        if kind == 1:
            return ask.Decline(task=task, reason=name)
        return ask.Handoff(task=task, to=self._random.choice(AGENTS), direct=kind == 2, notes=name)

    def _open(self, who: str, memory: Memory, name: str) -> Command:
        task = self._task() if self._random.random() < 0.7 else None
        needs = (self._task(),) if self._random.random() < 0.3 else ()
        return ask.Open(
            title=name,
            task=task,
            needs=needs,
            priority=self._random.randrange(3),
            labels=("x",) if self._random.random() < 0.3 else (),
            from_message=self._some_seq() if self._random.random() < 0.1 else None,
        )

    def _amend(self, who: str, memory: Memory, name: str) -> Command:
        task = self._task()
        if self._random.random() < 0.5:
            wanted = tuple(self._random.sample(TASKS, self._random.randrange(3)))
            return ask.Amend(task=task, needs=wanted, fence=self._fence(memory, task))
        return ask.Amend(task=task, title=name, priority=self._random.choice((None, 5)))

    def _post(self, who: str, memory: Memory, name: str) -> Command:
        return channel.Post(
            channel=self._random.choice(CHANNELS),
            namespace=self._random.choice(NAMESPACES),
            text=f"{name} @{self._random.choice(AGENTS)}",
            fence=self._fence(memory),
            reply_to=self._some_seq() if self._random.random() < 0.1 else None,
        )

    def _membership(self, who: str, memory: Memory, name: str) -> Command:
        where = {"channel": self._random.choice(CHANNELS), "namespace": self._random.choice(NAMESPACES)}
        kind = self._random.choice((channel.Open, channel.Join, channel.Join, channel.Leave))
        if self._random.random() < 0.03:
            return channel.Archive(**where)
        return kind(**where)

    def _touch(self, who: str, memory: Memory, name: str) -> Command:
        where = {"channel": self._random.choice(CHANNELS), "message": self._some_seq()}
        kind = self._random.randrange(4)
        if kind == 0:
            return channel.Edit(text=name, **where)
        if kind == 1:
            return channel.React(emoji="+1", **where)
        return channel.Pin(**where) if kind == 2 else channel.Unpin(**where)

    def _dm(self, who: str, memory: Memory, name: str) -> Command:
        reply_to = self._some_seq() if self._random.random() < 0.2 else None
        return dm.Post(to=self._random.choice(AGENTS), text=name, reply_to=reply_to, fence=self._fence(memory))

    def _inbox(self, who: str, memory: Memory, name: str) -> Command:
        upto = self._some_seq()
        if self._random.random() < 0.5:
            return inbox.Show(upto=upto, seqs=(upto,))
        return inbox.Ack(upto=self._random.randint(1, upto))

    def _people(self, who: str, memory: Memory, name: str) -> Command:
        whom = self._random.choice(AGENTS)
        kind = self._random.randrange(6)
        if kind == 0 and self._random.random() < 0.5:
            return agent.Deactivate(agent=whom, reason=name)
        if kind in (0, 1, 2) or (who == OWNER and self._random.random() < 0.5):
            return agent.Reactivate(agent=whom)
        if kind == 3:
            return agent.Grant(agent=whom, authority="owner")
        if kind == 4:
            return agent.Withdraw(agent=whom, authority="owner")
        return agent.Route(agent=who, parent=self._random.choice(AGENTS))

    def _model(self, who: str, memory: Memory, name: str) -> Command:
        return registry.RegisterModel(model="m", provider=self._random.choice(("a", "b")))
