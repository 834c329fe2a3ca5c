"""What a pool tells about itself, as frozen values: its status at one moment, and an event when something changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "EventName", "LaneState", "LaneStatus", "Orphan", "PoolStatus"]

LaneState = Literal["idle", "up", "down", "held", "stuck"]
"""How an exporter is doing:

    idle    nothing was sent to it yet, nothing is owed
    up      its target took the last batch
    down    its target cannot be reached or failed; it is tried again
    held    its target takes nothing until somebody changes a configuration
    stuck   a call into it runs for longer than its timeout
"""

EventName = Literal[
    "target_down",
    "target_up",
    "target_held",
    "target_stuck",
    "records_dropped",
    "records_dead",
    "records_expired",
    "spool_full",
    "spool_damaged",
    "orphans",
    "closed_owing",
]
"""What observers are told of:

    target_down      a target cannot be reached, or failed          records: owed to it now
    target_up        it takes records again                         records: owed to it now
    target_held      it takes nothing until somebody changes a configuration
    target_stuck     a call into it runs for longer than its timeout
    records_dropped  a full spool has cost records; the first of a shortage, the others are counted in the status
    records_dead     a target refused records for good; told once a minute for each exporter, the others are counted
    records_expired  the time to live of records was over
    spool_full       there is no room, and the pool drops records or waits; once for each shortage
    spool_damaged    what was kept is damaged                       records: known to be lost
    orphans          records are owed to an exporter that is not in the pool; once for each exporter
    closed_owing     the pool ended while it kept records in memory only: they are lost
"""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One exporter of a pool. Each record that it was to get is owed, delivered, dead or dropped, never two of these.

    Args:
        name: Name of the exporter, with the path of the pools that it is in.
        state: How it is doing.
        owed: Records that it does not have yet.
        owed_bytes: Bytes of their payloads.
        oldest_age: Seconds since the oldest of them was accepted, at least 0; None when nothing is owed.
        delivered: Records that its target has taken.
        dead: Records that its target refused for good; they are dead letters.
        dropped: Records that are lost: to a limit, to their time to live, to damage, or because nothing was to be kept.
        last_error: The last failure as text, "Type: message"; None if there was none.
        next_attempt: Seconds until it is tried again, at least 0; None when no attempt is planned.
    """

    name: str
    state: LaneState = "idle"
    owed: int = 0
    owed_bytes: int = 0
    oldest_age: float | None = None
    delivered: int = 0
    dead: int = 0
    dropped: int = 0
    last_error: str | None = None
    next_attempt: float | None = None

    @property
    def accepted(self) -> int:
        """Records that it was to get: the sum of what became of them."""
        return self.delivered + self.owed + self.dead + self.dropped


@dataclass(frozen=True, slots=True)
class Event:
    """Something has changed that an operator may have to know. Each event is a line in the log as well.

    A target that comes and goes all the time is told of once a minute; every `target_up` ends a `target_down` or
    `target_held` that was told.

    Args:
        what: What has happened.
        pool: Name of the pool that delivers: the outermost one.
        exporter: The exporter it is about, with the path of the pools that it is in; None = the pool as a whole.
        records: How many records it is about, at least 0.
        error: Why, as text, "Type: message"; None if there is no error.
        time: Seconds since the epoch.
    """

    what: EventName
    pool: str
    exporter: str | None
    records: int
    error: str | None
    time: float


@dataclass(frozen=True, slots=True)
class Orphan:
    """Records owed to an exporter that is not in the pool any more; they go out when it is added again.

    Args:
        name: Name of that exporter.
        owed: Number of records, at least 1.
        owed_bytes: Bytes of their payloads.
        oldest_age: Seconds since the oldest was accepted, at least 0.
    """

    name: str
    owed: int
    owed_bytes: int
    oldest_age: float


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool at one moment.

    Args:
        name: Name of the pool.
        exporters: One status for each exporter, in order; those of inner pools stand where the inner pool does.
        orphans: What is owed to exporters that are not there, by name.
        spool_bytes: Bytes in use for what is kept, dead letters and state included.
    """

    name: str
    exporters: tuple[LaneStatus, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    spool_bytes: int = 0

    @property
    def owed(self) -> int:
        """Records still to be delivered, counted once for each exporter that does not have them; orphans included."""
        return sum(lane.owed for lane in self.exporters) + sum(orphan.owed for orphan in self.orphans)
