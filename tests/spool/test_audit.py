"""Looking into a spool tells the truth and changes nothing; repairing throws nothing away that can be read."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters import codec
from resilient_exporters.exceptions import InvalidConfigError, SpoolError, SpoolInUse
from resilient_exporters.spool import Fate, FileSpool, StreamSpool
from resilient_exporters.spool.audit import Audit, audit
from resilient_exporters.spool.files import Files
from resilient_exporters.spool.frame import FileKind, preamble
from resilient_exporters.spool.interface import Spool
from resilient_exporters.spool.peek import peek
from resilient_exporters.spool.repair import repair
from tests.counts import EXAMPLES, MOMENTS
from tests.spool.spooling import AB, A, Row, contents, is_subsequence, keep, restore, rows


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Damage is announced, as it should be; here it is expected."""
    with caplog.at_level(logging.CRITICAL, "resilient_exporters"):
        yield


def fill(path: Path, *, segment_size: int = 500) -> FileSpool:
    """A spool of several segments with two lanes, two runs, options, expiry, settlements and dead letters."""
    keep_first = FileSpool(path, segment_size=segment_size)
    for number in range(12):
        keep(keep_first, b"old %d" % number, lanes=AB if number % 3 else A, time=10.0 + number)
    keep_first.close()
    spool = FileSpool(path, segment_size=segment_size)
    spool.append([b"two", b"three"], AB, time=30.0, options=codec.encode_options({"table": "t"}), expires=1e12)
    for number in range(12):
        keep(spool, b"new %d" % number, lanes=AB, time=40.0 + number)
    part = spool.read("a", 2, 4, 1 << 20)
    assert part is not None
    spool.settle("a", part.places[:3:2], Fate.DELIVERED)
    spool.bury("a", part, {1: "refused"}, 2)
    return spool


def accounts(found: Audit) -> dict[str, tuple[int, int, float | None]]:
    return {lane.name: (lane.owed, lane.owed_bytes, lane.oldest) for lane in found.lanes if lane.owed}


def kinds(found: Audit) -> set[tuple[str, str]]:
    return {(finding.severity, finding.kind) for finding in found.findings}


def peeked(path: Path, lane: str) -> list[Row]:
    return [(kept.id.run, kept.id.number, kept.payload) for kept in peek(path, lane)]


def names(found: Audit) -> list[str]:
    return [file.name for file in found.files]


# --- looking


@pytest.mark.parametrize("deep", [True, False])
def test_it_tells_what_the_spool_tells(tmp_path: Path, deep: bool) -> None:
    """On a live spool of many segments: accounts, oldest, dead letters and records are those of the spool itself."""
    spool = fill(tmp_path / "q")
    found = audit(tmp_path / "q", deep=deep)
    assert {lane: tuple(spool.account(lane)) for lane in "ab"} == accounts(found)
    assert 1 == found.dead == next(lane.dead for lane in found.lanes if lane.name == "a")
    assert ((), True, 0) == (found.findings, found.sound, found.lost)
    assert len([file for file in found.files if file.kind == "segment"]) > 3
    assert sum((tmp_path / name).stat().st_size for name in os.listdir(tmp_path)) == found.size
    for lane in "ab":
        assert rows(spool, lane) == peeked(tmp_path / "q", lane)
    spool.close()


def make_history(spool: Spool, data: st.DataObject) -> None:
    """Keep, settle and bury at random."""
    lanes = st.sets(st.sampled_from("abc"), min_size=1).map(frozenset)
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["keep", "keep", "settle", "bury"]))
        if what == "keep":
            payloads = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
            spool.append(payloads, data.draw(lanes), time=data.draw(st.floats(0, 1e9)))
            continue
        lane = data.draw(st.sampled_from("abc"))
        part = spool.read(lane, 0, data.draw(st.integers(1, 6)), 1 << 20)
        if part is None:
            continue
        chosen = data.draw(st.sets(st.sampled_from(range(len(part))), min_size=1))
        if what == "settle":
            spool.settle(lane, [part.places[at] for at in sorted(chosen)], Fate.DELIVERED)
        else:
            spool.bury(lane, part, dict.fromkeys(sorted(chosen), "no"), 1)


