"""Forty cases in which the library's earlier incarnation broke its own documentation, each shown to be right now."""

from __future__ import annotations

import gc
import io
import json
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
RunScript = Callable[..., str]

STORE = """
    target = MemoryExporter("s", up=sys.argv[1] == "up")
    pool = rex.ExporterPool([target], use_memory=False, tmp_file="store", manual_reexport=True)
    if sys.argv[1] != "up":
        for number in range(1000):
            pool.send(number)
        if sys.argv[1] == "kill":
            die()
        pool.close()
    else:
        owed = pool.has_unsent_data()
        results = pool.send_unsent_data()
        tell([owed, len(results), target.got == list(range(1000))])
        pool.close()
"""


def test_case_01_restart(run_script: RunScript) -> None:
    """1: unsent data in a file is found and sent by a new process."""
    run_script(STORE, "down")
    assert [True, 1000, True] == json.loads(run_script(STORE, "up"))


def test_case_02_kill_9(run_script: RunScript) -> None:
    """2: unsent data in a file is found and sent after the process that kept it was killed."""
    run_script(STORE, "kill", killed=True)
    assert [True, 1000, True] == json.loads(run_script(STORE, "up"))


@pytest.mark.parametrize("threads", [1, 3])
def test_case_03_an_exporter_raises(make_pool: MakePool, threads: int) -> None:
    """3: an exporter that raises does not keep the others from the record, and the record is saved for it."""
    ok, boom, ok2 = (MemoryExporter("ok"), MemoryExporter("boom", error=ValueError("x")), MemoryExporter("ok2"))
    pool = make_pool([ok, boom, ok2], num_threads=threads)
    pool.send("d")
    boom.error = None
    pool.send_unsent_data()
    assert ["d"] == ok.got == boom.got == ok2.got


def test_case_04_partial_failure(make_pool: MakePool) -> None:
    """4: re-sending reaches the exporter that failed and not the healthy one again."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad])
    for number in range(3):
        pool.send(number)
    bad.up = True
    pool.send_unsent_data()
    assert [0, 1, 2] == ok.got == bad.got


def test_case_05_still_down(make_pool: MakePool) -> None:
    """5: `send_unsent_data` returns while a target is still down, and the healthy one gets nothing twice."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad])
    for number in range(3):
        pool.send(number)
    assert {(None, False)} == set(pool.send_unsent_data())
    assert [0, 1, 2] == ok.got


def test_case_06_a_backlog_does_not_recurse(make_pool: MakePool) -> None:
    """6: a backlog of a thousand goes out with one `send`, without recursion."""
    target = MemoryExporter()
    pool = make_pool([target])
    for number in range(1000):
        pool.save_unsent_data(number, {}, target.name)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200 + len_of_stack())
    try:
        assert [(None, True)] == pool.send(1000)
    finally:
        sys.setrecursionlimit(limit)
    assert list(range(1001)) == target.got


def len_of_stack() -> int:
    """How deep the caller is."""
    frame: Any = sys._getframe()
    depth = 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


@pytest.mark.parametrize("error", [None, ValueError("boom")])
def test_case_07_failures_without_waiting_are_saved(make_pool: MakePool, error: BaseException | None) -> None:
    """7: with `wait_for_result=False` sends that fail or raise are saved."""
    target = MemoryExporter(up=False, error=error)
    pool = make_pool([target], num_threads=2, wait_for_result=False)
    pool.send("d")
    target.wait_for_calls(1)
    assert pool.has_unsent_data()
    target.up, target.error = True, None
    pool.flush(60)
    assert ["d"] == target.got


def test_case_08_swapped_fields(make_pool: MakePool) -> None:
    """8: an exporter that returns its failure with the fields swapped raises nothing, and the record is saved."""

    class Swapping(rex.Exporter):
        def send(self, data: Any) -> rex.ExportResult:
            return rex.ExportResult(False, None)  # type: ignore[arg-type]  # as the predecessor's exporters did

    pool = make_pool([Swapping()])
    assert pool.send("d")[0].kept
    assert pool.has_unsent_data()


