"""The file spool's dealings with the file system: whose file it is, who holds it, how much room there is."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.exceptions import InvalidConfigError, PoolClosed, SpoolError, SpoolFull, SpoolInUse
from resilient_exporters.spool import FileSpool
from resilient_exporters.spool.files import Files, Unlockable
from resilient_exporters.spool.frame import FileKind, preamble
from resilient_exporters.spool.interface import Fate
from tests.spool.interruptions import interrupted_at
from tests.spool.spooling import AB, A, B, contents, held, keep, rows, settle, slices

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


# ---------------------------------------------------------------- whose file


def test_no_file_before_something_is_kept(tmp_path: Path) -> None:
    """Opening, asking and closing leave the lock file only."""
    spool = FileSpool(tmp_path / "q")
    assert (spool.owing(), spool.size(), spool.read("a", 0, 1, 1)) == ((), 0, None)
    spool.settle("a", [1, 2], Fate.DELIVERED)
    spool.sync()
    spool.close()
    assert os.listdir(tmp_path) == ["q.lock"]


def test_only_siblings_are_written(tmp_path: Path) -> None:
    """Whatever is done, all files have names that start with the one given."""
    spool = FileSpool(tmp_path / "q", segment_size=300)
    keep(spool, *(b"%d" % number * 40 for number in range(9)))
    part = spool.read("a", 0, 1, 1)
    assert part is not None
    spool.bury("a", part, {0: "no"}, 1)
    spool.sync()
    spool.close()
    assert all(name.startswith("q") for name in os.listdir(tmp_path))


PREAMBLE = preamble(FileKind.SEGMENT)


@pytest.mark.parametrize("content", [b"", bytes(16), bytes(5000), PREAMBLE[:1], PREAMBLE[:9], PREAMBLE[:15], PREAMBLE])
def test_an_interrupted_creation_is_adopted(tmp_path: Path, content: bytes) -> None:
    """An empty file, zeros at least a header long, or the beginning of a header: used as if it were not there."""
    path = tmp_path / "q"
    path.write_bytes(content)
    inode = path.stat().st_ino
    spool = FileSpool(path)
    assert path.read_bytes() == content
    keep(spool, b"kept")
    spool.close()
    spool = FileSpool(path)
    assert held(spool) == [b"kept"]
    spool.close()
    if content != PREAMBLE:
        assert path.stat().st_ino == inode


OTHERS = {
    "text": b"some text of the user's",
    "a byte": b"x",
    "a few zeros": bytes(15),
    "zeros and text": bytes(100) + b"text",
    "our beginning and text": PREAMBLE[:8] + b" is a magic word, but this is text",
    "a state file": preamble(FileKind.STATE) + b"rest",
    "rubbish": random.Random(3).randbytes(3000),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_something_else_is_refused_and_untouched(tmp_path: Path, kind: str) -> None:
    """However often it is tried."""
    path = tmp_path / "q"
    path.write_bytes(OTHERS[kind])
    for _ in range(2):
        with pytest.raises(InvalidConfigError, match="untouched"):
            FileSpool(path)
        assert contents(tmp_path) == {"q": OTHERS[kind]}


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A file of a later version of the library is not damage."""
    import struct
    from zlib import crc32

    begin = struct.pack("<8sHH", b"rexspool", 2, 1)
    (tmp_path / "q").write_bytes(begin + struct.pack("<I", crc32(begin)) + b"frames of the future")
    with pytest.raises(InvalidConfigError, match="newer version"):
        FileSpool(tmp_path / "q")


def test_a_sealed_segment_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """It is not read with the wrong eyes, nor set aside as damage: all files stay as they are."""
    import struct
    from zlib import crc32

    with closing(FileSpool(tmp_path / "q", segment_size=300)) as spool:
        keep(spool, b"x" * 200, b"y" * 200)
    (sealed,) = tmp_path.glob("q.0*")
    begin = struct.pack("<8sHH", b"rexspool", 2, 1)
    content = begin + struct.pack("<I", crc32(begin)) + b"frames of the future" * 9
    sealed.write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(InvalidConfigError, match="newer version"):
        FileSpool(tmp_path / "q")
    assert contents(tmp_path) == before


