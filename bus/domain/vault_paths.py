"""Paths of the vault: names joined by slashes, below a root that nothing leads out of.

Rules:
* A path is written in one way: without a leading or trailing slash, without `.` and empty names, in the composed form
  of Unicode. Writing it so is no error of whoever wrote it otherwise.
* What could mean a place outside is refused: `..`, a leading slash, backslashes, percent-encoded characters, and
  characters that cannot be seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from bus.errors import InvalidRequest
from bus.subjects import TOKEN_BYTES, token

_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
SEEN = 60
"""So much of a bad path is shown."""


def path_of(text: str) -> str:
    """`text` as the path it means. Raises InvalidRequest."""
    if text.startswith("/"):
        raise bad_path(text, "a path of the vault has no slash before it", "a path such as notes/plan.md")
    return inner_path(text)


def inner_path(text: str) -> str:
    """`text`, which a place in the vault may stand before, as the path it means. Raises InvalidRequest."""
    if not text.isprintable():
        raise bad_path(text, "a path can be printed", "no control characters, line breaks or invisible signs")
    if "\\" in text:
        raise bad_path(text, "a path has no backslashes", "names joined by slashes")
    if _ENCODED.search(text):
        raise bad_path(text, "a path is not percent-encoded", "the characters themselves instead of %XX")
    names = [name for name in unicodedata.normalize("NFC", text).split("/") if name not in ("", ".")]
    if ".." in names:
        raise bad_path(text, "a path does not lead out of its directory", "no `..`")
    path = "/".join(names)
    if not path:
        raise bad_path(text, "the path is empty", "at least one name")
    try:
        token(path)
    except InvalidRequest:
        raise bad_path(
            text,
            "the path is too long",
            f"at most {TOKEN_BYTES} bytes, a slash, a dot or an umlaut counting 3 and more",
        ) from None
    return path


def above(path: str) -> Iterator[str]:
    """The directories that a path lies in."""
    place = path.find("/")
    while place != -1:
        yield path[:place]
        place = path.find("/", place + 1)


def bad_path(text: str, message: str, expected: str) -> InvalidRequest:
    shown = text if len(text) <= SEEN else f"{text[:SEEN]}… ({len(text)} characters)"
    return InvalidRequest(
        message,
        code="bad_path",
        entity=f"path {text[:SEEN]!r}",
        expected=expected,
        found=repr(shown),
        hint="For example: notes/plan.md",
    )
