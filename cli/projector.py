"""The projector: what serves a home that follows a bus elsewhere. The composition root of its process.

    log there -> uplink -> worker -> world and tables here
    ask.<agent>.see.> on this host's own server -> intake -> api -> tables      (as of what has come here)
    ask.<agent>.do.>                            -> intake -> api -> forwarder -> uplink -> the leader there

Rules:
* Its agents are those that its credentials name. Who asks is enforced twice: by the server of this host, which knows
  their credentials here, and by the one there, which lets this projector ask for nobody else.
* Queries are answered from the tables here, whether or not the bus is in reach, once the tables were complete once. An
  answer says how old it is unless that is a moment ago, and what must be contained is waited for or said to be missing.
* It writes nothing. Tables that were made from another log are set aside when the process is started again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import TaskGroup

from bus import operation, remote
from bus.clock import SystemClock
from bus.config import Settings
from bus.domain import agent, inbox, log, recall, session_requests
from bus.errors import BusError, Unavailable
from bus.events import Event
from bus.files import write_atomic
from bus.home import Home
from bus.log import Log
from bus.model import Reply
from bus.protocol import Progress, encode_answer, encode_progress
from bus.remote import ENDING, STATUS_FILE, Following, Remote
from bus.server import read_server
from bus.subjects import CARE
from bus.transport import Connection, connect
from bus.wire import Message
from bus.world import Change, World
from cli import serving
from cli.api import Api, Elsewhere, as_error
from cli.forwarding import Forwarder
from cli.intake import QUEUE, Intake
from cli.replays import Replays
from cli.uplink import Uplink
from projections import loading
from projections.replay import rebuild
from projections.store import Store
from projections.worker import Worker

logger = structlog.get_logger(__name__)

START_S = 2.0
"""So long a start waits for the bus, to look whether the tables are of its log."""
LOOK_S = 1.0
"""How often it asks where the log ends, and says how it is."""
STALE_S = 3.0
"""Without the log's word for so long, answers say how old they are."""
VERIFY, REBUILD = "verify", "rebuild"
"""What a command of the home may ask, as the last token of the subject."""
DRAIN_S = 1.0
HEARD_SHARE = 0.25
"""An agent that is heard only here is mentioned to the leader before it would be taken for idle."""


Report = Callable[[Progress], None]


