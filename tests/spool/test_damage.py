"""Whatever happens to the bytes of a spool, it opens, loses no more than what was touched, and invents nothing."""

from __future__ import annotations

import io
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_exporters.spool import FileSpool, StreamSpool
from resilient_exporters.spool.frame import JOINED, Kind
from resilient_exporters.spool.scan import scan
from tests.counts import DAMAGES
from tests.spool.spooling import AB, A, Row, contents, held, is_subsequence, keep, restore, rows, settle


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Thousands of warnings are expected."""
    with caplog.at_level(logging.CRITICAL, "resilient_exporters"):
        yield


def fill(path: Path, segment_size: int = 1 << 20) -> tuple[list[Row], list[Row]]:
    """A spool with single records, batches, options, two lanes and two runs; what its lanes owe."""
    for number in range(2):
        spool = FileSpool(path, segment_size=segment_size)
        keep(spool, b"one %d" % number, lanes=A)
        spool.append([b"two %d" % number, b"three %d" % number], AB, time=2.5)
        spool.append([b"four %d" % number], AB, time=3.5, options=b"options", expires=99.0)
        spool.append([b"five %d" % number], A, time=3.5, run=77, first=1 + number)
        keep(spool, b"six %d" % number, b"seven %d" % number, lanes=AB)
        found = rows(spool, "a"), rows(spool, "b")
        spool.close()
    return found


def touched(data: bytes, start: int, stop: int) -> int:
    """How many records are in frames that have any of these bytes."""
    count = 0
    for frame in scan(data).frames:
        if frame.kind in JOINED and frame.at < stop and start < frame.at + frame.length:
            count += 2 if frame.kind == Kind.MANY else 1
    return count


def most_lost(data: bytes, start: int, stop: int) -> int:
    """How many records these bytes may cost: all, where both copies of a run or a lane set are among them."""
    hit = [frame.kind for frame in scan(data).frames if frame.at < stop and start < frame.at + frame.length]
    return 99 if hit.count(Kind.RUN) > 1 or hit.count(Kind.LANES) > 1 else touched(data, start, stop)


def check(path: Path, before: tuple[list[Row], list[Row]], most: int) -> FileSpool:
    """Open and compare: the lanes owe what they owed, in order, but for at most so many records; and work goes on."""
    spool = FileSpool(path)
    for lane, was in zip("ab", before, strict=True):
        left = rows(spool, lane)
        assert is_subsequence(left, was)
        assert len(was) - len(left) <= most
    keep(spool, b"new", lanes=AB)
    assert held(spool, "a")[-1:] == held(spool, "b")[-1:] == [b"new"]
    now = held(spool, "a"), held(spool, "b")
    spool.close()
    again = FileSpool(path)
    assert (held(again, "a"), held(again, "b")) == now
    return again


def test_a_flipped_byte_costs_its_frame(tmp_path: Path) -> None:
    """Any byte of the live segment: the records of that frame, no others; frames that others need cost nothing."""
    before = fill(tmp_path / "q")
    files = contents(tmp_path)
    for at in range(0, len(files["q"]), DAMAGES):
        data = bytearray(files["q"])
        data[at] ^= 1 << at % 8
        restore(tmp_path, {**files, "q": bytes(data)})
        check(tmp_path / "q", before, touched(files["q"], at, at + 1)).close()


def test_a_cut_costs_what_is_behind_it(tmp_path: Path) -> None:
    """Any length of the live segment: everything before the cut is there."""
    before = fill(tmp_path / "q")
    files = contents(tmp_path)
    size = len(files["q"])
    for at in range(0, size, DAMAGES):
        restore(tmp_path, {**files, "q": files["q"][:at]})
        check(tmp_path / "q", before, touched(files["q"], at, size)).close()


def test_a_missing_piece_costs_what_was_in_it(tmp_path: Path) -> None:
    """Any stretch cut out of the middle of the live segment: what stands behind it is found at its new place."""
    path = tmp_path / "q"
    before = fill(path)
    files = contents(tmp_path)
    # Runs and lane sets stand in front of the first record, and behind it where the second spool went on.
    first = next(frame.at for frame in scan(files["q"]).frames if frame.kind in JOINED)
    for at in range(first, len(files["q"]), 7 * DAMAGES):
        for length in (1, 24, 50, 100):
            restore(tmp_path, {**files, "q": files["q"][:at] + files["q"][at + length :]})
            # It takes two frames to tell how long the piece was, so the last one goes with the one before it.
            check(path, before, most_lost(files["q"], at, at + length) + 1).close()


def cut_out(data: bytes, rng: random.Random, first: int) -> tuple[bytes, int, int]:
    """A file without a random stretch behind `first`, and which stretch."""
    at = rng.randrange(first, len(data) - 200)
    length = rng.randint(1, 180)
    return data[:at] + data[at + length :], at, at + length


@pytest.mark.parametrize("sealed", [False, True])
def test_missing_pieces_are_counted_in_records(tmp_path: Path, sealed: bool) -> None:
    """One piece, another one, then flips: each costs the frames that it touched, and `damage` tells how many."""
    path = tmp_path / "q"
    every = [b"record %03d " % number + b"x" * (number % 40) for number in range(200)]
    spool = FileSpool(path)
    keep(spool, *every)
    if sealed:
        spool.mark()
        keep(spool, b"the live one")
    spool.close()
    files = contents(tmp_path)
    name = "q.00000001" if sealed else "q"
    rest = [b"the live one"] * sealed
    first = files[name].index(b"record 001")
    rng = random.Random(7)
    for _ in range(max(40 // DAMAGES, 4)):
        data, start, stop = cut_out(files[name], rng, first)
        lost = touched(files[name], start, stop)
        for lone, step in enumerate(("a cut", "another", "and a flip")):
            restore(tmp_path, {**files, name: data})
            spool = FileSpool(path)
            found = held(spool)
            assert is_subsequence(found, [*every, *rest])
            missing = len(every) + len(rest) - len(found)
            # Two frames in a row tell how long the piece was, so one alone between two damages, or at the end, goes
            # with them; and the last ones leave no number behind that tells of them.
            assert missing <= lost + lone + (every[-1] not in found), step
            assert every[-1] not in found or spool.damage[0] == missing
            settle(spool, "a", found)
            assert spool.owing() == ()
            keep(spool, b"goes on")
            assert held(spool) == [b"goes on"]
            spool.close()
            if step == "a cut":
                whole = data
                data, start, stop = cut_out(whole, rng, first)
                lost += touched(whole, start, stop)
            else:
                at = rng.randrange(first, len(data) - 200)
                lost += touched(data, at, at + 1)
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_missing_piece_that_was_whole_frames(tmp_path: Path) -> None:
    """No byte is left of it, and all that is told is how many records it held."""
    path = tmp_path / "q"
    spool = FileSpool(path)
    keep(spool, *(b"record %d" % number for number in range(9)))
    spool.close()
    data = path.read_bytes()
    start, stop = (data.index(b"record %d" % number) - 24 for number in (3, 5))
    path.write_bytes(data[:start] + data[stop:])
    spool = FileSpool(path)
    assert held(spool) == [b"record %d" % number for number in (0, 1, 2, 5, 6, 7, 8)]
    assert spool.damage == (2, 0)
    spool.close()
    assert not (tmp_path / "q.damaged.1").exists()
    spool = FileSpool(path)
    assert (len(held(spool)), spool.damage) == (7, (0, 0))
    spool.close()


def test_a_missing_piece_with_a_run_in_it(tmp_path: Path) -> None:
    """The run that comes into force behind it is known by the frame that stands there, at its new place."""
    path = tmp_path / "q"
    spool = FileSpool(path)
    keep(spool, *(b"record %d" % number for number in range(9)))
    spool.append([b"of another run"], A, time=1.5, run=77, first=5)
    keep(spool, b"last")
    before = rows(spool, "a")
    spool.close()
    data = path.read_bytes()
    at = data.index(b"record 4")
    path.write_bytes(data[: at - 24] + data[at + 8 :])
    spool = FileSpool(path)
    assert rows(spool, "a") == before[:4] + before[5:]
    assert spool.damage == (1, 0)
    spool.close()


def test_a_file_object_with_a_missing_piece() -> None:
    """What stands behind it, settlements too, is found where it is now, and what is appended then at its own place."""
    file = io.BytesIO()
    spool = StreamSpool(file)
    every = [b"record %02d" % number for number in range(40)]
    keep(spool, *every)
    settle(spool, "a", [every[30]])
    spool.close()
    data = file.getvalue()
    at = data.index(b"record 10")
    file = io.BytesIO(data[: at - 50] + data[at + 50 :])
    lost = touched(data, at - 50, at + 50)
    spool = StreamSpool(file)
    left = held(spool)
    assert is_subsequence(left, every[:30] + every[31:])
    assert (len(left), spool.damage[0]) == (39 - lost, lost)
    keep(spool, b"new")
    spool.close()
    spool = StreamSpool(file)
    assert held(spool) == [*left, b"new"]
    spool.close()


def test_zeros_cost_what_they_cover(tmp_path: Path) -> None:
    """Stretches of zeros anywhere, as from a lost page: the frames that they touch, and those of a lost run."""
    before = fill(tmp_path / "q")
    files = contents(tmp_path)
    size = len(files["q"])
    for at in range(16, size, 5 * DAMAGES):
        for length in (1, 30, 100):
            data = bytearray(files["q"])
            data[at : at + length] = bytes(len(data[at : at + length]))
            restore(tmp_path, {**files, "q": bytes(data)})
            check(tmp_path / "q", before, most_lost(files["q"], at, at + length)).close()


def test_a_flipped_byte_in_a_sealed_segment(tmp_path: Path) -> None:
    """Its footer is believed at opening, the damage found when it is read: counted, set aside, and only once."""
    path = tmp_path / "q"
    before = fill(path, segment_size=400)
    files = contents(tmp_path)
    sealed = sorted(name for name in files if name.startswith("q.0"))
    assert len(sealed) >= 3
    name = sealed[1]
    for at in range(0, len(files[name]), 2 * DAMAGES):
        data = bytearray(files[name])
        data[at] ^= 1 << at % 8
        restore(tmp_path, {**files, name: bytes(data)})
        check(path, before, touched(files[name], at, at + 1)).close()
        damaged = [other for other in os.listdir(tmp_path) if ".damaged." in other]
        assert len(damaged) <= 1


def test_damage_is_counted_and_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The bytes are in a sibling, the loss is in `damage` and in the log, once."""
    path = tmp_path / "q"
    spool = FileSpool(path)
    keep(spool, b"first", b"damaged record", b"last")
    spool.close()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"damaged", b"DAMAGED"))
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        spool = FileSpool(path)
    assert spool.damage == (1, 24 + len("damaged record"))
    assert [record.message.split()[0] for record in caplog.records] == ["spool_damaged"]
    assert b"DAMAGED record" in (tmp_path / "q.damaged.1").read_bytes()
    assert held(spool) == [b"first", b"last"]
    spool.close()
    spool = FileSpool(path)
    assert spool.damage == (0, 0)
    spool.close()


