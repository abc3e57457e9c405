"""Which vectors are nearest to one: exactly as long as few are to be compared, by a usearch graph when there are many.

Rules:
* A row is one version of a vector, valid from a seq until before another. Rows are never removed: as of an earlier seq
  the answer is the one that was given then.
* Up to EXACT valid rows are all compared. Among more, the graph proposes more and more of the nearest until enough of
  them are valid (usearch has no filter). Whatever proposes, scores are computed here, in 64 bits.
* What is equally near is ordered by age, so an answer depends on nothing but the rows that are valid.
* A graph is a file that can be lost: it is written beside, flushed, and put in place with a checksum of itself and of
  the rows it was made from. What does not fit them is made anew.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from usearch.index import Index as Graph

from bus.files import write_atomic
from projections.columns import Column
from projections.query import Kids, Near, Numbers
from projections.schema import OPEN

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
EXACT = 10_000
FORMAT = 1
GROW = 256
"""Rows that the graph takes at a time."""
SAVE_ROWS, SAVE_REST = 10_000, 1_000
"""The graph is written after so many new rows, and already after so many when no more are waiting: at the next start
each row that is not in the file takes milliseconds."""
MORE, MOST = 4, 256
"""The graph is asked for so many times the wanted number first, and at most."""
LEAST = 40
"""As if so many were wanted at least: what it is asked for is how hard it looks."""
CLOSE = 1e-5
"""Scores of 32 bits that differ by less may be in any order in 64."""
_METRICS = {"cosine": "ip", "dot": "ip", "euclidean": "l2sq"}

logger = structlog.get_logger(__name__)


class _Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a graph's file has to fit."""

    format: int
    rows: int
    of: str
    """Digest of dimension, metric, and of the rows that are in it."""
    sha256: str


