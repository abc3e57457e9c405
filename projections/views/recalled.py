"""What recall found, as it is shown: read from the tables, for the few that are wanted.

Rules:
* It is read through the reader, so that nothing is shown that may not be seen.
* Each kind of thing has one function here: of what was found of that kind, it gives what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from bus.domain.recall import Hit, Why
from bus.domain.session import Session
from bus.subjects import TENANT
from projections.passages import passages
from projections.query import Reader, any_of, strings
from projections.recall import Found
from projections.views import memory
from projections.views.messages import shown_name

Shown = Iterator[tuple[Found, Hit]]


def hits(reader: Reader, namespace: str, found: Sequence[Found]) -> dict[int, Hit]:
    """By slot, what is shown of everything that was found by somebody in this namespace."""
    of: dict[str, list[Found]] = {}
    for one in found:
        of.setdefault(one.kind, []).append(one)
    return {one.slot: hit for kind, some in of.items() for one, hit in _SHOWN[kind](reader, namespace, some)}


def _hit(found: Found, text: str) -> Hit:
    """What all kinds have in common."""
    return Hit(
        seq=found.seq,
        kind=found.kind,
        score=found.score,
        why=Why(
            own=found.own,
            near=found.near,
            wide=found.wide,
            meaning=found.meaning,
            author=found.by_author,
            time=found.by_time,
        ),
        namespace=found.namespace,
        agent=found.author,
        text=text,
        time=found.time,
    )


def _memories(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    by_kid = {one.ident: one for one in found}
    for row in memory.whole(reader, namespace, [(one.ident, one.namespace, one.entity) for one in found]):
        one = by_kid[row.written]
        yield one, replace(_hit(one, row.content), **{name: getattr(row, name) for name in _SAME})


_SAME = (
    *("memory", "subject", "category", "scope", "tags", "metadata", "valid_from", "valid_to"),
    *("trust_tier", "pinned", "contradicts"),
)


def _messages(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    texts = _column(reader, "message", "text", (one.ident for one in found if one.seq == one.ident))
    texts |= _column(reader, "message_touch", "edit", (one.seq for one in found if one.seq != one.ident))
    for one in found:
        if (text := texts.get(one.seq)) is not None:
            hit, name = replace(_hit(one, text), seq=one.ident), shown_name(one.entity, reader.agent)
            # What belongs to no namespace is a conversation of two.
            yield one, replace(hit, dm=name) if one.namespace == TENANT else replace(hit, channel=name)


def _column(reader: Reader, table: str, column: str, seqs: Iterable[int]) -> dict[int, str]:
    """A column of some rows, by seq."""
    wanted = list(seqs)
    if not wanted:
        return {}
    return dict(reader.rows(f"select seq, {column} from {reader.at(table)} where seq in {any_of(wanted)}"))


def _entries(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    columns = "seq, focus, done, decisions, next_steps"
    sql = f"select {columns} from {reader.at('journal_entry')} where seq in {any_of(one.ident for one in found)}"
    said = {
        seq: [focus, *(line for part in lists for line in strings(part))] for seq, focus, *lists in reader.rows(sql)
    }
    for one in found:
        if one.ident in said:
            yield one, _hit(one, "\n".join(filter(None, said[one.ident])))


TOLD: Mapping[str, str] = MappingProxyType(
    {
        "task.opened": "",
        "task.amended": "",
        "task.completed": "done",
        "task.failed": "failed",
        "task.cancelled": "cancelled",
        "task.released": "released",
        "task.reopened": "reopened",
        "task.declined": "declined",
        "task.offered": "offered",
        "task.handed_off": "handed off",
    }
)
"""The events by which something is told of a task, and in a word what."""


def told_of_task(kind: str, title: str, body: str, result: str, reason: str, notes: str) -> str | None:
    """What an event told of a task, which looks so after it; None when it told nothing."""
    if not TOLD[kind]:
        return "\n".join(filter(None, (title, body)))
    told = {"task.completed": result, "task.offered": notes, "task.handed_off": notes}.get(kind, reason)
    return f"{title}\n{TOLD[kind]}: {told}" if told.strip() else None


def _tasks(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    wanted = any_of(one.seq for one in found)
    sql = f"""
        select seq_from, type, title, body, result, reason, notes from {reader.history("task")} t
        join {reader.at("event")} e on e.seq = seq_from where seq_from in {wanted} and e.seq in {wanted}"""
    told = {seq: told_of_task(*said) for seq, *said in reader.rows(sql)}
    for one in found:
        if (text := told.get(one.seq)) is not None:
            yield one, replace(_hit(one, text), task=one.entity)


def _documents(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    sql = f"select seq_from, vault, content from {reader.at('vault')} where seq_from in "
    files = {seq: passages(*file) for seq, *file in reader.rows(sql + any_of({one.seq for one in found}))}
    for one in found:
        if one.part < len(files.get(one.seq, ())):
            passage = files[one.seq][one.part]
            yield one, replace(_hit(one, passage.text), path=one.entity, line=passage.line)


def _turns(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    said = _column(reader, "session_turn", "content", (one.ident for one in found))
    texts = {seq: passages("", content) for seq, content in said.items()}
    sessions = {
        (space, key): entry.state.name
        for space in {one.namespace for one in found}
        for key, entry in reader.states(Session, space, [one.entity for one in found if one.namespace == space]).items()
    }
    for one in found:
        place = (one.namespace, one.entity)
        if one.part < len(texts.get(one.ident, ())) and place in sessions:
            yield one, replace(_hit(one, texts[one.ident][one.part].text), session=sessions[place])


_SHOWN: Mapping[str, Callable[[Reader, str, Sequence[Found]], Shown]] = MappingProxyType(
    {
        "memory": _memories,
        "message": _messages,
        "journal": _entries,
        "task": _tasks,
        "document": _documents,
        "turn": _turns,
    }
)
