"""The bytes on disk are those of the drawings in frame.py and docs/design/on-disk-format.md."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from zlib import crc32

import pytest

from resilient_exporters.spool import FileSpool
from resilient_exporters.spool.frame import (
    HEADER_SIZE,
    RECORD_SIZE,
    RUN_SIZE,
    SELF_SEED,
    Context,
    FileKind,
    Kind,
    pack,
    preamble,
    read_preamble,
    unpack_records,
)
from resilient_exporters.spool.scan import scan
from resilient_exporters.spool.segment import TRAILER
from tests.spool.spooling import AB, A, keep, settle


def u(data: bytes, start: int, stop: int) -> int:
    return int.from_bytes(data[start:stop], "little")


def test_the_preamble() -> None:
    """Magic, version, kind, checksum, at the places where they are drawn."""
    data = preamble(FileKind.STATE)
    assert (data[:8], u(data, 8, 10), u(data, 10, 12)) == (b"rexspool", 1, 2)
    assert u(data, 12, 16) == crc32(data[:12])
    assert len(data) == HEADER_SIZE == 16
    assert read_preamble(data) == (1, FileKind.STATE)
    assert read_preamble(data[:-1]) is None


def test_the_run_frame() -> None:
    """A run frame has its seven numbers where they are drawn, and a seed of its own."""
    data = Context(3, 4, 5, 6, 7, 8, -9).pack(100)
    assert (u(data, 4, 8), u(data, 8, 10) >> 13, u(data, 10, 12)) == (RUN_SIZE, Kind.RUN, 0)
    assert [u(data, 12, 16), *struct.unpack("<5Qq", data[16:])] == [3, 4, 5, 6, 7, 8, -9]
    assert u(data, 0, 4) == crc32(data[4:], SELF_SEED + 100)
    assert len(data) == RUN_SIZE == 64


def test_every_field_of_a_segment(tmp_path: Path) -> None:
    """A segment written by a spool is, byte for byte, what the drawing says."""
    spool = FileSpool(tmp_path / "q")
    spool.append([b"first"], AB, time=1.5, first=7, flags=1)
    spool.append([b"second", b"", b"third"], AB, time=2.5, first=9, options=b"opt", expires=8.25)
    spool.close()
    data = (tmp_path / "q").read_bytes()
    assert data[:16] == preamble(FileKind.SEGMENT)
    assert data[16:80] == Context.unpack(data[28:80]).pack(16)
    context = Context.unpack(data[28:80])
    assert data[80:144] == context.pack(80)
    assert (context.ordinal, context.segment, context.base, context.run) == (0, 1, 1, spool.run)
    seed = crc32(struct.pack("<QQI", context.salt, context.segment, context.ordinal))
    at = 144
    for _ in range(2):
        lanes = pack(Kind.LANES, b'["a","b"]', seed, at)
        assert data[at : at + len(lanes)] == lanes
        at += len(lanes)
    one = data[at : at + 24 + 5]
    assert (u(one, 4, 8), u(one, 8, 10) >> 13, u(one, 8, 10) & 0xFF, u(one, 8, 10) >> 8 & 3) == (29, Kind.ONE, 0, 1)
    assert (u(one, 12, 16), struct.unpack("<d", one[16:24])[0], one[24:]) == (0, 1.5, b"first")
    assert u(one, 12, 16) + context.shift + u(one, 10, 12) == 7
    assert u(one, 0, 4) == crc32(one[4:], (seed + at) & 0xFFFFFFFF)
    at += 29
    many = data[at:]
    meta = u(many, 8, 10)
    assert (u(many, 4, 8), meta >> 13) == (len(many), Kind.MANY)
    assert (meta >> 12 & 1, meta >> 11 & 1, meta >> 10 & 1) == (0, 1, 1)
    assert (u(many, 12, 16), struct.unpack("<dd", many[16:32])) == (1, (2.5, 8.25))
    assert u(many, 12, 16) + context.shift + u(many, 10, 12) == 9
    assert (u(many, 32, 36), many[36:39]) == (3, b"opt")
    assert (u(many, 39, 43), struct.unpack("<3H", many[43:49]), many[49:]) == (3, (6, 0, 5), b"secondthird")


def test_wide_lengths(tmp_path: Path) -> None:
    """From 64 KiB on, a batch has lengths of four bytes."""
    spool = FileSpool(tmp_path / "q")
    spool.append([b"x" * 0x10000, b"y"], A, time=1.5)
    spool.close()
    data = (tmp_path / "q").read_bytes()
    found = next(frame for frame in scan(data).frames if frame.kind == Kind.MANY)
    assert found.meta >> 12 & 1 == 1
    assert struct.unpack_from("<III", data, found.at + 24) == (2, 0x10000, 1)


def test_what_a_record_costs(tmp_path: Path) -> None:
    """24 bytes beside the payload alone, two each in a batch and one frame for all."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"x")
    size = spool.size()
    keep(spool, b"x" * 100)
    assert spool.size() - size == 124
    size = spool.size()
    spool.append([b"x" * 100] * 50, A, time=1.5)
    assert spool.size() - size == 24 + 4 + 50 * 102
    spool.close()


