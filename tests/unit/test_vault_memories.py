"""The memory tool: what each command gives back, word for word."""

from __future__ import annotations

import pytest

from bus.domain import vault, vault_memories
from bus.domain.vault import VaultFile, VaultWritten
from bus.domain.vault_memories import Create, Delete, Insert, Rename, StrReplace
from bus.errors import InvalidRequest, NotFound
from bus.model import Command
from tests.unit.stage import Stage
from tests.unit.test_vault import BAD_PATHS

NOTES = "/memories/notes.txt"


def content(stage: Stage, path: str) -> str | None:
    known = stage.state(VaultFile, path.removeprefix("/"))
    return known.content if known is not None and known.state == "present" else None


@pytest.fixture(name="kept")
def _kept(stage: Stage) -> Stage:
    """A stage with one note of five lines."""
    stage.do("atlas", Create(path=NOTES, file_text="one\ntwo\nthree\nfour\nfive\n"))
    return stage


def test_a_file_is_created_and_not_overwritten(stage: Stage) -> None:
    reply = stage.do("atlas", Create(path=NOTES, file_text="one\n"))
    assert (reply.seq, reply.text) == (stage.seq, f"File created successfully at: {NOTES}")
    assert content(stage, NOTES) == "one\n"
    error = stage.refused("nova", Create(path=NOTES, file_text="x"), "exists")
    assert error.problem.message == f"Error: File {NOTES} already exists"


def test_it_runs_on_the_vault(kept: Stage) -> None:
    kept.do("nova", vault.Patch(path="memories/notes.txt", old="one", new="1"))
    kept.do("nova", StrReplace(path=NOTES, old_str="1\n"))
    assert content(kept, NOTES) == "two\nthree\nfour\nfive\n"


def test_a_replacement_shows_what_is_around_it(kept: Stage) -> None:
    request = StrReplace(path=NOTES, old_str="three", new_str="3\ndrei")
    written = VaultWritten(content="one\ntwo\n3\ndrei\nfour\nfive\n", line=3)
    assert kept.facts("nova", request) == [("memories/notes.txt", written)]
    reply = kept.do("nova", request)
    assert reply.seq == kept.seq
    assert reply.text == (
        "The memory file has been edited. Here is the snippet showing the change (with line numbers):\n"
        "     1\tone\n     2\ttwo\n     3\t3\n     4\tdrei\n     5\tfour\n     6\tfive"
    )
    first = kept.do("nova", StrReplace(path=NOTES, old_str="one", new_str="1"))
    assert first.text.endswith("(with line numbers):\n     1\t1\n     2\ttwo\n     3\t3")
    last = kept.do("nova", StrReplace(path=NOTES, old_str="five\n"))
    assert last.text.endswith("(with line numbers):\n     4\tdrei\n     5\tfour")


def test_a_replacement_by_the_same_changes_nothing(kept: Stage) -> None:
    reply = kept.do("nova", StrReplace(path=NOTES, old_str="one", new_str="one"))
    assert reply.seq == kept.seq
    assert reply.text.startswith("The memory file has been edited.")


def test_a_snippet_is_not_endless(kept: Stage) -> None:
    text = kept.do("nova", StrReplace(path=NOTES, old_str="one", new_str="x\n" * 100_000)).text
    assert len(text) < vault_memories.SHOWN + 200


def test_a_text_that_is_not_there_once_is_not_replaced(kept: Stage) -> None:
    error = kept.refused("nova", StrReplace(path=NOTES, old_str="One", new_str="1"), "no_match")
    assert error.problem.message == (f"No replacement was performed, old_str `One` did not appear verbatim in {NOTES}.")
    error = kept.refused("nova", StrReplace(path=NOTES, old_str="e\n", new_str="1"), "ambiguous")
    assert error.problem.message == (
        "No replacement was performed. Multiple occurrences of old_str `e\n` in lines: 1, 3, 5. "
        "Please ensure it is unique"
    )
    assert error.details == {"lines": [1, 3, 5]}
    error = kept.refused("nova", StrReplace(path=NOTES, old_str="x" * 900_000), "no_match")
    assert len(error.problem.message) < vault_memories.SHOWN + 200


@pytest.mark.parametrize("path", ["/memories/other.txt", "/memories", "/memories/notes.txt/x", "/memories/sub"])
def test_only_files_are_edited(kept: Stage, path: str) -> None:
    kept.do("nova", Create(path="/memories/sub/x.md", file_text="x"))
    error = kept.refused("nova", StrReplace(path=path, old_str="x"), "not_found", NotFound)
    assert error.problem.message == f"Error: The path {path} does not exist. Please provide a valid path."
    error = kept.refused("nova", Insert(path=path, insert_line=0, insert_text="x"), "not_found", NotFound)
    assert error.problem.message == f"Error: The path {path} does not exist"


