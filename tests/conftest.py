"""Keeps every test away from the user's own folders, and from what a busy machine would make of it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from resilient_exporters.delivery import lane

settings.register_profile("everyday", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI decides about a change, so each of its runs tries the same examples; new ones are for every day.
settings.register_profile("ci", settings.get_profile("everyday"), derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "everyday")


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder under which default locations are derived."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def unpaced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that failed is tried again at once, however long the failure took on a busy machine.

    Tests of the pause after a slow failure ask for `paced`.
    """
    if "paced" not in request.fixturenames:
        monkeypatch.setattr(lane, "_SLOW_FAILURE", math.inf)


@pytest.fixture
def paced() -> None:
    """A target that took long to fail is left alone for a while, as it is for users."""
