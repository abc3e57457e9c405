"""What may happen on a bus: random commands, and stories of several that belong together.

Rule: a request that names a message names one by number; whoever plays it aims it at a message that is really there.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

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
    memory_requests,
    recall,
    registry,
    reminder,
    reservation,
    session_requests,
    stream,
    task_requests,
    vault,
    vector,
)
from bus.domain import vault_memories as tool
from bus.model import Command
from tests.property.sayings import (
    bells,
    built,
    categories,
    chats,
    data,
    emoji,
    ends,
    entries,
    files,
    json,
    keys,
    label,
    labels,
    leases,
    lines,
    maybe,
    metrics,
    modes,
    needs,
    notes,
    numbers,
    orders,
    pairs,
    parts,
    paths,
    places,
    points,
    repositories,
    roles,
    rooms,
    said,
    sets,
    some,
    soon,
    strategies,
    subjects,
    tasks,
    texts,
    things,
    where,
    who,
    words,
)
from tests.property.steps import Foreign

COMMANDS: Mapping[str, st.SearchStrategy[Command]] = {
    "talk": st.one_of(
        built(
            channel.Post,
            channel=rooms,
            text=words,
            reply_to=maybe | numbers,
            mentions=st.lists(who, max_size=2).map(tuple),
        ),
        built(channel.Post, channel=rooms, text=words, refs=some, causes=some),
        built(channel.Join, channel=rooms),
        built(channel.Leave, channel=rooms),
        built(channel.Edit, channel=rooms, message=numbers, text=words),
        built(channel.Pin, channel=rooms, message=numbers),
        built(channel.Unpin, channel=rooms, message=numbers),
        built(channel.React, channel=rooms, message=numbers, emoji=emoji, remove=st.booleans()),
    ),
    "whisper": st.one_of(
        built(dm.Post, to=who, text=words, reply_to=maybe | numbers),
        built(dm.Post, to=who, text=words, mentions=st.lists(who, max_size=1).map(tuple)),
        built(dm.Edit, to=who, message=numbers, text=words),
        built(dm.Pin, to=who, message=numbers),
        built(dm.Unpin, to=who, message=numbers),
        built(dm.React, to=who, message=numbers, emoji=emoji, remove=st.booleans()),
        built(inbox.Show, upto=numbers, seqs=some),
        built(inbox.Ack, upto=st.integers(1, 40)),
    ),
    "work": st.one_of(
        built(task_requests.Open, task=tasks, title=words, labels=labels, needs=needs, priority=st.integers(0, 2)),
        built(task_requests.Open, body=words, from_message=numbers, class_=st.sampled_from(("", "x"))),
        built(
            task_requests.Open,
            task=tasks,
            title=words,
            skills=labels,
            due=maybe | soon,
            retries=st.integers(0, 2),
            retry_delay_s=st.integers(0, 1),
        ),
        built(task_requests.Claim, task=tasks, lease_s=st.sampled_from((1, 600))),
        built(task_requests.Next),
        built(task_requests.Next, labels=labels, skills=labels),
        built(task_requests.Complete, task=tasks, result=words, refs=some),
        built(task_requests.Fail, task=tasks, reason=words, retry=maybe | st.booleans()),
        built(task_requests.Amend, task=tasks, skills=maybe | labels, due=maybe | soon),
        built(task_requests.Amend, task=tasks, labels=maybe | labels, needs=maybe | needs, priority=maybe | st.just(9)),
    ),
    "hand": st.one_of(
        built(task_requests.Renew, task=tasks, lease_s=st.just(900)),
        built(task_requests.Release, task=tasks, reason=words),
        built(task_requests.Cancel, task=tasks, reason=words),
        built(task_requests.Reopen, task=tasks),
        built(task_requests.Handoff, task=tasks, to=who, notes=words, direct=st.booleans(), refs=some),
        built(task_requests.Accept, task=tasks),
        built(task_requests.Decline, task=tasks, reason=words),
    ),
    "keep": st.one_of(
        built(intent.Declare, key=keys, text=words, lease_s=leases),
        built(intent.Declare, key=keys, lease_s=leases),
        built(intent.Withdraw, key=keys, reason=words),
        built(reservation.Reserve, paths=paths, mode=modes, reason=words, lease_s=leases, repository=repositories),
        built(reservation.Reserve, paths=paths, mode=modes),
        built(reservation.Renew, lease_s=leases, repository=repositories),
        built(reservation.Release, paths=paths, repository=repositories),
        built(reservation.Release, all=st.just(True), repository=repositories),
    ),
    "instruct": st.one_of(
        built(directive.Give, to=who, text=words, directive=maybe | orders, priority=st.integers(0, 2)),
        built(directive.Give, role=label, text=words, directive=orders, due_in_s=maybe | st.just(1)),
        built(directive.Acknowledge, directive=orders),
        built(directive.Complete, directive=orders, result=words, refs=some),
        built(directive.Decline, directive=orders, reason=words),
        built(directive.Cancel, directive=orders, reason=words),
    ),
    "store": st.one_of(
        built(kv.Set, key=pairs, value=json, expires_in_s=ends, expect=maybe | maybe | st.just(0)),
        built(kv.Set, key=pairs, value=json, expires_at=maybe | soon),
        built(kv.Merge, key=pairs, patch=json, expires_in_s=ends),
        built(kv.Delete, key=pairs),
        built(stream.Append, stream=things, data=json),
        built(vector.Upsert, collection=sets, vector=pairs, numbers=points, metadata=data),
        built(vector.Upsert, collection=sets, vector=pairs, numbers=points, metadata=data, metric=metrics),
        built(vector.Delete, collection=sets, vector=pairs),
    ),
    "file": st.one_of(
        built(vault.Create, path=files, content=texts),
        built(vault.Write, path=files, content=texts, expect=maybe | maybe | st.just(0)),
        built(vault.Patch, path=files, old=parts, new=parts),
        built(vault.Patch, path=files, merge=st.sampled_from(({"a": {"b": None, "c": [1]}}, {"a": "x"}))),
        built(vault.Delete, path=places),
        built(vault.Rename, path=places, new_path=places),
        built(tool.Create, path=notes, file_text=texts),
        built(tool.StrReplace, path=notes, old_str=parts, new_str=parts),
        built(tool.Insert, path=notes, insert_line=st.integers(0, 2), insert_text=texts),
        built(tool.Delete, path=notes),
        built(tool.Rename, old_path=notes, new_path=notes),
    ),
    "note": st.one_of(
        built(reminder.Set, text=words, to=maybe | who, in_s=st.integers(1, 3), reminder=maybe | bells),
        built(reminder.Set, text=words, every=st.sampled_from(("1m", "* * * * *")), reminder=maybe | bells),
        built(reminder.Cancel, reminder=bells),
        built(journal.Write, focus=words, done=lines),
        built(journal.Write, decisions=lines, next_steps=lines),
    ),
    "remember": st.one_of(
        built(
            memory_requests.Write,
            content=said,
            subject=subjects,
            category=categories,
            tags=labels,
            metadata=data,
            valid_from=maybe | soon,
        ),
        built(memory_requests.Write, content=words, valid_to=maybe | soon, priority=numbers.map(lambda n: n % 3)),
        built(memory_requests.Write, content=said, scope=st.just("private"), subject=subjects),
        built(memory_requests.Write, content=words, scope=st.sampled_from(("shared", "private")), embedding=points),
        built(memory_requests.Revise, memory=entries, embedding=points | st.just(()), content=maybe | said),
        built(memory_requests.Append, memory=entries, text=said),
        built(memory_requests.Revise, memory=entries, content=maybe | said, tags=maybe | labels, metadata=maybe | data),
        built(memory_requests.Supersede, memory=entries, content=words, refs=some),
        built(memory_requests.Retract, memory=entries),
        built(memory_requests.Restore, memory=entries),
        built(memory_requests.Pin, memory=entries),
        built(memory_requests.Unpin, memory=entries),
        built(memory_requests.Link, memory=entries, other=entries, remove=st.booleans()),
        built(memory_requests.Contradict, memory=entries, other=entries, reason=words),
        built(memory_requests.Resolve, memory=entries, other=entries),
        built(recall.Note, question=words, seqs=some),
        st.builds(memory_requests.Seed),
    ),
    "converse": st.one_of(
        built(
            session_requests.Open,
            session=chats,
            scope=st.sampled_from(("private", "shared")),
            title=words,
            strategy=strategies,
            recent_turns=st.integers(1, 3),
            recent_tokens=st.integers(1, 12),
            nearest=st.integers(1, 2),
        ),
        built(session_requests.Add, session=chats, role=roles, content=said | words),
        built(session_requests.Add, session=chats, role=roles, content=said, tokens=st.integers(0, 9)),
        built(session_requests.Add, session=chats, role=roles, content=words, metadata=data, embedding=points),
        built(session_requests.Configure, session=chats, strategy=strategies, recent_turns=maybe | st.integers(1, 3)),
        built(
            session_requests.Configure,
            session=chats,
            recent_tokens=maybe | st.integers(1, 12),
            compact_at_tokens=maybe | numbers,
        ),
        built(session_requests.Clear, session=chats),
        built(session_requests.Compact, session=chats, keep=maybe | st.integers(1, 2)),
        built(session_requests.Compact, session=chats, summary=words, upto=numbers),
        built(
            session_requests.Replace,
            key=chats,
            start=st.just(0),
            upto=numbers,
            summary=words,
            summariser=st.sampled_from(("x", "extractive")),
        ),
    ),
    "manage": st.one_of(
        built(channel.Archive, channel=st.just("ops")),
        built(channel.Open, channel=rooms, topic=words),
        built(agent.Update, model=words),
        built(agent.Update, roles=labels),
        built(agent.Route, agent=maybe | who, parent=maybe | who, models=st.lists(label, max_size=2).map(tuple)),
        built(agent.Deactivate, agent=who),
        built(agent.Reactivate, agent=who),
        built(agent.Grant, agent=who, authority=st.sampled_from(("auditor", "owner"))),
        built(agent.Withdraw, agent=who, authority=st.just("auditor")),
        built(agent.ChangePresence, agent=who, presence=st.sampled_from(("online", "idle", "offline"))),
        built(registry.RegisterModel, model=label, provider=words, context_tokens=maybe | st.just(1000)),
        built(registry.UpdateModel, model=label, active=st.booleans()),
        built(registry.RegisterPersonality, personality=label, prompt=words),
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
