"""What delivery asks of a spool, wherever it keeps its records: memory, a file, a file object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple, Protocol

__all__ = ["DeadLetter", "Fate", "Flag", "LaneAccount", "Opaque", "Slice", "Spool", "SpoolMoving"]


class Flag:
    """Marks of a stored record that the spool keeps and delivery understands; plain bits, asked at each record."""

    RAW: Final = 1
    """The exporter's own transform has not run yet."""
    BUNDLED: Final = 2
    """In memory only: the payload is an `Opaque` pair (data, keyword arguments)."""


class Fate(IntEnum):
    """How a lane is done with a record."""

    DELIVERED = 0
    DEAD = 1
    DROPPED = 2


class Opaque:
    """Data that no codec can write: held in memory as it is.

    Attributes:
        data: The private copy.
    """

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data


Payload = bytes | Opaque


class SpoolMoving(Exception):
    """What is kept is being carried into another spool: append there."""


@dataclass(slots=True)
class Slice:
    """Records that follow each other in a lane's way through the log and share run, options, flags and end of life.

    Columns of equal length, one entry a record: `places` ascending, `numbers`, `times` (seconds since the
    epoch), `payloads`. `options` are the encoded keyword arguments, b"" for none. `expires` is when they may be
    dropped, seconds since the epoch, 0.0 for never.
    """

    run: int
    options: bytes
    flags: int
    places: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)
    expires: float = 0.0

    def __len__(self) -> int:
        return len(self.places)


class LaneAccount(NamedTuple):
    """What a lane owes in one spool.

    Args:
        records: Number of records owed.
        bytes: Their payload bytes.
        oldest: Time of acceptance of the oldest one, seconds since the epoch, or None.
    """

    records: int
    bytes: int
    oldest: float | None


class DeadLetter(NamedTuple):
    """A record that its target refused for good.

    Args:
        key: Number that names the letter within its spool.
        lane: Lane that owed it.
        run: Run of the record's id.
        number: Number of the record's id.
        accepted: Seconds since the epoch when the record was accepted.
        died: Seconds since the epoch when it was refused.
        attempts: How often it was tried, at least 1.
        reason: What the target said.
        options: Encoded keyword arguments.
        flags: `Flag` bits.
        payload: The encoded data.
    """

    key: int
    lane: str
    run: int
    number: int
    accepted: float
    died: float
    attempts: int
    reason: str
    options: bytes
    flags: int
    payload: Payload


class Spool(Protocol):
    """Where owed records wait. Knows bytes, places and lane names; nothing of exporters or data.

    All methods may be called from any thread. `append` may be entered again on the same thread while it runs
    (signal handler, finalizer): the inner call is queued and done before the outer one returns.
    After a fork, in the child, every method raises PoolClosed.
    """

    run: int
    """The run of ids drawn here, a random 64-bit number."""

    @property
    def next_place(self) -> int:
        """Place that the next record will get."""

    def mark(self) -> None:
        """Remember this moment for `undo_appends`."""

    def undo_appends(self) -> None:
        """Take back all appends since `mark`, of which nothing was settled; without any it has no effect."""

    def freeze(self) -> None:
        """Take no appends from now on: each raises SpoolMoving, until `thaw` or `close`; reading and settling go on."""

    def thaw(self) -> None:
        """Take appends again."""

    def draw(self) -> int:
        """Take the next record number of this run; counts from 1."""

    def append(
        self,
        payloads: Sequence[Payload],
        lanes: frozenset[str],
        *,
        time: float,
        first: int | None = None,
        run: int | None = None,
        options: bytes = b"",
        flags: int = 0,
        expires: float = 0.0,
        sync: bool = False,
    ) -> None:
        """Keep records, owed by each of `lanes`, behind everything kept before.

        Args:
            payloads: At least one. A file spool takes bytes only.
            lanes: Who owes them; not empty.
            time: Seconds since the epoch when they were accepted.
            first: Number of the first; the others follow by one. None: draw them now.
            run: Run of those numbers; None: this spool's own.
            options: Encoded keyword arguments.
            flags: `Flag` bits.
            expires: Seconds since the epoch after which a record may be dropped; 0 = never.
            sync: Return only when they are safe against a power cut.

        Raises:
            SpoolFull: No room; nothing of it was kept.
            SpoolError: The file cannot be written; nothing of it was kept.
            SpoolMoving: The spool is frozen; nothing of it was kept.
        """

    def append_one(self, payload: bytes, lanes: frozenset[str], time: float) -> bool:
        """Keep one plain record, as `append` does, if that is all there is to do; the quick way.

        Returns:
            False when nothing was done: `append` does it, or says what is in the way.
        """

    def read(self, lane: str, after: int, records: int, size: int) -> Slice | None:
        """The next records that `lane` owes at places above `after`; None when there are none.

        It may end sooner than it has to, where a slice ended that another lane was handed.

        Args:
            lane: Name of the lane.
            after: A place from an earlier slice, or 0 for the beginning.
            records: At most that many, at least 1.
            size: Stop when the payloads reach that many bytes; at least one record is returned.
        """

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> int:
        """Note that `lane` owes these records no longer; how many of them it did owe.

        Places it does not owe (dropped, expired or settled meanwhile) are ignored. Never raises for lack of room;
        what cannot be written now is written with the next settle. From inside another call on the same thread, that
        call does it, later, and 0 is returned.
        """

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> int:
        """Turn records of a slice (index -> reason) into dead letters of `lane` and settle them as DEAD.

        A slice without places holds records that were never kept: then there is nothing to settle.
        Letters are part of the byte budget, and leave free on the disk what has to stay free.

        Returns:
            How many became letters: those that the lane does not owe any more are left alone.

        Raises:
            SpoolFull: No room for the letters; none was made, and the records stay owed.
            SpoolError: They cannot be written; none was made, and the records stay owed.
        """

    def pin(self, lane: str, places: Sequence[int]) -> None:
        """Note that these records go to the target of `lane` as one batch, whose bounds must survive a kill.

        It holds until one of them is settled, or another batch of the lane is pinned. Never raises for lack of room.
        """

    def pinned(self, lane: str) -> list[int] | None:
        """Places of the batch that is pinned for `lane`, all of them owed; None when there is none."""

    def dead_letters(self) -> Iterable[DeadLetter]:
        """All dead letters, oldest first."""

    def forget_dead(self, keys: Iterable[int]) -> None:
        """Drop dead letters by key; unknown keys are ignored."""

    def account(self, lane: str) -> LaneAccount:
        """What the lane owes now; constant time."""

    def owing(self) -> tuple[str, ...]:
        """Names of all lanes that owe something, also those nobody serves."""

    def size(self) -> int:
        """Bytes in use, dead letters and state included."""

    def drop_oldest(self, size: int) -> dict[str, int]:
        """Drop at least `size` bytes of the oldest records, for all lanes; how many each lane lost."""

    def expire(self, now: float) -> dict[str, int]:
        """Drop owed records whose time to live is over; how many each lane lost."""

    def sync(self) -> None:
        """Return when all that was appended and settled before is safe against a power cut."""

    def close(self) -> None:
        """Write what is pending and let go of the file; idempotent."""
