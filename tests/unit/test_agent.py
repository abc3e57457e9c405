"""Agents: registering, changing, authority, deactivation, presence."""

from __future__ import annotations

import pytest

from bus.domain.agent import (
    Agent,
    AgentDeactivated,
    AgentReactivated,
    AgentRegistered,
    AgentRouted,
    AgentUpdated,
    AuthorityGranted,
    AuthorityWithdrawn,
    ChangePresence,
    Deactivate,
    Grant,
    PresenceChanged,
    Reactivate,
    Register,
    Route,
    Update,
    Withdraw,
    having,
)
from bus.domain.registry import PersonalityRegistered
from bus.errors import InvalidRequest, NotAllowed, NotFound, Refused
from bus.events import Fact
from bus.subjects import SYSTEM, TENANT
from tests.unit.stage import Stage


def agent(stage: Stage, name: str) -> Agent:
    known = stage.state(Agent, name, TENANT)
    assert isinstance(known, Agent)
    return known


# --- register -----------------------------------------------------------------------------------------------------


def test_an_owner_registers_an_agent(stage: Stage) -> None:
    reply = stage.do("olga", Register(agent="zoe", harness="claude-code", device="mac", model="m", parent="atlas"))
    assert (reply.seq, reply.agent) == (stage.seq, "zoe")
    assert agent(stage, "zoe") == Agent(harness="claude-code", device="mac", model="m", parent="atlas")


def test_registering_again_changes_nothing(stage: Stage) -> None:
    first = stage.do("olga", Register(agent="zoe", harness="h", device="d"))
    assert stage.facts("zoe", Register(agent="zoe", harness="h", device="d")) == []
    assert stage.do("nova", Register(agent="zoe", harness="h", device="d")) == first
    assert stage.do("nova", Register(agent="zoe")) == first


def test_registering_with_other_descriptions_updates_them(stage: Stage) -> None:
    assert stage.facts("atlas", Register(agent="atlas", device="mac")) == [("atlas", AgentUpdated(device="mac"))]
    stage.refused("nova", Register(agent="atlas", device="mac"), "not_allowed", NotAllowed)


def test_only_an_owner_registers_somebody_new(stage: Stage) -> None:
    error = stage.refused("atlas", Register(agent="zoe"), "not_allowed", NotAllowed)
    assert "agent zoe" in str(error)


def test_system_is_reserved(stage: Stage) -> None:
    stage.refused("olga", Register(agent=SYSTEM), "bad_name", InvalidRequest)


def test_a_parent_must_exist(stage: Stage) -> None:
    stage.refused("olga", Register(agent="zoe", parent="ghost"), "not_found", NotFound)
    stage.refused("olga", Register(agent="zoe", parent="zoe"), "not_found", NotFound)


def test_a_deactivated_agent_is_not_registered_again(stage: Stage) -> None:
    stage.do("olga", Deactivate(agent="nova"))
    stage.refused("olga", Register(agent="nova"), "inactive")


# --- update, route ------------------------------------------------------------------------------------------------


def test_an_agent_updates_itself(stage: Stage) -> None:
    assert stage.facts("atlas", Update(model="m2")) == [("atlas", AgentUpdated(model="m2"))]
    stage.do("atlas", Update(model="m2"))
    assert agent(stage, "atlas") == Agent(harness="codex", model="m2")
    assert stage.facts("atlas", Update(model="m2")) == []
    assert stage.facts("atlas", Update()) == []


def test_roles_are_given_replaced_and_taken_away(stage: Stage) -> None:
    stage.do("olga", Register(agent="zoe", roles=("reviewer", "writer")))
    assert agent(stage, "zoe").roles == {"reviewer", "writer"}
    assert stage.facts("zoe", Register(agent="zoe")) == [], "what is not given stays"
    assert stage.facts("zoe", Update(roles=("writer", "reviewer"))) == [], "they have no order"
    assert stage.facts("zoe", Register(agent="zoe", roles=("tester",))) == [("zoe", AgentUpdated(roles=("tester",)))]
    stage.do("zoe", Update(roles=("tester",), model="m2"))
    assert (agent(stage, "zoe").roles, agent(stage, "zoe").model) == ({"tester"}, "m2")
    stage.do("zoe", Update(roles=()))
    assert agent(stage, "zoe").roles == frozenset()


