"""Reminders as they were."""

from __future__ import annotations

from bus.domain import reminder
from projections.query import Reader, answers, utc


@answers(reminder.List, "reminders")
def list_reminders(reader: Reader, request: reminder.List) -> reminder.Reminders:
    where, params = [f"namespace = ? and kid > {request.since or 0}"], [request.namespace]
    for column, value in (("state", request.state), ("agent", request.to), ("setter", request.setter)):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    sql = f"""
        select reminder, seq_from, kid, agent, setter, state, due, every, timezone, fired, text
        from {reader.at("reminder")} where {" and ".join(where)} order by kid limit {request.limit}"""
    found = [
        reminder.ReminderRow(
            reminder=name,
            seq=seq,
            set=set_,
            to=to,
            setter=setter,
            state=state,
            at=utc(at) if at else None,
            every=every,
            timezone=timezone,
            fired=fired,
            text=text,
        )
        for name, seq, set_, to, setter, state, at, every, timezone, fired, text in reader.rows(sql, params)
    ]
    return reminder.Reminders(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        reminders=found,
        next=found[-1].set if len(found) == request.limit else None,
    )
