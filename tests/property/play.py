"""A driver that runs random commands through a real Executor on a log in memory.

Rules:
* Every text of a direct message carries a secret that stands nowhere else, so that a leak can be searched for.
* Refusals are part of life: many commands make no sense, and those leave no event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from bus.domain import (
    agent,
    channel,
    directive,
    dm,
    journal,
    kv,
    memory,
    memory_requests,
    session,
    session_requests,
    task_requests,
    tenant,
    vault,
    vector,
)
from bus.domain.task import Task
from bus.errors import BusError, Defect
from bus.events import AGENT, ENTITY, MSG_ID, SCHEMA, TYPE
from bus.execute import Executor
from bus.log import MemoryLog
from bus.model import Command, Limits
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.subjects import SYSTEM, TENANT, bucket_of, log_subject, untoken
from bus.world import Speculation, World
from tests.property.clockwork import Ids, Time
from tests.property.happenings import Step
from tests.property.sayings import AGENTS, CHANNELS, SPACES, TASKS
from tests.property.steps import Foreign

KNOWN: Sequence[tuple[str, Command]] = (
    ("ada", memory_requests.Write(content="the parser needs a fix", subject="user:1", category="do_not")),
    ("bob", memory_requests.Write(content="bob fixes TS2345 in src/parseUserInput.py", subject="user:1", priority=2)),
    ("bob", memory_requests.Write(content="fix it alone", scope="private", subject="user:1", metadata={"a": 1})),
    ("c_d", memory_requests.Write(content="50% of the parser", scope="private", embedding=(0.1, 1.0))),
    ("ada", memory_requests.Write(content="ada is slow", embedding=(1.0, 0.5))),
    ("ada", memory_requests.Contradict(memory="m-1", other="m-2", reason="fix what?")),
    ("bob", memory_requests.Contradict(memory="m-2", other="p-1")),
    ("bob", journal.Write(focus="the parser", next_steps=("fix TS2345",))),
    ("bob", session_requests.Open(session="s-a", scope="shared", recent_tokens=6)),
    ("bob", session_requests.Add(session="s-a", role="system", content="fix the parser first")),
    ("ada", session_requests.Add(session="s-a", role="user", content="where is the parser?")),
    ("bob", session_requests.Add(session="s-a", role="assistant", content="bob fixes TS2345 in src/parseUserInput.py")),
    ("ada", vault.Create(path="a.md", content="one\ntwo\n")),
    ("ada", vault.Create(path="b/c.md", content="one\ntwo\n")),
)
"""Is there before anything random happens: who asks for it, and what."""


class Play:
    """Runs commands one after the other. `secrets` are the words said in private, with who may know them."""

    def __init__(self) -> None:
        self.clock = Time()
        self.log = MemoryLog(CODEC, self.clock.stamp_ns)
        self.secrets: dict[str, frozenset[str]] = {}
        world = World(FAMILIES)
        self._executor = Executor(
            self.log, Speculation(world), self.clock, Ids(), CODEC, Limits(lease_cap_s=3600), lambda: True
        )

    async def run(self, what: Sequence[Step]) -> None:
        async with anyio.create_task_group() as parts:
            parts.start_soon(self._executor.pipeline.run)
            parts.start_soon(self._executor.run_fetches)
            await self._ask(SYSTEM, tenant.Found(tenant="acme", owner="ada"))
            for name in (*AGENTS[1:], "cxd"):
                await self._ask("ada", agent.Register(agent=name, harness="h", device=name, parent="ada"))
            for space in SPACES:
                for room in CHANNELS:
                    await self._ask("bob", channel.Join(channel=room, namespace=space))
                    await self._ask("ada", channel.Post(channel=room, text="@bob fix", namespace=space))
                for task in TASKS[:2]:
                    await self._ask("ada", task_requests.Open(title="do", task=task, labels=("red",), namespace=space))
            await self._ask("ada", channel.Post(channel="dev", text="50 aXb, not 50% of a_B"))
            await self._ask("ada", channel.Post(channel="dev", text="50 aXb"))
            await self._ask("ada", task_requests.Open(title="then", task="t-4", needs=TASKS[:2]))
            for one, other in (("bob", "ada"), ("c_d", "bob"), ("cxd", "c_d"), ("ada", "ada")):
                await self._ask(one, dm.Post(to=other, text="fix"))
            await self._ask("ada", kv.Set(key="a", value={"a": 1}))
            await self._ask("ada", vector.Upsert(collection="v", vector="a", numbers=(1.0, 0.5)))
            for author, request in KNOWN:
                await self._ask(author, request)
            for step in what:
                await self._step(step)
            parts.cancel_scope.cancel()

    async def _step(self, step: Step) -> None:
        if isinstance(step, int):
            self.clock.now_ns += step
            self._executor.expire()
            while self._executor.waiting:
                await anyio.lowlevel.checkpoint()
            self._fold()
        elif isinstance(step, Foreign):
            headers = {
                TYPE: step.type,
                SCHEMA: "1",
                ENTITY: step.entity,
                AGENT: "x",
                MSG_ID: f"f{len(self.log.records)}",
            }
            self.log.put(log_subject("default", step.family, bucket_of(step.entity)), headers, step.body)
            self._fold()
        else:
            await self._ask(*step)

    async def _ask(self, author: str, request: Command, proper: bool = False) -> None:
        try:
            request = self._aimed(author, request)
            author = self._who_may(author, request) if proper else author
            request = self._private(author, request)
            await self._executor.execute(OPERATION_OF[type(request)], request, author)
        except Defect:
            raise
        except BusError:
            pass  # Refusals are part of life.
        self._fold()

    def _fold(self) -> None:
        for record in self.log.records[self._executor.world.position :]:
            self._executor.fold(CODEC.decode(record))

    def _who_may(self, author: str, request: Any) -> str:
        """The agent that may do this, as far as it depends on who asks."""
        world = self._executor.world
        entry = world.entry(Task, request.namespace, getattr(request, "task", None) or "")
        if entry is not None and entry.state.owner is not None:
            offered = isinstance(request, task_requests.Accept | task_requests.Decline)
            author = (entry.state.offered_to if offered else entry.state.owner) or author
        elif isinstance(request, directive.Complete | directive.Decline | directive.Acknowledge | directive.Cancel):
            author = self._who_is_told(author, request)
        elif OPERATION_OF[type(request)].family == "memory":
            author = self._who_may_change(author, request)
        elif isinstance(request, channel.Edit):
            author = self.log.records[request.message - 1].headers[AGENT]
        elif OPERATION_OF[type(request)].family == "agent":
            author = "ada"
        known = world.entry(agent.Agent, TENANT, author)
        return author if known is not None and known.state.active else "ada"

    def _who_is_told(self, author: str, request: Any) -> str:
        """Who may say what becomes of a directive."""
        entry = self._executor.world.entry(directive.Directive, request.namespace, request.directive)
        if entry is None:
            return author
        known = entry.state
        return known.giver if isinstance(request, directive.Cancel) else known.agent or min(known.to, default=author)

    def _who_may_change(self, author: str, request: Any) -> str:
        """Who wrote that entry, or, of those of the tenant, its owner."""
        for namespace, key, entry in self._executor.world.entries(memory.Memory):
            if namespace == request.namespace and memory.name_of(key) == getattr(request, "memory", None):
                return str(entry.state.author)
        return "ada" if getattr(request, "memory", "").startswith("seed-") else author

    def _aimed(self, author: str, request: Command) -> Command:
        """`request` with its numbers of messages replaced by seqs of its conversation: 1 is the newest message."""
        if isinstance(request, session_requests.Compact | session_requests.Replace):
            return self._aimed_at_turn(author, request)
        there = [record.seq for record in self.log.records if self._fits(author, request, record.headers)]
        given = {
            name: there[-value % len(there)]
            for name in ("message", "reply_to", "from_message")
            if there and (value := getattr(request, name, None)) is not None
        }
        return replace(request, **given)

    def _aimed_at_turn(self, author: str, request: Any) -> Command:
        """`request` with its number of a turn replaced by the seq of one: 1 is the newest of that session."""
        key = self._key(author, request, request.key if hasattr(request, "key") else request.session)
        there = [
            record.seq
            for record in self.log.records
            if record.headers.get(TYPE) == "session.added"
            and (untoken(record.headers[ENTITY]), record.subject.split(".")[1]) == (key, request.namespace)
        ]
        given = {"upto": there[-request.upto % len(there)]} if request.upto is not None and there else {}
        entry = self._executor.world.entry(session.Session, request.namespace, key)
        if isinstance(request, session_requests.Replace) and entry is not None:
            given |= {"key": key, "start": entry.state.begins}
        return replace(request, **given)

    def _key(self, author: str, request: Any, name: str) -> str:
        """The key of the session that the author calls so."""
        own = session.own_key(name, author)
        shared = self._executor.world.entry(session.Session, request.namespace, name) is not None
        mine = self._executor.world.entry(session.Session, request.namespace, own) is not None
        return own if mine or not shared else name

    def _fits(self, author: str, request: Any, headers: Mapping[str, str]) -> bool:
        family = OPERATION_OF[type(request)].family
        if headers.get(TYPE) != ("dm.posted" if family == "dm" else "channel.posted"):
            return False
        pair = dm.pair(author, request.to) if family == "dm" and hasattr(request, "to") else None
        entity = untoken(headers[ENTITY])
        return entity == (pair or getattr(request, "channel", entity))

    def _private(self, author: str, request: Command) -> Command:
        """A direct message says something that nobody else ever says."""
        if isinstance(request, memory_requests.Write) and request.scope == "private":
            secret = f"secret{len(self.secrets)}."
            self.secrets[secret] = frozenset((author,))
            return replace(request, content=f"{request.content} {secret}")
        if isinstance(request, session_requests.Add) and "+" in self._key(author, request, request.session):
            secret = f"secret{len(self.secrets)}."
            self.secrets[secret] = frozenset((author,))
            return replace(request, content=f"{request.content} {secret}")
        if not isinstance(request, dm.Post | dm.Edit):
            return request
        secret = f"secret{len(self.secrets)}."
        self.secrets[secret] = frozenset((author, request.to))
        return replace(request, text=f"{request.text} {secret}")
