"""The tenant's founding and the seals of its log."""

from __future__ import annotations

from bus.domain.agent import Agent
from bus.domain.log import CHAIN, LogSealed, Seal, SealChain
from bus.domain.tenant import FAMILY, Found, Tenant, TenantFounded
from bus.errors import InvalidRequest
from bus.operation import FAMILIES
from bus.subjects import SYSTEM, TENANT, bucket_of
from bus.world import Speculation, World
from tests.unit.stage import Stage


def empty() -> Stage:
    stage = Stage()
    stage.world = World(FAMILIES)
    stage.view = Speculation(stage.world)
    return stage


def test_founding_registers_the_owner_in_the_same_batch() -> None:
    stage = empty()
    decision = stage.decide(SYSTEM, Found(tenant="acme", owner="olga"))
    assert isinstance(decision, list)
    assert [(emit.agent, emit.namespace, emit.fact.type) for emit in decision] == [
        (SYSTEM, TENANT, "tenant.founded"),
        (SYSTEM, TENANT, "agent.registered"),
    ]
    reply = stage.do(SYSTEM, Found(tenant="acme", owner="olga"))
    assert reply.tenant == "acme"
    assert stage.state(Agent, "olga", TENANT).authority == {"owner", "auditor"}


def test_there_is_exactly_one() -> None:
    stage = empty()
    stage.do(SYSTEM, Found(tenant="acme", owner="olga"))
    assert stage.facts(SYSTEM, Found(tenant="acme", owner="nova")) == []
    error = stage.refused(SYSTEM, Found(tenant="other", owner="nova"), "founded")
    assert "tenant acme" in str(error)
    before = stage.state(Tenant, "acme", TENANT)
    stage.given(SYSTEM, "acme", TenantFounded(tenant="acme", owner="nova"), TENANT)
    assert stage.state(Tenant, "acme", TENANT) is before


def test_two_daemons_that_found_at_once_meet_in_one_bucket() -> None:
    assert bucket_of(FAMILY.bucket_key("acme")) == bucket_of(FAMILY.bucket_key("other"))


def test_system_owns_nothing() -> None:
    empty().refused(SYSTEM, Found(tenant="acme", owner=SYSTEM), "bad_name", InvalidRequest)


def test_seals_only_go_on(stage: Stage) -> None:
    assert stage.facts(SYSTEM, SealChain(upto=5, head="ab")) == [(CHAIN, LogSealed(upto=5, head="ab"))]
    assert stage.do(SYSTEM, SealChain(upto=5, head="ab")).upto == 5
    stage.refused(SYSTEM, SealChain(upto=5, head="cd"), "sealed")
    before = stage.state(Seal, CHAIN, TENANT)
    stage.given(SYSTEM, CHAIN, LogSealed(upto=4, head="cd"), TENANT)
    assert stage.state(Seal, CHAIN, TENANT) is before
    stage.do(SYSTEM, SealChain(upto=6, head="cd"))
    assert stage.state(Seal, CHAIN, TENANT) == Seal(upto=6, head="cd")
