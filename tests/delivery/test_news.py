"""News of a target: a change is told once, and what comes and goes only once in a while."""

from __future__ import annotations

import pytest

from resilient_exporters.delivery.attempt import Again, Hold
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.news import News
from resilient_exporters.status import Event
from resilient_exporters.testing.clock import ManualClock


class Desk:
    """News of a lane that owes three records, and what observers have heard of it."""

    def __init__(self) -> None:
        self.clock = ManualClock(now=1000.0)
        self.told: list[Event] = []
        self.news = News("t", self.clock, Events("pool", self.clock, [self.told.append]), lambda: 3)

    def names(self) -> list[str]:
        return [event.what for event in self.told]


AWAY = Again(ConnectionError("gone"))


def test_a_change_is_told_with_what_is_owed() -> None:
    """An event names the exporter, the records that wait and the error."""
    desk = Desk()
    desk.news.trouble(AWAY)
    desk.news.up()
    assert [("target_down", "t", 3, "ConnectionError: gone"), ("target_up", "t", 3, None)] == [
        (event.what, event.exporter, event.records, event.error) for event in desk.told
    ]


def test_a_target_that_comes_and_goes_is_told_once_in_a_minute() -> None:
    """Of many outages in a row the first is told, with its end; after a minute the next one is."""
    desk = Desk()
    for _ in range(60):
        desk.news.trouble(AWAY)
        desk.news.up()
        desk.clock.advance(1.0)
    assert ["target_down", "target_up"] == desk.names()
    desk.news.trouble(AWAY)
    assert ["target_down", "target_up", "target_down"] == desk.names()


def test_the_end_of_told_trouble_is_told() -> None:
    """A target that was told to be held and then goes down unheard is still told to be up in the end."""
    desk = Desk()
    desk.news.trouble(AWAY)
    desk.news.up()
    desk.news.trouble(Hold(PermissionError("no")))
    desk.news.trouble(AWAY)
    desk.news.up()
    assert ["target_down", "target_up", "target_held", "target_up"] == desk.names()


@pytest.mark.parametrize(("after", "told"), [(59.0, 1), (60.0, 2)])
def test_dead_letters_are_told_once_in_a_minute(after: float, told: int) -> None:
    """One bad record between good ones is announced once in a minute."""
    desk = Desk()
    desk.news.dead(1, None)
    desk.clock.advance(after)
    desk.news.dead(1, None)
    assert ["records_dead"] * told == desk.names()