class Collected:
    """All versions of the vectors of one collection."""

    def __init__(self, dimension: int, metric: str) -> None:
        self.dimension = dimension
        self.metric = metric
        self.keys: dict[int, str] = {}
        """By kid: the key of the vector, if it has one of its own."""
        self._matrix = Column(np.float32, dimension)
        self._kids, self._begins, self._ends = Column(np.int64), Column(np.int64), Column(np.int64)
        self._open: dict[int, int] = {}
        """By kid: its row that is valid now."""
        self._graph: Graph | None = None
        self._saved = 0

    # --- what is taken in --------------------------------------------------------------------------------------

    def put(self, kid: int, seq: int, numbers: Numbers | None) -> None:
        """A vector has these numbers from event `seq` on, or (None) is not there any more."""
        if (row := self._open.pop(kid, None)) is not None:
            self._ends.set(row, seq)
        if numbers is not None:
            self._open[kid] = self.size
            self._matrix.append(self._placed(numbers))
            for column, value in ((self._kids, kid), (self._begins, seq), (self._ends, OPEN)):
                column.append(value)

    @property
    def size(self) -> int:
        return self._ends.size

    def has(self, kid: int) -> bool:
        """Whether a vector is there now."""
        return kid in self._open

    def row(self, row: int) -> Floats:
        """The numbers of a row, as they are compared."""
        numbers: Floats = self._matrix.values[row]
        return numbers

    def _placed(self, numbers: Numbers) -> NDArray[np.float64]:
        """The numbers as they are compared: for `cosine` of length 1."""
        vector = np.array(numbers, np.float64)
        if self.metric != "cosine":
            return vector
        vector /= np.abs(vector).max()
        placed: NDArray[np.float64] = vector / np.linalg.norm(vector)
        return placed

    # --- what is asked -----------------------------------------------------------------------------------------

    def nearest(self, numbers: Numbers, k: int, seq: int, kids: Kids | None = None) -> tuple[list[Near], int]:
        """The `k` nearest rows valid at `seq`, of these vectors if any are named; and how many there were."""
        valid = (self._begins.values <= seq) & (self._ends.values > seq)
        if kids is not None:
            valid &= np.isin(self._kids.values, np.asarray(kids, np.int64))
        count = int(np.count_nonzero(valid))
        vector = self._placed(numbers)
        rows = self._proposed(vector, k, valid) if count > EXACT else None
        if rows is None:
            rows = self._compared(vector, k, np.flatnonzero(valid))
        return self._scored(vector, rows)[:k], count

    def _proposed(self, vector: NDArray[np.float64], k: int, valid: NDArray[np.bool_]) -> Ints | None:
        """Rows among which the nearest are, as far as the graph knows. None when it knows too little."""
        graph: Any = self._graph
        if graph is None or len(graph) < self.size - EXACT:
            return None
        held = len(graph)
        rest = held + np.flatnonzero(valid[held:])
        wanted, most = MORE * max(k, LEAST), MOST * max(k, LEAST)
        while wanted <= min(most, held):
            graph.expansion_search = wanted
            keys = graph.search(vector.astype(np.float32), wanted).keys.astype(np.int64)
            found = keys[valid[keys]]
            if len(found) >= k:
                # The graph may have taken in, meanwhile, what was still to come when this began.
                return np.unique(np.concatenate((found, rest)))
            wanted *= 4
        return None

    def _compared(self, vector: NDArray[np.float64], k: int, rows: Ints) -> Ints:
        """Of these rows, those that may be among the nearest."""
        if len(rows) <= k:
            return rows
        scores = self._scores(vector.astype(np.float32), self._matrix.values[rows])
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        near: Ints = rows[scores >= last - CLOSE * max(1.0, float(np.abs(scores).max()))]
        return near

    def _scored(self, vector: NDArray[np.float64], rows: Ints) -> list[Near]:
        scores = self._scores(vector, self._matrix.values[rows].astype(np.float64))
        kids, begins = self._kids.values[rows], self._begins.values[rows]
        order = np.lexsort((begins, -scores))
        return [Near(int(kids[i]), int(begins[i]), float(scores[i])) for i in order]

    def _scores(self, vector: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
        """Each row by itself: what stands beside it makes no difference to its score."""
        scores: NDArray[Any]
        if self.metric == "euclidean":
            apart = matrix - vector
            scores = -np.sqrt(np.einsum("ij,ij->i", apart, apart))
        else:
            scores = np.einsum("ij,j->i", matrix, vector)
        return scores

    # --- the graph ---------------------------------------------------------------------------------------------

    def grow(self, path: Path) -> bool:
        """Bring the next rows into the graph, and write it now and then. -> whether there are more. For one thread at a
        time; others may ask meanwhile."""
        if self.size <= EXACT:
            return False
        if self._graph is None:
            self._graph = self._loaded(path)
        graph, size = self._graph, self.size
        done = len(graph)
        upto = min(size, done + GROW)
        if done < upto:
            graph.add(np.arange(done, upto, dtype=np.uint64), self._matrix.values[done:upto], threads=1)
        more = upto < self.size
        if upto >= self._saved + (SAVE_ROWS if more else SAVE_REST):
            self._save(path, upto)
        return more

    def _new(self) -> Graph:
        return Graph(ndim=self.dimension, metric=_METRICS[self.metric], dtype="f16")

    def _loaded(self, path: Path) -> Graph:
        """The graph in the file if it fits, else a new one."""
        try:
            sidecar = msgspec.json.decode(_beside(path).read_bytes(), type=_Sidecar)
            data = path.read_bytes()
        except FileNotFoundError:
            return self._new()
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("a graph of vectors cannot be read; it is made anew", path=str(path), error=str(error))
            return self._new()
        fits = sidecar.format == FORMAT and sidecar.rows <= self.size and sidecar.of == self._digest(sidecar.rows)
        if not fits or sha256(data).hexdigest() != sidecar.sha256:
            why = "the file is damaged" if fits else "it is of other rows"
            logger.warning("a graph of vectors is made anew", path=str(path), error=why)
            return self._new()
        graph = self._new()
        graph.load(data)
        self._saved = sidecar.rows
        return graph

    def _save(self, path: Path, rows: int) -> None:
        assert self._graph is not None
        path.parent.mkdir(mode=0o700, exist_ok=True)
        saved = self._graph.save()
        assert saved is not None
        data = bytes(saved)
        sidecar = _Sidecar(FORMAT, rows, self._digest(rows), sha256(data).hexdigest())
        # Without its sidecar a file is not read, so no moment has a file with that of another.
        _beside(path).unlink(missing_ok=True)
        write_atomic(path, data)
        write_atomic(_beside(path), msgspec.json.encode(sidecar))
        self._saved = rows

    def _digest(self, rows: int) -> str:
        digest = blake2b(f"{self.dimension} {self.metric} ".encode(), digest_size=16)
        for column in (self._kids, self._begins):
            digest.update(column.values[:rows].tobytes())
        return digest.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_suffix(f"{path.suffix}.json")


def file_of(directory: Path, namespace: str, collection: str) -> Path:
    """Where the graph of a collection is kept."""
    name = blake2b(f"{namespace}\0{collection}".encode(), digest_size=12).hexdigest()
    return directory / f"{name}.usearch"
