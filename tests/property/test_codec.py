"""The codec and the folds against anything: what is written comes back, what is garbage stops nobody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from msgspec.structs import replace

from bus.events import (
    AGENT,
    AT,
    CAUSES,
    CORRELATION,
    ENTITY,
    MSG_ID,
    REQUEST,
    SCHEMA,
    TYPE,
    Draft,
    Event,
    Fact,
    Record,
    RequestId,
    Unknown,
)
from bus.model import State
from bus.operation import CODEC, FAMILIES, FAMILY_OF
from bus.subjects import BUCKETS, bucket_of, is_name
from bus.world import Speculation, World, as_event

START = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = st.sampled_from(("atlas", "nova", "iris", "system"))
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
INSTANTS = st.integers(0, 10**6).map(lambda s: START + timedelta(seconds=s))


def values(kind: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    """Values a field of that type may have. Agents are few, so that events meet."""
    match kind:
        case inspect.StrType():
            return NAMES if name in ("to", "owner", "parent", "frm", "reply_to_agent") else TEXTS
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            low = -(1 << 31) if kind.ge is None else max(kind.ge, -9)
            return st.integers(low, max(low, 9)) | st.integers(low, 1 << 31)
        case inspect.FloatType():
            return st.floats(-1, 2, width=32)
        case inspect.DateTimeType():
            return INSTANTS
        case inspect.NoneType():
            return st.none()
        case inspect.RawType():
            return st.sampled_from((b"1", b"null", b'{"a": [1, "\\u00fc"]}')).map(msgspec.Raw)
        case inspect.AnyType():
            return st.sampled_from((None, 1, "ü", [True], {"a": 0.5}))
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type, name), values(kind.value_type, name), max_size=2)
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type, name), max_size=3).map(tuple)
        case inspect.UnionType():
            return st.one_of([values(one, name) for one in kind.types])
    raise TypeError(f"no values for {kind}")


def facts(cls: type[Fact]) -> st.SearchStrategy[Fact]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    required = {field.name: values(field.type, field.name) for field in info.fields if field.required}
    optional = {field.name: values(field.type, field.name) for field in info.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: cls(**given))


ANY_FACT = st.sampled_from(sorted(CODEC.types)).flatmap(lambda name: facts(CODEC.types[name]))
IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    fact = draw(ANY_FACT)
    return Draft(
        id=draw(IDS),
        namespace=draw(st.sampled_from(("_", "default", "x-1"))),
        family=fact.type.partition(".")[0],
        bucket=draw(st.integers(0, BUCKETS - 1)),
        entity=draw(TEXTS.filter(bool)),
        agent=draw(NAMES),
        fact=fact,
        request=draw(st.none() | st.builds(RequestId, IDS, st.just("0" * 16))),
        causes=draw(st.lists(st.integers(1, (1 << 53) - 1), max_size=4).map(tuple)),
        correlation=draw(st.none() | TEXTS.filter(bool)),
    )


@given(drafts(), st.integers(1, 1 << 50), st.integers(0, 1 << 60))
def test_what_is_written_comes_back(draft: Draft, seq: int, time_ns: int) -> None:
    headers, body = CODEC.encode(draft)
    event = CODEC.decode(Record(seq, time_ns, draft.subject, headers, body))
    expected = replace(as_event(draft, seq), time_ns=time_ns, data=body)
    assert event == expected
    assert all(text.isascii() and text.isprintable() for text in headers.values())
    again = CODEC.encode(replace(draft, body=body))
    assert again == (headers, body)


@given(drafts())
def test_the_body_is_plain_json_that_any_client_can_read(draft: Draft) -> None:
    _, body = CODEC.encode(draft)
    assert isinstance(msgspec.json.decode(body), dict)


GARBAGE = st.text(max_size=30) | st.sampled_from(("1", "9" * 50, "-1", "²", "a b", "%", "%ff", ",", "1,2"))
HEADERS = st.dictionaries(
    st.sampled_from((MSG_ID, TYPE, SCHEMA, ENTITY, AGENT, REQUEST, CAUSES, CORRELATION, AT, "x")), GARBAGE
)
BODIES = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
).map(msgspec.json.encode)
SUBJECTS = st.text(max_size=20) | st.sampled_from(("log.default.task.7", "log._.agent.0", "log.x.channel.1024"))


@given(HEADERS, BODIES, SUBJECTS)
def test_no_record_stops_a_reader(headers: dict[str, str], body: bytes, subject: str) -> None:
    event = CODEC.decode(Record(7, 0, subject, headers, body))
    assert isinstance(event.fact, Fact | Unknown)
    assert event.data == body
    world = World(FAMILIES)
    world.fold(event)
    assert world.position == 7


@given(st.data(), st.sampled_from(sorted(CODEC.types)))
def test_a_body_of_a_known_type_with_any_fields_stops_no_reader(data: st.DataObject, name: str) -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(CODEC.types[name])]
    scalar = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("2030-01-01T00:00:00Z")
    body = data.draw(st.dictionaries(st.sampled_from([*fields, "newer"]), scalar | st.lists(scalar, max_size=2)))
    headers = {TYPE: name, SCHEMA: "1", ENTITY: "e", AGENT: "atlas"}
    subject = f"log.default.{name.partition('.')[0]}.0"
    event = CODEC.decode(Record(7, 0, subject, headers, msgspec.json.encode(body)))
    if isinstance(event.fact, Fact):
        assert CODEC.body(event.fact)
        for family in FAMILIES:
            family.evolve(None, event)


@settings(max_examples=300)
@given(st.sampled_from(FAMILIES), st.data())
def test_a_fold_never_raises_and_keeps_the_object_when_nothing_changed(family: Any, data: st.DataObject) -> None:
    """Any events of a family on one entity, by anybody, in any order, sense or not."""
    kinds = st.sampled_from(family.facts).flatmap(facts)
    happened: Sequence[tuple[Fact, str]] = data.draw(st.lists(st.tuples(kinds, NAMES), max_size=12))
    state: State | None = None
    for seq, (fact, agent) in enumerate(happened, 1):
        after = family.evolve(state, event_of(fact, agent, seq))
        assert after is state or after != state
        assert after is not None or state is None, "an entity does not vanish"
        if after is not None:
            assert isinstance(after, family.state)
            flat(after)
            ordered(family, after)
        state = after


def event_of(fact: Fact, agent: str, seq: int) -> Event:
    family = FAMILY_OF[fact.type.partition(".")[0]]
    draft = Draft(
        id=f"e{seq}",
        namespace="default",
        family=family.name,
        bucket=bucket_of(family.bucket_key("e")),
        entity="e",
        agent=agent,
        fact=fact,
    )
    return as_event(draft, seq)


def flat(state: State) -> None:
    """States are what tables can be derived from: scalars, frozensets and counts."""
    for name in state.__struct_fields__:
        value = getattr(state, name)
        assert isinstance(value, str | int | float | bool | datetime | frozenset | dict | None), f"{name}: {value!r}"
        assert not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


def ordered(family: Any, state: State) -> None:
    """Ranks and deadlines can be sorted in, whatever the state; overdue entities are told apart."""
    view = Speculation(World(FAMILIES))
    view._orders.put((family.state, "default", "e"), state)
    late = list(view.due(START + timedelta(days=999)))
    if late and family.overdue is not None:
        assert family.overdue(state, "e", START + timedelta(days=999)), "what is due and never ends is due for ever"


@given(st.text(max_size=70))
def test_only_names_are_names(text: str) -> None:
    plain = text.isascii() and text == text.lower() and all(c.isalnum() or c in "_-" for c in text)
    assert is_name(text) == (0 < len(text) <= 63 and plain and text[0] not in "_-")
