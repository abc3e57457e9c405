"""A summary made of what was said: the sentences that are most like the whole, in their order. No model, no download.

    score(sentence) = cosine(sentence, centroid)      both as vectors of tf * idf over the words of all sentences

Rules:
* The centroid method is that of Radev, Jing, Styś and Tam, "Centroid-based summarization of multiple documents",
  Information Processing & Management 40 (2004), 919-938; words are those of recall (`projections.lexical`).
* A sentence that says mostly what a better one says is left out, after Carbonell and Goldstein, "The use of MMR,
  diversity-based reranking", SIGIR 1998: here by the share of its words that the other has as well.
* The lines of the summary before are sentences like all others, so what mattered may stay for long.
* The same text has the same summary, bit by bit. Everything here is pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bus.domain.tokens import TOKEN_BYTES, tokens
from projections.lexical import words

LONGEST = 400
"""A sentence is shown with so many characters at most: what has more is code, a log or a list."""
ALIKE = 0.7
"""A sentence of whose words another one has such a share says nothing new."""
_END = re.compile(r"(?<=[.!?…])\s+(?=\S)|\n+")


class Said(NamedTuple):
    """Who said what."""

    speaker: str
    text: str


class _Sentence(NamedTuple):
    """A line as it would stand in the summary, and its words."""

    line: str
    words: Mapping[str, int]


def summarise(before: str, said: Sequence[Said], within: int) -> str:
    """A summary of at most `within` tokens of what was said, and of the summary before. It is empty when nothing was
    said."""
    sentences = list(_sentences(before, said))
    scores = _scores(sentences)
    # The best first; of equals the newest, because later turns correct earlier ones.
    order = sorted(range(len(sentences)), key=lambda at: (-scores[at], -at))
    chosen, left = list[int](), within * TOKEN_BYTES
    for at in order:
        if any(_says(sentences[other], sentences[at]) for other in chosen):
            continue
        size = len(sentences[at].line.encode("utf-8", "replace")) + 1
        if size <= left:
            chosen.append(at)
            left -= size
        elif chosen:
            break  # What is shorter and says less is no better for that.
    summary = "\n".join(sentences[at].line for at in sorted(chosen))
    assert tokens(summary) <= within
    return summary


def _sentences(before: str, said: Sequence[Said]) -> Iterator[_Sentence]:
    for line in before.split("\n"):
        if line.strip():
            yield _Sentence(line, Counter(words(line.partition(": ")[2] or line)))
    for speaker, text in said:
        for part in _END.split(text):
            sentence = " ".join(part.split())
            if sentence:
                short = sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST - 1]}…"
                yield _Sentence(f"{speaker}: {short}", Counter(words(short)))


def _scores(sentences: Sequence[_Sentence]) -> list[float]:
    """How like the whole each sentence is."""
    having = Counter[str]()
    for sentence in sentences:
        having.update(sentence.words.keys())
    rarity = {word: math.log(1 + len(sentences) / count) for word, count in having.items()}
    centroid = Counter[str]()
    for sentence in sentences:
        for word, count in sentence.words.items():
            centroid[word] += count
    whole = {word: count * rarity[word] for word, count in centroid.items()}
    long = math.sqrt(math.fsum(weight * weight for weight in whole.values())) or 1.0
    scores = []
    for sentence in sentences:
        own = {word: count * rarity[word] for word, count in sentence.words.items()}
        length = math.sqrt(math.fsum(weight * weight for weight in own.values())) or 1.0
        shared = math.fsum(weight * whole[word] for word, weight in own.items())
        scores.append(shared / (length * long))
    return scores


def _says(one: _Sentence, other: _Sentence) -> bool:
    """Whether `one` says most of what `other` says."""
    if not other.words:
        return one.line == other.line
    return sum(word in one.words for word in other.words) >= ALIKE * len(other.words)
