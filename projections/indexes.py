"""What is kept in memory beside the tables, derived from them: times, versions, what may stand in inboxes, words,
vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from projections.batch import Batch
from projections.inbox_rows import Inboxes
from projections.lexical_rows import Lexicon
from projections.news import News
from projections.schema import Schema
from projections.slices import Chunks
from projections.succession import Versions
from projections.times import Moments
from projections.vector_rows import Embeddings

if TYPE_CHECKING:
    from projections.dense import Dense

GRAPHS = "vectors"


class Indexes:
    """All indexes of one store. `directory` is where graphs of vectors are kept between runs."""

    def __init__(self, directory: Path, schema: Schema) -> None:
        self.news = News()
        self.moments = Moments()
        self.versions = Versions(schema)
        self.inboxes = Inboxes()
        self.lexicon = Lexicon(self.news)
        self.embeddings = Embeddings(directory / GRAPHS, self.news)
        self.dense: Dense | None = None
        """There is one while an embedder works."""
        self.growing = False
        """Whether there is more to be done without any news."""

    @property
    def _quick(self) -> tuple[Moments, Versions, Inboxes]:
        return self.moments, self.versions, self.inboxes

    @property
    def position(self) -> int:
        """The last event that all of them have taken in."""
        return min(one.position for one in (*self._quick, self.lexicon, self.embeddings))

    def written(self, batch: Batch) -> None:
        """What the rows of a batch say is in the tables."""
        self.news.tell(batch.rows, batch.after, batch.upto)
        for quick in self._quick:
            quick.written(batch)

    def step(self, seq: int, chunks: Chunks) -> None:
        """Take in some more of what the tables contain up to `seq`."""
        # All of it: it is quick beside the words, and whoever looks into an inbox first would have to do it.
        for quick in self._quick:
            while not quick.step(seq, chunks):
                pass
        self.lexicon.step(seq, chunks)
        caught_up = self.embeddings.step(seq, chunks)
        # A graph is grown when all its vectors are here, so that one in a file is found to fit.
        self.growing = caught_up and self.embeddings.grow()
