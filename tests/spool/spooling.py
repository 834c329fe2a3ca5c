"""What tests of file spools do all the time: keep, read back, damage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from resilient_exporters.spool.interface import Fate, Slice, Spool

A = frozenset({"a"})
B = frozenset({"b"})
AB = frozenset({"a", "b"})
Row = tuple[int, int, bytes]


def keep(spool: Spool, *payloads: bytes, lanes: frozenset[str] = A, time: float = 1.5) -> None:
    """Append each payload by itself."""
    for payload in payloads:
        spool.append([payload], lanes, time=time)


def slices(spool: Spool, lane: str, records: int = 1000) -> Iterator[Slice]:
    """All that a lane owes."""
    after = 0
    while (part := spool.read(lane, after, records, 1 << 30)) is not None:
        after = part.places[-1]
        yield part


def rows(spool: Spool, lane: str) -> list[Row]:
    """Run, number and payload of all that a lane owes; the account must say the same."""
    found = [
        (part.run, number, bytes(payload))  # type: ignore[arg-type]  # bytes in files
        for part in slices(spool, lane)
        for number, payload in zip(part.numbers, part.payloads, strict=True)
    ]
    account = spool.account(lane)
    assert (account.records, account.bytes) == (len(found), sum(len(payload) for _, _, payload in found))
    return found


def held(spool: Spool, lane: str = "a") -> list[bytes]:
    """The payloads that a lane owes."""
    return [payload for _, _, payload in rows(spool, lane)]


def settle(spool: Spool, lane: str, payloads: Iterable[bytes]) -> None:
    """Settle the records with these payloads."""
    wanted = set(payloads)
    for part in list(slices(spool, lane)):
        chosen = [place for place, payload in zip(part.places, part.payloads, strict=True) if payload in wanted]
        spool.settle(lane, chosen, Fate.DELIVERED)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")}


def restore(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder hold exactly these files."""
    for name in os.listdir(folder):
        (folder / name).unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def is_subsequence(part: Iterable[object], whole: Iterable[object]) -> bool:
    """Whether `part` is `whole` with some left out."""
    rest = iter(whole)
    return all(any(item == other for other in rest) for item in part)
