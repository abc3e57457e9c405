"""Every way a request can end badly, once, for all doors.

    BusError
    ├── InvalidRequest   the request itself is wrong                    exit 2
    ├── Refused          legal, but not in this state: claimed, stale   exit 3
    ├── NotFound         it names something that does not exist         exit 4
    ├── NotAllowed       this agent may not do that                     exit 5
    ├── Unavailable      no answer now: busy, timed out, no server      exit 6
    └── Defect           a bug of ours                                  exit 1

Rules: an error says what was expected, what was found, for which entity, and what to do next. `code` is stable and
meant for programs; the message is meant for people. Errors travel as `Problem`, so every door and every language
sees the same fields; what is derived from one of these classes travels as that one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it travels: `kind` picks the class, `code` is the stable name of this particular case."""

    kind: str
    code: str
    message: str
    entity: str | None = None
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    retry_after_s: float | None = None
    details: dict[str, Any] = {}


class BusError(Exception):
    """Base of every error a caller can meet. `exit_code` is what the `bus` command ends with."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "defect"
    kind: ClassVar[str] = "Defect"
    """The class that it travels as."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        entity: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
        **details: Any,
    ) -> None:
        self.problem = Problem(
            kind=self.kind,
            code=code or self.default_code,
            message=message,
            entity=entity,
            expected=expected,
            found=found,
            hint=hint,
            retry_after_s=retry_after_s,
            details=details,
        )
        super().__init__(message)

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def details(self) -> dict[str, Any]:
        return self.problem.details

    def __str__(self) -> str:
        p = self.problem
        text = f"{p.entity}: {p.message}" if p.entity and p.entity not in p.message else p.message
        if p.expected is not None or p.found is not None:
            sides = [f"expected {p.expected}"] if p.expected is not None else []
            sides += [f"found {p.found}"] if p.found is not None else []
            text += f" ({', '.join(sides)})"
        return f"{text}. {p.hint}" if p.hint else text


class InvalidRequest(BusError):
    """The request cannot be meant: wrong type, unknown field, bad name, too large."""

    kind = "InvalidRequest"
    exit_code = 2
    default_code = "invalid"


class Refused(BusError):
    """The request is well formed but the present state does not allow it."""

    kind = "Refused"
    exit_code = 3
    default_code = "refused"


class NotFound(BusError):
    """The request names something that does not exist (at the moment asked for)."""

    kind = "NotFound"
    exit_code = 4
    default_code = "not_found"


class NotAllowed(BusError):
    """The agent that asks may not do this."""

    kind = "NotAllowed"
    exit_code = 5
    default_code = "not_allowed"


class Unavailable(BusError):
    """Nobody could answer in time; asking again later is sensible."""

    kind = "Unavailable"
    exit_code = 6
    default_code = "unavailable"


class Defect(BusError):
    """A bug in Synbus. The daemon goes on; the request is answered with this."""


KINDS: dict[str, type[BusError]] = {
    cls.kind: cls for cls in (InvalidRequest, Refused, NotFound, NotAllowed, Unavailable, Defect)
}


def from_problem(problem: Problem) -> BusError:
    """Rebuild the error that was sent as `problem` (a kind this version does not know becomes a Defect)."""
    error = KINDS.get(problem.kind, Defect)(problem.message)
    error.problem = problem
    return error
