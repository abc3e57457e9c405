"""Random commands through a real executor, folded into real tables: every query, at any seq and for any agent, is
answered as a plain reading of the events says, with the same bytes for ever, and nobody reads what others whisper.

SYNBUS_EXAMPLES=200 tries more examples than the default few.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bus.clock import from_ns
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
from bus.errors import InvalidRequest, NotFound
from bus.events import Event
from bus.operation import CODEC, OPERATIONS
from bus.protocol import encode_answer
from projections import postings, query
from projections.inbox_rows import Inboxes
from projections.reader import Reader
from projections.store import FILE
from projections.views import messages
from tests.property import oracle
from tests.property.asked import QUERIES
from tests.property.folding import Folding
from tests.property.happenings import Step, steps
from tests.property.kept import COVERED
from tests.property.play import Play
from tests.property.sayings import ASKING
from tests.property.told import Told

EXAMPLES = int(os.environ.get("SYNBUS_EXAMPLES", "12"))
ELSEWHERE = {"log.show", "replay.tables", "replay.table", "replay.sql"}
"""Queries that are answered from the log or by replaying it."""
asker, moment = st.sampled_from(ASKING), st.floats(0, 1)
rounds = st.lists(st.tuples(st.tuples(asker, moment), st.tuples(*QUERIES)), min_size=3, max_size=5)
Asked = Sequence[tuple[tuple[str, float], tuple[Any, ...]]]


def bytes_of(handle: Callable[[Any, Any], Any], reader: Reader, request: Any) -> bytes:
    try:
        return encode_answer(handle(reader, request))
    except (NotFound, InvalidRequest) as error:
        return encode_answer(error)


class Tables:
    """The tables of a play, folded as far as wanted, and what the events so far say."""

    def __init__(self, folder: Path, play: Play) -> None:
        self.play = play
        self.events: list[Event] = [CODEC.decode(record) for record in play.log.records]
        self.now = from_ns(play.clock.now_ns) + timedelta(hours=1)
        self.folding = Folding(folder / FILE)
        self._handlers = query.answerers()

    def fold_to(self, seq: int) -> None:
        store = self.folding.store
        self.folding.fold(self.play.log.records[store.position : seq])
        store.indexes.step(store.position, store.chunks)

    async def ask(self, seq: int, me: str, requests: Sequence[Any]) -> list[bytes]:
        def read(reader: Reader) -> list[bytes]:
            return [bytes_of(self._handlers[type(request)].handle, reader, request) for request in requests]

        return await self.folding.store.read(seq, me, self.now, read)

    def expected(self, told: Told, me: str, request: Any) -> Any:
        return oracle.answer(told, me, request, self.now)


def compare(tables: Tables, told: Told, me: str, requests: Sequence[Any], found: Sequence[bytes]) -> None:
    for request, body in zip(requests, found, strict=True):
        wanted = tables.expected(told, me, request)
        if isinstance(wanted, type):
            assert body.startswith(b'{"error":{"kind":"%b"' % wanted.__name__.encode()), (me, request, body)
        else:
            answer = msgspec.json.decode(body, type=type(wanted))
            assert answer == wanted, f"{me} asks {request} as of #{len(told.events)}:\n{answer}\ninstead of\n{wanted}"


def keep_secrets(play: Play, me: str, found: Sequence[bytes]) -> None:
    shown = b"".join(found).decode()
    for secret, knowing in play.secrets.items():
        assert me in knowing or secret not in shown, (me, secret)


async def check(folder: Path, what: Sequence[Step], asked: Asked, cut: float) -> None:
    play = Play()
    await play.run(what)
    tables = Tables(folder, play)
    end = len(tables.events)
    half = int(end * cut)
    tables.fold_to(half)
    early = [
        (seq, me, requests, await tables.ask(seq, me, requests))
        for (me, part), requests in asked
        for seq in (int(half * part),)
    ]
    tables.fold_to(end)
    for seq, me, requests, before in early:
        assert await tables.ask(seq, me, requests) == before, "an answer about the past changed"
    late = [(int(end * part), me, requests) for (me, part), requests in asked] + [(end, "bob", asked[0][1])]
    for seq, me, requests in late:
        compare(tables, Told(tables.events[:seq]), me, requests, found := await tables.ask(seq, me, requests))
        keep_secrets(play, me, found)
        store = tables.folding.store
        with mock.patch.object(store, "_world", None), mock.patch.object(store.indexes, "inboxes", Inboxes()):
            assert await tables.ask(seq, me, requests) == found, "the tables and the memory differ"
    for seq, told in ((half, Told(tables.events[:half])), (end, Told(tables.events))):
        for me in ASKING:
            compare(tables, told, me, WHOLE, found := await tables.ask(seq, me, WHOLE))
            keep_secrets(play, me, found)
    for seq, me, requests, before in early:
        compare(tables, Told(tables.events[:seq]), me, requests, before)
    await walk(tables, end)
    await tables.folding.store.close()


WHOLE: Sequence[Any] = (
    inbox.Peek(limit=1000),
    inbox.Digest(),
    channel.Search(text="i", limit=1000),
    channel.Search(text="a_b"),
    channel.Search(text="50%"),
    dm.Search(text="secret", limit=1000),
    dm.List(),
    task_requests.Board(limit=200),
    task_requests.Board(limit=200, since=40),
    task_requests.Show(task="t-4"),
    agent.Who(),
    reservation.Check(paths=tuple(COVERED)),
    directive.List(limit=1000),
    vault.List(limit=1000),
    tool.Show(path="/memories"),
    journal.Wake(),
    memory_requests.List(state="any", limit=1000),
    memory_requests.Search(text="i", limit=1000),
    memory_requests.Assemble(limit=1000),
    recall.Recall(query="fix secret parser 50 bob", k=1000),
    session_requests.List(limit=1000),
    session_requests.Messages(session="s-a", replaced=True, limit=1000),
    session_requests.BuildContext(session="s-b", query="fix secret parser 50 bob"),
    session_requests.BuildContext(session="s-a", query="fix secret parser 50 bob", strategy="vector"),
)
PAGED: Sequence[tuple[str, Any]] = (
    ("messages", channel.Read(channel="dev", since=0)),
    ("messages", dm.Read(to="bob", since=0)),
    ("channels", channel.List()),
    ("dms", dm.List()),
    ("tasks", task_requests.List()),
    ("agents", agent.List()),
    ("models", registry.ListModels()),
    ("personalities", registry.ListPersonalities()),
    ("events", log.List()),
    ("items", inbox.Peek()),
    ("intents", intent.List()),
    ("reservations", reservation.List()),
    ("directives", directive.List()),
    ("reminders", reminder.List()),
    ("entries", journal.Read(since=0)),
    ("memories", memory_requests.List(state="any")),
    ("values", kv.List()),
    ("versions", kv.History(key="a", since=0)),
    ("items", stream.Read(stream="user:1", since=0)),
    ("sessions", session_requests.List()),
    ("messages", session_requests.Messages(session="s-a", since=0, replaced=True)),
    ("history", session_requests.History(session="s-a", since=0)),
    ("files", vault.List()),
    ("versions", vault.History(path="a.md", since=0)),
    ("collections", vector.Collections()),
)


async def walk(tables: Tables, seq: int) -> None:
    """Page after page of two give what one large page gives: nothing is left out, nothing comes twice."""
    for name, request in PAGED:
        whole = (await page(tables, seq, request, request.since, 1000))[name]
        answer, found = await page(tables, seq, request, request.since, 2), []
        while answer[name]:
            found += answer[name]
            since = answer["upto"] if "upto" in answer else answer["next"]
            if since is None:
                break
            answer = await page(tables, seq, request, since, 2)
        assert found == whole, name


async def page(tables: Tables, seq: int, request: Any, since: int | None, limit: int) -> dict[str, Any]:
    (body,) = await tables.ask(seq, "ada", [msgspec.structs.replace(request, since=since, limit=limit)])
    answer: dict[str, Any] = msgspec.json.decode(body)
    return answer


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
    phases=(Phase.generate,),  # what is wrong is said; a shorter way to it would take minutes to find
)
@given(what=steps, asked=rounds, cut=st.floats(0, 1))
def test_every_query_at_every_seq_for_everybody_is_what_the_events_say(
    what: list[Step], asked: Asked, cut: float
) -> None:
    # Tails are looked for in windows, and words in segments; with small ones the small logs of this test have several.
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(messages, "WINDOW", 7),
        mock.patch.object(postings, "TAIL", 50),
        mock.patch.object(inbox, "MANY", 5),
    ):
        anyio.run(check, Path(folder), what, asked, cut)


def test_no_query_is_left_out() -> None:
    queries = {op.request for op in OPERATIONS.values() if op.kind == "see" and op.name not in ELSEWHERE}
    assert queries == set(oracle.ANSWERS)
    assert queries <= set(query.answerers())
