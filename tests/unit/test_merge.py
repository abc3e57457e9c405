"""JSON that agents hand over: the merge patch of RFC 7396, and what cannot be kept."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain.merge import DEPTH, is_deeper, kept, merged, read, text_of
from bus.errors import InvalidRequest

EXAMPLES: tuple[tuple[Any, Any, Any], ...] = (
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
)
"""The test cases of RFC 7396, appendix A: what there is, the patch, the result."""

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(("", "a", "ü"))
names = st.sampled_from(("a", "b", "c"))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)


@pytest.mark.parametrize(("target", "patch", "result"), EXAMPLES)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


def by_the_letter(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7396, section 2, line by line."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name in patch:
            if patch[name] is None:
                if name in target:
                    del target[name]
            else:
                target[name] = by_the_letter(target.get(name), patch[name])
        return target
    return patch


@given(values, values)
def test_any_merge_is_what_the_rfc_says(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    result = merged(target, patch)
    assert (target, patch) == before, "an argument was changed"
    assert result == by_the_letter(copy.deepcopy(target), patch)


def _without_null(value: Any) -> bool:
    if isinstance(value, dict):
        return all(one is not None and _without_null(one) for one in value.values())
    return True


@given(values.filter(_without_null), values.filter(_without_null))
def test_merging_twice_is_merging_once(target: Any, patch: Any) -> None:
    once = merged(target, patch)
    assert merged(once, patch) == once


# --- what is kept ---------------------------------------------------------------------------------------------------


@given(values)
def test_what_is_kept_reads_as_it_was(value: Any) -> None:
    assert read(text_of(kept(value, "key x"))) == value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_counted_outside_of_texts() -> None:
    assert not is_deeper("[" * DEPTH + "]" * DEPTH, DEPTH)
    assert is_deeper("[" * (DEPTH + 1) + "]" * (DEPTH + 1), DEPTH)
    assert not is_deeper('["' + "[{" * DEPTH + '\\"[", [], {}]', 2)
    assert not is_deeper("[" + "[]," * DEPTH + "[]]", 2)


@pytest.mark.parametrize("depth", [DEPTH + 1, 5000])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    kept(nested(DEPTH), "key x")
    with pytest.raises(InvalidRequest) as caught:
        kept(nested(depth), "key x")
    assert caught.value.code == "too_deep"


@pytest.mark.parametrize("value", [object(), "\ud800", {"a": ["\udfff"]}, {(1, 2): 3}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kept(value, "key x")
    problem = caught.value.problem
    assert (problem.code, problem.entity) == ("not_json", "key x")
    assert problem.expected
    assert problem.found
    assert problem.hint


@pytest.mark.parametrize("text", ["", "{", "\ufffd", "[" * 500 + "]" * 500, "1e999"])
def test_text_that_says_nothing_reads_as_null(text: str) -> None:
    assert read(text) is None


def test_bytes_that_are_no_text_do_not_stop_a_reader() -> None:
    assert text_of(msgspec.Raw(b'"\xff"')) == '"\ufffd"'
