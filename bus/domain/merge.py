"""JSON that agents hand over: what of it can be kept, and how a patch is merged into it (RFC 7396).

Rules:
* What is kept is JSON, nested at most DEPTH deep: any program that reads the log can read all of it.
* A patch that is an object is merged member by member: null takes a member away, an object is merged into what is
  there, anything else replaces it. A patch that is no object replaces everything.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from bus.errors import InvalidRequest

DEPTH = 64
"""A value is nested at most so deeply."""
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_encode = msgspec.json.Encoder().encode


def is_deeper(text: str, most: int) -> bool:
    """Whether the JSON in `text` has more than `most` lists and objects inside each other."""
    if text.count("[") + text.count("{") <= most:
        return False
    now = deepest = 0
    for sign in _BRACKETS.findall(text):
        now += _STEP.get(sign, 0)
        deepest = max(deepest, now)
    return deepest > most


def kept(value: Any, entity: str) -> Raw:
    """`value` as it stands in an event. Raises InvalidRequest for what is no JSON or nested too deeply."""
    try:
        text = _encode(value)
        too_deep = is_deeper(text.decode(), DEPTH)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(
            "this is no JSON",
            code="not_json",
            entity=entity,
            expected="null, true, false, a number, a text, a list or an object",
            found=str(error)[:200],
            hint="Hand it over as text",
        ) from None
    except RecursionError:
        too_deep = True
    if too_deep:
        raise InvalidRequest(
            "this is nested too deeply",
            code="too_deep",
            entity=entity,
            expected=f"at most {DEPTH} lists and objects inside each other",
            found="more of them",
            hint="Make it flatter, or hand it over as text",
        )
    return Raw(text)


def text_of(value: Raw) -> str:
    """The JSON of an event, as states and tables keep it."""
    return bytes(value).decode("utf-8", "replace")


def read(text: str) -> Any:
    """The value that `text` says; None when it says none that could be read (an administrator wrote it)."""
    try:
        return msgspec.json.decode(text) if not is_deeper(text, DEPTH) else None
    except (msgspec.MsgspecError, RecursionError):
        return None


def merged(target: Any, patch: Any) -> Any:
    """`target` after the merge patch. Neither of the two is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
