"""A server on this machine that answers as a test tells it, for what asks models over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from bus.tunables import Endpoint


class Asked(msgspec.Struct, frozen=True):
    """One request as it came."""

    path: str
    key: str | None
    body: Any


class Model:
    """A server. `answer(asked)` gives what is answered: an object, bytes, or (status, bytes). `hold` until `ended`: the
    answer never comes; `drip`: its beginning comes again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Any] = lambda asked: {}
        self.hold = self.drip = False
        self.ended = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def endpoint(self, **settings: Any) -> Endpoint:
        return Endpoint(base_url=self.url, key_variable="SYNBUS_TEST_KEY", **settings)


def _handler(model: Model) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = Asked(self.path, self.headers.get("authorization"), msgspec.json.decode(body))
            model.asked.append(asked)
            if model.hold:
                model.ended.wait()
                return
            found = model.answer(asked)
            status, data = found if isinstance(found, tuple) else (200, found)
            data = data if isinstance(data, bytes) else msgspec.json.encode(data)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)
            while model.drip and not model.ended.wait(0.02):
                self.wfile.write(b" ")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def model() -> Iterator[Model]:
    """A server that runs for the length of the block."""
    one = Model()
    one.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asks may hang up at any time
    one.server.daemon_threads = False
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield one
    finally:
        one.ended.set()
        one.server.shutdown()
        one.server.server_close()
        thread.join()
