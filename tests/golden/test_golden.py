"""Every event type and version that was ever shipped, as it is stored: one file each, written once and never changed.

    python -m tests.golden.test_golden --write      write the files that are missing

Rules:
* A file holds the headers and one body with every field and, where there are others, one with the required fields
  only, so that neither a field nor a default can change its meaning unnoticed.
* Old files stay when a type gets a new version: they must decode through its upcasts. Only `fact`, what they decode
  to, may be edited then, and by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, inspect

from bus.events import AGENT, ENTITY, Draft, Fact, Record, RequestId, Unknown
from bus.operation import CODEC, FAMILY_OF
from bus.subjects import TENANT, bucket_of

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.json"))


def file_of(fact: type[Fact], schema: int | None = None) -> Path:
    return FOLDER / f"{fact.type}.v{schema or fact.schema}.json"


# --- making samples -----------------------------------------------------------------------------------------------


def sample(kind: inspect.Type, name: str) -> Any:
    """A value of that type that is no default."""
    match kind:
        case inspect.StrType():
            return f"{name} ü"
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 7
        case inspect.FloatType():
            return 0.25
        case inspect.DictType():
            return {f"{name} ü": ["x", 1, None]}
        case inspect.DateTimeType():
            return datetime(2030, 1, 31, 12, 30, 15, 123456, UTC)
        case inspect.RawType():
            return msgspec.Raw(msgspec.json.encode({name: [1, "ü"]}))
        case inspect.VarTupleType():
            return (sample(kind.item_type, name), sample(kind.item_type, name))
        case inspect.UnionType():
            return sample(next(t for t in kind.types if not isinstance(t, inspect.NoneType)), name)
    raise TypeError(f"no sample for {kind} ({name})")


def samples(fact: type[Fact]) -> Iterator[Fact]:
    """One with every field, one with the required ones."""
    info = inspect.type_info(fact)
    assert isinstance(info, inspect.StructType)
    values = {field.name: sample(field.type, field.name) for field in info.fields}
    yield fact(**values)
    if not all(field.required for field in info.fields):
        yield fact(**{field.name: values[field.name] for field in info.fields if field.required})


def plain(fact: Fact) -> dict[str, Any]:
    """Every field of a fact as JSON has it, defaults included."""
    fields = msgspec.structs.asdict(fact).items()
    return {name: json.loads(msgspec.json.encode(value)) for name, value in fields if value is not UNSET}


def draft(fact: Fact) -> Draft:
    family = FAMILY_OF[fact.type.partition(".")[0]]
    return Draft(
        id="01945f3a-7c00-7000-8000-000000000001",
        namespace=TENANT,
        family=family.name,
        bucket=bucket_of(family.bucket_key("t/1 ü")),
        entity="t/1 ü",
        agent="atlas",
        fact=fact,
        request=RequestId("r-1", "0123456789abcdef"),
        causes=(3, 4),
        correlation="c 1",
    )


def as_stored(fact: type[Fact]) -> dict[str, Any]:
    sent = [draft(one) for one in samples(fact)]
    headers, _ = CODEC.encode(sent[0])
    bodies = [{"body": CODEC.body(one.fact).decode(), "fact": plain(one.fact)} for one in sent]
    return {"subject": sent[0].subject, "headers": headers, "samples": bodies}


def write() -> None:
    """Write what is missing. What is there is never touched."""
    for fact in CODEC.types.values():
        path = file_of(fact)
        if path.exists():
            continue
        path.write_text(json.dumps(as_stored(fact), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {path.name}")


# --- tests --------------------------------------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return known


@pytest.mark.parametrize("name", sorted(CODEC.types))
def test_every_version_of_every_fact_has_a_file(name: str) -> None:
    fact = CODEC.types[name]
    missing = [v for v in range(1, fact.schema + 1) if not file_of(fact, v).exists()]
    assert missing == [], f"python -m {__spec__.name if __spec__ else __name__} --write"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_stored_decodes_to_the_same_values(path: Path) -> None:
    known = load(path)
    for one in known["samples"]:
        event = CODEC.decode(Record(5, 10**18, known["subject"], known["headers"], one["body"].encode()))
        assert not isinstance(event.fact, Unknown), event.fact
        assert plain(event.fact) == one["fact"]
        assert f"{event.type}.v{event.schema}" == path.stem
        assert (event.entity, event.agent, event.causes, event.correlation) == ("t/1 ü", "atlas", (3, 4), "c 1")
        assert event.request == RequestId("r-1", "0123456789abcdef")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_encoding_has_not_changed(path: Path) -> None:
    known = load(path)
    name, _, version = path.stem.rpartition(".v")
    fact = CODEC.types[name]
    if int(version) != fact.schema:
        return
    for one in known["samples"]:
        event = CODEC.decode(Record(5, 10**18, known["subject"], known["headers"], one["body"].encode()))
        assert isinstance(event.fact, Fact)
        headers, body = CODEC.encode(draft(event.fact))
        assert body == one["body"].encode()
        assert headers == known["headers"]
        assert draft(event.fact).subject == known["subject"]


def test_the_samples_leave_no_field_out() -> None:
    for path in FILES:
        name, _, version = path.stem.rpartition(".v")
        fact = CODEC.types[name]
        if int(version) == fact.schema:
            known = load(path)["samples"]
            full, bare = known[0], known[-1]
            assert set(full["fact"]) == set(fact.__struct_fields__)
            required = {field.name for field in msgspec.structs.fields(fact) if field.required}
            assert {ENTITY, AGENT} <= set(load(path)["headers"])
            assert len(json.loads(bare["body"])) == len(required)


def test_writing_touches_nothing_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in FILES}
    write()
    assert capsys.readouterr().out == ""
    assert {path: path.read_bytes() for path in FILES} == before


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    write()
