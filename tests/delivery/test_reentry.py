"""What a thread is inside of."""

from __future__ import annotations

import threading

import pytest

from resilient_exporters.delivery.reentry import at_work, inside


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