def test_one_valid_frame_makes_it_ours(tmp_path: Path) -> None:
    """A file whose header is gone is damage, as long as a frame holds."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"x" * 9000, b"kept")
    spool.close()
    data = (tmp_path / "q").read_bytes()
    (tmp_path / "q").write_bytes(bytes(1000) + data[1000:])
    spool = FileSpool(tmp_path / "q")
    assert spool.damage[1] > 0
    keep(spool, b"new")
    assert held(spool)[-1] == b"new"
    spool.close()


# ---------------------------------------------------------------- missing directories


def test_a_missing_directory_is_waited_for(tmp_path: Path) -> None:
    """The constructor does not fail, appending does until the directory is there."""
    spool = FileSpool(tmp_path / "share" / "q")
    assert (spool.owing(), spool.account("a").records) == ((), 0)
    for _ in range(2):
        with pytest.raises(SpoolError):
            keep(spool, b"x")
    (tmp_path / "share").mkdir()
    keep(spool, b"x")
    assert held(spool) == [b"x"]
    spool.close()


def test_parents_are_made_on_request(tmp_path: Path) -> None:
    """For default locations, for this user only."""
    spool = FileSpool(tmp_path / "a" / "b" / "q", make_parents=True)
    keep(spool, b"x")
    spool.close()
    if os.name == "posix":
        assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
        assert (tmp_path / "a" / "b" / "q").stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------- one holder


def test_a_second_spool_is_refused(tmp_path: Path) -> None:
    """At once, with the holder's name, also by another name of the same file; closing lets go."""
    first = FileSpool(tmp_path / "q", owner="pool orders")
    (tmp_path / "link").symlink_to(tmp_path / "q")
    for path in (tmp_path / "q", tmp_path / "link", tmp_path / ".." / tmp_path.name / "q"):
        with pytest.raises(SpoolInUse, match=rf"process {os.getpid()} \(pool orders\).*prefork"):
            FileSpool(path)
    first.close()
    first.close()
    FileSpool(tmp_path / "q").close()


def test_a_second_thread_is_refused(tmp_path: Path) -> None:
    """The lock is the spool's, not the process's or the thread's."""
    first = FileSpool(tmp_path / "q")
    errors: list[Exception] = []

    def other() -> None:
        try:
            FileSpool(tmp_path / "q")
        except SpoolInUse as error:
            errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(errors) == 1
    first.close()


OTHER = """
import sys
from resilient_exporters.exceptions import SpoolInUse
from resilient_exporters.spool import FileSpool
try:
    spool = FileSpool(sys.argv[1])
except SpoolInUse as error:
    print(error)
else:
    spool.append([b"from the other"], frozenset("a"), time=1.0)
    print("held")
    if len(sys.argv) > 2:
        sys.stdout.flush()
        sys.stdin.read()
"""


def run_other(path: Path) -> str:
    return subprocess.run([sys.executable, "-c", OTHER, str(path)], capture_output=True, text=True, check=True).stdout


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Until the first is done with it; a killed holder lets go as well."""
    first = FileSpool(tmp_path / "q", owner="me")
    assert f"process {os.getpid()} (me)" in run_other(tmp_path / "q")
    first.close()
    command = [sys.executable, "-c", OTHER, str(tmp_path / "q"), "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(SpoolInUse, match=f"process {process.pid}"):
            FileSpool(tmp_path / "q")
        process.kill()
    spool = FileSpool(tmp_path / "q")
    assert held(spool) == [b"from the other"]
    spool.close()


def test_dropping_the_last_reference_lets_go(tmp_path: Path) -> None:
    """Without `close`, and without waiting for the garbage collector."""
    gc.disable()
    try:
        spool = FileSpool(tmp_path / "q")
        keep(spool, b"x")
        held(spool)
        del spool
        again = FileSpool(tmp_path / "q")
    finally:
        gc.enable()
    assert held(again) == [b"x"]
    again.close()


@unix
def test_a_forked_child_is_a_second_process(tmp_path: Path) -> None:
    """In the child every method refuses, also while a thread of the parent holds the locks; the parent goes on."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"before")
    calls: list[Any] = [
        lambda: keep(spool, b"child"),
        lambda: spool.append_one(b"child", A, 1.5),
        spool.freeze,
        spool.thaw,
        lambda: spool.read("a", 0, 1, 1),
        lambda: spool.settle("a", [1], Fate.DELIVERED),
        lambda: spool.account("a"),
        spool.owing,
        spool.size,
        spool.sync,
        spool.dead_letters,
        lambda: spool.forget_dead([1]),
        lambda: spool.drop_oldest(1),
        lambda: spool.expire(1.0),
        spool.draw,
        spool.mark,
        spool.undo_appends,
        lambda: spool.next_place,
    ]
    with spool._gate, spool._books, spool._syncer.lock:
        thread_has_locks = threading.Thread(target=fork_and_try, args=(spool, calls, tmp_path / "told"))
        thread_has_locks.start()
        thread_has_locks.join()
    assert (tmp_path / "told").read_text() == "refused " * len(calls) + "in use"
    keep(spool, b"after")
    spool.sync()
    with pytest.raises(SpoolInUse):
        FileSpool(tmp_path / "q")
    assert held(spool) == [b"before", b"after"]
    spool.close()