class Provenance:
    """Looks whether tables were made from the log that is in reach. Until the world is loaded from them, those that
    were not are set aside; after that the process has to begin anew."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loaded = False
        self._lock = anyio.Lock()

    async def check(self, log_: Log) -> None:
        async with self._lock:
            why = await loading.mismatch(self._store.chunks, self._store.position, log_)
            if why and self._loaded:
                raise serving.Ended(f"the tables are of another log: {why}")
            if why:
                await anyio.to_thread.run_sync(self._store.restart, why)

    async def settle(self) -> None:
        """From now on the tables are what they are."""
        async with self._lock:
            self._loaded = True


class Projector:
    """The projector of one home. `connection` is to the home's own server; `parts` are ended by whoever made them."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        followed: Remote,
        connection: Connection,
        store: Store,
        uplink: Uplink,
        parts: TaskGroup,
    ) -> None:
        self.home = home
        self.clock = SystemClock()
        self.store = store
        self.world = World(operation.FAMILIES)
        self.uplink = uplink
        self.worker = Worker(uplink, store, self._fold, self.clock)
        ask, heard_s = settings.file.ask, HEARD_SHARE * settings.file.presence.idle_after_s
        self.forwarder = Forwarder(uplink, self.world, self.clock, parts, timeout_s=ask.timeout_s, heard_s=heard_s)
        self.replays = Replays(uplink, store, self.clock, serving.scratch_of(store))
        elsewhere: dict[type, Elsewhere] = dict.fromkeys(
            (inbox.Peek, recall.Recall, session_requests.BuildContext), self.forwarder.see
        )
        handlers = self.replays.handlers
        self.api = Api(self.forwarder, self.worker, self.clock, handlers, ask.reply_bytes, None, elsewhere, STALE_S)
        self.worker.on_written(self.api.folded)
        heard, agents = self.forwarder.heard, followed.creds.agents
        self.intake = Intake(
            connection, self.api, self.world, ask, self.clock, parts, heard, may_lead=lambda: True, only=agents
        )
        self._followed = followed
        self._connection = connection
        self._parts = parts
        self._head = 0
        self._complete = False
        """Whether the tables have been complete at some time."""
        self._rebuilt = anyio.Event()

    def _fold(self, event: Event) -> Change | None:
        change = self.forwarder.fold(event)
        if change is not None and change.state is agent.Agent:
            self.intake.agents_changed()
        return change

    # --- from its start to its end ---------------------------------------------------------------------------------

    async def run(self, until: Callable[[], Awaitable[None]]) -> None:
        """Serve until `until` returns, or until the tables were made anew: then the world has to be, too."""
        await serving.load(self.store, self.world, self.forwarder)
        self._recall()
        for part in (self.worker.run, self.intake.run, self._watch, self._mention, self._answer_queries):
            self._parts.start_soon(part)
        self.intake.listen("do")
        care = await self._connection.subscribe(CARE, self._care, queue=QUEUE)
        async with anyio.create_task_group() as ends:

            async def told() -> None:
                await until()
                ends.cancel_scope.cancel()

            ends.start_soon(told)
            await self._rebuilt.wait()
            ends.cancel_scope.cancel()
        care.unsubscribe()
        for kind in ("do", "see"):
            self.intake.deafen(kind)
        with anyio.move_on_after(DRAIN_S):
            while self.intake.pending:  # noqa: ASYNC110 - what is under way ends in many places
                await anyio.sleep(0.01)

    def _recall(self) -> None:
        """Know again when the tables were complete, by what was said before this process began."""
        said = remote.read_following(self.home)
        if said is None or said.complete_s is None or said.account != self._followed.creds.account:
            return
        if said.position <= self.store.position:
            self._complete = True
            self.api.current_at(self.clock.monotonic_ns() - int((_now_s() - said.complete_s) * 1e9))

    async def _answer_queries(self) -> None:
        """Listen to queries, once the tables were complete."""
        while not self._complete:
            try:
                await self.worker.reached((await self.uplink.head()).seq)
                self._complete = True
            except BusError:
                await anyio.sleep(LOOK_S)
        self.intake.listen("see")

    # --- what happens by time ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Learn where the log ends and what the time is there, and say how things are."""
        while True:
            with anyio.move_on_after(STALE_S), suppress(BusError):
                asked_ns = self.clock.monotonic_ns()
                head = await self.uplink.head()
                self._head = head.seq
                self.api.log_ended(head.seq, asked_ns)
                self.clock.observe(head.server_ns)
            self._report()
            await anyio.sleep(LOOK_S)

    async def _mention(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            await self.forwarder.mention()

    def _report(self) -> None:
        said = Following(
            pid=os.getpid(),
            url=self._followed.url,
            account=self._followed.creds.account,
            projector=self._followed.creds.name,
            agents=self._followed.creds.agents,
            connected=self.uplink.connected,
            problem=str(self.uplink.problem) if self.uplink.problem is not None else None,
            position=self.store.position,
            head=max(self._head, self.store.position),
            skipped=self.worker.skipped_total,
            complete_s=_now_s() - self.api.age_s if self._complete else None,
            at_s=_now_s(),
            counters=dict(self.intake.counters),
        )
        try:
            write_atomic(self.home.run / STATUS_FILE, msgspec.json.encode(said))
        except (OSError, BusError) as error:  # The disk may be full; whoever is asked answers all the same.
            logger.warning("the status cannot be written", error=str(error))

    # --- what a command of this home asks --------------------------------------------------------------------------

    def _care(self, message: Message) -> None:
        if not message.reply:
            return
        self._parts.start_soon(self._cared, message.subject.rpartition(".")[2], message.reply)

    async def _cared(self, verb: str, reply: str) -> None:
        def report(progress: Progress) -> None:
            self._connection.send(reply, encode_progress(progress))

        acts: Mapping[str, Callable[[Report], Awaitable[msgspec.Struct]]] = {
            VERIFY: self._verify,
            REBUILD: self._rebuild,
        }
        answer: msgspec.Struct | BusError
        try:
            answer = await acts[verb](report)
        except Exception as error:
            answer = as_error(f"projector {verb}", error)
        except BaseException:
            with suppress(BusError):
                self._connection.send(reply, encode_answer(_ending()))
            raise
        with suppress(BusError):
            self._connection.send(reply, encode_answer(answer))
        if isinstance(answer, Reply):
            self._rebuilt.set()

    async def _verify(self, report: Report) -> log.Moment:
        """Fold the raw log and compare."""
        return await self.replays.tables(log.Tables(verify=True), "", self.worker.position, report)

    async def _rebuild(self, report: Report) -> Reply:
        """Make the tables anew, beside those that are read meanwhile."""

        def progress(done: int, total: int) -> None:
            report(Progress(done=done, total=total, what="events folded"))

        await rebuild(self.worker, self.uplink, progress)
        return Reply(seq=self.worker.position)


def _ending() -> Unavailable:
    return Unavailable(
        "this projector is ending",
        code=ENDING,
        entity="the projector",
        expected="one that goes on",
        found="one that stops",
        hint="Ask again in a moment",
        retry_after_s=0.1,
    )


def _now_s() -> float:
    """This host's time, in seconds since 1970."""
    return SystemClock().server_ns() / 1e9


async def serve(home: Home, settings: Settings, url: str | None) -> None:
    """Run the projector of `home` until it is told to end. Its own server is at `url` if that is given."""
    followed, server = remote.read(home), read_server(home)
    if followed is None or server is None:
        raise SystemExit("this home follows nothing, or its server does not run; `bus projector run` sees to both")
    creds = home.keyring.daemon()
    async with (
        connect(url or server.url, creds=creds.text, name=creds.name, inbox=creds.inbox) as connection,
        serving.opened(home.projections, None) as store,
        anyio.create_task_group() as parts,
    ):
        provenance = Provenance(store)
        uplink = Uplink(followed, provenance.check)
        parts.start_soon(uplink.run)
        await uplink.connect_within(START_S)
        await provenance.settle()
        await Projector(home, settings, followed, connection, store, uplink, parts).run(serving.until_told)
        parts.cancel_scope.cancel()


def main() -> None:
    """`python -m cli.projector --home H`: run by the supervisor."""
    arguments = serving.arguments("Serve a home that follows a bus elsewhere (started by `bus projector run`).")
    asked = arguments.parse_args()
    serving.run(serve, asked.home, asked.url)


if __name__ == "__main__":
    main()
