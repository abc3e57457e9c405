"""Many declare the same intents and reserve the same paths at once: one gets each, the others are told who did,
whatever is killed meanwhile. The judge is `tests.acceptance.holding`.

SYNBUS_RACE_GLOBS=500 and SYNBUS_RACE_KEYS=500 race for more than the default few while things are killed.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest

from tests.acceptance.checker import Diaries, Event, History, Log
from tests.acceptance.holding import Holdings, check_told, covers
from tests.acceptance.leaders import Leaders, again_and_again, follow
from tests.acceptance.rivals import globs, tree
from tests.acceptance.support import Child, Record, Rig, until
from tests.acceptance.test_race import CLIENTS, counted

KEYS = int(os.environ.get("SYNBUS_RACE_KEYS", "120"))
GLOBS = int(os.environ.get("SYNBUS_RACE_GLOBS", "120"))
UNDISTURBED = 500
KILLS = ("daemon", "server", "supervisor")


def start(rig: Rig, mode: str, **options: object) -> list[Child]:
    """All clients, connected and let go at once."""
    clients = [rig.client(mode, agent, "rivals", seed=seed, **options) for seed, agent in enumerate(CLIENTS)]
    for client in clients:
        assert client.line() == "ready"
    for client in clients:
        client.begin()
    return clients


@asynccontextmanager
async def disturbed(rig: Rig, how: str, seed: int) -> AsyncIterator[Counter[str]]:
    """While the block runs: the leader changes, or the processes of the bus are killed in turn. -> what was done"""
    done: Counter[str] = Counter()
    leaders, victims = Leaders(rig), itertools.cycle(KILLS)
    if how == "leaders change":
        leaders.start_second()
        await follow(rig, 2)

    async def kill() -> None:
        victim = "leader" if how == "leaders change" else next(victims)
        await (leaders.kill() if victim == "leader" else anyio.to_thread.run_sync(rig.kill, victim))
        done[victim] += 1

    async with again_and_again(rig, random.Random(seed), (40, 100), kill):
        yield done


def judged(records: Sequence[Record], history: History, paths: Sequence[str] = ()) -> tuple[list[str], Holdings]:
    """-> (everything that can be said against this log and these histories, who held what and when)"""
    log = Log(records)
    holdings = Holdings(paths).take_all(list(log.events.values()))
    return [*log.wrong, *log.effects(), *holdings.wrong, *check_told(log.events, holdings, history)], holdings


def every_key_has_one_winner(records: Sequence[Record], history: History, keys: int) -> None:
    wrong, holdings = judged(records, history)
    assert wrong == []
    winners = {holding.entity: holding for holding in holdings.all.values()}
    assert sorted(winners) == sorted(f"fix-part-{number}" for number in range(keys))
    assert len(holdings.all) == keys
    lost = [line for line in history if "error" in line]
    assert len(lost) == 7 * keys
    for line in lost:
        told, winner = line["error"]["details"], holdings.all[line["error"]["details"]["declared"]]
        assert (told["agent"], told["text"]) == (winner.owner, winner.owner)


async def test_of_eight_processes_exactly_one_gets_each_of_five_hundred_keys(rig: Rig) -> None:
    counts = counted(start(rig, "declare", tasks=UNDISTURBED))
    assert counts == {"intent.declare": UNDISTURBED, "declared": 7 * UNDISTURBED}
    every_key_has_one_winner(await rig.log(), Diaries(rig.folder).read(), UNDISTURBED)


@pytest.mark.parametrize("how", ["leaders change", "processes are killed"])
async def test_each_key_has_one_winner_whatever_happens(rig: Rig, how: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    async with disturbed(rig, how, seed) as done:
        counts = await anyio.to_thread.run_sync(counted, start(rig, "declare", tasks=KEYS, flying=2))
    print(dict(done))
    assert done.total() > 0
    assert counts == {"intent.declare": KEYS, "declared": 7 * KEYS}
    every_key_has_one_winner(await rig.log(), Diaries(rig.folder).read(), KEYS)


@pytest.mark.parametrize("how", ["leaders change", "processes are killed"])
async def test_intents_end_and_are_taken_over_whatever_happens(rig: Rig, how: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    diaries = Diaries(rig.folder)
    async with disturbed(rig, how, seed) as done:
        clients = start(rig, "insist", tasks=12, flying=2, pause_s=0.02)
        await until(lambda: done.total() >= 3, 60, "three kills")
        target = diaries.acknowledged + 200
        await until(lambda: diaries.acknowledged >= target, 60, "200 more answers")
        for client in clients:
            await anyio.to_thread.run_sync(client.end)
    records = await rig.log_when(lambda records: not judged(records, [])[1].held)
    wrong, holdings = judged(records, diaries.read())
    assert wrong == []
    ends = Counter(holding.ended_by for holding in holdings.all.values())
    print(dict(done), dict(ends))
    assert done.total() > 0
    assert ends["intent.expired"] > 0
    assert ends["intent.withdrawn"] > 0
    assert len({holding.owner for holding in holdings.all.values() if holding.entity == "fix-part-0"}) > 1


async def no_path_had_two(rig: Rig, counts: Counter[str], number: int) -> None:
    """Judge a race for so many globs, and see that it was one."""
    records = await rig.log_when(lambda records: not judged(records, [])[1].held)
    wrong, holdings = judged(records, Diaries(rig.folder).read(), tree())
    assert wrong == []
    ends = Counter(holding.ended_by for holding in holdings.all.values())
    print(f"{len(holdings.all)} reservations of {number} globs, {dict(counts)}, {dict(ends)}, most {holdings.most}")
    # Whoever reserves what it holds already (the rest of what it gave back in part, say) is told of that one again.
    assert counts["reservation.reserve"] >= len(holdings.all)
    assert counts["reserved"] > len(holdings.all) / 2
    assert ends["reservation.expired"] > 0
    assert ends["reservation.released"] > 0
    assert holdings.most > 1, "nothing was shared: the test has tried nothing"


async def test_no_path_has_two_exclusive_holders(rig: Rig) -> None:
    counts = counted(start(rig, "reserve", tasks=UNDISTURBED, flying=4))
    await no_path_had_two(rig, counts, UNDISTURBED)


@pytest.mark.parametrize("how", ["leaders change", "processes are killed"])
async def test_no_path_has_two_exclusive_holders_whatever_happens(rig: Rig, how: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    async with disturbed(rig, how, seed) as done:
        counts = await anyio.to_thread.run_sync(counted, start(rig, "reserve", tasks=GLOBS, flying=2))
    print(dict(done))
    assert done.total() > 0
    await no_path_had_two(rig, counts, GLOBS)


# --- the judge ------------------------------------------------------------------------------------------------------

LATE = "2030-01-01T13:00:00Z"


def event(seq: int, kind: str, author: str, entity: str = "r:1", **data: Any) -> Event:
    noon_ns = 1_893_499_200_000_000_000
    return Event(seq, noon_ns, f"log.test.{kind.partition('.')[0]}", kind, entity, author, f"q{seq}", f"e{seq}", data)


def reserved(seq: int, agent: str, *paths: str, mode: str = "exclusive", expires: str = LATE) -> Event:
    data = {"paths": list(paths), "mode": mode, "expires": expires}
    return event(seq, "reservation.reserved", agent, f"r:{seq}", **data)


def wrongs(*events: Event) -> list[str]:
    return Holdings(["src/a.py", "src/b.py", "docs/deep/er/c.md"]).take_all(events).wrong


def test_the_judge_sees_two_holders() -> None:
    ours = reserved(1, "a", "src/a.py")
    for pattern in ("src/a.py", "SRC/A.py", "src/**", "**/a.py", "s?c/[!b].py", "*/*.py", "**"):
        assert len(wrongs(ours, reserved(2, "b", pattern))) == 1, pattern
        assert len(wrongs(ours, reserved(2, "b", pattern, mode="shared"))) == 1, pattern
        assert wrongs(ours, reserved(2, "a", pattern)) == []
        assert wrongs(reserved(1, "a", "src/a.py", mode="shared"), reserved(2, "b", pattern, mode="shared")) == []
    for pattern in ("src/b.py", "docs/**", "*/a", "src/[!a].py", "*.py", "**/er/*", "src"):
        assert wrongs(ours, reserved(2, "b", pattern)) == [], pattern
    freed = event(2, "reservation.released", "a", "r:1", paths=["src/a.py"])
    assert wrongs(ours, freed, reserved(3, "b", "src/a.py")) == []
    both = reserved(1, "a", "src/a.py", "src/*.py")
    assert len(wrongs(both, freed, reserved(3, "b", "src/a.py"))) == 1
    assert covers("docs/**", "docs/deep/er/c.md")
    assert not covers("docs/*", "docs/deep/er/c.md")


def test_the_judge_sees_what_ends_wrongly() -> None:
    ours = reserved(1, "a", "src/a.py")
    expired = {"agent": "a", "paths": ["src/a.py"]}
    assert wrongs(ours, event(2, "reservation.expired", "system", "r:1", **expired)), "too early"
    short = reserved(1, "a", "src/a.py", expires="2030-01-01T11:00:00Z")
    assert wrongs(short, event(2, "reservation.expired", "system", "r:1", **expired)) == []
    assert wrongs(short, event(2, "reservation.expired", "b", "r:1", **expired))
    assert wrongs(ours, event(2, "reservation.released", "b", "r:1", paths=["src/a.py"]))
    assert wrongs(ours, event(2, "reservation.released", "a", "r:1", paths=["src/b.py"]))
    assert wrongs(event(1, "reservation.renewed", "a", "r:1", expires=LATE))


def test_the_judge_sees_two_winners_and_false_answers() -> None:
    first = event(1, "intent.declared", "a", "fix-1", expires=LATE)
    assert wrongs(first, event(2, "intent.declared", "b", "fix-1", expires=LATE))
    gone = event(2, "intent.withdrawn", "a", "fix-1", declared=1)
    assert wrongs(first, gone, event(3, "intent.declared", "b", "fix-1", expires=LATE)) == []
    assert wrongs(first, event(2, "intent.withdrawn", "b", "fix-1", declared=1))

    def told(**answer: Any) -> list[str]:
        asked = {"client": "b", "request": "q1", "op": "intent.declare", "body": {"key": "Fix 1"}, "knew": 0}
        events = {1: first, 2: gone}
        return check_told(events, Holdings().take_all(list(events.values())), [asked | answer])

    truth = {"kind": "Refused", "code": "declared", "details": {"agent": "a", "declared": 1}}
    assert told(error=truth) == []
    assert told(error=truth, knew=2), "it had ended by then"
    assert told(error=truth | {"details": {"agent": "c", "declared": 1}})
    assert told(error=truth | {"details": {"agent": "a", "declared": 2}})
    assert told(error=truth | {"code": "no_such_thing"})
    assert told(reply={"seq": 9, "expires": LATE}), "lost"
    assert told(reply={"seq": 1, "expires": LATE}), "somebody else's"


def test_the_globs_overlap_and_the_tree_is_large() -> None:
    paths, wanted = tree(), globs(UNDISTURBED)
    assert (len(paths), len(set(paths)), len(set(wanted))) == (5000, 5000, UNDISTURBED)
    stored = [glob.removeprefix("./").replace("//", "/") for glob in wanted]
    covered = Counter(path for glob in stored for path in paths if covers(glob, path))
    assert covered.most_common(1)[0][1] > 5
