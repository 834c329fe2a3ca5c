"""Point 5: one live holder for each file, in threads, processes and forked children."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]

HOLDER = """
import sys
import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter
pool = rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=sys.argv[1], name="holding-pool")
pool.send("of the holder")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another live process that holds the file "kept"."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "kept")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield process
        process.kill()


def test_a_second_pool_in_the_process_is_refused(make_pool: MakePool, tmp_path: Path) -> None:
    """A second live pool on the same file raises SpoolInUse that names the holder and the how-to."""
    make_pool([MemoryExporter()], use_memory=False, tmp_file=tmp_path / "kept", name="holding-pool")
    with pytest.raises(rex.SpoolInUse) as refused:
        make_pool([MemoryExporter()], use_memory=False, tmp_file=tmp_path / "kept")
    assert "holding-pool" in str(refused.value)
    assert str(os.getpid()) in str(refused.value)
    assert "prefork" in str(refused.value)


def test_another_way_to_the_same_file_is_refused(make_pool: MakePool, tmp_path: Path) -> None:
    """A symbolic link or a detour in the path does not hide that it is the same file."""
    make_pool([MemoryExporter()], use_memory=False, tmp_file=tmp_path / "kept").close()
    target = MemoryExporter(up=False)
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send(1)
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "link", tmp_path / "sub" / ".." / "kept"):
        with pytest.raises(rex.SpoolInUse):
            make_pool([MemoryExporter()], use_memory=False, tmp_file=path)


