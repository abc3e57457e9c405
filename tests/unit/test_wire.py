"""The bytes of the NATS protocol: taken apart alike however they are cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import InvalidRequest
from bus.wire import Message, Parser, publish_command

STREAM = (
    b"MSG a.b 1 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG a.b 1 r.1 0\r\n\r\n"
    b"HMSG a.c 2 r.2 25 30\r\nNATS/1.0\r\nOne: 1\r\nX: \r\n\r\nworld\r\n"
    b"MSG nobody 9 2\r\n\r\n\r\n"
    b"HMSG a.c 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"-ERR 'Slow'\r\n"
    b"HMSG a.c 2 54 54\r\nNATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n\r\n"
)
MESSAGES = [
    Message("a.b", "", {}, b"hello"),
    Message("a.b", "r.1", {}, b""),
    Message("a.c", "r.2", {"One": "1", "X": ""}, b"world"),
    Message("a.c", "", {}, b"", 503, ""),
    Message("a.c", "", {"Nats-Last-Consumer": "7"}, b"", 100, "Idle Heartbeat"),
]


class Receiver:
    def __init__(self, got: list[Message]) -> None:
        self.receive = got.append


async def parsed(pieces: list[bytes], subscriptions: int = 2) -> tuple[list[Message], list[bytes]]:
    messages: list[Message] = []
    operations: list[bytes] = []

    async def on_operation(line: bytes) -> None:
        operations.append(line)

    parser = Parser({str(sid): Receiver(messages) for sid in range(1, subscriptions + 1)}, on_operation)
    for piece in pieces:
        await parser.parse(piece)
    return messages, operations


async def test_the_stream_may_be_cut_anywhere() -> None:
    for size in range(1, len(STREAM) + 1):
        pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
        assert await parsed(pieces) == (MESSAGES, [b"PING", b"-ERR 'Slow'"])


async def test_what_follows_a_reset_is_a_new_stream() -> None:
    messages: list[Message] = []

    async def on_operation(line: bytes) -> None:
        parser.reset()

    parser = Parser({"1": Receiver(messages)}, on_operation)
    await parser.parse(b"MSG a 1 5\r\nhe")
    parser.reset()
    await parser.parse(b"PING\r\nMSG a 1 5\r\nold")
    await parser.parse(b"MSG a 1 3\r\nnew\r\n")
    assert [message.data for message in messages] == [b"new"]


@pytest.mark.parametrize("junk", [b"MSG a 1 x\r\n", b"MSG \r\n", b"HMSG a 1 -\r\n", b"MSG\r\n"])
async def test_junk_is_an_error_that_the_connection_knows(junk: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        await parsed([junk])


SUBJECTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
VALUES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)


@given(SUBJECTS, SUBJECTS, st.dictionaries(NAMES, VALUES, max_size=6), st.binary(max_size=200))
def test_what_is_written_is_read_back(subject: str, reply: str, headers: dict[str, str], data: bytes) -> None:
    command = publish_command(subject, reply, headers, data, 1 << 20)
    operation, _, rest = command.partition(b" ")
    line, _, body = rest.partition(b"\r\n")
    fields = line.split(b" ")
    delivered = b" ".join([b"HMSG" if operation == b"HPUB" else b"MSG", fields[0], b"1", *fields[1:]]) + b"\r\n" + body
    got: list[Message] = []

    async def on_operation(line: bytes) -> None:
        raise AssertionError(line)

    run(Parser({"1": Receiver(got)}, on_operation).parse(delivered))
    assert got == [Message(subject, reply, headers, data)]


def run(coroutine: Any) -> None:
    """Run what never waits."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@given(st.text(max_size=10), st.text(max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_a_command_is_one_command_or_refused(subject: str, reply: str, name: str, value: str) -> None:
    try:
        command = publish_command(subject, reply, {name: value}, b"body", 1 << 20)
    except (InvalidRequest, UnicodeEncodeError):
        return
    line, _, rest = command.partition(b"\r\n")
    fields = line.decode().split(" ")
    assert len(fields) == 5
    assert int(fields[-1]) == len(rest) - 2
    assert rest[: int(fields[-2])].count(b"\n") == 3
