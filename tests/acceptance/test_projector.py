"""A host that follows a bus elsewhere: it answers its agents from tables of its own, and forwards what they want done.

The network between the two is a proxy that can be cut (every connection breaks, and none comes through) or stalled
(nothing breaks and nothing arrives).
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from msgspec import UNSET

from bus import lifecycle, remote
from bus.client import Bus
from bus.domain import agent, channel, inbox, recall, session_requests
from bus.domain import task_requests as task
from bus.errors import BusError, NotAllowed, Refused, Unavailable
from bus.remote import Remote
from bus.server import read_server
from tests.acceptance.leaders import Leaders, follow
from tests.acceptance.support import Rig, running, until, wait_until
from tests.contract.conftest import Proxy

AGENTS = ("nova", "wren")
QUICK_S = 3.0
"""How long a command waits that is expected to fail."""


class Far:
    """A host elsewhere with a projector, and the network to it."""

    def __init__(self, rig: Rig, proxy: Proxy) -> None:
        creds = rig.home.keyring.projector("far", AGENTS)
        self.near, self.proxy = rig, proxy
        self.rig = Rig(rig.folder, home=remote.follow(rig.folder / "far", Remote(url=proxy.url, creds=creds)))

    def connect(self, name: str = "nova", **options: Any) -> Any:
        return self.rig.connect(name, **options)

    def said(self) -> remote.Following | None:
        return remote.read_following(self.rig.home)

    async def up(self) -> None:
        """Start it, and wait until it knows everything."""
        await anyio.to_thread.run_sync(self.rig.up)
        await until(self.complete, what="complete tables")

    def complete(self) -> bool:
        said = self.said()
        return said is not None and said.complete_s is not None and said.connected

    def cut(self) -> None:
        self.proxy.up = False
        self.proxy.cut()

    async def cut_off(self) -> None:
        self.cut()
        await until(lambda: (said := self.said()) is not None and not said.connected, what="the loss to be noticed")

    def heal(self) -> None:
        self.proxy.up = True


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running(tmp_path) as rig:
        yield rig


@pytest.fixture
async def far(rig: Rig) -> AsyncIterator[Far]:
    """The host is not started yet; its agents are registered."""
    async with rig.connect() as owner:
        for name in AGENTS:
            await owner.call(agent.Register(agent=name))
        await owner.call(channel.Open(channel="work"))
    server = read_server(rig.home)
    assert server is not None
    proxy = Proxy(server.url)
    await proxy.start()
    host = Far(rig, proxy)
    yield host
    await anyio.to_thread.run_sync(host.rig.close)
    await proxy.stop()


async def refused(what: Any, kind: type[BusError], code: str) -> BusError:
    with pytest.raises(kind) as caught:
        await what
    assert caught.value.code == code, caught.value
    return caught.value


async def verified(far: Far) -> bool:
    """Whether its tables are what the raw log says."""
    code, out, _ = await anyio.to_thread.run_sync(_bus, far.rig, "projector", "verify", "--json")
    return (code, json.loads(out)["equal"]) == (0, True)


# --- in reach -------------------------------------------------------------------------------------------------------


async def test_agents_there_read_and_write_as_if_the_bus_were_theirs(rig: Rig, far: Far) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect() as nova:
        await nova.call(channel.Join(channel="work"))
        opened = await owner.call(task.Open(title="far away", task="far"))
        claim = await nova.call(task.Claim(task="far"))
        assert claim.fence > opened.seq
        for number in range(20):
            posted = await nova.call(channel.Post(channel="work", text=f"@owner {number}", fence=f"far:{claim.fence}"))
            read = await nova.call(channel.Read(channel="work", since=posted.seq - 1))
            assert [message.seq for message in read.messages] == [posted.seq]
            answer = await owner.call(channel.Post(channel="work", text=f"@nova {number}"))
            items = await nova.call(inbox.Peek(after=answer.seq))
            assert [item.seq for item in items.items] == [answer.seq]
            assert (await nova.call(inbox.Ack(upto=items.upto))).upto == items.upto
        await nova.call(task.Complete(task="far", fence=claim.fence, result="done"))
        await until(lambda: _fresh(nova), what="an answer that is not old")
        board = await nova.call(task.Board())
        assert board.counts["done"] == 1
        assert (await refused(nova.call(task.Claim(task="far")), Refused, "state")).problem.found
    records = [record.headers for record in await rig.log()]
    authors = Counter(record["Bus-Agent"] for record in records if record["Bus-Type"] == "channel.posted")
    assert authors == {"nova": 20, "owner": 20}
    assert Counter(record["Bus-Agent"] for record in records if record["Bus-Type"] == "inbox.shown") == {"nova": 20}


async def test_a_request_that_is_repeated_there_or_here_has_one_effect(rig: Rig, far: Far) -> None:
    await far.up()
    post = channel.Post(channel="work", text="once")
    async with rig.connect("nova") as near, far.connect() as nova:
        first = await nova.call(post, request_id="the-id")
        assert (await nova.call(post, request_id="the-id")).seq == first.seq
        assert (await near.call(post, request_id="the-id")).seq == first.seq
        await refused(nova.call(channel.Leave(channel="work"), request_id="the-id"), Refused, "request_reused")


async def test_only_its_agents_live_there(rig: Rig, far: Far) -> None:
    await far.up()
    with pytest.raises(NotAllowed) as caught:
        async with far.connect("owner"):
            pass
    assert (caught.value.code, caught.value.problem.expected) == ("not_of_this_host", "nova or wren")
    assert not (far.rig.home.keyring.creds / "owner.creds").exists()
    # Whoever holds the keys there can make credentials for more; nobody answers to them.
    async with far.rig.raw(far.rig.home.keyring.agent("owner")) as (client, _), far.connect() as nova:
        await nova.call(channel.List())
        for ask in ("do.channel.post", "see.channel.list"):
            with pytest.raises(Exception, match="no responders"):
                await client.request(f"ask.owner.{ask}", b"{}", timeout=5)
    # Who was deactivated is out there as well, as soon as it is known.
    async with rig.connect() as owner, far.connect("wren") as wren:
        await wren.call(channel.List())
        await owner.call(agent.Deactivate(agent="wren"))

        async def out() -> bool:
            try:
                await wren.call(channel.List(), timeout_s=0.5)
            except (NotAllowed, Unavailable):
                return True
            return False

        await until(out, what="the end of wren")


async def test_who_only_reads_there_is_there(tmp_path: Path) -> None:
    quick = "[presence]\nidle_after_s = 2.0\naway_after_s = 600.0\n"
    with running(tmp_path, quick) as rig:
        async with rig.connect() as owner:
            await owner.call(agent.Register(agent="nova"))
            server = read_server(rig.home)
            assert server is not None
            proxy = Proxy(server.url)
            await proxy.start()
            far = Far(rig, proxy)
            (far.rig.home.path / "config.toml").write_text(quick)
            await far.up()
            async with far.connect() as nova:

                async def reads_and_is(presence: str) -> bool:
                    await nova.call(channel.List())
                    return await _presence(owner, presence)

                await until(lambda: reads_and_is("online"), what="nova online, who only reads")
                await until(lambda: _presence(owner, "idle"), what="nova idle, who does not read any more")
                await until(lambda: reads_and_is("online"), what="nova online again")
            await anyio.to_thread.run_sync(far.rig.close)
            await proxy.stop()


async def _presence(bus: Bus, presence: str) -> bool:
    return {one.agent: one.presence for one in (await bus.call(agent.Who())).agents}.get("nova") == presence


# --- out of reach ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "stalled"])
async def test_out_of_reach_it_answers_as_it_was_and_says_how_old_that_is(rig: Rig, far: Far, how: str) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect(timeout_s=QUICK_S) as nova:
        await nova.call(channel.Post(channel="work", text="before"))
        known = (await nova.call(channel.Read(channel="work"))).seq
        if how == "cut":
            far.cut()
        else:
            far.proxy.loses_answers = True
            far.proxy.stall()
        written = [(await owner.call(channel.Post(channel="work", text=f"meanwhile {n}"))).seq for n in range(5)]
        await until(lambda: (said := far.said()) is not None and not said.connected, what="the loss to be noticed")

        old: Any = await until(lambda: _stale(nova), what="an answer that says how old it is")
        assert [message.text for message in old.messages] == ["before"]
        assert old.seq >= known
        error = await refused(nova.call(channel.Post(channel="work", text="lost?")), Unavailable, "out_of_reach")
        assert all((error.problem.entity, error.problem.expected, error.problem.found, error.problem.hint))
        for shows in (inbox.Peek(), recall.Recall(query="parser"), session_requests.BuildContext(session="s")):
            await refused(nova.call(shows), Unavailable, "out_of_reach")
        error = await refused(nova.call(channel.List(after=written[-1])), Unavailable, "lagging")
        assert error.problem.expected == f"#{written[-1]}"
        past = await nova.call(channel.Read(channel="work", as_of=known))
        assert [message.text for message in past.messages] == ["before"]

        far.heal()
        far.proxy.loses_answers = False
        far.proxy.resume()
        new = await nova.call(channel.Read(channel="work", after=written[-1]), timeout_s=30)
        assert [message.seq for message in new.messages][-5:] == written
        assert (await nova.call(channel.Post(channel="work", text="after"), timeout_s=30)).seq > written[-1]
        await until(lambda: _fresh(nova), what="an answer that is not old")
        texts = [record.data for record in await rig.log() if record.headers["Bus-Type"] == "channel.posted"]
        assert sum(b"lost?" in text for text in texts) <= 1


async def _stale(bus: Bus) -> Any:
    answer = await bus.call(channel.Read(channel="work"))
    return answer if answer.stale_s is not UNSET else None


async def _fresh(bus: Bus) -> bool:
    return (await bus.call(channel.Read(channel="work"))).stale_s is UNSET


async def test_a_follower_there_misses_nothing_and_repeats_nothing(rig: Rig, far: Far) -> None:
    await far.up()
    got: list[str] = []
    async with rig.connect() as owner, far.connect() as nova, anyio.create_task_group() as tasks:

        async def follow_it() -> None:
            async for answer in nova.follow(channel.Read(channel="work", since=0)):
                got.extend(message.text for message in answer.messages)

        tasks.start_soon(follow_it)
        wanted = []
        for number in range(60):
            wanted.append(f"message {number}")
            await owner.call(channel.Post(channel="work", text=wanted[-1]))
            if number % 20 == 9:
                await far.cut_off()
            if number % 20 == 14:
                far.heal()
        await until(lambda: len(got) >= 60, what="all messages")
        tasks.cancel_scope.cancel()
    assert got == wanted
    assert await verified(far)


async def test_started_out_of_reach_it_knows_what_it_knew(rig: Rig, far: Far) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect() as nova:
        posted = await owner.call(channel.Post(channel="work", text="known"))
        await nova.call(channel.List(after=posted.seq))
        await far.cut_off()
        stale_s = (await until(lambda: _stale(nova), what="an old answer")).stale_s
        await anyio.to_thread.run_sync(lifecycle.down, far.rig.home)
        newer = await owner.call(channel.Post(channel="work", text="not known"))
    async with far.connect() as nova:
        answer = await until(lambda: _stale(nova), what="an answer")
        assert [message.text for message in answer.messages] == ["known"]
        assert answer.stale_s > stale_s
        far.heal()
        answer = await nova.call(channel.Read(channel="work", after=newer.seq))
        assert [message.text for message in answer.messages] == ["known", "not known"]


async def test_it_never_answers_for_one_bus_from_the_tables_of_another(rig: Rig, far: Far, tmp_path: Path) -> None:
    await far.up()
    async with rig.connect() as owner, far.connect() as nova:
        posted = await owner.call(channel.Post(channel="work", text="of the first bus"))
        await nova.call(channel.Read(channel="work", after=posted.seq))
    await anyio.to_thread.run_sync(lifecycle.down, far.rig.home)
    with running(tmp_path / "other") as other:
        async with other.connect() as owner:
            await owner.call(agent.Register(agent="nova"))
            await owner.call(channel.Open(channel="work"))
            await owner.call(channel.Post(channel="work", text="of the second bus"))
        server = read_server(other.home)
        assert server is not None
        proxy = Proxy(server.url)
        await proxy.start()
        proxy.up = False
        creds = other.home.keyring.projector("far", AGENTS)
        remote.follow(far.rig.home.path, Remote(url=proxy.url, creds=creds))
        await anyio.to_thread.run_sync(far.rig.up)
        async with far.connect(timeout_s=QUICK_S) as nova:
            await refused(nova.call(channel.Read(channel="work")), Unavailable, "no_responders")
            proxy.up = True
            answer = await nova.call(channel.Read(channel="work"), timeout_s=60)
            assert [message.text for message in answer.messages] == ["of the second bus"]
        assert await verified(far)
        await anyio.to_thread.run_sync(far.rig.close)
        await proxy.stop()


# --- what is killed and frozen --------------------------------------------------------------------------------------


async def test_killed_again_and_again_its_tables_are_what_the_log_says(rig: Rig, far: Far) -> None:
    await far.up()
    writers = [rig.client("load", f"load-{number}", seed=number, flying=4, pause_s=0.005) for number in range(2)]
    async with rig.connect() as owner, far.connect(timeout_s=60.0) as nova:
        await owner.call(channel.Open(channel="load"))
        for writer in writers:
            writer.begin()
        for _ in range(3):
            goal = (await owner.call(channel.List(limit=1))).seq + 100
            await until(lambda goal=goal: _passed(nova, goal), timeout_s=60, what=f"#{goal} there")
            far.rig.kill("daemon")
        for writer in writers:
            writer.kill()
        head = (await rig.log())[-1].seq
        await until(lambda: _passed(nova, head), timeout_s=60, what="everything there")
        records = await rig.log()
        posts = [record.seq for record in records if record.headers["Bus-Type"] == "channel.posted"]
        seen: list[int] = []
        async for page in _pages(nova, "load"):
            seen += page
        assert seen == [seq for seq in posts if seq <= records[-1].seq]
    assert await verified(far)


async def _passed(bus: Bus, seq: int) -> bool:
    return (await bus.call(channel.List(limit=1))).seq >= seq


async def _pages(bus: Bus, name: str) -> AsyncIterator[list[int]]:
    since = 0
    while messages := (await bus.call(channel.Read(channel=name, since=since, limit=1000))).messages:
        yield [message.seq for message in messages]
        since = messages[-1].seq


async def test_a_leader_that_is_frozen_is_bypassed(rig: Rig, far: Far) -> None:
    await far.up()
    leaders = Leaders(rig)
    leaders.start_second()
    await follow(rig, 3)
    victim = await leaders.another(than=0)
    async with far.connect(timeout_s=30.0) as nova:
        await nova.call(channel.Post(channel="work", text="before"))
        os.kill(victim, signal.SIGSTOP)
        posted = await nova.call(channel.Post(channel="work", text="who answers now?"))
        assert (await nova.call(channel.Read(channel="work"))).messages[-1].seq == posted.seq
        assert await leaders.another(than=victim) != victim
        os.kill(victim, signal.SIGCONT)
        await follow(rig, 3)


async def test_a_projector_that_is_frozen_is_bypassed(rig: Rig, far: Far) -> None:
    """Here by a second one of the same home; and nobody elsewhere ever waits for it."""
    await far.up()
    second = far.rig.spawn("cli.projector", "--home", str(far.rig.home.path))
    await follow(rig, 3)
    async with rig.connect() as owner, far.connect(timeout_s=30.0) as nova:
        frozen = far.rig.kill("daemon", signal.SIGSTOP)
        assert frozen != second.pid
        for _ in range(30):
            posted = await owner.call(channel.Post(channel="work", text="nobody waits"), timeout_s=2.0)
        for _ in range(10):
            answer = await nova.call(channel.Read(channel="work", after=posted.seq))
            assert answer.messages[-1].seq == posted.seq
        os.kill(frozen, signal.SIGCONT)
        await nova.call(channel.Post(channel="work", text="all are well"))


# --- its credentials ------------------------------------------------------------------------------------------------


async def test_its_credentials_write_nothing_and_ask_for_nobody_else(rig: Rig, far: Far) -> None:
    creds = remote.read(far.rig.home).creds  # type: ignore[union-attr]
    before = len(await rig.log())
    async with rig.raw(creds) as (client, errors):

        async def denied(do: Any, what: str) -> None:
            errors.clear()
            await do
            await client._flush_pending(force_flush=True)
            await client.flush()
            assert errors, what
            assert "permissions violation" in errors[0], errors

        elsewhere = ["ask.owner.do.channel.post", "ask.far.do.x.y", "ask.system.do.x.y", "ask.*.do.x.y", "ask.>"]
        elsewhere += ["log.test.channel.1", "log._.agent.1", "$KV.leader.leader", "_INBOX.owner.x", "_INBOX.nova.x"]
        elsewhere += ["daemon.do.nova.inbox.show", "daemon.seen", "daemon.is.x", "$JS.API.STREAM.UPDATE.LOG"]
        elsewhere += [f"$JS.API.STREAM.{verb}.LOG" for verb in ("CREATE", "DELETE", "PURGE", "MSG.DELETE")]
        for subject in elsewhere:
            await denied(client.publish(subject, b"{}"), subject)
            await denied(client.publish(subject, b"{}", reply="_INBOX.nova.1"), subject)
        for subject in (">", "ask.>", "ask.nova.>", "ask.owner.>", "log.>", "_INBOX.>", "_INBOX.owner.>", "daemon.>"):
            await denied(client.subscribe(subject), subject)
        # What the daemon is to write where the projector may not, it does not write.
        answers = await client.subscribe("_INBOX.nova.>")
        body = b'{"channel": "work", "text": "aimed"}'
        for reply in ("ask.owner.do.channel.post", "log.test.channel.5", "_INBOX._projector-far.1", "_INBOX.wren.1"):
            await client.publish("ask.nova.do.channel.post", body, reply=reply)
        # And what only a daemon may have recorded is refused to it as to anybody else.
        await client.publish("ask.nova.do.inbox.show", b'{"upto": 1, "seqs": [1]}', reply="_INBOX.nova.1")
        said = json.loads((await answers.next_msg(10)).data)
        assert said["error"]["kind"] == "NotAllowed"
    written = [record.headers["Bus-Type"] for record in await rig.log(before)]
    assert set(written) <= {"agent.presence_changed"}


def _bus(rig: Rig, *words: str, home: Path | None = None, **environ: str) -> tuple[int, str, str]:
    """Run one command in the home. -> exit code, standard output, standard error"""
    child = rig.spawn("cli.main", *words, "--home", str(home or rig.home.path), environ=environ, stderr=-1)
    out, err = child.process.communicate(timeout=60)
    return child.process.returncode, out.decode(), err.decode()


def test_wrong_credentials_are_named(rig: Rig, tmp_path: Path) -> None:
    server = read_server(rig.home)
    assert server is not None
    stranger = Rig(tmp_path / "stranger")
    place = tmp_path / "there"

    def tried(creds: Path, url: str = server.url, home: Path = place) -> tuple[int, dict[str, Any]]:
        environ = {"BUS_URL": url, "BUS_CREDS": str(creds)}
        code, out, err = _bus(rig, "projector", "run", "--json", home=home, **environ)
        assert err == ""
        return code, json.loads(out)["error"]

    rig.home.keyring.agent("nova")
    kept = rig.home.keyring.creds
    code, error = tried(kept / "nova.creds")
    assert (code, error["code"], error["found"]) == (2, "not_projector", "those of agent nova")
    code, error = tried(kept / "_daemon-main.creds")
    assert (code, error["code"], error["found"]) == (2, "not_projector", "those of a daemon")
    (tmp_path / "nothing").write_text("hello")
    assert tried(tmp_path / "nothing")[1]["code"] == "bad_creds"
    assert tried(tmp_path / "none")[0] == 4
    stranger.home.keyring.projector("far", AGENTS)
    code, error = tried(stranger.home.keyring.creds / "_projector-far.creds")
    assert (code, error["code"]) == (5, "bad_credentials")
    assert "bus projector invite" in error["hint"]
    rig.home.keyring.projector("far", AGENTS)
    good = kept / "_projector-far.creds"
    code, error = tried(good, url="nats://127.0.0.1:1")
    assert (code, error["code"]) == (6, "no_server")
    assert not place.exists()
    code, error = tried(good, home=rig.home.path)
    assert (code, error["code"]) == (3, "in_use")
    lifecycle.down(rig.home)
    stranger.up()
    try:
        address = read_server(stranger.home)
        assert address is not None
        foreign = stranger.home.keyring.creds / "_projector-far.creds"
        code, error = tried(foreign, url=address.url, home=rig.home.path)
        assert (code, error["code"]) == (3, "own_bus")
    finally:
        stranger.close()


# --- the commands ---------------------------------------------------------------------------------------------------


def test_the_commands(rig: Rig, tmp_path: Path) -> None:
    code, out, _ = _bus(rig, "projector", "invite", "far", "nova", "wren", "--json")
    invited = json.loads(out)
    assert (code, invited["projector"], invited["agents"]) == (0, "far", ["nova", "wren"])
    environ = {"BUS_URL": invited["url"], "BUS_CREDS": invited["creds"]}
    place = tmp_path / "there"
    assert _bus(rig, "projector", "status", home=place)[0] == 4
    child = rig.spawn("cli.main", "projector", "run", "--home", str(place), "--json", environ=environ)
    assert json.loads(child.line())["event"] == "started"

    def status() -> dict[str, Any]:
        return json.loads(_bus(rig, "projector", "status", "--json", home=place)[1])

    try:
        wait_until(lambda: status()["stale_s"] is not None, what="complete tables")
        code, out, _ = _bus(rig, "projector", "run", "--json", home=place, **environ)
        assert (code, json.loads(out)["error"]["code"]) == (3, "in_use")
        code, out, _ = _bus(rig, "join", "dev", "--as", "nova", "--json", home=place)
        seq = json.loads(out)["seq"]
        assert code == 0
        code, out, err = _bus(rig, "read", "dev", "--as", "nova", "--json", home=place)
        assert (code, err) == (0, "")
        assert json.loads(out)["seq"] >= seq
        code, out, _ = _bus(rig, "read", "dev", "--json", home=place)
        assert (code, json.loads(out)["error"]["code"]) == (5, "not_of_this_host")
        known = status()
        assert (known["up"], known["connected"], known["problem"]) == (True, True, None)
        assert (known["projector"], known["agents"]) == ("_projector-far", ["nova", "wren"])
        assert known["position"] >= seq
        assert known["pid"] in rig_pids(place)
        pid = known["pid"]
        code, out, _ = _bus(rig, "projector", "rebuild", "--json", home=place)
        assert code == 0
        assert json.loads(out)["seq"] >= seq
        # It begins anew with a new world; whoever asks meanwhile waits.
        code, out, _ = _bus(rig, "projector", "verify", home=place)
        assert code == 0
        assert "the log and the tables are equal" in out
        wait_until(lambda: status()["pid"] not in (None, pid), what="a projector with a new world")
        assert _bus(rig, "status", "--json", home=place)[0] == 0
        assert _bus(rig, "doctor", home=place)[0] == 0
        assert _bus(rig, "projector", "verify")[0] == 4
        child.process.send_signal(signal.SIGTERM)
        assert json.loads(child.line())["event"] == "stopped"
        assert child.process.wait(30) == 0
        assert _bus(rig, "projector", "status", home=place)[0] == 6
        # It is started again by whoever needs it, without being told what to follow.
        assert _bus(rig, "post", "dev", "back", "--as", "nova", home=place)[0] == 0
        assert _bus(rig, "down", home=place)[0] == 0
    finally:
        _bus(rig, "down", home=place)
    assert rig_pids(place) == []


def rig_pids(place: Path) -> list[int]:
    other = Rig(place.parent, home=remote.home.open_home(place))
    return other.processes()
