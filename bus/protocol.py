"""How a request and its answer look on the wire: JSON both ways, the same for every language.

    request   subject ask.<agent>.<do|see>.<family>.<verb>, body: the request struct as JSON
              headers: Bus-Request (id of the request, for commands), traceparent, Bus-Progress (accepts progress)
    answer    the reply struct as JSON, or {"error": {...}} (see bus.errors.Problem)
    progress  {"progress": {"done": n, "total": n, "what": "..."}}, any number of them before the answer, only on demand

Rule: a body is decoded strictly; what is wrong with it is said in the words of the field at fault.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bus.errors import BusError, Defect, InvalidRequest, Problem, from_problem
from bus.model import Operation, Request

REQUEST_HEADER = "Bus-Request"
PROGRESS_HEADER = "Bus-Progress"
TRACE_HEADER = "traceparent"

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ERROR = b'{"error":'
_PROGRESS = b'{"progress":'
_encode = msgspec.json.Encoder().encode
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


class Failed(msgspec.Struct, frozen=True):
    """An answer that is an error."""

    error: Problem


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a long request has come. `total` is 0 while it is not known."""

    done: int
    total: int
    what: str


class _Progressing(msgspec.Struct, frozen=True):
    progress: Progress


def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


def decode_request(operation: Operation, body: bytes) -> Request:
    """The request in `body` (empty: no fields). Raises InvalidRequest naming the field at fault."""
    try:
        request: Request = _decoder(operation.request).decode(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"{operation.name}: {error}", code="invalid", hint=f"`bus help {operation.name}` shows its fields"
        ) from None
    return request


def check_request_id(text: str) -> str:
    """`text` if it may be the id of a request. Raises InvalidRequest."""
    if _REQUEST_ID.fullmatch(text) is None:
        raise InvalidRequest(
            "bad request id", code="bad_request_id", expected="1 to 64 of A-Z, a-z, 0-9, _ and -", found=repr(text[:80])
        )
    return text


def encode_request(request: Request) -> bytes:
    """The body of a request. Raises InvalidRequest for text that is not valid Unicode."""
    try:
        return _encode(request)
    except UnicodeEncodeError as error:
        raise InvalidRequest("a text is not valid Unicode", expected="no lone surrogates", found=str(error)) from None


def encode_answer(answer: msgspec.Struct | BusError) -> bytes:
    return _encode(Failed(answer.problem)) if isinstance(answer, BusError) else _encode(answer)


def encode_progress(progress: Progress) -> bytes:
    return _encode(_Progressing(progress))


def decode_progress(body: bytes) -> Progress | None:
    """The progress in `body`, or None when it is the answer."""
    return _decoder(_Progressing).decode(body).progress if body.startswith(_PROGRESS) else None


def decode_answer(operation: Operation, body: bytes) -> Any:
    """The reply in `body`. Raises the error it carries, and Defect for what this version cannot read."""
    return decode_reply(operation.reply_type, operation.name, body)


def decode_reply(kind: type[Any], what: str, body: bytes) -> Any:
    """The `kind` in `body`, which answers `what`. Raises like `decode_answer`."""
    failed = body.startswith(_ERROR)
    try:
        answer = _decoder(Failed if failed else kind).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Defect(
            "the answer cannot be read",
            entity=what,
            found=str(error),
            hint="The daemon may be of another version; `bus status` shows it",
        ) from None
    if failed:
        raise from_problem(answer.error)
    return answer
