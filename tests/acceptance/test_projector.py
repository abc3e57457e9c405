"""A host that follows a bus elsewhere: its agents live there, its credentials allow nothing else, and its commands."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bus import lifecycle, remote
from bus.client import Bus
from bus.domain import agent, channel, inbox
from bus.domain import task_requests as task
from bus.errors import NotAllowed, Refused, Unavailable
from bus.server import read_server
from tests.acceptance.far import AGENTS, Far, command, fresh, refused
from tests.acceptance.support import Rig, running, until, wait_until
from tests.contract.conftest import Proxy

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
        await until(lambda: fresh(nova), what="an answer that is not old")
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


def test_wrong_credentials_are_named(rig: Rig, tmp_path: Path) -> None:
    server = read_server(rig.home)
    assert server is not None
    stranger = Rig(tmp_path / "stranger")
    place = tmp_path / "there"

    def tried(creds: Path, url: str = server.url, home: Path = place) -> tuple[int, dict[str, Any]]:
        environ = {"BUS_URL": url, "BUS_CREDS": str(creds)}
        code, out, err = command(rig, "projector", "run", "--json", home=home, **environ)
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
    code, out, _ = command(rig, "projector", "invite", "far", "nova", "wren", "--json")
    invited = json.loads(out)
    assert (code, invited["projector"], invited["agents"]) == (0, "far", ["nova", "wren"])
    environ = {"BUS_URL": invited["url"], "BUS_CREDS": invited["creds"]}
    place = tmp_path / "there"
    assert command(rig, "projector", "status", home=place)[0] == 4
    child = rig.spawn("cli.main", "projector", "run", "--home", str(place), "--json", environ=environ)
    assert json.loads(child.line())["event"] == "started"

    def status() -> dict[str, Any]:
        return json.loads(command(rig, "projector", "status", "--json", home=place)[1])

    try:
        wait_until(lambda: status()["stale_s"] is not None, what="complete tables")
        code, out, _ = command(rig, "projector", "run", "--json", home=place, **environ)
        assert (code, json.loads(out)["error"]["code"]) == (3, "in_use")
        code, out, _ = command(rig, "join", "dev", "--as", "nova", "--json", home=place)
        seq = json.loads(out)["seq"]
        assert code == 0
        code, out, err = command(rig, "read", "dev", "--as", "nova", "--json", home=place)
        assert (code, err) == (0, "")
        assert json.loads(out)["seq"] >= seq
        code, out, _ = command(rig, "read", "dev", "--json", home=place)
        assert (code, json.loads(out)["error"]["code"]) == (5, "not_of_this_host")
        known = status()
        assert (known["up"], known["connected"], known["problem"]) == (True, True, None)
        assert (known["projector"], known["agents"]) == ("_projector-far", ["nova", "wren"])
        assert known["position"] >= seq
        assert known["pid"] in rig_pids(place)
        pid = known["pid"]
        code, out, _ = command(rig, "projector", "rebuild", "--json", home=place)
        assert code == 0
        assert json.loads(out)["seq"] >= seq
        # It begins anew with a new world; whoever asks meanwhile waits.
        code, out, _ = command(rig, "projector", "verify", home=place)
        assert code == 0
        assert "the log and the tables are equal" in out
        wait_until(lambda: status()["pid"] not in (None, pid), what="a projector with a new world")
        assert command(rig, "status", "--json", home=place)[0] == 0
        assert command(rig, "doctor", home=place)[0] == 0
        assert command(rig, "projector", "verify")[0] == 4
        child.process.send_signal(signal.SIGTERM)
        assert json.loads(child.line())["event"] == "stopped"
        assert child.process.wait(30) == 0
        assert command(rig, "projector", "status", home=place)[0] == 6
        # It is started again by whoever needs it, without being told what to follow.
        assert command(rig, "post", "dev", "back", "--as", "nova", home=place)[0] == 0
        assert command(rig, "down", home=place)[0] == 0
    finally:
        command(rig, "down", home=place)
    assert rig_pids(place) == []


def rig_pids(place: Path) -> list[int]:
    other = Rig(place.parent, home=remote.home.open_home(place))
    return other.processes()