def test_the_footer_and_its_trailer(tmp_path: Path) -> None:
    """A sealed segment ends with a footer that says where it begins, and what the segment holds."""
    spool = FileSpool(tmp_path / "q", segment_size=300)
    keep(spool, b"x" * 100, b"y" * 200, lanes=AB)
    spool.close()
    data = (tmp_path / "q.00000001").read_bytes()
    at, crc, mark = TRAILER.unpack(data[-16:])
    assert mark == b"rexf"
    assert crc == crc32(struct.pack("<QI4s", at, 0, mark))
    assert u(data, at + 4, at + 8) == len(data) - at
    assert u(data, at + 8, at + 10) >> 13 == Kind.FOOTER
    assert u(data, at, at + 4) == crc32(data[at + 4 :], SELF_SEED + at)
    assert b'"counts":[[["a","b"],1,100]]' in data[at:]


def test_the_state_file(tmp_path: Path) -> None:
    """A lane frame per lane in JSON, then settled ranges in pairs of eight bytes."""
    spool = FileSpool(tmp_path / "q")
    keep(spool, b"1", b"2", b"3", b"4", b"5")
    settle(spool, "a", [b"1"])
    settle(spool, "a", [b"3", b"5"])
    spool.close()
    data = (tmp_path / "q.state").read_bytes()
    assert data[:16] == preamble(FileKind.STATE)
    lane, settled = [frame for frame in scan(data).frames if frame.kind == Kind.STATE]
    assert (lane.meta & 0xFF, lane.extra) == (0, 0)
    assert data[lane.at + 12 : lane.at + lane.length] == b'{"name":"a","floor":1,"ranges":[]}'
    assert (settled.meta & 0xFF, settled.extra) == (0x10, 0)
    assert struct.unpack("<4Q", data[settled.at + 12 : settled.at + settled.length]) == (3, 3, 5, 5)


def test_lengths_that_do_not_add_up_are_refused() -> None:
    """A frame whose inner lengths do not fill it is no record frame, whatever its checksum."""
    head = bytes(RECORD_SIZE)
    many, one = Kind.MANY << 13, Kind.ONE << 13
    for body in (b"", struct.pack("<I", 1), struct.pack("<IH", 1, 3) + b"ab", struct.pack("<I", 1 << 31)):
        assert unpack_records(head + body, 0, 24 + len(body), many) is None
    assert unpack_records(head + struct.pack("<I", 9), 0, 28, one | 1 << 10) is None
    assert unpack_records(head, 0, 24, one | 1 << 11) is None


def test_the_document_draws_what_the_code_draws() -> None:
    """The drawings in the document are those of the module, line by line."""
    import resilient_exporters.spool.frame as module

    document = (Path(__file__).parents[2] / "docs/design/on-disk-format.md").read_text()
    drawn = [line.strip() for line in io.StringIO(module.__doc__) if line.strip().startswith("|")]
    assert drawn
    missing = [line for line in drawn if line not in document]
    assert not missing


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_flags_come_back(tmp_path: Path, flags: int) -> None:
    """All flags that there is room for."""
    spool = FileSpool(tmp_path / "q")
    spool.append([b"x"], A, time=1.5, flags=flags)
    spool.append([b"x"], A, time=1.5, flags=flags)
    part = spool.read("a", 0, 10, 100)
    assert part is not None
    assert (part.flags, len(part)) == (flags, 2)
    spool.close()