def test_case_09_pools_in_pools(make_pool: MakePool) -> None:
    """9: a pool takes other pools, none is dropped, and results come back."""
    a, b = MemoryExporter(), MemoryExporter()
    pool = make_pool([rex.ExporterPool([a]), rex.ExporterPool([b])])
    assert [True, True] == [result.successful for result in pool.send("d")]
    assert ["d"] == a.got == b.got


def threads_send(pool: rex.ExporterPool, each: int, threads: int = 8) -> list[BaseException]:
    """Send from many threads at once, with threads switching all the time; the errors they met."""
    errors: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for number in range(each):
                pool.send((i, number))
        except BaseException as error:  # whatever it is, the test reports it
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    return errors


def test_case_10_threads(make_pool: MakePool) -> None:
    """10: eight threads calling `send` miss nothing, double nothing and meet no error."""
    targets = [MemoryExporter(f"t{number}") for number in range(4)]
    pool = make_pool(targets)
    assert [] == threads_send(pool, 150)
    for target in targets:
        assert Counter((i, number) for i in range(8) for number in range(150)) == Counter(target.got)


def test_case_11_threads_and_a_file(make_pool: MakePool, tmp_path: Path) -> None:
    """11: what eight threads saved on disk is all there, and readable."""
    pool = make_pool([MemoryExporter("t", up=False)], None, 1, True, False, True, tmp_file=tmp_path / "store")
    assert [] == threads_send(pool, 150)
    pool.close()
    target = MemoryExporter("t")
    make_pool([target], use_memory=False, tmp_file=tmp_path / "store").send_unsent_data()
    assert Counter((i, number) for i in range(8) for number in range(150)) == Counter(target.got)


def test_case_12_transform_once(make_pool: MakePool) -> None:
    """12: what is stored was transformed and is not transformed again: 8/2 arrives as 4."""
    target = MemoryExporter(up=False)
    pool = make_pool([target], transform=lambda data: data / 2)
    pool.send(8)
    target.up = True
    pool.send_unsent_data()
    assert [4] == target.got


def test_case_13_mutable_data(make_pool: MakePool) -> None:
    """13: changing a dict after `send` does not change what is delivered."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    d = {"i": 1}
    pool.send(d)
    d["i"] = 2
    target.up = True
    pool.send_unsent_data()
    assert [{"i": 1}] == target.got


@pytest.mark.parametrize("use_memory", [True, False])
def test_case_14_a_coarse_clock(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_memory: bool
) -> None:
    """14: with a clock that stands still, or goes back, every record is kept."""
    target = MemoryExporter(up=False)
    pool = make_pool([target], use_memory=use_memory, tmp_file=tmp_path / "store")
    for number in range(300):
        monkeypatch.setattr(time, "time", lambda number=number: 1e9 - number // 100)
        monkeypatch.setattr(time, "time_ns", lambda number=number: 10**18 - number // 100 * 10**9)
        pool.send(number)
    target.up = True
    assert 300 == len(pool.send_unsent_data())
    assert list(range(300)) == target.got
    assert not pool.has_unsent_data()


@pytest.mark.uncounted("adopted at the switch")
def test_case_15_a_switch_erases_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    """15: switching from memory to a file that an earlier run left does not erase what is there."""
    earlier = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=tmp_path / "store")
    earlier.send("earlier")
    earlier.close()
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], tmp_file=tmp_path / "store")
    pool.send("later")
    pool.use_memory = False
    target.up = True
    pool.send_unsent_data()
    assert {"earlier", "later"} == set(target.got)


def test_case_16_adoption(make_pool: MakePool) -> None:
    """16: an exporter's own unsent data is sent by the pool it joins."""
    target = MemoryExporter(up=False)
    target.send("d")
    pool = make_pool([target])
    target.up = True
    pool.send_unsent_data()
    assert ["d"] == target.got