def test_damage_found_while_reading(tmp_path: Path) -> None:
    """What goes bad while the spool is open is dropped from the accounts when it is met."""
    path = tmp_path / "q"
    spool = FileSpool(path, segment_size=300)
    keep(spool, *(b"record %d" % number for number in range(12)))
    data = (tmp_path / "q.00000001").read_bytes()
    (tmp_path / "q.00000001").write_bytes(data.replace(b"record 1", b"RECORD 1"))
    assert spool.account("a").records == 12
    rest = [b"record %d" % number for number in range(12) if number != 1]
    assert [payload for part in iter_slices(spool) for payload in part] == rest
    assert spool.account("a").records == 11
    assert spool.damage == (1, 24 + 8)
    settle(spool, "a", held(spool))
    assert spool.owing() == ()
    assert not (tmp_path / "q.00000001").exists()
    spool.close()


def iter_slices(spool: FileSpool) -> Iterator[list[object]]:
    after = 0
    while (part := spool.read("a", after, 2, 1000)) is not None:
        after = part.places[-1]
        yield list(part.payloads)


@pytest.fixture
def sealed(tmp_path: Path) -> dict[str, bytes]:
    """The files of a spool with several sealed segments, in a folder of that name."""
    spool = FileSpool(tmp_path / "q", segment_size=300)
    keep(spool, *(b"record %02d" % number for number in range(30)))
    spool.close()
    files = contents(tmp_path)
    assert len(files) > 4
    return files


