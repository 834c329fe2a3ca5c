"""Point 22: what is kept outlives the process, however it ends; what is in memory is announced."""

from __future__ import annotations

import gc
import json
import logging
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter
from tests.counts import RUNS

MakePool = Callable[..., rex.ExporterPool]

FILL = """
    names = sys.argv[2:]
    pool = rex.ExporterPool([MemoryExporter(name, up=False) for name in names], use_memory=False, tmp_file="kept")
    for number in range(1000):
        pool.send({"i": number, "from": sys.argv[1]}, table="t")
    if sys.argv[1] == "killed":
        die()
    if sys.argv[1] == "closed":
        pool.close()
    if sys.argv[1] == "raised":
        raise SystemExit(0)
"""

DELIVER = """
    target = MemoryExporter("t")
    pool = rex.ExporterPool([target], use_memory=False, tmp_file="kept")
    tell([pool.has_unsent_data(), len(pool.send_unsent_data()), target.got == sorted(target.got, key=lambda d: d["i"]),
          [d["i"] for d in target.got] == list(range(1000)), target.kwargs == [{"table": "t"}] * 1000,
          pool.has_unsent_data()])
    pool.close()
"""


@pytest.mark.parametrize("ending", ["closed", "killed", "left", "raised"])
def test_a_new_process_finds_and_delivers_everything(run_script: Callable[..., str], ending: str) -> None:
    """However a process ended, the next one with the same file owes and delivers all that was kept, in order, once."""
    run_script(FILL, ending, "t", killed=ending == "killed")
    assert [True, 1000, True, True, True, False] == json.loads(run_script(DELIVER))
    again = json.loads(run_script(DELIVER))
    assert [False, 0] == again[:2]


def test_only_what_is_owed_comes_back(make_pool: MakePool, tmp_path: Path) -> None:
    """After a restart a target gets nothing that it took before."""
    a, b = MemoryExporter("a"), MemoryExporter("b", up=False)
    pool = make_pool([a, b], use_memory=False, tmp_file=tmp_path / "kept")
    for number in range(10):
        pool.send(number)
    b.up, a.up = True, False
    for number in range(10, 15):
        pool.send(number)
    pool.close()
    a2, b2 = MemoryExporter("a"), MemoryExporter("b")
    make_pool([a2, b2], use_memory=False, tmp_file=tmp_path / "kept").send(15)
    assert list(range(16)) == a.got + a2.got == b.got + b2.got


def test_half_a_delivery_then_a_restart(make_pool: MakePool, tmp_path: Path) -> None:
    """What went out before the restart does not go out again after it."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    for number in range(50):
        pool.send(number)
    target.up = True
    target.refuse = lambda data: data >= 25
    pool.send_unsent_data()
    assert list(range(25)) == target.got
    pool.close()
    successor = MemoryExporter("t")
    make_pool([successor], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert list(range(25, 50)) == successor.got


def test_many_restarts(make_pool: MakePool, tmp_path: Path) -> None:
    """Ten runs that keep more and deliver some: everything arrives once, in order."""
    got: list[int] = []
    for run in range(10):
        target = MemoryExporter("t", up=run % 3 == 2)
        pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
        for number in range(20):
            pool.send(run * 20 + number)
        pool.close()
        got += target.got
    target = MemoryExporter("t")
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send_unsent_data()
    assert list(range(200)) == got + target.got


VICTIM = """
import itertools, sys
import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter
run, background = sys.argv[1], sys.argv[2] == "background"
flaky = MemoryExporter("down", up=False)
pool = rex.ExporterPool([rex.FileExporter("arrived.txt", name="file"), flaky], None, 2 if background else 1,
                        not background, use_memory=False, tmp_file="kept")
