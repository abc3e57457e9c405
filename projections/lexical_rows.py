"""From the tables to the words: what was written since the index was last looked at.

Rules:
* What a text is found by is its words and the name of whoever said it; for an entry of the memory also its subject and
  its tags, for what became of a task also its title, for a passage also its path and the heading it stands under.
* Messages of one conversation follow one another, and so do entries about one subject, the entries of one journal, the
  turns of one session, what was said about a task, and the passages of one version of a file or of a turn. An entry
  without a subject stands alone.
* A file is found in the version that is valid; one that is deleted or renamed is not found under that path any more.
  What was cleared from a session says nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from bus.domain.session import speaker
from projections.lexical_index import Index, Wording
from projections.news import News
from projections.passages import passages
from projections.query import strings
from projections.slices import Chunks, Sliced
from projections.views.recalled import TOLD, told_of_task

SLICE_BYTES = 4_000_000
"""A slice ends earlier when the files and turns in it have more bytes than this."""
Rows = Callable[[str], list[Sequence[Any]]]


class Lexicon(Sliced[Index]):
    """The index of all words."""

    slice = 5_000

    def __init__(self, news: News) -> None:
        super().__init__(Index())
        self.news = news

    def _read(self, chunks: Chunks, after: int, upto: int) -> int:
        upto = bounded(chunks, after, upto, self.news)
        for wording in sorted(wordings(chunks, after, upto, self.news), key=lambda one: one.seq):
            self._kept.put(wording)
        return upto


def wordings(chunks: Chunks, after: int, upto: int, news: News) -> Iterator[Wording]:
    """What the events after one and up to another made things say."""

    def rows(sql: str) -> list[Sequence[Any]]:
        return [row for chunk in chunks(sql) for row in chunk]

    for table, told in TABLES.items():
        if news.may_be_in(table, after):
            yield from told(rows, after, upto)


def bounded(chunks: Chunks, after: int, upto: int, news: News) -> int:
    """Where a slice ends that has not too many bytes of files and turns, or only one of them."""
    sizes = {
        "vault": f"select seq_from as seq, size from vault where seq_from > {after} and seq_from <= {upto}",
        "session_turn": f"select seq, strlen(content) as size from session_turn where seq > {after} and seq <= {upto}",
    }
    wanted = [sql for table, sql in sizes.items() if news.may_be_in(table, after)]
    if not wanted:
        return upto
    size = 0
    sql = f"{' union all '.join(wanted)} order by seq"
    for seq, more in (row for chunk in chunks(sql) for row in chunk):
        if size and size + more > SLICE_BYTES:
            return int(seq) - 1
        size += more
    return upto


def _messages(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    columns = "seq, seq, time, namespace, family, conversation, agent, audience, text"
    for row in rows(f"select {columns} from message where seq > {after} and seq <= {upto}"):
        yield _message(*row)


def _edits(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    sql = f"""
        select t.seq, m.seq, time, namespace, family, conversation, m.agent, m.audience, t.edit
        from message_touch t join message m on m.seq = t.message and m.place = t.place
        where t.edit is not null and t.seq > {after} and t.seq <= {upto}"""
    for row in rows(sql):
        yield _message(*row)


def _message(
    said: int,
    seq: int,
    time: datetime,
    namespace: str,
    family: str,
    conversation: str,
    agent: str,
    audience: str | None,
    text: str,
) -> Wording:
    return Wording(
        seq=said,
        time=time,
        kind="message",
        ident=seq,
        entity=conversation,
        namespace=namespace,
        audience=audience,
        thread=(family, conversation),
        author=agent,
        text=f"{agent} {text}",
    )


def _memories(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    began = f"seq_from > {after} and seq_from <= {upto}"
    tags: dict[int, list[tuple[str, int, int]]] = {}
    sql = f"""
        select kid, item, seq_from, seq_to from memory_tags
        where seq_from <= {upto} and seq_to > {after} and kid in (select kid from memory where {began}) order by item"""
    for kid, *tag in rows(sql):
        tags.setdefault(kid, []).append((tag[0], tag[1], tag[2]))
    sql = f"""
        select kid, seq_from, m.namespace, memory, author, subject, content, state, e.time, valid_from, trust_tier,
            m.audience
        from memory m join event e on e.seq = seq_from where {began} and e.seq > {after} and e.seq <= {upto}"""
    for kid, seq, namespace, key, author, subject, content, state, time, valid_from, tier, audience in rows(sql):
        tagged = [tag for tag, begins, ends in tags.get(kid, ()) if begins <= seq < ends]
        yield Wording(
            seq=seq,
            time=time,
            kind="memory",
            ident=kid,
            entity=key,
            namespace=namespace,
            audience=audience,
            thread=(subject,) if subject else None,
            author=author,
            text=" ".join((author, subject, content, *tagged)) if state == "active" else None,
            true_from=valid_from.date() if valid_from is not None else None,
            tier=tier,
        )


def _entries(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    columns = "seq, time, namespace, agent, focus, done, decisions, next_steps"
    sql = f"select {columns} from journal_entry where seq > {after} and seq <= {upto}"
    for seq, time, namespace, agent, focus, *lists in rows(sql):
        lines = [focus, *(line for part in lists for line in strings(part))]
        yield Wording(
            seq=seq,
            time=time,
            kind="journal",
            ident=seq,
            entity=agent,
            namespace=namespace,
            audience=None,
            thread=(agent,),
            author=agent,
            text="\n".join((agent, *lines)),
        )


def _tasks(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    kinds = ", ".join(f"'{kind}'" for kind in TOLD)
    sql = f"""
        select seq_from, e.time, kid, t.namespace, task, opener, e.agent, e.type, title, body, result, reason, notes
        from task t join event e on e.seq = seq_from where seq_from > {after} and seq_from <= {upto}
        and e.seq > {after} and e.seq <= {upto} and e.type in ({kinds})"""
    for seq, time, kid, namespace, task, opener, agent, kind, *texts in rows(sql):
        describes = kind in ("task.opened", "task.amended")
        text = told_of_task(kind, *texts)
        if text is not None:
            author = opener if describes else agent
            yield Wording(
                seq=seq,
                time=time,
                kind="task",
                ident=kid if describes else seq,
                entity=task,
                namespace=namespace,
                audience=None,
                thread=(task,),
                author=author,
                text=f"{author} {text}",
            )


def _documents(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    for at, text in (("seq_to", "null"), ("seq_from", "content")):
        sql = f"""
            select {at}, e.time, seq_from, v.namespace, vault, e.agent, {text} from vault v join event e on e.seq = {at}
            where {at} > {after} and {at} <= {upto} and e.seq > {after} and e.seq <= {upto} and state = 'present'"""
        for seq, time, version, namespace, path, agent, content in rows(sql):
            said = Wording(
                seq=seq,
                time=time,
                kind="document",
                ident=version,
                entity=path,
                namespace=namespace,
                audience=None,
                thread=(path, str(version)),
                author=agent,
                text=None,
            )
            if content is None:
                yield said
                continue
            for part, passage in enumerate(passages(path, content)):
                yield said._replace(part=part, text=f"{agent} {path} {passage.under} {passage.text}")


def _turns(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    columns = "seq, seq, time, namespace, session, agent, role, audience, content"
    for *said, content in rows(f"select {columns} from session_turn where seq > {after} and seq <= {upto}"):
        turn = _turn(*said)
        for part, passage in enumerate(passages("", content)):
            yield turn._replace(part=part, text=f"{turn.author} {passage.text}")


def _cleared(rows: Rows, after: int, upto: int) -> Iterator[Wording]:
    sql = f"""
        select s.seq_from, t.seq, t.time, t.namespace, t.session, t.agent, t.role, t.audience
        from session s join session_turn t
        on t.namespace = s.namespace and t.session = s.session and t.seq < s.seq_from
        where s.seq_from > {after} and s.seq_from <= {upto} and s.cleared = s.seq_from"""
    for row in rows(sql):
        yield _turn(*row)


def _turn(
    seq: int, ident: int, time: datetime, namespace: str, key: str, agent: str, role: str, audience: str | None
) -> Wording:
    """A turn that says nothing, or not yet."""
    return Wording(
        seq=seq,
        time=time,
        kind="turn",
        ident=ident,
        entity=key,
        namespace=namespace,
        audience=audience,
        thread=(key,),
        author=speaker(role, agent),
        text=None,
    )


TABLES: Mapping[str, Callable[[Rows, int, int], Iterator[Wording]]] = MappingProxyType(
    {
        "message": _messages,
        "message_touch": _edits,
        "memory": _memories,
        "journal_entry": _entries,
        "task": _tasks,
        "vault": _documents,
        "session_turn": _turns,
        "session": _cleared,
    }
)
"""What each table makes things say with the events after one and up to another."""
