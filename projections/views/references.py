"""References in a prompt: `@[path]` becomes the text of that file, and so do the references in it.

Rules:
* A file is read once, as it was at the moment asked for. What is no file is reported and stands as it was written.
* Nothing blows up: a file is not put into itself, DEPTH files at most stand inside each other, and there are bounds on
  the references that are followed and on the length of the text.
"""

from __future__ import annotations

import re

from bus.domain import vault
from bus.domain.vault_paths import path_of
from bus.errors import InvalidRequest
from projections.query import Reader, answers

REFERENCE = re.compile(r"@\[([^\[\]\n]{1,400})\]")
DEPTH = 8
FOLLOWED = 1_000
TEXT_BYTES = 900_000


@answers(vault.Expand)
def expand(reader: Reader, request: vault.Expand) -> vault.Expanded:
    expansion = _Expansion(reader, request.namespace)
    text = expansion.text(request.text, ())
    if len(text.encode()) > TEXT_BYTES:
        raise _too_large(f"at most {TEXT_BYTES} bytes", f"{len(text.encode())} bytes")
    return vault.Expanded(
        seq=reader.seq,
        time=reader.time_of(reader.seq),
        text=text,
        included=[vault.Included(path=path, seq=seq) for path, seq in expansion.included.items()],
        missing=list(expansion.missing),
        skipped=list(expansion.skipped),
    )


def _too_large(expected: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        "the text becomes too large",
        code="too_large",
        entity="the text",
        expected=expected,
        found=found,
        hint="Refer to fewer or smaller files",
    )


class _Expansion:
    """One text being expanded: what has been met so far, each once, in the order in which it was met."""

    def __init__(self, reader: Reader, namespace: str) -> None:
        self._reader = reader
        self._namespace = namespace
        self._files: dict[str, tuple[int, str] | None] = {}
        self._followed = 0
        self._size = 0
        self.included: dict[str, int] = {}
        self.missing: dict[str, None] = {}
        self.skipped: dict[str, None] = {}

    def text(self, text: str, inside: tuple[str, ...]) -> str:
        """`text`, which stands in the files `inside`, with the references in it replaced."""
        return REFERENCE.sub(lambda match: self._replaced(match, inside), text)

    def _replaced(self, match: re.Match[str], inside: tuple[str, ...]) -> str:
        path, file = self._file(match[1])
        if file is None:
            self.missing[match[1]] = None
            return match[0]
        if path in inside or len(inside) == DEPTH:
            self.skipped[path] = None
            return match[0]
        seq, content = file
        self._count(len(content))
        self.included[path] = seq
        return self.text(content, (*inside, path))

    def _count(self, size: int) -> None:
        self._followed += 1
        self._size += size
        if self._followed > FOLLOWED:
            raise _too_large(f"at most {FOLLOWED} references, those in files included", "more")
        if self._size > TEXT_BYTES:
            raise _too_large(f"at most {TEXT_BYTES} characters of files", "more")

    def _file(self, reference: str) -> tuple[str, tuple[int, str] | None]:
        """-> (the path that is meant, the version and text of the file there)"""
        try:
            path = path_of(reference.strip())
        except InvalidRequest:
            return reference, None
        if path not in self._files:
            entry = self._reader.state(vault.VaultFile, self._namespace, path)
            is_there = entry is not None and entry.state.state == "present"
            self._files[path] = (entry.since, entry.state.content) if entry is not None and is_there else None
        return path, self._files[path]
