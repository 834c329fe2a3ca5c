"""Points 15 and 16: exporters side by side, slow and hung targets, and sends that do not wait."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
PATIENCE = 30.0
"""Seconds until something that does not come is given up."""


class Threads(MemoryExporter):
    """Notes the threads that call it."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.threads: set[threading.Thread] = set()

    def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
        self.threads.add(threading.current_thread())
        return super().send(data, **kwargs)


@contextmanager
def released(*targets: MemoryExporter | MemoryBatchExporter) -> Iterator[None]:
    """Lets hanging targets go on, whatever the test found."""
    try:
        yield
    finally:
        for target in targets:
            target.release()


class Meeting:
    """Exporters that go on when so many of them were running at once.

    Attributes:
        wanted: How many.
        most: The most that ever were.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.most = 0
        self._running = 0
        self._changed = threading.Condition()

    def exporters(self, count: int) -> list[rex.Exporter]:
        """Exporters that meet."""
        meeting = self

        class Guest(rex.Exporter):
            def send(self, data: Any) -> rex.ExportResult:
                meeting.attend()
                return rex.ExportResult(None, True)

        return [Guest(name=f"guest{number}") for number in range(count)]

    def attend(self) -> None:
        """Come, and go when enough have come."""
        with self._changed:
            self._running += 1
            self.most = max(self.most, self._running)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.most >= self.wanted, PATIENCE), self.most
            self._running -= 1

    def again(self, wanted: int) -> None:
        """Begin anew."""
        self.wanted, self.most = wanted, 0


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_exporters_run_side_by_side(make_pool: MakePool, num_threads: int) -> None:
    """Of four exporters as many run at once as there are threads, and never more."""
    meeting = Meeting(num_threads)
    pool = make_pool(meeting.exporters(4), num_threads=num_threads)
    for number in range(3):
        meeting.again(num_threads)
        assert [(None, True)] * 4 == pool.send(number)
        assert num_threads == meeting.most


def test_threads_live_as_long_as_the_pool(make_pool: MakePool) -> None:
    """Threads are made once, not per call, and end with the pool."""
    before = threading.active_count()
    targets = [Threads(f"t{n}", seconds=0.001) for n in range(4)]
    pool = make_pool(targets, num_threads=4)
    for number in range(50):
        pool.send(number)
    used = set.union(*(target.threads for target in targets))
    assert len(used - {threading.current_thread()}) <= 4
    assert threading.active_count() <= before + 5
    pool.close()
    for thread in used - {threading.current_thread()}:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_one_thread_means_no_thread(make_pool: MakePool) -> None:
    """With `num_threads=1` everything happens in the caller's thread."""
    before = set(threading.enumerate())
    target = Threads("t", up=False)
    pool = make_pool([target, Threads("u")])
    pool.send(1)
    target.up = True
    pool.send(2)
    assert {threading.current_thread()} == target.threads
    assert set(threading.enumerate()) <= before


def test_instant_targets_are_not_slowed_down_by_threads(make_pool: MakePool) -> None:
    """Four instant targets with four threads cost less than with threads made for each call: 27 times one thread."""

    def cost(num_threads: int) -> float:
        pool = make_pool([MemoryExporter(f"t{n}") for n in range(4)], num_threads=num_threads)
        pool.send(0)
        started = time.perf_counter()
        for number in range(200):
            pool.send(number)
        return time.perf_counter() - started

    # Once is enough: a machine that is busy with something else makes threads dearer, never cheaper.
    assert any(cost(4) < 27 * cost(1) for _ in range(50))


def test_num_threads_may_be_assigned(make_pool: MakePool) -> None:
    """`num_threads` rules from the next `send`."""
    meeting = Meeting(1)
    pool = make_pool(meeting.exporters(4))
    for num_threads in (1, 4, 2, 1):
        pool.num_threads = num_threads
        meeting.again(num_threads)
        assert [(None, True)] * 4 == pool.send(num_threads)
        assert num_threads == meeting.most


def test_hung_targets_never_starve_the_others(make_pool: MakePool) -> None:
    """In the background, calls that run over a second do not count: two threads serve the fourth target, too."""
    hung = [MemoryExporter(f"hung{n}") for n in range(3)]
    well = MemoryExporter("well")
    for target in hung:
        target.hang()
    pool = make_pool([*hung, well], None, 2, False)
    with released(*hung):
        pool.send(1)
        well.wait_for(1, timeout=PATIENCE)
        pool.send(2)
        well.wait_for(2, timeout=PATIENCE)
        assert [1, 1, 1] == [target.calls for target in hung]
    for target in hung:
        target.wait_for(2)
        assert [1, 2] == target.got