def test_case_17_no_silent_limit(make_pool: MakePool) -> None:
    """17: a record that finds no room is not dropped silently: the caller hears of it."""
    pool = make_pool([MemoryExporter("t", up=False)], limits=rex.Limits(bytes=50_000))
    with pytest.raises(rex.SpoolFull):
        for _ in range(1000):
            assert pool.send("x" * 1000)[0].kept
    other = MemoryExporter("u")
    pool.add_exporter(other)
    full, fine = pool.send("x" * 1000)
    assert (False, True) == (full.kept, fine.successful)
    assert isinstance(full.error, rex.SpoolFull)


def test_case_18_a_file_exporter_and_kill_9(run_script: RunScript, tmp_path: Path) -> None:
    """18: lines that were reported as written are in the files after kill -9."""
    run_script(
        """
        one, two = rex.FileExporter("one.txt"), rex.FileExporter("two.txt")
        pool = rex.ExporterPool([one, two])
        for number in range(1000):
            pool.send(f"line {number}")
        die()
        """,
        killed=True,
    )
    for name in ("one.txt", "two.txt"):
        assert [f"line {number}" for number in range(1000)] == (tmp_path / name).read_text().splitlines()


def test_case_19_a_target_on_a_full_disk(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """19: on a full disk a file exporter reports success only for lines that are there, and the rest is saved."""
    folder = small_disk("16k")
    pool = make_pool([rex.FileExporter(folder / "out")])
    results = [pool.send(f"{number:04d} " + "x" * 100)[0] for number in range(300)]
    successes = sum(result.successful for result in results)
    lines = (folder / "out").read_text().splitlines()
    assert 0 < successes == len(lines) < 300
    assert all(result.successful or result.kept for result in results)


def test_case_20_a_store_on_a_full_disk(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """20: with the store on a full disk the healthy target gets each record once, and what was saved stays readable."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    path = small_disk("64k") / "store"
    pool = make_pool([ok, bad], use_memory=False, tmp_file=path)
    kept = [number for number in range(300) if pool.send(f"{number:04d} " + "x" * 500)[1].kept]
    assert 300 == len(ok.got)
    assert 0 < len(kept) < 300
    pool.close()
    late = MemoryExporter("bad")
    make_pool([late], use_memory=False, tmp_file=path).send_unsent_data()
    assert kept == [int(data[:4]) for data in late.got]


def test_case_21_a_value_that_cannot_be_stored(make_pool: MakePool, tmp_path: Path) -> None:
    """21: a value that the file store cannot hold is refused before any target was served."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad], use_memory=False, tmp_file=tmp_path / "store")
    with pytest.raises(rex.DataTypeError, match="data\\['f'\\]"):
        pool.send({"f": lambda: 1})
    assert [] == ok.got


def test_case_22_exporters(make_pool: MakePool) -> None:
    """22: two exporters of one name are refused, and the dictionary that is returned is not the pool's own."""
    with pytest.raises(rex.InvalidConfigError):
        make_pool([MemoryExporter("same"), MemoryExporter("same")])
    pool = make_pool([MemoryExporter("a")])
    pool.exporters.clear()
    assert [(None, True)] == pool.send("d")


def test_case_23_not_waiting(make_pool: MakePool) -> None:
    """23: with `wait_for_result=False` the call does not block and returns None."""
    target = MemoryExporter()
    target.hang()
    pool = make_pool([target], num_threads=2, wait_for_result=False)
    result: Any = pool.send("d")
    target.release()
    assert None is result
    target.wait_for(1)


def test_case_24_nothing_piles_up(make_pool: MakePool) -> None:
    """24: what was delivered without waiting is not held in memory afterwards."""
    target = MemoryExporter()
    pool = make_pool([target], num_threads=2, wait_for_result=False)

    def objects() -> int:
        pool.flush(60)
        target.got.clear()
        target.kwargs.clear()
        gc.collect()
        return len(gc.get_objects())

    for number in range(100):
        pool.send({"i": number})
    before = objects()
    for number in range(1500):
        pool.send({"i": number})
    assert objects() < before + 500


@pytest.mark.parametrize("number", [0, -3])
def test_case_25_a_wrong_number_of_threads(number: int) -> None:
    """25: a wrong `num_threads` raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], num_threads=number)


def test_case_26_threads_are_not_made_per_call(make_pool: MakePool) -> None:
    """26: threads speed slow targets up and make no new thread per call."""
    started: list[int] = []
    start = threading.Thread.start

    def counting(thread: threading.Thread) -> None:
        started.append(1)
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", counting)
        pool = make_pool([MemoryExporter(f"t{n}", seconds=0.001) for n in range(4)], num_threads=4)
        for number in range(100):
            pool.send(number)
    assert sum(started) <= 6


def test_case_27_names(make_pool: MakePool) -> None:
    """27: `name=` is taken."""
    assert "north" == make_pool([MemoryExporter()], name="north").name


@pytest.mark.parametrize("data", ["text", b"bytes", 5, (1, 2)])
def test_case_28_transform_takes_any_data(make_pool: MakePool, data: Any) -> None:
    """28: `transform` takes data of any kind, and a nested change does not reach the caller."""
    target = MemoryExporter()
    make_pool([target], transform=lambda data: [data]).send(data)
    assert [[data]] == target.got
    nested = {"a": {"b": 1}}

    def change(data: Any) -> Any:
        data["a"]["b"] = 2
        return data

    make_pool([MemoryExporter()], transform=change, name="other").send(nested)
    assert {"a": {"b": 1}} == nested


@pytest.mark.parametrize("data", [[1], {1, 2}, "text"])
def test_case_29_any_data(make_pool: MakePool, data: Any) -> None:
    """29: lists and sets are data like any other, None is refused by name, and an extra argument is not swallowed."""
    target = MemoryExporter()
    pool: Any = make_pool([target])
    pool.send(data)
    assert [data] == target.got
    with pytest.raises(rex.DataTypeError):
        pool.send(None)
    with pytest.raises(TypeError):
        pool.send(data, "extra")


def test_case_30_keywords(make_pool: MakePool, tmp_path: Path) -> None:
    """30: a keyword for one exporter does not break a file exporter beside it."""
    target = MemoryExporter()
    pool = make_pool([target, rex.FileExporter(tmp_path / "out")])
    assert [(None, True)] * 2 == pool.send("d", table="t")
    assert [{"table": "t"}] == target.kwargs


def test_case_31_the_flag(make_pool: MakePool) -> None:
    """31: `save_unsent_data=False` turns saving off, for all exporters."""
    a, b = MemoryExporter("a", up=False), MemoryExporter("b", up=False)
    pool = make_pool([a], save_unsent_data=False)
    pool.add_exporter(b)
    assert [False, False] == [result.kept for result in pool.send("d")]
    assert not pool.has_unsent_data()
    assert callable(pool.save_unsent_data)


def test_case_32_adding(make_pool: MakePool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """32: what fails for an exporter that was added is in the pool's store; nothing is printed or littered."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([], use_memory=False, tmp_file=tmp_path / "store")
    pool.add_exporter(target)
    pool.send("d")
    pool.use_memory = False
    assert ("", "") == tuple(capfd.readouterr())
    assert [] == [path for path in tmp_path.iterdir() if not path.name.startswith("store")]
    pool.close()
    late = MemoryExporter("t")
    make_pool([late], use_memory=False, tmp_file=tmp_path / "store").send_unsent_data()
    assert ["d"] == late.got


def test_case_33_flat_results(make_pool: MakePool) -> None:
    """33: results are a flat list of ExportResult."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    for number in range(3):
        pool.send(number)
    target.up = True
    results = [*pool.send_unsent_data(), *pool.send(3)]
    assert [rex.ExportResult] * 4 == [type(result) for result in results]


def test_case_34_older_records_first(make_pool: MakePool) -> None:
    """34: with the target back, older records go out before the new one."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    for number in range(5):
        pool.send(number)
    target.up = True
    pool.send(99)
    assert [0, 1, 2, 3, 4, 99] == target.got


def test_case_35_order_in_a_file(make_pool: MakePool, tmp_path: Path) -> None:
    """35: a file keeps the order, and so does a switch of `use_memory`."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "store")
    for number in range(300):
        pool.send(number)
    pool.use_memory = True
    pool.use_memory = False
    target.up = True
    pool.send_unsent_data()
    assert list(range(300)) == target.got


def test_case_36_kinds_of_file(make_pool: MakePool, tmp_path: Path) -> None:
    """36: a string, a Path and a binary file all work, the file has the name given, and can be used again."""
    with tempfile.TemporaryFile() as file:
        for place in (str(tmp_path / "a"), tmp_path / "b", io.BytesIO(), file):
            for _ in range(2):
                pool = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=place)
                pool.send("d")
                pool.close()
    assert (tmp_path / "a").is_file()
    assert (tmp_path / "b").is_file()


def test_case_37_no_network_for_a_healthy_send(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """37: a healthy `send` asks nobody whether there is an Internet."""
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    target = MemoryExporter()
    pool = make_pool([target])
    for number in range(10):
        assert [(None, True)] == pool.send(number)


def test_case_38_offline_but_local(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """38: an offline host re-exports its backlog to a local target."""
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    pool.send(1)
    target.up = True
    pool.send(2)
    assert [1, 2] == target.got


def test_case_39_a_bare_import(run_script: RunScript) -> None:
    """39: importing works without any optional package."""
    told = run_script(
        """
        import subprocess
        code = ("import sys, importlib.abc\\n"
                "class No(importlib.abc.MetaPathFinder):\\n"
                "    def find_spec(self, name, path, target=None):\\n"
                "        if name.partition('.')[0] in {'urllib3', 'psycopg2', 'pymongo', 'elasticsearch'}:\\n"
                "            raise ModuleNotFoundError(name)\\n"
                "sys.meta_path.insert(0, No())\\n"
                "import resilient_exporters as rex\\n"
                "print(rex.ExporterPool([rex.FileExporter('out')]).send('x')[0].successful)")
        tell(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
        """
    )
    assert "True" == json.loads(told)


def test_case_40_no_litter(run_script: RunScript, tmp_path: Path, state_home: Path) -> None:
    """40: neither importing nor a run in memory leaves a file anywhere, also in a folder that cannot be written."""
    run_script("pool = rex.ExporterPool([MemoryExporter(), rex.FileExporter('not used')]); pool.close()")
    assert {"script.py"} == {path.name for path in tmp_path.iterdir()}
    assert [] == list(state_home.iterdir())


def test_its_own_test_of_a_file(tmp_path: Path) -> None:
    """What the predecessor's own tests do with a file works unchanged: `json.dumps` lines, `stop`, `len(pool)`."""
    path = tmp_path / "lines.txt"
    exporter = rex.exporters.FileExporter(str(path))
    pool = rex.exporters.ExporterPool([exporter])
    sent = [{"field1": "value1", "field2": "value2"}, {"field1": "a, b: c", "nested": {"x": [1, "é"]}}, {}]
    assert [True] * 3 == [pool.send(data)[0].successful for data in sent]
    assert 1 == len(pool)
    exporter.stop()
    assert [json.dumps(data, ensure_ascii=False) for data in sent] == path.read_text(encoding="utf-8").splitlines()
    assert pool.send("after stop")[0].successful
    pool.close()
