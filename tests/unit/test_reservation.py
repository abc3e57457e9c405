"""Reservations: what overlaps has one exclusive holder; who is refused is told by whom, why and until when."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.domain import globs, reservation_index
from bus.domain.reservation import (
    Release,
    Renew,
    Reservation,
    ReservationExpired,
    ReservationReleased,
    ReservationRenewed,
    ReservationReserved,
    Reserve,
    repository_of,
)
from bus.domain.reservation_decisions import MOST, expire
from bus.domain.reservation_index import Holding, Overlapping, ReservationIndex
from bus.errors import InvalidRequest, NotFound, Unavailable
from bus.model import Limits
from bus.operation import FAMILY_OF
from bus.subjects import SYSTEM
from tests.unit.stage import Stage


def reserve(stage: Stage, agent: str, *paths: str, **fields: object) -> str:
    """Reserve, and return the id."""
    reply = stage.do(agent, Reserve(paths=paths, **fields))  # type: ignore[arg-type]
    assert isinstance(reply.reservation, str)
    return reply.reservation


def held(stage: Stage, id_: str, repository: str = "default") -> Reservation:
    known = stage.state(Reservation, f"{repository}:{id_}")
    assert isinstance(known, Reservation)
    return known


# --- reserving ----------------------------------------------------------------------------------------------------


def test_reserving_keeps_paths_until_the_lease_ends(stage: Stage) -> None:
    request = Reserve(paths=("./src//b.py", "docs/", "src/b.py"), reason="rewrite", lease_s=60)
    ((_, fact),) = stage.facts("atlas", request)
    assert fact == ReservationReserved(
        paths=("docs/**", "src/b.py"),
        mode="exclusive",
        reason="rewrite",
        lease_s=60,
        expires=stage.at(60),
        until=stage.at(86_400),
    )
    reply = stage.do("atlas", request)
    assert (reply.seq, reply.paths, reply.expires) == (stage.seq, ("docs/**", "src/b.py"), stage.at(60))
    assert (reply.repository, reply.mode) == ("default", "exclusive")
    known = held(stage, reply.reservation)
    assert (known.agent, known.repository, known.reserved) == ("atlas", "default", stage.seq)
    assert known.paths == {"docs/**", "src/b.py"}


def test_who_is_refused_is_told_which_path_by_whom_why_and_until_when(stage: Stage) -> None:
    id_ = reserve(stage, "atlas", "src/**", reason="rewrite", lease_s=60)
    error = stage.refused("nova", Reserve(paths=("README.md", "src/a/b.py")), "reserved")
    assert error.problem.entity == "path src/a/b.py"
    assert error.problem.message == "atlas holds src/**: rewrite"
    assert error.problem.found == "src/**, exclusive, held by atlas until 2030-01-01T12:01:00Z"
    (conflict,) = error.details["conflicts"]
    assert conflict == {
        "path": "src/a/b.py",
        "held": "src/**",
        "agent": "atlas",
        "mode": "exclusive",
        "reason": "rewrite",
        "expires": stage.at(60).isoformat(),
        "until": "2030-01-01T12:01:00Z",
        "reservation": id_,
        "seq": stage.seq,
    }


@pytest.mark.parametrize(
    ("first", "second", "agrees"),
    [
        ("exclusive", "exclusive", False),
        ("exclusive", "shared", False),
        ("shared", "exclusive", False),
        ("shared", "shared", True),
    ],
)
def test_shared_goes_with_shared_only(stage: Stage, first: str, second: str, agrees: bool) -> None:
    stage.do("atlas", Reserve(paths=("src/**",), mode=first))  # type: ignore[arg-type]
    request = Reserve(paths=("src/a.py",), mode=second)  # type: ignore[arg-type]
    if agrees:
        assert stage.facts("nova", request)
    else:
        stage.refused("nova", request, "reserved")


def test_two_globs_and_names_that_differ_only_in_case_overlap(stage: Stage) -> None:
    reserve(stage, "atlas", "src/*/test_*.py")
    stage.refused("nova", Reserve(paths=("**/*_auth.py",)), "reserved")
    stage.refused("nova", Reserve(paths=("SRC/x/Test_A.py",)), "reserved")
    reserve(stage, "nova", "src/*/*.md")


def test_all_paths_or_none(stage: Stage) -> None:
    reserve(stage, "atlas", "b")
    error = stage.refused("nova", Reserve(paths=("a", "b", "c")), "reserved")
    assert error.problem.entity == "path b"
    reserve(stage, "iris", "a")
    error = stage.refused("nova", Reserve(paths=("a", "b", "c")), "reserved")
    assert "1 more" in str(error)
    assert [one["agent"] for one in error.details["conflicts"]] == ["atlas", "iris"]


def test_ones_own_never_stand_in_the_way(stage: Stage) -> None:
    reserve(stage, "atlas", "src/**")
    assert stage.facts("atlas", Reserve(paths=("src/a.py",)))
    assert stage.facts("atlas", Reserve(paths=("src/**",), mode="shared"))


def test_reserving_the_same_again_renews_it(stage: Stage) -> None:
    first = stage.do("atlas", Reserve(paths=("a", "b"), lease_s=60))
    assert stage.do("atlas", Reserve(paths=("b", "a"), lease_s=60)) == first
    stage.pass_s(10)
    renewed = ReservationRenewed(lease_s=60, expires=stage.at(60))
    key = f"default:{first.reservation}"
    assert stage.facts("atlas", Reserve(paths=("b", "a"))) == [(key, renewed)]
    again = stage.do("atlas", Reserve(paths=("b", "a")))
    assert (again.reservation, again.paths, again.expires) == (first.reservation, ("a", "b"), stage.at(60))


def test_repositories_and_namespaces_are_apart(stage: Stage) -> None:
    reserve(stage, "atlas", "src/**")
    reserve(stage, "nova", "src/**", repository="lib")
    reserve(stage, "iris", "src/**", namespace="other")
    stage.refused("iris", Reserve(paths=("src/**",), repository="lib"), "reserved")
    # The namespace's repository has its name.
    stage.refused("nova", Reserve(paths=("src/**",), repository="default"), "reserved")


def test_all_reservations_of_a_repository_share_a_bucket(stage: Stage) -> None:
    assert FAMILY_OF["reservation"].bucket_key is repository_of
    one, other = (next(iter(stage.facts("atlas", Reserve(paths=(path,)))))[0] for path in ("a", "b"))
    assert one != other
    assert repository_of(one) == repository_of(other) == "default"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../..", "[x", "a**b", "{a,b}", "a\\b", "a\0"])
def test_what_is_no_path_of_the_repository_is_refused(stage: Stage, path: str) -> None:
    stage.refused("atlas", Reserve(paths=("ok", path)), "bad_path", InvalidRequest)
    stage.refused("atlas", Release(paths=(path,)), "bad_path", InvalidRequest)


def test_a_lease_beyond_the_cap_is_refused() -> None:
    stage = Stage(Limits(lease_default_s=30, lease_cap_s=100))
    error = stage.refused("atlas", Reserve(paths=("a",), lease_s=101), "lease_too_long", InvalidRequest)
    assert (error.problem.expected, error.problem.found) == ("at most 100 s", "101 s")
    assert stage.do("atlas", Reserve(paths=("a",))).expires == stage.at(30)
    stage.refused("atlas", Renew(lease_s=101), "lease_too_long", InvalidRequest)
    assert stage.do("atlas", Renew(lease_s=100)).renewed[0].expires == stage.at(100)


def test_nobody_holds_more_than_can_be_ended_at_once(stage: Stage) -> None:
    for number in range(MOST):
        reserve(stage, "atlas", f"f{number}")
    stage.refused("atlas", Reserve(paths=("one more",)), "too_many")
    reserve(stage, "nova", "one more")
    assert len(stage.do("atlas", Release(all=True)).released) == MOST


# --- ends ---------------------------------------------------------------------------------------------------------


def test_an_overdue_reservation_ends_by_an_event_of_system(stage: Stage) -> None:
    id_ = reserve(stage, "atlas", "b", "a", lease_s=60)
    key = f"default:{id_}"
    assert list(stage.view.due(stage.at(59.9))) == []
    assert list(stage.view.due(stage.at(60))) == [(Reservation, "default", key)]
    assert list(expire(held(stage, id_), key, stage.at(59.9))) == []
    (emit,) = expire(held(stage, id_), key, stage.at(60))
    assert (emit.entity, emit.agent, emit.fact) == (key, SYSTEM, ReservationExpired(agent="atlas", paths=("a", "b")))
    stage.given(SYSTEM, key, emit.fact)
    assert (held(stage, id_).state, held(stage, id_).paths) == ("expired", frozenset())
    assert list(stage.view.due(stage.at(1e9))) == []
    reserve(stage, "nova", "a")


def test_taking_over_what_is_overdue_brings_its_end_in_the_same_batch(stage: Stage) -> None:
    id_ = reserve(stage, "atlas", "src/**", lease_s=60)
    reserve(stage, "iris", "docs/**", lease_s=60)
    stage.refused("nova", Reserve(paths=("src/a",)), "reserved")
    stage.pass_s(60)
    decision = stage.decide("nova", Reserve(paths=("src/a",)))
    assert isinstance(decision, list)
    assert [(emit.agent, emit.fact.type) for emit in decision] == [
        (SYSTEM, "reservation.expired"),
        (None, "reservation.reserved"),
    ]
    assert decision[0].entity == f"default:{id_}"
    reply = stage.do("nova", Reserve(paths=("src/a",)))
    assert (reply.seq, held(stage, reply.reservation).agent) == (stage.seq, "nova")
    # The one who held it is told, and can have it back only when it is free.
    error = stage.refused("atlas", Renew(reservations=(id_,)), "not_holder")
    assert error.problem.found == "expired, when atlas had it"
    stage.refused("atlas", Reserve(paths=("src/**",)), "reserved")


def test_so_many_ended_leases_that_one_batch_does_not_hold_them_are_waited_for(stage: Stage) -> None:
    for number in range(MOST + 1):
        reserve(stage, "atlas" if number % 2 else "iris", f"f{number}", lease_s=1)
    stage.pass_s(1)
    error = stage.refused("nova", Reserve(paths=("**",)), "busy", Unavailable)
    assert error.problem.retry_after_s == 0.5
    assert len(stage.facts("nova", Reserve(paths=("f1?",)))) == 11


def test_releasing_says_exactly_what_was_released(stage: Stage) -> None:
    one, other = reserve(stage, "atlas", "a", "b"), reserve(stage, "atlas", "b", "c/**")
    third = reserve(stage, "nova", "x")
    reply = stage.do("atlas", Release(paths=("b",)))
    assert [(gone.reservation, gone.paths) for gone in reply.released] == [(one, ("b",)), (other, ("b",))]
    assert reply.seq == stage.seq
    assert (held(stage, one).paths, held(stage, other).paths) == ({"a"}, {"c/**"})
    reply = stage.do("atlas", Release(reservations=(one,), paths=("./c/",)))
    assert [(gone.reservation, gone.paths) for gone in reply.released] == [(one, ("a",)), (other, ("c/**",))]
    assert (held(stage, one).state, held(stage, other).state) == ("released", "released")
    fourth = reserve(stage, "nova", "a", "b", "c/**")
    reply = stage.do("nova", Release(all=True))
    assert [(gone.reservation, gone.paths) for gone in reply.released] == [
        (third, ("x",)),
        (fourth, ("a", "b", "c/**")),
    ]


def test_only_what_one_holds_can_be_released(stage: Stage) -> None:
    stage.refused("atlas", Release(), "nothing_named", InvalidRequest)
    stage.refused("atlas", Release(all=True), "nothing_held", NotFound)
    stage.refused("atlas", Release(reservations=("r-0",)), "not_found", NotFound)
    id_ = reserve(stage, "atlas", "src/**", lease_s=60)
    error = stage.refused("nova", Release(reservations=(id_,)), "not_holder")
    assert error.problem.found == "held by atlas until 2030-01-01T12:01:00Z"
    stage.refused("nova", Release(paths=("src/**",)), "not_holder")
    error = stage.refused("atlas", Release(paths=("src/a.py",)), "not_holder")
    assert error.problem.found == "src/**, which overlaps"
    stage.refused("atlas", Release(reservations=(id_,), repository="lib"), "not_found", NotFound)
    stage.pass_s(60)
    error = stage.refused("atlas", Release(reservations=(id_,)), "not_holder")
    assert error.problem.found == "a lease that ended at 2030-01-01T12:01:00Z"
    stage.refused("atlas", Release(all=True), "nothing_held", NotFound)


# --- renewing -----------------------------------------------------------------------------------------------------


def test_renewing_makes_the_end_later_for_those_named_or_for_all(stage: Stage) -> None:
    one, other = reserve(stage, "atlas", "a", lease_s=60), reserve(stage, "atlas", "b", lease_s=600)
    reserve(stage, "nova", "c", lease_s=60)
    stage.pass_s(10)
    reply = stage.do("atlas", Renew())
    ends = [(renewed.reservation, renewed.expires) for renewed in reply.renewed]
    assert ends == [(one, stage.at(60)), (other, stage.at(600))]
    reply = stage.do("atlas", Renew(reservations=(other,), lease_s=700))
    assert [renewed.reservation for renewed in reply.renewed] == [other]
    assert held(stage, other).lease_s == 700
    # Never shorter: nothing changes, and the reply says how it is.
    seq = stage.seq
    again = stage.do("atlas", Renew(reservations=(other,), lease_s=1))
    assert (again.seq, again.renewed[0].expires, stage.seq) == (seq, stage.at(700), seq)


def test_renewing_what_one_does_not_hold(stage: Stage) -> None:
    stage.refused("atlas", Renew(), "nothing_held", NotFound)
    id_ = reserve(stage, "nova", "a")
    stage.refused("atlas", Renew(reservations=(id_,)), "not_holder")
    stage.refused("atlas", Renew(reservations=("r-0",)), "not_found", NotFound)


def test_a_reservation_has_a_cap() -> None:
    stage = Stage(Limits(lease_cap_s=100))
    id_ = reserve(stage, "atlas", "a", lease_s=60)
    stage.pass_s(50)
    assert stage.do("atlas", Renew()).renewed[0].expires == stage.at(50)
    error = stage.refused("atlas", Renew(reservations=(id_,)), "lease_cap")
    assert error.problem.entity == f"reservation {id_}"
    assert stage.facts("atlas", Reserve(paths=("a",))) == []


# --- strange events, and many -------------------------------------------------------------------------------------


def test_an_event_that_makes_no_sense_changes_nothing(stage: Stage) -> None:
    stage.given("atlas", "default:x", ReservationReleased(paths=("a",)))
    assert stage.state(Reservation, "default:x") is None
    id_ = reserve(stage, "atlas", "a")
    before = held(stage, id_)
    again = ReservationReserved(paths=("b",), mode="shared", lease_s=1, expires=stage.at(1), until=stage.at(1))
    for agent, fact in (
        ("nova", again),
        ("atlas", again),
        ("nova", ReservationRenewed(lease_s=1, expires=stage.at(1))),
        ("nova", ReservationReleased(paths=("a",))),
        ("atlas", ReservationReleased(paths=("b",))),
        (SYSTEM, ReservationExpired(agent="nova", paths=("a",))),
    ):
        stage.given(agent, f"default:{id_}", fact)
        assert held(stage, id_) is before
    # A key without a repository, or what nobody of ours would write, stops nothing.
    odd = ReservationReserved(paths=("[", "../x", ""), mode="odd", lease_s=1, expires=stage.at(99), until=stage.at(99))
    stage.given("iris", "odd", odd)
    stage.given("iris", "default:odd", odd)
    assert stage.facts("nova", Reserve(paths=("b", "**/*.md")))


def test_what_begins_otherwise_costs_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        path = f"src/part{number % 50}/**/file_{number}*.py" if number % 2 else f"src/deep{number}/[a-m]*.py"
        lease = {"lease_s": 600, "expires": stage.at(600), "until": stage.at(900)}
        fact = ReservationReserved(paths=(path,), mode="exclusive", **lease)
        stage.given(("atlas", "nova", "iris")[number % 3], f"default:r-{number}", fact)
    walked = []
    walk = globs._meet
    monkeypatch.setattr(globs, "_meet", lambda *what: walked.append(what) or walk(*what))
    assert stage.facts("olga", Reserve(paths=("docs/**", "src/deep/**")))
    assert walked == []
    assert stage.facts("olga", Reserve(paths=("src/deep8*/[x-z]*.py",)))
    assert 0 < len(walked) < 500


def test_what_cannot_overlap_is_not_even_compared(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        path = (f"src/part_{number}/**", f"src/part_{number}/*.py", f"docs/page-{number}.md")[number % 3]
        lease = {"lease_s": 600, "expires": stage.at(600), "until": stage.at(900)}
        fact = ReservationReserved(paths=(path,), mode="exclusive", **lease)
        stage.given(("atlas", "nova", "iris")[number % 3], f"default:r-{number}", fact)
    compared: list[frozenset[str]] = []

    def counting(patterns: Collection[str]) -> Callable[[frozenset[str]], object]:
        overlap = globs.overlapping(patterns)
        return lambda paths: compared.append(paths) or overlap(paths)

    monkeypatch.setattr(reservation_index, "overlapping", counting)
    for path in ("lib/**", "src/new.py", "src/part_x/**", "*/new-*/x.md", "[d]ocs/*.txt"):
        compared.clear()
        assert stage.facts("olga", Reserve(paths=(path,)))
        assert len(compared) <= reservation_index.FEW or path == "[d]ocs/*.txt", path
    compared.clear()
    stage.refused("olga", Reserve(paths=("src/part_7/a.py",)), "reserved")
    assert len(compared) <= reservation_index.FEW


@given(st.frozensets(st.text(max_size=30) | st.text("[]!*?-/a", max_size=1200), max_size=3))
def test_whatever_an_administrator_wrote_can_be_looked_for(paths: frozenset[str]) -> None:
    held = Reservation(repository="x", agent="atlas", mode="exclusive", reserved=1, lease_s=1, paths=paths)
    index = ReservationIndex()
    index.put("x:r-1", held)
    assert index.find(Holding("x", "atlas")) == {"x:r-1"}
    index.put("x:r-1", None)
    assert not index.find(Holding("x", "atlas"))
    assert index.find(Overlapping("x", ["**"])) == []
