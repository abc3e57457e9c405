"""What stands in a projector where a daemon has its executor: commands are decided elsewhere, by the leader.

    agent -> intake -> forwarder -> ask.<agent>.do.… on the bus elsewhere -> reply -> agent

Rules:
* Nothing is decided here, and nothing is sent twice: who asked asks again, under the same request id.
* A query that has to be recorded (what an inbox shows, what is recalled) is the leader's to answer too.
* The world is what the log says, as far as it has come here. It tells who may read.
* An agent that only reads here is there all the same: now and then something small is asked for it, so that the leader
  hears it.
"""

from __future__ import annotations

from typing import Any

import structlog
from anyio.abc import TaskGroup

from bus.clock import Clock
from bus.domain import channel
from bus.errors import BusError
from bus.events import Event, RequestId
from bus.model import Answer, Operation, Query, Reply
from bus.operation import OPERATION_OF
from bus.protocol import REQUEST_HEADER, TRACE_HEADER, decode_answer, encode_request
from bus.requests import Call
from bus.subjects import ask_subject
from bus.world import Change, Speculation, World
from cli.api import as_error
from cli.uplink import Uplink

logger = structlog.get_logger(__name__)


class Forwarder:
    """The way of commands to the leader. An answer is waited for `timeout_s`; an agent that has asked for nothing there
    for `heard_s` and was heard here is mentioned."""

    def __init__(
        self, uplink: Uplink, world: World, clock: Clock, tasks: TaskGroup, *, timeout_s: float, heard_s: float
    ) -> None:
        self.log = uplink
        self.view = Speculation(world)
        self._world = world
        self._uplink = uplink
        self._clock = clock
        self._tasks = tasks
        self._timeout_s = timeout_s
        self._heard_ns = int(heard_s * 1e9)
        self._asked_ns: dict[str, int] = {}
        """When each agent was last heard elsewhere, as far as that is known."""
        self._unheard: set[str] = set()

    # --- what an Api asks of where commands are decided ------------------------------------------------------------

    @property
    def known_seq(self) -> int:
        return self._world.position

    def knows(self, seq: int) -> bool:
        """Always: who decides waits for the event that a command must rest on."""
        return True

    async def reached(self, seq: int) -> None:
        """There is nothing to wait for here."""

    def submit(self, call: Call) -> None:
        """Take a command. Returns at once; the answer comes through `call.answers`."""
        self._tasks.start_soon(self._submit, call)

    async def _submit(self, call: Call) -> None:
        headers = {}
        if call.request_id is not None:
            headers[REQUEST_HEADER] = call.request_id.id
        if call.trace is not None:
            headers[TRACE_HEADER] = call.trace
        result: Reply | BusError
        try:
            result = await self._ask(call.operation, call.request, call.agent, headers, self._timeout_s)
        except Exception as error:
            result = as_error(call.operation.name, error)
        for answer in call.answers:
            answer(result)

    async def see(self, request: Query, agent: str) -> Answer:
        """The answer of a daemon. Raises BusError."""
        answer: Answer = await self._ask(
            OPERATION_OF[type(request)], request, agent, {}, self._timeout_s + request.wait_s
        )
        return answer

    async def _ask(
        self, operation: Operation, request: Any, agent: str, headers: dict[str, str], timeout_s: float
    ) -> Any:
        subject = ask_subject(agent, operation.kind, operation.name)
        message = await self._uplink.ask(agent, subject, encode_request(request), headers, timeout_s)
        self._asked_ns[agent] = self._clock.monotonic_ns()
        self._unheard.discard(agent)
        return decode_answer(operation, message.data)

    # --- the log side ----------------------------------------------------------------------------------------------

    def fold(self, event: Event) -> Change | None:
        """Take the next event of the log into the world."""
        change = self._world.fold(event)
        self.view.folded(event, change)
        return change

    def remember(self, agent: str, request: RequestId, seq: int) -> None:
        """Requests are remembered where they are decided."""

    # --- who is there ----------------------------------------------------------------------------------------------

    def heard(self, agent: str) -> None:
        """This agent has asked for something here."""
        self._unheard.add(agent)

    async def mention(self) -> None:
        """Let those be heard elsewhere who were heard here only, for a while."""
        now_ns = self._clock.monotonic_ns()
        for agent in sorted(self._unheard):
            if now_ns - self._asked_ns.get(agent, -self._heard_ns) < self._heard_ns:
                continue
            self._asked_ns[agent] = now_ns
            try:
                await self.see(channel.List(limit=1), agent)
            except BusError as error:
                logger.debug("not mentioned", agent=agent, error=str(error))
