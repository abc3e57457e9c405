"""Reading the vault: differences that apply, references that do not blow up, and what the memory tool views."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain import vault
from bus.domain import vault_memories as tool
from bus.errors import InvalidRequest, NotFound
from projections.views import references
from projections.views import vault as views
from projections.views.memories import human
from tests.unit.desk import Desk, caught, desk
from tests.unit.test_vault import BAD_PATHS


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, "atlas", "nova") as found:
        yield found


async def make(one: Desk, **files: str) -> int:
    """Write files; in their names `__` stands for a slash. -> the last seq"""
    for name, content in files.items():
        reply = await one.do("atlas", vault.Write(path=name.replace("__", "/"), content=content))
    return int(reply.seq)


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_as_it_was(one: Desk) -> None:
    first = await make(one, a="ü")
    second = await make(one, a="x")
    await one.do("nova", vault.Rename(path="a", new_path="b"))
    now = await one.see("nova", vault.Read(path="./b"))
    assert (now.path, now.version, now.size, now.content) == ("b", one.tables.position, 1, "x")
    assert (await one.see("nova", vault.Read(path="a", as_of=second))).content == "x"
    then = await one.see("nova", vault.Read(path="a", as_of=first))
    assert (then.version, then.size, then.content) == (first, 2, "ü")
    error = await caught(one.see("nova", vault.Read(path="a")), NotFound, "not_found")
    assert error.problem.found == f"renamed #{one.tables.position - 1}"
    await caught(one.see("nova", vault.Read(path="c")), NotFound, "not_found")
    await caught(one.see("nova", vault.History(path="c")), NotFound, "not_found")
    await caught(one.see("nova", vault.Diff(path="c")), NotFound, "not_found")


@pytest.mark.parametrize("path", BAD_PATHS)
async def test_no_query_takes_a_bad_path(one: Desk, path: str) -> None:
    for request in (
        vault.Read(path=path),
        vault.List(directory=path),
        vault.History(path=path),
        vault.Diff(path=path),
    ):
        await caught(one.see("nova", request), InvalidRequest, "bad_path")
    if path.strip("./"):
        await caught(one.see("nova", tool.Show(path=f"/memories/../{path}")), InvalidRequest, "bad_path")


# --- differences ----------------------------------------------------------------------------------------------------


async def test_a_difference_is_that_of_the_last_change_or_of_any_two_moments(one: Desk) -> None:
    begin = one.tables.position
    first = await make(one, a="1\n2\n")
    second = await make(one, a="1\nzwei\n")
    answer = await one.see("nova", vault.Diff(path="a"))
    assert (answer.start, answer.end) == (second - 1, second)
    assert answer.diff == f"--- a #{second - 1}\n+++ a #{second}\n@@ -1,2 +1,2 @@\n 1\n-2\n+zwei\n"
    created = await one.see("nova", vault.Diff(path="a", start=begin, end=first))
    assert created.diff == f"--- a #{begin}\n+++ a #{first}\n@@ -0,0 +1,2 @@\n+1\n+2\n"
    assert (await one.see("nova", vault.Diff(path="a", start=second))).diff == ""
    assert (await one.see("nova", vault.Diff(path="a", as_of=first))).diff.endswith("+1\n+2\n")
    for start, end in ((second, first), (first, second + 1), (second + 1, None)):
        await caught(one.see("nova", vault.Diff(path="a", start=start, end=end)), InvalidRequest, "bad_range")


async def test_a_difference_too_large_for_an_answer_is_refused(one: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(one, a="x")
    monkeypatch.setattr(views, "DIFF_BYTES", 10)
    await caught(one.see("nova", vault.Diff(path="a")), InvalidRequest, "too_large")


lines = st.lists(st.sampled_from(("a", "b", "c", "")), max_size=30)
texts = st.builds(lambda parts, end: "\n".join(parts) + end, lines, st.sampled_from(("", "\n")))


def applied(old: str, diff: str) -> str:
    """The text that the unified diff makes of `old`."""
    before, after, place = old.splitlines(keepends=True), list[str](), 0
    for line in diff.replace(f"\n{views.NO_NEWLINE}", "\0").splitlines(keepends=True)[2:]:
        text = line[1:].replace("\0\n", "")
        if line.startswith("@@"):
            first, _, length = line.split()[1][1:].partition(",")
            start = int(first) - (length != "0")
            after += before[place:start]
            place = start
        elif line[0] in " -":
            assert before[place] == text
            place += 1
            after += [text] if line[0] == " " else []
        else:
            after.append(text)
    return "".join([*after, *before[place:]])


@pytest.mark.parametrize("pairs", [250_000, 0])
def test_a_difference_can_be_applied(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "PAIRS_COMPARED", pairs)

    @given(texts, texts)
    def check(old: str, new: str) -> None:
        diff = views.unified("a", (1, old), (2, new))
        assert (diff == "") == (old == new)
        if diff:
            assert applied(old, diff) == new

    check()


def test_even_large_texts_are_compared_in_no_time() -> None:
    old, new = "".join(f"{n}\n" for n in range(100_000)), "".join(f"{-n}\n" for n in range(100_000))
    assert views.unified("a", (1, old), (2, new)).count("\n") > 199_000
    diff = views.unified("a", (1, old), (2, old.replace("50000\n", "x\n")))
    assert diff.splitlines()[2] == "@@ -49998,7 +49998,7 @@"


# --- references -----------------------------------------------------------------------------------------------------


async def expand(one: Desk, text: str, **options: int) -> vault.Expanded:
    answer = await one.see("nova", vault.Expand(text=text, **options))
    assert isinstance(answer, vault.Expanded)
    return answer


async def test_references_become_files_and_what_is_none_is_reported(one: Desk) -> None:
    a = await make(one, a="A", notes__b="B@[a]")
    answer = await expand(one, "x @[./notes/b] y @[a]@[nope] @[../a] @[] @ [a] @[notes]")
    assert answer.text == "x BA y A@[nope] @[../a] @[] @ [a] @[notes]"
    assert answer.missing == ["nope", "../a", "notes"]
    assert answer.included == [vault.Included(path="notes/b", seq=a), vault.Included(path="a", seq=a - 1)]
    assert answer.skipped == []
    early = await expand(one, "@[a]@[notes/b]", as_of=a - 1)
    assert (early.text, early.missing) == ("A@[notes/b]", ["notes/b"])


async def test_a_file_is_not_put_into_itself(one: Desk) -> None:
    await make(one, a="a@[b]", b="b@[a]@[b]")
    answer = await expand(one, "@[a]")
    assert (answer.text, answer.skipped) == ("ab@[a]@[b]", ["a", "b"])


async def test_files_do_not_stand_inside_each_other_without_end(one: Desk) -> None:
    await make(one, **{f"f{n}": f"{n}@[f{n + 1}]" for n in range(20)})
    answer = await expand(one, "@[f0]")
    assert answer.text == "".join(map(str, range(references.DEPTH))) + f"@[f{references.DEPTH}]"
    assert answer.skipped == [f"f{references.DEPTH}"]


async def test_bombs_do_not_go_off(one: Desk) -> None:
    await make(one, a="@[b]" * 100, b="@[c]" * 100, c="@[d]" * 100, d="", big="x" * 500_000)
    for text in ("@[a]", "@[d]" * (references.FOLLOWED + 1), "@[big]@[big]", "@[big]" + "✓" * 150_000):
        await caught(expand(one, text), InvalidRequest, "too_large")
    assert (await expand(one, "@[d]" * references.FOLLOWED)).text == ""
    assert len((await expand(one, "@[big]" + "✓" * 100_000)).text) == 600_000


# --- what the memory tool views -------------------------------------------------------------------------------------


async def view(one: Desk, path: str, *view_range: int) -> str:
    answer = await one.see("nova", tool.Show(path=path, view_range=view_range or None))
    return str(answer.text)


async def test_a_file_is_viewed_with_line_numbers(one: Desk) -> None:
    await make(one, memories__n="one\ntwo\n\nfour")
    head = "Here's the content of /memories/n with line numbers:\n"
    assert await view(one, "/memories/n") == f"{head}     1\tone\n     2\ttwo\n     3\t\n     4\tfour"
    assert await view(one, "/memories/n", 2, 3) == f"{head}     2\ttwo\n     3\t"
    assert await view(one, "/memories/n", 4, -1) == f"{head}     4\tfour"
    assert await view(one, "/memories/n", 3, 99) == f"{head}     3\t\n     4\tfour"
    await make(one, memories__n="")
    assert await view(one, "/memories/n") == head
    await make(one, memories__n="x\n" * 100_000)
    assert (await view(one, "/memories/n", 99_999, -1)) == f"{head} 99999\tx\n100000\tx"


@pytest.mark.parametrize(("first", "last"), [(0, 1), (-1, 2), (3, 3), (2, 1), (3, -1), (1, -2), (1, 0)])
async def test_a_range_that_makes_no_sense_is_refused(one: Desk, first: int, last: int) -> None:
    await make(one, memories__n="one\ntwo\n")
    error = await caught(view(one, "/memories/n", first, last), InvalidRequest, "bad_range")
    assert f"[{first}, {last}]" in error.problem.message


async def test_a_directory_is_viewed_two_levels_deep(one: Desk) -> None:
    await make(
        one,
        memories__b_md="x" * 1536,
        memories__a__c="12345",
        memories__a__d__e="x" * 2048,
        memories__a__d__f__g="x",
        memories___hidden="x" * 5000,
        other="x",
    )
    await one.do("atlas", vault.Write(path="memories/.hidden/x", content="x" * 5000))
    await one.do("atlas", vault.Write(path="memories/a/node_modules/x", content="x" * 5000))
    await one.do("atlas", vault.Delete(path="memories/_hidden"))
    head = "Here're the files and directories up to 2 levels deep in {}, excluding hidden items and node_modules:\n"
    assert await view(one, "/memories") == head.format("/memories") + "\n".join(
        [
            "3.5K\t/memories",
            "2K\t/memories/a/",
            "5B\t/memories/a/c",
            "2K\t/memories/a/d/",
            "1.5K\t/memories/b_md",
        ]
    )
    assert await view(one, "/memories/a/d/") == head.format("/memories/a/d/") + "\n".join(
        ["2K\t/memories/a/d", "2K\t/memories/a/d/e", "1B\t/memories/a/d/f/", "1B\t/memories/a/d/f/g"]
    )


async def test_the_directory_is_there_when_nothing_is_in_it(one: Desk) -> None:
    assert (await view(one, "/memories")).endswith(" and node_modules:\n0B\t/memories")
    error = await caught(view(one, "/memories/x"), NotFound, "not_found")
    assert error.problem.message == "The path /memories/x does not exist. Please provide a valid path."


async def test_what_is_too_much_is_viewed_in_parts(one: Desk) -> None:
    await make(one, memories__n="\n" * 200_000)
    await caught(view(one, "/memories/n"), InvalidRequest, "too_large")
    assert (await view(one, "/memories/n", 1, 100_000)).count("\n") == 100_000


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1K"), (5632, "5.5K"), (1258291, "1.2M"), (1 << 30, "1G"), (1 << 40, "1024G")],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert human(size) == text
