"""Calls into other people's code: in time, in turn, and not again and again in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from projections.guarded import FAILURES, PAUSE_S, Guarded, Unhelpful


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns

    server_ns = monotonic_ns

    def observe(self, server_ns: int) -> None: ...

    def advance(self, server_ns: int) -> None: ...


def guarded(time: Time, load: Callable[[], Any] = lambda: "loaded") -> Guarded[Any]:
    return Guarded("the embedder", load, time)


async def why(one: Guarded[Any], fn: Callable[[Any], Any] = str, timeout_s: float = 20.0) -> str:
    with pytest.raises(Unhelpful) as caught:
        await one.call(fn, timeout_s)
    return str(caught.value)


def fail(loaded: Any) -> Any:
    raise ValueError("no such token")


async def test_what_is_called_is_loaded_once_and_in_a_thread_of_its_own() -> None:
    loads: list[str] = []

    def load() -> str:
        loads.append(threading.current_thread().name)
        return "model"

    one = guarded(Time(), load)
    assert [await one.call(str.upper, 20) for _ in range(3)] == ["MODEL"] * 3
    assert loads == ["the embedder"]


async def test_what_cannot_be_loaded_is_said_and_tried_again() -> None:
    time, works = Time(), False

    def load() -> str:
        if not works:
            raise ImportError("no module named x")
        return "model"

    one = guarded(time, load)
    assert "no module named x" in await why(one)
    works = True
    assert await one.call(str, 20) == "model"
    assert one.problem is None


async def test_after_some_failures_nobody_asks_for_a_while() -> None:
    time = Time()
    one = guarded(time)
    for _ in range(FAILURES):
        assert "failed: ValueError('no such token')" in await why(one, fail)
    assert "again in 30 s" in await why(one)
    time.now_ns += int(PAUSE_S * 1e9) + 1
    assert await one.call(str, 20) == "loaded"
    assert "failed" in await why(one, fail), "one failure after a success is one failure"
    assert await one.call(str, 20) == "loaded"


async def test_a_call_that_hangs_costs_one_time_out_and_no_more() -> None:
    time, let_go, ended = Time(), threading.Event(), threading.Event()
    one = guarded(time)

    def hang(loaded: Any) -> None:
        let_go.wait()
        ended.set()

    assert await why(one, hang, 1.0) == "the embedder did not answer in time"
    time.now_ns += int(PAUSE_S * 1e9) + 1
    # However long it takes: another call would wait behind it.
    assert "has not answered for" in await why(one)
    assert one.problem == "the embedder did not answer in time"
    let_go.set()
    with anyio.fail_after(20):
        while True:
            try:
                assert await one.call(str, 20) == "loaded"
            except Unhelpful:
                await anyio.lowlevel.checkpoint()
            else:
                break
    assert ended.is_set()
    assert one.problem is None


async def test_who_waits_behind_a_call_that_hangs_tells_the_next() -> None:
    one, let_go, began = guarded(Time()), threading.Event(), threading.Event()

    def hang(loaded: Any) -> None:
        began.set()
        let_go.wait()

    async with anyio.create_task_group() as tasks:

        async def background() -> None:
            await one.call(hang, 60)

        tasks.start_soon(background)
        await anyio.to_thread.run_sync(began.wait)
        assert await why(one, str, 0.02) == "the embedder is busy with something else"
        assert "has not answered for" in await why(one)
        let_go.set()
    assert await one.call(str, 20) == "loaded", "it was slow, and nothing is wrong with it"


async def test_a_question_goes_before_texts() -> None:
    one, let_go, began, order = guarded(Time()), threading.Event(), threading.Event(), list[str]()

    def hold(loaded: Any) -> None:
        began.set()
        let_go.wait()

    async def ask(name: str, urgent: bool) -> None:
        await one.call(lambda loaded: order.append(name), 60, urgent=urgent)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.call, hold, 60)
        await anyio.to_thread.run_sync(began.wait)
        for name, urgent in (("text", False), ("another text", False), ("question", True)):
            tasks.start_soon(ask, name, urgent)
        await anyio.wait_all_tasks_blocked()
        let_go.set()
    assert order == ["question", "text", "another text"]


async def test_what_nobody_waits_for_any_more_is_not_called() -> None:
    one, let_go, began, called = guarded(Time()), threading.Event(), threading.Event(), list[str]()

    def hold(loaded: Any) -> None:
        began.set()
        let_go.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.call, hold, 60)
        await anyio.to_thread.run_sync(began.wait)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await one.call(lambda loaded: called.append("late"), 60)
        let_go.set()
    await one.call(str, 20)
    assert called == []


async def test_whatever_is_raised_the_thread_goes_on() -> None:
    def leave(loaded: Any) -> None:
        raise SystemExit(3)

    one = guarded(Time())
    assert "SystemExit" in await why(one, leave)
    assert await one.call(str, 20) == "loaded"
