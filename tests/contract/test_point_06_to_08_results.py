"""Points 6 to 8: every exporter is tried, what failed is kept, and the result says what happened."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
THREADS = [1, 3]


class UnprintableError(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class OddError(BaseException):
    """An error out of the usual tree."""


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(
    "error",
    [ValueError("boom"), UnprintableError(), OddError(), asyncio.CancelledError(), StopIteration(), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_an_exporter_that_raises_skips_nobody(make_pool: MakePool, threads: int, error: BaseException) -> None:
    """An exporter that raises gives `(None, False)` with the exception, and those around it get the record."""
    before, bad, behind = (MemoryExporter("before"), MemoryExporter("bad", error=error), MemoryExporter("behind"))
    pool = make_pool([before, bad, behind], num_threads=threads)
    results = pool.send("x")
    assert [(None, True), (None, False), (None, True)] == results
    assert error is results[1].error
    assert [None, None] == [results[0].error, results[2].error]
    assert [False, True, False] == [result.kept for result in results]
    assert (["x"], ["x"]) == (before.got, behind.got)
    bad.error = None
    pool.send_unsent_data()
    assert (["x"], ["x"], ["x"]) == (before.got, bad.got, behind.got)


def test_a_record_held_back_says_how_many_are_before_it(make_pool: MakePool) -> None:
    """Behind a target that is down a record is Queued, with the number before it and the last failure as cause."""
    target = MemoryBatchExporter(up=False)
    pool = make_pool([target])
    first = pool.send(0)[0]
    assert isinstance(first.error, rex.TargetDown)
    for before in (1, 2, 3):
        (result,) = pool.send(before)
        assert [(None, False)] == [result]
        assert result.kept
        assert isinstance(result.error, rex.Queued)
        assert before == result.error.before
        assert isinstance(result.error.__cause__, rex.TargetDown)
    target.up = True
    assert [(None, True)] == pool.send(4)
    assert [0, 1, 2, 3, 4] == target.got


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("use_memory", [True, False])
def test_interrupts_reach_the_caller_after_keeping(
    make_pool: MakePool, tmp_path: Path, threads: int, error: BaseException, use_memory: bool
) -> None:
    """KeyboardInterrupt and SystemExit reach the caller, and whoever lacks the record is owed it."""
    before, bad, behind = (MemoryExporter("before"), MemoryExporter("bad", error=error), MemoryExporter("behind"))
    pool = make_pool([before, bad, behind], num_threads=threads, use_memory=use_memory, tmp_file=tmp_path / "kept")
    with pytest.raises(type(error)) as raised:
        pool.send("x")
    assert error is raised.value
    assert pool.has_unsent_data()
    bad.error = None
    pool.send("y")
    assert ["x", "y"] == before.got == bad.got == behind.got


def test_an_interrupt_in_a_pass_over_kept_records_loses_nothing(make_pool: MakePool) -> None:
    """When re-sending is interrupted, what is kept stays kept, and the new record is kept as well."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    pool.send(1)
    pool.send(2)
    target.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool.send(3)
    with pytest.raises(KeyboardInterrupt):
        pool.send_unsent_data()
    target.up, target.error = True, None
    pool.send(4)
    assert [1, 2, 3, 4] == target.got


class Returning(rex.Exporter):
    """Returns whatever it was told to."""

    def __init__(self, answer: Any, name: str = "returning") -> None:
        super().__init__(name=name)
        self.answer = answer
        self.calls = 0

    def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
        self.calls += 1
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("answer", [None, True, (None, True), [None, True], "ok", 1, object()])
def test_what_is_no_result_counts_as_failed(make_pool: MakePool, answer: Any) -> None:
    """A `send` that returns anything but an ExportResult failed, with an error that says so."""
    target, other = Returning(answer), MemoryExporter("other")
    pool = make_pool([target, other])
    result, fine = pool.send("x")
    assert ((None, False), (None, True)) == (result, fine)
    assert result.kept
    assert "ExportResult" in str(result.error)
    target.answer = rex.ExportResult(5, True)
    assert [(5, True)] == pool.send_unsent_data()


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_send_counts_as_failed(make_pool: MakePool) -> None:
    """An exporter whose `send` is a coroutine or generator function by mistake fails by itself, and says why."""

    class Async(rex.Exporter):
        async def send(self, data: Any) -> rex.ExportResult:  # type: ignore[override]  # the mistake
            return rex.ExportResult(None, True)

    class Generating(rex.Exporter):
        def send(self, data: Any) -> Any:
            yield rex.ExportResult(None, True)

    results = make_pool([Async(), Generating(), MemoryExporter()]).send(1)
    assert [(None, False), (None, False), (None, True)] == results
    assert "coroutine" in str(results[0].error)
    assert "generator" in str(results[1].error)


def test_a_result_of_a_subclass_counts(make_pool: MakePool) -> None:
    """A subclass of ExportResult is a result."""

    class Special(rex.ExportResult):
        pass

    assert [("r", True)] == make_pool([Returning(Special("r", True))]).send("x")


def test_swapped_fields_count_as_failed(make_pool: MakePool) -> None:
    """`ExportResult(False, None)` is a failure like any other, and the record is kept."""
    target = Returning(rex.ExportResult(False, None))  # type: ignore[arg-type]
    pool = make_pool([target])
    (result,) = pool.send("x")
    assert not result.successful
    assert result.kept
    target.answer = rex.ExportResult(None, True)
    pool.send_unsent_data()
    assert not pool.has_unsent_data()


