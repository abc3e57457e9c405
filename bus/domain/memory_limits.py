"""What an entry of the memory may say, and how much of it. Raises InvalidRequest for what none can."""

from __future__ import annotations

from datetime import datetime

from bus.domain.memory import Memory, metadata_text
from bus.domain.memory_requests import Revise, Supersede, Write
from bus.domain.vector import check_finite
from bus.errors import InvalidRequest

CONTENT = 200_000
"""An entry says at most so many characters, however it came to say them."""
METADATA_BYTES = 16_000


def check_given(request: Write | Revise | Supersede, name: str, before: Memory | None = None) -> None:
    """Check what is given, beside what the entry says `before`."""
    if request.content is not None:
        check_content(name, request.content)
    valid_from, valid_to = (
        getattr(request, field) or (getattr(before, field) if before is not None else None)
        for field in ("valid_from", "valid_to")
    )
    _check_validity(name, valid_from, valid_to)
    if request.metadata is not None and (size := len(metadata_text(request.metadata).encode())) > METADATA_BYTES:
        expected, hint = f"at most {METADATA_BYTES} bytes", "Keep large values elsewhere and refer to them"
        raise invalid(name, "the metadata is too large", "too_large", expected, f"{size} bytes", hint)
    if request.embedding:
        check_finite(request.embedding, f"memory {name}")


def check_content(name: str, content: str) -> None:
    """Check what an entry is to say."""
    if not content.strip():
        hint = 'For example: bus remember "tests need a running server"'
        raise invalid(name, "an entry says something", "no_text", "a letter or more", repr(content[:40]), hint)
    if len(content) > CONTENT:
        expected, found = f"at most {CONTENT} characters", f"{len(content)} characters"
        hint = "Write another entry and link the two"
        raise invalid(name, "the entry gets too long", "too_large", expected, found, hint)


def _check_validity(name: str, valid_from: datetime | None, valid_to: datetime | None) -> None:
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        expected = f"a valid_to after {valid_from.isoformat()}"
        hint = "valid_to is the first instant at which it is not true any more"
        raise invalid(name, "it would never be true", "bad_validity", expected, valid_to.isoformat(), hint)


def invalid(name: str, message: str, code: str, expected: str, found: str, hint: str) -> InvalidRequest:
    """The error about an entry that cannot be as it was asked for."""
    return InvalidRequest(message, code=code, entity=f"memory {name}", expected=expected, found=found, hint=hint)
