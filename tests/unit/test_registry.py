"""The registries of models and personalities."""

from __future__ import annotations

import pytest

from bus.domain.registry import (
    Model,
    ModelRegistered,
    Personality,
    PersonalityRegistered,
    RegisterModel,
    RegisterPersonality,
    UpdateModel,
    UpdatePersonality,
)
from bus.errors import NotFound
from bus.model import Command
from bus.subjects import TENANT
from tests.unit.stage import Stage


def test_registering_a_model_again_changes_nothing(stage: Stage) -> None:
    request = RegisterModel(model="acme/big-1", provider="acme", context_tokens=1000)
    fact = ModelRegistered(provider="acme", context_tokens=1000)
    assert stage.facts("atlas", request) == [("acme/big-1", fact)]
    first = stage.do("atlas", request)
    assert (first.seq, first.name) == (stage.seq, "acme/big-1")
    assert stage.do("nova", request) == first
    assert stage.do("nova", RegisterModel(model="acme/big-1")) == first


def test_other_descriptions_are_an_update_of_what_is_given(stage: Stage) -> None:
    stage.do("atlas", RegisterModel(model="m", provider="acme", context_tokens=1000))
    stage.do("atlas", RegisterModel(model="m", description="fast"))
    stage.do("atlas", UpdateModel(model="m", provider=""))
    assert stage.state(Model, "m", TENANT) == Model(provider="", description="fast", context_tokens=1000)


def test_personalities_work_the_same_way(stage: Stage) -> None:
    stage.do("atlas", RegisterPersonality(personality="careful", prompt="Check twice."))
    first = stage.do("atlas", UpdatePersonality(personality="careful", description="d"))
    assert stage.state(Personality, "careful", TENANT) == Personality(description="d", prompt="Check twice.")
    assert stage.do("nova", UpdatePersonality(personality="careful", description="d")) == first


@pytest.mark.parametrize("request_", [UpdateModel(model="m"), UpdatePersonality(personality="p")])
def test_only_what_is_registered_is_updated(stage: Stage, request_: Command) -> None:
    error = stage.refused("atlas", request_, "not_found", NotFound)
    assert "register" in str(error)


def test_registering_the_same_leaves_the_very_same_state(stage: Stage) -> None:
    stage.given("atlas", "m", ModelRegistered(provider="a"), TENANT)
    stage.given("atlas", "p", PersonalityRegistered(prompt="a"), TENANT)
    model, personality = stage.state(Model, "m", TENANT), stage.state(Personality, "p", TENANT)
    stage.given("nova", "m", ModelRegistered(provider="a"), TENANT)
    stage.given("nova", "p", PersonalityRegistered(prompt="a"), TENANT)
    assert stage.state(Model, "m", TENANT) is model
    assert stage.state(Personality, "p", TENANT) is personality
