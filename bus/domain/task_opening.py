"""What is decided when tasks are opened and when their descriptions change. The rules are in `bus.domain.task`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bus.domain import needs
from bus.domain import task_requests as ask
from bus.domain.message import Posted
from bus.domain.task import DESCRIBING, Task, TaskAmended, TaskOpened
from bus.domain.task_claims import find, may_manage, met, stamp
from bus.domain.task_replies import task_now
from bus.errors import InvalidRequest, NotFound, Refused
from bus.events import Event
from bus.model import Context, Decision, Emit, View

_OF_MESSAGE = re.compile(r"m-[1-9][0-9]*\Z")
"""Ids that only tasks of messages have: otherwise somebody could take the place of such a task."""
LATEST = timedelta(days=100 * 365)
"""Nothing is due later: further on, instants of some time zones are none of others."""


def decide_open(view: View, request: ask.Open, ctx: Context) -> Decision:
    if request.from_message is not None:
        return _open_from_message(view, request, ctx, request.from_message)
    key = request.task or ctx.ids.short("t")
    if _OF_MESSAGE.match(key):
        raise InvalidRequest(
            "this id is kept for the task of a message",
            code="reserved_id",
            entity=f"task {key}",
            expected="another id, or none",
            found=key,
            hint=f"bus task open --from-message {key[2:]}",
        )
    _check_free(view, ctx, key)
    return _opening(view, request, ctx, key, {})


def _open_from_message(view: View, request: ask.Open, ctx: Context, seq: int) -> Decision:
    """The task of a message. Its id follows from the message, so of all who ask at once exactly one opens it."""
    key = f"m-{seq}"
    if request.task is not None and request.task != key:
        raise InvalidRequest(
            "the task of a message is named after it",
            code="reserved_id",
            entity=f"task {key}",
            expected=f"{key}, or no id",
            found=request.task,
            hint="Leave --task out",
        )
    message = _message(ctx, seq)
    known = view.get(Task, ctx.namespace, key)
    if known is not None and known.from_message == seq:
        return task_now(view, ctx.namespace, key)
    _check_free(view, ctx, key)
    assert isinstance(message.fact, Posted)
    text = message.fact.text.strip()
    title = request.title or text.partition("\n")[0][:200]
    body = request.body or (text if text != title else "")
    given = {"title": title, "body": body, "from_message": seq, "channel": message.entity}
    return _opening(view, request, ctx, key, given)


def _check_free(view: View, ctx: Context, key: str) -> None:
    if view.get(Task, ctx.namespace, key) is not None:
        raise Refused(
            "the task exists already",
            code="exists",
            entity=f"task {key}",
            expected="an id that is free",
            found="a task of that id",
            hint="Choose another id, or leave it out",
        )


def _opening(view: View, request: ask.Open, ctx: Context, key: str, given: dict[str, Any]) -> list[Emit]:
    """The events that open the task `key` as `request` describes it, with what is `given` beside that."""
    _check_title(given.get("title", request.title), key, "Give --title")
    given["due"] = _due(request, key, ctx)
    described = {name: getattr(request, name) for name in (*DESCRIBING, "retries", "retry_delay_s")}
    emits = [Emit(Task, key, TaskOpened(**described | given))]
    return emits + _link(view, ctx, key, request.needs) if request.needs else emits


def _check_title(title: str, key: str, hint: str) -> None:
    if not title.strip():
        raise InvalidRequest(
            "a task needs a title",
            code="no_title",
            entity=f"task {key}",
            expected="a title, or a message whose first line is one",
            found="an empty one",
            hint=hint,
        )


def _due(request: ask.Open | ask.Amend, key: str, ctx: Context) -> datetime | None:
    """The due date that was asked for."""
    due = request.due
    if request.due_in_s is not None:
        if due is not None:
            raise InvalidRequest(
                "two due dates",
                code="two_dates",
                entity=f"task {key}",
                expected="--due or --due-in",
                found="both",
                hint="Leave one of them out",
            )
        return ctx.now + timedelta(seconds=request.due_in_s)
    if due is None:
        return None
    if due <= ctx.now or due > ctx.now + LATEST:
        raise InvalidRequest(
            "the due date has passed already" if due <= ctx.now else "the due date is too far away",
            code="past" if due <= ctx.now else "too_far",
            entity=f"task {key}",
            expected=f"an instant after {stamp(ctx.now)} and within {LATEST.days // 365} years",
            found=due.isoformat(),
            hint="Give another one, or none",
        )
    return due.astimezone(UTC)


def _message(ctx: Context, seq: int) -> Event:
    event = ctx.events.get(seq)
    if event is not None and event.family == "channel" and isinstance(event.fact, Posted):
        if event.namespace == ctx.namespace:
            return event
        found = f"a message of namespace {event.namespace}"
    else:
        found = "no event" if event is None or event.family == "dm" else event.type
    raise NotFound(
        "no such message",
        entity=f"event #{seq}",
        expected=f"a message of a channel of namespace {ctx.namespace}",
        found=found,
        hint="`bus read CHANNEL` shows the seqs of messages",
    )


def _link(view: View, ctx: Context, key: str, wanted: Sequence[str]) -> list[Emit]:
    for need in wanted:
        if need != key:
            find(view, ctx.namespace, need)
    needs.check_acyclic(view, ctx.namespace, key, wanted)
    return [Emit(needs.Needs, key, needs.NeedsLinked(needs=tuple(sorted(set(wanted)))))]


def decide_amend(view: View, request: ask.Amend, ctx: Context) -> Decision:
    task, emits = met(view, ctx, request.task)
    may_manage(task, request.task, ctx)
    wanted = {name: getattr(request, name) for name in DESCRIBING}
    if request.due != task.due:
        wanted["due"] = _due(request, request.task, ctx)
    given = {
        name: value
        for name, value in wanted.items()
        if value is not None and (set(value) if name in ("labels", "skills") else value) != getattr(task, name)
    }
    _check_title(given.get("title", "x"), request.task, "Leave --title out to keep the present one")
    if given:
        emits.append(Emit(Task, request.task, TaskAmended(**given)))
    if request.needs is not None and set(request.needs) != needs.of(view, ctx.namespace, request.task):
        emits += _link(view, ctx, request.task, request.needs)
    return emits or task_now(view, ctx.namespace, request.task)
