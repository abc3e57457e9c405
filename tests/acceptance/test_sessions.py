"""Sessions through real processes: compacted by themselves, once, whoever is killed; a summariser behind an endpoint
that hangs and fails; nobody else's to see; and typed on the command line.

One bus for all tests: each has sessions of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bus.client import Bus
from bus.domain import log, recall
from bus.domain import session_requests as ask
from bus.domain.session import own_key
from bus.errors import BusError
from bus.model import Request
from tests.acceptance.commands import BUS, KEPT
from tests.acceptance.support import Rig, running, until, wait_until
from tests.unit.endpoint import Asked, Model, model

KEY = "sk-abcdef0123456789"
SECRET = "xylophone"
CONFIG = """
[session]
summariser = "openai:small-1"
compact_at_tokens = 100
summary_tokens = 60
timeout_s = 30
retries = 2
retry_s = 0.1

[openai]
base_url = "{url}"
key_variable = "SYNBUS_TEST_KEY"
"""


def summary_of(asked: Asked) -> dict[str, Any]:
    """What a model would say: the numbers of the turns that it was shown."""
    turns = re.findall(r"turn (\d+)", asked.body["messages"][1]["content"]) or ["0"]
    return {"choices": [{"message": {"content": f"turns {turns[0]} to {turns[-1]}"}}]}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Model]:
    with model() as server:
        yield server


@pytest.fixture(scope="module")
def rig(endpoint: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SYNBUS_TEST_KEY", KEY)
        with running(tmp_path_factory.mktemp("house"), CONFIG.format(url=endpoint.url)) as rig:
            yield rig


@pytest.fixture
def server(endpoint: Model) -> Model:
    endpoint.answer, endpoint.hold = summary_of, False
    endpoint.ended.clear()
    endpoint.asked.clear()
    return endpoint


async def say(bus: Bus, session: str, *numbers: int) -> list[int]:
    """Add turns of 40 tokens."""
    return [
        (await bus.call(ask.Add(session=session, role="user", content=f"turn {number}", tokens=40))).seq
        for number in numbers
    ]


async def compacted(rig: Rig, agent: str, session: str) -> list[Any]:
    """What the log says of the compactions of a session."""
    entity = own_key(session, agent).replace("+", "%2B")
    return [
        msgspec.json.decode(record.data)
        for record in await rig.log()
        if (record.headers["Bus-Type"], record.headers["Bus-Entity"]) == ("session.compacted", entity)
    ]


async def test_a_session_is_compacted_by_itself_once_whoever_is_killed(rig: Rig, server: Model) -> None:
    async with rig.connect("atlas") as bus:
        await bus.call(ask.Open(session="long", recent_tokens=50))
        seqs = await say(bus, "long", 1, 2)
        server.hold = True
        seqs += await say(bus, "long", 3)
        await until(lambda: server.asked, what="the model to be asked")

        # The model does not answer; everybody else is answered all the same.
        with anyio.fail_after(10):
            assert len((await bus.call(ask.Messages(session="long"))).messages) == 3
            seqs += await say(bus, "long", 4)
        rig.kill("daemon")
        server.hold = False
        server.ended.set()

        async def done() -> Any:
            known = await bus.call(ask.Get(session="long"))
            return known if known.compacted == seqs[2] else None

        known = await until(done, what="a summary")
        assert known.summary == "turns 1 to 3"
        assert (known.summariser, known.waiting) == ("openai:small-1", False)
        rig.kill("daemon")

        before = known
        seqs += await say(bus, "long", 5, 6)
        known = await until(lambda: _later(bus, before.summarised), what="another summary")
        found = await compacted(rig, "atlas", "long")
        starts = [fact.get("start", 0) for fact in found]
        assert starts == [0, *(fact["upto"] for fact in found[:-1])], "each turn was summarised once"
        whole = await bus.call(ask.Messages(session="long", replaced=True))
        assert [turn.content for turn in whole.messages] == [f"turn {number}" for number in range(1, 7)]
        then = await bus.call(ask.Messages(session="long", as_of=seqs[2]))
        assert [turn.seq for turn in then.messages] == seqs[:3]
        shown = await bus.call(ask.BuildContext(session="long", query="turn 1"))
        tiers = [block.tier for block in shown.blocks]
        assert (tiers[0], tiers[-1]) == ("summary", "recent")
        assert seqs[0] in {seq for block in shown.blocks if block.tier == "search" for seq in block.seqs}
        context = await bus.call(ask.BuildContext(session="long", as_of=shown.seq, query="turn 1"))
        assert context.blocks == shown.blocks
    assert {asked.key for asked in server.asked} == {f"Bearer {KEY}"}
    logs = "".join(path.read_text() for path in (rig.home.path / "logs").iterdir())
    assert KEY not in logs + json.dumps(rig.status())


async def _later(bus: Bus, seq: int | None) -> Any:
    """The session when it has a newer summary than that of event `seq`."""
    known = await bus.call(ask.Get(session="long"))
    return known if known.summarised != seq else None


def trouble(rig: Rig) -> str:
    """What the daemon says is wrong with its summariser."""
    (helper,) = rig.status().get("helpers") or [{"ok": True}]
    return "" if helper["ok"] else str(helper["found"])


async def test_a_summariser_behind_an_endpoint_that_fails_harms_nobody(rig: Rig, server: Model) -> None:
    server.answer = lambda asked: (500, f"I do not know {KEY}".encode())
    async with rig.connect("atlas") as bus:
        await say(bus, "poor", 1, 2, 3)
        await until(lambda: "500" in trouble(rig), what="the trouble")
        assert KEY not in trouble(rig)
        await until(lambda: len(server.asked) == 3, what="all attempts")
        assert len((await bus.call(ask.Messages(session="poor"))).messages) == 3
        assert "500" in _bus(rig, "status").stdout
        assert "500" in _bus(rig, "doctor").stdout
        server.answer = lambda asked: b"\xff{"
        await bus.call(ask.Compact(session="poor"))
        await until(lambda: "another form" in trouble(rig), what="the other trouble")
        server.answer = summary_of
        await bus.call(ask.Compact(session="poor"))

        async def done() -> bool:
            return bool((await bus.call(ask.Get(session="poor"))).summary)

        await until(done, what="a summary")
        await until(lambda: trouble(rig) == "", what="the end of the trouble")
    assert len(await compacted(rig, "atlas", "poor")) == 1


async def test_a_private_session_is_shown_to_its_owner_alone_whichever_way_somebody_looks(
    rig: Rig, server: Model
) -> None:
    name = "diary-of-atlas"
    async with rig.connect("atlas") as atlas, rig.connect("nova") as nova, rig.connect() as owner:
        seq = (await atlas.call(ask.Add(session=name, role="user", content=f"the {SECRET} is in the shed"))).seq
        await atlas.call(ask.Compact(session=name, summary=f"about the {SECRET}", upto=seq))
        assert (await atlas.call(recall.Recall(query=SECRET))).hits[0].session == name
        looks: list[Request] = [
            ask.Get(session=name),
            ask.Messages(session=name, replaced=True),
            ask.ToString(session=name),
            ask.History(session=name),
            ask.BuildContext(session=name, query=SECRET),
            ask.List(),
            ask.List(owner="atlas"),
            ask.Clear(session=name),
            ask.Configure(session=name, title="x"),
            ask.Compact(session=name),
            recall.Recall(query=f"{SECRET[:-1]} shed atlas", k=100, explain=True),
            log.List(family="session", limit=1000),
            log.Show(event=seq),
            log.Sql(sql="select * from session"),
            log.Sql(sql="select * from session_turn"),
            log.Sql(sql="select * from event where family = 'session'"),
            log.Table(table="session"),
            log.Table(table="session_turn", from_log=True),
            log.Sql(sql="select * from session_turn", from_log=True),
        ]
        for bus in (nova, owner):
            for request in looks:
                said = await _answer(bus, request)
                assert SECRET.encode() not in said, (bus.agent, request)
                assert name.encode() not in said.replace(f"session {name}".encode(), b""), (bus.agent, request)
        theirs = await nova.call(ask.BuildContext(session=(await _own(nova)), query=f"{SECRET} shed"))
        assert SECRET not in str(theirs)


async def _own(bus: Bus) -> str:
    await bus.call(ask.Add(session="mine", role="user", content="hello"))
    return "mine"


async def _answer(bus: Bus, request: Request) -> bytes:
    try:
        return msgspec.json.encode(await bus.call(request))
    except BusError as error:
        return msgspec.json.encode(error.problem)


def _bus(rig: Rig, *words: str, stdin: str = "", agent: str = "owner") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUS, *words, "--home", str(rig.home.path), "--as", agent],
        input=stdin,
        capture_output=True,
        text=True,
        env=KEPT | {"BUS_NAMESPACE": "test"},
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path(BUS).exists(), reason="the package is not installed")
def test_a_conversation_is_typed_and_read(rig: Rig, server: Model) -> None:
    def ok(*words: str, **options: Any) -> Any:
        done = _bus(rig, *words, "--json", agent="nova", **options)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    first = ok("session", "add", "chat", "--role", "user", "-", stdin="where is\nthe parser?\n")
    assert (first["session"], first["opened"]) == ("chat", True)
    ok("session", "add", "chat", "assistant", "in src/parser.py", "--tokens", "9")
    (one, two) = ok("session", "messages", "chat")["messages"]
    assert (one["content"], one["role"], two["tokens"]) == ("where is\nthe parser?", "user", 9)
    ok("session", "configure", "chat", "--strategy", "window", "--recent-turns", "1")
    assert [block["seqs"] for block in ok("session", "context", "chat")["blocks"]] == [[two["seq"]]]
    table = _bus(rig, "session", "list", agent="nova").stdout.splitlines()
    row = next(line.split() for line in table if line.startswith("chat"))
    assert row == ["chat", "nova", "private", "window", "2", "14"]
    done = ok("session", "compact", "chat", "--wait", "20s")
    assert (done["summariser"], done["compacted"]) == ("openai:small-1", first["seq"])
    late = _bus(rig, "session", "compact", "chat", "--wait", "0.3", agent="nova")
    assert late.returncode == 6, "there is nothing left to summarise"
    assert "bus status" in late.stderr
    assert _bus(rig, "session", "to-string", "chat", agent="nova").stdout == (
        "summary: turns 0 to 0\nassistant: in src/parser.py\n"
    )
    for words, code in (
        (("session", "add", "chat", "robot", "x"), 2),
        (("session", "add", "chat", "user", ""), 2),
        (("session", "add", "a b", "user", "x"), 2),
        (("session", "context", "chat", "--budget-tokens", "-1"), 2),
        (("session", "get", "nobody"), 4),
        (("session", "open", "chat", "--scope", "shared"), 3),
    ):
        done = _bus(rig, *words, agent="nova")
        assert done.returncode == code, done
    big = _bus(rig, "session", "add", "chat", "user", "-", stdin="x" * 1_200_000, agent="nova")
    assert big.returncode == 2
    assert "Traceback" not in big.stderr
    wait_until(lambda: rig.status()["skipped"] == 0)
