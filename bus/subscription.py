"""Interest in a subject, and what becomes of it that no caller is told about. Pure: no I/O, no `nats`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from bus.late import Logger
from bus.wire import Message

_log = Logger(__name__)
Callback = Callable[[Message], None]


class Counters(msgspec.Struct):
    """What happened on a connection that no caller was told about, since it was opened."""

    connects: int = 0
    disconnects: int = 0
    denied: int = 0
    slow: int = 0
    errors: int = 0
    callback_errors: int = 0


class Owner(Protocol):
    """The connection of a subscription."""

    counters: Counters
    subscriptions: dict[str, Subscription]
    """By the number that the server knows each by."""

    def forget(self, sid: int) -> None:
        """Tell the server that nobody is interested any more."""
        ...


class Subscription:
    """Interest in a subject, kept across reconnects until `unsubscribe`. `on_lost` is called when the connection
    breaks."""

    def __init__(self, owner: Owner, subject: str, callback: Callback, on_lost: Callable[[], None] | None) -> None:
        self.subject = subject
        self.callback = callback
        self.on_lost = on_lost
        self.received = 0
        """How many messages came."""
        self.denied = False
        self.sid = 0
        self._owner = owner

    def receive(self, message: Message) -> None:
        self.received += 1
        try:
            self.callback(message)
        except Exception as error:
            self._owner.counters.callback_errors += 1
            _log.warning("a subscriber failed", subject=message.subject, error=repr(error))

    def unsubscribe(self) -> None:
        """Stop at once: no message reaches the callback any more."""
        if self._owner.subscriptions.pop(str(self.sid), None) is not None:
            self._owner.forget(self.sid)
