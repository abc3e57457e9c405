"""What answers promise, judged the moment they are given and again at the end.

Rules: a reply names events that are in the log, its own and with the content it promised. A refusal follows from some
state that was stored between the asking and the answering. Posts of one agent to one channel keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bus.domain import channel, dm
from bus.domain import task_requests as ask
from bus.errors import BusError, Defect, Unavailable
from bus.execute import Call, Executor
from bus.log import MemoryLog
from bus.model import Limits, Reply
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.world import Speculation, World
from tests.simulation.checker import Checker, Line

if TYPE_CHECKING:
    from tests.simulation.sim import Asked, Host

OWN = {
    ask.Claim: "task.claimed",
    ask.Next: "task.claimed",
    ask.Complete: "task.completed",
    ask.Release: "task.released",
    ask.Fail: "task.failed",
    ask.Cancel: "task.cancelled",
    ask.Reopen: "task.reopened",
    ask.Accept: "task.handed_off",
    ask.Decline: "task.declined",
    channel.Post: "channel.posted",
    dm.Post: "dm.posted",
}
"""The event that a successful request of this type always leads to."""


SEVERAL = (ask.Next, ask.Amend)
"""What these write to is not always one bucket, so two leaders at once may each have an effect."""


class Frozen:
    """A clock that shows one moment."""

    def __init__(self, now: datetime) -> None:
        self._ns = int(now.timestamp()) * 10**9 + now.microsecond * 1000

    def monotonic_ns(self) -> int:
        return self._ns

    def server_ns(self) -> int:
        return self._ns

    def observe(self, server_ns: int) -> None: ...


class Numbers:
    def event_id(self) -> str:
        return "scratch"

    def short(self, prefix: str) -> str:
        return f"{prefix}-scratch"


class Promises:
    """Judges the answers of one simulation."""

    def __init__(self, log: MemoryLog, checker: Checker, one_leader: bool) -> None:
        self._log = log
        self._checker = checker
        self._one_leader = one_leader
        self._worlds: list[World] = [World(FAMILIES)]
        self._posts: list[tuple[Host, tuple[str, str, str], int, int]] = []
        self._replies: dict[str, Reply] = {}
        self.judged = 0

    # --- replies -----------------------------------------------------------------------------------------------

    def replied(self, host: Host, asked: Asked, reply: Reply) -> None:
        lines = self._checker.lines
        assert 0 <= reply.seq <= len(lines), f"{asked.name} was told of #{reply.seq}, which is not stored"
        first = self._replies.setdefault(asked.name, reply)
        request = asked.request
        if isinstance(reply, ask.TaskReply):
            self._state(request.namespace, reply)
        own = OWN.get(type(request))
        if own is None:
            return
        if self._one_leader or not isinstance(request, SEVERAL):
            assert core(first) == core(reply), f"{asked.name} was answered {first} and then {reply}"
        line = self._line(asked, own, reply.seq)
        assert line.seq <= reply.seq
        self._held(asked, line)
        if isinstance(reply, ask.LeaseReply):
            assert reply.fence == reply.seq == line.seq
            assert self._checker.holders[reply.fence] == (reply.task, asked.who)
            assert reply.expires == datetime.fromisoformat(line.body["expires"])
        elif isinstance(request, channel.Post | dm.Post):
            assert (line.seq, line.body["text"]) == (reply.seq, request.text)
        if isinstance(request, channel.Post) and request.fence is None and request.reply_to is None:
            self._in_order(host, asked, (asked.who, request.namespace, request.channel), reply.seq)

    def _line(self, asked: Asked, own: str, seq: int) -> Line:
        found = [line for line in self._checker.lines if line.request == asked.name and line.type == own]
        if not self._one_leader and isinstance(asked.request, SEVERAL):
            found = [line for line in found if line.seq == seq]
        (line,) = found
        assert line.agent == asked.who
        return line

    def _state(self, namespace: str, reply: ask.TaskReply) -> None:
        """The state a reply names is that of its event or one that was stored since."""
        known = self._checker.history[(namespace, reply.task)]
        at_event = [task.state for seq, task in known if seq <= reply.seq][-1:]
        assert reply.state in at_event + [task.state for seq, task in known if seq > reply.seq], reply

    def _held(self, asked: Asked, line: Line) -> None:
        """A write under a fence was stored while its author held the task under that fence."""
        fence = asked.request.fence
        if fence is None or not self._one_leader:
            return
        task, seq = fence.split(":") if isinstance(fence, str) else (line.entity, fence)
        before = [held for at, held in self._checker.history[(asked.request.namespace, task)] if at < line.seq]
        assert (before[-1].owner, before[-1].fence) == (asked.who, int(seq)), f"{line} under a fence of {before[-1]}"

    def _in_order(self, host: Host, asked: Asked, place: tuple[str, str, str], seq: int) -> None:
        if asked.plain_at is not None:
            self._posts.append((host, place, asked.plain_at, seq))

    def kept(self) -> None:
        """At the end: what was acknowledged is in the log once, and in the order it was asked for."""
        for host, place, number, seq in self._posts:
            for other_host, other_place, other_number, other_seq in self._posts:
                if (other_host, other_place) == (host, place) and number < other_number:
                    assert seq < other_seq, f"posts to {place} changed places: #{seq} and #{other_seq}"

    # --- refusals ----------------------------------------------------------------------------------------------

    def refused(self, host: Host, asked: Asked, position: int, now: datetime, error: BusError) -> None:
        """Some state that was stored since `position` (which the host knew when it was asked) gives this refusal."""
        assert not isinstance(error, Defect), str(error)
        fence = error.details.get("fence")
        if fence is not None:
            assert self._checker.holders[fence][1] == error.details["owner"]
        if isinstance(error, Unavailable) or error.code in ("log_full", "request_reused"):
            return
        if not self._one_leader and self._beyond_a_gap(host):
            return
        self.judged += 1
        shown = (error.code, str(error), error.details)
        for seq in range(len(self._log.records), position - 1, -1):
            if self._decide(asked, seq, now, host.executor.limits) == shown:
                return
        raise AssertionError(f"{asked.name} {asked.request} was refused for what never was stored: {error}")

    def _beyond_a_gap(self, host: Host) -> bool:
        """Whether the host knows events of its own that come after somebody else's it does not know."""
        return any(seq > host.executor.known_seq for seq in host.view.tips.values())

    def _decide(self, asked: Asked, seq: int, now: datetime, limits: Limits) -> Any:
        scratch = Executor(self._log, self._view(seq), Frozen(now), Numbers(), CODEC, limits, lambda: True)
        operation = OPERATION_OF[type(asked.request)]
        call = Call(operation, asked.request, asked.who, print)
        if operation.reads is not None:
            named = [other for other in operation.reads(asked.request) if 0 < other <= seq]
            call.events = {other: CODEC.decode(self._log.records[other - 1]) for other in named}
        outcome = scratch._outcome(call)
        return (outcome.code, str(outcome), outcome.details) if isinstance(outcome, BusError) else None

    # --- states ------------------------------------------------------------------------------------------------

    def _world(self, seq: int) -> World:
        """The world of a moment, folded from the raw log."""
        while len(self._worlds) <= seq:
            world = World(FAMILIES)
            before = self._worlds[-1]
            for family in FAMILIES:
                for namespace, key, entry in before.entries(family.state):
                    world.load(family.state, namespace, key, entry)
            world.fold(CODEC.decode(self._log.records[len(self._worlds) - 1]))
            self._worlds.append(world)
        return self._worlds[seq]

    def _view(self, seq: int) -> Speculation:
        view = Speculation(self._world(seq))
        view.index()
        return view

    def same_world(self, host: Host) -> None:
        """What the host has folded bit by bit, through crashes and roll-backs, is what a fresh fold gives."""
        world = host.world
        assert states(world) == states(self._world(world.position))


def core(reply: Reply) -> Reply:
    """A reply without the description of the task, which is that of the moment it is given."""
    return replace(reply, title="", body="", labels=(), priority=0) if isinstance(reply, ask.LeaseReply) else reply


def states(world: World) -> Sequence[Any]:
    return [sorted(world.entries(family.state), key=lambda item: item[:2]) for family in FAMILIES]