def fork_and_try(spool: FileSpool, calls: list[Any], told: Path) -> None:
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    said = ""
    for call in calls:
        try:
            call()
            said += "worked "
        except PoolClosed as error:
            said += "refused " if "prefork" in str(error) else "?"
    try:
        FileSpool(spool.path)
    except SpoolInUse:
        said += "in use"
    spool.close()
    told.write_text(said)
    os._exit(0)


class Lockless(Files):
    """A file system without locks."""

    def lock(self, handle: int) -> bool:
        raise Unlockable(errno.ENOLCK, "No locks available")


def test_a_file_system_without_locks(tmp_path: Path) -> None:
    """It is said clearly, with the way out."""
    with pytest.raises(InvalidConfigError, match=r"cannot lock files.*local disk"):
        FileSpool(tmp_path / "q", files=Lockless())


def test_a_closed_spool(tmp_path: Path) -> None:
    """Every call but `close` is refused."""
    spool = FileSpool(tmp_path / "q")
    spool.close()
    for call in (lambda: keep(spool, b"x"), spool.owing, lambda: spool.read("a", 0, 1, 1), spool.sync):
        with pytest.raises(PoolClosed):
            call()


# ---------------------------------------------------------------- segments


def test_segments_are_deleted_when_nothing_is_owed_in_them(tmp_path: Path) -> None:
    """Each as soon as its last record is settled by its last lane, whatever the others hold."""
    spool = FileSpool(tmp_path / "q", segment_size=400)
    keep(spool, *(b"%02d" % number * 50 for number in range(12)), lanes=AB)
    count = len([name for name in os.listdir(tmp_path) if name.startswith("q.0")])
    for number in range(3, 12):
        settle(spool, "a", [b"%02d" % number * 50])
        settle(spool, "b", [b"%02d" % number * 50])
    left = [name for name in os.listdir(tmp_path) if name.startswith("q.0")]
    assert len(left) < count
    assert held(spool) == held(spool, "b") == [b"%02d" % number * 50 for number in range(3)]
    spool.close()
    spool = FileSpool(tmp_path / "q")
    assert (held(spool), spool.damage) == ([b"%02d" % number * 50 for number in range(3)], (0, 0))
    spool.close()


