"""Random commands, valid and not, and records no command makes, folded in random batches: at every seq every table is
what a plain dictionary of states says, whatever the batches were, after a kill, and in a rebuild."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.clock import EPOCH
from bus.domain import (
    agent,
    channel,
    directive,
    dm,
    inbox,
    intent,
    journal,
    kv,
    memory,
    memory_requests,
    recall,
    registry,
    reminder,
    reservation,
    session,
    session_requests,
    stream,
    task_requests,
    tenant,
    vault,
    vector,
)
from bus.errors import BusError
from bus.events import AGENT, ENTITY, MSG_ID, SCHEMA, TYPE, Event, Record, Unknown
from bus.execute import Executor
from bus.log import MemoryLog
from bus.model import Command, Limits
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.subjects import SYSTEM, bucket_of, log_subject
from bus.world import Speculation, World
from projections import replay
from projections.batch import CHAIN_START, Projection, link
from projections.reader import Reader
from projections.schema import Schema, discover
from projections.store import FILE, Store
from projections.views.events import EVENT
from projections.worker import Worker

SCHEMA_ = Schema(FAMILIES, discover(), EVENT)
AGENTS, TASKS, CHANNELS = ("ada", "bob", "cyd"), ("t-1", "t-2", "t-3"), ("dev", "ops")


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


# --- what happens ------------------------------------------------------------------------------------------------

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


# --- what the tables have to say ----------------------------------------------------------------------------------


@dataclass
class Known:
    """An entity in the plain dictionary: its first and last change, its state, and since when it has each item."""

    kid: int
    since: int
    state: Any
    items: dict[str, dict[Any, tuple[int, Any]]]


def oracle(records: Sequence[Record]) -> Iterator[tuple[Event, dict[Any, Known]]]:
    """Every event, and everything that is known after it."""
    families = {family.name: family for family in FAMILIES}
    known: dict[Any, Known] = {}
    for record in records:
        event = CODEC.decode(record)
        family = families.get(event.family)
        if family is not None and not isinstance(event.fact, Unknown):
            place = (family.state, event.namespace, event.entity)
            before = known.get(place)
            state = family.evolve(before.state if before else None, event)
            if state is not None and (before is None or state is not before.state):
                items = _items(state, before, event.seq)
                known[place] = Known(before.kid if before else event.seq, event.seq, state, items)
        yield event, dict(known)


def _items(state: Any, before: Known | None, seq: int) -> dict[str, dict[Any, tuple[int, Any]]]:
    found: dict[str, dict[Any, tuple[int, Any]]] = {}
    for name, value in msgspec.structs.asdict(state).items():
        if isinstance(value, frozenset | dict):
            old = before.items[name] if before else {}
            new = value if isinstance(value, dict) else dict.fromkeys(value)
            found[name] = {i: old[i] if i in old and old[i][1] == v else (seq, v) for i, v in new.items()}
    return found


def expected(known: dict[Any, Known], table: str) -> set[Any]:
    """The rows of an entity's or item's table, without `seq_to`."""
    rows: set[Any] = set()
    for (state, namespace, key), one in known.items():
        readers = _audience(state, key)
        values = msgspec.structs.asdict(one.state)
        if state.table == table:
            scalars = [_stored(v) for v in values.values() if not isinstance(v, frozenset | dict)]
            rows.add((one.kid, one.since, namespace, key, *scalars, *readers))
        for name, items in one.items.items():
            if f"{state.table}_{name}" == table:
                values = {
                    item: (value,) if isinstance(getattr(one.state, name), dict) else ()
                    for item, (_, value) in items.items()
                }
                rows |= {
                    (one.kid, since, namespace, key, item, *values[item], *readers)
                    for item, (since, _) in items.items()
                }
    return rows


def _audience(state: Any, key: str) -> tuple[str | None, ...]:
    """The last column of a table whose rows not everybody may see."""
    if state in (memory.Memory, session.Session):
        return (f"|{key.split('+')[0]}|" if "+" in key else None,)
    return ("|" + "|".join(key.split("+")) + "|",) if state is dm.Dm else ()


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def whole(store: Store, table: str) -> list[tuple[Any, ...]]:
    return [row for rows in store.chunks(f'select * from "{table}"') for row in rows]


def check(store: Store, records: Sequence[Record]) -> None:
    """Every table at every seq is what the oracle says, and the chain is that of the records."""
    assert store.chain == reduce(link, records, CHAIN_START)
    tables = {name: whole(store, name) for name in SCHEMA_.tables}
    assert [row[0] for row in tables["event"]] == list(range(1, len(records) + 1))
    for event, known in oracle(records):
        for name, table in SCHEMA_.tables.items():
            if table.has_end:
                valid = [row for row in tables[name] if row[1] <= event.seq < row[2]]
                rows = [row[:2] + row[3:] for row in valid]
                assert len(set(rows)) == len(rows)
                assert set(rows) == expected(known, name), (name, event.seq)


# --- folding ------------------------------------------------------------------------------------------------------


class Folding:
    """Folds records into a store in batches of any size."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, SCHEMA_)
        self.world = World(FAMILIES)
        self.store.load_world(self.world)
        self.rows = Projection(SCHEMA_, self.store.position, self.store.stored_ns, self.store.chain)

    def fold(self, records: Sequence[Record]) -> None:
        for size in (1, 2, len(records)):  # However the events are cut into slices, the tables are the same.
            part, records = records[:size], records[size:]
            if part:
                events = [CODEC.decode(record) for record in part]
                self.rows.take(part, events, [self.world.fold(event) for event in events])
        self.store.commit(self.rows.cut())

    def killed(self, path: Path) -> Folding:
        """The same after a kill: a new process finds the files as they are now."""
        for suffix in ("", ".wal"):
            if (old := Path(f"{self.store.path}{suffix}")).exists():
                shutil.copy(old, f"{path}{suffix}")
        anyio.run(self.store.close)
        return Folding(path)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)
