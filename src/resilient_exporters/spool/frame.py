"""The bytes of a spool file: its preamble, and frames of records, runs, lane sets, footers, settlements, dead letters.

Little-endian throughout. A file begins with a preamble of 16 bytes:

     0          8         10      12      16
     | rexspool | version | kind  | crc   |

Frames follow each other without padding. All begin alike:

     0      4        8      10      12
     | crc  | length | meta | extra | body ...

`length` is that of the whole frame; `crc` is the CRC-32 of all bytes behind it, begun with seed + offset, so that
a frame is valid only where it was written. `meta` is made of bits:

     15 14 13    12     11        10        9  8     7 ... 0
     | kind   | wide | expires | options | flags | number of the lane set |

A record frame goes on with the place of its first record, relative to the segment's base, and the time of acceptance:

     12      16       24          +8         +4 + n
     | place | time   | [expires] | [options] | payload                                           ONE
     | place | time   | [expires] | [options] | count | count lengths (2 bytes, wide: 4) | payloads     MANY

The number of the first record is base-relative place + shift of the run in force + `extra`.
A run frame says which file this is and which run and shift hold from here on. It explains itself: its seed is
fixed. It is written twice where it first stands and again every now and then, so that losing one costs nothing:

     12        16        24     32      40     48    56      64
     | ordinal | segment | salt | spool | base | run | shift |

All other frames are seeded with salt, segment and ordinal: what stands in another file, and what follows a run frame
that is lost, never passes as belonging here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple
from zlib import crc32

__all__ = [
    "COUNT",
    "CRC",
    "EXPIRES",
    "FLAG_SHIFT",
    "FRAME",
    "HEAD",
    "HEADER_SIZE",
    "JOINED",
    "KIND_SHIFT",
    "MASK",
    "MAX_FLAGS",
    "MAX_FRAME",
    "MAX_SETS",
    "OPTIONS",
    "PLAIN",
    "RECORD",
    "RECORD_SIZE",
    "RUN_SIZE",
    "SELF_SEED",
    "SHIFT_SPAN",
    "WIDE",
    "Context",
    "FileKind",
    "Kind",
    "Records",
    "pack",
    "pack_json",
    "pack_many",
    "preamble",
    "read_preamble",
    "unpack_json",
    "unpack_records",
]

MAGIC = b"rexspool"
VERSION = 1
MASK = 0xFFFFFFFF

PREAMBLE = Struct("<8sHHI")
HEADER_SIZE = PREAMBLE.size
CRC = Struct("<I")
FRAME = Struct("<IIHH")
# Bytes 4..24 of a record frame: what the checksum covers, beside the body.
HEAD = Struct("<IHHId")
RECORD = Struct("<IIHHId")
RECORD_SIZE = RECORD.size
RUN = Struct("<IQQQQQq")
RUN_SIZE = FRAME.size + RUN.size
SEED = Struct("<QQI")
COUNT = Struct("<I")
EXPIRY = Struct("<d")

KIND_SHIFT = 13
WIDE = 1 << 12
EXPIRES = 1 << 11
OPTIONS = 1 << 10
FLAG_SHIFT = 8
# `meta` of a frame with one record, without options or expiry, is below this.
PLAIN = (1 << KIND_SHIFT) + OPTIONS
# What the fields can hold.
MAX_SETS = 256
MAX_FLAGS = 3
SHIFT_SPAN = 1 << 16
MAX_FRAME = 1 << 31

SELF_SEED = crc32(b"resilient-exporters spool file, version 1")


class FileKind(IntEnum):
    """What a file is for."""

    SEGMENT = 1
    STATE = 2
    DEAD = 3


class Kind(IntEnum):
    """What a frame says; 0 is never written, so zeros are no frame."""

    ONE = 1
    MANY = 2
    RUN = 3
    LANES = 4
    FOOTER = 5
    STATE = 6
    DEAD = 7


JOINED = (Kind.ONE, Kind.MANY)


def preamble(kind: FileKind) -> bytes:
    """The first bytes of a file."""
    begin = PREAMBLE.pack(MAGIC, VERSION, kind, 0)[:-4]
    return begin + CRC.pack(crc32(begin))


def read_preamble(data: bytes) -> tuple[int, int] | None:
    """Version and kind of the file that begins with `data`; None when this is no preamble."""
    if len(data) < HEADER_SIZE:
        return None
    magic, version, kind, crc = PREAMBLE.unpack_from(data)
    return (version, kind) if magic == MAGIC and crc == crc32(data[: HEADER_SIZE - 4]) else None


class Context(NamedTuple):
    """The content of a run frame: which file this is, and what the numbers of the records behind it mean.

    Args:
        ordinal: Counts the run frames of a segment from 0; repetitions keep it.
        segment: Number of the segment, counts from 1 through the life of the spool.
        salt: Random for each file.
        spool: Random for each spool.
        base: Place of the segment's first record.
        run: Run of the numbers.
        shift: What to add to base-relative place and `extra` to get a number.
        moved: Not written: by how many bytes all behind it stands in front of where it was written, because a piece of
            the file is missing.
    """

    ordinal: int
    segment: int
    salt: int
    spool: int
    base: int
    run: int
    shift: int
    moved: int = 0

    @property
    def seed(self) -> int:
        """The seed of all frames behind it but run frames and footers, for the offsets at which they stand."""
        return crc32(SEED.pack(self.salt, self.segment, self.ordinal)) + self.moved

    @property
    def written(self) -> tuple[int, ...]:
        """The numbers that stand in the frame."""
        return self[:-1]

    def pack(self, offset: int) -> bytes:
        """The run frame for this offset."""
        return pack(Kind.RUN, RUN.pack(*self.written), SELF_SEED, offset)

    @classmethod
    def unpack(cls, body: bytes) -> Context:
        return cls(*RUN.unpack(body))


def pack(kind: Kind, body: bytes, seed: int, offset: int, *, low: int = 0, extra: int = 0) -> bytes:
    """A frame that is no record frame; `low` are the lower bits of `meta`."""
    rest = FRAME.pack(0, FRAME.size + len(body), kind << KIND_SHIFT | low, extra)[4:] + body
    return CRC.pack(crc32(rest, (seed + offset) & MASK)) + rest


def pack_json(kind: Kind, value: Any, seed: int, offset: int, *, low: int = 0, extra: int = 0) -> bytes:
    """A frame with a JSON body, for what is written seldom."""
    return pack(kind, json.dumps(value, separators=(",", ":")).encode(), seed, offset, low=low, extra=extra)


def unpack_json(body: bytes) -> Any:
    """The value in the body of a JSON frame."""
    return json.loads(body)


def pack_many(payloads: Sequence[bytes], options: bytes, expires: float) -> tuple[int, bytes, int]:
    """Kind and presence bits for `meta`, what stands between time and payloads, and the length of all payloads."""
    meta, pieces = 0, []
    if expires:
        meta |= EXPIRES
        pieces.append(EXPIRY.pack(expires))
    if options:
        meta |= OPTIONS
        pieces += (COUNT.pack(len(options)), options)
    if len(payloads) == 1:
        return meta | Kind.ONE << KIND_SHIFT, b"".join(pieces), len(payloads[0])
    lengths = [*map(len, payloads)]
    wide = max(lengths) > 0xFFFF
    if wide:
        meta |= WIDE
    pieces.append(Struct(f"<I{len(lengths)}{'I' if wide else 'H'}").pack(len(lengths), *lengths))
    return meta | Kind.MANY << KIND_SHIFT, b"".join(pieces), sum(lengths)


class Records(NamedTuple):
    """What stands in a record frame, payloads as positions only.

    Args:
        options: Encoded keyword arguments.
        expires: Seconds since the epoch, 0 = never.
        start: Where the first payload begins.
        lengths: Length of each payload; they follow each other.
    """

    options: bytes
    expires: float
    start: int
    lengths: Sequence[int]


def unpack_records(data: bytes, at: int, length: int, meta: int) -> Records | None:
    """The record frame at `at`, whose checksum holds; None when its lengths do not add up."""
    stop = at + length
    at += RECORD_SIZE
    options, expires = b"", 0.0
    try:
        if meta & EXPIRES:
            (expires,) = EXPIRY.unpack_from(data, at)
            at += EXPIRY.size
        if meta & OPTIONS:
            (size,) = COUNT.unpack_from(data, at)
            at += COUNT.size
            options = data[at : at + size]
            at += size
        if meta >> KIND_SHIFT == Kind.ONE:
            return Records(options, expires, at, (stop - at,)) if at <= stop else None
        (count,) = COUNT.unpack_from(data, at)
        if count > length:
            return None
        lengths = Struct(f"<{count}{'I' if meta & WIDE else 'H'}")
        found: tuple[int, ...] = lengths.unpack_from(data, at + COUNT.size)
    except struct.error:
        return None
    at += COUNT.size + lengths.size
    return Records(options, expires, at, found) if at + sum(found) == stop else None
