"""What the events say about values, streams and files, and what the queries about them have to be answered. Part of
`tests.property.told` and `tests.property.oracle`, with their rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bus.clock import from_ns
from bus.domain import kv, stream, vault
from bus.domain import vault_memories as tool
from bus.errors import InvalidRequest, NotFound
from bus.events import Event
from projections.views.vault import unified

Place = tuple[str, str]


class Stored:
    """What the events taken so far say: every version of every key and path, and every item of every stream. The text
    of a path is None where there was no file."""

    def __init__(self) -> None:
        self.values: dict[Place, list[tuple[Event, dict[str, Any]]]] = {}
        self.items: dict[Place, list[tuple[Event, Any]]] = {}
        self.files: dict[Place, list[tuple[Event, str | None]]] = {}

    def kv(self, event: Event, verb: str, body: Any) -> None:
        has = verb in ("set", "merged")
        known = {"state": "set" if has else verb, "value": body["value"] if has else None, "expires": None}
        if has and "expires" in body:
            known["expires"] = datetime.fromisoformat(body["expires"])
        self.values.setdefault((event.namespace, event.entity), []).append((event, known))

    def stream(self, event: Event, verb: str, body: Any) -> None:
        self.items.setdefault((event.namespace, event.entity), []).append((event, body["data"]))

    def vault(self, event: Event, verb: str, body: Any) -> None:
        self.files.setdefault((event.namespace, event.entity), []).append((event, body.get("content")))

    def text(self, namespace: str, path: str, upto: int = 1 << 60) -> tuple[int, str] | None:
        """The version and the text of a file as of an event."""
        there = [one for one in self.files.get((namespace, path), []) if one[0].seq <= upto]
        return (there[-1][0].seq, there[-1][1]) if there and there[-1][1] is not None else None

    def below(self, namespace: str, directory: str) -> list[tuple[str, int, int]]:
        """(path, version, size) of every file in a directory ("": of all)."""
        start = f"{directory}/" if directory else ""
        return [
            (path, known[0], len(known[1].encode()))
            for space, path in self.files
            if space == namespace and path.startswith(start) and (known := self.text(space, path)) is not None
        ]


def page_of(found: list[Any], request: Any) -> tuple[list[Any], int | None]:
    """The newest of what has a seq, or what comes after `since`."""
    fitting = [one for one in found if (request.since or 0) < one.seq < (request.before or 1 << 60)]
    page = fitting[-request.limit :] if request.since is None else fitting[: request.limit]
    return page, page[-1].seq if page else request.since


def _get(told: Any, me: str, request: kv.Get, head: Any, now: datetime) -> Any:
    versions = told.stored.values.get((request.namespace, request.key))
    if versions is None or versions[-1][1]["state"] != "set":
        return NotFound
    event, known = versions[-1]
    return kv.Value(key=request.key, version=event.seq, value=known["value"], expires=known["expires"], **head)


def _history(told: Any, me: str, request: kv.History, head: Any, now: datetime) -> Any:
    versions = told.stored.values.get((request.namespace, request.key))
    if versions is None:
        return NotFound
    rows = [
        kv.KeyVersion(seq=event.seq, time=from_ns(event.time_ns), agent=event.agent, type=event.type, **known)
        for event, known in versions
    ]
    page, more = page_of(rows, request)
    return kv.Versions(versions=page, next=more, **head)


def _list(told: Any, me: str, request: kv.List, head: Any, now: datetime) -> kv.Values:
    rows = [
        kv.ValueRow(key=key, seq=event.seq, value=known["value"], expires=known["expires"])
        for (namespace, key), versions in told.stored.values.items()
        for event, known in [versions[-1]]
        if namespace == request.namespace
        and known["state"] == "set"
        and key.startswith(request.prefix or "")
        and event.seq > (request.since or 0)
    ]
    page = sorted(rows, key=lambda row: row.seq)[: request.limit]
    return kv.Values(values=page, next=page[-1].seq if len(page) == request.limit else None, **head)


def _stream(told: Any, me: str, request: stream.Read, head: Any, now: datetime) -> stream.Items:
    rows = [
        stream.StreamItem(seq=event.seq, time=from_ns(event.time_ns), agent=event.agent, data=data)
        for event, data in told.stored.items.get((request.namespace, request.stream), [])
    ]
    page, more = page_of(rows, request)
    return stream.Items(items=page, next=more, **head)


# --- files ---------------------------------------------------------------------------------------------------------


def _plain(path: str) -> str:
    return "/".join(name for name in path.split("/") if name not in ("", "."))


def _read(told: Any, me: str, request: vault.Read, head: Any, now: datetime) -> Any:
    path = _plain(request.path)
    known = told.stored.text(request.namespace, path)
    if known is None:
        return NotFound
    version, text = known
    return vault.File(path=path, version=version, size=len(text.encode()), content=text, **head)


def _files(told: Any, me: str, request: vault.List, head: Any, now: datetime) -> vault.Files:
    below = told.stored.below(request.namespace, _plain(request.directory or ""))
    rows = [vault.FileRow(path=path, seq=seq, size=size) for path, seq, size in below if seq > (request.since or 0)]
    page = sorted(rows, key=lambda row: row.seq)[: request.limit]
    return vault.Files(files=page, next=page[-1].seq if len(page) == request.limit else None, **head)


STATES = {"created": "present", "written": "present", "renamed": "renamed", "deleted": "deleted"}


def _file_history(told: Any, me: str, request: vault.History, head: Any, now: datetime) -> Any:
    versions = told.stored.files.get((request.namespace, _plain(request.path)))
    if versions is None:
        return NotFound
    rows = [
        vault.FileVersion(
            seq=event.seq,
            time=from_ns(event.time_ns),
            agent=event.agent,
            type=event.type,
            state=STATES[event.type.partition(".")[2]],
            size=len((text or "").encode()),
        )
        for event, text in versions
    ]
    page, more = page_of(rows, request)
    return vault.Versions(versions=page, next=more, **head)


def _diff(told: Any, me: str, request: vault.Diff, head: Any, now: datetime) -> Any:
    path, versions = _plain(request.path), told.stored.files.get((request.namespace, _plain(request.path)))
    if versions is None:
        return NotFound
    end = head["seq"] if request.end is None else request.end
    changes = [event.seq for event, _ in versions if event.seq <= end]
    start = request.start if request.start is not None else changes[-1] - 1 if changes else 0
    if not start <= end <= head["seq"]:
        return InvalidRequest
    old, new = ((told.stored.text(request.namespace, path, seq) or (0, ""))[1] for seq in (start, end))
    return vault.Difference(path=path, start=start, end=end, diff=unified(path, (start, old), (end, new)), **head)


def _expand(told: Any, me: str, request: vault.Expand, head: Any, now: datetime) -> vault.Expanded:
    included, missing, skipped = dict[str, int](), list[str](), list[str]()

    def put(text: str, inside: tuple[str, ...]) -> str:
        out, rest = "", text
        while match := re.search(r"@\[(.+?)\]", rest):
            out, whole, rest = out + rest[: match.start()], match[0], rest[match.end() :]
            known = told.stored.text(request.namespace, match[1])
            if known is None:
                missing.append(match[1])
            elif match[1] in inside:
                skipped.append(match[1])
            else:
                included.setdefault(match[1], known[0])
                whole = put(known[1], (*inside, match[1]))
            out += whole
        return out + rest

    return vault.Expanded(
        text=put(request.text, ()),
        included=[vault.Included(path=path, seq=seq) for path, seq in included.items()],
        missing=list(dict.fromkeys(missing)),
        skipped=list(dict.fromkeys(skipped)),
        **head,
    )


def _show(told: Any, me: str, request: tool.Show, head: Any, now: datetime) -> Any:
    path = request.path[1:]
    known = told.stored.text(request.namespace, path)
    if known is not None:
        lines = known[1].split("\n")[: -1 if known[1].endswith("\n") else None] if known[1] else []
        if request.view_range is not None:
            last = request.view_range[1]
            if not lines:
                return InvalidRequest
            lines = lines[: None if last == -1 else last]
        rows = [f"{number:>6}\t{line}" for number, line in enumerate(lines, 1)]
        return tool.Viewed(
            text="\n".join([f"Here's the content of /{path} with line numbers:", *rows]) + "\n" * (not rows), **head
        )
    below = told.stored.below(request.namespace, path)
    if not below and path != "memories":
        return NotFound
    sizes = {f"/{path}": 0}
    for file, _, size in below:
        names = file[len(path) + 1 :].split("/")
        if any(name.startswith(".") for name in names):
            continue
        sizes[f"/{path}"] += size
        for depth in (1, 2):
            if depth <= len(names):
                name = "/".join(["", path, *names[:depth]]) + "/" * (depth < len(names))
                sizes[name] = sizes.get(name, 0) + size
    head_line = f"up to 2 levels deep in /{path}, excluding hidden items and node_modules:"
    rows = [f"{size}B\t{name}" for name, size in sorted(sizes.items())]
    return tool.Viewed(text="\n".join([f"Here're the files and directories {head_line}", *rows]), **head)


ANSWERS: Mapping[type, Callable[[Any, str, Any, Any, datetime], Any]] = {
    kv.Get: _get,
    kv.History: _history,
    kv.List: _list,
    stream.Read: _stream,
    vault.Read: _read,
    vault.List: _files,
    vault.History: _file_history,
    vault.Diff: _diff,
    vault.Expand: _expand,
    tool.Show: _show,
}
