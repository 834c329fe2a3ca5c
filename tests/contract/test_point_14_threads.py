"""Point 14: calls from many threads and from inside exporters, transforms, logging and signal handlers."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
THREADS = 8
MODES: list[dict[str, Any]] = [{"num_threads": 1}, {"num_threads": 2, "wait_for_result": False}]


def hammer(work: Callable[[int], None], threads: int = THREADS) -> None:
    """Run `work(i)` in many threads at once and pass on the first error."""
    start = threading.Barrier(threads)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        start.wait()
        try:
            work(i)
        except BaseException as error:  # whatever it is, the test reports it
            errors.append(error)

    workers = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    if errors:
        raise errors[0]


class Flaky(rex.Exporter):
    """Fails every third call."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.calls = 0
        self.got: list[Any] = []
        self.lock = threading.Lock()

    def send(self, data: Any) -> rex.ExportResult:
        with self.lock:
            self.calls += 1
            if self.calls % 3 == 0:
                return rex.ExportResult(None, False)
            self.got.append(data)
        return rex.ExportResult(None, True)


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_eight_threads_lose_and_double_nothing(
    make_pool: MakePool, tmp_path: Path, use_memory: bool, num_threads: int
) -> None:
    """Eight threads that call `send`: each exporter gets every record once, those of a thread in their order."""
    good, flaky, batch = (MemoryExporter("good"), Flaky("flaky"), MemoryBatchExporter("batch"))
    pool = make_pool([good, flaky, batch], None, num_threads, use_memory=use_memory, tmp_file=tmp_path / "kept")
    each = 100

    def work(i: int) -> None:
        for number in range(each):
            assert 3 == len(pool.send((i, number)))

    hammer(work)
    while pool.has_unsent_data():
        pool.send_unsent_data()
    expected = Counter((i, number) for i in range(THREADS) for number in range(each))
    assert expected == Counter(good.got) == Counter(flaky.got) == Counter(batch.got)
    for target in (good, batch):
        for i in range(THREADS):
            assert list(range(each)) == [number for j, number in target.got if j == i]