def test_a_second_process_is_refused(make_pool: MakePool, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A pool on a file of another live process is refused at once, and the error names that process."""
    with pytest.raises(rex.SpoolInUse, match=str(holder.pid)):
        make_pool([MemoryExporter("t")], use_memory=False, tmp_file=tmp_path / "kept")


def test_the_end_of_the_process_lets_go(make_pool: MakePool, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """When the holder is killed its file is free at once, with all that it kept."""
    holder.kill()
    holder.wait()
    target = MemoryExporter("t")
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send_unsent_data()
    assert ["of the holder"] == target.got


def test_close_lets_go(make_pool: MakePool, tmp_path: Path) -> None:
    """`close` lets go of the file."""
    for _ in range(3):
        make_pool([MemoryExporter()], use_memory=False, tmp_file=tmp_path / "kept").close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("threads", [1, 3])
def test_dropping_the_last_reference_lets_go(make_pool: MakePool, tmp_path: Path, threads: int) -> None:
    """A pool that is dropped without `close` lets go of its file, also when it has failed and keeps records."""
    for number in range(3):
        target = MemoryExporter("t", up=False)
        pool = rex.ExporterPool([target], num_threads=threads, use_memory=False, tmp_file=tmp_path / "kept")
        results = pool.send(number)
        assert results[0].kept
        del pool, target
        gc.collect()
    target = MemoryExporter("t")
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send(3)
    assert [0, 1, 2, 3] == target.got


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropping_a_background_pool_lets_go(make_pool: MakePool, tmp_path: Path) -> None:
    """Background threads do not keep a dropped pool alive."""
    target = MemoryExporter("t", up=False)
    pool = rex.ExporterPool([target], None, 2, False, use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(1)
    target.wait_for_calls(1)
    del pool, target
    gc.collect()
    second = MemoryExporter("t")
    make_pool([second], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert [1] == second.got


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_raising_exporter_does_not_keep_the_pool_alive(make_pool: MakePool, tmp_path: Path) -> None:
    """The error that is remembered does not hold the pool, and with it the file."""

    class Failing(rex.Exporter):
        def send(self, data: object) -> rex.ExportResult:
            raise ValueError("new each time")

    pool = rex.ExporterPool([Failing(name="t")], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(1)
    del pool
    gc.collect()
    make_pool([MemoryExporter("t")], use_memory=False, tmp_file=tmp_path / "kept")


def test_the_same_file_object_twice_is_refused(make_pool: MakePool) -> None:
    """Two live pools in one file object would overwrite each other, so the second is refused."""
    file = io.BytesIO()
    make_pool([MemoryExporter()], use_memory=False, tmp_file=file)
    with pytest.raises(rex.SpoolInUse):
        make_pool([MemoryExporter()], use_memory=False, tmp_file=file)


def test_a_memory_pool_does_not_look_at_its_file(make_pool: MakePool, tmp_path: Path) -> None:
    """With `use_memory=True` neither a held nor a foreign `tmp_file` matters until the pool switches to it."""
    make_pool([MemoryExporter()], use_memory=False, tmp_file=tmp_path / "held")
    (tmp_path / "foreign").write_bytes(b"somebody else's\n" * 50)
    for path, error in ((tmp_path / "held", rex.SpoolInUse), (tmp_path / "foreign", rex.InvalidConfigError)):
        target = MemoryExporter(up=False)
        pool = make_pool([target], tmp_file=path)
        pool.send(1)
        with pytest.raises(error):
            pool.use_memory = False
        assert pool.use_memory
        target.up = True
        pool.send(2)
        assert [1, 2] == target.got


@pytest.mark.uncounted("adopted at the switch")
def test_what_is_in_the_file_is_adopted_at_the_switch(make_pool: MakePool, tmp_path: Path) -> None:
    """Records of an earlier run are left alone while in memory, and owed once the pool switched to the file."""
    first = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    first.send("of the first run")
    first.close()
    target = MemoryExporter("t")
    pool = make_pool([target], tmp_file=tmp_path / "kept")
    assert not pool.has_unsent_data()
    assert [] == pool.send_unsent_data()
    pool.use_memory = False
    assert pool.has_unsent_data()
    pool.send_unsent_data()
    assert ["of the first run"] == target.got


CHILD = """
    import warnings
    warnings.simplefilter("ignore")
    target = rex.FileExporter("out.txt", name="t")
    down = MemoryExporter("d", up=False)
    options = dict(num_threads=2, wait_for_result=False) if sys.argv[1] == "background" else {}
    pool = rex.ExporterPool([target, down], use_memory=False, tmp_file="kept", **options)
    pool.send("before")
    if options:
        down.wait_for_calls(1)
        while not (os.path.exists("out.txt") and os.path.getsize("out.txt")):
            os.sched_yield()
    files = {name: open(name, "rb").read() for name in os.listdir() if name.startswith("kept")}
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        calls = (lambda: pool.send("of the child"), lambda: pool.send_unsent_data(), lambda: pool.flush(0),
                 lambda: pool.save_unsent_data("x", {}, "t"), lambda: setattr(pool, "use_memory", True))
        for call in calls:
            try:
                call()
                said.append("worked")
            except rex.PoolClosed as error:
                said.append("prefork" in str(error))
        down.up = True
        try:
            rex.ExporterPool([MemoryExporter("t")], use_memory=False, tmp_file="kept")
            said.append("opened")
        except rex.SpoolInUse as error:
            said.append("prefork" in str(error))
        pool.close()
        own = MemoryExporter("own", up=False)
        mine = rex.ExporterPool([own], use_memory=False, tmp_file="of-the-child")
        said.append(mine.send("own")[0].kept)
        mine.close()
        os.write(write, json.dumps(said).encode())
        os.close(write)
        if sys.argv[2] == "hard":
            os._exit(0)
        sys.exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = json.loads(pipe.read())
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    if sys.argv[1] != "background":
        assert files == {name: open(name, "rb").read() for name in files}, "the child touched the file"
    down.up = True
    pool.send("after")
    if options:
        pool.flush(60)
    tell([said, open("out.txt").read().split(), down.got])
    pool.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("mode", ["foreground", "background"])
@pytest.mark.parametrize("ending", ["soft", "hard"])
def test_a_forked_child_is_a_second_process(run_script: Callable[..., str], mode: str, ending: str) -> None:
    """In a forked child the parent's pool refuses to work; neither its calls nor its end touch the parent's file."""
    said, lines, got = json.loads(run_script(CHILD, mode, ending))
    assert [True] * 7 == said
    assert ["before", "after"] == lines
    assert ["before", "after"] == got


FORK_UNDER_FIRE = """
    import warnings
    warnings.simplefilter("ignore")
    target = MemoryExporter("t", up=False)
    pool = rex.ExporterPool([target], use_memory=False, tmp_file="kept")
    stop = threading.Event()
    sent = [0, 0]
    def work(i):
        while not stop.is_set():
            pool.send([i, sent[i]])
            sent[i] += 1
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    refused = 0
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                pool.send("of the child")
            except rex.PoolClosed:
                os._exit(7)
            os._exit(1)
        refused += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    stop.set()
    for thread in threads:
        thread.join()
    target.up = True
    pool.send_unsent_data()
    tell([refused, all([n for j, n in target.got if j == i] == list(range(sent[i])) for i in range(2)),
          len(target.got) == sum(sent)])
    pool.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forking_while_threads_send_hangs_nobody(run_script: Callable[..., str]) -> None:
    """A fork in the middle of sends, with locks held, neither hangs the child nor loses anything in the parent."""
    assert [20, True, True] == json.loads(run_script(FORK_UNDER_FIRE))


LOOKING_AFTER_A_FORK = """
    import signal
    import warnings
    warnings.simplefilter("ignore")
    down, inner = MemoryExporter("d", up=False), rex.ExporterPool([MemoryExporter("x", up=False)], name="inner")
    options = dict(num_threads=2, wait_for_result=False) if sys.argv[1] == "background" else {}
    place = dict(use_memory=False, tmp_file="kept") if sys.argv[2] == "file" else {}
    pool = rex.ExporterPool([down, inner], **place, **options)
    stop = threading.Event()
    def work():
        while not stop.is_set():
            pool.send("x")
            pool.status()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    down.wait_for_calls(1)
    def in_a_child(look):
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # what hangs is killed
            os._exit(0 if look() else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    def refused():
        for call in [each for one in (pool, inner, down) for each in (one.has_unsent_data, one.status)]:
            try:
                call()
                return False
            except rex.PoolForked:
                pass
        return all("before the fork" in repr(one) for one in (pool, inner, down))
    before = [in_a_child(refused) for _ in range(5)]
    stop.set()
    for thread in threads:
        thread.join()
    pool.close(0)
    tell([before, in_a_child(lambda: pool.has_unsent_data() and pool.status() and "before the fork" in repr(pool))])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("mode", ["foreground", "background"])
@pytest.mark.parametrize("place", ["memory", "file"])
def test_looking_in_a_forked_child(run_script: Callable[..., str], mode: str, place: str) -> None:
    """In a child forked under load `repr` answers and the rest is refused, at once; a pool closed before answers."""
    assert [[0] * 5, 0] == json.loads(run_script(LOOKING_AFTER_A_FORK, mode, place))