@given(what=steps, cuts=st.sets(st.integers(1, 60), max_size=12), kill=st.integers(0, 12), moment=st.integers(0, 60))
def test_every_table_at_every_seq_is_what_a_dictionary_says(
    what: list[Step], cuts: set[int], kill: int, moment: int
) -> None:
    clock = Time()
    log = MemoryLog(CODEC, clock.stamp_ns)
    executor = anyio.run(happen, log, clock, what)
    records = log.records
    bounds = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    with tempfile.TemporaryDirectory() as folder:
        folding = Folding(Path(folder) / FILE)
        for number, (start, end) in enumerate(pairwise(bounds)):
            if number == kill:
                folding = folding.killed(Path(folder) / "after.duckdb")
            folding.fold(records[start:end])
        check(folding.store, records)
        same_world(folding.store, executor.world)
        anyio.run(rebuilt, log, folding.store, Path(folder), min(moment, len(records)))
        anyio.run(folding.store.close)


def same_world(store: Store, world: World) -> None:
    """Loading the tables gives the world that folding gave, to the seq."""
    loaded = World(FAMILIES)
    store.load_world(loaded)
    assert (loaded.position, loaded.tips, loaded.skipped) == (world.position, world.tips, world.skipped)
    for family in FAMILIES:
        ours = {(namespace, key): entry for namespace, key, entry in loaded.entries(family.state)}
        theirs = {(namespace, key): entry for namespace, key, entry in world.entries(family.state)}
        assert ours == theirs


async def rebuilt(log: MemoryLog, store: Store, folder: Path, seq: int) -> None:
    """A fold of the raw log to `seq` has the digests that the tables have as of `seq`, and SQL as of `seq` is right."""
    async with replay.fold_log(log, SCHEMA_, seq, folder) as scratch:
        compared = await replay.compare(store, scratch.store, seq)
        assert all(table.equal for table in compared.values()), compared
        if seq == store.position:
            assert scratch.store.chain == store.chain
    known = next((known for event, known in oracle(log.records) if event.seq == seq), {})

    def read(reader: Reader) -> dict[str, set[Any]]:
        ended = [name for name, table in SCHEMA_.tables.items() if table.has_end]
        return {name: set(reader.rows(f"select * from {reader.at(name)}")) for name in ended}

    for name, rows in (await store.read(seq, "", EPOCH, read, sees_all=True)).items():
        assert rows == expected(known, name)
    for name, rows in (await store.read(seq, "bob", EPOCH, read)).items():
        hidden = name.startswith(("dm", "memory", "session"))
        mine = {row for row in expected(known, name) if not hidden or row[-1] is None or "|bob|" in row[-1]}
        assert rows == mine


async def test_a_worker_that_follows_a_growing_log_writes_what_one_big_batch_gives(tmp_path: Path) -> None:
    clock = Time()
    log = MemoryLog(CODEC, clock.stamp_ns)
    what: list[Step] = []
    for number in range(40):
        one, task = AGENTS[number % 3], f"t-{number + 10}"
        what += [
            (one, channel.Join(channel="dev")),
            (one, channel.Post(channel="dev", text=f"round {number}")),
            (one, task_requests.Open(title="t", task=task, labels=("a", f"l{number}"))),
            (one, task_requests.Claim(task=task, lease_s=1)),
            1_500_000_000 if number % 2 else 1,
            (one, task_requests.Complete(task=task)),
        ]
    world = World(FAMILIES)
    async with Store.opened(tmp_path, FAMILIES, discover(), log) as store:
        worker = Worker(log, store, world.fold, clock)
        async with anyio.create_task_group() as tasks_:
            tasks_.start_soon(worker.run)
            await happen(log, clock, what)
            assert await worker.reached(len(log.records), 20)
            tasks_.cancel_scope.cancel()
        check(store, log.records)
        same_world(store, world)
        await rebuilt(log, store, tmp_path, len(log.records))
