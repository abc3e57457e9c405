"""What may happen on a bus, and what may be asked about it: random commands, random queries, and a driver that runs
the commands through a real Executor on a log in memory.

Rules:
* Every text of a direct message carries a secret that stands nowhere else, so that a leak can be searched for.
* A request that names a message names one by number; the driver aims it at a message that is really there.
* Refusals are part of life: many commands make no sense, and those leave no event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.domain import (
    agent,
    channel,
    directive,
    dm,
    inbox,
    intent,
    journal,
    kv,
    log,
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
from bus.domain import vault_memories as tool
from bus.domain.task import Task
from bus.errors import BusError, Defect
from bus.events import AGENT, ENTITY, MSG_ID, SCHEMA, TYPE
from bus.execute import Executor
from bus.log import MemoryLog
from bus.model import Command, Limits
from bus.operation import CODEC, FAMILIES, OPERATION_OF
from bus.subjects import SYSTEM, TENANT, bucket_of, log_subject, untoken
from bus.world import Speculation, World
from tests.property.kept import COVERED, KEYS
from tests.property.test_as_of import Foreign, Ids, Time

AGENTS, ASKING = ("ada", "bob", "c_d"), ("ada", "bob", "c_d", "cxd", "stranger")
SPACES, CHANNELS, TASKS = ("default", "lab"), ("dev", "ops"), ("t-1", "t-2", "t-3")

who, where = st.sampled_from((*AGENTS, "cxd")), st.sampled_from(("default", "default", "default", "lab"))
rooms, tasks, numbers = st.sampled_from(CHANNELS), st.sampled_from(TASKS), st.integers(1, 12)
words = st.sampled_from(
    ("fix", "Fix it", "@bob look", "50% a_b", "50 aXb", "back\\slash", "üñï ÜÑÏ", "nul\0nul", "fix 50%")
)
label = st.sampled_from(("red", "blue", "a_b"))
labels = st.lists(label, max_size=3, unique=True).map(tuple)
needs = st.lists(tasks, max_size=2, unique=True).map(tuple)
some = st.lists(numbers, max_size=2).map(tuple)
soon = st.integers(0, 30).map(lambda s: datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC) + timedelta(seconds=s))
"""Around the time at which all of this happens."""
orders, bells = st.sampled_from(("d-1", "d-2")), st.sampled_from(("r-1", "r-2"))
lines = st.lists(words | st.just("long " * 100), max_size=7).map(tuple)
emoji = st.sampled_from(("+1", "👀"))
maybe = st.none()
keys, repositories = st.sampled_from(sorted(KEYS)), st.sampled_from((None, None, None, "lib"))
paths = st.lists(st.sampled_from(sorted(COVERED)), min_size=1, max_size=2, unique=True).map(tuple)
entries = st.sampled_from(("m-1", "m-2", "m-3", "p-1", "p-2", "seed-plain-voice"))
subjects, categories = st.sampled_from(("", "user:1")), st.sampled_from(("fact", "do_not", "convention", "voice_rule"))
said = st.sampled_from(("fix the parser", "Fix  the PARSER", "bob fixes TS2345 in src/parseUserInput.py", "50% a_b"))
data = st.sampled_from(({}, {"a": 1}, {"a": 1, "b": "ü"}))
pairs, things = st.sampled_from(("a", "build:x", "ü%_")), st.sampled_from(("user:1", "user:2"))
json = st.sampled_from((None, True, 7, 1.5, "nul\0", [1, {"a": None}], {"a": {"b": 1}}, {"a": None, "c": [1]}))
ends = st.sampled_from((None, None, 1, 600))
files = st.sampled_from(("a.md", "./b//c.md", "b/d/e.json", "memories/n.md"))
places = files | st.sampled_from(("b", "b/d", "memories", "x"))
notes = st.sampled_from(("/memories/n.md", "/memories/d/e/f.md", "/memories/.x", "/memories/d"))
texts = st.sampled_from(("", "one\ntwo\n", "one", "ü @[a.md] @[x] @[b/c.md]", '{"a": {"b": 1}}', "one\ntwo\n3\n4\n5"))
parts = st.sampled_from(("one", "two\n", "o", "\n"))
sets, metrics = st.sampled_from(("v", "w")), st.sampled_from(("cosine", "dot", "euclidean"))
points = st.sampled_from(((1.0, 0.5), (1.0, 0.5), (-2.0, 0.25), (0.0, 1.0), (3.0, 4.0), (1.0, 2.0, 3.0)))
chats, roles = st.sampled_from(("s-a", "s-b")), st.sampled_from(("user", "assistant", "assistant", "tool", "system"))
strategies = st.sampled_from(session.STRATEGIES)
modes, leases = st.sampled_from(("exclusive", "exclusive", "shared")), st.sampled_from((1, 600, None))


def _built(kind: type, **fields: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, namespace=where, **fields)


COMMANDS: Mapping[str, st.SearchStrategy[Command]] = {
    "talk": st.one_of(
        _built(
            channel.Post,
            channel=rooms,
            text=words,
            reply_to=maybe | numbers,
            mentions=st.lists(who, max_size=2).map(tuple),
        ),
        _built(channel.Post, channel=rooms, text=words, refs=some, causes=some),
        _built(channel.Join, channel=rooms),
        _built(channel.Leave, channel=rooms),
        _built(channel.Edit, channel=rooms, message=numbers, text=words),
        _built(channel.Pin, channel=rooms, message=numbers),
        _built(channel.Unpin, channel=rooms, message=numbers),
        _built(channel.React, channel=rooms, message=numbers, emoji=emoji, remove=st.booleans()),
    ),
    "whisper": st.one_of(
        _built(dm.Post, to=who, text=words, reply_to=maybe | numbers),
        _built(dm.Post, to=who, text=words, mentions=st.lists(who, max_size=1).map(tuple)),
        _built(dm.Edit, to=who, message=numbers, text=words),
        _built(dm.Pin, to=who, message=numbers),
        _built(dm.Unpin, to=who, message=numbers),
        _built(dm.React, to=who, message=numbers, emoji=emoji, remove=st.booleans()),
        _built(inbox.Show, upto=numbers, seqs=some),
        _built(inbox.Ack, upto=st.integers(1, 40)),
    ),
    "work": st.one_of(
        _built(task_requests.Open, task=tasks, title=words, labels=labels, needs=needs, priority=st.integers(0, 2)),
        _built(task_requests.Open, body=words, from_message=numbers, class_=st.sampled_from(("", "x"))),
        _built(
            task_requests.Open,
            task=tasks,
            title=words,
            skills=labels,
            due=maybe | soon,
            retries=st.integers(0, 2),
            retry_delay_s=st.integers(0, 1),
        ),
        _built(task_requests.Claim, task=tasks, lease_s=st.sampled_from((1, 600))),
        _built(task_requests.Next),
        _built(task_requests.Next, labels=labels, skills=labels),
        _built(task_requests.Complete, task=tasks, result=words, refs=some),
        _built(task_requests.Fail, task=tasks, reason=words, retry=maybe | st.booleans()),
        _built(task_requests.Amend, task=tasks, skills=maybe | labels, due=maybe | soon),
        _built(
            task_requests.Amend, task=tasks, labels=maybe | labels, needs=maybe | needs, priority=maybe | st.just(9)
        ),
    ),
    "hand": st.one_of(
        _built(task_requests.Renew, task=tasks, lease_s=st.just(900)),
        _built(task_requests.Release, task=tasks, reason=words),
        _built(task_requests.Cancel, task=tasks, reason=words),
        _built(task_requests.Reopen, task=tasks),
        _built(task_requests.Handoff, task=tasks, to=who, notes=words, direct=st.booleans(), refs=some),
        _built(task_requests.Accept, task=tasks),
        _built(task_requests.Decline, task=tasks, reason=words),
    ),
    "keep": st.one_of(
        _built(intent.Declare, key=keys, text=words, lease_s=leases),
        _built(intent.Declare, key=keys, lease_s=leases),
        _built(intent.Withdraw, key=keys, reason=words),
        _built(reservation.Reserve, paths=paths, mode=modes, reason=words, lease_s=leases, repository=repositories),
        _built(reservation.Reserve, paths=paths, mode=modes),
        _built(reservation.Renew, lease_s=leases, repository=repositories),
        _built(reservation.Release, paths=paths, repository=repositories),
        _built(reservation.Release, all=st.just(True), repository=repositories),
    ),
    "instruct": st.one_of(
        _built(directive.Give, to=who, text=words, directive=maybe | orders, priority=st.integers(0, 2)),
        _built(directive.Give, role=label, text=words, directive=orders, due_in_s=maybe | st.just(1)),
        _built(directive.Acknowledge, directive=orders),
        _built(directive.Complete, directive=orders, result=words, refs=some),
        _built(directive.Decline, directive=orders, reason=words),
        _built(directive.Cancel, directive=orders, reason=words),
    ),
    "store": st.one_of(
        _built(kv.Set, key=pairs, value=json, expires_in_s=ends, expect=maybe | maybe | st.just(0)),
        _built(kv.Set, key=pairs, value=json, expires_at=maybe | soon),
        _built(kv.Merge, key=pairs, patch=json, expires_in_s=ends),
        _built(kv.Delete, key=pairs),
        _built(stream.Append, stream=things, data=json),
        _built(vector.Upsert, collection=sets, vector=pairs, numbers=points, metadata=data),
        _built(vector.Upsert, collection=sets, vector=pairs, numbers=points, metadata=data, metric=metrics),
        _built(vector.Delete, collection=sets, vector=pairs),
    ),
    "file": st.one_of(
        _built(vault.Create, path=files, content=texts),
        _built(vault.Write, path=files, content=texts, expect=maybe | maybe | st.just(0)),
        _built(vault.Patch, path=files, old=parts, new=parts),
        _built(vault.Patch, path=files, merge=st.sampled_from(({"a": {"b": None, "c": [1]}}, {"a": "x"}))),
        _built(vault.Delete, path=places),
        _built(vault.Rename, path=places, new_path=places),
        _built(tool.Create, path=notes, file_text=texts),
        _built(tool.StrReplace, path=notes, old_str=parts, new_str=parts),
        _built(tool.Insert, path=notes, insert_line=st.integers(0, 2), insert_text=texts),
        _built(tool.Delete, path=notes),
        _built(tool.Rename, old_path=notes, new_path=notes),
    ),
    "note": st.one_of(
        _built(reminder.Set, text=words, to=maybe | who, in_s=st.integers(1, 3), reminder=maybe | bells),
        _built(reminder.Set, text=words, every=st.sampled_from(("1m", "* * * * *")), reminder=maybe | bells),
        _built(reminder.Cancel, reminder=bells),
        _built(journal.Write, focus=words, done=lines),
        _built(journal.Write, decisions=lines, next_steps=lines),
    ),
    "remember": st.one_of(
        _built(
            memory_requests.Write,
            content=said,
            subject=subjects,
            category=categories,
            tags=labels,
            metadata=data,
            valid_from=maybe | soon,
        ),
        _built(memory_requests.Write, content=words, valid_to=maybe | soon, priority=numbers.map(lambda n: n % 3)),
        _built(memory_requests.Write, content=said, scope=st.just("private"), subject=subjects),
        _built(memory_requests.Write, content=words, scope=st.sampled_from(("shared", "private")), embedding=points),
        _built(memory_requests.Revise, memory=entries, embedding=points | st.just(()), content=maybe | said),
        _built(memory_requests.Append, memory=entries, text=said),
        _built(
            memory_requests.Revise, memory=entries, content=maybe | said, tags=maybe | labels, metadata=maybe | data
        ),
        _built(memory_requests.Supersede, memory=entries, content=words, refs=some),
        _built(memory_requests.Retract, memory=entries),
        _built(memory_requests.Restore, memory=entries),
        _built(memory_requests.Pin, memory=entries),
        _built(memory_requests.Unpin, memory=entries),
        _built(memory_requests.Link, memory=entries, other=entries, remove=st.booleans()),
        _built(memory_requests.Contradict, memory=entries, other=entries, reason=words),
        _built(memory_requests.Resolve, memory=entries, other=entries),
        _built(recall.Note, question=words, seqs=some),
        st.builds(memory_requests.Seed),
    ),
    "converse": st.one_of(
        _built(
            session_requests.Open,
            session=chats,
            scope=st.sampled_from(("private", "shared")),
            title=words,
            strategy=strategies,
            recent_turns=st.integers(1, 3),
            recent_tokens=st.integers(1, 12),
            nearest=st.integers(1, 2),
        ),
        _built(session_requests.Add, session=chats, role=roles, content=said | words),
        _built(session_requests.Add, session=chats, role=roles, content=said, tokens=st.integers(0, 9)),
        _built(session_requests.Add, session=chats, role=roles, content=words, metadata=data, embedding=points),
        _built(session_requests.Configure, session=chats, strategy=strategies, recent_turns=maybe | st.integers(1, 3)),
        _built(
            session_requests.Configure,
            session=chats,
            recent_tokens=maybe | st.integers(1, 12),
            compact_at_tokens=maybe | numbers,
        ),
        _built(session_requests.Clear, session=chats),
        _built(session_requests.Compact, session=chats, keep=maybe | st.integers(1, 2)),
        _built(session_requests.Compact, session=chats, summary=words, upto=numbers),
        _built(
            session_requests.Replace,
            key=chats,
            start=st.just(0),
            upto=numbers,
            summary=words,
            summariser=st.sampled_from(("x", "extractive")),
        ),
    ),
    "manage": st.one_of(
        _built(channel.Archive, channel=st.just("ops")),
        _built(channel.Open, channel=rooms, topic=words),
        _built(agent.Update, model=words),
        _built(agent.Update, roles=labels),
        _built(agent.Route, agent=maybe | who, parent=maybe | who, models=st.lists(label, max_size=2).map(tuple)),
        _built(agent.Deactivate, agent=who),
        _built(agent.Reactivate, agent=who),
        _built(agent.Grant, agent=who, authority=st.sampled_from(("auditor", "owner"))),
        _built(agent.Withdraw, agent=who, authority=st.just("auditor")),
        _built(agent.ChangePresence, agent=who, presence=st.sampled_from(("online", "idle", "offline"))),
        _built(registry.RegisterModel, model=label, provider=words, context_tokens=maybe | st.just(1000)),
        _built(registry.UpdateModel, model=label, active=st.booleans()),
        _built(registry.RegisterPersonality, personality=label, prompt=words),
    ),
}

foreign = st.builds(
    Foreign,
    type=st.sampled_from(("task.painted", "task.claimed", "channel.posted")),
    family=st.sampled_from(("task", "channel", "nobody")),
    entity=st.sampled_from(("t-1", "dev")),
    body=st.sampled_from((b"{}", b"\xff\xfe", b"[1]")),
)
asked = st.tuples(who, st.one_of(*COMMANDS.values()), st.sampled_from((True, True, True, False)))


def _story(*parts: st.SearchStrategy[Command]) -> st.SearchStrategy[list[Any]]:
    """Commands that make sense one after the other, of one author or of whoever may, in one place."""

    def told(author: str, space: str, room: str, task: str, commands: tuple[Command, ...]) -> list[Any]:
        here = {"namespace": space, "channel": room, "task": task}
        return [
            (author, replace(c, **{name: here[name] for name in here.keys() & set(c.__struct_fields__)}), True)
            for c in commands
        ]

    return st.builds(told, who, where, rooms, tasks, st.tuples(*parts))


def _coming_and_going(one: str, other: str, space: str, room: str, name: str) -> list[Any]:
    """Somebody joins between two messages and leaves between two others; somebody is shut out and let in again."""
    said = channel.Post(namespace=space, channel=room, text="who hears this?")
    joins, leaves = channel.Join(namespace=space, channel=room), channel.Leave(namespace=space, channel=room)
    talk = [(other, said), (one, joins), (other, said), (one, leaves), (other, said)]
    there = agent.ChangePresence(agent=name, presence="online")
    managed = [
        (name, there),
        ("ada", agent.Deactivate(agent=name)),
        (other, said),
        ("ada", agent.Reactivate(agent=name)),
    ]
    return [(author, request, True) for author, request in (*talk, *managed)]


def _keeping(one: str, other: str, space: str, held: tuple[str, ...], wanted: tuple[str, ...]) -> list[Any]:
    """Somebody reserves paths and gives one of them back; somebody else wants some meanwhile."""
    wants = reservation.Reserve(namespace=space, paths=wanted)
    release = reservation.Release(namespace=space, paths=held[:1])
    kept = [(one, reservation.Reserve(namespace=space, paths=held, mode="shared")), (other, wants), (one, release)]
    return [(author, request, True) for author, request in (*kept, (other, wants))]


def _instructed(giver: str, order: str, space: str, commands: tuple[Command, ...], s: int) -> list[Any]:
    """Somebody is told to do something by a time, and that time passes before, between or after what becomes of it."""
    told = directive.Give(namespace=space, role="red", text="do it", directive=order, due_in_s=1)
    given = [(name, agent.Update(roles=("red",)), True) for name in ("bob", "c_d")] + [(giver, told, True)]
    became = [(giver, replace(command, namespace=space, directive=order), True) for command in commands]
    return [*given, *became[:s], 2_000_000_000, *became[s:]]


def _reminded(one: str, other: str, space: str, every: str, ns: int) -> list[Any]:
    """A reminder that comes again fires, perhaps after several times were missed."""
    asked = reminder.Set(namespace=space, text="again", to=other, every=every, reminder="r-1")
    acked = [(other, inbox.Show(upto=80, seqs=(80,)), True), (other, inbox.Ack(upto=80), True)]
    return [(one, asked, True), ns, *acked, ns]


def _remembering(author: str, space: str, about: str, commands: tuple[Command, ...]) -> list[Any]:
    """Something is remembered about what others are remembered about, and becomes this or that."""
    secret = memory_requests.Write(namespace=space, content="fix the parser", scope="private", subject=about)
    shared = memory_requests.Write(namespace=space, content=f"{author} fixes 50%", subject=about, tags=("red",))
    became = [(author, replace(command, namespace=space), True) for command in commands]
    return [(author, secret, True), (author, shared, True), *became]


def _conversing(author: str, space: str, chat: str, turns: tuple[Command, ...], commands: tuple[Command, ...]) -> Any:
    """A conversation of one agent goes on for a while, and becomes this or that."""
    told = [(author, replace(turn, namespace=space, session=chat), False) for turn in turns]
    became = [(author, replace(command, namespace=space), False) for command in commands]
    return [*told, *became, *told[:1]]


_KNOWN: Sequence[tuple[str, Command]] = (
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


def _seconds(s: int) -> int:
    return s * 1_000_000_000


_last = st.just(1)
_claim = st.builds(task_requests.Claim, task=tasks, lease_s=st.sampled_from((1, 600)))
_offer = st.builds(task_requests.Handoff, task=tasks, to=who, notes=words, refs=some)
stories = st.one_of(
    st.builds(
        _instructed, who, orders, where, st.tuples(COMMANDS["instruct"], COMMANDS["instruct"]), st.integers(0, 2)
    ),
    st.builds(_remembering, who, where, subjects, st.tuples(*[COMMANDS["remember"]] * 3)),
    st.builds(_remembering, who, where, subjects, st.tuples(*[COMMANDS["remember"]] * 6)),
    st.builds(_reminded, who, who, where, st.sampled_from(("1m", "* * * * *")), st.integers(1, 200).map(_seconds)),
    st.builds(
        _conversing,
        who,
        where,
        chats,
        st.lists(
            st.builds(session_requests.Add, session=chats, role=roles, content=said | words), min_size=2, max_size=8
        ).map(tuple),
        st.tuples(*[COMMANDS["converse"]] * 3),
    ),
    st.builds(_keeping, who, who, where, paths, paths),
    st.builds(_coming_and_going, who, who, where, rooms, st.sampled_from(("c_d", "cxd"))),
    _story(
        st.builds(channel.Post, channel=rooms, text=words, reply_to=maybe | numbers),
        st.builds(channel.React, channel=rooms, message=_last, emoji=emoji),
        st.builds(channel.Pin, channel=rooms, message=_last),
        st.builds(channel.Edit, channel=rooms, message=_last, text=words),
        st.builds(channel.Post, channel=rooms, text=words, reply_to=_last),
    ),
    _story(
        st.builds(dm.Post, to=st.just("bob"), text=words),
        st.builds(dm.Edit, to=st.just("bob"), message=_last, text=words),
        st.builds(dm.Pin, to=st.just("bob"), message=_last),
        st.builds(dm.React, to=st.just("bob"), message=_last, emoji=emoji),
    ),
    _story(_claim, st.one_of(COMMANDS["work"], COMMANDS["hand"])),
    _story(_claim, _offer, st.builds(task_requests.Accept, task=tasks) | st.builds(task_requests.Decline, task=tasks)),
    _story(_claim, st.builds(task_requests.Complete, task=tasks, result=words), st.one_of(COMMANDS["hand"])),
    _story(
        st.builds(inbox.Show, upto=st.integers(1, 80), seqs=st.lists(st.integers(1, 80), min_size=1).map(tuple)),
        st.builds(inbox.Ack, upto=st.integers(1, 80)),
    ),
)
Step = tuple[str, Command, bool] | Foreign | int
"""An agent asks for something (and whether somebody does who may), a strange record arrives, or time passes."""
single = st.one_of(asked, asked, asked, foreign, st.integers(1, 1_500_000_000)).map(lambda step: [step])
steps = st.lists(single | stories, min_size=15, max_size=40).map(lambda found: list(chain.from_iterable(found)))

# --- what may be asked -------------------------------------------------------------------------------------------

_pages: dict[str, Any] = {"limit": st.sampled_from((1, 2, 3, 50)), "since": maybe | st.integers(0, 60)}
_range: dict[str, Any] = _pages | {"before": maybe | st.integers(1, 60)}
_sought = st.sampled_from(
    ("fix", "FIX", "it fix", "50%", "a_b", "\\", "üñï", "nul", "secret", "\0", "  ", "nobody says this")
)
_kinds = st.sampled_from(("task.claimed", "channel.posted", "dm.posted", "task.painted"))

_questions = st.sampled_from(
    ("fix", "who fixes the parser?", "What did bob say about ts2345", "parse user input", "secret", "the and of", "üñï")
)

_budgets = st.sampled_from((0, 3, 9, 20, 60, 4000))

QUERIES: tuple[st.SearchStrategy[Any], ...] = (
    _built(channel.Read, channel=rooms, pinned=st.booleans(), **_range),
    _built(channel.Read, channel=rooms, thread=maybe | numbers, **_range),
    _built(channel.Search, channel=maybe | rooms, text=_sought, **_range),
    _built(channel.List, archived=maybe | st.booleans(), member=maybe | who, **_pages),
    _built(dm.Read, to=who, thread=maybe | numbers, pinned=st.booleans(), **_range),
    _built(dm.Search, to=maybe | who, text=_sought, **_range),
    _built(dm.List, **_pages),
    _built(inbox.Peek, **_pages),
    _built(inbox.Digest, **_pages),
    _built(task_requests.Show, task=tasks),
    _built(
        task_requests.List, state=maybe | st.sampled_from(("open", "blocked", "claimed", "done", "failed")), **_pages
    ),
    _built(task_requests.List, owner=maybe | who, opener=maybe | who, label=maybe | label, class_=maybe | st.just("x")),
    _built(task_requests.List, overdue=st.just(True), as_of=maybe | st.just("then"), **_pages),
    _built(task_requests.Waiting, labels=labels, skills=labels, limit=st.sampled_from((1, 2, 20))),
    _built(task_requests.Waiting, classes=st.sampled_from(((), ("x",), ("x", "y"))), skills=labels),
    _built(task_requests.Board, limit=st.sampled_from((1, 20)), since=maybe | st.integers(0, 60)),
    _built(directive.List, state=maybe | st.sampled_from(("given", "done")), to=maybe | who, **_pages),
    _built(directive.List, giver=maybe | who, role=maybe | label, overdue=maybe | st.booleans(), **_pages),
    _built(directive.Show, directive=orders),
    _built(
        reminder.List, state=maybe | st.sampled_from(("waiting", "done")), to=maybe | who, setter=maybe | who, **_pages
    ),
    _built(journal.Read, agent=maybe | who, before=maybe | st.integers(1, 60), **_pages),
    _built(journal.Wake),
    _built(agent.List, active=maybe | st.booleans(), **_pages),
    _built(agent.Who),
    _built(agent.Children, agent=who),
    _built(intent.List, agent=maybe | who, prefix=maybe | st.sampled_from(("fix", "src")), **_pages),
    _built(reservation.List, agent=maybe | who, repository=repositories, **_pages),
    _built(reservation.Check, paths=paths, mode=modes, repository=repositories),
    _built(registry.ListModels, active=maybe | st.booleans(), **_pages),
    _built(kv.Get, key=pairs),
    _built(kv.History, key=pairs, **_range),
    _built(kv.List, prefix=maybe | st.sampled_from(("", "b", "ü%", "%")), **_pages),
    _built(stream.Read, stream=things, **_range),
    _built(vault.Read, path=places),
    _built(vault.List, directory=maybe | st.sampled_from(("b", "b/", "memories/d", "x")), **_pages),
    _built(vault.History, path=files, **_range),
    _built(vault.Diff, path=files, start=maybe | st.integers(0, 30), end=maybe | st.integers(20, 60)),
    _built(vault.Expand, text=st.sampled_from(("@[a.md] @[b/c.md]", "@[a.md]@[a.md]@[../x]", "none"))),
    _built(tool.Show, path=notes | st.just("/memories"), view_range=maybe | st.sampled_from(((1, 2), (1, -1)))),
    _built(vector.Nearest, collection=sets, numbers=points, k=st.integers(1, 4), where=data),
    _built(vector.Show, collection=sets, vector=pairs),
    _built(vector.Collections, **_pages),
    _built(registry.ListPersonalities, **_pages),
    _built(memory_requests.Show, memory=entries),
    _built(memory_requests.List, state=st.sampled_from(("active", "any", "superseded")), author=maybe | who, **_pages),
    _built(
        memory_requests.List,
        category=maybe | categories,
        scope=maybe | st.sampled_from(("shared", "private")),
        valid_at=maybe | soon,
        tag=maybe | label,
        pinned=maybe | st.booleans(),
        subject=maybe | subjects,
    ),
    _built(memory_requests.Search, text=_sought, before=maybe | st.integers(1, 80), limit=st.sampled_from((1, 50))),
    _built(
        memory_requests.Assemble,
        valid_at=maybe | soon,
        limit=st.sampled_from((1, 50)),
        categories=st.lists(categories, max_size=2).map(tuple),
    ),
    _built(recall.Recall, query=_questions, k=st.sampled_from((1, 3, 50))),
    _built(
        recall.Recall,
        query=_questions,
        kinds=st.lists(st.sampled_from(recall.KINDS), max_size=2).map(tuple),
        subject=maybe | subjects,
        valid_at=maybe | soon,
    ),
    _built(recall.Recall, query=_questions | st.just("to be"), embedding=points),
    _built(
        recall.Recall,
        query=_questions,
        where=st.sampled_from(({}, {"a": 1}, {"b": "ü"})),
        scope=maybe | st.sampled_from(("shared", "private")),
    ),
    _built(session_requests.Get, session=chats),
    _built(session_requests.List, scope=maybe | st.sampled_from(("private", "shared")), owner=maybe | who, **_pages),
    _built(session_requests.Messages, session=chats, replaced=st.booleans(), **_range),
    _built(session_requests.ToString, session=chats, **_pages),
    _built(session_requests.History, session=chats, **_range),
    _built(
        session_requests.BuildContext,
        session=chats,
        strategy=maybe | strategies,
        query=maybe | _questions,
        budget_tokens=_budgets,
        search_tokens=maybe | _budgets,
        k=st.integers(1, 4),
        kinds=st.lists(st.sampled_from(recall.KINDS), max_size=2).map(tuple),
    ),
    _built(
        session_requests.BuildContext,
        session=chats,
        strategy=maybe | strategies,
        embedding=maybe | points,
        budget_tokens=_budgets,
        system_tokens=maybe | _budgets,
        summary_tokens=maybe | _budgets,
        recent_tokens=maybe | _budgets,
    ),
    _built(
        log.List, family=maybe | st.sampled_from(("task", "dm")), type=maybe | _kinds, newest=st.booleans(), **_pages
    ),
    _built(log.List, start=maybe | numbers, end=maybe | st.integers(1, 60), agent=maybe | who, newest=st.booleans()),
    _built(log.List, entity=maybe | st.sampled_from(("t-1", "dev", "ada+bob")), in_namespace=maybe | where, **_pages),
)


# --- making it happen --------------------------------------------------------------------------------------------


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
            for author, request in _KNOWN:
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
            request = self._private(author, self._aimed(author, request))
            author = self._who_may(author, request) if proper else author
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
