"""Vectors of texts, kept in files between runs: what was embedded once is not embedded again.

    <directory>/<digest of the embedder's id>/000001.vectors, .json        segments, each with its sidecar

Rules:
* A vector is found by the digest of its text, so it does not matter in which order texts come, and it fits whatever
  tables are made anew from the log.
* A segment is written beside, flushed, and put in place with a checksum; the last one is written anew until it is full.
  What is damaged, or of another model, is removed with a warning, and its texts are embedded again.
* Every embedder has a directory of its own. The others' are removed when this one has all that is needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from hashlib import blake2b, sha256
from pathlib import Path

import msgspec
import numpy as np
import structlog

from bus.errors import BusError
from bus.files import write_atomic
from projections.embed import Floats, Loaded

logger = structlog.get_logger(__name__)

FORMAT = 1
SEGMENT = 1_000
"""A segment has at most so many vectors."""
SAVE = 200
"""The last one is written whenever so many have come, so that no more than these are lost."""
DIGEST_BYTES = 16


class _Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a segment holds."""

    format: int
    embedder: str
    probe: list[float]
    """What the embedder makes of a text that is always the same."""
    count: int
    sha256: str


def digest(text: str) -> bytes:
    """By what the vector of a text is found."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=DIGEST_BYTES).digest()


class Kept:
    """The files of one embedder below `directory`."""

    def __init__(self, directory: Path, model: Loaded) -> None:
        name = blake2b(model.id.encode("utf-8", "replace"), digest_size=6).hexdigest()
        self.folder = directory / name
        self._model = model
        self._tail: dict[bytes, Floats] = {}
        self._number = 1
        self._unsaved = 0

    def read(self) -> dict[bytes, Floats]:
        """All vectors that can be used."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known: dict[bytes, Floats] = {}
        for path in sorted(self.folder.glob("*.vectors")):
            if not path.stem.isdecimal():
                continue
            try:
                found = self._read(path)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                logger.warning("vectors of texts are made anew", path=str(path), error=str(error))
                _beside(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                continue
            known |= found
            self._number = int(path.stem) + 1
            self._tail = {}
            if len(found) < SEGMENT:
                self._number, self._tail = int(path.stem), found
        return known

    def _read(self, path: Path) -> dict[bytes, Floats]:
        sidecar = msgspec.json.decode(_beside(path).read_bytes(), type=_Sidecar)
        if sidecar.format != FORMAT or sidecar.embedder != self._model.id or not self._model.is_like(sidecar.probe):
            raise ValueError(f"they are of {sidecar.embedder}, as it was then")
        data = path.read_bytes()
        if sha256(data).hexdigest() != sidecar.sha256:
            raise ValueError("the file is damaged")
        held = sidecar.count * DIGEST_BYTES
        rows = np.frombuffer(data[held:], np.float32).reshape(sidecar.count, self._model.dimension)
        starts = range(0, held, DIGEST_BYTES)
        return {data[start : start + DIGEST_BYTES]: row for start, row in zip(starts, rows, strict=True)}

    def add(self, vectors: Mapping[bytes, Floats]) -> None:
        """Keep these too. They are in a file when so many have come, or after `save`."""
        for name, vector in vectors.items():
            self._tail[name] = vector
            self._unsaved += 1
            if self._unsaved >= SAVE or len(self._tail) >= SEGMENT:
                self.save()

    def save(self) -> None:
        """Write what is not in a file. What cannot be written is written with the next."""
        if not self._unsaved:
            return
        path = self.folder / f"{self._number:06}.vectors"
        data = b"".join(self._tail) + np.array(list(self._tail.values()), np.float32).tobytes()
        probe = self._model.probe.tolist()
        sidecar = _Sidecar(FORMAT, self._model.id, probe, len(self._tail), sha256(data).hexdigest())
        try:
            # Without its sidecar a file is not read, so no moment has a file with that of another.
            _beside(path).unlink(missing_ok=True)
            write_atomic(path, data)
            write_atomic(_beside(path), msgspec.json.encode(sidecar))
        except (OSError, BusError) as error:
            logger.warning("vectors of texts cannot be written", path=str(path), error=str(error))
            return
        self._unsaved = 0
        if len(self._tail) >= SEGMENT:
            self._number, self._tail = self._number + 1, {}

    def drop_others(self) -> None:
        """Remove the files of other embedders."""
        for folder in self.folder.parent.iterdir():
            if folder != self.folder and folder.is_dir():
                logger.info("vectors of another embedder are removed", path=str(folder))
                shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(f"{path.suffix}.json")
