"""The daemon: the composition root, and the root task group of everything that serves one tenant.

    log.tail -> worker -> world (decisions) and tables (queries)
    ask.<agent>.> -> intake -> api -> executor (leader) or tables

Rules:
* It reads its own credentials and never the operator's keys.
* Every daemon answers queries, once its tables contain what was stored when it started. What an agent was shown is the
  leader's to record.
* One daemon leads: it holds the lease, has folded everything that was stored when it got it, and only then listens to
  commands. Losing the lease, it stops listening and refuses what it has not stored; it leads again only when nothing of
  that is under way any more.
* It ends when the supervisor does (its standard input closes), on SIGTERM, and when a part of it fails; the supervisor
  starts it again. In an orderly end it finishes and answers what it has taken on, then gives up the lease.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import msgspec
import structlog

from bus import operation
from bus.clock import RandomIds, SystemClock, from_ns
from bus.config import Settings
from bus.domain import agent, log, memory_requests, tenant
from bus.domain import session_decisions as session
from bus.errors import BusError
from bus.events import Event
from bus.execute import Executor
from bus.files import write_atomic
from bus.home import Home
from bus.jetstream import JetStreamLog
from bus.lease import LeaderLease
from bus.lifecycle import SERVER_STUCK, DaemonFile, Helper
from bus.log import disk_nearly_full, log_nearly_full
from bus.model import Command, Limits
from bus.server import read_server
from bus.subjects import SYSTEM, TENANT, inbox_prefix
from bus.transport import Connection, connect
from bus.world import Change, Speculation, World
from cli import serving
from cli.api import Api
from cli.compaction import Compactor
from cli.intake import Intake
from cli.peers import Peers
from cli.presence import Presence
from cli.replays import Replays
from projections.store import Store
from projections.worker import Worker

if TYPE_CHECKING:
    from projections.recalling import Recalling

logger = structlog.get_logger(__name__)

LEASE_STEP_S = 1.0
LOOK_S = 0.25
"""How often a daemon that stands by looks whether it can take over."""
TICK_S = 0.2
HEAD_S = 5.0
SEAL_EVENTS = 10_000
DRAIN_S = 5.0
STUCK_APPENDS, STUCK_RENEWALS = 3, 12
"""More attempts to write than can go unanswered between two looks at the log while the server is frozen or away."""
STATUS_FILE = "daemon.json"


class Daemon:
    """One daemon of one tenant, on a connection that is open."""

    def __init__(self, home: Home, settings: Settings, connection: Connection, store: Store, force_lead: bool) -> None:
        self.home = home
        self.settings = settings
        self.clock = SystemClock()
        self.lease = LeaderLease(connection, RandomIds().short("d"), self.clock, force=force_lead)
        self.log = JetStreamLog(connection, operation.CODEC, may_send=self._may_lead)
        self._term: str | None = None
        """The term of the lease in which this daemon leads."""
        self.store = store
        self.world = World(operation.FAMILIES)
        lease, ask = settings.file.lease, settings.file.ask
        limits = Limits(lease_default_s=int(lease.default_s), lease_cap_s=int(lease.cap_s))
        self.executor = Executor(
            self.log, Speculation(self.world), self.clock, RandomIds(), operation.CODEC, limits, self._may_lead
        )
        self.worker = Worker(self.log, store, self._fold, self.clock)
        self.presence = Presence(self.world, self.clock, settings.file.presence)
        self.peers = Peers(connection, self.executor, self.presence, self._may_lead)
        replays = Replays(self.log, store, self.clock, serving.scratch_of(store))
        self.recalling = recalling_of(settings, store, self.clock)
        self.api = Api(
            self.executor,
            self.worker,
            self.clock,
            replays.handlers,
            ask.reply_bytes,
            self.peers,
            helped=self.recalling.helped if self.recalling is not None else None,
        )
        self.worker.on_written(self.api.folded)
        self.compactor = Compactor(
            store, self.worker.reached, self.world, self._ask, self.clock, settings.file, self._may_lead
        )
        self._connection = connection
        self._intake: Intake | None = None

    def _may_lead(self) -> bool:
        return self._term is not None and self.lease.term == self._term

    def _fold(self, event: Event) -> Change | None:
        change = self.executor.fold(event)
        if change is not None and change.state is agent.Agent and self._intake is not None:
            self._intake.agents_changed()
        if event.family == session.FAMILY.name:
            self.compactor.noticed(event)
        return change

    # --- the root task group -----------------------------------------------------------------------------------

    async def run(self, until: Callable[[], Awaitable[None]]) -> None:
        """Serve until `until` returns, then end in order."""
        await serving.load(self.store, self.world, self.executor)
        self.executor.view.index()
        async with anyio.create_task_group() as parts:
            limits = self.settings.file.ask
            heard, may_lead = self.presence.heard, self._may_lead
            intake = Intake(self._connection, self.api, self.world, limits, self.clock, parts, heard, may_lead)
            self._intake = intake
            parts.start_soon(self.worker.run)
            parts.start_soon(self.executor.pipeline.run)
            parts.start_soon(self.executor.run_fetches)
            parts.start_soon(self._tick)
            parts.start_soon(self._watch_log)
            parts.start_soon(self.compactor.run)
            parts.start_soon(self.peers.run)
            parts.start_soon(intake.run)
            if self.recalling is not None:
                parts.start_soon(self.recalling.run)
            async with anyio.create_task_group() as duties:
                duties.start_soon(self._answer_queries, intake)
                duties.start_soon(self._lead_when_held, intake)
                await until()
                duties.cancel_scope.cancel()
            intake.deafen("see")
            if not self.executor.waiting:
                # Otherwise what is under way might be stored in the next leader's time, which comes with the end of
                # this connection.
                with anyio.move_on_after(DRAIN_S):
                    await self.lease.release()
            parts.cancel_scope.cancel()

    async def _answer_queries(self, intake: Intake) -> None:
        await self.worker.reached(await self._head_at_last())
        intake.listen("see")

    async def _head_at_last(self) -> int:
        while True:
            try:
                return await self._head()
            except BusError as error:
                logger.warning("the log does not answer", error=str(error))
                await anyio.sleep(LOOK_S)

    async def _lead_when_held(self, intake: Intake) -> None:
        """Keep trying for the lease; lead as long as it is held without a break."""
        while True:
            await self._step()
            held = self.lease.term
            if held is not None:
                async with anyio.create_task_group() as term:
                    term.start_soon(self._lead, intake, held)
                    while self.lease.term == held:
                        await anyio.sleep(LEASE_STEP_S)
                        await self._step()
                    term.cancel_scope.cancel()
                logger.warning("no longer leading")
            await anyio.sleep(LOOK_S)

    async def _step(self) -> None:
        try:
            await self.lease.step()
        except BusError as error:
            logger.warning("the lease could not be renewed", error=str(error))

    async def _lead(self, intake: Intake, term: str) -> None:
        """Take over: see everything that is stored, then listen to commands, until cancelled."""
        while self.executor.waiting:  # noqa: ASYNC110 - of an earlier term; nothing is sent any more, so it ends soon
            await anyio.sleep(0.01)
        head = await self._head_at_last()
        await self.executor.reached(head)
        self._term = term
        try:
            if self.world.entry(tenant.Tenant, TENANT, self.home.file.tenant) is None:
                await self._ask(tenant.Found(tenant=self.home.file.tenant, owner=self.home.file.owner))
            await self._seed()
            self.executor.expire()
            self.presence.take_over()
            self.compactor.take_over()
            intake.listen("do")
            await self.peers.lead()
            logger.info("leading", head=head)
            self._report(leading=True)
            await anyio.sleep_forever()
        finally:
            await self._stand_down(intake)

    async def _stand_down(self, intake: Intake) -> None:
        """Take on nothing more; what was taken on is stored and answered before anybody else may lead."""
        intake.deafen("do")
        self.peers.stand_by()
        with anyio.CancelScope(shield=True), anyio.move_on_after(DRAIN_S):
            while self._may_lead() and self.executor.waiting:  # noqa: ASYNC110 - both ends are to be watched
                await anyio.sleep(0.01)
        self._term = None

    async def _seed(self) -> None:
        """Write what tenants begin with, if it is not there in the version of this daemon."""
        try:
            await self._ask(memory_requests.Seed())
        except BusError as error:  # It can do without, and whoever leads next tries again.
            logger.warning("the tenant's first memories are not written", error=str(error))

    async def _ask(self, request: Command) -> None:
        await self.executor.execute(operation.OPERATION_OF[type(request)], request, SYSTEM)

    # --- what happens by time ----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """End leases that are overdue and notice who has gone quiet, or tell the leader who has not."""
        while True:
            await anyio.sleep(TICK_S)
            news = self.presence.news()
            if not self._may_lead():
                if news:
                    self.peers.tell(news)
                continue
            self.executor.expire()
            for change in self.presence.changes():
                try:
                    await self._ask(change)
                except BusError as error:
                    logger.info("presence not recorded", agent=change.agent, error=str(error))

    async def _watch_log(self) -> None:
        """Learn the server's time, look how full the log is, seal the hash chain, and say how things are."""
        while True:
            try:
                await self._head()
                if self.log.unanswered >= STUCK_APPENDS or self.lease.unanswered >= STUCK_RENEWALS:
                    raise serving.Ended("the server answers and does not store", SERVER_STUCK)
                if self._may_lead():
                    await self._seal()
            except BusError as error:
                logger.warning("the log does not answer", error=str(error))
                self.log.unanswered = self.lease.unanswered = 0  # It is away, or too busy for anything.
            self._report(leading=self._may_lead())
            await anyio.sleep(HEAD_S)

    async def _head(self) -> int:
        asked_ns = self.clock.monotonic_ns()
        head = await self.log.head()
        self.api.log_ended(head.seq, asked_ns)
        self.clock.observe(head.server_ns)
        limits = self.settings.file.log
        room = shutil.disk_usage(self.home.path).free - limits.disk_reserve_bytes
        full = disk_nearly_full
        if head.max_bytes >= 0:
            below = int(head.max_bytes * limits.soft_limit_ratio) - head.bytes
            room, full = min((room, full), (below, log_nearly_full), key=lambda known: known[0])
        self.executor.measured(room, full)
        return head.seq

    async def _seal(self) -> None:
        entry = self.world.entry(log.Seal, TENANT, log.CHAIN)
        sealed = entry.state.upto if entry is not None else 0
        upto, chain = self.worker.chain
        if upto - sealed >= SEAL_EVENTS:
            await self._ask(log.SealChain(upto=upto, head=chain))

    def _helpers(self) -> list[Helper]:
        """How everything is that is not the bus's own."""
        found = self.compactor.helpers()
        return [*self.recalling.helpers(), *found] if self.recalling is not None else found

    def _report(self, leading: bool) -> None:
        """Write `run/daemon.json` for `bus status`. It is the leader's: one that stands by leaves it alone."""
        if not leading and self._led_by_another():
            return
        status = DaemonFile(
            pid=os.getpid(),
            leading=leading,
            position=self.store.position,
            lag_seq=self.worker.lag_seq,
            skipped=self.worker.skipped_total,
            at=from_ns(self.clock.server_ns()).isoformat(),
            counters=dict(self._intake.counters) if self._intake is not None else {},
            helpers=self._helpers(),
        )
        try:
            write_atomic(self.home.run / STATUS_FILE, msgspec.json.encode(status))
        except (OSError, BusError) as error:  # The disk may be full; whoever is asked answers all the same.
            logger.warning("the status cannot be written", error=str(error))

    def _led_by_another(self) -> bool:
        """Whether another daemon said lately that it leads."""
        try:
            said = msgspec.json.decode((self.home.run / STATUS_FILE).read_bytes(), type=DaemonFile)
        except (FileNotFoundError, msgspec.MsgspecError):
            return False
        age = from_ns(self.clock.server_ns()) - datetime.fromisoformat(said.at)
        return said.leading and said.pid != os.getpid() and age < timedelta(seconds=2 * HEAD_S)


