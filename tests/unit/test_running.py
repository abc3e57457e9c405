"""A command under way: what is kept of its output, how it ends, and what it leaves in its result file."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio
import pytest

from cli.guard import MARK
from cli.running import KEPT_BYTES, NEWS_BYTES, RESULT_CHARS, Output, Result, Running, ending, read_result


class Watch:
    """A guard that takes notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def expect(self, mark: str) -> None:
        self.said.append(f"?{mark}")

    def began(self, pid: int) -> None:
        self.said.append("+")

    def ended(self, pid: int) -> None:
        self.said.append("-")


def started(script: str, folder: Path, watch: Watch | None = None, grace_s: float = 5.0) -> Running:
    running = Running(("/bin/sh", "-c", script), grace_s, watch or Watch())  # type: ignore[arg-type]
    (folder / "in").write_text("the input")
    running.start(folder / "in", {"PATH": "/usr/bin:/bin", MARK: "m"})
    return running


async def finished(running: Running) -> int:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.listen)
        tasks.start_soon(running.obey)
        code = await running.ended()
        tasks.cancel_scope.cancel()
    await running.close()
    return code


# --- output ---------------------------------------------------------------------------------------------------------


def test_news_is_what_came_since_it_was_asked_for() -> None:
    output = Output()
    assert (output.news(), output.tail()) == ("", "")
    output.add(b"one\n")
    assert (output.news(), output.news()) == ("one", "")
    output.add(b"two\n\xff\n")
    assert output.news() == "two\n�"
    assert output.tail() == "one\ntwo\n�"


def test_much_output_is_cut_at_a_line_and_says_so() -> None:
    output = Output()
    for number in range(100_000):
        output.add(b"line %d\n" % number)
    news = output.news()
    first, second, *_, last = news.split("\n")
    assert first == f"… ({sum(len(f'line {n}') + 1 for n in range(100_000)) - NEWS_BYTES} bytes before this)"
    assert second.startswith("line ")
    assert last == "line 99999"
    assert len(news) < NEWS_BYTES + 100
    assert output.tail() == news
    output.add(b"x" * 3 * KEPT_BYTES)
    assert output.news() == f"… ({3 * KEPT_BYTES - NEWS_BYTES} bytes before this)\n" + "x" * NEWS_BYTES


# --- the end --------------------------------------------------------------------------------------------------------


async def test_a_command_reads_its_input_and_is_listened_to(tmp_path: Path) -> None:
    watch = Watch()
    running = started("cat; echo; echo oops >&2; exit 7", tmp_path, watch)
    assert await finished(running) == 7
    assert running.output.tail() == "the input\noops"
    assert watch.said == ["?m", "+", "-"]
    assert not running.stop(), "it has ended"


async def test_one_that_is_told_to_stop_is_asked_first_and_killed_then(tmp_path: Path) -> None:
    polite = started("trap 'echo bye; exit 3' TERM; while :; do sleep 0.01; done", tmp_path)
    assert polite.stop()
    # It may be told before it has set its trap.
    assert await finished(polite) in (3, -signal.SIGTERM)
    deaf = started("trap '' TERM; echo ready; while :; do sleep 0.01; done", tmp_path, grace_s=0.05)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deaf.listen)
        tasks.start_soon(deaf.obey)
        with anyio.fail_after(10):
            while "ready" not in deaf.output.tail():
                await anyio.sleep(0.01)
        assert deaf.stop()
        assert await deaf.ended() == -signal.SIGKILL
        tasks.cancel_scope.cancel()
    await deaf.close()


async def test_closing_leaves_nothing(tmp_path: Path) -> None:
    watch = Watch()
    running = started("sleep 1000", tmp_path, watch)
    await running.close()
    assert not running.stop()
    assert watch.said == ["?m", "+", "-"]


async def test_what_cannot_be_started_is_an_error_of_the_system(tmp_path: Path) -> None:
    running = Running(("/no/such/program",), 1, Watch())  # type: ignore[arg-type]
    (tmp_path / "in").touch()
    with pytest.raises(FileNotFoundError):
        running.start(tmp_path / "in", {MARK: "m"})
    await running.close()


def test_an_end_has_words() -> None:
    assert [ending(code) for code in (0, 3, -9, -15, -99)] == [
        "exit 0",
        "exit 3",
        "ended by SIGKILL",
        "ended by SIGTERM",
        "ended by signal 99",
    ]


# --- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (b"", None),
        (b" \n", None),
        (b"merged\n", Result("merged")),
        (b'{"result": "merged", "refs": [3, 4]}', Result("merged", (3, 4))),
        (b'{"refs": [3]}', Result("", (3,))),
        (b'{"result": "merged", "refs": [0]}', Result('{"result": "merged", "refs": [0]}')),
        (b'{"verdict": "merged"}', Result('{"verdict": "merged"}')),
        (b'{"result": ["a"]}', Result('{"result": ["a"]}')),
        (b"[1, 2]", Result("[1, 2]")),
        (b"\xff\xfe", Result("��")),
    ],
)
def test_a_result_is_json_or_text(tmp_path: Path, written: bytes, found: Result | None) -> None:
    path = tmp_path / "result"
    path.write_bytes(written)
    assert read_result(path) == found


def test_a_long_result_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "result"
    assert read_result(path) is None
    path.write_text(json.dumps({"result": "x" * (RESULT_CHARS + 1)}))
    assert read_result(path) == Result("x" * RESULT_CHARS + "… (cut)")
    assert read_result(tmp_path) is None
