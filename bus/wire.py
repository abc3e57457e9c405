"""The messages of the NATS client protocol as bytes. Pure: no I/O, no `nats`.

Rules: what is read is handed over at once, without a copy more than needed; what is written can never contain a second
command, whatever stands in a header or a subject.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from bus.errors import InvalidRequest

NO_RESPONDERS = 503


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message as it arrived. `status` is the number of a status message (100, 404, 503…; 0: none) and `reason` the
    server's words for it."""

    subject: str
    reply: str
    headers: dict[str, str]
    data: bytes
    status: int = 0
    reason: str = ""


class Receiver(Protocol):
    """Who takes the messages of one subscription. It must not raise."""

    def receive(self, message: Message) -> None: ...


def publish_command(
    subject: str, reply: str, headers: Mapping[str, str] | None, data: bytes, limit_bytes: int
) -> bytes:
    """The command that publishes a message. Raises InvalidRequest for what no server would take."""
    if headers:
        block = "NATS/1.0\r\n" + "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) + "\r\n"
        if block.count("\n") != len(headers) + 2 or block.count("\r") != len(headers) + 2:
            raise InvalidRequest("a header contains a line break", code="bad_header", entity=subject)
        head = block.encode()
        size = len(head) + len(data)
        command = f"HPUB {subject} {reply} {len(head)} {size}\r\n".encode() + head + data + b"\r\n"
    else:
        size = len(data)
        command = f"PUB {subject} {reply} {size}\r\n".encode() + data + b"\r\n"
    if size > limit_bytes:
        raise InvalidRequest(
            "a message is too large",
            code="too_large",
            entity=subject,
            expected=f"at most {limit_bytes} bytes with its headers",
            found=f"{size} bytes",
        )
    if not subject.isprintable() or not reply.isprintable() or not subject or " " in subject or " " in reply:
        raise InvalidRequest("bad subject", code="bad_subject", found=repr(subject))
    return command


def _headers(block: bytes) -> tuple[dict[str, str], int, str]:
    """The header block of a message -> (headers, status, reason)."""
    first, _, rest = block.decode("utf-8", "replace").partition("\r\n")
    headers: dict[str, str] = {}
    for line in rest.split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            headers[name] = value
        elif line:
            name, _, value = line.partition(":")
            headers[name] = value.strip()
    status, _, reason = first[9:].partition(" ")
    return headers, int(status) if status.isdecimal() else 0, reason


class Parser:
    """Takes the server's half of the protocol apart and hands every message to the receiver of its subscription id.

    The subjects are other people's: they are split at the server's single spaces only and decoded with replacement,
    so that no odd character in one can break the connection of who receives it.
    """

    def __init__(self, receivers: Mapping[str, Receiver], on_operation: Callable[[bytes], Awaitable[None]]) -> None:
        self._receivers = receivers
        self._on_operation = on_operation
        self._resets = 0
        self.reset()

    def reset(self) -> None:
        self._resets += 1
        self._held: list[bytes] = []
        self._size = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take the next bytes of the connection. Raises ValueError or IndexError for what is not the protocol."""
        self._held.append(data)
        self._size += len(data)
        if self._size < self._need:
            return
        data = b"".join(self._held)
        resets = self._resets
        position, line = self._messages(data, 0)
        while line:
            await self._on_operation(line)
            if self._resets != resets:
                return  # The connection broke meanwhile, and the rest of the data was its.
            position, line = self._messages(data, position)
        self._held = [data[position:]]
        self._size = len(data) - position

    def _messages(self, data: bytes, position: int) -> tuple[int, bytes]:
        """Hand over the messages from `position` on. -> (the position behind them, the other operation that follows:
        empty when the data ends there; then `_need` is how many bytes the next message has, or 0)."""
        size, find, receivers = len(data), data.find, self._receivers
        self._need = 0
        while (end := find(b"\r\n", position)) >= 0:
            kind = data[position]
            if kind == 0x48:  # HMSG subject sid [reply] header_bytes total_bytes
                fields = data[position + 5 : end].decode("utf-8", "replace").split(" ")
                body = end + 2 + int(fields[-2])
            elif kind == 0x4D:  # MSG subject sid [reply] total_bytes
                fields = data[position + 4 : end].decode("utf-8", "replace").split(" ")
                fields.append(fields[-1])
                body = end + 2
            else:
                return end + 2, data[position:end]
            stop = end + 2 + int(fields[-1])
            if stop + 2 > size:
                self._need = stop + 2 - position
                break
            receiver = receivers.get(fields[1])
            if receiver is not None:
                reply = fields[2] if len(fields) == 5 else ""
                headers, status, reason = _headers(data[end + 2 : body]) if kind == 0x48 else ({}, 0, "")
                receiver.receive(Message(fields[0], reply, headers, data[body:stop], status, reason))
            position = stop + 2
        return position, b""
