"""Of what random commands and questions are made: names, words, numbers, places and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from bus.domain import session
from tests.property.kept import COVERED, KEYS

AGENTS, ASKING = ("ada", "bob", "c_d"), ("ada", "bob", "c_d", "cxd", "stranger")
SPACES, CHANNELS, TASKS = ("default", "lab"), ("dev", "ops"), ("t-1", "t-2", "t-3")

who, where = st.sampled_from((*AGENTS, "cxd")), st.sampled_from(("default", "default", "default", "lab"))
rooms, tasks, numbers = st.sampled_from(CHANNELS), st.sampled_from(TASKS), st.integers(1, 12)
words = st.sampled_from(
    ("fix", "Fix it", "@bob look", "50% a_b", "50 aXb", "back\\slash", "üñï ÜÑÏ", "nul\0nul", "fix 50%")
)
label = st.sampled_from(("red", "blue", "a_b"))
labels = st.lists(label, max_size=3, unique=True).map(tuple)
needs = st.lists(tasks, max_size=2, unique=True).map(tuple)
some = st.lists(numbers, max_size=2).map(tuple)
soon = st.integers(0, 30).map(lambda s: datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC) + timedelta(seconds=s))
"""Around the time at which all of this happens."""
orders, bells = st.sampled_from(("d-1", "d-2")), st.sampled_from(("r-1", "r-2"))
lines = st.lists(words | st.just("long " * 100), max_size=7).map(tuple)
emoji = st.sampled_from(("+1", "👀"))
maybe = st.none()
keys, repositories = st.sampled_from(sorted(KEYS)), st.sampled_from((None, None, None, "lib"))
paths = st.lists(st.sampled_from(sorted(COVERED)), min_size=1, max_size=2, unique=True).map(tuple)
entries = st.sampled_from(("m-1", "m-2", "m-3", "p-1", "p-2", "seed-plain-voice"))
subjects, categories = st.sampled_from(("", "user:1")), st.sampled_from(("fact", "do_not", "convention", "voice_rule"))
said = st.sampled_from(("fix the parser", "Fix  the PARSER", "bob fixes TS2345 in src/parseUserInput.py", "50% a_b"))
data = st.sampled_from(({}, {"a": 1}, {"a": 1, "b": "ü"}))
pairs, things = st.sampled_from(("a", "build:x", "ü%_")), st.sampled_from(("user:1", "user:2"))
json = st.sampled_from((None, True, 7, 1.5, "nul\0", [1, {"a": None}], {"a": {"b": 1}}, {"a": None, "c": [1]}))
ends = st.sampled_from((None, None, 1, 600))
files = st.sampled_from(("a.md", "./b//c.md", "b/d/e.json", "memories/n.md"))
places = files | st.sampled_from(("b", "b/d", "memories", "x"))
notes = st.sampled_from(("/memories/n.md", "/memories/d/e/f.md", "/memories/.x", "/memories/d"))
texts = st.sampled_from(("", "one\ntwo\n", "one", "ü @[a.md] @[x] @[b/c.md]", '{"a": {"b": 1}}', "one\ntwo\n3\n4\n5"))
parts = st.sampled_from(("one", "two\n", "o", "\n"))
sets, metrics = st.sampled_from(("v", "w")), st.sampled_from(("cosine", "dot", "euclidean"))
points = st.sampled_from(((1.0, 0.5), (1.0, 0.5), (-2.0, 0.25), (0.0, 1.0), (3.0, 4.0), (1.0, 2.0, 3.0)))
chats, roles = st.sampled_from(("s-a", "s-b")), st.sampled_from(("user", "assistant", "assistant", "tool", "system"))
strategies = st.sampled_from(session.STRATEGIES)
modes, leases = st.sampled_from(("exclusive", "exclusive", "shared")), st.sampled_from((1, 600, None))


def built(kind: type, **fields: Any) -> st.SearchStrategy[Any]:
    """Requests of that kind about one of the namespaces."""
    return st.builds(kind, namespace=where, **fields)
