"""The dense index: a vector for every wording that can be recalled, made by an embedder in the background.

    tables -> wordings of a slice -> [texts that have no vector yet -> the embedder] -> files -> vectors in memory

Rules:
* It follows the words: the same slots, the same wordings, each valid from its event until before the next. Nothing is
  removed, so as of an earlier event the answer is the one that was given then.
* A slice of the log is taken in when all its texts have vectors, and `position` says how far that is: as of an event
  that is not in yet it answers nothing at all, because half an answer could not be given again.
* What is embedded is `<author> said, "<text>"`: who speaks is half of what is meant.
* What may only be processed on this device is never given to an embedder elsewhere. It has no vector, and neither has a
  text that means nothing to the embedder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from projections.dense_files import Kept, digest
from projections.embed import Floats, Loaded
from projections.lexical_index import Wording
from projections.lexical_rows import Lexicon, bounded, wordings
from projections.query import Kids, Near, Numbers
from projections.slices import Chunks
from projections.vectors import Collected

DEVICE_ONLY = "device_only"
GRAPH = "graph.usearch"


class _Step(NamedTuple):
    """From event `seq` on, a slot says what has this digest, or (None) nothing."""

    slot: int
    seq: int
    digest: bytes | None


class Slice(NamedTuple):
    """What the events up to `upto` change, and the texts that have to be embedded for it, by digest."""

    upto: int
    steps: Sequence[_Step]
    texts: Mapping[bytes, str]


class Dense:
    """All vectors that one embedder made. Files are kept below `directory`. One thread at a time fills it; others may
    ask meanwhile."""

    def __init__(self, directory: Path, model: Loaded) -> None:
        self.position = 0
        """Everything that was said up to this event has its vector."""
        self.embedder = model.id
        self._model = model
        self._kept = Kept(directory, model)
        self._vectors: dict[bytes, Floats | int] = dict(self._kept.read())
        """By digest of the text: a vector, or the row that it has in memory."""
        self._held = Collected(model.dimension, "dot")  # Of length 1: the same as the cosine.
        self._saying: dict[int, bytes] = {}
        self._lock = Lock()

    @property
    def size(self) -> int:
        """How many texts have a vector."""
        return len(self._vectors)

    def read(self, seq: int, lexicon: Lexicon, chunks: Chunks) -> Slice:
        """The next slice of what the tables contain up to `seq`."""
        after, news = self.position, lexicon.news
        upto = bounded(chunks, after, min(seq, after + lexicon.slice), news)
        said = sorted(wordings(chunks, after, upto, news), key=lambda one: one.seq) if upto > after else []
        steps, texts = [], {}
        with lexicon.upto(upto, chunks) as index:
            placed = [(index.slots_of(one.kind, one.ident), one) for one in said]
        for slots, one in placed:
            text = self._embedded(one)
            name = digest(text) if text is not None else None
            saying = slots if one.text is None else slots[one.part : one.part + 1]
            steps += [_Step(slot, one.seq, name) for slot in saying]
            if name is not None and text is not None and name not in self._vectors:
                texts[name] = text
        return Slice(upto, steps, texts)

    def _embedded(self, wording: Wording) -> str | None:
        if wording.text is None or (self._model.remote and wording.tier == DEVICE_ONLY):
            return None
        # What a thing is found by begins with the name of whoever said it.
        return f'{wording.author} said, "{wording.text[len(wording.author) :].strip()}"'

    def keep(self, vectors: Mapping[bytes, Floats]) -> None:
        """These texts have been embedded."""
        self._kept.add(vectors)
        self._vectors.update(vectors)

    def take(self, part: Slice) -> None:
        """Take in a slice; all its texts were embedded, or nothing could be made of them."""
        with self._lock:
            for slot, seq, name in part.steps:
                if name is None or self._saying.get(slot) != name:
                    self._put(slot, seq, name)
            self.position = part.upto

    def _put(self, slot: int, seq: int, name: bytes | None) -> None:
        known = self._vectors.get(name) if name is not None else None
        if name is None:
            self._saying.pop(slot, None)
        else:
            self._saying[slot] = name
        vector = self._held.row(known) if isinstance(known, int) else known
        if name is None or vector is None or not vector.any():
            self._held.put(slot, seq, None)
            return
        if not isinstance(known, int):
            self._vectors[name] = self._held.size
        self._held.put(slot, seq, vector)

    def finish(self) -> None:
        """All there is has been taken in: files that are not needed any more may go."""
        self._kept.save()
        self._kept.drop_others()

    def save(self) -> None:
        self._kept.save()

    def grow(self) -> bool:
        """Bring some more rows into the graph. -> whether there are more."""
        return self._held.grow(self._kept.folder / GRAPH)

    def nearest(self, numbers: Numbers, k: int, seq: int, kids: Kids | None = None) -> tuple[list[Near], int]:
        """The slots among `kids` whose wording as of `seq` is nearest; and how many there were."""
        with self._lock:
            return self._held.nearest(numbers, k, seq, kids)