def test_who_has_a_role_is_active(stage: Stage) -> None:
    for name in ("nova", "atlas", "iris"):
        stage.do(name, Update(roles=("reviewer",)))
    stage.do("iris", Update(roles=("writer",)))
    assert having(stage.view, "reviewer") == ["atlas", "nova"]
    stage.do("olga", Deactivate(agent="atlas"))
    assert having(stage.view, "reviewer") == ["nova"]
    assert having(stage.view, "nobody") == []


def test_a_role_makes_no_owner(stage: Stage) -> None:
    stage.do("nova", Update(roles=("owner",)))
    stage.refused("olga", Deactivate(agent="olga"), "last_owner")


def test_an_update_can_empty_a_field(stage: Stage) -> None:
    stage.do("atlas", Update(harness=""))
    assert agent(stage, "atlas").harness == ""


def test_an_owner_updates_anybody_and_nobody_else_does(stage: Stage) -> None:
    stage.do("olga", Update(agent="atlas", device="mac"))
    assert agent(stage, "atlas").device == "mac"
    stage.refused("nova", Update(agent="atlas", device="pc"), "not_allowed", NotAllowed)
    stage.refused("olga", Update(agent="ghost"), "not_found", NotFound)


def test_a_route_is_set_as_a_whole(stage: Stage) -> None:
    stage.given("olga", "careful", PersonalityRegistered(), TENANT)
    route = Route(model="m", personality="careful", models=("m", "n"), parent="nova")
    assert stage.facts("atlas", route) == [
        ("atlas", AgentRouted(model="m", personality="careful", models=("m", "n"), parent="nova"))
    ]
    first = stage.do("atlas", route)
    known = agent(stage, "atlas")
    assert (known.model, known.personality, known.parent) == ("m", "careful", "nova")
    assert known.models == {"m", "n"}
    assert stage.do("atlas", route) == first


def test_a_route_needs_a_registered_personality_and_the_right(stage: Stage) -> None:
    stage.refused("atlas", Route(personality="bold"), "not_found", NotFound)
    stage.refused("nova", Route(agent="atlas"), "not_allowed", NotAllowed)


def test_routing_parents_form_no_circle(stage: Stage) -> None:
    stage.do("atlas", Route(parent="nova"))
    stage.do("nova", Route(parent="iris"))
    error = stage.refused("iris", Route(parent="atlas"), "cycle")
    assert error.problem.found == "iris under atlas under nova under iris"
    stage.refused("iris", Route(parent="iris"), "cycle")
    stage.refused("iris", Route(parent="ghost"), "not_found", NotFound)


def test_a_circle_that_is_there_already_does_not_trap_the_search(stage: Stage) -> None:
    stage.given("olga", "atlas", AgentRouted(parent="nova"), TENANT)
    stage.given("olga", "nova", AgentRouted(parent="atlas"), TENANT)
    assert stage.facts("iris", Route(parent="atlas")) != []


# --- deactivate, reactivate ---------------------------------------------------------------------------------------


def test_deactivating_is_for_oneself_and_for_owners(stage: Stage) -> None:
    stage.refused("nova", Deactivate(agent="atlas"), "not_allowed", NotAllowed)
    assert stage.facts("atlas", Deactivate(agent="atlas", reason="bye")) == [("atlas", AgentDeactivated(reason="bye"))]
    stage.do("olga", Deactivate(agent="atlas"))
    assert not agent(stage, "atlas").active
    stage.refused("olga", Deactivate(agent="ghost"), "not_found", NotFound)


def test_deactivating_twice_changes_nothing(stage: Stage) -> None:
    first = stage.do("olga", Deactivate(agent="atlas"))
    assert stage.do("olga", Deactivate(agent="atlas")) == first


def test_the_last_owner_stays(stage: Stage) -> None:
    stage.refused("olga", Deactivate(agent="olga"), "last_owner")
    stage.refused("olga", Withdraw(agent="olga", authority="owner"), "last_owner")
    stage.do("olga", Grant(agent="nova", authority="owner"))
    stage.do("nova", Deactivate(agent="olga"))
    stage.refused("nova", Deactivate(agent="nova"), "last_owner")