ALL = [b"record %02d" % number for number in range(30)]


def test_swapped_segments(tmp_path: Path, sealed: dict[str, bytes]) -> None:
    """Names do not matter: every segment says itself where it belongs, and nothing is overwritten later."""
    swapped = {**sealed, "q.00000001": sealed["q.00000002"], "q.00000002": sealed["q.00000001"]}
    swapped["q.00000099"] = swapped.pop("q.00000003")
    restore(tmp_path, swapped)
    spool = FileSpool(tmp_path / "q", segment_size=300)
    assert held(spool) == ALL
    assert spool.damage == (0, 0)
    keep(spool, *(b"more %d" % number for number in range(30)))
    assert held(spool) == [*ALL, *(b"more %d" % number for number in range(30))]
    spool.close()


def test_a_live_segment_never_replaces_a_sealed_one(tmp_path: Path, sealed: dict[str, bytes]) -> None:
    """A sealed segment under the name that the live one would get stays."""
    number = len([name for name in sealed if name.startswith("q.0")]) + 1
    renamed = {**sealed, f"q.{number:08d}": sealed["q.00000001"]}
    del renamed["q.00000001"]
    restore(tmp_path, renamed)
    spool = FileSpool(tmp_path / "q", segment_size=300)
    keep(spool, *(b"more %d" % each for each in range(20)))
    assert held(spool) == [*ALL, *(b"more %d" % each for each in range(20))]
    spool.close()


