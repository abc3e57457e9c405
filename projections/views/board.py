"""The board: a namespace's tasks by state, and what has changed on it since.

Rules:
* Whoever follows the board asks for what changed after a seq. A task changes by its own events, and when something it
  needs begins or ceases to be done.
* What changed is answered up to a seq that leaves room for all of it; from there on the next answer goes on. A task
  that changed again behind that seq is left to the next answer, so that it is told once.
"""

from __future__ import annotations

from collections.abc import Collection

from bus.domain import task_requests as ask
from projections.query import Reader, answers, any_of
from projections.views.tasks import whole, with_blocked

_STATES = ("open", "blocked", "claimed", "done", "failed", "cancelled")
_ONGOING = ("open", "blocked", "claimed")


@answers(ask.Board, "news")
def board(reader: Reader, request: ask.Board) -> ask.TaskBoard:
    return _whole_board(reader, request) if request.since is None else _changes(reader, request, request.since)


def _whole_board(reader: Reader, request: ask.Board) -> ask.TaskBoard:
    most = request.limit
    sql = f"""
        select state, count(*), min_by(task, (-priority, opened), {most}), max_by(task, seq_from, {most})
        from ({with_blocked(reader)}) group by 1"""
    counts = dict.fromkeys(_STATES, 0)
    names: dict[str, list[str]] = {}
    for state, count, best, newest in reader.rows(sql, [request.namespace] * 2):
        counts[state] = count
        names[state] = best if state in _ONGOING else newest
    tasks = whole(reader, request.namespace, [name for column in names.values() for name in column])
    columns = {state: [tasks[name] for name in names.get(state, ())] for state in _STATES}
    return ask.TaskBoard(
        seq=reader.seq, time=reader.time_of(reader.seq), counts=counts, columns=columns, next=reader.seq
    )


def _changes(reader: Reader, request: ask.Board, since: int) -> ask.TaskBoard:
    upto, rows = since, list[ask.TaskRow]()
    while not rows and upto < reader.seq:
        window = _Window(reader, request.namespace, upto, request.limit)
        upto = window.upto
        rows = [row for row in whole(reader, request.namespace, window.names()).values() if row.seq <= upto]
    return ask.TaskBoard(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        counts={},
        columns={},
        changed=sorted(rows, key=lambda row: row.seq),
        next=upto if rows else since,
    )


class _Window:
    """What happened to the tasks of a namespace after a seq, up to `upto`: `limit` events of each kind at most."""

    def __init__(self, reader: Reader, namespace: str, since: int, limit: int) -> None:
        self._reader, self._namespace, self._since = reader, namespace, since
        began = f"where namespace = ? and seq_from > {since} order by seq_from limit {limit}"
        versions = f"select seq_from, kid, task, state = 'done' from {reader.history('task')} {began}"
        links = f"select seq_from, needs from {reader.history('needs')} {began}"
        self._versions, self._links = (reader.rows(sql, [namespace]) for sql in (versions, links))
        full = (rows[-1][0] for rows in (self._versions, self._links) if len(rows) == limit)
        self.upto: int = min(full, default=reader.seq)

    def names(self) -> set[str]:
        """The tasks that changed, and those that need one that began or ceased to be done."""
        done = {kid: (name, is_done) for seq, kid, name, is_done in self._versions if seq <= self.upto}
        names = {name for name, _ in done.values()} | {name for seq, name in self._links if seq <= self.upto}
        before = self._were_done(done) if done else set()
        turned = [name for kid, (name, is_done) in done.items() if is_done != (kid in before)]
        if turned:
            among = ", ".join("?" for _ in turned)
            sql = f"select needs from {self._reader.at('needs_needs')} where namespace = ? and item in ({among})"
            names |= {name for (name,) in self._reader.rows(sql, [self._namespace, *turned])}
        return names

    def _were_done(self, kids: Collection[int]) -> set[int]:
        """Those of these tasks that were done when the window began."""
        sql = f"""
            select kid from {self._reader.history("task")} where kid in {any_of(kids)}
                and seq_from <= {self._since} and {self._since} < seq_to and state = 'done'"""
        return {kid for (kid,) in self._reader.rows(sql)}
