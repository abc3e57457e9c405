"""Paths and globs: what is valid, what covers what, and whether two meet, against listing every path there is."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.domain.globs import MAX_LENGTH, MAX_NAMES, MAX_WILDCARDS, normal, overlap, overlapping, quoted
from bus.errors import InvalidRequest

# --- writing patterns alike -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("src/a.py", "src/a.py"),
        ("./src//a.py", "src/a.py"),
        ("src/", "src/**"),
        (".", "**"),
        ("./", "**"),
        ("**/**/a", "**/a"),
        ("src/**/", "src/**"),
        ("src/./**/**/x", "src/**/x"),
        ("cafe\u0301", "caf\u00e9"),
        ("a b/c", "a b/c"),
        ("...", "..."),
        ("[]]x", "[]]x"),
    ],
)
def test_patterns_are_written_alike(typed: str, kept: str) -> None:
    assert normal(typed) == kept
    assert normal(kept) == kept


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "the path is empty"),
        (" \t", "the path is empty"),
        ("/etc/passwd", "the path is absolute"),
        ("C:/x", "the path is absolute"),
        ("../x", "the path has `..`"),
        ("a/../../x", "the path has `..`"),
        ("a/..", "the path has `..`"),
        ("a\\b", "the path has a backslash"),
        ("a\0b", "the path has control characters"),
        ("a\nb", "the path has control characters"),
        ("[ab", "the glob is not valid"),
        ("[]", "the glob is not valid"),
        ("[a/b]", "the glob is not valid"),
        ("[z-a]", "the glob is not valid"),
        ("[\u0000-\uffff]".replace("\u0000", " "), "the glob is not valid"),
        ("a**", "`**` is part of a name"),
        ("src/**.py", "`**` is part of a name"),
        ("*.{ts,tsx}", "globs have no braces here"),
        ("x" * (MAX_LENGTH + 1), "the path is too long"),
        ("x" * 256, "a name is too long"),
        ("a/" * MAX_NAMES + "a", "the path is too deep"),
        ("?" * (MAX_WILDCARDS + 1), "the glob is too complex"),
        ("[\u0400-\u0500]", "the glob is not valid"),
        ("[\u0600-\u0690]/[\u0600-\u0690]", "the glob is too complex"),
        ("[\u0400-\u0430]/[!\u0500-\u0530]" * 5, "the glob is too complex"),
    ],
)
def test_what_is_no_path_of_the_repository_is_refused(typed: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        normal(typed)
    problem = caught.value.problem
    assert (problem.code, problem.message) == ("bad_path", message)
    assert all((problem.entity, problem.expected, problem.found, problem.hint))


# --- what meets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        ("src/**", "src/a/b.py", True),
        ("src/", "src/a/b.py", True),
        ("src/**", "src2/a", False),
        ("src/*.py", "src/a/b.py", False),
        ("**/x.py", "src/*/x.py", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a*b", "b*a", False),
        ("a*", "*b", True),
        ("*a*a*", "*b*b*", True),
        ("?", "??", False),
        ("a/**", "b/**", False),
        ("**", "anything/at all", True),
        # Letters that many file systems take for one.
        ("SRC/A.py", "src/a.PY", True),
        ("[A-C].md", "b.md", True),
        ("[!a]", "A", False),
        ("Straße", "STRASSE", True),
        ("cafe\u0301", "CAF\u00c9", True),
        # Brackets.
        ("[!a]", "[a]", False),
        ("[!a]", "[ab]", True),
        ("[!a-c]", "[!d-f]", True),
        ("[a-c]", "[d-f]", False),
        ("[]a]", "[]]", True),
        ("[a-]", "-", True),
        ("[^a]", "b", True),
        ("[*]", "[?]", False),
        ("[*]", "*", True),
        ("pages/[id].tsx", "pages/[[]id].tsx", True),
        ("pages/[id].tsx", "pages/i.tsx", True),
        ("pages/[id].tsx", "pages/x.tsx", False),
        # A path may be a directory of what is spelled out below it.
        ("src", "src/a.py", True),
        ("src", "src/*/b.py", True),
        ("src", "*/b.py", True),
        ("src", "src/x/**", True),
        ("src", "**/b.py", False),
        ("src/a.py", "**/*.md", False),
        ("src", "srcs/a.py", False),
    ],
)
def test_what_meets(one: str, other: str, meets: bool) -> None:
    one, other = normal(one), normal(other)
    assert overlap(one, other) == overlap(other, one) == meets


@given(st.text(st.sampled_from("ab[]*?!-{},ß\\\n"), min_size=1, max_size=12).filter(str.strip))
def test_a_quoted_path_means_itself(path: str) -> None:
    meant = normal(quoted(path))
    assert overlap(meant, meant)
    assert not overlap(meant, quoted(path + "x"))
    assert overlap(meant, "*")


# --- against listing -------------------------------------------------------------------------------------------------


def names(letters: str, longest: int) -> list[str]:
    return ["".join(chars) for length in range(1, longest + 1) for chars in product(letters, repeat=length)]


def translated(pattern: str) -> re.Pattern[str]:
    """The paths that a pattern covers, as a regular expression for a path with a slash behind each name."""
    parts = []
    for name in pattern.split("/"):
        if name == "**":
            parts.append("(?:[^/]+/)*")
            continue
        inside = name.replace("?", "[^/]").replace("[!", "[^/").replace("*", "[^/]*")
        parts.append(f"(?=[^/]){inside}/")
    return re.compile("".join(parts))


def listed(pattern: str, paths: list[str]) -> set[str]:
    expression = translated(pattern)
    return {path for path in paths if expression.fullmatch(path)} | ({f"{pattern}/"} if "[" in pattern else set())


def meets_by_listing(one: str, other: str, paths: list[str]) -> bool:
    paths = [*paths, f"{one}/", f"{other}/"]
    return bool(listed(one, paths) & listed(other, paths)) or is_above(one, other) or is_above(other, one)


def is_above(one: str, other: str) -> bool:
    """The rule for plain paths, written once more: `one` may be a directory of what `other` spells out."""
    mine, theirs = one.split("/"), other.split("/")
    if (re.search(r"[*?]", one) and "[" not in one) or len(theirs) <= len(mine):
        return False
    if "[" in other and mine == theirs[: len(mine)]:
        return True
    if "**" in theirs[: len(mine)]:
        return False
    return all(translated(b).fullmatch(f"{a}/") for a, b in zip(mine, theirs, strict=False))


NAMES = [f"{name}/" for name in names("abc", 5)]
DEEP = ["/".join(parts) + "/" for depth in range(1, 7) for parts in product("ab", repeat=depth)]
MIXED = ["/".join(parts) + "/" for depth in range(1, 5) for parts in product(names("ab", 2), repeat=depth)]
atoms = st.sampled_from(("a", "b", "*", "?", "[ab]", "[!a]", "[!ab]"))
one_name = st.lists(atoms, min_size=1, max_size=3).map("".join).map(lambda name: re.sub(r"\*+", "*", name))
deep = st.lists(st.sampled_from(("a", "b", "?", "*", "**")), min_size=1, max_size=3).map("/".join).map(normal)
mixed = st.lists(st.sampled_from(("a", "b", "ab", "a*", "*b", "?a", "[!a]", "**")), min_size=1, max_size=3)
written = mixed.map("/".join).map(normal)


@settings(max_examples=400)
@given(one_name, one_name)
def test_names_meet_when_listing_finds_one_that_both_cover(one: str, other: str) -> None:
    assert overlap(one, other) == overlap(other, one) == meets_by_listing(one, other, NAMES)


@settings(max_examples=400)
@given(deep, deep)
def test_paths_meet_when_listing_finds_one_that_both_cover(one: str, other: str) -> None:
    assert overlap(one, other) == overlap(other, one) == meets_by_listing(one, other, DEEP)


@settings(max_examples=200)
@given(written, written)
def test_globs_meet_when_listing_finds_a_path_that_both_cover(one: str, other: str) -> None:
    assert overlap(one, other) == overlap(other, one) == meets_by_listing(one, other, MIXED)


@given(st.lists(written, min_size=1, max_size=3), st.frozensets(written, max_size=3))
def test_one_of_several_overlaps_when_any_two_do(mine: list[str], theirs: frozenset[str]) -> None:
    found = overlapping(mine)(theirs)
    assert (found is not None) == any(overlap(one, other) for one in mine for other in theirs)
    assert found is None or overlap(*found)
