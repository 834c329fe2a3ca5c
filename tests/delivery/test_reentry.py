"""What a thread is inside of."""

from __future__ import annotations

import threading

import pytest

from resilient_exporters.delivery.reentry import Here, at_work, inside
from tests.delivery.targets import in_threads


def test_a_job_is_marked_while_it_runs() -> None:
    """The mark is there during the job, nested as often as it is, and gone after it."""
    assert [0, 1, 2, 1, 0] == [
        inside.here.calls,
        *at_work(lambda: [inside.here.calls, at_work(lambda: inside.here.calls), inside.here.calls]),
        inside.here.calls,
    ]


def test_an_error_takes_the_mark_off() -> None:
    """A job that raises, an interrupt too, leaves no mark."""

    def job() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_work(job)
    assert 0 == inside.here.calls


def test_other_threads_are_not_marked() -> None:
    """The mark is the thread's own."""
    seen: list[tuple[int, object]] = []

    def job() -> None:
        thread = threading.Thread(target=lambda: seen.append((inside.here.calls, inside.here.exporter)))
        thread.start()
        thread.join()

    at_work(job)
    assert [(0, None)] == seen


def test_a_finalizer_may_ask_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a thread whose own object is just being made, where a garbage collection may begin."""
    found: list[tuple[str, int]] = []
    make = Here.__init__

    def making(here: Here) -> None:
        found.append((threading.current_thread().name, inside.here.calls))
        make(here)

    monkeypatch.setattr(Here, "__init__", making)
    in_threads(lambda: at_work(lambda: found.append(("work", inside.here.calls))))
    assert [0, 1] == [calls for _, calls in found]
