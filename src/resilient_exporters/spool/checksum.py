"""Goes back from a checksum to the number with which it was begun."""

from __future__ import annotations

from functools import cache
from zlib import crc32

__all__ = ["begun_with"]

# The polynomial of CRC-32, reflected.
_POLYNOMIAL = 0xEDB88320


def begun_with(crc: int, data: bytes) -> int:
    """The number with which a CRC-32 over `data` must have been begun to come to `crc`.

    A CRC is linear: what two beginnings differ by comes out at the end as it would behind that many zeros, whatever
    the data. And the way over zeros can be gone back, in steps of powers of two.
    """
    register = crc ^ crc32(data)
    for power in range(len(data).bit_length()):
        if len(data) >> power & 1:
            register = _combined(_back(power), register)
    return register


@cache
def _back(power: int) -> tuple[int, ...]:
    """What each bit of the register was, 2 to the `power` bytes of zeros ago."""
    if power:
        half = _back(power - 1)
        return tuple(_combined(half, column) for column in half)
    columns = [1 << bit for bit in range(32)]
    for _ in range(8):
        columns = [(column ^ _POLYNOMIAL) << 1 | 1 if column >> 31 else column << 1 for column in columns]
    return tuple(columns)


def _combined(columns: tuple[int, ...], register: int) -> int:
    """What the bits of a register come to together."""
    result = 0
    for column in columns:
        if register & 1:
            result ^= column
        register >>= 1
    return result
