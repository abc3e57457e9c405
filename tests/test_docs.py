"""The documentation is true: generated pages are fresh, everything is described, links and tests that are named exist.

The commands that the README and the guides show are run by `tests/acceptance/test_readme.py`.
"""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from bus.operation import FAMILIES, OPERATIONS
from cli.main import LIFECYCLE, REFERENCE
from ops.reference.__main__ import stale
from ops.reference.events import explained
from ops.reference.structs import Field, fields

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in WRITTEN]
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|opt|var|mnt)/|\bfile://")
HOST = re.compile(r"\bhttps?://([^/\s)>\"']+)|nats://([^/:\s)\"']+)")
HOSTS = {"127.0.0.1", "www.w3.org", "api.openai.com"}
"""Hosts that a page may name: this machine, the name space that every picture states, and the default of a setting."""


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in WRITTEN}


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as they are made from them: small letters, spaces as dashes, no other signs."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


# --- generated pages ------------------------------------------------------------------------------------------------


def test_generated_pages_are_fresh() -> None:
    assert sorted(stale()) == [], "run ops/docs"


# --- what the code says of itself -----------------------------------------------------------------------------------


def undescribed(found: list[Field]) -> list[str]:
    return [field.name for field in found if not field.meaning]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_is_described(name: str) -> None:
    operation = OPERATIONS[name]
    doc = operation.request.__doc__ or ""
    # msgspec gives a struct without a docstring its signature.
    assert doc
    assert not doc.startswith(f"{operation.request.__name__}(")
    assert doc.strip().endswith((".", ")")), "help is a sentence"
    if not operation.internal:
        assert undescribed(fields(operation.request)) == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_event_is_described(family: object) -> None:
    for fact in family.facts:  # type: ignore[attr-defined]
        assert fact.__doc__
        assert not fact.__doc__.startswith(f"{fact.__name__}(")
        assert undescribed([explained(family, field) for field in fields(fact)]) == [], fact.type  # type: ignore[arg-type]


def test_every_operation_and_event_is_on_its_page(texts: dict[str, str]) -> None:
    for operation in OPERATIONS.values():
        shown = f"`{operation.name}`" if operation.internal else f"\n### {operation.name}\n"
        assert shown in texts["docs/operations.md"]
    for fact in (fact for family in FAMILIES for fact in family.facts):
        assert f"\n### {fact.type}\n" in texts["docs/events.md"]


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str, texts: dict[str, str]) -> None:
    for target, anchor in LINK.findall(texts[name]):
        if "://" in target:
            continue
        path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor[1:] in anchors(path.read_text()), f"{name} links to {target}{anchor}"


def test_every_page_is_linked(texts: dict[str, str]) -> None:
    linked = {"README.md"}
    for name, text in texts.items():
        linked |= {
            str(((ROOT / name).parent / target).resolve().relative_to(ROOT))
            for target, _ in LINK.findall(text)
            if target and "://" not in target
        }
    assert sorted(set(texts) - linked) == []


@pytest.mark.parametrize("name", [*NAMES, "docs/terminal.svg"])
def test_no_page_names_a_machine_or_a_foreign_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert MACHINE.findall(text) == []
    assert {host for pair in HOST.findall(text) for host in pair if host} <= HOSTS


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_closed_and_lines_are_short(name: str, texts: dict[str, str]) -> None:
    assert len(re.findall(r"^```", texts[name], re.M)) % 2 == 0
    for line in texts[name].split("\n"):
        assert len(line) <= 122 or line.startswith(("|", "* ", "`", "{")), line


def test_tests_that_are_named_exist(texts: dict[str, str]) -> None:
    named = TEST.findall(texts["docs/guarantees.md"])
    assert len(named) > 50
    for file, path in named:
        assert (ROOT / file).exists(), file
        body: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
        for part in path.split("::"):
            found = [node for node in body if getattr(node, "name", None) == part]
            assert found, f"{file}::{path}"
            body = getattr(found[0], "body", [])


def test_every_promise_names_a_test(texts: dict[str, str]) -> None:
    """A paragraph that begins in bold is a promise; a list of tests follows it."""
    parts = texts["docs/guarantees.md"].split("\n\n")
    for part, after in pairwise(parts):
        if part.startswith("**"):
            assert TEST.search(after), part


def test_every_file_that_is_named_exists(texts: dict[str, str]) -> None:
    for name in ("docs/architecture.md", "docs/CONTRIBUTING.md", "README.md"):
        for path in re.findall(r"`((?:bus|projections|cli|ops|tests|docs)/[\w./]+)`", texts[name]):
            assert (ROOT / path).exists(), f"{name} names {path}"


def test_commands_that_are_named_exist(texts: dict[str, str]) -> None:
    """`bus something` in a sentence: a command, or the family of one."""
    from cli.main import root

    known = set(root().members) | set(LIFECYCLE) | set(REFERENCE)
    for name, text in texts.items():
        for word in re.findall(r"`bus ([a-z][a-z-]*)", text):
            assert word in known, f"{name} names `bus {word}`"
