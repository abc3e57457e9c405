"""Random steps: commands, valid and not, records no command makes, and time that passes; and how they are taken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import msgspec
from hypothesis import strategies as st

from bus.domain import (
    agent,
    channel,
    directive,
    dm,
    inbox,
    intent,
    journal,
    kv,
    memory_requests,
    recall,
    registry,
    reminder,
    reservation,
    session_requests,
    stream,
    task_requests,
    tenant,
    vault,
    vector,
)
from bus.errors import BusError
from bus.events import AGENT, ENTITY, MSG_ID, SCHEMA, TYPE
from bus.execute import Executor
from bus.log import MemoryLog
from bus.model import Command, Limits
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.subjects import SYSTEM, bucket_of, log_subject
from bus.world import Speculation, World
from tests.property.clockwork import Ids, Time

AGENTS, TASKS, CHANNELS = ("ada", "bob", "cyd"), ("t-1", "t-2", "t-3"), ("dev", "ops")

agents, tasks, channels = st.sampled_from(AGENTS), st.sampled_from(TASKS), st.sampled_from(CHANNELS)
labels = st.lists(st.sampled_from(("a", "b", "c")), max_size=3, unique=True).map(tuple)
seqs = st.integers(1, 40)
needs = st.lists(tasks, max_size=2, unique=True).map(tuple)
memories = st.sampled_from(("m-1", "m-2", "m-3", "p-1", "p-2"))
text = st.sampled_from(("hi", "@bob look", "a\x00b", "‽ üñï", "x" * 300))
commands = st.one_of(
    st.builds(task_requests.Open, title=text, task=tasks, labels=labels, needs=needs, priority=st.integers(0, 9)),
    st.builds(task_requests.Claim, task=tasks, lease_s=st.sampled_from((1, 600))),
    st.builds(task_requests.Next),
    st.builds(task_requests.Release, task=tasks),
    st.builds(task_requests.Complete, task=tasks, result=text, refs=st.lists(seqs, max_size=2).map(tuple)),
    st.builds(task_requests.Fail, task=tasks, retry=st.booleans()),
    st.builds(task_requests.Cancel, task=tasks),
    st.builds(task_requests.Reopen, task=tasks),
    st.builds(task_requests.Amend, task=tasks, labels=labels, title=text),
    st.builds(task_requests.Handoff, task=tasks, to=agents),
    st.builds(channel.Join, channel=channels),
    st.builds(channel.Leave, channel=channels),
    st.builds(channel.Post, channel=channels, text=text),
    st.builds(channel.Pin, channel=channels, message=seqs),
    st.builds(channel.Unpin, channel=channels, message=seqs),
    st.builds(channel.Edit, channel=channels, message=seqs, text=text),
    st.builds(channel.Archive, channel=st.just("ops")),
    st.builds(dm.Post, to=agents, text=text),
    st.builds(dm.Pin, to=agents, message=seqs),
    st.builds(inbox.Show, upto=seqs, seqs=st.lists(seqs, min_size=1, max_size=2).map(tuple)),
    st.builds(inbox.Ack, upto=seqs),
    st.builds(agent.Update, model=st.sampled_from(("m1", "m2")), roles=st.none() | labels),
    st.builds(agent.Route, models=st.lists(st.sampled_from(("m1", "m2")), max_size=2).map(tuple)),
    st.builds(agent.Grant, agent=agents, authority=st.just("auditor")),
    st.builds(agent.Withdraw, agent=agents, authority=st.just("auditor")),
    st.builds(intent.Declare, key=tasks, text=text, lease_s=st.sampled_from((1, 600))),
    st.builds(intent.Withdraw, key=tasks),
    st.builds(reservation.Reserve, paths=labels.filter(bool), lease_s=st.sampled_from((1, 600))),
    st.builds(reservation.Reserve, paths=st.just(("a/**", "*b"))),
    st.builds(reservation.Release, paths=st.just(("*b",)), all=st.booleans()),
    st.builds(directive.Give, text=text, to=st.none() | agents, directive=st.just("d-1"), due_in_s=st.just(1)),
    st.builds(directive.Give, text=text, role=st.sampled_from(("a", "b")), directive=st.just("d-1")),
    st.builds(directive.Acknowledge, directive=st.just("d-1")),
    st.builds(directive.Complete, directive=st.just("d-1"), refs=st.lists(seqs, max_size=2).map(tuple)),
    st.builds(directive.Decline, directive=st.just("d-1")),
    st.builds(reminder.Set, text=text, in_s=st.integers(1, 2)),
    st.builds(reminder.Set, text=text, every=st.just("60s"), reminder=st.just("r-1")),
    st.builds(reminder.Cancel, reminder=st.just("r-1")),
    st.builds(journal.Write, focus=text, done=st.lists(text, max_size=2).map(tuple)),
    st.builds(kv.Set, key=tasks, value=text, expires_in_s=st.sampled_from((None, 1, 600))),
    st.builds(kv.Merge, key=tasks, patch=st.just({"a": {"b": 1}})),
    st.builds(kv.Delete, key=tasks),
    st.builds(stream.Append, stream=tasks, data=text),
    st.builds(vault.Write, path=tasks, content=text),
    st.builds(vault.Write, path=tasks.map("d/{}".format), content=text),
    st.builds(vault.Rename, path=tasks | st.just("d"), new_path=tasks | st.just("e")),
    st.builds(vault.Delete, path=tasks | st.just("d")),
    st.builds(vector.Upsert, collection=st.just("v"), vector=tasks, numbers=st.just((1.0, 2.0))),
    st.builds(vector.Delete, collection=st.just("v"), vector=tasks),
    st.builds(registry.RegisterModel, model=st.just("m1"), context_tokens=st.none() | st.just(1000)),
    st.builds(session_requests.Open, session=tasks, scope=st.sampled_from(("private", "shared")), nearest=st.just(3)),
    st.builds(session_requests.Add, session=tasks, role=st.just("user"), content=text, embedding=st.just((1.0, 2.0))),
    st.builds(session_requests.Compact, session=tasks, keep=st.none() | st.just(3)),
    st.builds(session_requests.Configure, session=tasks, strategy=st.just("window"), title=text),
    st.builds(session_requests.Clear, session=tasks),
    st.builds(
        memory_requests.Write, content=text, subject=text, tags=labels, refs=st.lists(seqs, max_size=2).map(tuple)
    ),
    st.builds(memory_requests.Write, content=text, scope=st.just("private"), metadata=st.just({"a": [1, "ü"]})),
    st.builds(memory_requests.Append, memory=memories, text=text),
    st.builds(memory_requests.Revise, memory=memories, content=st.none() | text, tags=st.none() | labels),
    st.builds(memory_requests.Supersede, memory=memories, content=text),
    st.builds(memory_requests.Retract, memory=memories),
    st.builds(memory_requests.Restore, memory=memories),
    st.builds(memory_requests.Link, memory=memories, other=memories, remove=st.booleans()),
    st.builds(memory_requests.Contradict, memory=memories, other=memories),
    st.builds(memory_requests.Resolve, memory=memories, other=memories),
    st.builds(recall.Note, question=text, seqs=st.lists(seqs, max_size=2).map(tuple)),
)


@dataclass(frozen=True)
class Foreign:
    """A record that an administrator, or a newer version, wrote."""

    type: str
    family: str
    entity: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


foreign = st.builds(
    Foreign,
    type=st.sampled_from(("task.claimed", "task.opened", "task.painted", "channel.joined", "needs.linked", "")),
    family=st.sampled_from(("task", "channel", "needs", "nobody")),
    entity=st.sampled_from((*TASKS, *CHANNELS)),
    body=st.sampled_from(
        (
            b"{}",
            b"\xff\xfe",
            b"[1]",
            b'{"title": "t", "priority": 99999999999999999999999, "labels": ["z", "\\u0000"]}',
            b'{"needs": ["t-1", "t-9"]}',
            b'{"lease_s": 5, "expires": "2026-01-01T00:00:00+02:00", "until": "2026-01-01T00:00:00Z"}',
        )
    ),
    headers=st.sampled_from(({}, {SCHEMA: "7"}, {AGENT: "x|ada|"})),
)
asked = st.tuples(agents, commands)
steps = st.lists(
    st.one_of(asked, asked, asked, asked, foreign, st.integers(1, 2_000_000_000)), min_size=30, max_size=60
)
Step = tuple[str, Command] | Foreign | int


def aimed(request: Command, log: MemoryLog) -> Command:
    """A request that touches a message, touching one that there is: the number it names counts them."""
    if not hasattr(request, "message"):
        return request
    family = OPERATION_OF[type(request)].family
    there = [record.seq for record in log.records if record.headers.get(TYPE) == f"{family}.posted"]
    return msgspec.structs.replace(request, message=there[request.message % len(there)])


async def happen(log: MemoryLog, clock: Time, what: Sequence[Step]) -> Executor:
    """Run the steps one after the other against a fresh executor; refusals are part of life."""
    executor = Executor(log, Speculation(World(FAMILIES)), clock, Ids(), CODEC, Limits(), lambda: True)

    def fold() -> None:
        for record in log.records[executor.world.position :]:
            executor.fold(CODEC.decode(record))

    async with anyio.create_task_group() as tasks_:
        tasks_.start_soon(executor.pipeline.run)
        tasks_.start_soon(executor.run_fetches)

        async def ask(author: str, request: Command) -> None:
            with suppress(BusError):
                request = aimed(request, log)
                await executor.execute(OPERATION_OF[type(request)], request, author, f"r{len(log.records)}")
            fold()

        await ask(SYSTEM, tenant.Found(tenant="acme", owner="ada"))
        for name in AGENTS[1:]:
            await ask("ada", agent.Register(agent=name))
        await ask("ada", task_requests.Open(title="first", task="t-1", labels=("a", "b")))
        await ask("bob", channel.Join(channel="dev"))
        await ask("bob", channel.Post(channel="dev", text="hello"))
        await ask("bob", dm.Post(to="ada", text="hello"))
        for step in what:
            if isinstance(step, int):
                clock.now_ns += step
                executor.expire()
                while executor.waiting:
                    await anyio.lowlevel.checkpoint()
                fold()
            elif isinstance(step, Foreign):
                headers = {
                    MSG_ID: f"f{len(log.records)}",
                    TYPE: step.type,
                    SCHEMA: "1",
                    ENTITY: step.entity,
                    AGENT: "x",
                }
                subject = log_subject("default", step.family, bucket_of(step.entity))
                log.put(subject, headers | step.headers, step.body)
                fold()
            else:
                await ask(*step)
        tasks_.cancel_scope.cancel()
    return executor
