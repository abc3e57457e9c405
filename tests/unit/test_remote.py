"""A home that follows a bus elsewhere: which credentials it takes, where it is made, and whose home it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bus import home, keyring, remote
from bus.config import load
from bus.errors import BusError, InvalidRequest, NotAllowed, NotFound, Refused
from bus.home import Home
from bus.remote import Following, Remote
from bus.server import render_config

URL = "nats://127.0.0.1:4222"


@pytest.fixture
def near(tmp_path: Path) -> Home:
    return home.create(tmp_path / "near")


@pytest.fixture
def wanted(near: Home) -> Remote:
    return Remote(url=URL, creds=near.keyring.projector("far", ["nova", "wren", "nova"]))


def problem(kind: type[BusError], call: object) -> BusError:
    with pytest.raises(kind) as caught:
        call()  # type: ignore[operator]
    found = caught.value
    assert all((found.problem.entity, found.problem.hint)), found
    return found


class TestCredentials:
    def test_those_of_a_projector_name_its_agents(self, near: Home, wanted: Remote) -> None:
        found = remote.read_credentials(near.keyring.creds / "_projector-far.creds")
        assert found == wanted.creds
        assert (found.role, found.agents) == ("projector", ("nova", "wren"))
        assert found.account == near.file.account

    def test_others_are_refused_and_named(self, near: Home, tmp_path: Path) -> None:
        near.keyring.agent("nova")
        near.keyring.ensure_daemon()
        for name, found in (("nova", "those of agent nova"), ("_daemon-main", "those of a daemon")):
            error = problem(InvalidRequest, lambda name=name: remote.read_credentials(_creds(near, name)))
            assert (error.code, error.problem.found) == ("not_projector", found)
        for text in ("", "hello", "\x00\xff"):
            (tmp_path / "x").write_text(text)
            with pytest.raises(InvalidRequest):
                remote.read_credentials(tmp_path / "x")
        problem(NotFound, lambda: remote.read_credentials(tmp_path / "none"))
        problem(NotFound, lambda: remote.read_credentials(tmp_path))

    def test_only_its_agents_live_here(self, wanted: Remote) -> None:
        wanted.check_agent("wren")
        error = problem(NotAllowed, lambda: wanted.check_agent("owner"))
        assert (error.code, error.problem.expected, error.problem.found) == (
            "not_of_this_host",
            "nova or wren",
            "owner",
        )


def _creds(of: Home, name: str) -> Path:
    return of.keyring.creds / f"{name}.creds"


class TestFollowing:
    def test_a_home_is_made_and_remembers(self, tmp_path: Path, wanted: Remote) -> None:
        made = remote.follow(tmp_path / "far", wanted)
        assert made.follows
        assert remote.read(home.open_home(tmp_path / "far")) == wanted
        assert {path.stat().st_mode & 0o077 for path in made.path.rglob("*")} == {0}

    def test_address_and_credentials_may_change(self, tmp_path: Path, near: Home, wanted: Remote) -> None:
        remote.follow(tmp_path / "far", wanted)
        other = Remote(url='nats://x:1/"', creds=near.keyring.projector("far", ["atlas"]))
        made = remote.follow(tmp_path / "far", other)
        assert remote.read(made) == other

    def test_a_bus_of_its_own_never_follows(self, near: Home, wanted: Remote) -> None:
        assert remote.read(near) is None
        assert not near.follows
        (near.keyring.keys / "account.jwt").write_text("as signed at the first start")
        error = problem(Refused, lambda: remote.follow(near.path, wanted))
        assert (error.code, error.problem.expected is not None, error.problem.found) == (
            "own_bus",
            True,
            "a home with a log",
        )
        assert not near.follows

    def test_its_server_stores_nothing(self, tmp_path: Path, near: Home, wanted: Remote) -> None:
        far = remote.follow(tmp_path / "far", wanted)
        settings = load(home=far.path, namespace="x", environ={}, cwd=tmp_path)
        assert "jetstream" not in render_config(far, settings, "jwt", 4222)
        assert "jetstream {" in render_config(near, settings, "jwt", 4222)

    def test_its_agents_have_credentials_that_are_worth_nothing_elsewhere(
        self, tmp_path: Path, near: Home, wanted: Remote
    ) -> None:
        far = remote.follow(tmp_path / "far", wanted)
        assert far.file.account != near.file.account
        assert far.keyring.agent("nova").public != near.keyring.agent("nova").public


def test_what_a_projector_said_is_read_or_is_nothing(tmp_path: Path, wanted: Remote) -> None:
    far = remote.follow(tmp_path / "far", wanted)
    assert remote.read_following(far) is None
    (far.run / remote.STATUS_FILE).write_text('{"pid":')
    assert remote.read_following(far) is None
    said = Following(
        pid=1,
        url=URL,
        account=wanted.creds.account,
        projector=wanted.creds.name,
        agents=wanted.creds.agents,
        connected=True,
        problem=None,
        position=7,
        head=9,
        skipped=0,
        complete_s=keyring.now_s(),
        at_s=keyring.now_s(),
    )
    (far.run / remote.STATUS_FILE).write_bytes(msgspec.json.encode(said))
    assert remote.read_following(far) == said
