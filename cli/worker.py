"""The worker: takes the best task, runs a command for it, writes down what came of it, and takes the next.

Rules:
* It decides nothing about tasks: it asks `task.next`, `renew`, `complete`, `fail` and `release` like anybody else, and
  writes everything under the fence of its claim.
* While a command runs its lease is renewed. A command whose claim is lost, or nears the cap, is stopped; a claim counts
  as lost when it could not be renewed in time, whether or not anybody answered.
* What is left of a lease is counted from before the claim was asked for, so it ends here before it ends there.
* The bus may go away and come back; whatever is asked is asked again until it is answered or makes no sense any more.
* However this ends, no command that it started goes on (`cli.guard`).
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from bus import config
from bus.domain import channel
from bus.domain import task_requests as ask
from bus.errors import BusError, NotFound, Refused, Unavailable
from bus.model import Request
from cli.asking import Asker
from cli.guard import MARK, Guard
from cli.running import Running, ending, read_result

LOOK_S = 5.0
"""So often it is looked whether the claim still holds, for a cancelled task's command should not go on for long."""
WAIT_S = 3.0
"""So long one query waits for a task; short, because a daemon that is killed cannot say that it will not answer."""
MISS_S = 0.2
"""After somebody else was faster the tables may still show the task that is gone."""
CLOSING_S = 2.0
"""What remains to be said at the end of a claim is said within this."""
RELEASE_S = 10.0
TELL_FIRST_S = 5.0
TELL_LAST_S = 300.0
"""The pause between two messages with output: it doubles from the first to the last, so that long work is not loud."""
REASON_CHARS = 15_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker was told to do."""

    words: tuple[str, ...]
    wanted: ask.Next
    channel: str | None = None
    parallel: int = 1
    most: int | None = None
    idle_exit_s: float | None = None
    on_stop: Literal["release", "finish"] = "release"
    grace_s: float = 10.0


class Say(Protocol):
    """Takes note of what happens."""

    def __call__(self, event: str, **details: Any) -> None: ...


class Job:
    """One task and the command that runs for it. `ends_at`, `cap_at` and `stop_at` are on this process's clock."""

    def __init__(self, claim: ask.LeaseReply, asked_at: float, running: Running, grace_s: float) -> None:
        assert claim.until is not None
        self.claim = claim
        self.running = running
        self.began_at = anyio.current_time()
        self.ends_at = asked_at + claim.lease_s
        self.cap_at = self.ends_at + (claim.until - claim.expires).total_seconds()
        half = asked_at + (self.cap_at - asked_at) / 2
        self.stop_at = max(half, self.cap_at - grace_s - CLOSING_S)
        self.renew_at = asked_at + claim.lease_s / 3
        self.channel = ""
        self.why: str | None = None
        """Why the command was stopped: `lost`, `cap`, `stopped`; None while it was not."""
        self.problem = ""

    @property
    def fence(self) -> str:
        return f"{self.claim.task}:{self.claim.fence}"

    def stop(self, why: str, problem: str = "") -> None:
        """Stop the command, unless it has ended or is being stopped already."""
        if why == "lost" or (self.why is None and self.running.stop()):
            self.running.stop()
            self.why, self.problem = why, problem

    def renewed(self, asked_at: float, reply: ask.LeaseReply) -> None:
        """The lease ends later, unless it has reached its cap."""
        self.ends_at = max(self.ends_at, min(self.cap_at, asked_at + reply.lease_s))
        self.renew_at = asked_at + reply.lease_s / 3


