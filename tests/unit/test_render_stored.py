"""Values, streams and files as people see them."""

from __future__ import annotations

from bus.domain import kv, stream, vault, vector
from bus.domain import vault_memories as tool
from tests.unit.test_render import HOSTILE, NOW, Terminal, shown


def test_a_value_is_alone_in_a_pipe() -> None:
    answer = kv.Value(seq=9, time=NOW, key="a", version=7, value={"b": [1, "ü"]}, expires=NOW)
    assert shown(answer) == '{\n  "b": [\n    1,\n    "ü"\n  ]\n}\n'
    assert "version #7, until " in shown(answer, None, Terminal())


def test_values_are_a_table_and_long_ones_are_cut() -> None:
    rows = [
        kv.ValueRow(key="a", seq=7, value={"b": None}, expires=None),
        kv.ValueRow(key="c", seq=8, value="x" * 500, expires=NOW),
    ]
    lines = shown(kv.Values(seq=9, time=NOW, values=rows)).splitlines()
    assert lines[0].split() == ["KEY", "VERSION", "UNTIL", "VALUE"]
    assert lines[1].split() == ["a", "#7", '{"b":null}']
    assert lines[2].endswith("xx…")
    assert len(lines[2]) < 220


def test_versions_say_who_changed_what() -> None:
    known = {"time": NOW, "agent": "nova", "expires": None}
    rows = [
        kv.KeyVersion(seq=7, type="kv.set", state="set", value=None, **known),
        kv.KeyVersion(seq=8, type="kv.deleted", state="deleted", value=None, **known),
    ]
    assert shown(kv.Versions(seq=9, time=NOW, versions=rows)).splitlines() == [
        "#7  2030-01-31T12:00:00Z  nova  kv.set  null",
        "#8  2030-01-31T12:00:00Z  nova  kv.deleted",
    ]
    terminal = Terminal()
    shown(kv.Versions(seq=9, time=NOW, versions=rows, next=8), kv.History(key="a", limit=2), terminal)
    assert "--before 7" in terminal.getvalue()


def test_items_are_lines() -> None:
    item = stream.StreamItem(seq=7, time=NOW, agent="nova", data={"said": "hi"})
    assert shown(stream.Items(seq=9, time=NOW, items=[item])) == '#7  2030-01-31T12:00:00Z  nova  {"said":"hi"}\n'


def test_files_are_sorted_and_a_file_is_its_text() -> None:
    rows = [vault.FileRow(path="b", seq=7, size=5), vault.FileRow(path="a", seq=8, size=2500)]
    lines = shown(vault.Files(seq=9, time=NOW, files=rows)).splitlines()
    assert [line.split() for line in lines] == [
        ["PATH", "VERSION", "SIZE"],
        ["a", "#8", "2.5", "kB"],
        ["b", "#7", "5", "B"],
    ]
    file = vault.File(seq=9, time=NOW, path="a", version=7, size=3, content=f"x\n{HOSTILE}\n")
    assert shown(file).splitlines()[0] == "x"
    assert "\x1b" not in shown(file)


def test_what_changed_is_a_diff_and_references_that_are_none_are_named() -> None:
    answer = vault.Difference(seq=9, time=NOW, path="a", start=1, end=2, diff="--- a #1\n+++ a #2\n-x\n+y\n")
    assert shown(answer) == answer.diff
    same = vault.Difference(seq=9, time=NOW, path="a", start=1, end=2, diff="")
    assert "the same at #1 and #2" in shown(same, None, Terminal())
    expanded = vault.Expanded(seq=9, time=NOW, text="a\nb", included=[], missing=["x"], skipped=["y"])
    assert shown(expanded) == "a\nb\n"
    terminal = shown(expanded, None, Terminal())
    assert "missing: x" in terminal
    assert "not put into itself: y" in terminal
    version = vault.FileVersion(seq=7, time=NOW, agent="nova", type="vault.written", state="present", size=3)
    assert shown(vault.Versions(seq=9, time=NOW, versions=[version])).endswith("nova  vault.written  3 B\n")


def test_what_the_tool_gives_back_is_shown_as_it_is() -> None:
    assert shown(tool.Done(seq=7, text="Successfully deleted /memories/a")) == "Successfully deleted /memories/a\n"
    assert shown(tool.Viewed(seq=9, time=NOW, text="a\nb")) == "a\nb\n"


def test_people_are_told_when_there_is_nothing() -> None:
    for answer, text in (
        (kv.Values(seq=9, time=NOW, values=[]), "no values"),
        (stream.Items(seq=9, time=NOW, items=[]), "no items"),
        (vault.Files(seq=9, time=NOW, files=[]), "no files"),
    ):
        assert text in shown(answer, None, Terminal())


def test_vectors_are_shown_by_how_near_they_are() -> None:
    rows = [vector.VectorRow(vector="readme", seq=7, score=0.97, metadata={"lang": "en"})]
    text = shown(vector.Found(seq=9, time=NOW, found=rows, among=3))
    assert text.splitlines() == ["VECTOR  SCORE   SEQ  METADATA", 'readme  0.9700  #7   {"lang":"en"}']
    listed = [vector.CollectionRow(collection="texts", seq=6, dimension=3, metric="cosine", vectors=2)]
    text = shown(vector.CollectionList(seq=9, time=NOW, collections=listed))
    assert text.splitlines() == ["COLLECTION  VECTORS  DIMENSION  METRIC", "texts       2        3          cosine"]


def test_what_has_no_form_of_its_own_is_shown_field_by_field() -> None:
    answer = vector.VectorShown(
        seq=9, time=NOW, collection="texts", vector="a", state="active", upserted=7, metadata={}, numbers=[0.5, -1.0]
    )
    assert shown(answer).splitlines() == [
        "collection  texts", "vector  a", "state  active", "upserted  7", "numbers  [0.5,-1.0]",
    ]  # fmt: skip
