"""Packages that a test installs for itself: plug-ins, and look-alikes of packages that are too large to install."""

from __future__ import annotations

from pathlib import Path

EMBEDDER = '''
"""An embedder for tests: what has words in common lies near. `argument` says how it is to misbehave."""
import hashlib
import os
import time
import numpy as np

ASKED = []

def hang():
    while not os.path.exists(os.path.join(os.environ["SYNBUS_TEST_FOLDER"], "let-go")):
        time.sleep(0.01)

def late(argument):
    if not os.path.exists(os.path.join(os.environ["SYNBUS_TEST_FOLDER"], "late")):
        raise RuntimeError("not yet")
    embedder = Embedder(argument)
    embedder.id = "late"
    return embedder

class Embedder:
    def __init__(self, argument):
        self.argument = argument
        self.id = f"hashed:{argument}"
        self.remote = argument == "remote"

    def embed(self, texts, *, is_query):
        if not is_query:
            ASKED.extend(texts)
        return [self.vector(text, is_query) for text in texts]

    def vector(self, text, is_query):
        row = np.zeros(16)
        for word in text.casefold().replace('"', " ").replace(",", " ").split():
            row[hashlib.blake2b(word.encode(), digest_size=1).digest()[0] % 16] += 1
        way = text.partition("embedder: ")[2]
        if way.startswith("hang"):
            hang()
        if way.startswith("raise"):
            raise ValueError("this text cannot be embedded")
        if way.startswith("nan"):
            row[0] = float("nan")
        if way.startswith("short"):
            row = row[:3]
        if way.startswith("nothing"):
            row[:] = 0
        return row

class Reranker:
    def __init__(self, argument):
        self.argument = argument
        self.remote = argument == "remote"

    def score(self, question, texts):
        if "reranker: raise" in question:
            raise ValueError("no")
        if "reranker: short" in question:
            return [1.0]
        if "reranker: nan" in question:
            return [float("nan") for text in texts]
        if "reranker: hang" in question:
            hang()
        return [-len(text) for text in texts]
'''
POINTS = """[synbus.embedders]
hashed = hashed_embedder:Embedder
late = hashed_embedder:late

[synbus.rerankers]
shortest = hashed_embedder:Reranker
"""


def install(folder: Path) -> None:
    """A package with an embedder and a reranker, for whoever has `folder` on its path."""
    info = folder / "hashed_embedder-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "hashed_embedder.py").write_text(EMBEDDER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hashed-embedder\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
