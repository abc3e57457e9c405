"""Files of the vault: paths that lead nowhere else, patches that apply once, directories that move as one."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain import vault_files
from bus.domain.merge import DEPTH
from bus.domain.vault import (
    Create,
    Delete,
    Patch,
    Rename,
    VaultCreated,
    VaultDeleted,
    VaultFile,
    VaultRenamed,
    VaultWritten,
    Write,
)
from bus.domain.vault_files import LINES_NAMED, lines_of, sole_place
from bus.domain.vault_paths import above, path_of
from bus.errors import InvalidRequest, NotFound
from bus.events import BODY_BYTES
from bus.operation import CODEC, FAMILY_OF, OPERATIONS
from bus.protocol import decode_request
from tests.unit.stage import Stage


def content(stage: Stage, path: str = "a.md") -> str | None:
    known = stage.state(VaultFile, path)
    return known.content if known is not None and known.state == "present" else None


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("a.md", "a.md"),
        ("notes/plan.md", "notes/plan.md"),
        ("./notes//./plan.md/", "notes/plan.md"),
        ("...", "..."),
        ("a..b/c", "a..b/c"),
        ("Üñï 1/✓.md", "Üñï 1/✓.md"),
        ("u\u0308", "ü"),
        ("100%/50%z", "100%/50%z"),
    ],
)
def test_a_path_is_written_in_one_way(said: str, path: str) -> None:
    assert path_of(said) == path


BAD_PATHS = (
    "/etc/passwd",
    "//a",
    "..",
    "../a",
    "a/../b",
    "a/..",
    "a/./../../b",
    "\\a",
    "..\\a",
    "a\\..\\b",
    "C:\\a",
    "%2e%2e/a",
    "..%2fa",
    "a%2Fb",
    "%5c",
    "a%00",
    "a\0b",
    "a\nb",
    "a\tb",
    "a\x7f",
    "\x1b[2J",
    "a\u202eb",
    "a\u200bb",
    "a\u2028b",
    "a\u00a0b",
    "a\ud800",
    ".",
    "./",
    "/",
    " /../ ",
    "x" * 201,
    "ü" * 34,
    "a/" * 60 + "b",
)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_leads_elsewhere_or_cannot_be_seen_is_refused(stage: Stage, path: str) -> None:
    for request in (
        Create(path=path, content="x"),
        Write(path=path, content="x"),
        Patch(path=path, old="x"),
        Delete(path=path),
        Rename(path=path, new_path="b"),
    ):
        stage.refused("atlas", request, "bad_path", InvalidRequest)
    stage.do("atlas", Create(path="a.md", content=""))
    stage.refused("atlas", Rename(path="a.md", new_path=path), "bad_path", InvalidRequest)


@given(st.text(st.sampled_from("./\\%2eE5cCfF ab\n\0\u202e")) | st.text())
def test_a_path_never_leads_out_and_is_its_own_path(said: str) -> None:
    try:
        path = path_of(said)
    except InvalidRequest:
        return
    names = path.split("/")
    assert not {"", ".", ".."} & set(names)
    assert "\\" not in path
    assert path.isprintable()
    assert path == unicodedata.normalize("NFC", path) == path_of(path)


def test_the_directories_above_a_path() -> None:
    assert list(above("a/b/c.md")) == ["a", "a/b"]
    assert list(above("c.md")) == []


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "x", "a\nb\n", "ü\0\r\n\ufeff", "x" * 900_000])
def test_a_file_is_created_once(stage: Stage, text: str) -> None:
    assert stage.facts("atlas", Create(path="./a.md", content=text)) == [("a.md", VaultCreated(content=text))]
    reply = stage.do("atlas", Create(path="./a.md", content=text))
    assert (reply.seq, reply.path, reply.size) == (stage.seq, "a.md", len(text.encode()))
    assert content(stage) == text
    error = stage.refused("nova", Create(path="a.md", content="other"), "exists")
    assert error.details == {"version": stage.seq}


def test_a_text_that_is_too_large_for_an_event_is_refused(stage: Stage) -> None:
    ((_, fact),) = stage.facts("atlas", Create(path="a.md", content="\n" * (BODY_BYTES // 2)))
    with pytest.raises(InvalidRequest) as caught:
        CODEC.body(fact)
    assert (caught.value.code, caught.value.problem.expected) == ("too_large", f"at most {BODY_BYTES} bytes")


@pytest.mark.parametrize(
    "body",
    [
        b'{"path": "a.md"}',
        b'{"path": "", "content": "x"}',
        b'{"path": "a.md", "content": "\xff"}',
        b'{"path": "a.md\xff", "content": "x"}',
        b'{"path": "a.md", "content": "\\ud800"}',
        b'{"path": "a.md", "content": 1}',
        b'{"path": "a.md", "content": "' + b"x" * (BODY_BYTES + 1) + b'"}',
    ],
)
def test_what_is_no_request_is_refused_before_it_is_decided(body: bytes) -> None:
    for name in ("vault.create", "vault.write"):
        with pytest.raises(InvalidRequest) as caught:
            decode_request(OPERATIONS[name], body)
        assert caught.value.code == "invalid"


def test_writing_creates_replaces_or_changes_nothing(stage: Stage) -> None:
    assert stage.facts("atlas", Write(path="a.md", content="x")) == [("a.md", VaultCreated(content="x"))]
    first = stage.do("atlas", Write(path="a.md", content="x"))
    assert stage.do("nova", Write(path="a.md", content="x")) == first
    assert stage.facts("nova", Write(path="a.md", content="ü")) == [("a.md", VaultWritten(content="ü"))]
    reply = stage.do("nova", Write(path="a.md", content="ü"))
    assert (reply.seq, reply.size) == (stage.seq, 2)


def test_of_all_that_expect_one_version_one_writes(stage: Stage) -> None:
    first = stage.do("atlas", Write(path="a.md", content="x", expect=0)).seq
    error = stage.refused("nova", Write(path="a.md", content="x", expect=0), "conflict")
    assert error.details == {"version": first}
    second = stage.do("nova", Write(path="a.md", content="x", expect=first)).seq
    assert second > first, "an expected change is one, even to the same text"
    stage.refused("atlas", Write(path="a.md", content="y", expect=first), "conflict")
    stage.refused("atlas", Patch(path="a.md", old="x", new="y", expect=first), "conflict")
    assert stage.do("atlas", Patch(path="a.md", old="x", new="y", expect=second)).seq == stage.seq
    stage.do("atlas", Delete(path="a.md"))
    assert stage.refused("nova", Write(path="a.md", content="z", expect=second), "conflict").details == {"version": 0}
    stage.do("nova", Write(path="a.md", content="z", expect=0))


# --- patches --------------------------------------------------------------------------------------------------------


def test_a_text_that_stands_there_once_is_replaced(stage: Stage) -> None:
    stage.do("atlas", Create(path="a.md", content="one\ntwo\nthree\n"))
    written = VaultWritten(content="one\n2\nzwei\nthree\n", line=2)
    assert stage.facts("nova", Patch(path="a.md", old="two", new="2\nzwei")) == [("a.md", written)]
    stage.do("nova", Patch(path="a.md", old="two\nthree"))
    assert content(stage) == "one\n\n"
    before = stage.seq
    assert stage.do("nova", Patch(path="a.md", old="one", new="one")).seq == before == stage.seq


@pytest.mark.parametrize(
    ("text", "old", "code", "lines"),
    [
        ("", "x", "no_match", []),
        ("a b", "A", "no_match", []),
        ("x\ny\nx\n", "x", "ambiguous", [1, 3]),
        ("aaa", "aa", "ambiguous", [1]),
        ("x x\nx", "x", "ambiguous", [1, 2]),
        ("a\nb\na\nb\n", "a\nb", "ambiguous", [1, 3]),
    ],
)
def test_a_patch_that_does_not_apply_once_is_refused(
    stage: Stage, text: str, old: str, code: str, lines: list[int]
) -> None:
    stage.do("atlas", Create(path="a.md", content=text))
    assert stage.refused("nova", Patch(path="a.md", old=old, new="y"), code).details == {"lines": lines}


@given(st.text(st.sampled_from("ab\n"), max_size=30), st.text(st.sampled_from("ab\n"), min_size=1, max_size=3))
def test_a_place_is_the_sole_one_or_the_lines_of_all_are_named(text: str, old: str) -> None:
    starts = [n for n in range(len(text)) if text.startswith(old, n)]
    place, lines = sole_place(text, old)
    if len(starts) == 1:
        assert (place, lines) == (starts[0], [])
    else:
        assert place is None
        assert lines == sorted({text.count("\n", 0, n) + 1 for n in starts})


def test_not_all_of_very_many_lines_are_named() -> None:
    assert sole_place("x\n" * 400_000, "x") == (None, list(range(1, LINES_NAMED + 1)))


def test_members_are_merged_into_a_json_document(stage: Stage) -> None:
    stage.do("atlas", Create(path="a.json", content='{"a": {"b": 1, "c": 2}, "d": [1]}'))
    stage.do("nova", Patch(path="a.json", merge={"a": {"b": None, "e": "ü"}, "d": [2]}))
    text = content(stage, "a.json")
    assert text is not None
    assert json.loads(text) == {"a": {"c": 2, "e": "ü"}, "d": [2]}
    assert text.endswith("}\n")
    assert text.startswith('{\n  "a"')


def test_a_merge_that_changes_nothing_leaves_the_layout(stage: Stage) -> None:
    seq = stage.do("atlas", Create(path="a.json", content='{"a":1}')).seq
    assert stage.do("nova", Patch(path="a.json", merge={"a": 1, "b": None})).seq == seq == stage.seq


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "1", '{"a": 1} x', '{"a": NaN}', '{"a":' + "[" * DEPTH + "]" * DEPTH + "}"]
)
def test_only_a_json_object_can_be_merged_into(stage: Stage, text: str) -> None:
    stage.do("atlas", Create(path="a.json", content=text))
    stage.refused("nova", Patch(path="a.json", merge={"b": 1}), "not_a_document")


def test_a_patch_is_json_that_can_be_kept(stage: Stage) -> None:
    stage.do("atlas", Create(path="a.json", content="{}"))
    deep: Any = 1
    for _ in range(DEPTH):
        deep = [deep]
    stage.refused("nova", Patch(path="a.json", merge={"a": deep}), "too_deep", InvalidRequest)
    stage.refused("nova", Patch(path="a.json", merge={"a": "\ud800"}), "not_json", InvalidRequest)


def test_a_patch_is_of_one_kind(stage: Stage) -> None:
    stage.do("atlas", Create(path="a.json", content="{}"))
    for request in (Patch(path="a.json"), Patch(path="a.json", new="x"), Patch(path="a.json", old="x", merge={})):
        stage.refused("nova", request, "bad_patch", InvalidRequest)
    stage.refused("nova", Patch(path="b.json", old="x"), "not_found", NotFound)


# --- files and directories ------------------------------------------------------------------------------------------


def test_where_a_file_is_there_is_no_directory(stage: Stage) -> None:
    stage.do("atlas", Create(path="a/b/c.md", content="x"))
    for path in ("a", "a/b"):
        stage.refused("nova", Create(path=path, content="x"), "is_a_directory")
        stage.refused("nova", Write(path=path, content="x"), "is_a_directory")
    for path in ("a/b/c.md/d", "a/b/c.md/d/e"):
        stage.refused("nova", Write(path=path, content="x"), "not_a_directory")
    stage.do("nova", Create(path="a.md", content="x"))
    stage.do("nova", Create(path="a/b.md", content="x"))
    stage.do("nova", Delete(path="a"))
    stage.do("nova", Create(path="a", content="x"))


def test_what_is_not_there_cannot_be_deleted_renamed_or_patched(stage: Stage) -> None:
    stage.do("atlas", Create(path="a/b.md", content="x"))
    for path in ("x.md", "a/c.md", "a/b.md/c", "a/b"):
        stage.refused("nova", Delete(path=path), "not_found", NotFound)
        stage.refused("nova", Rename(path=path, new_path="y"), "not_found", NotFound)
        stage.refused("nova", Patch(path=path, old="x"), "not_found", NotFound)
    error = stage.refused("nova", Patch(path="a", old="x"), "not_found", NotFound)
    assert error.problem.found == "a directory with 1 file"
    stage.do("nova", Delete(path="a/b.md"))
    stage.refused("nova", Delete(path="a/b.md"), "not_found", NotFound)


def test_a_deleted_file_leaves_nothing_in_memory_and_can_be_created_again(stage: Stage) -> None:
    stage.do("atlas", Create(path="a.md", content="x"))
    assert stage.facts("nova", Delete(path="a.md")) == [("a.md", VaultDeleted())]
    reply = stage.do("nova", Delete(path="a.md"))
    assert (reply.seq, reply.path, reply.files) == (stage.seq, "a.md", 1)
    assert stage.state(VaultFile, "a.md") == VaultFile(changed=stage.seq, state="deleted")
    stage.do("nova", Create(path="a.md", content="y"))
    assert content(stage) == "y"


def test_a_renamed_file_goes_on_under_its_new_path(stage: Stage) -> None:
    stage.do("atlas", Create(path="a.md", content="x"))
    assert stage.facts("nova", Rename(path="a.md", new_path="b/./c.md")) == [
        ("a.md", VaultRenamed(new_path="b/c.md")),
        ("b/c.md", VaultCreated(content="x", renamed_from="a.md")),
    ]
    reply = stage.do("nova", Rename(path="a.md", new_path="b/c.md"))
    assert (reply.seq, reply.path, reply.new_path, reply.files) == (stage.seq, "a.md", "b/c.md", 1)
    assert (content(stage), content(stage, "b/c.md")) == (None, "x")
    assert stage.state(VaultFile, "a.md") == VaultFile(changed=stage.seq - 1, state="renamed")


def test_a_directory_is_renamed_and_deleted_with_everything_in_it(stage: Stage) -> None:
    for path in ("a/1.md", "a/b/2.md", "a.md", "ab/3.md"):
        stage.do("atlas", Create(path=path, content=path))
    assert stage.do("nova", Rename(path="a", new_path="c/d")).files == 2
    assert (content(stage, "c/d/1.md"), content(stage, "c/d/b/2.md")) == ("a/1.md", "a/b/2.md")
    assert (content(stage, "a/1.md"), content(stage, "a.md"), content(stage, "ab/3.md")) == (None, "a.md", "ab/3.md")
    assert stage.do("nova", Delete(path="c")).files == 2
    assert content(stage, "c/d/1.md") is None
    assert content(stage, "ab/3.md") == "ab/3.md"


def test_nothing_is_renamed_onto_something_or_into_itself(stage: Stage) -> None:
    for path in ("a/1.md", "b/2.md", "c.md"):
        stage.do("atlas", Create(path=path, content=path))
    for path, taken in (("a", "b"), ("a", "c.md"), ("c.md", "a"), ("c.md", "c.md"), ("a", "b/2.md"), ("a/1.md", "a")):
        stage.refused("nova", Rename(path=path, new_path=taken), "exists")
    for path, inner in (("a", "a/x"), ("c.md", "c.md/x"), ("a", "a/1.md/x")):
        stage.refused("nova", Rename(path=path, new_path=inner), "into_itself")
    stage.refused("nova", Rename(path="a", new_path="c.md/x"), "not_a_directory")
    stage.refused("nova", Rename(path="a", new_path="x" * 198), "bad_path", InvalidRequest)


def test_very_large_directories_are_done_in_parts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        stage.do("atlas", Create(path=f"a/{number}.md", content="xxxx"))
    for name, most in (("AT_ONCE", 2), ("BYTES_AT_ONCE", 11)):
        with monkeypatch.context() as patched:
            patched.setattr(vault_files, name, most)
            stage.refused("nova", Delete(path="a"), "too_large", InvalidRequest)
            stage.refused("nova", Rename(path="a", new_path="b"), "too_large", InvalidRequest)
    assert stage.do("nova", Delete(path="a")).files == 3


def test_all_files_of_a_namespace_are_decided_together() -> None:
    bucket_key = FAMILY_OF["vault"].bucket_key
    assert bucket_key("a.md") == bucket_key("b/c.md")


def test_an_event_that_makes_no_sense_changes_nothing(stage: Stage) -> None:
    for fact in (VaultWritten(content="x"), VaultDeleted(), VaultRenamed(new_path="b")):
        stage.given("atlas", "a.md", fact)
        assert stage.state(VaultFile, "a.md") is None
    stage.do("atlas", Create(path="a.md", content="x"))
    before = stage.state(VaultFile, "a.md")
    stage.given("atlas", "a.md", VaultCreated(content="y"))
    assert stage.state(VaultFile, "a.md") is before


@given(st.text(st.sampled_from("a\n\r"), max_size=8))
def test_lines_are_those_of_an_editor(text: str) -> None:
    lines = lines_of(text)
    assert "\n".join(lines) == text.removesuffix("\n")
    assert (lines == []) == (text == "")
