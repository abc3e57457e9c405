"""The wake card: what a starting agent must know, gathered from everything that concerns it, wherever it works.

Rules:
* It reads all namespaces, because an agent that starts may not know in which it had been working.
* Of each kind the most important are shown, long texts are cut, and `counts` says how many there are in all.
* How much time is left is reckoned from the moment that is read: now, or the time of the last event as of then.
* Its text is made by `projections.views.card`, which keeps it within its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec.structs import replace

from bus.domain import inbox, journal
from projections.query import Reader, answers, any_of, utc
from projections.views.card import brief, card_text
from projections.views.inbox import acked_upto, peek
from projections.views.journals import COLUMNS, entry

MOST = 10
"""So many of each kind are on a card."""
LINES = 5
"""So many lines of each list of the last journal entry."""

T = TypeVar("T")


@answers(journal.Wake)
def wake(reader: Reader, request: journal.Wake) -> journal.WakeCard:
    first = peek(reader, inbox.Peek(limit=1))
    held, claims = _claims(reader)
    asked, directives = _directives(reader)
    known, reminders = _reminders(reader)
    pinned, pins = _pins(reader)
    unread = len(first.items) + first.remaining
    time = reader.time_of(reader.seq)
    card = journal.WakeCard(
        seq=reader.seq,
        time=time,
        agent=reader.agent,
        namespace=request.namespace,
        counts={"claims": held, "unread": unread, "directives": asked, "reminders": known, "pins": pinned},
        claims=claims,
        oldest=_short(first.items[0]) if first.items else None,
        directives=directives,
        reminders=reminders,
        journal=_last_entry(reader),
        pins=pins,
        text="",
    )
    now = reader.now if request.as_of is None else time
    return replace(card, text=card_text(card, now or reader.now))


def _short(item: inbox.Item) -> inbox.Item:
    return replace(item, text=brief(item.text))


def _best(
    reader: Reader, columns: str, within: str, params: Sequence[Any], make: Callable[..., T]
) -> tuple[int, list[T]]:
    """-> (how many there are, the first MOST of them). `within` is what follows `from`, with its order."""
    rows = reader.rows(f"select count(*) over (), {columns} from {within} limit {MOST}", params)
    return rows[0][0] if rows else 0, [make(*row[1:]) for row in rows]


def _claims(reader: Reader) -> tuple[int, list[journal.Claimed]]:
    """The tasks it holds, the one whose lease ends first before the others."""

    def claimed(namespace: str, task: str, title: str, fence: int, expires: datetime) -> journal.Claimed:
        return journal.Claimed(namespace=namespace, task=task, title=brief(title), fence=fence, expires=utc(expires))

    within = f"{reader.at('task')} where owner = ? and state = 'claimed' order by expires, kid"
    return _best(reader, "namespace, task, title, fence, expires", within, [reader.agent], claimed)


def _directives(reader: Reader) -> tuple[int, list[journal.Instruction]]:
    """What it has been told to do and has not ended: overdue ones first, then the most urgent."""

    def instruction(
        namespace: str,
        name: str,
        giver: str,
        state: str,
        overdue: bool,
        priority: int,
        due: datetime | None,
        text: str,
    ) -> journal.Instruction:
        return journal.Instruction(
            namespace=namespace,
            directive=name,
            giver=giver,
            state=state,
            overdue=overdue,
            priority=priority,
            due=utc(due) if due else None,
            text=brief(text),
        )

    within = f"""{reader.at("directive")} where (state = 'acknowledged' and agent = ? or state = 'given'
        and kid in (select kid from {reader.at("directive_to")} where item = ?))
        order by overdue desc, priority desc, due nulls last, kid"""
    columns = "namespace, directive, giver, state, overdue, priority, due, text"
    return _best(reader, columns, within, [reader.agent] * 2, instruction)


def _reminders(reader: Reader) -> tuple[int, list[journal.Reminded]]:
    """Those that have fired and are unread, then those that are going to fire, soonest first."""
    acked = acked_upto(reader)

    def reminded(
        namespace: str, name: str, setter: str, due: datetime | None, fired: int | None, text: str
    ) -> journal.Reminded:
        return journal.Reminded(
            namespace=namespace,
            reminder=name,
            setter=setter,
            at=utc(due) if due else None,
            fired=fired,
            text=brief(text),
        )

    within = f"""(select *, if(fired > {acked}, fired, null) as unread from {reader.at("reminder")})
        where agent = ? and (state = 'waiting' or unread is not null)
        order by unread nulls last, due, kid"""
    return _best(reader, "namespace, reminder, setter, due, unread, text", within, [reader.agent], reminded)


def _last_entry(reader: Reader) -> journal.Entry | None:
    """The last entry of its journals, with the beginning of each list."""
    last = reader.rows(f"select max(last) from {reader.at('journal')} where journal = ?", [reader.agent])
    if last[0][0] is None:
        return None
    rows = reader.rows(f"select {COLUMNS} from {reader.at('journal_entry')} where seq = {last[0][0]}")
    known = entry(rows[0])
    lists = {
        name: [brief(line) for line in getattr(known, name)[:LINES]] for name in ("done", "decisions", "next_steps")
    }
    return replace(known, focus=brief(known.focus), **lists)


def _pins(reader: Reader) -> tuple[int, list[journal.Pin]]:
    """The pinned messages of the channels it has joined, the newest first, as they read now."""
    joined = f"select kid from {reader.at('channel_members')} where item = ?"
    sql = f"""
        select count(*) over (), namespace, channel, item from {reader.at("channel_pins")} where kid in ({joined})
        order by item desc limit {MOST}"""
    found = reader.rows(sql, [reader.agent])
    if not found:
        return 0, []
    seqs = any_of(seq for *_, seq in found)
    said = reader.rows(
        f"""select m.seq, m.agent, coalesce(t.edit, m.text) from {reader.at("message")} m
        left join (select message, arg_max(edit, seq) as edit from {reader.at("message_touch")}
            where edit is not null and message in {seqs} group by 1) t on t.message = m.seq
        where m.seq in {seqs}"""
    )
    texts = {seq: (agent, text) for seq, agent, text in said}
    pins = [
        journal.Pin(namespace=namespace, channel=channel, seq=seq, agent=texts[seq][0], text=brief(texts[seq][1]))
        for _, namespace, channel, seq in found
        if seq in texts  # An administrator may pin what is no message.
    ]
    return found[0][0], pins
