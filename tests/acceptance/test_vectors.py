"""Vectors through a real bus: written, found, found as of earlier, and found after everything was killed."""

from __future__ import annotations

import random

import anyio
import pytest

from bus.domain import vector
from bus.errors import InvalidRequest, NotFound
from tests.acceptance.support import Rig


def point(chance: random.Random) -> tuple[float, ...]:
    return tuple(chance.uniform(-1, 1) for _ in range(16))


async def test_vectors_are_found_as_of_any_moment_and_after_every_process_was_killed(rig: Rig) -> None:
    chance = random.Random(7)
    asked = vector.Nearest(collection="texts", numbers=point(chance), k=5)
    async with rig.connect() as bus:
        answers: list[vector.Found] = []
        for number in range(60):
            name = f"v{chance.randrange(30)}"
            metadata = {"even": number % 2 == 0}
            await bus.call(vector.Upsert(collection="texts", vector=name, numbers=point(chance), metadata=metadata))
            answers.append(await bus.call(asked))
        await bus.call(vector.Delete(collection="texts", vector=answers[-1].found[0].vector))
        assert answers[-1].found[0] not in (await bus.call(asked)).found
        even = await bus.call(vector.Nearest(collection="texts", numbers=asked.numbers, where={"even": True}))
        assert [row.metadata for row in even.found] == [{"even": True}] * len(even.found)
        assert 0 < even.among < answers[-1].among
        with pytest.raises(InvalidRequest, match="16 numbers, found 2"):
            await bus.call(vector.Upsert(collection="texts", vector="x", numbers=(1.0, 2.0)))
        with pytest.raises(InvalidRequest, match="16 numbers, found 1"):
            await bus.call(vector.Nearest(collection="texts", numbers=(1.0,)))
        with pytest.raises(NotFound, match="collection none"):
            await bus.call(vector.Nearest(collection="none", numbers=(1.0,)))

        for kind in ("daemon", "server", "supervisor"):
            await anyio.to_thread.run_sync(rig.kill, kind)
        for answer in answers[::7]:
            request = vector.Nearest(collection="texts", numbers=asked.numbers, k=5, as_of=answer.seq)
            assert await bus.call(request) == answer
        (row,) = (await bus.call(vector.Collections())).collections
        assert (row.collection, row.dimension, row.metric, row.vectors) == (
            "texts",
            16,
            "cosine",
            answers[-1].among - 1,
        )
