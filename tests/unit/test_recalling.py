"""Recall with an embedder and a reranker: what they add, that nothing depends on them, and that the past stays as it
was."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from bus.domain.channel import Edit, Join, Post
from bus.domain.memory_requests import Restore, Retract, Revise, Write
from bus.domain.recall import ANSWERED, Hits, Recall
from bus.errors import InvalidRequest
from bus.tunables import RecallOptions
from projections import recalling as module
from projections.recalling import Recalling
from tests.unit.desk import Desk, caught, helped_desk
from tests.unit.installed import install
from tests.unit.leader import Leader, founded

STOP = "to be or not to be"
"""Words that stand in almost every text: only an embedder knows anything of them."""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plug-ins of the tests, installed. -> the folder in which a call that hangs finds that it may go on."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "hashed_embedder", raising=False)
    (tmp_path / "signs").mkdir()
    monkeypatch.setenv("SYNBUS_TEST_FOLDER", str(tmp_path / "signs"))
    return tmp_path / "signs"


@asynccontextmanager
async def helped(folder: Path, leader: Leader | None = None, **options: Any) -> AsyncIterator[tuple[Desk, Recalling]]:
    """A desk with atlas and nova."""
    asked = RecallOptions(**({"embedder": "hashed", "timeout_s": 5.0} | options))
    async with helped_desk(folder / "home", asked, leader or await founded("atlas", "nova")) as found:
        yield found


async def until(holds: Callable[[], Any]) -> None:
    with anyio.fail_after(20):
        while not holds():
            await anyio.sleep(0.005)


async def ready(one: Desk, recalling: Recalling) -> None:
    """Everything in the tables has its vector."""
    await until(lambda: (dense := one.tables.store.indexes.dense) and dense.position >= one.tables.position)


async def texts(one: Desk, query: str, who: str = "nova", **asked: Any) -> list[str]:
    hits: Hits = await one.see(who, Recall(query=query, **asked))
    return [hit.text for hit in hits.hits]


def asked_of() -> list[str]:
    """What the embedder was given, in this process."""
    found: list[str] = sys.modules["hashed_embedder"].ASKED
    return found


# --- what an embedder adds ----------------------------------------------------------------------------------------


async def test_what_shares_no_word_is_found_by_its_vector(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path) as (one, recalling):
        await one.do("atlas", Write(content=STOP), Write(content="something else altogether"))
        await ready(one, recalling)
        found = await one.see("nova", Recall(query=f"{STOP} parser", explain=True))
        assert found.legs == {"words": ANSWERED, "dense": ANSWERED}
        assert found.hits[0].text == STOP
        assert found.hits[0].why.own == 0
        assert found.hits[0].why.meaning > 0
        assert found.hits[0].why.cosine is not None
        assert (await one.see("nova", Recall(query=f"{STOP} parser"))).hits[0].why.cosine is None, "explain only"
        wordless = await one.see("nova", Recall(query=STOP))
        assert wordless.hits[0].text == STOP
        assert wordless.legs == {"words": "the question has no word to look for", "dense": ANSWERED}


async def test_what_was_just_said_is_waited_for(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path) as (one, _):
        await until(lambda: one.tables.store.indexes.dense)
        for number in range(5):
            await one.do("atlas", Write(content=f"{STOP} {number}"))
            found = await one.see("nova", Recall(query=f"{STOP} {number}"))
            assert (found.legs["dense"], found.hits[0].text) == (ANSWERED, f"{STOP} {number}")


async def test_without_an_embedder_nothing_is_said_of_one(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path, embedder="", reranker="shortest") as (one, _):
        await one.do("atlas", Write(content="the parser"))
        assert set((await one.see("nova", Recall(query="parser"))).legs) == {"words", "rerank"}
        await caught(one.see("nova", Recall(query=STOP)), InvalidRequest, "no_words")


# --- the past -----------------------------------------------------------------------------------------------------


async def test_as_of_an_event_recall_gives_what_it_gave_then(plugins: Path, tmp_path: Path) -> None:
    """With the same scores, whatever was said, changed and taken back afterwards, and after a restart as well."""
    questions = (f"{STOP} parser", "slow weather", STOP)
    gave: dict[tuple[int, str, str], Any] = {}
    leader = await founded("atlas", "nova")

    async def ask(one: Desk) -> None:
        for who in ("atlas", "nova"):
            for question in questions:
                found = await one.see(who, Recall(query=question, explain=True))
                assert found.legs["dense"] == ANSWERED
                gave[found.seq, who, question] = found

    async with helped(tmp_path, leader) as (one, _):
        await until(lambda: one.tables.store.indexes.dense)
        first = await one.do("atlas", Write(content="the parser is slow today, or not", subject="parser"))
        other = await one.do("nova", Write(content="to be private", scope="private"))
        changes = (
            ("atlas", Join(channel="dev")),
            ("atlas", post := Post(channel="dev", text="the weather is slow to be had")),
            ("atlas", Revise(memory=first.memory, content="the parser is quick, and not slow")),
            ("nova", Retract(memory=other.memory)),
            ("nova", Post(channel="dev", text="and so it was")),
            ("nova", Restore(memory=other.memory)),
            ("atlas", Retract(memory=first.memory)),
        )
        for who, request in changes:
            await ask(one)
            reply = await one.do(who, request)
            if request is post:
                said = reply.seq
        await one.do("atlas", Edit(channel="dev", message=said, text="not to be had"))
        await ask(one)
        for (seq, who, question), found in gave.items():
            assert await one.see(who, Recall(query=question, explain=True, as_of=seq)) == found
    async with helped(tmp_path, leader) as (one, recalling):
        await ready(one, recalling)
        for (seq, who, question), found in gave.items():
            assert await one.see(who, Recall(query=question, explain=True, as_of=seq)) == found


async def test_what_others_keep_to_themselves_moves_no_score(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.views.recall.DEPTH", 2)  # Nor does it crowd out what may be seen.
    leader = await founded("atlas", "nova")
    async with helped(tmp_path, leader) as (one, recalling):
        await one.do("nova", Write(content=STOP), Write(content="it is what it is"))
        await ready(one, recalling)
        before = await one.see("nova", Recall(query=STOP, explain=True))
        for number in range(5):
            await one.do("atlas", Write(content=f"{STOP}, or not: secret {number}", scope="private"))
            await one.do("atlas", Write(content=f"{STOP}, elsewhere {number}", namespace="lab"))
        await ready(one, recalling)
        after = await one.see("nova", Recall(query=STOP, explain=True))
        assert (after.hits, after.texts) == (before.hits, before.texts)
        assert "secret" in msgspec.json.encode(await one.see("atlas", Recall(query=STOP))).decode()


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("raise", "this text cannot be embedded"),
        ("nan", "nan or infinity"),
        ("short", "numbers"),
        ("nothing", "means nothing"),
    ],
)
async def test_words_answer_when_the_embedder_fails(plugins: Path, tmp_path: Path, way: str, why: str) -> None:
    async with helped(tmp_path) as (one, recalling):
        await one.do("atlas", Write(content="the parser is slow"))
        await ready(one, recalling)
        found = await one.see("nova", Recall(query=f"slow parser embedder: {way}"))
        assert [hit.text for hit in found.hits] == ["the parser is slow"]
        assert why in found.legs["dense"]
        assert (await one.see("nova", Recall(query="slow parser"))).legs["dense"] == ANSWERED, "one bad answer is one"


async def test_words_answer_in_time_when_the_embedder_hangs(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path, timeout_s=1.0) as (one, recalling):
        await one.do("atlas", Write(content="the parser is slow"))
        await ready(one, recalling)
        found = await one.see("nova", Recall(query="slow parser embedder: hang"))
        assert found.legs["dense"] == "the embedder did not answer in time"
        assert [hit.text for hit in found.hits] == ["the parser is slow"]
        with anyio.fail_after(20):
            for _ in range(100):  # A hundred time-outs would be a hundred seconds.
                again = await one.see("nova", Recall(query="slow parser"))
                assert "has not answered for" in again.legs["dense"]
        (helper,) = recalling.helpers()
        assert (helper.name, helper.ok, helper.found) == ("embedder", False, "the embedder did not answer in time")
        (plugins / "let-go").touch()


@pytest.mark.parametrize("way", ["raise", "nan", "short"])
async def test_a_text_that_cannot_be_embedded_costs_no_other_its_vector(
    plugins: Path, tmp_path: Path, way: str
) -> None:
    async with helped(tmp_path) as (one, recalling):
        await one.do("atlas", Write(content=f"embedder: {way}"), Write(content=STOP), Write(content="it is as it was"))
        await ready(one, recalling)
        found = await one.see("nova", Recall(query=STOP))
        assert found.hits[0].text == STOP
        assert recalling.helpers()[0].ok


async def test_an_embedder_that_is_not_there_is_named(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path, embedder="nobody") as (one, recalling):
        await one.do("atlas", Write(content="the parser"))
        await until(lambda: not recalling.helpers()[0].ok)
        found = await one.see("nova", Recall(query="parser"))
        assert "no plug-in of this name" in found.legs["dense"]
        assert len(found.hits) == 1


async def test_an_embedder_that_fails_is_tried_again(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    async with helped(tmp_path, embedder="late") as (one, recalling):
        await until(lambda: not recalling.helpers()[0].ok)
        (plugins / "late").touch()
        embedder = recalling._embedder
        assert embedder is not None
        embedder._pause_ns = embedder._shut_until_ns = 0  # As if the pause were over.
        await one.do("atlas", Write(content=STOP))
        await ready(one, recalling)
        assert (await texts(one, STOP)) == [STOP]


# --- files --------------------------------------------------------------------------------------------------------


async def wrote(one: Desk, recalling: Recalling, *contents: str) -> None:
    for content in contents:
        await one.do("atlas", Write(content=content))
    await ready(one, recalling)


async def test_what_was_embedded_once_is_not_embedded_again(plugins: Path, tmp_path: Path) -> None:
    leader = await founded("atlas", "nova")
    async with helped(tmp_path, leader) as (one, recalling):
        await wrote(one, recalling, STOP, "it is what it is")
        found = await one.see("nova", Recall(query=STOP))
    asked_of().clear()
    async with helped(tmp_path, leader) as (one, recalling):
        await ready(one, recalling)
        assert await one.see("nova", Recall(query=STOP)) == found
        assert not [text for text in asked_of() if "it is what it is" in text]


@pytest.mark.parametrize("harm", ["flip", "cut", "sidecar", "gone", "model"])
async def test_vectors_that_cannot_be_trusted_are_made_anew(plugins: Path, tmp_path: Path, harm: str) -> None:
    leader = await founded("atlas", "nova")
    async with helped(tmp_path, leader) as (one, recalling):
        await wrote(one, recalling, STOP, "it is what it is")
        found = await one.see("nova", Recall(query=STOP))
    (path,) = tmp_path.glob("home/meaning/*/*.vectors")
    sidecar, data = path.with_suffix(".vectors.json"), path.read_bytes()
    match harm:
        case "flip":
            path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
        case "cut":
            path.write_bytes(data[:-64])
        case "sidecar":
            sidecar.write_text("{")
        case "gone":
            sidecar.unlink()
        case "model":
            said = msgspec.json.decode(sidecar.read_bytes())
            sidecar.write_bytes(msgspec.json.encode(said | {"probe": said["probe"][::-1]}))
    with capture_logs() as logs:
        async with helped(tmp_path, leader) as (one, recalling):
            await ready(one, recalling)
            assert await one.see("nova", Recall(query=STOP)) == found
    assert [log for log in logs if log["event"] == "vectors of texts are made anew"]


async def test_the_vectors_of_another_embedder_stay_until_they_are_replaced(plugins: Path, tmp_path: Path) -> None:
    leader = await founded("atlas", "nova")
    async with helped(tmp_path, leader) as (one, recalling):
        await wrote(one, recalling, STOP)
    (old,) = (tmp_path / "home" / "meaning").iterdir()
    async with helped(tmp_path, leader, embedder="late") as (one, recalling):
        await until(lambda: not recalling.helpers()[0].ok)
        found = await one.see("nova", Recall(query="parser"))
        assert "dense" in found.legs
        assert found.legs["dense"] != ANSWERED
        assert old.exists()
    (plugins / "late").touch()
    async with helped(tmp_path, leader, embedder="late") as (one, recalling):
        await ready(one, recalling)
        assert await texts(one, STOP) == [STOP]
        await until(lambda: not old.exists())


async def test_many_vectors_fill_segments_and_a_kill_costs_few_of_them(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.dense_files.SEGMENT", 10)
    monkeypatch.setattr("projections.dense_files.SAVE", 4)
    leader = await founded("atlas", "nova")
    async with helped(tmp_path, leader) as (one, recalling):
        monkeypatch.setattr(one.tables.store.indexes, "dense", None)
        await until(lambda: one.tables.store.indexes.dense)
        dense = one.tables.store.indexes.dense
        assert dense is not None
        await wrote(one, recalling, *(f"{STOP} {number}" for number in range(27)))
        held = dense.size
        assert len(list(tmp_path.glob("home/meaning/*/*.vectors"))) == -(-held // 10)
        monkeypatch.setattr(dense, "save", lambda: None)  # As if it were killed.
    asked_of().clear()
    async with helped(tmp_path, leader) as (one, recalling):
        await ready(one, recalling)
        assert one.tables.store.indexes.dense.size == held  # type: ignore[union-attr]
        assert len(asked_of()) - 1 < 4, "the probe, and what was in no file"


# --- where texts may go -------------------------------------------------------------------------------------------


async def test_what_may_not_leave_the_device_is_not_given_to_an_embedder_elsewhere(
    plugins: Path, tmp_path: Path
) -> None:
    for setting, is_shown in (("hashed:remote", False), ("hashed", True)):
        async with helped(tmp_path / setting, embedder=setting) as (one, recalling):
            await one.do("atlas", Write(content=f"{STOP} at home", trust_tier="device_only"))
            await wrote(one, recalling, STOP)
            assert any("at home" in text for text in asked_of()) is is_shown
            assert (f"{STOP} at home" in await texts(one, STOP)) is is_shown
            asked_of().clear()


# --- a reranker ---------------------------------------------------------------------------------------------------


async def test_a_reranker_puts_what_was_found_in_order(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path, embedder="", reranker="shortest") as (one, recalling):
        for content in ("parser parser parser parser", "the parser of long texts, among other things", "parser"):
            await one.do("atlas", Write(content=content))
        found = await one.see("nova", Recall(query="parser"))
        assert found.legs["rerank"] == ANSWERED
        lengths = [len(hit.text) for hit in found.hits]
        assert lengths == sorted(lengths)
        assert [hit.why.rerank for hit in found.hits] == [-length for length in lengths]
        assert await texts(one, "parser", k=1) == ["parser"], "what is best is chosen after that"
        assert await texts(one, "parser", budget_tokens=2) == ["parser"]
        assert recalling.helpers()[0].found == "ready"


@pytest.mark.parametrize("way", ["raise", "short", "nan", "hang"])
async def test_without_the_reranker_the_order_stays(plugins: Path, tmp_path: Path, way: str) -> None:
    async with helped(tmp_path, reranker="shortest", timeout_s=2.0) as (one, recalling):
        for content in ("parser parser parser parser", "parser", "the parser of long texts, among other things"):
            await one.do("atlas", Write(content=content))
        await ready(one, recalling)
        async with helped(tmp_path / "plain", one.leader) as (plain, plainly):
            await ready(plain, plainly)
            wanted = await plain.see("nova", Recall(query=f"parser reranker: {way}", k=2))
        found = await one.see("nova", Recall(query=f"parser reranker: {way}", k=2))
        assert [hit.seq for hit in found.hits] == [hit.seq for hit in wanted.hits]
        assert found.legs["rerank"].startswith("the reranker")
        (plugins / "let-go").touch()


async def test_what_may_not_leave_the_device_keeps_its_place(plugins: Path, tmp_path: Path) -> None:
    async with helped(tmp_path, embedder="", reranker="shortest:remote") as (one, _):
        await one.do("atlas", Write(content="parser parser parser and more of it"))
        await one.do("atlas", Write(content="parser parser parser", trust_tier="device_only"))
        await one.do("atlas", Write(content="parser"))
        found = await one.see("nova", Recall(query="parser"))
        (kept,) = [place for place, hit in enumerate(found.hits) if hit.trust_tier == "device_only"]
        assert found.hits[kept].why.rerank is None
        assert [hit.why.rerank is None for hit in found.hits].count(True) == 1