def test_a_duplicated_segment(tmp_path: Path, sealed: dict[str, bytes]) -> None:
    """A copy of a segment is set aside; its records come once."""
    restore(tmp_path, {**sealed, "q.00000077": sealed["q.00000002"]})
    spool = FileSpool(tmp_path / "q")
    assert held(spool) == ALL
    assert (tmp_path / "q.damaged.1").read_bytes() == sealed["q.00000002"]
    spool.close()


def test_a_deleted_segment(tmp_path: Path, sealed: dict[str, bytes]) -> None:
    """What was in it is lost and counted; what is before and behind it is there."""
    rest = dict(sealed)
    lost = sum(frame.kind == Kind.ONE for frame in scan(rest.pop("q.00000002")).frames)
    restore(tmp_path, rest)
    spool = FileSpool(tmp_path / "q")
    assert len(held(spool)) == 30 - lost
    assert is_subsequence(held(spool), ALL)
    assert spool.damage == (lost, 0)
    spool.close()


def test_a_missing_first_segment_was_settled(tmp_path: Path, sealed: dict[str, bytes]) -> None:
    """Segments are deleted from the front when they are settled, so that is no damage."""
    rest = dict(sealed)
    del rest["q.00000001"]
    restore(tmp_path, rest)
    spool = FileSpool(tmp_path / "q")
    assert spool.damage == (0, 0)
    assert is_subsequence(held(spool), ALL)
    spool.close()


def test_a_foreign_segment(tmp_path: Path, sealed: dict[str, bytes]) -> None:
    """A segment of another spool is set aside: its records are not ours to send."""
    (tmp_path / "other").mkdir()
    other = FileSpool(tmp_path / "other" / "q", segment_size=200)
    keep(other, *(b"foreign %d" % number for number in range(20)))
    other.close()
    foreign = contents(tmp_path / "other")["q.00000002"]
    spool = FileSpool(tmp_path / "q")
    settle(spool, "a", [b"record 03"])
    spool.close()
    (tmp_path / "q.00000055").write_bytes(foreign)
    spool = FileSpool(tmp_path / "q")
    assert held(spool) == [payload for payload in ALL if payload != b"record 03"]
    assert (tmp_path / "q.damaged.1").read_bytes() == foreign
    spool.close()


@pytest.mark.parametrize("pieces", [False, True])
def test_a_spool_sent_as_a_payload(tmp_path: Path, pieces: bool) -> None:
    """The frames in a payload that is a spool file never come to life, however the spool around it is damaged."""
    inner = FileSpool(tmp_path / "inner")
    keep(inner, b"inner 1", b"inner 2", b"inner 3", lanes=AB)
    inner.close()
    file = (tmp_path / "inner").read_bytes()
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"before", file, b"after")
    whole = (tmp_path / "q").read_bytes()
    keep(spool, whole, b"last")
    spool.close()
    files = {name: data for name, data in contents(tmp_path).items() if name.startswith("q")}
    rng = random.Random(5)
    for _ in range(60):
        data = bytearray(files["q"])
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(144, len(data))
            data[at : at + rng.choice([1, 8, 64])] = b"\xff"
        if pieces:
            at = rng.randrange(144, len(data))
            del data[at : at + rng.choice([1, 30, 90, 300])]
        restore(tmp_path, {"q": bytes(data)})
        spool = FileSpool(tmp_path / "q")
        assert is_subsequence(held(spool), [b"before", file, b"after", whole, b"last"])
        assert held(spool, "b") == []
        spool.close()


