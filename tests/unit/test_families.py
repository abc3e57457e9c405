"""The table of families: whoever asks for one thing finds it, and nothing else is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bus.families import MODULES, UNASKED, operation_named, operation_of, operations_of
from bus.operation import FAMILIES, OPERATIONS


def test_every_operation_is_found_by_its_name_and_by_its_request() -> None:
    for name, operation in OPERATIONS.items():
        assert operation_named(name) is operation
        assert operation_of(operation.request) is operation


def test_every_family_stands_in_the_table() -> None:
    assert {family.name for family in FAMILIES} <= set(MODULES) | {"collection"}
    assert {operation.family for operation in OPERATIONS.values()} <= set(MODULES)
    asked = {operation.family for operation in OPERATIONS.values() if not operation.internal}
    assert asked == set(MODULES) - UNASKED


def test_what_is_no_operation_is_not_found() -> None:
    assert operation_named("task.juggle") is None
    assert operation_named("juggling.begin") is None
    assert operations_of("juggling") == ()
    with pytest.raises(LookupError):
        operation_of(int)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verb", "others"), [("post", {"bus.domain.task", "bus.domain.memory"}), ("claim", {"bus.domain.vault"})]
)
def test_a_command_imports_its_own_family(verb: str, others: set[str]) -> None:
    script = f"import sys; from cli import daily; daily.daily_command({verb!r}); print(*set(sys.modules) & {others})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
