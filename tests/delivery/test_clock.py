"""The clock that tests turn by hand."""

from __future__ import annotations

import pytest

from resilient_exporters.testing import ManualClock


def test_time_passes_on_command_only() -> None:
    """Both clocks stand still until they are turned, and go together."""
    clock = ManualClock(now=5.0, time=100.0)
    assert (5.0, 100.0) == (clock.now(), clock.time())
    clock.advance(2.5)
    assert (7.5, 102.5) == (clock.now(), clock.time())


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_time_does_not_go_backwards(seconds: float) -> None:
    """The clock for intervals never jumps back; the one that people read may be set."""
    clock = ManualClock(now=5.0)
    with pytest.raises(ValueError, match="seconds"):
        clock.advance(seconds)
    clock.set_time(1.0)
    assert (5.0, 1.0) == (clock.now(), clock.time())