class Counting(Files):
    """Notes how much is read, and from how many places."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        data = os.pread(handle, size, offset)
        self.reads.append(len(data))
        return data


def test_opening_does_not_read_the_backlog(tmp_path: Path) -> None:
    """One small read for each sealed segment, one segment and the state."""
    spool = FileSpool(tmp_path / "q", segment_size=20_000)
    for _ in range(100):
        spool.append([b"x" * 100] * 20, A, time=1.5)
    spool.close()
    segments = len([name for name in os.listdir(tmp_path) if name.startswith("q.0")])
    files = Counting()
    spool = FileSpool(tmp_path / "q", files=files)
    assert segments > 8
    assert len(files.reads) <= segments + 4
    assert sum(files.reads) <= segments * 4096 + 3 * 20_000
    assert spool.account("a").records == 2000
    spool.close()


def test_lanes_side_by_side_read_the_file_once(tmp_path: Path) -> None:
    """What one lane has read as the file grew, the lane behind it gets without another look at the file."""
    files = Counting()
    with closing(FileSpool(tmp_path / "q", files=files)) as spool:
        after = 0
        for number in range(50):
            keep(spool, b"%d" % number, lanes=AB)
            part = spool.read("a", after, 10, 1 << 20)
            assert part is not None
            after = part.places[-1]
        read = len(files.reads)
        behind = [payload for part in slices(spool, "b") for payload in part.payloads]
        assert ([b"%d" % number for number in range(50)], read) == (behind, len(files.reads))


def test_lanes_that_take_turns_do_not_fill_the_state(tmp_path: Path) -> None:
    """Records of other lanes in between leave no holes in a cursor."""
    spool = FileSpool(tmp_path / "q")
    for number in range(2000):
        keep(spool, b"%d" % number, lanes=A if number % 2 else B)
    while (part := spool.read("a", 0, 100, 1 << 20)) is not None:
        spool.settle("a", part.places, Fate.DELIVERED)
    spool.close()
    assert (tmp_path / "q.state").stat().st_size < 5000
    spool = FileSpool(tmp_path / "q")
    assert (held(spool), len(held(spool, "b"))) == ([], 1000)
    spool.close()


def test_more_lane_sets_than_a_segment_can_name(tmp_path: Path) -> None:
    """The segment is sealed and the next begins to count anew."""
    spool = FileSpool(tmp_path / "q")
    for number in range(700):
        keep(spool, b"%d" % number, lanes=frozenset({"a", f"lane {number}"}))
    assert held(spool) == [b"%d" % number for number in range(700)]
    assert held(spool, "lane 650") == [b"650"]
    spool.close()
    spool = FileSpool(tmp_path / "q")
    assert held(spool, "lane 3") == [b"3"]
    spool.close()


def test_numbers_from_anywhere(tmp_path: Path) -> None:
    """Numbers and runs of any size and order come back as they were."""
    spool = FileSpool(tmp_path / "q")
    rng = random.Random(1)
    expected = []
    for _ in range(300):
        run = rng.choice([spool.run, spool.run, 1, (1 << 64) - 1])
        number = rng.choice([rng.randrange(1, 100), rng.randrange(1 << 62)])
        spool.append([b"x"], A, time=1.5, first=number, run=run)
        expected.append((run, number, b"x"))
    assert rows(spool, "a") == expected
    spool.close()
    spool = FileSpool(tmp_path / "q")
    assert rows(spool, "a") == expected
    spool.close()


@pytest.mark.parametrize("records", [1, 3, 1000])
def test_reading_in_any_portions(tmp_path: Path, records: int) -> None:
    """Slices of any size, across batches and segments, from any place, give the same."""
    spool = FileSpool(tmp_path / "q", segment_size=3000)
    rng = random.Random(2)
    expected = []
    for number in range(200):
        batch = [b"%d.%d" % (number, each) for each in range(rng.choice([1, 1, 2, 9]))]
        spool.append(batch, A, time=1.5)
        expected += batch
    assert [payload for part in slices(spool, "a", records) for payload in part.payloads] == expected
    for after in rng.sample(range(len(expected)), 50):
        part = spool.read("a", after, records, 1 << 20)
        assert part is not None
        assert part.payloads == expected[after : after + len(part)]
    spool.close()


def test_a_record_larger_than_all(tmp_path: Path) -> None:
    """A record larger than a segment and than what is read at a time has a segment of its own."""
    spool = FileSpool(tmp_path / "q", segment_size=1000)
    big = random.Random(1).randbytes(700_000)
    keep(spool, b"before", big, b"after")
    assert held(spool) == [b"before", big, b"after"]
    spool.close()
    spool = FileSpool(tmp_path / "q")
    assert held(spool) == [b"before", big, b"after"]
    spool.close()


# ---------------------------------------------------------------- room


def test_the_budget(tmp_path: Path) -> None:
    """Appends raise when it is used up, and work again when records are settled, without closing anything."""
    spool = FileSpool(tmp_path / "q", limit_bytes=20_000)
    kept = 0
    with pytest.raises(SpoolFull):
        while True:
            keep(spool, b"x" * 100)
            kept += 1
    assert 100 < kept < 200
    assert spool.size() <= 20_000
    assert len(held(spool)) == kept
    for _ in range(5):
        settle(spool, "a", [b"x" * 100])
        for _ in range(100):
            keep(spool, b"x" * 100)
    spool.close()


def fill_up(spool: FileSpool) -> int:
    """Keep records until there is no room; how many."""
    kept = 0
    with contextlib.suppress(SpoolFull):
        while True:
            keep(spool, b"x" * 100, lanes=AB)
            kept += 1
    return kept


def settle_singly(spool: FileSpool) -> None:
    """Settle everything, record by record, which makes the state grow."""
    for lane in "ab":
        while (part := spool.read(lane, 0, 1, 1)) is not None:
            spool.settle(lane, part.places, Fate.DELIVERED)


def test_what_is_settled_does_not_count_for_the_budget(tmp_path: Path) -> None:
    """After everything was settled there is as much room as before, up to the share of one segment."""
    spool = FileSpool(tmp_path / "q", limit_bytes=20_000)
    before = fill_up(spool)
    settle_singly(spool)
    after = fill_up(spool)
    assert before - after <= 4096 // 124
    assert spool.size() <= 20_000
    spool.close()


def test_a_record_of_any_size_that_once_fitted(tmp_path: Path) -> None:
    """Whoever waits for room gets it: with nothing owed, the live segment is given back, and the grown state, too."""
    spool = FileSpool(tmp_path / "q", limit_bytes=5000)
    fill_up(spool)
    settle_singly(spool)
    keep(spool, b"x" * 4000)
    assert held(spool) == [b"x" * 4000]
    spool.close()
    again = FileSpool(tmp_path / "q", limit_bytes=5000)
    assert held(again) == [b"x" * 4000]
    assert again.account("b").records == 0
    again.close()


def test_a_live_segment_that_is_settled_by_half_is_sealed(tmp_path: Path) -> None:
    """When there is no room: so its bytes come back as soon as its last record is settled."""
    spool = FileSpool(tmp_path / "q", limit_bytes=4000)
    fill_up(spool)
    places = [place for part in slices(spool, "a") for place in part.places]
    half = len(places) // 2 + 1
    for lane in "ab":
        spool.settle(lane, places[:half], Fate.DELIVERED)
    with pytest.raises(SpoolFull):
        keep(spool, b"x" * 100, lanes=AB)
    for lane in "ab":
        spool.settle(lane, places[half:], Fate.DELIVERED)
    assert sorted(os.listdir(tmp_path)) == ["q.lock", "q.state", "q.state.new"]
    keep(spool, b"since")
    assert held(spool) == [b"since"]
    spool.close()


class Filling(Files):
    """A file system with a set amount of free space."""

    room = 10_000_000

    def free(self, path: str) -> tuple[int, int]:
        return self.room, 20_000_000


def test_the_floor(tmp_path: Path) -> None:
    """Appends raise before less than the floor stays free."""
    files = Filling()
    spool = FileSpool(tmp_path / "q", files=files, free_floor=5_000_000)
    keep(spool, b"x")
    files.room = 5_000_100
    spool.close()
    spool = FileSpool(tmp_path / "q", files=files, free_floor=5_000_000)
    with pytest.raises(SpoolFull, match="stay free"):
        keep(spool, b"x" * 1000)
    assert held(spool) == [b"x"]
    spool.close()


def test_dropping_the_oldest(tmp_path: Path) -> None:
    """The oldest go, for all lanes, are counted, and their room comes back."""
    spool = FileSpool(tmp_path / "q", segment_size=500)
    keep(spool, *(b"%03d" % number * 30 for number in range(20)), lanes=AB)
    before = spool.size()
    lost = spool.drop_oldest(700)
    assert spool.size() <= before - 500
    assert lost["a"] == lost["b"] == 20 - len(held(spool))
    assert held(spool) == [b"%03d" % number * 30 for number in range(lost["a"], 20)]
    spool.close()


# ---------------------------------------------------------------- interruptions


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_appending_from_a_signal_handler(tmp_path: Path) -> None:
    """Wherever the signal comes, nothing hangs and both records are kept."""
    spool = FileSpool(tmp_path / "q", segment_size=2000)
    inner = 0

    def handler(*_: object) -> None:
        nonlocal inner
        keep(spool, b"inner")
        inner += 1

    old = signal.signal(signal.SIGALRM, handler)
    rng = random.Random(6)
    outer = 0
    signal.setitimer(signal.ITIMER_REAL, 0)  # the one that limits the test's time may be running
    try:
        while inner < 100:
            # One shot at a time: on a slow machine, handlers would else interrupt each other without end.
            if signal.getitimer(signal.ITIMER_REAL)[0] == 0:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.0005))
            keep(spool, b"outer")
            outer += 1
            if outer % 10 == 0:
                settle(spool, "b", [b"nothing"])
                spool.read("a", 0, 10, 1000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    found = held(spool)
    assert (found.count(b"inner"), found.count(b"outer")) == (inner, outer)
    spool.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_an_exception_from_a_signal_handler(tmp_path: Path) -> None:
    """Ctrl-C at any moment: what returned is kept, the accounts balance, the spool goes on."""
    spool = FileSpool(tmp_path / "q", segment_size=600)
    rng = random.Random(4)
    came = threading.Event()

    def handler(*_: object) -> None:
        came.set()
        raise KeyboardInterrupt

    # Hypothesis leaves a callback in the collector, which would swallow the exception with a warning.
    gc.disable()
    old = signal.signal(signal.SIGALRM, handler)
    kept: set[bytes] = set()
    tried = itertools.count()

    # A function of its own: from 3.12 on, what is raised where a loop jumps back may pass by the `except` around it.
    def append_until_it_comes() -> None:
        came.clear()
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.001))
        while not came.is_set():
            number = next(tried)
            keep(spool, b"%d" % number, lanes=AB)
            kept.add(b"%d" % number)
            if number % 5 == 0:
                settle(spool, "b", held(spool, "b"))

    try:
        for _ in range(150):
            with contextlib.suppress(KeyboardInterrupt):
                append_until_it_comes()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        gc.enable()
    found = held(spool)
    assert kept <= set(found)
    assert len(set(found)) == len(found)
    spool.close()
    spool = FileSpool(tmp_path / "q")
    assert held(spool) == found
    spool.close()


def test_many_threads(tmp_path: Path) -> None:
    """Appending, syncing, reading and settling side by side: each record comes once, in the order of its thread."""
    spool = FileSpool(tmp_path / "q", segment_size=5000)
    seen: dict[str, list[bytes]] = {"a": [], "b": []}
    done = threading.Event()

    def produce(name: int) -> None:
        for number in range(150):
            spool.append([b"%d %03d" % (name, number)], AB, time=1.5, sync=number % 50 == 0)

    def consume(lane: str) -> None:
        while True:
            finished = done.is_set()
            part = spool.read(lane, 0, 20, 1000)
            if part is not None:
                seen[lane] += part.payloads  # type: ignore[arg-type]  # bytes in files
                spool.settle(lane, part.places, Fate.DELIVERED)
            elif finished:
                return

    producers = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
    consumers = [threading.Thread(target=consume, args=(lane,)) for lane in "ab"]
    for thread in (*producers, *consumers):
        thread.start()
    for thread in producers:
        thread.join()
    done.set()
    for thread in consumers:
        thread.join()
    for found in seen.values():
        assert len(found) == 600
        for name in range(4):
            own = [each for each in found if each.startswith(b"%d " % name)]
            assert own == [b"%d %03d" % (name, number) for number in range(150)]
    assert spool.owing() == ()
    spool.close()


def test_an_interrupt_of_the_quick_way(tmp_path: Path) -> None:
    """Ctrl-C at any call: the record is kept or not, the accounts say so, and the next one is kept."""
    number, reached = 0, True
    while reached:
        with closing(FileSpool(tmp_path / str(number))) as spool:
            keep(spool, b"before")
            reached = interrupted_at(number, lambda spool=spool: spool.append_one(b"outer", A, 2.0))  # type: ignore[misc]
            keep(spool, b"after")
            assert held(spool) in ([b"before", b"after"], [b"before", b"outer", b"after"])
        number += 1
    assert number > 5


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts handles in /proc")
def test_a_long_backlog_does_not_use_up_all_handles(tmp_path: Path) -> None:
    """Neither appending, nor opening, nor reading keeps more than a few segments open."""
    before = len(os.listdir("/proc/self/fd"))
    spool = FileSpool(tmp_path / "q", segment_size=200)
    for _ in range(2):
        keep(spool, *(b"%d" % number * 50 for number in range(100)))
        assert len(os.listdir("/proc/self/fd")) < before + 45
        spool.close()
        spool = FileSpool(tmp_path / "q", segment_size=200)
        assert len(os.listdir("/proc/self/fd")) < before + 45
        held(spool)
        assert len(os.listdir("/proc/self/fd")) < before + 45
    spool.close()
    assert len(os.listdir("/proc/self/fd")) == before