class Listening(logging.Handler):
    """Collects log lines and wakes who waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with self.changed:
            self.lines.append(record.getMessage())
            self.changed.notify_all()

    def wait_for(self, word: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: any(word in line for line in self.lines), PATIENCE), self.lines


@pytest.fixture
def log() -> Iterator[Listening]:
    """What the library logs at the level of a warning and above."""
    handler = Listening()
    logger = logging.getLogger("resilient_exporters")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
def test_after_its_time_a_call_is_reported_as_hung(
    make_pool: MakePool, log: Listening, kind: Callable[..., Any]
) -> None:
    """After `timeout` seconds a call is reported as hung; its lane stays closed until it ends, and order holds."""
    target = kind("slowpoke", timeout=0.2)
    target.hang()
    pool = make_pool([target], None, 2, False)
    with released(target):
        pool.send(1)
        target.wait_for_calls(1)
        pool.send(2)
        log.wait_for("slowpoke")
        pool.send(3)
        assert 1 == target.calls
        assert pool.has_unsent_data()
    target.wait_for(3)
    assert [1, 2, 3] == target.got
    assert 1 == target.most_running


def test_a_waiting_send_gives_up_on_a_hung_target_in_threads(make_pool: MakePool) -> None:
    """With threads and waiting, a target that hangs beyond its `timeout` does not hold back `send` for ever."""
    hung, well = MemoryExporter("hung", timeout=0.2), MemoryExporter("well")
    hung.hang()
    pool = make_pool([hung, well], num_threads=2)
    with released(hung):
        results: list[Any] = []
        caller = threading.Thread(target=lambda: results.extend(pool.send(1)), daemon=True)
        caller.start()
        caller.join(PATIENCE)
        assert not caller.is_alive()
        assert [(None, False), (None, True)] == results
        assert results[0].kept
        assert isinstance(results[0].error, TimeoutError | rex.Queued)
    hung.wait_for(1)
    pool.flush(PATIENCE)
    assert [1] == hung.got


def test_in_the_caller_s_thread_nothing_is_cut_off(make_pool: MakePool) -> None:
    """In the caller's thread a call that takes longer than `timeout` and succeeds is a success."""
    target = MemoryExporter(seconds=0.1, timeout=0.01)
    assert [(None, True)] == make_pool([target]).send(1)
    assert (None, True) == MemoryExporter(seconds=0.1, timeout=0.01).send(1)


@pytest.mark.parametrize("use_memory", [True, False])
def test_without_waiting_send_returns_at_once(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """`wait_for_result=False` with threads: `send` returns None at once, whatever the targets do, and has kept."""
    hung, slow, dead = (MemoryExporter("hung"), MemoryExporter("slow", seconds=0.002), MemoryExporter("dead", up=False))
    hung.hang()
    pool = make_pool([hung, slow, dead], None, 3, False, use_memory, tmp_file=tmp_path / "kept")
    with released(hung):
        started = time.perf_counter()
        for number in range(500):
            results: Any = pool.send(number)
            assert None is results
            assert pool.has_unsent_data()
        assert time.perf_counter() - started < PATIENCE
    dead.up = True
    pool.flush(30)
    # The pass that is under way when the dead one comes back goes on behind the record that it tried in vain.
    assert list(range(500)) == hung.got == slow.got == sorted(dead.got)
    assert not pool.has_unsent_data()


@pytest.mark.parametrize("error", [None, ValueError("boom"), KeyboardInterrupt(), SystemExit()])
def test_in_the_background_failures_are_kept_and_retried(make_pool: MakePool, error: BaseException | None) -> None:
    """In the background what fails or raises stays kept and is tried again by itself."""
    target = MemoryExporter("t", up=False, error=error)
    pool = make_pool([target], None, 2, False)
    pool.send(1)
    target.wait_for_calls(1)
    assert pool.has_unsent_data()
    target.up, target.error = True, None
    target.wait_for(1, timeout=PATIENCE)
    assert [1] == target.got


def test_in_the_background_the_record_is_on_disk_when_send_returns(run_script: Callable[..., str]) -> None:
    """A process that is killed right after `send` returned has left the record on disk."""
    script = """
        target = MemoryExporter("t")
        if sys.argv[1] == "first":
            target.hang()
        pool = rex.ExporterPool([target], None, 2, False, use_memory=False, tmp_file="kept")
        if sys.argv[1] == "first":
            for number in range(200):
                pool.send(number)
            die()
        pool.flush(30)
        tell(target.got)
        pool.close()
    """
    run_script(script, "first", killed=True)
    assert list(range(200)) == json.loads(run_script(script, "second"))


def test_in_the_background_without_saving_one_attempt_is_made(make_pool: MakePool, tmp_path: Path) -> None:
    """With `save_unsent_data=False` a record waits in memory for its first attempt and is dropped when that fails."""
    target = MemoryExporter("t", up=False)
    target.hang()
    pool = make_pool([target], None, 2, False, False, tmp_file=tmp_path / "kept", save_unsent_data=False)
    with released(target):
        pool.send(1)
        assert pool.has_unsent_data()
        assert not (tmp_path / "kept").exists()
    target.wait_for_calls(1)
    pool.flush(PATIENCE)
    assert not pool.has_unsent_data()
    target.up = True
    pool.send(2)
    target.wait_for(1)
    assert [2] == target.got


def test_with_one_thread_wait_for_result_has_no_effect(make_pool: MakePool) -> None:
    """With `num_threads=1` results are returned although `wait_for_result=False`."""
    assert [(None, True)] == make_pool([MemoryExporter()], None, 1, False).send(1)


def test_the_mode_may_be_changed(make_pool: MakePool) -> None:
    """`wait_for_result` may be assigned; what was sent in either mode keeps its order."""
    target = MemoryExporter(seconds=0.001)
    pool = make_pool([target], None, 2, True)
    numbers = iter(range(60))
    for round_ in range(6):
        pool.wait_for_result = round_ % 2 == 0
        for _ in range(10):
            results: Any = pool.send(next(numbers))
            assert (results is not None) is pool.wait_for_result
    pool.flush(PATIENCE)
    assert list(range(60)) == target.got


def test_a_bad_record_does_not_stop_the_background(make_pool: MakePool) -> None:
    """In the background one bad record does not stop the good ones behind it."""
    target = MemoryExporter("t", refuse=lambda data: data == "bad")
    pool = make_pool([target], None, 2, False)
    for data in ("a", "bad", "b", "c"):
        pool.send(data)
    target.wait_for(3, timeout=PATIENCE)
    assert ["a", "b", "c"] == target.got
