"""Embedders: what makes a vector of a text, so that texts that mean the same lie near one another.

    [recall] embedder = "model2vec:<path or name>"       pip install 'synbus[semantic]'
                        "fastembed:<name>"               pip install fastembed
                        "sentence-transformers:<name>"   pip install sentence-transformers
                        "openai:<model>"                 an endpoint over HTTP, see [openai]
                        "<plug-in>" or "<plug-in>:<…>"   an entry point of the group synbus.embedders

Rules:
* A plug-in's entry point is called with what stands behind the colon and gives an Embedder.
* What an embedder gives is looked at before it is used: as many vectors as texts, of one dimension, finite. A vector of
  noughts is one of a text that means nothing to it, and is nobody's neighbour.
* It is loaded by embedding PROBE. What comes of that, with the name, is by what its vectors are known again: a model
  that was exchanged under the same name is another one.
* Packages are imported when they are used. Everything here waits, in a thread that `projections.guarded` keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from bus.domain.vector import DIMENSION
from bus.errors import InvalidRequest
from bus.tunables import Endpoint
from projections import openai
from projections.plugins import plugin

Floats = NDArray[np.float32]
GROUP = "synbus.embedders"
PROBE = 'atlas said, "the deployment of the parser failed because a token had expired"'
SAME = 0.999
"""Two vectors of PROBE with at least this cosine are of the same model: other processors round otherwise."""
TEXT = 4_000
"""Of a text, so many characters are embedded: models read no more, and some refuse more."""
NEARBY = ("localhost", "127.0.0.1", "::1")


class Embedder(Protocol):
    """What a plug-in gives. `remote` (False if it is not there) says that texts leave this machine."""

    @property
    def id(self) -> str:
        """Another one if the vectors would be others."""
        ...

    def embed(self, texts: Sequence[str], *, is_query: bool) -> Any:
        """A matrix with a row for each text. Questions and texts may be embedded differently."""
        ...


class Loaded(NamedTuple):
    """An embedder that works."""

    embedder: Embedder
    id: str
    probe: Floats
    """What it makes of PROBE."""
    remote: bool

    @property
    def dimension(self) -> int:
        return len(self.probe)

    def embed(self, texts: Sequence[str], *, is_query: bool = False) -> Floats:
        """A row of length 1, or of noughts, for each text. Raises InvalidRequest for what no embedder should give."""
        # Half a pair of code units is no text to most of them.
        cut = [text[:TEXT].encode("utf-8", "replace").decode() for text in texts]
        return checked(self.embedder.embed(cut, is_query=is_query), len(cut), self.dimension, self.id)

    def is_like(self, probe: Sequence[float]) -> bool:
        """Whether vectors of an embedder that made this of PROBE may stand beside those of this one."""
        return len(probe) == self.dimension and float(np.dot(self.probe, np.array(probe, np.float32))) >= SAME


def load(setting: str, endpoint: Endpoint) -> Loaded:
    """The embedder that a setting names. Raises InvalidRequest, or whatever it raises itself."""
    kind, _, argument = setting.partition(":")
    if kind in _BUILT_IN and not argument:
        raise InvalidRequest(
            "the setting names no model",
            code="no_model",
            entity=f"recall.embedder {setting!r}",
            expected=f"{kind}:<model>",
            found=repr(setting),
            hint="Name one in config.toml, then `bus down`",
        )
    make = _BUILT_IN.get(kind)
    embedder = make(argument, endpoint) if make is not None else plugin(GROUP, kind)(argument)
    name = str(embedder.id)
    probe = checked(embedder.embed([PROBE], is_query=False), 1, None, name)[0]
    if not probe.any():
        raise _garbage(name, "a vector that is not all noughts", "only noughts")
    return Loaded(embedder, name, probe, bool(getattr(embedder, "remote", False)))


def checked(given: Any, texts: int, dimension: int | None, name: str) -> Floats:
    """What an embedder gave, as rows of length 1 or of noughts. Raises InvalidRequest if it makes no sense."""
    try:
        rows = np.array(given, np.float64)
    except (TypeError, ValueError) as error:
        raise _garbage(name, "a matrix of numbers", str(error)) from None
    if rows.ndim != 2 or len(rows) != texts or not 1 <= rows.shape[1] <= DIMENSION:
        raise _garbage(name, f"{texts} vectors of at most {DIMENSION} numbers", f"an array of shape {rows.shape}")
    if dimension is not None and rows.shape[1] != dimension:
        raise _garbage(name, f"vectors of {dimension} numbers", f"{rows.shape[1]} numbers")
    if not np.isfinite(rows).all():
        raise _garbage(name, "finite numbers", "nan or infinity")
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    placed: Floats = (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return placed


def _garbage(name: str, expected: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        "the embedder gave no vectors that can be used",
        code="bad_vectors",
        entity=f"embedder {name}",
        expected=expected,
        found=found,
        hint="Look at the model that recall.embedder names",
    )


# --- adapters -----------------------------------------------------------------------------------------------------


class Model2Vec:
    """Static vectors of words: a few megabytes, no network, thousands of texts a second."""

    def __init__(self, model: str) -> None:
        static = _imported("model2vec", "synbus[semantic]").StaticModel
        self.id = f"model2vec:{model}"
        self._model = static.from_pretrained(model)

    def embed(self, texts: Sequence[str], *, is_query: bool) -> Any:
        return self._model.encode(list(texts), show_progress_bar=False, use_multiprocessing=False)


class FastEmbed:
    """Models that run in the ONNX runtime."""

    def __init__(self, model: str) -> None:
        text = _imported("fastembed", "fastembed").TextEmbedding
        self.id = f"fastembed:{model}"
        self._model = text(model_name=model)

    def embed(self, texts: Sequence[str], *, is_query: bool) -> Any:
        embed = self._model.query_embed if is_query else self._model.passage_embed
        return list(embed(list(texts)))


class SentenceTransformers:
    """Models that run in PyTorch."""

    def __init__(self, model: str) -> None:
        transformer = _imported("sentence_transformers", "sentence-transformers").SentenceTransformer
        self.id = f"sentence-transformers:{model}"
        self._model = transformer(model)

    def embed(self, texts: Sequence[str], *, is_query: bool) -> Any:
        encode = self._model.encode_query if is_query else self._model.encode_document
        return encode(list(texts), show_progress_bar=False)


class _Embedding(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Embeddings(msgspec.Struct, frozen=True):
    data: list[_Embedding]


class OpenAI:
    """A model behind an endpoint that speaks OpenAI's protocol."""

    def __init__(self, model: str, endpoint: Endpoint) -> None:
        self.id = f"openai:{model} at {endpoint.base_url}"
        self.remote = urlsplit(endpoint.base_url).hostname not in NEARBY
        self._model, self._endpoint = model, endpoint

    def embed(self, texts: Sequence[str], *, is_query: bool) -> Any:
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        answer = openai.ask(self._endpoint, "embeddings", body, _Embeddings)
        return [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]


_BUILT_IN: Mapping[str, Callable[[str, Endpoint], Embedder]] = {
    "model2vec": lambda model, _: Model2Vec(model),
    "fastembed": lambda model, _: FastEmbed(model),
    "sentence-transformers": lambda model, _: SentenceTransformers(model),
    "openai": OpenAI,
}


def _imported(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidRequest(
            "the embedder needs a package that is not installed",
            code="no_package",
            entity=f"recall.embedder, {module}",
            expected=f"the package {module}",
            found=str(error),
            hint=f"pip install '{package}', then `bus down`",
        ) from None