def test_a_deactivated_owner_is_no_owner_that_is_left(stage: Stage) -> None:
    stage.do("olga", Grant(agent="nova", authority="owner"))
    stage.do("olga", Deactivate(agent="nova"))
    stage.refused("olga", Withdraw(agent="olga", authority="owner"), "last_owner")
    stage.do("olga", Reactivate(agent="nova"))
    stage.do("olga", Withdraw(agent="olga", authority="owner"))


def test_reactivating_needs_an_owner(stage: Stage) -> None:
    stage.do("olga", Deactivate(agent="atlas"))
    stage.refused("nova", Reactivate(agent="atlas"), "not_allowed", NotAllowed)
    assert stage.facts("olga", Reactivate(agent="atlas")) == [("atlas", AgentReactivated())]
    stage.do("olga", Reactivate(agent="atlas"))
    assert agent(stage, "atlas").active
    assert stage.facts("olga", Reactivate(agent="atlas")) == []


# --- authority ----------------------------------------------------------------------------------------------------


def test_authority_is_granted_and_withdrawn_by_owners(stage: Stage) -> None:
    stage.refused("atlas", Grant(agent="atlas", authority="owner"), "not_allowed", NotAllowed)
    stage.refused("atlas", Withdraw(agent="olga", authority="owner"), "not_allowed", NotAllowed)
    assert stage.facts("olga", Grant(agent="atlas", authority="auditor")) == [
        ("atlas", AuthorityGranted(authority="auditor"))
    ]
    first = stage.do("olga", Grant(agent="atlas", authority="auditor"))
    assert stage.do("olga", Grant(agent="atlas", authority="auditor")) == first
    assert agent(stage, "atlas").authority == {"auditor"}
    assert stage.facts("olga", Withdraw(agent="atlas", authority="auditor")) == [
        ("atlas", AuthorityWithdrawn(authority="auditor"))
    ]
    assert stage.facts("olga", Withdraw(agent="nova", authority="auditor")) == []


def test_nothing_is_granted_to_a_deactivated_agent(stage: Stage) -> None:
    stage.do("olga", Deactivate(agent="atlas"))
    stage.refused("olga", Grant(agent="atlas", authority="auditor"), "inactive")
    stage.refused("olga", Grant(agent="ghost", authority="auditor"), "not_found", NotFound)


# --- presence -----------------------------------------------------------------------------------------------------


def test_presence_is_recorded_by_system_and_only_when_it_changes(stage: Stage) -> None:
    decision = stage.decide(SYSTEM, ChangePresence(agent="atlas", presence="online"))
    assert isinstance(decision, list)
    assert [(emit.agent, emit.fact) for emit in decision] == [(SYSTEM, PresenceChanged(presence="online"))]
    stage.do(SYSTEM, ChangePresence(agent="atlas", presence="online"))
    assert stage.facts(SYSTEM, ChangePresence(agent="atlas", presence="online")) == []
    stage.do("olga", Deactivate(agent="atlas"))
    assert agent(stage, "atlas").presence == "offline"
    assert stage.facts(SYSTEM, ChangePresence(agent="atlas", presence="online")) == []


# --- events that make no sense ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact",
    [
        AgentRegistered(harness="other", authority=("owner",)),
        AgentUpdated(),
        AgentUpdated(harness="codex"),
        AgentReactivated(),
        AuthorityWithdrawn(authority="auditor"),
        PresenceChanged(presence="offline"),
    ],
)
def test_what_changes_nothing_leaves_the_very_same_state(stage: Stage, fact: Fact) -> None:
    before = agent(stage, "atlas")
    stage.given("olga", "atlas", fact, TENANT)
    assert agent(stage, "atlas") is before


def test_nothing_happens_to_an_agent_that_was_never_registered(stage: Stage) -> None:
    for fact in (AgentUpdated(harness="x"), AuthorityGranted(authority="owner"), AgentReactivated()):
        stage.given("olga", "ghost", fact, TENANT)
    assert stage.state(Agent, "ghost", TENANT) is None


def test_the_errors_are_of_the_kinds_that_doors_expect() -> None:
    assert (Refused.exit_code, NotFound.exit_code, NotAllowed.exit_code, InvalidRequest.exit_code) == (3, 4, 5, 2)
