"""What a tenant begins with: rules, models and personalities, and what a newer version makes of them."""

from __future__ import annotations

import pytest

from bus.domain import memory_seed
from bus.domain.memory import CATEGORIES, Memory, MemoryWritten
from bus.domain.memory_requests import Pin, Retract, Revise, Seed
from bus.domain.registry import Model, Personality, RegisterModel, UpdateModel
from bus.errors import NotAllowed
from bus.subjects import SYSTEM, TENANT
from tests.unit.stage import Stage


def test_a_tenant_begins_with_rules_models_and_personalities(stage: Stage) -> None:
    facts = stage.facts(SYSTEM, Seed())
    kinds = [fact.category for _, fact in facts if isinstance(fact, MemoryWritten)]
    assert {name: kinds.count(name) for name in CATEGORIES} == {
        "operating_pattern": 6,
        "do_not": 3,
        "discipline_rule": 2,
        "convention": 2,
        "voice_rule": 1,
        "routing_rule": 1,
        "fact": 0,
    }
    types = [fact.type for _, fact in facts]
    assert (types.count("model.registered"), types.count("personality.registered")) == (9, 6)
    assert {fact.source for _, fact in facts} == {"synbus:default-v1"}  # type: ignore[attr-defined]
    assert len({entity for entity, fact in facts}) == 30
    stage.do(SYSTEM, Seed())
    assert stage.events[stage.seq].agent == SYSTEM
    assert stage.facts(SYSTEM, Seed()) == [], "once"
    assert stage.do(SYSTEM, Seed()).seq < stage.seq


def test_a_newer_version_revises_what_nobody_has_touched(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.do(SYSTEM, Seed())
    old = memory_seed.DEFAULT
    gone, changed = old.rules[0].name, old.rules[1].name
    stage.refused("nova", Retract(memory=gone), "not_allowed", NotAllowed)
    stage.do("olga", Retract(memory=gone, reason="not here"))
    stage.do("olga", Revise(memory=changed, content="our own way"))
    stage.do("atlas", UpdateModel(model=old.models[0].name, active=False))
    stage.do("atlas", RegisterModel(model=old.models[1].name, description="ours"))
    assert stage.facts(SYSTEM, Seed()) == []
    rules = tuple(rule._replace(content=f"{rule.content} Always.") for rule in old.rules)
    rules += (rules[0]._replace(name="seed-new"),)
    monkeypatch.setattr(memory_seed, "DEFAULT", old._replace(source="synbus:default-v2", rules=rules))
    names = {entity for entity, _ in stage.facts(SYSTEM, Seed())}
    every_one = {part.name for part in (*rules, *old.models, *old.personalities)}
    assert names == every_one - {gone, changed, old.models[0].name, old.models[1].name}
    stage.do(SYSTEM, Seed())
    assert stage.facts(SYSTEM, Seed()) == []
    assert stage.state(Memory, rules[2].name, TENANT).content.endswith("Always.")
    assert stage.state(Memory, changed, TENANT).content == "our own way"
    assert not stage.state(Model, old.models[0].name, TENANT).active
    assert stage.state(Personality, old.personalities[0].name, TENANT).source == "synbus:default-v2"


def test_rules_of_the_tenant_are_found_from_every_namespace(stage: Stage) -> None:
    stage.do(SYSTEM, Seed())
    name = memory_seed.DEFAULT.rules[0].name
    stage.do("nova", Pin(memory=name, namespace="lab"))
    assert stage.state(Memory, name, TENANT).pinned
    assert stage.state(Memory, name, "lab") is None
