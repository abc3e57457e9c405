"""Questions that agents ask of their past, with what answers them: the histories of some projects as a tenant has them.

    ["h4", "mira", "channel.post", {"channel": "harbor", "text": …}]     label, agent, operation, its fields
    {"ask": "why not …", "gold": ["h4", "h33#Switch to"], "by": …, "as_of": "h40"}

Rules:
* A field "@h4" stands for what h4 made: its memory, or its seq. A gold "h33#Switch to" is the passage of a file that
  contains these words.
* Whoever says something in a channel has joined it.
* Everything was made up for this purpose, and whoever ranks may learn from it. It is never looked into by the product.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bus.domain import channel
from bus.domain.recall import Hit, Recall
from bus.operation import OPERATIONS
from tests.unit.desk import Desk

HERE = Path(__file__).parent
FILES = ("harbor", "lumen", "kestrel", "quill", "house")
ASKER = "wren"
DEEP = 20


class Gold(NamedTuple):
    """What answers a question: an event, and words that its text has to contain."""

    seq: int
    words: str

    def among(self, hits: Iterable[Hit]) -> int | None:
        """At which rank it stands."""
        fitting = (rank for rank, hit in enumerate(hits, 1) if hit.seq == self.seq and self.words in hit.text)
        return next(fitting, None)


class Question(NamedTuple):
    """A question, and everything that answers it, each by itself."""

    text: str
    by: str
    gold: tuple[Gold, ...]
    as_of: int | None


class Score(NamedTuple):
    """How well a question was answered: the share of what answers it among the first ten, and 1 / its first rank."""

    recall: float
    first: float


def lines() -> list[Any]:
    """Every line of every file, the events before all questions."""
    found = [json.loads(line) for name in FILES for line in (HERE / f"{name}.jsonl").read_text().splitlines()]
    return sorted(found, key=lambda line: isinstance(line, dict))


def agents() -> list[str]:
    """Everybody who says something."""
    return sorted({line[1] for line in lines() if isinstance(line, list)})


async def written(one: Desk) -> list[Question]:
    """Make everything happen. -> the questions"""
    replies: dict[str, Any] = {}
    joined = set[tuple[str, str]]()
    questions = list[Question]()
    for line in lines():
        if isinstance(line, list):
            label, agent, name, fields = line
            if name == "channel.post" and (agent, fields["channel"]) not in joined:
                joined.add((agent, fields["channel"]))
                await one.leader.do(agent, channel.Join(channel=fields["channel"]))
            request = msgspec.convert({key: _meant(value, key, replies) for key, value in fields.items()}, _type(name))
            replies[label] = await one.leader.do(agent, request)
        else:
            gold = [one.partition("#") for one in line["gold"]]
            seqs = tuple(Gold(replies[label].seq, words) for label, _, words in gold)
            moment = replies[line["as_of"]].seq if "as_of" in line else None
            questions.append(Question(line["ask"], line.get("by", ASKER), seqs, moment))
    await one.fold()
    return questions


def _type(operation: str) -> Any:
    return OPERATIONS[operation].request


def _meant(value: Any, field: str, replies: dict[str, Any]) -> Any:
    if field in ("memory", "other"):
        return replies[value[1:]].memory
    return replies[value[1:]].seq if field == "message" else value


async def ask(one: Desk, question: Question) -> Sequence[Hit]:
    """What recall gives."""
    answer = await one.see(question.by, Recall(query=question.text, k=DEEP, as_of=question.as_of))
    hits: Sequence[Hit] = answer.hits
    return hits


async def told_all(one: Desk, question: Question, gold: Gold) -> Sequence[Hit]:
    """What is recalled by the very words of what answers a question."""
    data = one.leader.log.records[gold.seq - 1].data.decode()
    words = gold.words or data
    return await ask(one, question._replace(text=words[:4000]))


def score(question: Question, hits: Sequence[Hit]) -> Score:
    ranks = [rank for gold in question.gold if (rank := gold.among(hits)) is not None]
    return Score(sum(rank <= 10 for rank in ranks) / len(question.gold), 1 / min(ranks, default=float("inf")))
