"""What the daemons of one tenant say to each other, on subjects that only their credentials may use.

    daemon.do.<agent>.<family>.<verb>    a daemon that stands by hands the leader an internal command for that agent
    daemon.seen                          it tells the leader which agents it has heard

Rules:
* Only internal commands come this way (what an inbox reading has shown). For whom one is stands in its subject, which
  the broker lets nobody but a daemon publish to; agents ask on subjects of their own.
* What an inbox has shown is stored before it is shown: a daemon that was killed in between would have shown what its
  successor lets nobody acknowledge. Without a leader it fails, and whoever asked asks again.
* Where this daemon leads, what recalls have shown gathers for a moment: stored one by one, each is a commit in the log
  and one in the tables, and the next question waits beside them. What the agent does itself is decided after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import msgspec
import structlog

from bus.domain import recall
from bus.errors import BusError, InvalidRequest, NotAllowed, Unavailable
from bus.execute import Call, Executor
from bus.model import Command, Operation, Reply
from bus.operation import OPERATION_OF, OPERATIONS
from bus.protocol import decode_answer, decode_request, encode_answer, encode_request
from bus.subjects import HANDED, SEEN, handed_subject, is_name, parse_handed
from bus.transport import Connection, Subscription
from bus.wire import Message
from cli.api import as_error
from cli.presence import Presence

logger = structlog.get_logger(__name__)

HAND_S = 2.0
GATHER_S = 0.1
"""What recalls have shown is stored so long after it was shown, or sooner, when the agent does something. A daemon that
is killed meanwhile has not recorded it."""
QUEUE = "daemons"
NOT_LEADING = "not_leading"


class Peers:
    """The other daemons, for one of them. `may_lead` says whether this one leads now."""

    def __init__(
        self, connection: Connection, executor: Executor, presence: Presence, may_lead: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._executor = executor
        self._presence = presence
        self._may_lead = may_lead
        self._subscriptions: list[Subscription] = []
        self._gathered: dict[str, list[Call]] = {}
        self._news = anyio.Event()

    async def run(self) -> None:
        """Have what gathers carried out, for ever."""
        while True:
            await self._news.wait()
            await anyio.sleep(GATHER_S)
            self._news = anyio.Event()
            for agent in list(self._gathered):
                self.settle(agent)

    async def lead(self) -> None:
        """Listen to those that stand by."""
        self._subscriptions = [
            await self._connection.subscribe(HANDED, self._handed, queue=QUEUE),
            await self._connection.subscribe(SEEN, self._seen),
        ]

    def stand_by(self) -> None:
        """Stop listening to them, and gather nothing more."""
        for agent in list(self._gathered):
            self.settle(agent)
        for subscription in self._subscriptions:
            subscription.unsubscribe()
        self._subscriptions = []

    async def record(self, request: Command, agent: str) -> None:
        """Have an internal command carried out for `agent`, here or by the leader. On return it is stored, or was
        refused; what gathers is only taken on. Raises Unavailable when nobody leads."""
        operation = OPERATION_OF[type(request)]
        if self._may_lead():
            if isinstance(request, recall.Note) and self._subscriptions:
                self._gathered.setdefault(agent, []).append(Call(operation, request, agent, _noted(operation, agent)))
                self._news.set()
                return
            try:
                await self._executor.execute(operation, request, agent)
            except Unavailable:
                raise
            except BusError as error:
                _noted(operation, agent)(error)
            return
        subject = handed_subject(agent, operation.name)
        try:
            message = await self._connection.request(subject, encode_request(request), timeout_s=HAND_S)
            _decided(operation, agent, message.data)
        except Unavailable as error:
            raise Unavailable(
                "what this reading shows could not be recorded",
                code="no_leader",
                entity=f"agent {agent}",
                expected="a daemon that leads",
                found=f"none that answers ({error.code})",
                hint="Ask again in a moment",
                retry_after_s=0.2,
            ) from None

    def settle(self, agent: str) -> None:
        """Have carried out now what has gathered for `agent`."""
        for call in self._gathered.pop(agent, ()):
            self._executor.submit(call)

    def tell(self, agents: Sequence[str]) -> None:
        """Tell the leader who was heard here. Nothing is lost for good when it does not hear it: they ask again."""
        if self._connection.connected:
            self._connection.send(SEEN, msgspec.json.encode(agents))

    def _seen(self, message: Message) -> None:
        try:
            names = msgspec.json.decode(message.data, type=list[str])
        except msgspec.MsgspecError:
            return
        self._presence.told(name for name in names if is_name(name))

    def _handed(self, message: Message) -> None:
        def answer(result: Reply | BusError) -> None:
            if message.reply:
                self._connection.send(message.reply, encode_answer(result))

        try:
            asked = parse_handed(message.subject)
            operation = OPERATIONS.get(f"{asked.family}.{asked.verb}")
            if operation is None or operation.kind != "do" or not operation.internal or not is_name(asked.agent):
                raise NotAllowed("only internal commands are handed over", code="not_internal", entity=message.subject)
            request = decode_request(operation, message.data)
            if not isinstance(request, Command):
                raise InvalidRequest("only a command is handed over", entity=message.subject)
            if not self._may_lead():
                raise Unavailable("this daemon does not lead", code=NOT_LEADING, retry_after_s=0.2)
            self._executor.submit(Call(operation, request, asked.agent, answer))
        except Exception as error:
            answer(as_error(message.subject, error))


def _noted(operation: Operation, agent: str) -> Callable[[Reply | BusError], None]:
    def answer(result: Reply | BusError) -> None:
        if isinstance(result, BusError):
            logger.warning("not recorded", operation=operation.name, agent=agent, error=str(result))

    return answer


def _decided(operation: Operation, agent: str, body: bytes) -> None:
    """What the leader made of a command. Raises Unavailable when it was no leader; what a leader refuses is noted, as
    it is where it leads itself."""
    try:
        decode_answer(operation, body)
    except BusError as error:
        if error.code == NOT_LEADING:
            raise
        _noted(operation, agent)(error)
