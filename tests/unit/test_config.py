"""Settings: their sources in order, the discovery of homes and projects, and errors that name the key at fault."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bus import config
from bus.errors import InvalidRequest, NotAllowed
from bus.tunables import ConfigFile, LogLimits

ENVIRON = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git(where: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *identity, *arguments], cwd=where, check=True, capture_output=True, env=ENVIRON)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "My Project"
    path.mkdir()
    git(path, "init", "-b", "main")
    git(path, "commit", "--allow-empty", "-m", "first")
    return path


def load(cwd: Path, /, **options: object) -> config.Settings:
    environ = {**ENVIRON, **options.pop("environ", {})}  # type: ignore[dict-item]
    return config.load(cwd=cwd, environ=environ, **options)  # type: ignore[arg-type]


def write_config(home: Path, text: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(text)


class TestHome:
    def test_all_worktrees_share_home_and_namespace(self, repository: Path) -> None:
        tree = repository.parent / "other name"
        git(repository, "worktree", "add", "-b", "side", str(tree))
        (repository / "deep" / "down").mkdir(parents=True)
        places = [load(at) for at in (repository, repository / "deep" / "down", tree)]
        assert {place.home for place in places} == {repository / ".git" / "bus"}
        assert {place.namespace for place in places} == {"my-project"}

    def test_a_submodule_has_its_own(self, repository: Path, tmp_path: Path) -> None:
        outer = tmp_path / "outer"
        outer.mkdir()
        git(outer, "init")
        git(outer, "submodule", "add", str(repository), "part")
        assert load(outer).home == outer / ".git" / "bus"
        assert load(outer / "part").home == outer / ".git" / "modules" / "part" / "bus"
        assert load(outer / "part").namespace == "part"

    def test_a_bare_repository_has_its_own(self, repository: Path, tmp_path: Path) -> None:
        git(tmp_path, "clone", "--bare", str(repository), "store.git")
        place = load(tmp_path / "store.git")
        assert (place.home, place.namespace) == (tmp_path / "store.git" / "bus", "store")

    def test_outside_git_the_nearest_upwards(self, tmp_path: Path) -> None:
        below = tmp_path / "shop" / "a" / "b"
        below.mkdir(parents=True)
        assert load(below).home == below / ".bus"
        (tmp_path / "shop" / ".bus").mkdir()
        place = load(below)
        assert (place.home, place.namespace) == (tmp_path / "shop" / ".bus", "shop")

    def test_a_repository_hides_the_home_around_it(self, repository: Path) -> None:
        (repository.parent / ".bus").mkdir()
        assert load(repository).home == repository / ".git" / "bus"

    def test_bus_home_wins_and_the_project_still_names_the_namespace(self, repository: Path, tmp_path: Path) -> None:
        place = load(repository, environ={"BUS_HOME": str(tmp_path / "elsewhere")})
        assert (place.home, place.namespace) == (tmp_path / "elsewhere", "my-project")
        assert load(tmp_path, home="elsewhere").namespace == "elsewhere"

    def test_a_repository_that_git_refuses_is_an_error(self, repository: Path) -> None:
        (repository / ".git" / "config").write_text("[broken")
        with pytest.raises(InvalidRequest) as caught:
            load(repository)
        assert caught.value.code == "git_refused"
        assert "bad config" in str(caught.value)

    def test_without_git_a_repository_is_an_error_and_nothing_else(self, repository: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match="git does not run"):
            load(repository, environ={"PATH": "/nonexistent"})
        assert load(tmp_path, environ={"PATH": "/nonexistent"}).home == tmp_path / ".bus"

    @pytest.mark.parametrize(
        ("directory", "name"),
        [
            ("shop", "shop"),
            ("Ünïcode Shop!", "unicode-shop"),
            ("__init__", "init"),
            ("日本", "project"),
            ("x" * 80, "x" * 63),
            ("a.b", "a-b"),
            ("repo.git", "repo"),
        ],
    )
    def test_namespace_fits_the_rule_of_names(self, directory: str, name: str) -> None:
        assert config.project_name(Path("/somewhere") / directory / ".bus") == name


class TestSources:
    def test_flag_then_variable_then_file_then_default(self, tmp_path: Path) -> None:
        home = tmp_path / ".bus"
        assert load(tmp_path).agent == "owner"
        write_config(home, 'agent = "from-file"\nnamespace = "filed"')
        assert (load(tmp_path).agent, load(tmp_path).namespace) == ("from-file", "filed")
        environ = {"BUS_AGENT": "from-env", "BUS_NAMESPACE": "varied"}
        place = load(tmp_path, environ=environ)
        assert (place.agent, place.namespace) == ("from-env", "varied")
        place = load(tmp_path, environ=environ, agent="flagged", namespace="waved")
        assert (place.agent, place.namespace) == ("flagged", "waved")

    def test_an_empty_variable_is_unset(self, tmp_path: Path) -> None:
        assert load(tmp_path, environ={"BUS_AGENT": "", "BUS_HOME": ""}).agent == "owner"

    @pytest.mark.parametrize("name", ["*", ">", "a.b", "Atlas", "a" * 64, "-x", "_daemon-main", "é", "a b", "a\n"])
    def test_a_bad_agent_name_is_refused_with_its_source(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            load(tmp_path, environ={"BUS_AGENT": name})
        assert (caught.value.code, caught.value.exit_code) == ("bad_name", 2)
        assert "BUS_AGENT" in str(caught.value)

    def test_nobody_is_the_system(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match="--as") as caught:
            load(tmp_path, agent="system")
        assert caught.value.code == "reserved_name"

    def test_a_remote_bus_needs_both(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match="only BUS_URL"):
            load(tmp_path, environ={"BUS_URL": "nats://h:4222"})
        with pytest.raises(InvalidRequest, match="only --creds"):
            load(tmp_path, creds="x.creds")
        place = load(tmp_path, url="nats://h:4222", creds="x.creds")
        assert (place.url, place.creds) == ("nats://h:4222", tmp_path / "x.creds")

    def test_paths_are_absolute(self, tmp_path: Path) -> None:
        place = load(tmp_path, environ={"BUS_NATS_SERVER": "bin/nats-server", "BUS_HOME": "h"})
        assert (place.nats_server, place.home) == (tmp_path / "bin" / "nats-server", tmp_path / "h")


class TestFile:
    def test_tunables(self, tmp_path: Path) -> None:
        write_config(tmp_path / ".bus", "log.max_bytes = 2_000_000\n[ask]\nrate_per_s = 5\n")
        file = load(tmp_path).file
        assert (file.log.max_bytes, file.ask.rate_per_s, file.lease.default_s) == (2_000_000, 5.0, 600.0)
        assert ConfigFile().log == LogLimits(max_bytes=5_000_000_000, soft_limit_ratio=0.9)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("agnet = 'x'", "unknown key `agnet`"),
            ("[log]\nmax_byte = 1", "unknown key `log.max_byte`"),
            ("[log]\nmax_bytes = 1", "`log.max_bytes`: Expected `int` >= 1000000"),
            ("[log]\nmax_bytes = 'much'", "`log.max_bytes`: Expected `int`, got `str`"),
            ("[log]\nsoft_limit_ratio = 1.5", "`log.soft_limit_ratio`"),
            ("[log]\nmax_bytes = 20_000_000_000", "more than storage.max_bytes"),
            ("[lease]\ndefault_s = 100_000", "more than lease.cap_s"),
            ("[presence]\nidle_after_s = 600", "600.0, 600.0 and 3600.0"),
            ("[presence]\naway_after_s = 60", "presence.away_after_s"),
            ("[presence]\noffline_after_s = 600", "have to grow"),
            ("[presence]\nidle_after_s = 0", "`presence.idle_after_s`"),
            ("log_level = 'loud'", "`log_level`"),
            ("log = ", "Invalid value"),
        ],
    )
    def test_a_mistake_names_key_and_file(self, tmp_path: Path, text: str, said: str) -> None:
        write_config(tmp_path / ".bus", text)
        with pytest.raises(InvalidRequest) as caught:
            load(tmp_path)
        assert caught.value.code == "bad_config"
        assert said in str(caught.value)
        assert str(tmp_path / ".bus" / "config.toml") in str(caught.value)

    def test_a_bad_name_in_the_file_says_so(self, tmp_path: Path) -> None:
        write_config(tmp_path / ".bus", "agent = 'A'")
        with pytest.raises(InvalidRequest, match=r"agent in .*config\.toml"):
            load(tmp_path)

    def test_a_file_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(NotAllowed, match="may not be read"):
            config.read_config_file(tmp_path / "config.toml")


def test_a_child_finds_the_packages(tmp_path: Path) -> None:
    import sys

    script = "import bus, cli; print(bus.__file__)"
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=config.child_environment(), capture_output=True, check=True)
    assert Path(done.stdout.decode().strip()).parent == Path(config.__file__).parent


@pytest.mark.parametrize("text", ["plain", 'quo"te', "back\\slash", "new\nline\t\x01", "é日😀", "\x7f"])
def test_toml_text_comes_back(tmp_path: Path, text: str) -> None:
    import tomllib

    assert tomllib.loads(config.as_toml({"text": text, "number": 7})) == {"text": text, "number": 7}
