"""The home on disk: layout, rights, recognition of copies, locks, keys and credentials."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus import auth, files, home, keyring
from bus.errors import BusError, InvalidRequest, NotAllowed, NotFound, Refused, Unavailable
from bus.home import adopt, create, open_home

QUOTA = auth.Quota(disk_bytes=10**9)


def refusal(kind: type[BusError], call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments)
    return caught.value.code


class TestCreate:
    def test_layout_and_modes(self, tmp_path: Path) -> None:
        made = create(tmp_path / "a" / "bus", tenant="acme", owner="ann")
        for path in (made.path, *made.path.rglob("*")):
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == expected, path
        assert {path.name for path in made.path.iterdir() if path.is_dir()} == set(home.DIRECTORIES)
        assert (made.file.tenant, made.file.owner) == ("acme", "ann")
        assert open_home(made.path) == made

    def test_again_opens_the_same(self, tmp_path: Path) -> None:
        assert create(tmp_path / "h") == create(tmp_path / "h")
        assert refusal(Refused, lambda: create(tmp_path / "h", tenant="other")) == "home_exists"

    def test_many_at_once_agree(self, tmp_path: Path) -> None:
        made: list[home.Home] = []
        threads = [threading.Thread(target=lambda: made.append(create(tmp_path / "h"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
        assert len({one.file.account for one in made}) == 1
        assert made[0].keyring.load().account.public == made[0].file.account

    def test_a_crash_half_way_is_finished_by_the_next_try(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def crash(path: Path, data: bytes) -> None:
            raise RuntimeError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(home, "write_atomic", crash)
            with pytest.raises(RuntimeError, match="power cut"):
                create(tmp_path / "h")
        assert refusal(NotFound, open_home, tmp_path / "h") == "no_home"
        assert create(tmp_path / "h").keyring.load()

    def test_never_in_a_directory_with_another_use(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        assert refusal(Refused, create, tmp_path) == "not_empty"
        assert refusal(InvalidRequest, create, tmp_path / "thesis.tex") == "bad_home"
        assert refusal(InvalidRequest, create, tmp_path / "thesis.tex" / "bus") == "bad_home"

    def test_an_empty_directory_becomes_private(self, tmp_path: Path) -> None:
        (tmp_path / "h").mkdir(mode=0o755)
        create(tmp_path / "h")
        assert stat.S_IMODE((tmp_path / "h").stat().st_mode) == 0o700

    def test_never_new_keys_beside_an_old_log(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        (made.jetstream / "jetstream").mkdir()
        (made.path / "home.toml").unlink()
        assert refusal(Refused, create, made.path) == "no_home_file"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        assert refusal(NotAllowed, create, tmp_path / "h") == "no_permission"


class TestOpen:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="run bus init"):
            open_home(tmp_path / "h")
        (tmp_path / "file").touch()
        assert refusal(InvalidRequest, open_home, tmp_path / "file") == "bad_home"
        assert refusal(InvalidRequest, open_home, tmp_path / "file" / "h") == "bad_home"

    def test_others_may_not_enter(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        made.path.chmod(0o750)
        with pytest.raises(NotAllowed, match="chmod") as caught:
            open_home(made.path)
        assert caught.value.code == "open_home"

    def test_another_users_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = create(tmp_path / "h")
        monkeypatch.setattr(os, "geteuid", lambda: made.path.stat().st_uid + 1)
        assert refusal(NotAllowed, open_home, made.path) == "other_user"

    def test_a_newer_format(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        file = made.path / "home.toml"
        file.write_text(file.read_text().replace("format = 1", "format = 99"))
        assert refusal(Refused, open_home, made.path) == "newer_home"

    def test_a_link_to_it_is_the_same_home(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        (tmp_path / "link").symlink_to(made.path)
        assert open_home(tmp_path / "link") == made


class TestCopies:
    def test_a_copy_is_refused_until_it_is_adopted(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        shutil.copytree(made.path, tmp_path / "copy")
        (tmp_path / "copy" / "run" / "server.json").write_text("{}")
        with pytest.raises(Refused, match="bus adopt it") as caught:
            open_home(tmp_path / "copy")
        assert caught.value.code == "home_copied"
        adopted = adopt(tmp_path / "copy")
        assert open_home(tmp_path / "copy") == adopted
        assert adopted.file.id != made.file.id
        assert adopted.file.account == made.file.account
        assert not (tmp_path / "copy" / "run" / "server.json").exists()
        assert open_home(made.path) == made

    def test_a_moved_one_too(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        made.path.rename(tmp_path / "moved")
        assert refusal(Refused, open_home, tmp_path / "moved") == "home_moved"
        adopt(tmp_path / "moved")
        assert open_home(tmp_path / "moved").path == tmp_path / "moved"

    def test_one_that_was_put_in_the_place_of_the_original(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        shutil.copytree(made.path, tmp_path / "copy")
        made.path.rename(tmp_path / "old")
        (tmp_path / "copy").rename(made.path)
        assert refusal(Refused, open_home, made.path) == "home_copied"

    def test_another_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(home, "machine_id", lambda: "a" * 32)
        made = create(tmp_path / "h")
        monkeypatch.setattr(home, "machine_id", lambda: "b" * 32)
        assert refusal(Refused, open_home, made.path) == "home_copied"
        monkeypatch.setattr(home, "machine_id", lambda: "")
        assert open_home(made.path) == made

    def test_not_while_a_server_runs_on_it(self, tmp_path: Path) -> None:
        made = create(tmp_path / "h")
        made.path.rename(tmp_path / "moved")
        lock = files.take_lock(tmp_path / "moved" / "jetstream" / "store.lock")
        assert refusal(Refused, adopt, tmp_path / "moved") == "in_use"
        os.close(lock)
        adopt(tmp_path / "moved")


class TestFiles:
    def test_a_write_is_whole_and_private(self, tmp_path: Path) -> None:
        files.write_atomic(tmp_path / "f", b"one")
        files.write_atomic(tmp_path / "f", b"two")
        assert (tmp_path / "f").read_bytes() == b"two"
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["f"]

    def test_a_failed_write_leaves_the_old_content_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.write_atomic(tmp_path / "f", b"old")

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            files.write_atomic(tmp_path / "f", b"new")
        assert (tmp_path / "f").read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["f"]

    def test_no_directory_to_write_to(self, tmp_path: Path) -> None:
        assert refusal(NotFound, files.write_atomic, tmp_path / "none" / "f", b"") == "no_directory"
        assert refusal(NotFound, files.take_lock, tmp_path / "none" / "f") == "no_directory"

    def test_one_holder(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        assert not files.is_locked(path)
        lock = files.take_lock(path)
        assert files.is_locked(path)
        with pytest.raises(Unavailable) as caught:
            files.take_lock(path, timeout_s=0.05)
        assert caught.value.code == "locked"
        os.close(lock)
        assert not files.is_locked(path)

    def test_an_inherited_lock_lives_as_long_as_the_last_holder(self, tmp_path: Path) -> None:
        lock = files.take_lock(tmp_path / "lock")
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        child = subprocess.Popen(command, pass_fds=(lock,), stdin=subprocess.PIPE)
        os.close(lock)
        assert files.is_locked(tmp_path / "lock")
        child.kill()
        child.communicate()
        assert not files.is_locked(tmp_path / "lock")

    def test_a_waiter_gets_it(self, tmp_path: Path) -> None:
        lock = files.take_lock(tmp_path / "lock")
        threading.Timer(0.1, os.close, [lock]).start()
        with files.locked(tmp_path / "lock", timeout_s=5):
            assert files.is_locked(tmp_path / "lock")

    def test_network_file_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from collections import namedtuple

        import psutil

        mount = namedtuple("mount", "mountpoint fstype")
        mounts = [("/", "ext4"), ("/net", "nfs4"), ("/net/local", "ext4"), ("/mac", "ext4"), ("/mac", "fuse.sshfs")]
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: [mount(*one) for one in mounts])
        paths = ["/x", "/net/x", "/net/local/x", "/network/x", "/mac/x"]
        found = [files.network_file_system(Path(path)) for path in paths]
        assert found == [None, "nfs4", None, None, "fuse.sshfs"]


class TestKeyring:
    def test_an_agent_gets_its_credentials_once(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        assert keyring.known("nova") is None
        creds = keyring.agent("nova")
        assert keyring.agent("nova") == creds
        assert keyring.known("nova") == creds.text
        assert stat.S_IMODE((keyring.creds / "nova.creds").stat().st_mode) == 0o600

    def test_many_at_once_get_the_same(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        got: list[auth.Credentials] = []
        threads = [threading.Thread(target=lambda: got.append(keyring.agent("nova"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({creds.public for creds in got}) == 1

    @pytest.mark.parametrize("name", ["*", ">", "../x", "system", "_daemon-main", ""])
    def test_nothing_else_is_minted_or_looked_up(self, tmp_path: Path, name: str) -> None:
        keyring = create(tmp_path / "h").keyring
        for call in (keyring.agent, keyring.known, keyring.revoke, keyring.rotate):
            with pytest.raises(InvalidRequest):
                call(name)
        assert list(keyring.creds.iterdir()) == []

    def test_the_daemon_needs_no_key(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        with pytest.raises(NotFound, match="bus up"):
            keyring.daemon()
        creds = keyring.ensure_daemon()
        shutil.rmtree(keyring.keys)
        assert keyring.daemon() == creds

    def test_issuing_to_an_agent_needs_one_key(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        for path in keyring.keys.glob("*.nk"):
            if path.name != "agent.nk":
                path.unlink()
        assert keyring.agent("nova").name == "nova"
        assert refusal(Refused, keyring.load) == "no_key"

    def test_another_account_key_is_not_this_log(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        (keyring.keys / "account.nk").write_text(auth.new_pair("account").seed)
        assert refusal(Refused, keyring.load) == "wrong_key"

    def test_the_account_is_signed_anew_only_when_it_changes(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        assert keyring.account_jwt() is None
        first = keyring.sign_account("local", QUOTA, ["x"], [])
        assert keyring.sign_account("local", QUOTA, ["x"], []) == first == keyring.account_jwt()
        assert keyring.sign_account("local", QUOTA, ["y"], []) != first

    def test_a_clock_that_was_set_back_lets_nothing_through(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ring = create(tmp_path / "h").keyring
        ring.sign_account("local", QUOTA, [], [])
        creds = ring.agent("nova")
        monkeypatch.setattr(keyring, "now_s", lambda: creds.issued_s - 3600)
        assert auth.decode(ring.revoke("nova"))["nats"]["revocations"][creds.public] >= creds.issued_s

    def test_revoke_then_rotate(self, tmp_path: Path) -> None:
        keyring = create(tmp_path / "h").keyring
        assert refusal(NotFound, keyring.revoke, "nova") == "no_credentials"
        old = keyring.agent("nova")
        keyring.sign_account("local", QUOTA, [], [])
        account = keyring.revoke("nova")
        assert set(auth.decode(account)["nats"]["revocations"]) == {old.public}
        assert keyring.account_jwt() == account
        assert refusal(NotAllowed, keyring.agent, "nova") == "revoked"
        new, _ = keyring.rotate("nova")
        assert keyring.agent("nova") == new != old
        assert keyring.sign_account("local", QUOTA, ["y"], []) != account
        assert old.public in auth.decode(keyring.account_jwt() or "")["nats"]["revocations"]