@pytest.mark.parametrize(
    ("text", "at", "inserted", "after"),
    [
        ("a\nb\n", 0, "x\n", "x\na\nb\n"),
        ("a\nb\n", 1, "x", "a\nx\nb\n"),
        ("a\nb\n", 2, "x\n", "a\nb\nx\n"),
        ("a\nb", 2, "x\ny", "a\nb\nx\ny\n"),
        ("a\nb", 1, "", "a\n\nb\n"),
        ("", 0, "x\n", "x\n"),
        ("\n", 1, "x\n\n", "\nx\n\n"),
    ],
)
def test_lines_are_inserted_behind_a_line(stage: Stage, text: str, at: int, inserted: str, after: str) -> None:
    stage.do("atlas", Create(path=NOTES, file_text=text))
    reply = stage.do("nova", Insert(path=NOTES, insert_line=at, insert_text=inserted))
    assert (reply.seq, reply.text) == (stage.seq, f"The file {NOTES} has been edited.")
    assert content(stage, NOTES) == after


@pytest.mark.parametrize("at", [-1, 6, 10**9])
def test_a_line_that_is_not_there_is_refused(kept: Stage, at: int) -> None:
    error = kept.refused("nova", Insert(path=NOTES, insert_line=at, insert_text="x"), "bad_line", InvalidRequest)
    assert error.problem.message == (
        f"Error: Invalid `insert_line` parameter: {at}. It should be within the range of lines of the file: [0, 5]"
    )


def test_files_and_directories_are_deleted(kept: Stage) -> None:
    for path in ("/memories/a/1.md", "/memories/a/b/2.md"):
        kept.do("nova", Create(path=path, file_text="x"))
    reply = kept.do("nova", Delete(path="/memories/a"))
    assert (reply.seq, reply.text) == (kept.seq, "Successfully deleted /memories/a")
    assert content(kept, "/memories/a/b/2.md") is None
    assert kept.do("nova", Delete(path=NOTES)).text == f"Successfully deleted {NOTES}"
    for path in (NOTES, "/memories/a", "/memories/x/y"):
        error = kept.refused("nova", Delete(path=path), "not_found", NotFound)
        assert error.problem.message == f"Error: The path {path} does not exist"


def test_files_and_directories_are_renamed_and_nothing_is_overwritten(kept: Stage) -> None:
    kept.do("nova", Create(path="/memories/a/1.md", file_text="x"))
    reply = kept.do("nova", Rename(old_path="/memories/a", new_path="/memories/c/d"))
    assert (reply.seq, reply.text) == (kept.seq, "Successfully renamed /memories/a to /memories/c/d")
    assert content(kept, "/memories/c/d/1.md") == "x"
    for taken in (NOTES, "/memories/c", "/memories/c/d/1.md", "/memories"):
        error = kept.refused("nova", Rename(old_path="/memories/c/d", new_path=taken), "exists")
        assert error.problem.message == f"Error: The destination {taken} already exists"
    error = kept.refused("nova", Rename(old_path="/memories/a", new_path="/memories/b"), "not_found", NotFound)
    assert error.problem.message == "Error: The path /memories/a does not exist"


def test_the_directory_itself_stays(kept: Stage) -> None:
    for path in ("/memories", "/memories/", "/memories/."):
        for request in (
            Delete(path=path),
            Rename(old_path=path, new_path="/memories/x"),
            Create(path=path, file_text="x"),
        ):
            kept.refused("nova", request, "root", InvalidRequest)


def _requests(path: str) -> list[Command]:
    return [
        Create(path=path, file_text="x"),
        StrReplace(path=path, old_str="x"),
        Insert(path=path, insert_line=0, insert_text="x"),
        Delete(path=path),
        Rename(old_path=path, new_path="/memories/x"),
        Rename(old_path=NOTES, new_path=path),
    ]


@pytest.mark.parametrize("path", [path for path in BAD_PATHS if path.strip("./")])
def test_nothing_leads_out_of_the_directory(kept: Stage, path: str) -> None:
    for request in _requests(f"/memories/{path}" if path[0] != "/" else f"/memories/..{path}"):
        kept.refused("nova", request, "bad_path", InvalidRequest)


@pytest.mark.parametrize("path", ["notes.txt", "memories/notes.txt", "/etc/passwd", "/memoriesx", "/", "//memories/x"])
def test_a_path_begins_with_the_directory(kept: Stage, path: str) -> None:
    for request in _requests(path):
        error = kept.refused("nova", request, "bad_path", InvalidRequest)
        assert error.problem.message == f"Path must start with /memories, got: {path}"
