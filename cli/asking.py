"""Asking the bus for one command: connect, ask, show, and remember how far this agent has seen.

Rules:
* The newest seq that an agent has seen is kept in the home (`run/seen/<agent>`) and sent with its next request: a
  command reads what the one before it wrote, whichever daemon answers. That file is only a help: it is never an error
  when it cannot be read or written.
* asyncio, nats and rich are imported when they are needed, and never for help; anyio never: it takes longer than the
  answer.
* What is shown is flushed at once, and acknowledged (if asked for) only after it was shown.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from msgspec import UNSET
from msgspec.structs import replace

from bus import config, late
from bus.durations import span
from bus.errors import InvalidRequest, NotFound
from bus.model import Answer, Operation, PageQuery, Request
from bus.protocol import Progress
from cli import answers
from cli.options import Common
from cli.render import Screen, clean, progress_bar, write_json

if TYPE_CHECKING:
    from bus.client import Bus

T = TypeVar("T")
FOLLOW_TIMEOUT_S = 86_400.0
"""A follower waits so long for a bus that is down before it gives up."""
LONG_FAMILIES = ("replay",)
"""Their operations may take minutes: they report progress, and are not asked again meanwhile."""
STDIN_BYTES = 4_000_000


class Seen:
    """The newest seq that one agent has seen, as the home remembers it."""

    def __init__(self, settings: config.Settings) -> None:
        name = settings.agent if settings.url is None else f"{settings.agent}@{quote(settings.url, safe='')}"[:200]
        self._home = settings.home
        self._path = settings.home / "run" / "seen" / name
        self.seq = self._read()

    def keep(self, seq: int) -> None:
        """Remember `seq`, unless another command has seen more meanwhile."""
        if seq <= self._read() or not self._home.is_dir():
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(f"{seq}\n")
            temporary.replace(self._path)

    def forget(self) -> None:
        self.seq = 0
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> int:
        try:
            return max(0, int(self._path.read_text()))
        except (OSError, ValueError):
            return 0


def settings_of(common: Common) -> config.Settings:
    """The settings of this process. Raises InvalidRequest."""
    settings = config.load(
        home=common.home, agent=common.agent, namespace=common.namespace, url=common.url, creds=common.creds
    )
    if settings.creds is not None and not settings.creds.is_file():
        raise NotFound("there are no such credentials", entity=str(settings.creds), hint="See --creds and BUS_CREDS")
    return settings


class Asker:
    """One agent's connection for the length of a command."""

    def __init__(self, bus: Bus, seen: Seen) -> None:
        self.bus = bus
        self._seen = seen

    async def call(self, request: Request, on_progress: Callable[[Progress], None] | None = None) -> Any:
        """Like `Bus.call`, but a log that ends before what this agent has seen is said and accepted."""
        try:
            return await self.bus.call(request, on_progress=on_progress)
        except InvalidRequest as error:
            if error.code != "future" or not self._seen.seq or error.problem.found != f"#{self.bus.seq}":
                raise
            Screen(sys.stderr).line(
                ("warning: ", "yellow"),
                f"{self.bus.agent} had seen #{self.bus.seq}, but the log does not reach so far: it was replaced or "
                "restored",
            )
            self._seen.forget()
            self.bus.seq = 0
            return await self.bus.call(request, on_progress=on_progress)


@contextlib.asynccontextmanager
async def connected(common: Common, timeout_s: float | None = None) -> AsyncIterator[Asker]:
    """Connect as the agent that `common` names."""
    # The network comes with the client: `bus --help`, `bus init` and completion do without.
    from bus.client import Bus

    keep_output_clean(common.debug)
    settings = settings_of(common)
    seen = Seen(settings)
    wait_s = common.timeout_s or timeout_s or settings.file.ask.timeout_s
    async with Bus.connect(settings=settings, timeout_s=wait_s) as bus:
        bus.seq = max(bus.seq, seen.seq)
        # Everything is imported (see `cli.main.run`); a follower may live for days.
        gc.freeze()
        gc.enable()
        try:
            yield Asker(bus, seen)
        finally:
            seen.keep(bus.seq)


def keep_output_clean(debug: bool) -> None:
    """What the client notes for itself belongs to --debug."""
    late.say("debug" if debug else "critical")


def perform(common: Common, operation: Operation, request: Request) -> None:
    """Ask once and show the answer."""
    run(_perform, common, operation, request)


async def _perform(common: Common, operation: Operation, request: Request) -> None:
    show(common, request, await ask(common, operation, request))


async def ask(common: Common, operation: Operation, request: Request) -> Any:
    """Ask once, with a bar on the terminal where it may take long."""
    async with connected(common) as asker:
        if operation.family not in LONG_FAMILIES:
            return await asker.call(request)
        with progress_bar() as report:
            return await asker.call(request, report or _ignore)


def show(common: Common, request: Request, answer: Any) -> None:
    """Print an answer, as JSON or for people."""
    if common.json:
        write_json(answer)
        return
    screen = Screen(sys.stdout)
    answers.show(screen, request, answer)
    screen.flush()
    if isinstance(answer, Answer) and answer.stale_s is not UNSET:
        text = f"this is how it was {span(answer.stale_s)} ago; newer events have not come here"
        Screen(sys.stderr).line(("warning: ", "yellow"), text)


async def follow(asker: Asker, request: PageQuery, shown: Callable[[Any], Awaitable[None]]) -> None:
    """Call `shown` with every answer that has something new, until interrupted."""
    if request.as_of is not None:
        raise InvalidRequest("--follow goes on from now, --as-of looks back: use one of them", code="usage")
    newest = getattr(request, "newest", None)
    if newest is not None and request.since is None and getattr(request, "start", None) is None:
        # Newest first is for the beginning only: behind a cursor it would leave out what does not fit on a page.
        answer = await asker.call(replace(request, newest=True))
        await shown(answer)
        request = replace(request, since=answer.next or answer.seq)
    async for answer in asker.bus.follow(replace(request, newest=False) if newest else request):
        await shown(answer)


def show_items(common: Common, screen: Screen, answer: Any) -> None:
    """Print the items of an answer that is part of a stream."""
    if common.json:
        for document in answers.documents(answer):
            write_json(document)
        return
    answers.show_items(screen, answer)
    screen.flush()


def run(main: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run one command's coroutine to its end."""
    import asyncio

    return asyncio.run(main(*arguments))


def stdin_text() -> str:
    """All of standard input, without its last newline. Raises InvalidRequest when it is no UTF-8 or does not end."""
    data = sys.stdin.buffer.read(STDIN_BYTES + 1)
    if len(data) > STDIN_BYTES:
        raise InvalidRequest(
            "standard input is too long", code="too_large", expected=f"at most {STDIN_BYTES} bytes", found="more"
        )
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest("standard input is not UTF-8", code="invalid", found=clean(str(error))) from None


def _ignore(progress: Progress) -> None:
    """Progress that nobody sees; asking for it still keeps a long answer from being taken for a lost one."""
