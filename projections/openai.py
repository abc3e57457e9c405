"""Asking a model behind an HTTP endpoint that speaks OpenAI's protocol: OpenAI's own, or a server nearby.

Rules:
* An answer comes whole and in time, or not at all: `timeout_s` bounds all of it, however slowly it drips, and
  `answer_bytes` its size. Everything that can go wrong is an Unanswered, which says what and what to do next.
* The key is read from the environment variable that the settings name, at the moment it is sent. It stands in no
  setting, no log and no error, whatever the other side sends back.
* It waits, on a thread of its own: it is called where no event loop runs.
* httpx is imported when somebody asks (`pip install synbus[http]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from bus import config
from bus.errors import InvalidRequest, Unavailable
from bus.tunables import Endpoint

if TYPE_CHECKING:
    import httpx

SAID = 200
"""Of what the other side says about an error, so much is shown."""

A = TypeVar("A")


class Unanswered(Unavailable):
    """The endpoint gave no answer that can be used. `code` says which: `unreachable`, `timed_out`, `bad_status`,
    `too_large` or `bad_answer`."""

    default_code = "unanswered"


def ask(endpoint: Endpoint, path: str, body: Mapping[str, Any], answer: type[A]) -> A:
    """POST `body` as JSON to `path` below the endpoint, and read the answer as an `answer`. Raises Unanswered."""
    data = anyio.run(_exchange, endpoint, path, msgspec.json.encode(body))
    try:
        return msgspec.json.decode(data, type=answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        found = f"{error}, in {_shown(endpoint, data)}"
        raise _unanswered(
            endpoint, "the answer has another form", "bad_answer", "an answer of OpenAI's form", found
        ) from None


async def _exchange(endpoint: Endpoint, path: str, body: bytes) -> bytes:
    """The body of the answer to one request."""
    httpx = _httpx()
    # What is sent packed can be far longer than it looks.
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    key = config.secret(endpoint.key_variable)
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    url = f"{endpoint.base_url.rstrip('/')}/{path}"
    try:
        with anyio.fail_after(endpoint.timeout_s):
            # A time-out of each step would let an answer drip for ever; the one around it does not.
            async with (
                httpx.AsyncClient(timeout=None) as client,
                client.stream("POST", url, content=body, headers=headers) as response,
            ):
                return await _whole(endpoint, response)
    except Unanswered:
        raise
    except TimeoutError:
        expected, found = f"a whole answer within {endpoint.timeout_s:g} s", "none"
        raise _unanswered(endpoint, "the endpoint did not answer in time", "timed_out", expected, found) from None
    except Exception as error:  # an address that makes no sense fails in many ways, in several libraries
        found = f"{type(error).__name__}: {_hidden(endpoint, str(error))[:SAID]}"
        problem = "the endpoint cannot be reached"
        raise _unanswered(endpoint, problem, "unreachable", "a server that speaks HTTP", found) from None


async def _whole(endpoint: Endpoint, response: httpx.Response) -> bytes:
    """The body of an answer that says that all is well, as long as it is no longer than it may be."""
    parts, size, most = list[bytes](), 0, endpoint.answer_bytes if response.is_success else SAID * 4
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > most:
            break
    data = b"".join(parts)
    if not response.is_success:
        found = f"{response.status_code} {_shown(endpoint, data)}"
        raise _unanswered(endpoint, "the endpoint refused", "bad_status", "a status from 200 to 299", found)
    if size > most:
        expected, found = f"at most {most} bytes", "more of them"
        raise _unanswered(endpoint, "the answer is too long", "too_large", expected, found)
    return data


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise InvalidRequest(
            "asking a model over HTTP needs httpx",
            code="no_httpx",
            entity="synbus[http]",
            expected="httpx, which is installed with it",
            found="none",
            hint="pip install 'synbus[http]', then `bus down`",
        ) from None
    return httpx


def _shown(endpoint: Endpoint, data: bytes) -> str:
    """The beginning of what the other side said."""
    return repr(_hidden(endpoint, data[: SAID * 4].decode("utf-8", "replace"))[:SAID])


def _hidden(endpoint: Endpoint, text: str) -> str:
    """`text` without the key: some servers repeat it when they do not like it."""
    key = config.secret(endpoint.key_variable)
    return text.replace(key, "(the key)") if key is not None else text


def _unanswered(endpoint: Endpoint, message: str, code: str, expected: str, found: str) -> Unanswered:
    return Unanswered(
        message,
        code=code,
        entity=endpoint.base_url,
        expected=expected,
        found=found,
        hint=f"See [openai] in the settings, and the variable {endpoint.key_variable} of the daemon",
    )
