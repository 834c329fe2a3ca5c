"""The bare operations: what encoding, writing and syncing cost without any library around them."""

from __future__ import annotations

import os
from pathlib import Path

import ormsgpack

from bench.subject import CRASH, LINES, MEMORY, NOTHING, POWER, Figures, Scale, measurement, stream, timed

__all__: list[str] = []

_KEEPING = "Keeping, target down"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _sync(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


@measurement("bare.encode", _KEEPING, NOTHING)
def encode(scale: Scale, folder: Path) -> Figures:
    """Encode each record."""
    pack = ormsgpack.packb

    def loop() -> None:
        for data in stream(scale.records):
            pack(data)

    return timed(scale.records, loop)


@measurement("bare.encode+os.write", _KEEPING, CRASH)
def encode_write(scale: Scale, folder: Path) -> Figures:
    """Encode and `os.write` each record: the naive log."""
    pack, write, fd = ormsgpack.packb, os.write, os.open(folder / "log", _FLAGS)

    def loop() -> None:
        for data in stream(scale.records):
            write(fd, pack(data))

    return timed(scale.records, loop)


@measurement("bare.encode+buffered write", _KEEPING, MEMORY)
def encode_buffered(scale: Scale, folder: Path) -> Figures:
    """Encode each record into a buffered file."""
    pack = ormsgpack.packb
    with open(folder / "log", "ab") as file:

        def loop() -> None:
            for data in stream(scale.records):
                file.write(pack(data))

        return timed(scale.records, loop)


@measurement("bare.encode+os.write+fdatasync", _KEEPING, POWER)
def encode_sync(scale: Scale, folder: Path) -> Figures:
    """Encode, write and sync each record."""
    pack, write, fd = ormsgpack.packb, os.write, os.open(folder / "log", _FLAGS)

    def loop() -> None:
        for data in stream(scale.syncs):
            write(fd, pack(data))
            _sync(fd)

    return timed(scale.syncs, loop)


@measurement("bare.encode+write+fdatasync per 1000", _KEEPING, POWER)
def encode_sync_1000(scale: Scale, folder: Path) -> Figures:
    """Encode into a buffered file, and sync once per 1000 records."""
    pack, batches = ormsgpack.packb, scale.records // 1000
    with open(folder / "log", "ab") as file:

        def loop() -> None:
            for _ in range(batches):
                for data in stream(1000):
                    file.write(pack(data))
                file.flush()
                _sync(file.fileno())

        return timed(batches * 1000, loop)


@measurement("bare.decode", "Draining", NOTHING)
def decode(scale: Scale, folder: Path) -> Figures:
    """Decode each record of a backlog in memory."""
    unpack = ormsgpack.unpackb
    payloads = [ormsgpack.packb(data) for data in stream(scale.backlog)]

    def loop() -> None:
        for payload in payloads:
            unpack(payload)

    return timed(len(payloads), loop)


@measurement("bare.os.write of lines", "End to end, ready-made lines", CRASH)
def write_lines(scale: Scale, folder: Path) -> Figures:
    """`os.write` each of many ready-made lines."""
    write, fd = os.write, os.open(folder / "lines", _FLAGS)
    lines = [line.encode() + b"\n" for line in LINES]
    rounds = max(scale.records // len(lines), 1)

    def loop() -> None:
        for _ in range(rounds):
            for line in lines:
                write(fd, line)

    return timed(rounds * len(lines), loop)