@settings(max_examples=EXAMPLES)
@given(data=st.data(), size=st.sampled_from([400, 900, 1 << 20]), streaming=st.booleans())
def test_it_agrees_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, streaming: bool
) -> None:
    """Whatever was kept, settled and buried, in files or in one file object: audit and peek agree with the spool."""
    path = tmp_path_factory.mktemp("history") / "q"
    with ExitStack() as stack:
        spool: Spool
        spool = StreamSpool(stack.enter_context(open(path, "w+b"))) if streaming else FileSpool(path, segment_size=size)
        stack.callback(spool.close)
        make_history(spool, data)
        for deep in (True, False):
            found = audit(path, deep=deep)
            expected = {lane: tuple(spool.account(lane))[:2] for lane in spool.owing()}
            assert expected == {lane: account[:2] for lane, account in accounts(found).items()}
            assert len(list(spool.dead_letters())) == found.dead
            assert found.sound
        for lane in "abc":
            assert rows(spool, lane) == peeked(path, lane)


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Neither bytes, nor names, nor times of files change, and the holder stays the holder."""
    spool = fill(tmp_path / "q")

    def snapshot() -> dict[str, tuple[bytes, int]]:
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()}

    before = snapshot()
    audit(tmp_path / "q")
    list(peek(tmp_path / "q"))
    assert before == snapshot()
    with pytest.raises(SpoolInUse):
        FileSpool(tmp_path / "q")
    spool.close()


def test_looking_at_a_spool_at_work(tmp_path: Path) -> None:
    """While another thread keeps, settles and rotates, each look is sound, and owes no more than was ever kept."""
    spool = FileSpool(tmp_path / "q", segment_size=1000)
    over = threading.Event()

    def work() -> None:
        try:
            for number in range(1500):
                keep(spool, b"payload %d" % number, lanes=AB)
                for lane in ("a", "b") if number % 5 == 4 else ():
                    part = spool.read(lane, 0, 4, 1 << 20)
                    assert part is not None
                    spool.settle(lane, part.places, Fate.DELIVERED)
        finally:
            over.set()

    worker = threading.Thread(target=work)
    worker.start()
    looks = 0
    while not over.is_set() or not looks:
        found = audit(tmp_path / "q", deep=bool(looks % 2))
        assert found.sound, found.findings
        assert all(lane.owed <= 1500 for lane in found.lanes)
        looks += 1
    worker.join()
    assert {lane: tuple(spool.account(lane)) for lane in "ab"} == accounts(audit(tmp_path / "q"))
    spool.close()


def test_peek_decodes(tmp_path: Path) -> None:
    """Peek shows data, keyword arguments, who owes it, and no more than asked for, oldest first."""
    spool = FileSpool(tmp_path / "q")
    for number in range(3):
        options = codec.encode_options({"table": "t"})
        spool.append([codec.encode({"n": number})], AB, time=5.0, options=options, expires=9.0)
    spool.settle("a", [1], Fate.DELIVERED)
    first, second = peek(tmp_path / "q", limit=2)
    assert ({"n": 0}, {"table": "t"}, ("b",), 9.0, 5.0) == (
        first.data, first.kwargs, first.lanes, first.expires, first.time
    )  # fmt: skip
    assert ({"n": 1}, ("a", "b")) == (second.data, second.lanes)
    assert [{"n": 1}, {"n": 2}] == [kept.data for kept in peek(tmp_path / "q", "a")]
    assert [] == list(peek(tmp_path / "q", "nobody"))
    spool.close()


# --- what is no spool


def test_no_spool_is_refused(tmp_path: Path) -> None:
    """Nothing there, a folder, another file and a sibling are refused, and nothing is made."""
    (tmp_path / "text").write_text("this is a letter to my aunt, and not a spool")
    fill(tmp_path / "q").close()
    before = sorted(os.listdir(tmp_path))
    for name in ("none", "text", "q.state", "", "no/such/folder"):
        for look in (audit, repair, lambda path: list(peek(path))):
            with pytest.raises(InvalidConfigError):
                look(tmp_path / name)
    assert before == sorted(os.listdir(tmp_path))


def test_a_spool_that_holds_nothing(tmp_path: Path) -> None:
    """A spool of which only the lock is there, and an empty file, are sound and empty; neighbours are not counted."""
    FileSpool(tmp_path / "q").close()
    (tmp_path / "q2").write_bytes(b"somebody else's")
    (tmp_path / "q.txt").write_bytes(b"somebody else's")
    assert (["q.lock"], True, 0) == (
        names(audit(tmp_path / "q")),
        audit(tmp_path / "q").sound,
        audit(tmp_path / "q").owed,
    )
    (tmp_path / "q").touch()
    found = audit(tmp_path / "q")
    assert ({("note", "empty")}, True) == (kinds(found), found.sound)
    assert () == repair(tmp_path / "q").done


# --- what is wrong


def test_a_torn_tail_is_no_damage(tmp_path: Path) -> None:
    """An append that was cut short is a note: nobody was told that it is kept; repairing cuts it off."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"one", b"two")
    spool.close()
    data = (tmp_path / "q").read_bytes()
    (tmp_path / "q").write_bytes(data[:-2])
    found = audit(tmp_path / "q")
    assert ({("note", "torn")}, True, 1) == (kinds(found), found.sound, found.owed)
    done = repair(tmp_path / "q")
    assert 1 == len(done.done)
    assert set() == kinds(done.after)


