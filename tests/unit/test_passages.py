"""Passages: where a file is cut, and that nothing of it is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from projections.passages import LONG, SHORT, passages

SOME = "word " * 20
lines = st.one_of(
    st.sampled_from(("", "  ", "# One", "## Two ##", "#no", "x" * (LONG + 7), SOME, "\r", "a\u2028b")),
    st.text(max_size=20),
)
texts = st.lists(lines, max_size=40).map("\n".join)


def cut(path: str, content: str) -> list[tuple[int, str, str]]:
    return [tuple(passage) for passage in passages(path, content)]  # type: ignore[misc]


def test_short_blocks_are_one_passage_and_long_ones_several() -> None:
    assert cut("a.txt", "one\ntwo\n\n\nthree\n") == [(1, "one\ntwo\n\nthree", "")]
    block = "\n".join(["x" * 99] * 4)
    assert [(line, len(text)) for line, text, _ in cut("a.py", f"{block}\n\n{block}\n")] == [(1, 399), (6, 399)]
    assert [line for line, _, _ in cut("a.py", "\n".join(["x" * 99] * 40))] == [1, 16, 31]
    assert [(line, len(text)) for line, text, _ in cut("a", "x" * (LONG + 5))] == [(1, LONG), (1, 5)]
    assert cut("a.md", "") == cut("a.md", " \n\n\t") == []


def test_a_heading_begins_a_passage_and_names_what_stands_under_it() -> None:
    text = f"intro {SOME}\n\n# Setup\n\n{SOME * 4}\n\n{SOME * 4}\n## Ports\n\n80\n\n## Hosts\nlocal\n"
    assert [(line, under, part.split("\n")[0][:8]) for line, part, under in cut("a.md", text)] == [
        (1, "", "intro wo"),
        (3, "", "# Setup"),
        (7, "Setup", "word wor"),
        (8, "Setup", "## Ports"),
    ]
    assert cut("a.md", text)[-1][1] == "## Ports\n\n80\n\n## Hosts\nlocal", "what is hardly anything is not cut off"
    assert cut("a.py", "x = 1\n# Comment\n" + SOME)[0][1].startswith("x = 1\n# Comment\n"), "code has no headings"


def test_a_heading_is_never_the_end() -> None:
    text = f"# Setup\n\n{'y' * (SHORT + 100)}\n"
    assert [line for line, _, _ in cut("a.md", text)] == [1]


@given(st.sampled_from(("a.md", "b.py")), texts)
def test_nothing_is_lost_or_moved_and_no_passage_is_too_long(path: str, content: str) -> None:
    found = passages(path, content)
    told = "".join(line for passage in found for line in passage.text.split("\n"))
    assert told == "".join(line for line in content.split("\n") if line.strip())
    assert all(0 < len(passage.text) <= LONG + SHORT + 10 for passage in found)
    rows = content.split("\n")
    for passage in found:
        assert passage.text.split("\n")[0] in rows[passage.line - 1]
    assert [passage.line for passage in found] == sorted(passage.line for passage in found)


def test_there_are_not_many_passages_in_a_file_of_headings() -> None:
    assert len(passages("a.md", "# a\nb\n" * 10_000)) < 2_500