class Worker:
    """Takes tasks for one agent and runs the command for each."""

    def __init__(self, asker: Asker, settings: config.Settings, plan: Plan, say: Say, guard: Guard) -> None:
        self._asker, self._settings, self._plan, self._say, self._guard = asker, settings, plan, say, guard
        self._jobs: set[Job] = set()
        self._freed = anyio.Event()
        self._patience = anyio.CancelScope()
        self._claiming = anyio.CancelScope()
        self._busy_until = 0.0
        self._taken = 0
        self.stopped_by: int | None = None
        self.failure: BusError | None = None

    async def run(self) -> None:
        """Work until there is a reason to end."""
        self._busy_until = anyio.current_time()
        async with anyio.create_task_group() as whole:
            whole.start_soon(self._obey)
            async with anyio.create_task_group() as jobs:
                try:
                    await self._take_all(jobs)
                except BusError as error:
                    self._give_up(error)
            whole.cancel_scope.cancel()
        self._say("ended", tasks=self._taken)

    # --- taking ------------------------------------------------------------------------------------------------

    async def _take_all(self, jobs: TaskGroup) -> None:
        if self._plan.channel is not None:
            await self._asker.call(channel.Open(channel=self._plan.channel))
        ready = True
        while not self._ends() and (self._plan.most is None or self._taken < self._plan.most):
            if len(self._jobs) >= self._plan.parallel:
                await self._rest(self._freed.wait, None)
                continue
            if ready and (job := await self._take()) is not None:
                self._taken += 1
                self._jobs.add(job)
                jobs.start_soon(self._work, job)
                continue
            left_s = self._idle_left()
            if left_s is not None and left_s <= 0:
                self._say("idle")
                break
            if ready:
                await self._rest(lambda: anyio.sleep(MISS_S), left_s)
            ready = bool(await self._rest(self._look_out, left_s))

    def _ends(self) -> bool:
        return self.stopped_by is not None or self.failure is not None

    def _idle_left(self) -> float | None:
        """How long it still waits for a task; None while there is no end to that."""
        if self._plan.idle_exit_s is None:
            return None
        return (
            self._plan.idle_exit_s if self._jobs else self._busy_until + self._plan.idle_exit_s - anyio.current_time()
        )

    async def _rest(self, what: Callable[[], Awaitable[Any]], timeout_s: float | None) -> Any:
        """Wait for `what`, at most so long, or until it is time to stop."""
        with anyio.CancelScope() as self._patience:
            if timeout_s is not None:
                self._patience.deadline = anyio.current_time() + timeout_s
            if not self._ends():
                return await what()
        return None

    async def _look_out(self) -> bool:
        """Wait a while until there is a task that fits."""
        wanted = self._plan.wanted
        request = ask.Waiting(
            labels=wanted.labels, classes=wanted.classes, skills=wanted.skills, limit=1, wait_s=WAIT_S
        )
        return bool((await self._asker.call(request)).tasks)

    async def _take(self) -> Job | None:
        """Claim the best task; None when there is none. One that is got after it is time to stop is given back."""
        asked_at = anyio.current_time()
        claim: ask.LeaseReply | None = None
        # Not just cancelled: what was asked for may have been got.
        with anyio.CancelScope() as self._claiming:
            try:
                claim = await self._asker.call(self._plan.wanted)
            except NotFound as error:
                if error.code != "none_waiting":
                    raise
        if claim is None:
            return None
        job = Job(claim, asked_at, Running(self._plan.words, self._plan.grace_s, self._guard), self._plan.grace_s)
        if not self._ends():
            return job
        await self._close(
            job, ask.Release(task=claim.task, reason="the worker was stopped", fence=job.fence), "released"
        )
        return None

    # --- working -----------------------------------------------------------------------------------------------

    async def _work(self, job: Job) -> None:
        claim = job.claim
        self._say("took", seq=claim.seq, task=claim.task, fence=claim.fence, title=claim.title)
        try:
            with tempfile.TemporaryDirectory(prefix="bus-work-", ignore_cleanup_errors=True) as folder:
                await self._attempt(job, Path(folder))
        finally:
            self._jobs.discard(job)
            self._busy_until = anyio.current_time()
            self._freed.set()
            self._freed = anyio.Event()

    async def _attempt(self, job: Job, folder: Path) -> None:
        """Run the command and write down what came of it."""
        code: int | None = None
        try:
            detail = await self._until(job.ends_at, ask.Show(task=job.claim.task))
            if detail is None or detail.task.fence != job.claim.fence:
                job.stop("lost", "it could not be read before the lease ended")
            elif not self._ends() or self._plan.on_stop == "finish":
                code = await self._run(job, detail.task, folder)
            else:
                job.why = "stopped"
        except OSError as error:
            job.why = "stopped"
            self._give_up(
                NotFound(
                    "the command cannot be started", entity=self._plan.words[0], found=str(error), hint="See --exec"
                )
            )
        except BusError as error:
            job.stop("lost", error.problem.message)
        await self._conclude(job, code, folder)

    async def _run(self, job: Job, row: ask.TaskRow, folder: Path) -> int:
        job.channel = self._plan.channel or row.channel
        stdin = folder / "task.json"
        stdin.write_bytes(msgspec.json.encode(row))
        try:
            job.running.start(stdin, self._environment(job, folder))
            async with anyio.create_task_group() as parts:
                for part in (job.running.listen, job.running.obey):
                    parts.start_soon(part)
                parts.start_soon(self._keep, job)
                parts.start_soon(self._tell, job)
                code = await job.running.ended()
                parts.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await job.running.close()
        return code

    def _environment(self, job: Job, folder: Path) -> dict[str, str]:
        """This process's, and all that `bus` needs in it to write in the task's name."""
        settings, found = self._settings, config.environment()
        found |= {"BUS_AGENT": settings.agent, "BUS_NAMESPACE": settings.namespace, "BUS_HOME": str(settings.home)}
        if settings.url is not None:
            found |= {"BUS_URL": settings.url, "BUS_CREDS": str(settings.creds)}
        found |= {"BUS_TASK": job.claim.task, "BUS_FENCE": job.fence, MARK: str(folder / "result")}
        return found | {"BUS_CHANNEL": job.channel}

    async def _keep(self, job: Job) -> None:
        """Renew the lease in time; stop the command when the claim is lost or nears its cap."""
        while job.why in (None, "stopped"):
            now = anyio.current_time()
            if now >= job.ends_at:
                job.stop("lost", "its lease could not be renewed before it ended")
            elif now >= job.stop_at:
                job.stop("cap")
            try:
                if now >= job.renew_at:
                    reply = await self._until(job.ends_at, ask.Renew(task=job.claim.task, fence=job.fence))
                    if reply is not None:
                        job.renewed(now, reply)
                elif (detail := await self._until(job.ends_at, ask.Show(task=job.claim.task))) is not None:
                    row = detail.task
                    if row.fence != job.claim.fence:
                        job.stop("lost", f"it is {row.state}" + (f", held by {row.owner}" if row.owner else ""))
            except Unavailable:
                pass  # Only the end of the lease makes it lost.
            except BusError as error:
                if error.code != "lease_cap":
                    job.stop("lost", error.problem.found or error.problem.message)
                job.renew_at = job.cap_at
            await anyio.sleep_until(min(now + LOOK_S, max(now + MISS_S, min(job.renew_at, job.stop_at, job.ends_at))))

    async def _tell(self, job: Job) -> None:
        """Put what the command prints into the task's channel, less and less often."""
        pause_s = TELL_FIRST_S
        while True:
            await anyio.sleep(pause_s)
            await self._post(job)
            pause_s = min(2 * pause_s, TELL_LAST_S)

    async def _post(self, job: Job) -> None:
        news = job.running.output.news() if job.channel else ""
        if not news:
            return
        text = f"task {job.claim.task}: {job.claim.title}\n{news}"
        request = channel.Post(channel=job.channel, text=text, fence=job.fence, refs=(job.claim.fence,))
        try:
            await self._until(job.ends_at, request)
        except Refused as error:
            if error.code == "stale_fence":
                job.stop("lost", error.problem.found or "")
            else:
                self._mute(job, error)
        except BusError as error:
            self._mute(job, error)

    def _mute(self, job: Job, error: BusError) -> None:
        """The output cannot be told; the work itself goes on."""
        self._say("silent", task=job.claim.task, channel=job.channel, why=error.problem.message)
        job.channel = ""

    # --- ending ------------------------------------------------------------------------------------------------

    async def _conclude(self, job: Job, code: int | None, folder: Path) -> None:
        """Say what became of the task."""
        task, fence = job.claim.task, job.fence
        if job.why == "lost":
            self._say("lost", task=task, why=job.problem)
            return
        if job.why == "stopped":
            await self._close(job, ask.Release(task=task, reason="the worker was stopped", fence=fence), "released")
            return
        await self._post(job)
        written, output = read_result(folder / "result"), job.running.output.tail()
        if code == 0 and job.why is None:
            refs = written.refs if written is not None else ()
            result = written.result if written is not None else output
            await self._close(job, ask.Complete(task=task, result=result, refs=refs, fence=fence), "done", code)
            return
        assert code is not None
        why = "it was stopped because its claim reached its cap" if job.why == "cap" else ending(code)
        said = written.result if written is not None and written.result else output
        reason = f"{why}\n{said}".strip()[:REASON_CHARS]
        await self._close(job, ask.Fail(task=task, reason=reason, fence=fence), "failed", code)

    async def _close(self, job: Job, request: Request, event: str, code: int | None = None) -> None:
        """Write the end of a claim and say so."""
        task = job.claim.task
        now = anyio.current_time()
        # Who wants to stop does not wait for a bus that is away: a lease ends by itself.
        patience_s = RELEASE_S if event == "released" else max(0.0, job.ends_at - now) + CLOSING_S
        try:
            reply = await self._until(now + patience_s, request)
        except BusError as error:
            self._say("lost", task=task, why=error.problem.found or error.problem.message)
            return
        if reply is None:
            self._say("lost", task=task, why="nobody answered before its lease ended")
            return
        seconds = round(anyio.current_time() - job.began_at, 1)
        more = {"exit": code} if code is not None else {}
        more |= {"retry_at": reply.retry_at} if reply.retry_at is not None else {}
        self._say(event, seq=reply.seq, task=task, state=reply.state, seconds=seconds, **more)

    async def _until(self, deadline: float, request: Request) -> Any:
        """The answer to `request`, or None when there is none by then."""
        with anyio.CancelScope(deadline=deadline):
            return await self._asker.call(request)
        return None

    def _give_up(self, error: BusError) -> None:
        """Take nothing more; what is under way goes on."""
        self.failure = self.failure or error
        self._patience.cancel()

    async def _obey(self) -> None:
        """End as the plan says when a signal comes, and at once when another one comes."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as numbers:
            async for number in numbers:
                again = self.stopped_by is not None
                self.stopped_by = number
                self._say("stopping", signal=signal.Signals(number).name, commands=len(self._jobs))
                self._patience.cancel()
                self._claiming.deadline = anyio.current_time() + CLOSING_S
                if again or self._plan.on_stop == "release":
                    for job in self._jobs:
                        job.stop("stopped")
