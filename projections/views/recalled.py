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
from bus.subjects import TENANT
from projections.query import Reader, sought, strings
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
        why=Why(own=found.own, near=found.near, wide=found.wide, author=found.by_author, time=found.by_time),
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
    wanted = sorted(seqs)
    if not wanted:
        return {}
    near = f"seq between {wanted[0]} and {wanted[-1]}"
    return dict(reader.rows(f"select seq, {column} from {reader.at(table)} where {near} and seq in {sought(wanted)}"))


def _entries(reader: Reader, namespace: str, found: Sequence[Found]) -> Shown:
    columns = "seq, focus, done, decisions, next_steps"
    sql = f"select {columns} from {reader.at('journal_entry')} where seq in {sought(one.ident for one in found)}"
    said = {
        seq: [focus, *(line for part in lists for line in strings(part))] for seq, focus, *lists in reader.rows(sql)
    }
    for one in found:
        if one.ident in said:
            yield one, _hit(one, "\n".join(filter(None, said[one.ident])))


_SHOWN: Mapping[str, Callable[[Reader, str, Sequence[Found]], Shown]] = MappingProxyType(
    {"memory": _memories, "message": _messages, "journal": _entries}
)
