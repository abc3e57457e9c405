"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest

from tests.unit.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
