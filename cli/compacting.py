"""`bus session compact --wait`: ask for a summary, and stay until it is there.

Rule: giving up changes nothing; the summary comes all the same, and `bus status` says what is wrong if it does not.
"""

from __future__ import annotations

from msgspec.structs import replace

from bus.clock import SystemClock
from bus.domain.session_requests import Compact, Get, Happenings, History
from bus.durations import duration, span
from bus.errors import Unavailable
from bus.model import Operation
from bus.protocol import Progress
from cli import asking
from cli.asking import Asker
from cli.fields import Field, Typed, fields_of, request_of, value_of
from cli.options import Common
from cli.render import progress_bar

WAIT = Field(
    name="wait",
    flags=("--wait",),
    metavar="TIME",
    read=duration,
    help="stay until the summary is there, at most so long, and show the session",
)
LOOK_S = 1.0
"""So long one query waits for news."""
COMPACTED = "session.compacted"


def act(operation: Operation, common: Common, typed: Typed) -> None:
    """What the command does."""
    request = request_of(operation, fields_of(operation), typed, asking.stdin_text)
    wait_s = value_of(WAIT, typed, asking.stdin_text)
    if wait_s is None:
        asking.perform(common, operation, request)
    else:
        asking.run(_compact, common, request, wait_s)


async def _compact(common: Common, request: Compact, wait_s: float) -> None:
    async with asking.connected(common) as asker:
        asked = await asker.call(request)
        if request.summary is None:
            await _summarised(asker, request.session, asked.seq, wait_s)
        shown = Get(session=request.session)
        asking.show(common, shown, await asker.call(shown))


async def _summarised(asker: Asker, session: str, since: int, wait_s: float) -> None:
    """Return when the session has got a summary after event `since`. Raises Unavailable when the time is up."""
    clock = SystemClock()
    until_ns = clock.monotonic_ns() + int(wait_s * 1e9)
    look = History(session=session, since=since, wait_s=LOOK_S)
    with progress_bar() as report:
        while clock.monotonic_ns() < until_ns:
            news: Happenings = await asker.call(look)
            if any(event.type == COMPACTED for event in news.history):
                return
            look = replace(look, since=news.next or since)
            if report is not None:
                report(Progress(done=0, total=0, what="the turns are being summarised"))
    raise Unavailable(
        "the summary has not come",
        code="no_summary",
        entity=f"session {session}",
        expected=f"a summary within {span(wait_s)}",
        found="none yet",
        hint="It comes when there is something to summarise and the summariser answers; `bus status` says how that is",
    )