def test_rubbish_is_passed_quickly(tmp_path: Path) -> None:
    """A long stretch of rubbish between two records is searched in about linear time."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"first", b"x" * (1 << 21), b"last")
    spool.close()
    data = bytearray((tmp_path / "q").read_bytes())
    at = data.index(b"xxxx") - 24
    data[at : at + (1 << 21)] = random.Random(1).randbytes(1 << 21)
    (tmp_path / "q").write_bytes(data)
    spool = FileSpool(tmp_path / "q")
    assert held(spool) == [b"first", b"last"]
    assert spool.damage == (1, (1 << 21) + 24)
    spool.close()


def test_any_state_file_costs_duplicates_only(tmp_path: Path) -> None:
    """A state file that is cut, flipped, foreign or gone: no record is lost, some come again."""
    path = tmp_path / "q"
    spool = FileSpool(path, segment_size=400)
    keep(spool, *(b"record %02d" % number for number in range(20)), lanes=AB)
    for number in (12, 14, 13):
        settle(spool, "a", [b"record %02d" % number])
    owed = {lane: held(spool, lane) for lane in "ab"}
    spool.close()
    files = contents(tmp_path)
    state = files.pop("q.state")
    flips = [state[:at] + bytes([state[at] ^ 4]) + state[at + 1 :] for at in range(0, len(state), DAMAGES)]
    cuts = [state[:at] for at in range(0, len(state), DAMAGES)]
    for broken in [*flips, *cuts, b"something else entirely"]:
        restore(tmp_path, {**files, "q.state": broken})
        spool = FileSpool(path, segment_size=400)
        for lane in "ab":
            assert is_subsequence(owed[lane], held(spool, lane))
        settle(spool, "a", [b"record 12"])
        assert b"record 12" not in held(spool)
        spool.close()


def test_any_dead_letter_file(tmp_path: Path) -> None:
    """A damaged dead-letter file still gives the letters that are whole, and takes new ones."""
    path = tmp_path / "q"
    spool = FileSpool(path)
    keep(spool, *(b"record %d" % number for number in range(4)))
    part = spool.read("a", 0, 3, 1000)
    assert part is not None
    spool.bury("a", part, {0: "no", 1: "no", 2: "no"}, 1)
    spool.close()
    files = contents(tmp_path)
    dead = files["q.dead"]
    for at in range(0, len(dead), DAMAGES):
        restore(tmp_path, {**files, "q.dead": dead[:at] + bytes([dead[at] ^ 4]) + dead[at + 1 :]})
        spool = FileSpool(path)
        letters = [letter.payload for letter in spool.dead_letters()]
        assert len(letters) >= 2
        assert is_subsequence(letters, [b"record 0", b"record 1", b"record 2"])
        rest = spool.read("a", 0, 3, 1000)
        assert rest is not None
        spool.bury("a", rest, {0: "no"}, 1)
        assert [letter.payload for letter in spool.dead_letters()] == [*letters, b"record 3"]
        spool.close()


def test_a_damaged_file_object() -> None:
    """A stream that is flipped anywhere opens, too, and loses that frame only."""
    file = io.BytesIO()
    spool = StreamSpool(file)
    keep(spool, b"one", b"two", b"three", lanes=AB)
    settle(spool, "a", [b"one"])
    spool.close()
    data = file.getvalue()
    for at in range(0, len(data), DAMAGES):
        file = io.BytesIO(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        spool = StreamSpool(file)
        for lane in "ab":
            assert is_subsequence(held(spool, lane), [b"one", b"two", b"three"])
            assert len(held(spool, lane)) >= 2 - touched(data, at, at + 1)
        keep(spool, b"new")
        assert held(spool)[-1] == b"new"
        settle(spool, "a", held(spool))
        assert held(spool) == []
        spool.close()


def test_damaged_dead_letters_are_set_aside(tmp_path: Path) -> None:
    """A dead letter that cannot be read any more is kept in a sibling, byte by byte, and the others stay."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"one", lanes=frozenset("a"))
    keep(spool, b"two", lanes=frozenset("a"))
    found = spool.read("a", 0, 10, 1000)
    assert found is not None
    assert 2 == spool.bury("a", found, {0: "no", 1: "never"}, 1)
    spool.close()
    path = tmp_path / "q.dead"
    content = path.read_bytes()
    at = content.index(b"one")
    path.write_bytes(content[:at] + b"0ne" + content[at + 3 :])
    again = FileSpool(tmp_path / "q")
    assert [b"two"] == [letter.payload for letter in again.dead_letters()]
    again.close()
    assert any(b"0ne" in aside.read_bytes() for aside in tmp_path.glob("q.damaged.*"))
