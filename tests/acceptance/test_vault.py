"""Values, streams and files of a real bus: the memory tool word for word, races for one version, ends and sizes."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus import Bus
from bus.domain import kv, stream, vault
from bus.domain import vault_memories as tool
from bus.domain.vault_files import AT_ONCE, BYTES_AT_ONCE
from bus.errors import BusError, InvalidRequest, NotFound, Refused
from bus.events import BODY_BYTES
from tests.acceptance.commands import Repo, shared_repo
from tests.acceptance.support import Rig, until

__all__ = ["shared_repo"]

CLIENTS, TURNS = 4, 15
DIRECTORY = (
    "Here're the files and directories up to 2 levels deep in /memories, excluding hidden items and node_modules:"
)


async def said(bus: Bus, request: Any) -> str:
    """What a command of the memory tool gives back to the model, whether or not it worked."""
    try:
        answer = await bus.call(request)
    except BusError as error:
        return error.problem.message
    return str(answer.text)


async def test_the_memory_tool_says_what_it_is_documented_to_say(rig: Rig) -> None:
    notes = "/memories/notes.txt"
    async with rig.connect("atlas") as bus:
        for request, text in (
            (tool.Show(path="/memories"), f"{DIRECTORY}\n0B\t/memories"),
            (tool.Show(path=notes), f"The path {notes} does not exist. Please provide a valid path."),
            (
                tool.StrReplace(path=notes, old_str="a", new_str="b"),
                f"Error: The path {notes} does not exist. Please provide a valid path.",
            ),
            (tool.Insert(path=notes, insert_line=0, insert_text="a"), f"Error: The path {notes} does not exist"),
            (tool.Delete(path=notes), f"Error: The path {notes} does not exist"),
            (tool.Rename(old_path=notes, new_path="/memories/x"), f"Error: The path {notes} does not exist"),
            (tool.Create(path=notes, file_text="one\ntwo\none\n"), f"File created successfully at: {notes}"),
            (tool.Create(path=notes, file_text=""), f"Error: File {notes} already exists"),
            (
                tool.StrReplace(path=notes, old_str="one", new_str="1"),
                "No replacement was performed. Multiple occurrences of old_str `one` in lines: 1, 3. "
                "Please ensure it is unique",
            ),
            (
                tool.StrReplace(path=notes, old_str="three", new_str="3"),
                f"No replacement was performed, old_str `three` did not appear verbatim in {notes}.",
            ),
            (
                tool.StrReplace(path=notes, old_str="two", new_str="2"),
                "The memory file has been edited. Here is the snippet showing the change (with line numbers):\n"
                "     1\tone\n     2\t2\n     3\tone",
            ),
            (tool.Insert(path=notes, insert_line=3, insert_text="four\n"), f"The file {notes} has been edited."),
            (
                tool.Insert(path=notes, insert_line=5, insert_text="six\n"),
                "Error: Invalid `insert_line` parameter: 5. It should be within the range of lines of the file: [0, 4]",
            ),
            (
                tool.Show(path=notes, view_range=(2, -1)),
                f"Here's the content of {notes} with line numbers:\n     2\t2\n     3\tone\n     4\tfour",
            ),
            (tool.Create(path="/memories/a/b.md", file_text="x"), "File created successfully at: /memories/a/b.md"),
            (tool.Rename(old_path="/memories/a", new_path=notes), f"Error: The destination {notes} already exists"),
            (
                tool.Rename(old_path="/memories/a", new_path="/memories/c"),
                "Successfully renamed /memories/a to /memories/c",
            ),
            (
                tool.Show(path="/memories"),
                f"{DIRECTORY}\n16B\t/memories\n1B\t/memories/c/\n1B\t/memories/c/b.md\n15B\t{notes}",
            ),
            (tool.Delete(path="/memories/c"), "Successfully deleted /memories/c"),
            (tool.Show(path="/memories/../etc/passwd"), "a path does not lead out of its directory"),
        ):
            assert await said(bus, request) == text
        async with rig.connect("nova") as other:
            assert (await other.call(vault.Read(path="memories/notes.txt"))).content == "one\n2\none\nfour\n"


async def test_of_all_that_change_a_version_at_once_one_succeeds(rig: Rig) -> None:
    told: list[tuple[int, int]] = []
    written: list[int] = []

    async def count(name: str) -> None:
        async with rig.connect(name) as bus:
            left = TURNS
            while left:
                try:
                    known = await bus.call(kv.Get(key="n"))
                    value, version = known.value, known.version
                except NotFound:
                    value, version = 0, 0
                try:
                    written.append((await bus.call(kv.Set(key="n", value=value + 1, expect=version))).seq)
                except Refused as error:
                    told.append((version, error.details["version"]))
                else:
                    left -= 1

    async with anyio.create_task_group() as everybody:
        for number in range(CLIENTS):
            everybody.start_soon(count, f"c{number}")
    async with rig.connect() as bus:
        assert (await bus.call(kv.Get(key="n", after=max(written)))).value == CLIENTS * TURNS
        versions = (await bus.call(kv.History(key="n", limit=1000))).versions
        assert [one.value for one in versions] == list(range(1, CLIENTS * TURNS + 1))
    assert told, "nobody met anybody: the test has tried nothing"
    assert all(found > expected for expected, found in told)


async def test_a_value_ends_and_its_past_can_be_read(rig: Rig) -> None:
    async with rig.connect("atlas") as bus:
        first = await bus.call(kv.Set(key="a", value={"x": 1}, expires_in_s=1))
        assert (await bus.call(kv.Get(key="a", as_of=first.seq))).value == {"x": 1}

        async def is_gone() -> bool:
            return (await bus.call(kv.History(key="a"))).versions[-1].type == "kv.expired"

        await until(is_gone)
        with pytest.raises(NotFound):
            await bus.call(kv.Get(key="a"))
        assert (await bus.call(kv.List())).values == []
        gone = (await bus.call(kv.History(key="a"))).versions[-1]
        assert gone.agent == "system"
        assert gone.time >= first.expires
        assert (await bus.call(kv.Get(key="a", as_of=first.seq))).version == first.seq


async def test_what_is_appended_is_read_by_those_who_wait_for_it(rig: Rig) -> None:
    read = []
    async with rig.connect("nova") as reader, rig.connect("atlas") as writer, anyio.create_task_group() as both:

        async def follow() -> None:
            async for answer in reader.follow(stream.Read(stream="user:1", since=0)):
                read.extend(item.data for item in answer.items)
                if len(read) == 20:
                    break

        both.start_soon(follow)
        for number in range(20):
            await writer.call(stream.Append(stream="user:1", data=number))
            await writer.call(stream.Append(stream="user:2", data="other"))
    assert read == list(range(20))


async def test_contents_up_to_the_limit_go_through_and_larger_ones_are_refused_in_words(rig: Rig) -> None:
    async with rig.connect("atlas") as bus:
        for content in ("", "x" * (BODY_BYTES - 20), "\n" * (BODY_BYTES // 2 - 20), "ü" * (BODY_BYTES // 2 - 20)):
            await bus.call(vault.Write(path="a", content=content))
            assert (await bus.call(vault.Read(path="a"))).content == content
        before = bus.seq
        for content in ("x" * BODY_BYTES, "\n" * (BODY_BYTES // 2), "x" * (BODY_BYTES + 1), "x" * 3_000_000):
            with pytest.raises(InvalidRequest):
                await bus.call(vault.Write(path="a", content=content))
        for request in (
            vault.Write(path="a", content="\ud800"),
            kv.Set(key="a", value=["\udfff"]),
            kv.Set(key="a", value=[[[]]] * 400_000),
        ):
            with pytest.raises(InvalidRequest):
                await bus.call(request)
        await bus.call(kv.Set(key="big", value="x" * (BODY_BYTES - 20)))
        assert len((await bus.call(kv.Get(key="big"))).value) == BODY_BYTES - 20
    written = [record.headers["Bus-Type"] for record in await rig.log(before)]
    stored = [name for name in written if name.startswith(("kv.", "vault."))]
    assert stored == ["kv.set"], "what was refused is in the log"


async def test_the_largest_directory_that_may_be_renamed_is_renamed_as_one(rig: Rig) -> None:
    content = "\n" * (BYTES_AT_ONCE // AT_ONCE)
    async with rig.connect("atlas") as bus, rig.connect("nova") as other:
        async with anyio.create_task_group() as writers:

            async def write(first: int) -> None:
                for number in range(first, AT_ONCE, 8):
                    await bus.call(vault.Create(path=f"a/{number}.md", content=content))

            for first in range(8):
                writers.start_soon(write, first)
        reply = await bus.call(vault.Rename(path="a", new_path="b/c"))
        assert reply.files == AT_ONCE
        for seq in (reply.seq - 1, reply.seq):
            files = (await other.call(vault.List(limit=1000, as_of=seq, after=reply.seq))).files
            assert len(files) == AT_ONCE - (seq < reply.seq)
        assert (await other.call(vault.Read(path=f"b/c/{AT_ONCE - 1}.md"))).content == content
    records = [record for record in await rig.log() if record.subject.split(".")[2] == "vault"]
    assert len(records) == 3 * AT_ONCE


def test_files_and_values_on_the_command_line(repo: Repo) -> None:
    text = "# The plan\n\tstep\n"
    assert repo.bus("vault", "write", "notes/plan.md", "-", stdin=text.encode() + b"\n").code == 0
    first = repo.bus("vault", "read", "notes/plan.md", "--json").json
    assert first["content"] == text
    assert repo.bus("vault", "patch", "notes/plan.md", "--old", "step", "--new", "leap").code == 0
    assert repo.bus("vault", "read", "notes/plan.md").out == "# The plan\n    leap\n"
    assert (
        repo.bus("vault", "read", "notes/plan.md", "--as-of", str(first["version"]), "--json").json["content"] == text
    )
    assert "-    step\n+    leap\n" in repo.bus("vault", "diff", "notes/plan.md").out
    assert "notes/plan.md" in repo.bus("vault", "list", "--directory", "notes").out
    assert repo.bus("vault", "expand", "see @[notes/plan.md]").out == "see # The plan\n    leap\n"
    assert repo.bus("vault", "rename", "notes", "old").code == 0
    missing = repo.bus("vault", "read", "notes/plan.md")
    assert missing.code == 4
    assert "renamed" in missing.err
    assert repo.bus("vault", "read", "../etc/passwd").code == 2
    assert repo.bus("vault", "history", "notes/plan.md").out.count("\n") == 3
    assert repo.bus("memories", "create", "/memories/a.md", "x").out == "File created successfully at: /memories/a.md\n"
    assert repo.bus("memories", "create", "/memories/a.md", "x").code == 3
    version = repo.bus("kv", "set", "build", '{"state": "red"}', "--json").json["seq"]
    assert repo.bus("kv", "merge", "build", '{"state": "green"}', "--expect", str(version)).code == 0
    assert repo.bus("kv", "get", "build").out == '{\n  "state": "green"\n}\n'
    conflict = repo.bus("kv", "set", "build", "1", "--expect", str(version), "--json")
    assert conflict.code == 3
    assert conflict.json["error"]["details"]["version"] > version
    assert repo.bus("kv", "get", "nothing").code == 4
    assert repo.bus("stream", "append", "user:1", '{"said": "hi"}').code == 0
    assert repo.bus("stream", "read", "user:1").out.endswith('{"said":"hi"}\n')