@pytest.mark.parametrize("use_memory", [True, False])
def test_eight_threads_keep_everything(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """Eight threads that send to a dead target keep every record, those of a thread in their order."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=use_memory, tmp_file=tmp_path / "kept")
    each = 50

    def work(i: int) -> None:
        for number in range(each):
            assert pool.send((i, number))[0].kept

    hammer(work)
    target.up = True
    assert [(None, True)] * (THREADS * each) == pool.send_unsent_data()
    for i in range(THREADS):
        assert list(range(each)) == [number for j, number in target.got if j == i]


def test_one_call_at_a_time_for_each_exporter(make_pool: MakePool) -> None:
    """However many threads send, an exporter never runs twice at once."""
    targets = [MemoryExporter("a", seconds=0.0005), MemoryBatchExporter("b", seconds=0.0005)]
    pool = make_pool(targets, num_threads=4)

    def work(i: int) -> None:
        for number in range(20):
            pool.send((i, number))

    hammer(work)
    assert [1, 1] == [target.most_running for target in targets]


def test_many_send_unsent_data_at_once_deliver_once(make_pool: MakePool) -> None:
    """`send_unsent_data` from many threads delivers each record once."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    for number in range(500):
        pool.save_unsent_data(number, {}, target.name)
    target.up = True
    counts: list[int] = []
    hammer(lambda i: counts.append(len(pool.send_unsent_data())))
    assert list(range(500)) == target.got
    assert 500 == sum(counts)


def test_everything_at_once(make_pool: MakePool, tmp_path: Path) -> None:
    """Sends, re-sends, questions, switches and new exporters at the same time: nothing lost, nothing doubled."""
    first = Flaky("first")
    pool = make_pool([first], num_threads=2, tmp_file=tmp_path / "kept")
    added = [MemoryExporter(f"added{number}") for number in range(10)]

    def work(i: int) -> None:
        for number in range(60):
            if i == 0:
                if number % 6 == 0:
                    pool.add_exporter(added[number // 6])
            elif i == 1:
                pool.use_memory = not pool.use_memory
            elif i == 2:
                pool.send_unsent_data()
            elif i == 3:
                pool.has_unsent_data()
                repr(pool)
                list(pool.exporters)
                pool.status()
            else:
                pool.send((i, number))

    hammer(work)
    while pool.has_unsent_data():
        pool.send_unsent_data()
    sent = Counter((i, number) for i in range(4, THREADS) for number in range(60))
    assert sent == Counter(first.got)
    for target in added:
        assert Counter(target.got) <= sent
    assert 11 == len(pool)


class Sender(MemoryExporter):
    """Sends into a pool while it is at work itself."""

    pool: rex.ExporterPool
    results: list[Any]

    def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
        if not str(data).startswith("inner"):
            self.results = self.pool.send(f"inner {data}")
        return super().send(data, **kwargs)


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_send_from_an_exporter_into_its_own_pool_is_kept(
    make_pool: MakePool, tmp_path: Path, use_memory: bool, num_threads: int
) -> None:
    """A send from inside an exporter waits for no lane: it is kept, its result says so, and it goes out later."""
    sender, other = Sender("sender"), MemoryExporter("other")
    pool = make_pool([sender, other], None, num_threads, use_memory=use_memory, tmp_file=tmp_path / "kept")
    sender.pool = pool
    assert [(None, True)] * 2 == pool.send("a")
    assert [(None, False)] * 2 == sender.results
    assert [True, True] == [result.kept for result in sender.results]
    assert all(isinstance(result.error, rex.Queued) for result in sender.results)
    pool.send_unsent_data()
    assert ["a", "inner a"] == sender.got == other.got


def test_a_send_from_an_exporter_into_another_pool_is_kept(make_pool: MakePool) -> None:
    """A send from inside an exporter into another pool is kept there, also when two pools send to each other."""
    a, b = Sender("a"), Sender("b")
    pool_a, pool_b = make_pool([a], name="pa"), make_pool([b], name="pb")
    a.pool, b.pool = pool_b, pool_a
    pool_a.send("x")
    assert ([(None, False)], True) == (a.results, a.results[0].kept)
    assert (["x"], []) == (a.got, b.got)
    pool_b.send_unsent_data()
    pool_b.send("y")
    assert ["inner x", "y"] == b.got
    pool_a.send_unsent_data()
    assert ["x", "inner y"] == a.got


@pytest.mark.parametrize("mode", MODES, ids=["foreground", "background"])
def test_two_pools_that_send_to_each_other_in_threads_do_not_lock(make_pool: MakePool, mode: dict[str, Any]) -> None:
    """Two pools whose exporters send into each other, hammered by threads, neither lock up nor lose anything."""
    a, b = Sender("a"), Sender("b")
    pool_a, pool_b = make_pool([a], name="pa", **mode), make_pool([b], name="pb", **mode)
    a.pool, b.pool = pool_b, pool_a

    def work(i: int) -> None:
        for number in range(50):
            (pool_a if i % 2 else pool_b).send((i, number))

    hammer(work, 4)
    while pool_a.has_unsent_data() or pool_b.has_unsent_data():
        pool_a.send_unsent_data()
        pool_b.send_unsent_data()
    assert Counter(dict.fromkeys(a.got, 1)) == Counter(a.got)
    assert 200 == len(a.got) == len(b.got)


@pytest.mark.parametrize("call", ["send_unsent_data", "has_unsent_data", "flush", "use_memory", "add_exporter", "save"])
def test_other_calls_from_inside_an_exporter_do_not_lock(make_pool: MakePool, tmp_path: Path, call: str) -> None:
    """The other calls may be made from inside an exporter, too: they return or raise, and nothing is lost."""
    calls: dict[str, Callable[[], Any]] = {
        "send_unsent_data": lambda: pool.send_unsent_data(),
        "has_unsent_data": lambda: pool.has_unsent_data(),
        "flush": lambda: pool.flush(0.1),
        "use_memory": lambda: setattr(pool, "use_memory", not pool.use_memory),
        "add_exporter": lambda: pool.add_exporter(MemoryExporter()),
        "save": lambda: pool.save_unsent_data("saved", {}, "calling"),
    }

    class Calling(MemoryExporter):
        def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
            try:
                if data != "saved":
                    calls[call]()
            except rex.ResilientExporterException as error:
                refused.append(error)
            return super().send(data, **kwargs)

    refused: list[Exception] = []
    target, down = Calling("calling"), MemoryExporter("down", up=False)
    pool = make_pool([target, down], tmp_file=tmp_path / "kept")
    done: list[Any] = []
    worker = threading.Thread(target=lambda: done.append([pool.send(1), pool.send(2)]), daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive()
    assert (None, True) == done[0][0][0] == done[0][1][0]
    down.up = True
    calls[call] = lambda: None
    pool.send_unsent_data()
    assert [1, 2] == [data for data in target.got if data != "saved"] == down.got


def test_a_send_from_a_transform_is_kept(make_pool: MakePool) -> None:
    """A send from inside `transform` is kept and its result says so."""
    results: list[Any] = []

    def transform(data: Any) -> Any:
        if data == "outer":
            results.extend(pool.send("inner"))
        return data

    target = MemoryExporter()
    pool = make_pool([target], transform)
    pool.send("outer")
    pool.send_unsent_data()
    assert ([(None, False)], True) == (results, results[0].kept)
    assert {"outer", "inner"} == set(target.got)
    assert 2 == len(target.got)


class LogToPool(logging.Handler):
    """Sends each log line into a pool."""

    def __init__(self, pool: rex.ExporterPool) -> None:
        super().__init__(logging.DEBUG)
        self.pool = pool
        self.sent = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.sent += 1
        self.pool.send(f"log: {record.getMessage()}")


@pytest.mark.parametrize("background", [True, False])
def test_the_library_s_own_log_may_go_into_the_pool(make_pool: MakePool, background: bool) -> None:
    """A logging handler that sends the library's log into the pool neither locks it up nor feeds itself for ever."""
    target = MemoryExporter("t", error=OSError("down"))
    pool = make_pool([target], None, 2 if background else 1, not background)
    handler = LogToPool(pool)
    logger = logging.getLogger("resilient_exporters")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        for number in range(20):
            pool.send(number)
        target.wait_for_calls(1)
        assert handler.sent < 200
        target.error = None
        pool.send_unsent_data()
        target.wait_for(20)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert list(range(20)) == [data for data in target.got if not isinstance(data, str)]


@pytest.mark.parametrize("mode", MODES, ids=["foreground", "background"])
def test_an_exporter_may_log_into_its_own_pool(make_pool: MakePool, mode: dict[str, Any]) -> None:
    """An exporter whose client library logs, with the root logger going into the pool, does not lock up."""

    class Chatty(MemoryExporter):
        def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
            if not str(data).startswith("log"):
                logger.warning("client at work on %s", data)
            return super().send(data, **kwargs)

    target = Chatty()
    pool = make_pool([target], **mode)
    logger = logging.getLogger("client library")
    handler = LogToPool(pool)
    logger.addHandler(handler)
    try:
        pool.send(1)
        target.wait_for(1)
        pool.send_unsent_data()
        pool.send(2)
        target.wait_for(3)
        pool.send_unsent_data()
    finally:
        logger.removeHandler(handler)
    assert [1, "log: client at work on 1", 2, "log: client at work on 2"] == target.got


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_a_signal_handler_may_send_at_any_moment(run_script: Callable[..., str], place: str, mode: str) -> None:
    """A signal handler that sends while the main thread is inside `send` neither locks up nor loses anything."""
    told = run_script(
        """
        background = sys.argv[2] == "background"
        target, down = MemoryExporter("t"), MemoryExporter("d", up=False)
        pool = rex.ExporterPool([target, down], None, 2 if background else 1, not background,
                                use_memory=sys.argv[1] == "memory", tmp_file="kept", manual_reexport=True)
        import itertools
        counter, done = itertools.count(), []
        def handler(number, frame):
            pool.send(["signal", next(counter)])
            done.append(number)
            signal.setitimer(signal.ITIMER_REAL, 0.0003)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        sent = 0
        while len(done) < 20:
            pool.send(["main", sent])
            sent += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        handled = next(counter)
        down.up = True
        pool.send_unsent_data()
        pool.flush(60)
        wanted = sorted([["main", n] for n in range(sent)] + [["signal", n] for n in range(handled)])
        tell([sorted(target.got) == wanted, sorted(down.got) == wanted])
        pool.close()
        """,
        place,
        mode,
    )
    assert [True, True] == json.loads(told)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("place", ["memory", "file"])
def test_an_interrupt_at_any_moment_leaves_a_pool_that_works(run_script: Callable[..., str], place: str) -> None:
    """KeyboardInterrupt at any moment inside `send` locks nothing up: what `send` accepted arrives, and that once.

    A record whose `send` was interrupted is in doubt, for the exporter may have had it already: it may come twice.
    """
    told = run_script(
        """
        import faulthandler, random
        faulthandler.dump_traceback_later(50, exit=True)
        class Bare(rex.Exporter):
            def __init__(self, name, up):
                super().__init__(name=name)
                self.got, self.up = [], up
            def send(self, data):
                if self.up:
                    self.got.append(data)
                return rex.ExportResult(None, self.up)
        target, down = Bare("t", True), Bare("d", False)
        pool = rex.ExporterPool([target, down], use_memory=sys.argv[1] == "memory", tmp_file="kept",
                                manual_reexport=True)
        came = threading.Event()
        def handler(number, frame):
            came.set()
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, handler)
        random.seed(1)
        accepted, interrupted, number = [], set(), 0
        # A function: from 3.12 on, what is raised where a loop jumps back may pass by the `except` around it.
        def send_until_it_comes():
            global number
            came.clear()
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.001))
            while not came.is_set():
                number += 1
                pool.send(number)
                accepted.append(number)
        for _ in range(300):
            try:
                send_until_it_comes()
            except KeyboardInterrupt:
                interrupted.add(number)
        down.up = True
        while pool.has_unsent_data():
            pool.send_unsent_data()
        tell([len(interrupted) > 100, [set(accepted) <= set(t.got) for t in (target, down)],
              [not set(accepted) & {n for n in t.got if t.got.count(n) > 1} for t in (target, down)]])
        pool.close()
        """,
        place,
    )
    assert [True, [True, True], [True, True]] == json.loads(told)


def test_a_finalizer_may_send(make_pool: MakePool) -> None:
    """An object whose finalizer sends may die inside an exporter."""

    class Dying:
        def __del__(self) -> None:
            results.extend(pool.send("from the finalizer"))

    class Killing(MemoryExporter):
        def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
            if data == "kill":
                Dying()
            return super().send(data, **kwargs)

    results: list[Any] = []
    target = Killing()
    pool = make_pool([target])
    pool.send("kill")
    pool.send_unsent_data()
    assert [True] == [result.kept for result in results]
    assert ["kill", "from the finalizer"] == target.got