print("ready", flush=True)
for number in itertools.count():
    pool.send(f"{run}:{number}")
    sys.stdout.write(f"{run}:{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, mode: str) -> None:
    """Killed again and again at random moments: all that `send` had accepted arrives at every target, in order."""
    rng = random.Random(5)
    accepted: list[str] = []
    for run in range(RUNS):
        command = [sys.executable, "-c", VICTIM, str(run), mode]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            assert "ready\n" == victim.stdout.readline()
            lines = [victim.stdout.readline() for _ in range(rng.randrange(1, 600))]
            victim.send_signal(signal.SIGKILL)
            lines += victim.stdout.readlines()
        accepted += [line.strip() for line in lines if line.endswith("\n")]
    late = MemoryExporter("down")
    pool = rex.ExporterPool(
        [rex.FileExporter(tmp_path / "arrived.txt", name="file"), late], use_memory=False, tmp_file=tmp_path / "kept"
    )
    while pool.has_unsent_data():
        pool.send_unsent_data()
    pool.close()
    arrived = (tmp_path / "arrived.txt").read_text().splitlines()
    for got in (arrived, late.got):
        assert set() == set(accepted) - set(got)
        assert len(got) <= len(accepted) + 2 * RUNS * (1 if got is late.got else 1000)
        for run in range(RUNS):
            numbers = list(dict.fromkeys(int(line.split(":")[1]) for line in got if line.startswith(f"{run}:")))
            assert list(range(len(numbers))) == numbers


def test_what_a_file_exporter_reported_survives_kill_9(run_script: Callable[..., str], tmp_path: Path) -> None:
    """Every line that a file exporter reported as taken is in the file after kill -9."""
    run_script(
        """
        pool = rex.ExporterPool([rex.FileExporter("lines")])
        for number in range(1000):
            assert pool.send(number)[0].successful
        die()
        """,
        killed=True,
    )
    assert [str(number) for number in range(1000)] == (tmp_path / "lines").read_text().split()


def test_a_dropped_pool_that_owes_in_memory_warns(caplog: pytest.LogCaptureFixture) -> None:
    """A pool dropped without `close` that owes records in memory says how many, as ResourceWarning and in the log."""
    pool = rex.ExporterPool([MemoryExporter(up=False)], name="careless")
    for number in range(7):
        pool.send(number)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING, "resilient_exporters"):
        warnings.simplefilter("always")
        del pool
        gc.collect()
    (warning,) = [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)]
    assert "7" in warning
    assert "careless" in warning
    assert any("7" in line and "careless" in line for line in map(describe, caplog.records))


def describe(record: logging.LogRecord) -> str:
    """A log line with all of its fields."""
    return f"{record.getMessage()} {record.__dict__}"


def test_a_closed_pool_that_owes_in_memory_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A pool that is closed owing records in memory says in the log how many are lost."""
    pool = rex.ExporterPool([MemoryExporter(up=False)], name="ending")
    for number in range(7):
        pool.send(number)
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        pool.close()
    assert any("7" in line and "ending" in line for line in map(describe, caplog.records))


def test_a_pool_that_owes_nothing_ends_in_silence(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Neither a pool that owes nothing nor one that owes on disk gives a ResourceWarning for records in memory."""
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING, "resilient_exporters"):
        warnings.simplefilter("always")
        pool: Any = rex.ExporterPool([MemoryExporter()])
        pool.send(1)
        del pool
        gc.collect()
    assert [] == [str(warning.message) for warning in caught]
    assert [] == caplog.records


@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_a_program_that_ends_owing_in_memory_says_how_many(run_script: Callable[..., str], mode: str) -> None:
    """At the end of the program the log says how many records in memory are lost."""
    told = run_script(
        """
        import logging
        logging.basicConfig(level=logging.WARNING)
        background = sys.argv[1] == "background"
        target = MemoryExporter(error=OSError("down"))
        pool = rex.ExporterPool([target], None, 2 if background else 1, not background, name="leaving")
        for number in range(7):
            pool.send(number)
        """,
        mode,
        stderr=True,
    )
    assert any("leaving" in line and "7" in line for line in told.splitlines()), told


def test_at_exit_the_background_delivers_what_it_can(run_script: Callable[..., str], tmp_path: Path) -> None:
    """At the end of the program a background pool in memory delivers what it can first."""
    run_script(
        """
        pool = rex.ExporterPool([rex.FileExporter("lines")], None, 2, False)
        for number in range(500):
            pool.send(number)
        """
    )
    assert [str(number) for number in range(500)] == (tmp_path / "lines").read_text().split()


def test_a_hung_target_does_not_keep_a_program_from_ending(run_script: Callable[..., str]) -> None:
    """A program with a hung target in the background ends within its set time."""
    told = run_script(
        """
        hung = MemoryExporter("hung")
        hung.hang()
        pool = rex.ExporterPool([hung], None, 2, False, use_memory=False, tmp_file="kept")
        pool.send(1)
        hung.wait_for_calls(1)
        """,
        timeout=30,
    )
    assert "" == told