def recalling_of(settings: Settings, store: Store, clock: SystemClock) -> Recalling | None:
    """What helps recall, if a setting names something; nothing of it is imported otherwise."""
    options = settings.file.recall
    if not options.embedder and not options.reranker:
        return None
    from projections.recalling import Recalling

    return Recalling(options, settings.file.openai, store, clock)


async def serve(home: Home, settings: Settings, url: str | None = None, force_lead: bool = False) -> None:
    """Run a daemon on the home's server, at `url` if that is given, until it is told to end."""
    server = read_server(home)
    if server is None:
        raise SystemExit("no server is running for this home; `bus up` starts one")
    creds = home.keyring.daemon()
    async with (
        connect(url or server.url, creds=creds.text, name=creds.name, inbox=inbox_prefix(creds.name)) as connection,
        serving.opened(home.projections, JetStreamLog(connection, operation.CODEC)) as store,
    ):
        await Daemon(home, settings, connection, store, force_lead).run(serving.until_told)


def main() -> None:
    """`python -m cli.daemon --home H`: run by the supervisor."""
    arguments = serving.arguments("Serve one tenant of a bus (started by `bus up`).")
    arguments.add_argument("--force-lead", action="store_true", help="lead without the lease (for tests only)")
    asked = arguments.parse_args()
    serving.run(serve, asked.home, asked.url, asked.force_lead)


if __name__ == "__main__":
    main()
