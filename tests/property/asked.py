"""What may be asked of a bus: random queries."""

from __future__ import annotations

from typing import Any

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
    log,
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
from tests.property.sayings import (
    built,
    categories,
    chats,
    data,
    entries,
    files,
    label,
    labels,
    maybe,
    modes,
    notes,
    numbers,
    orders,
    pairs,
    paths,
    places,
    points,
    repositories,
    rooms,
    sets,
    soon,
    strategies,
    subjects,
    tasks,
    things,
    where,
    who,
)

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
    built(channel.Read, channel=rooms, pinned=st.booleans(), **_range),
    built(channel.Read, channel=rooms, thread=maybe | numbers, **_range),
    built(channel.Search, channel=maybe | rooms, text=_sought, **_range),
    built(channel.List, archived=maybe | st.booleans(), member=maybe | who, **_pages),
    built(dm.Read, to=who, thread=maybe | numbers, pinned=st.booleans(), **_range),
    built(dm.Search, to=maybe | who, text=_sought, **_range),
    built(dm.List, **_pages),
    built(inbox.Peek, **_pages),
    built(inbox.Digest, **_pages),
    built(task_requests.Show, task=tasks),
    built(
        task_requests.List, state=maybe | st.sampled_from(("open", "blocked", "claimed", "done", "failed")), **_pages
    ),
    built(task_requests.List, owner=maybe | who, opener=maybe | who, label=maybe | label, class_=maybe | st.just("x")),
    built(task_requests.List, overdue=st.just(True), as_of=maybe | st.just("then"), **_pages),
    built(task_requests.Waiting, labels=labels, skills=labels, limit=st.sampled_from((1, 2, 20))),
    built(task_requests.Waiting, classes=st.sampled_from(((), ("x",), ("x", "y"))), skills=labels),
    built(task_requests.Board, limit=st.sampled_from((1, 20)), since=maybe | st.integers(0, 60)),
    built(directive.List, state=maybe | st.sampled_from(("given", "done")), to=maybe | who, **_pages),
    built(directive.List, giver=maybe | who, role=maybe | label, overdue=maybe | st.booleans(), **_pages),
    built(directive.Show, directive=orders),
    built(
        reminder.List, state=maybe | st.sampled_from(("waiting", "done")), to=maybe | who, setter=maybe | who, **_pages
    ),
    built(journal.Read, agent=maybe | who, before=maybe | st.integers(1, 60), **_pages),
    built(journal.Wake),
    built(agent.List, active=maybe | st.booleans(), **_pages),
    built(agent.Who),
    built(agent.Children, agent=who),
    built(intent.List, agent=maybe | who, prefix=maybe | st.sampled_from(("fix", "src")), **_pages),
    built(reservation.List, agent=maybe | who, repository=repositories, **_pages),
    built(reservation.Check, paths=paths, mode=modes, repository=repositories),
    built(registry.ListModels, active=maybe | st.booleans(), **_pages),
    built(kv.Get, key=pairs),
    built(kv.History, key=pairs, **_range),
    built(kv.List, prefix=maybe | st.sampled_from(("", "b", "ü%", "%")), **_pages),
    built(stream.Read, stream=things, **_range),
    built(vault.Read, path=places),
    built(vault.List, directory=maybe | st.sampled_from(("b", "b/", "memories/d", "x")), **_pages),
    built(vault.History, path=files, **_range),
    built(vault.Diff, path=files, start=maybe | st.integers(0, 30), end=maybe | st.integers(20, 60)),
    built(vault.Expand, text=st.sampled_from(("@[a.md] @[b/c.md]", "@[a.md]@[a.md]@[../x]", "none"))),
    built(tool.Show, path=notes | st.just("/memories"), view_range=maybe | st.sampled_from(((1, 2), (1, -1)))),
    built(vector.Nearest, collection=sets, numbers=points, k=st.integers(1, 4), where=data),
    built(vector.Show, collection=sets, vector=pairs),
    built(vector.Collections, **_pages),
    built(registry.ListPersonalities, **_pages),
    built(memory_requests.Show, memory=entries),
    built(memory_requests.List, state=st.sampled_from(("active", "any", "superseded")), author=maybe | who, **_pages),
    built(
        memory_requests.List,
        category=maybe | categories,
        scope=maybe | st.sampled_from(("shared", "private")),
        valid_at=maybe | soon,
        tag=maybe | label,
        pinned=maybe | st.booleans(),
        subject=maybe | subjects,
    ),
    built(memory_requests.Search, text=_sought, before=maybe | st.integers(1, 80), limit=st.sampled_from((1, 50))),
    built(
        memory_requests.Assemble,
        valid_at=maybe | soon,
        limit=st.sampled_from((1, 50)),
        categories=st.lists(categories, max_size=2).map(tuple),
    ),
    built(recall.Recall, query=_questions, k=st.sampled_from((1, 3, 50))),
    built(
        recall.Recall,
        query=_questions,
        kinds=st.lists(st.sampled_from(recall.KINDS), max_size=2).map(tuple),
        subject=maybe | subjects,
        valid_at=maybe | soon,
    ),
    built(recall.Recall, query=_questions | st.just("to be"), embedding=points),
    built(
        recall.Recall,
        query=_questions,
        where=st.sampled_from(({}, {"a": 1}, {"b": "ü"})),
        scope=maybe | st.sampled_from(("shared", "private")),
    ),
    built(session_requests.Get, session=chats),
    built(session_requests.List, scope=maybe | st.sampled_from(("private", "shared")), owner=maybe | who, **_pages),
    built(session_requests.Messages, session=chats, replaced=st.booleans(), **_range),
    built(session_requests.ToString, session=chats, **_pages),
    built(session_requests.History, session=chats, **_range),
    built(
        session_requests.BuildContext,
        session=chats,
        strategy=maybe | strategies,
        query=maybe | _questions,
        budget_tokens=_budgets,
        search_tokens=maybe | _budgets,
        k=st.integers(1, 4),
        kinds=st.lists(st.sampled_from(recall.KINDS), max_size=2).map(tuple),
    ),
    built(
        session_requests.BuildContext,
        session=chats,
        strategy=maybe | strategies,
        embedding=maybe | points,
        budget_tokens=_budgets,
        system_tokens=maybe | _budgets,
        summary_tokens=maybe | _budgets,
        recent_tokens=maybe | _budgets,
    ),
    built(
        log.List, family=maybe | st.sampled_from(("task", "dm")), type=maybe | _kinds, newest=st.booleans(), **_pages
    ),
    built(log.List, start=maybe | numbers, end=maybe | st.integers(1, 60), agent=maybe | who, newest=st.booleans()),
    built(log.List, entity=maybe | st.sampled_from(("t-1", "dev", "ada+bob")), in_namespace=maybe | where, **_pages),
)