def sealed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix[1:].isdigit())


def lose_a_segment(folder: Path) -> None:
    sealed(folder)[1].unlink()


def copy_a_segment(folder: Path) -> None:
    (folder / "q.00000099").write_bytes(sealed(folder)[0].read_bytes())


def bring_a_stranger(folder: Path) -> None:
    stranger = FileSpool(folder / "stranger")
    keep(stranger, b"not ours")
    stranger.close()
    (folder / "stranger").rename(folder / "q.00000099")


def cut_a_footer(folder: Path) -> None:
    path = sealed(folder)[1]
    path.write_bytes(path.read_bytes()[:-20])


def break_a_preamble(folder: Path) -> None:
    path = sealed(folder)[1]
    path.write_bytes(b"x" + path.read_bytes()[1:])


def wipe_a_segment(folder: Path) -> None:
    path = sealed(folder)[1]
    path.write_bytes(b"\xff" * path.stat().st_size)


def lose_the_state(folder: Path) -> None:
    spool = FileSpool(folder / "q")
    last = spool.next_place
    for lane in "ab":
        spool.settle(lane, range(1, last // 2), Fate.DELIVERED)
    spool.close()
    (folder / "q.state").unlink()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def break_the_state(folder: Path) -> None:
    flip(folder / "q.state", 180)


def break_a_letter(folder: Path) -> None:
    flip(folder / "q.dead", (folder / "q.dead").stat().st_size - 3)
    with (folder / "q.dead").open("ab") as file:
        file.write(b"\x20" * 64)


def leave_something(folder: Path) -> None:
    (folder / "q.00000001.rewriting").write_bytes(b"half")
    (folder / "q.dead.new").write_bytes(b"half")


@pytest.mark.parametrize(
    ("harm", "severity", "kind"),
    [
        (lose_a_segment, "damage", "missing"),
        (copy_a_segment, "damage", "copy"),
        (bring_a_stranger, "damage", "foreign"),
        (cut_a_footer, "warning", "footer"),
        (break_a_preamble, "warning", "preamble"),
        (wipe_a_segment, "damage", "unusable"),
        (lose_the_state, "warning", "state"),
        (break_the_state, "warning", "gap"),
        (break_a_letter, "damage", "gap"),
        (leave_something, "note", "leftover"),
    ],
)
def test_harm_is_found_and_repaired(tmp_path: Path, harm: Any, severity: str, kind: str) -> None:
    """Each kind of harm is named; after a repair the spool is sound, and opening owes what opening alone would have."""
    fill(tmp_path / "q").close()
    harm(tmp_path)
    assert (severity, kind) in kinds(audit(tmp_path / "q"))
    harmed = contents(tmp_path)
    spool = FileSpool(tmp_path / "q")
    expected = rows(spool, "a"), rows(spool, "b"), list(spool.dead_letters())
    spool.close()
    restore(tmp_path, harmed)
    done = repair(tmp_path / "q")
    assert done.after.sound, done.after.findings
    assert {"note"} >= {finding.severity for finding in done.after.findings}
    assert done.done or severity == "warning"
    spool = FileSpool(tmp_path / "q")
    assert expected == (rows(spool, "a"), rows(spool, "b"), list(spool.dead_letters()))
    spool.close()
    assert () == repair(tmp_path / "q").done


def test_damaged_letters_are_set_aside(tmp_path: Path) -> None:
    """A dead letter that cannot be read any more is set aside by a repair, the others stay."""
    spool = fill(tmp_path / "q")
    part = spool.read("b", 0, 1, 1)
    assert part is not None
    spool.bury("b", part, {0: "no"}, 1)
    spool.close()
    at = (tmp_path / "q.dead").read_bytes().index(b"refused")
    flip(tmp_path / "q.dead", at)
    repair(tmp_path / "q")
    (aside,) = tmp_path.glob("q.damaged.*")
    assert b"2efused" in aside.read_bytes() or b"bytes" not in aside.read_bytes()
    assert b"efused" in aside.read_bytes()
    spool = FileSpool(tmp_path / "q")
    assert ["no"] == [letter.reason for letter in spool.dead_letters()]
    spool.close()


def test_any_byte(tmp_path: Path) -> None:
    """Any byte of any file is flipped: looking and repairing do not fail, nothing is invented, ids and order stay."""
    spool = fill(tmp_path / "q")
    before = {lane: rows(spool, lane) for lane in "ab"}
    spool.close()
    whole = contents(tmp_path)
    for name in sorted(whole):
        for at in range(0, 0 if name.endswith(".new") else len(whole[name]), MOMENTS):
            restore(tmp_path, whole)
            flip(tmp_path / name, at)
            audit(tmp_path / "q", deep=False)
            done = repair(tmp_path / "q")
            assert done.after.sound, (name, at, done.done, done.before.findings, done.after.findings)
            spool = FileSpool(tmp_path / "q")
            for lane in "ab":
                now = rows(spool, lane)
                assert is_subsequence(now, before[lane]) or name == "q.state"
                assert len(before[lane]) - len(now) <= 2
            spool.close()
            assert kinds(audit(tmp_path / "q")) <= {("note", "set aside")}


# --- repairing


def test_repair_refuses_what_a_newer_version_wrote(tmp_path: Path) -> None:
    """A segment of a later format is named, and left as it is."""
    fill(tmp_path / "q").close()
    fields = bytearray(preamble(FileKind.SEGMENT))
    fields[8] = 9
    fields[12:] = crc32(bytes(fields[:12])).to_bytes(4, "little")
    path = sealed(tmp_path)[1]
    path.write_bytes(bytes(fields) + path.read_bytes()[16:])
    before = contents(tmp_path)
    assert ("damage", "newer") in kinds(audit(tmp_path / "q"))
    with pytest.raises(InvalidConfigError, match="newer"):
        repair(tmp_path / "q")
    assert before == contents(tmp_path)


def test_repair_refuses_a_live_spool(tmp_path: Path) -> None:
    """A spool that somebody holds is refused, with the holder's name, and nothing changes."""
    spool = FileSpool(tmp_path / "q", owner="the pool")
    keep(spool, b"one")
    before = contents(tmp_path)
    with pytest.raises(SpoolInUse, match="the pool"):
        repair(tmp_path / "q")
    assert before == contents(tmp_path)
    spool.close()


def test_repair_refuses_a_file_object(tmp_path: Path) -> None:
    """The content of a file object is looked at, but not repaired as if it were files: its state would be lost."""
    with open(tmp_path / "q", "w+b") as file:
        spool = StreamSpool(file)
        keep(spool, b"one", b"two")
        spool.settle("a", [1], Fate.DELIVERED)
        assert (1, "stream") == (audit(tmp_path / "q").owed, audit(tmp_path / "q").files[0].kind)
        with pytest.raises(InvalidConfigError, match="file object"):
            repair(tmp_path / "q")
        spool.close()


def test_repaired_segments_are_fresh(tmp_path: Path) -> None:
    """A damaged segment is written anew without its gap, keeps its name, and what was lost counts as dropped."""
    fill(tmp_path / "q").close()
    (harmed, *_) = sealed(tmp_path)
    data = harmed.read_bytes()
    flip(harmed, data.index(b"old 1"))
    found = audit(tmp_path / "q")
    assert {("damage", "gap"), ("damage", "missing")} == kinds(found)
    assert 1 == found.lost
    assert not found.sound
    done = repair(tmp_path / "q")
    (report,) = [file for file in done.after.files if file.name == harmed.name]
    assert ((), True) == (report.gaps, report.footer)
    assert (0, 1) == (done.after.lost, done.before.lost)
    assert b"old 0" in harmed.read_bytes()


class _Failing(Files):
    """A system in which everything that changes a file fails from the nth such call on."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError("no more")

    def pwrite(self, handle: int, data: Any, offset: int) -> int:
        self._count()
        return os.pwrite(handle, data, offset)

    def truncate(self, handle: int, size: int) -> None:
        self._count()
        super().truncate(handle, size)

    def rename(self, old: str, new: str) -> None:
        self._count()
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._count()
        super().unlink(path)

    def sync(self, handle: int) -> None:
        self._count()
        super().sync(handle)


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="the failing system is written with it")
def test_a_repair_that_breaks_off_loses_nothing(tmp_path: Path) -> None:
    """Wherever a repair breaks off, opening owes what it owed without it, and repairing again ends sound."""
    fill(tmp_path / "q").close()
    for harmed in sealed(tmp_path)[:2]:
        flip(harmed, 200)
    flip(tmp_path / "q.dead", 200)
    harmed_files = contents(tmp_path)
    spool = FileSpool(tmp_path / "q")
    expected = rows(spool, "a"), rows(spool, "b")
    spool.close()
    calls, finished = 0, False
    while not finished:
        restore(tmp_path, harmed_files)
        try:
            repair(tmp_path / "q", files=_Failing(calls))
            finished = True
        except SpoolError:
            calls += 1
        after = contents(tmp_path)
        spool = FileSpool(tmp_path / "q")
        assert expected == (rows(spool, "a"), rows(spool, "b"))
        spool.close()
        restore(tmp_path, after)
        assert repair(tmp_path / "q").after.sound
    assert calls > 5
