"""What every query has to be answered, worked out from what the events say (`tests.property.told`) with loops."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bus.clock import from_ns
from bus.domain import agent, channel, dm, inbox, journal, log, message, registry, task_requests
from bus.errors import NotFound
from bus.events import Event, Unknown
from tests.property import changes, duties, kept, remembered, stored, talked, unread, vectors
from tests.property.told import Told

ENDED = ("done", "failed", "cancelled")


def answer(told: Told, me: str, request: Any, now: datetime) -> Any:
    """What `request` of `me` has to be answered, or NotFound."""
    seq = len(told.events)
    return ANSWERS[type(request)](told, me, request, {"seq": seq, "time": told.time(seq)}, now)


def _paged(found: Iterable[Any], request: Any, kid: Callable[[Any], int]) -> tuple[list[Any], int | None]:
    """The page of things in the order of their first seq, and where the next one begins (None: this was the last)."""
    page = sorted((one for one in found if kid(one) > (request.since or 0)), key=kid)[: request.limit]
    return page, kid(page[-1]) if len(page) == request.limit else None


# --- messages ----------------------------------------------------------------------------------------------------


def _message_row(told: Told, me: str, seq: int) -> message.MessageRow:
    known = told.messages[seq]
    event: Event = known["event"]
    others = [name for name in event.entity.split("+") if name != me]
    return message.MessageRow(
        seq=seq,
        time=from_ns(event.time_ns),
        agent=event.agent,
        channel=event.entity if event.family == "channel" else (others or [me])[0],
        text=known["said"],
        reply_to=known.get("reply_to"),
        mentions=list(known.get("mentions", ())),
        refs=list(known.get("refs", ())),
        attachments=list(known.get("attachments", ())),
        edited=known["edited"],
        pinned=seq in told.pins[(event.namespace, event.entity)],
        reactions={emoji: list(who) for emoji, who in known["reactions"].items() if who},
    )


def _messages(told: Told, me: str, seqs: Sequence[int], request: Any, head: Any, *, newest: bool) -> message.Messages:
    seqs = [seq for seq in seqs if (request.since or 0) < seq < (request.before or 1 << 60)]
    page = seqs[-request.limit :] if newest else seqs[: request.limit]
    return message.Messages(
        messages=[_message_row(told, me, seq) for seq in page], next=page[-1] if page else request.since, **head
    )


def _read(told: Told, me: str, request: Any, head: Any, place: tuple[str, str, str]) -> message.Messages:
    seqs = list(told.within(*place, me))
    if request.thread is not None:
        under = told.thread(request.thread)
        seqs = [seq for seq in seqs if seq in under]
    if request.pinned:
        seqs = [seq for seq in seqs if seq in told.pins.get(place[1:], ())]
    return _messages(told, me, seqs, request, head, newest=request.since is None)


def _search(told: Told, me: str, request: Any, head: Any, place: tuple[str, str, str | None]) -> message.Messages:
    sought = request.text.lower().split()
    seqs = [
        seq for seq in told.within(*place, me) if all(word in told.messages[seq]["said"].lower() for word in sought)
    ]
    return _messages(told, me, seqs, request, head, newest=True)


def _channel_read(told: Told, me: str, request: channel.Read, head: Any, now: datetime) -> Any:
    if (request.namespace, request.channel) not in told.rooms:
        return NotFound
    return _read(told, me, request, head, ("channel", request.namespace, request.channel))


def _channel_search(told: Told, me: str, request: channel.Search, head: Any, now: datetime) -> Any:
    if request.channel is not None and (request.namespace, request.channel) not in told.rooms:
        return NotFound
    return _search(told, me, request, head, ("channel", request.namespace, request.channel))


def _dm_read(told: Told, me: str, request: dm.Read, head: Any, now: datetime) -> Any:
    return _read(told, me, request, head, ("dm", "_", "+".join(sorted((me, request.to)))))


def _dm_search(told: Told, me: str, request: dm.Search, head: Any, now: datetime) -> Any:
    return _search(told, me, request, head, ("dm", "_", request.to and "+".join(sorted((me, request.to)))))


def _channels(told: Told, me: str, request: channel.List, head: Any, now: datetime) -> channel.Channels:
    rows = []
    for (namespace, name), room in told.rooms.items():
        said = list(told.within("channel", namespace, name, me))
        row = channel.ChannelRow(
            channel=name,
            seq=room["seq"],
            topic=room["topic"],
            archived=room["archived"],
            members=sorted(room["members"]),
            messages=len(said),
            last=said[-1] if said else None,
        )
        fits = request.archived in (None, row.archived) and (request.member or None) in (None, *row.members)
        if namespace == request.namespace and fits:
            rows.append((room["kid"], row))
    page, more = _paged(rows, request, lambda one: one[0])
    return channel.Channels(channels=[row for _, row in page], next=more, **head)


def _dms(told: Told, me: str, request: dm.List, head: Any, now: datetime) -> dm.Dms:
    rows = []
    for name in (*told.agents, me) if me not in told.agents else told.agents:
        said = list(told.within("dm", "_", "+".join(sorted((me, name))), me))
        if said:
            rows.append(dm.DmRow(agent=name, seq=said[0], messages=len(said), last=said[-1]))
    page, more = _paged(rows, request, lambda row: row.seq)
    return dm.Dms(dms=page, next=more, **head)


def _peek(told: Told, me: str, request: inbox.Peek, head: Any, now: datetime) -> inbox.Items:
    after = max(told.acked.get(me, 0), request.since or 0)
    waiting = [(seq, why) for seq, why in sorted(told.addressed.get(me, {}).items()) if seq > after]
    items = []
    for seq, why in waiting[: request.limit]:
        event = told.events[seq - 1]
        said = told.messages.get(seq, {})
        items.append(
            inbox.Item(
                seq=seq,
                time=from_ns(event.time_ns),
                reasons=sorted(why["reasons"]),
                agent=event.agent,
                namespace=event.namespace,
                text=said.get("said", why["notice"]),
                channel=event.entity if event.family == "channel" else None,
                task=event.entity if event.family == "task" else None,
                reply_to=said.get("reply_to"),
            )
        )
    upto = items[-1].seq if items else after
    remaining = len(waiting) - len(items)
    hint = inbox.MANY_HINT if remaining >= inbox.MANY else None
    return inbox.Items(items=items, upto=upto, remaining=remaining, hint=hint, **head)


# --- tasks -------------------------------------------------------------------------------------------------------


def _task_row(told: Told, place: tuple[str, str]) -> task_requests.TaskRow:
    known, needs = told.tasks[place], told.needs.get(place, set())
    waits = any(told.tasks[(place[0], need)]["state"] != "done" for need in needs)
    return task_requests.TaskRow(
        task=place[1],
        seq=known["seq"],
        opened=known["opened"],
        title=known["title"],
        body=known["body"],
        priority=known["priority"],
        class_=known["class"],
        state="blocked" if waits and known["state"] == "open" else known["state"],
        opener=known["opener"],
        owner=known["owner"],
        fence=known["fence"],
        expires=datetime.fromisoformat(known["expires"]) if known["expires"] else None,
        offered_to=known["to"],
        attempts=known["attempts"],
        failures=known["failures"],
        retries=known["retries"],
        retry_at=datetime.fromisoformat(known["retry_at"]) if known["retry_at"] else None,
        due=datetime.fromisoformat(known["due"]) if known["due"] else None,
        from_message=known["from_message"],
        channel=known["channel"],
        result=known["result"],
        reason=known["reason"],
        notes=known["notes"],
        labels=sorted(known["labels"]),
        skills=sorted(known["skills"]),
        needs=sorted(needs),
        refs=sorted(known["refs"]),
    )


def _rows(told: Told, namespace: str) -> list[task_requests.TaskRow]:
    return [_task_row(told, place) for place in told.tasks if place[0] == namespace]


def _task(told: Told, me: str, request: task_requests.Show, head: Any, now: datetime) -> Any:
    place = (request.namespace, request.task)
    if place not in told.tasks:
        return NotFound
    history = [
        task_requests.Happening(seq=e.seq, time=from_ns(e.time_ns), type=e.type, agent=e.agent, data=json.loads(e.data))
        for e in told.events
        if (e.namespace, e.entity) == place and e.family in ("task", "needs") and not isinstance(e.fact, Unknown)
    ]
    return task_requests.TaskDetail(task=_task_row(told, place), history=history, **head)


def _task_list(told: Told, me: str, request: task_requests.List, head: Any, now: datetime) -> task_requests.Tasks:
    rows = [
        row
        for row in _rows(told, request.namespace)
        if request.state in (None, row.state)
        and request.owner in (None, row.owner)
        and request.opener in (None, row.opener)
        and request.class_ in (None, row.class_)
        and request.label in (None, *row.labels)
        and (not request.overdue or _overdue(row, now if request.as_of is None else head["time"]))
    ]
    page, more = _paged(rows, request, lambda row: row.opened)
    return task_requests.Tasks(tasks=page, next=more, **head)


def _overdue(row: task_requests.TaskRow, now: datetime | None) -> bool:
    late = now is not None and row.due is not None and row.due <= now
    ran_out = now is not None and row.expires is not None and row.expires <= now
    return (late and (row.state not in ENDED or row.retry_at is not None)) or ran_out


def _waiting(told: Told, me: str, request: task_requests.Waiting, head: Any, now: datetime) -> task_requests.Tasks:
    rows = [
        row
        for row in _rows(told, request.namespace)
        if row.state == "open"
        and set(request.labels) <= set(row.labels)
        and (not request.classes or row.class_ in request.classes)
        and set(row.skills) <= set(request.skills)
    ]
    rows.sort(key=lambda row: (-row.priority, row.opened))
    return task_requests.Tasks(tasks=rows[: request.limit], **head)


def _board(told: Told, me: str, request: task_requests.Board, head: Any, now: datetime) -> task_requests.TaskBoard:
    if request.since is not None:
        return changes.board(told, request, head, request.since, _task_row)
    counts, columns = {}, {}
    for state in ("open", "blocked", "claimed", "done", "failed", "cancelled"):
        rows = [row for row in _rows(told, request.namespace) if row.state == state]
        rows.sort(key=lambda row: (-row.seq,) if row.state in ENDED else (-row.priority, row.opened))
        counts[state], columns[state] = len(rows), rows[: request.limit]
    return task_requests.TaskBoard(counts=counts, columns=columns, next=head["seq"], **head)


# --- agents, registries, the log ---------------------------------------------------------------------------------


def _agent_row(name: str, known: Mapping[str, Any]) -> agent.AgentRow:
    same = {k: known[k] for k in ("seq", "harness", "device", "model", "personality", "parent", "active", "presence")}
    lists = {k: sorted(set(known[k])) for k in ("authority", "models", "roles")}
    return agent.AgentRow(agent=name, **lists, **same)


def _agents(told: Told, me: str, request: agent.List, head: Any, now: datetime) -> agent.Agents:
    fitting = [(n, k) for n, k in told.agents.items() if request.active in (None, k["active"])]
    page, more = _paged(fitting, request, lambda one: one[1]["kid"])
    return agent.Agents(agents=[_agent_row(*one) for one in page], next=more, **head)


def _children(told: Told, me: str, request: agent.Children, head: Any, now: datetime) -> agent.Agents:
    return agent.Agents(
        agents=[_agent_row(n, k) for n, k in told.agents.items() if k["parent"] == request.agent], **head
    )


def _who(told: Told, me: str, request: agent.Who, head: Any, now: datetime) -> agent.Presences:
    there = []
    for name, known in sorted(told.agents.items()):
        since = told.time(known["there"])
        assert since is not None
        held = sorted(key for (_, key), task in told.tasks.items() if task["owner"] == name)
        if known["active"]:
            same = {k: known[k] for k in ("presence", "harness", "model")}
            there.append(agent.Present(agent=name, since=since, tasks=held, **same))
    age_s = (now - head["time"]).total_seconds() if head["time"] else 0.0
    return agent.Presences(agents=there, age_s=age_s, **head)


def _models(told: Told, me: str, request: registry.ListModels, head: Any, now: datetime) -> registry.Models:
    fitting = [one for one in told.entries["model"].items() if request.active in (None, one[1]["active"])]
    page, more = _paged(fitting, request, lambda one: one[1]["kid"])
    rows = [
        registry.ModelRow(
            model=name,
            seq=known["seq"],
            provider=known["provider"],
            description=known["description"],
            context_tokens=known.get("context_tokens"),
            source=known["source"],
            active=known["active"],
        )
        for name, known in page
    ]
    return registry.Models(models=rows, next=more, **head)


def _personalities(told: Told, me: str, request: Any, head: Any, now: datetime) -> registry.Personalities:
    fitting = [one for one in told.entries["personality"].items() if request.active in (None, one[1]["active"])]
    page, more = _paged(fitting, request, lambda one: one[1]["kid"])
    rows = [
        registry.PersonalityRow(
            personality=name,
            seq=known["seq"],
            description=known["description"],
            prompt=known["prompt"],
            source=known["source"],
            active=known["active"],
        )
        for name, known in page
    ]
    return registry.Personalities(personalities=rows, next=more, **head)


def _log_row(told: Told, me: str, event: Event) -> log.LogRow:
    readable = told.readable(me, event)
    try:
        data = json.loads(event.data)
    except ValueError:
        data = event.data.decode("utf-8", "replace")
    return log.LogRow(
        seq=event.seq,
        time=from_ns(event.time_ns),
        type=event.type,
        namespace=event.namespace,
        entity=event.entity,
        agent=event.agent,
        causes=list(event.causes),
        data=data if readable else None,
        problem=event.fact.reason if isinstance(event.fact, Unknown) else None,
        redacted=not readable,
    )


def _log(told: Told, me: str, request: log.List, head: Any, now: datetime) -> log.LogPage:
    fitting = [
        e
        for e in told.events
        if max(request.start or 1, (request.since or 0) + 1) <= e.seq <= (request.end or 1 << 60)
        and request.type in (None, e.type)
        and request.family in (None, e.family)
        and request.entity in (None, e.entity)
        and request.agent in (None, e.agent)
        and request.in_namespace in (None, e.namespace)
    ]
    page = fitting[-request.limit :] if request.newest else fitting[: request.limit]
    more = page[-1].seq if page else request.since
    return log.LogPage(events=[_log_row(told, me, event) for event in page], next=more, **head)


def _wake(told: Told, me: str, request: journal.Wake, head: Any, now: datetime) -> journal.WakeCard:
    return duties.wake(told, me, request.namespace, head, now, _peek(told, me, inbox.Peek(limit=1), head, now))


ANSWERS: Mapping[type, Callable[[Told, str, Any, Any, datetime], Any]] = {
    channel.Read: _channel_read,
    channel.Search: _channel_search,
    channel.List: _channels,
    dm.Read: _dm_read,
    dm.Search: _dm_search,
    dm.List: _dms,
    inbox.Peek: _peek,
    inbox.Digest: unread.digest,
    task_requests.Show: _task,
    task_requests.List: _task_list,
    task_requests.Waiting: _waiting,
    task_requests.Board: _board,
    agent.List: _agents,
    agent.Children: _children,
    agent.Who: _who,
    registry.ListModels: _models,
    registry.ListPersonalities: _personalities,
    log.List: _log,
    journal.Wake: _wake,
    **duties.ANSWERS,
    **kept.ANSWERS,
    **remembered.ANSWERS,
    **stored.ANSWERS,
    **talked.ANSWERS,
    **vectors.ANSWERS,
}
