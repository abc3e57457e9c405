"""Embedders: how each is loaded, and that nothing is believed of what they give."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bus.errors import InvalidRequest
from bus.tunables import Endpoint
from projections import embed
from projections.embed import PROBE, checked, load
from tests.unit import endpoint as servers
from tests.unit.installed import install

NAMES = ("red", "green", "blue", "the", "sky")


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in of the tests, installed."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def refused(act: Callable[[], Any], code: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        act()
    assert caught.value.code == code
    problem = caught.value.problem
    for part in (problem.message, problem.entity, problem.expected, problem.found, problem.hint):
        assert part, f"{problem} leaves something out"
    return caught.value


# --- what comes of them -------------------------------------------------------------------------------------------


def test_rows_are_of_length_one_or_of_noughts() -> None:
    rows = checked([[3.0, 4.0], [0.0, 0.0], [1e300, 0.0]], 3, 2, "x")
    assert rows.tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("given", "dimension"),
    [
        ([[1.0, float("nan")]], 2),
        ([[1.0, float("inf")]], 2),
        ([[1.0, 2.0], [1.0, 2.0]], 2),
        ([[1.0, 2.0]], 3),
        ([1.0, 2.0], 2),
        ([[]], None),
        ([[1.0], [1.0, 2.0]], 2),
        ([["a", "b"]], 2),
        (None, 2),
        ("garbage", None),
        ([[[1.0]]], None),
        (np.zeros((1, 9000)), None),
    ],
)
def test_what_is_no_vector_is_refused(given: Any, dimension: int | None) -> None:
    refused(lambda: checked(given, 1, dimension, "x"), "bad_vectors")


# --- plug-ins -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hashed")
def test_a_plug_in_is_found_by_its_entry_point() -> None:
    loaded = load("hashed:quick", Endpoint())
    assert (loaded.id, loaded.dimension, loaded.remote) == ("hashed:quick", 16, False)
    assert load("hashed:remote", Endpoint()).remote
    one, other = loaded.embed(["the blue sky", "sky the blue"])
    assert float(one @ other) == pytest.approx(1)
    assert loaded.is_like(load("hashed:other", Endpoint()).probe.tolist()), "the same vectors under another name"
    assert not loaded.is_like([1.0] * 15)
    assert not loaded.is_like([1.0, *[0.0] * 15])


@pytest.mark.usefixtures("hashed")
def test_texts_are_cut_and_made_texts() -> None:
    loaded = load("hashed", Endpoint())
    assert (loaded.embed(["a\ud800b " + "x" * 10_000]) == loaded.embed(["a?b " + "x" * (embed.TEXT - 4)])).all()


@pytest.mark.usefixtures("hashed")
def test_a_name_that_nobody_installed_is_refused_with_those_there_are() -> None:
    assert "hashed" in str(refused(lambda: load("nobody:x", Endpoint()), "no_plugin"))


def test_a_setting_without_a_model_is_refused() -> None:
    for setting in ("model2vec", "model2vec:", "openai", "fastembed", "sentence-transformers"):
        refused(lambda setting=setting: load(setting, Endpoint()), "no_model")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "module", "package"),
    [
        ("model2vec:x", "model2vec", "synbus[semantic]"),
        ("fastembed:x", "fastembed", "fastembed"),
        ("sentence-transformers:x", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_package_that_is_missing_is_named(
    setting: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install '{package}'" in str(refused(lambda: load(setting, Endpoint()), "no_package"))


# --- adapters -----------------------------------------------------------------------------------------------------


def tiny(folder: Path) -> None:
    """A static model of a few words, made here."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(("[UNK]", *NAMES))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = np.eye(len(NAMES) + 1, 8, dtype=np.float32)
    words[1 + NAMES.index("sky")] = words[1 + NAMES.index("blue")]
    StaticModel(words, tokenizer).save_pretrained(str(folder))


def test_model2vec_with_a_model_made_on_the_spot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path / "model")
    monkeypatch.setattr(embed, "PROBE", "the red sky")
    loaded = load(f"model2vec:{tmp_path / 'model'}", Endpoint())
    assert (loaded.dimension, loaded.remote) == (8, False)
    blue, sky, red = loaded.embed(["blue blue", "sky", "red"])
    assert float(blue @ sky) == pytest.approx(1)
    assert abs(float(blue @ red)) < 0.01
    assert (loaded.embed(["sky"], is_query=True)[0] == sky).all()


def test_fastembed_is_asked_for_questions_and_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fastembed")

    class TextEmbedding:
        def __init__(self, model_name: str) -> None:
            self.name = model_name

        def query_embed(self, query: list[str]) -> Any:
            yield from (np.array([0.0, 1.0]) for _ in query)

        def passage_embed(self, texts: list[str]) -> Any:
            yield from (np.array([1.0, 0.0]) for _ in texts)

    module.TextEmbedding = TextEmbedding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastembed", module)
    loaded = load("fastembed:small", Endpoint())
    assert loaded.id == "fastembed:small"
    assert loaded.embed(["a", "b"]).tolist() == [[1, 0], [1, 0]]
    assert loaded.embed(["a"], is_query=True).tolist() == [[0, 1]]


def test_sentence_transformers_are_asked_for_questions_and_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")

    class SentenceTransformer:
        def __init__(self, name: str) -> None:
            self.name = name

        def encode_query(self, texts: list[str], show_progress_bar: bool) -> Any:
            return np.array([[0.0, 1.0]] * len(texts))

        def encode_document(self, texts: list[str], show_progress_bar: bool) -> Any:
            return np.array([[1.0, 0.0]] * len(texts))

    module.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    loaded = load("sentence-transformers:small", Endpoint())
    assert loaded.embed(["a"]).tolist() == [[1, 0]]
    assert loaded.embed(["a"], is_query=True).tolist() == [[0, 1]]


def test_an_endpoint_is_asked_and_its_order_restored() -> None:
    with servers.model() as model:
        model.answer = lambda asked: {
            "data": [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in enumerate(asked.body["input"])][
                ::-1
            ]
        }
        loaded = load("openai:small", model.endpoint())
        assert not loaded.remote, "it is on this machine"
        rows = loaded.embed(["a", "bbb"])
        assert rows[1][0] > rows[0][0]
        assert model.asked[-1].path == "/v1/embeddings"
        assert model.asked[-1].body == {"model": "small", "input": ["a", "bbb"], "encoding_format": "float"}
        assert model.asked[0].body["input"] == [PROBE]
        model.answer = lambda asked: {"data": []}
        refused(lambda: loaded.embed(["a"]), "bad_vectors")
    assert embed.OpenAI("small", Endpoint()).remote