def test_an_error_that_the_exporter_reports_is_passed_on(make_pool: MakePool) -> None:
    """An exporter that returns a failed result with an error of its own has that error in the pool's result."""
    error = ValueError("mine")
    (result,) = make_pool([Returning(rex.ExportResult(None, False, error=error))]).send("x")
    assert error is result.error


def test_an_exporter_s_own_transform_that_raises_is_its_failure(make_pool: MakePool) -> None:
    """An exporter's own `transform` that raises counts as that exporter's failure, and the record is kept raw."""
    broken = [True]

    def transform(data: Any) -> Any:
        if broken[0]:
            raise ValueError("cannot")
        return data * 10

    a, bad, b = (MemoryExporter("a"), MemoryExporter("bad", transform=transform), MemoryExporter("b"))
    pool = make_pool([a, bad, b])
    results = pool.send(1)
    assert [True, False, True] == [result.successful for result in results]
    assert isinstance(results[1].error, ValueError)
    assert 0 == bad.calls
    broken[0] = False
    pool.send_unsent_data()
    assert ([1], [10], [1]) == (a.got, bad.got, b.got)


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("threads", THREADS)
def test_kept_for_those_that_failed_and_no_others(
    make_pool: MakePool, tmp_path: Path, use_memory: bool, threads: int
) -> None:
    """When `send` returns, each exporter has the record or is owed it; nobody gets it twice."""
    a, bad, c = (MemoryExporter("a"), MemoryExporter("bad", up=False), MemoryExporter("c"))
    pool = make_pool([a, bad, c], num_threads=threads, use_memory=use_memory, tmp_file=tmp_path / "kept")
    for number in range(3):
        assert [False, True, False] == [result.kept for result in pool.send(number)]
    assert ([0, 1, 2], [], [0, 1, 2]) == (a.got, bad.got, c.got)
    bad.up = True
    results = pool.send_unsent_data()
    assert ["bad"] * 3 == [result.exporter for result in results]
    assert [0, 1, 2] == a.got == bad.got == c.got
    assert not pool.has_unsent_data()


def test_without_saving_a_failed_record_is_dropped(make_pool: MakePool) -> None:
    """With `save_unsent_data=False` what fails is dropped, and the result says that it was not kept."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad], save_unsent_data=False)
    fine, result = pool.send(1)
    assert ((None, True), (None, False)) == (fine, result)
    assert not result.kept
    assert not pool.has_unsent_data()
    bad.up = True
    pool.send(2)
    assert ([1, 2], [2]) == (ok.got, bad.got)


def test_without_saving_the_flag_rules_exporters_added_later(make_pool: MakePool) -> None:
    """The flag holds for exporters that are added later, whatever their own flag says."""
    bad = MemoryExporter("bad", up=False, save_unsent_data=True)
    pool = make_pool([], save_unsent_data=False)
    pool.add_exporter(bad)
    assert not pool.send(1)[0].kept
    assert not pool.has_unsent_data()
    keeps = make_pool([], name="keeps")
    keeps.add_exporter(MemoryExporter("bad", up=False, save_unsent_data=False))
    assert keeps.send(1)[0].kept


def test_a_record_behind_older_ones_counts_as_not_yet_taken(make_pool: MakePool) -> None:
    """A record that had to queue behind older ones of the same exporter is `(None, False)`, kept."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    for number in range(12):
        pool.save_unsent_data(number, {}, target.name)
    (result,) = pool.send(12)
    assert ((None, False), True) == (result, result.kept)
    assert isinstance(result.error, rex.Queued)
    assert 12 == result.error.before
    assert 1 == target.calls


def test_a_result_is_a_pair() -> None:
    """`ExportResult` is built from, unpacks as and equals the pair `(returned, successful)`."""
    returned, successful = rex.ExportResult("r", True)
    assert ("r", True) == (returned, successful) == rex.ExportResult("r", True)
    result = rex.ExportResult(returned="r", successful=False)
    assert ("r", False) == (result.returned, result.successful) == (result[0], result[1])
    assert (None, None, False) == (result.error, result.exporter, result.kept)
    assert 2 == len(result)
    assert result == pickle.loads(pickle.dumps(result))


def test_a_result_carries_what_happened(make_pool: MakePool) -> None:
    """A result of a pool also carries `error`, `exporter` (the name) and `kept`."""
    pool = make_pool([MemoryExporter("good", returned={"id": 7}), MemoryExporter("bad", up=False)])
    good, bad = pool.send(1)
    assert ({"id": 7}, True, None, "good", False) == (*good, good.error, good.exporter, good.kept)
    assert (None, False, "bad", True) == (*bad, bad.exporter, bad.kept)
    assert isinstance(bad.error, rex.ExportError)


def test_a_result_that_the_exporter_reuses_is_not_changed(make_pool: MakePool) -> None:
    """An exporter may return the same result object each time: results of other calls are not altered by it."""
    shared = rex.ExportResult("same", True)
    pool = make_pool([Returning(shared, "one"), Returning(shared, "two")])
    assert ["one", "two"] == [result.exporter for result in pool.send(1)]


def test_every_exporter_has_a_result_also_when_all_fail(make_pool: MakePool) -> None:
    """Ten exporters that fail in ten ways give ten results in order."""
    errors: list[Any] = [ValueError(str(number)) for number in range(10)]
    pool = make_pool([MemoryExporter(f"t{n}", error=error) for n, error in enumerate(errors)], num_threads=4)
    assert errors == [result.error for result in pool.send(1)]
