"""What an audit of a spool tells: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Audit", "FileKind", "FileReport", "Finding", "LaneReport", "Severity", "Stretch"]

Severity = Literal["note", "warning", "damage"]
"""What a finding means:

    note      nothing is wrong; opening deals with it
    warning   nothing is lost, but records may come twice, or opening has to read more
    damage    something is lost, or is here and does not belong here
"""

FileKind = Literal["segment", "stream", "state", "dead letters", "set aside", "lock", "reserve", "leftover"]


class Stretch(NamedTuple):
    """Bytes of a file that are no valid frame.

    Args:
        offset: Of the first.
        length: How many.
        torn: A frame that was never finished: nothing that was kept is missing.
    """

    offset: int
    length: int
    torn: bool


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file of a spool.

    Args:
        name: Without its folder.
        kind: What it is for; a "stream" holds records, state and dead letters, as in a file object.
        size: Bytes.
        version: Of its format; None when it has none, or its preamble is damaged.
        segment: Number of the segment, or None.
        runs: Runs whose records are in it.
        frames: Valid frames; 0 when only the footer was read.
        records: Records, whether owed or not.
        payload_bytes: Bytes of their payloads.
        places: First place, and the one behind the last; None when it holds no records.
        gaps: What is no valid frame.
        footer: Whether the footer says what was found; None when there is none, or nothing else was read.
    """

    name: str
    kind: FileKind
    size: int
    version: int | None = None
    segment: int | None = None
    runs: tuple[int, ...] = ()
    frames: int = 0
    records: int = 0
    payload_bytes: int = 0
    places: tuple[int, int] | None = None
    gaps: tuple[Stretch, ...] = ()
    footer: bool | None = None


@dataclass(frozen=True, slots=True)
class LaneReport:
    """What one exporter is owed.

    Args:
        name: Name of the lane: the exporter's, with the path of the pools that it is in.
        owed: Records.
        owed_bytes: Bytes of their payloads.
        oldest: Seconds since the epoch when the oldest was accepted; None when nothing is owed.
        cursor: The place up to which it owes nothing.
        ranges: How many ranges above the cursor it has settled.
        dead: Dead letters.
    """

    name: str
    owed: int = 0
    owed_bytes: int = 0
    oldest: float | None = None
    cursor: int = 0
    ranges: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth telling.

    Args:
        severity: How bad it is.
        kind: One word for programs.
        file: The file, without its folder.
        text: A sentence for people.
        records: How many records are known to be lost by it.
    """

    severity: Severity
    kind: str
    file: str
    text: str
    records: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """What a spool holds.

    Args:
        path: Of the live segment, links resolved.
        at: Seconds since the epoch when it was looked at.
        spool: Its random number; None when nothing was ever kept.
        holder: What its lock file says of who holds it, or held it last.
        files: Its files, the log first, oldest first.
        lanes: What each exporter is owed, by name.
        findings: What is worth telling, as it was met.
    """

    path: str
    at: float
    spool: int | None
    holder: str
    files: tuple[FileReport, ...]
    lanes: tuple[LaneReport, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong: there is no finding but notes."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def owed(self) -> int:
        """Records still to be delivered, counted once for each exporter that does not have them."""
        return sum(lane.owed for lane in self.lanes)

    @property
    def dead(self) -> int:
        """Dead letters."""
        return sum(lane.dead for lane in self.lanes)

    @property
    def lost(self) -> int:
        """Records that are known to be lost, counted once."""
        return sum(finding.records for finding in self.findings)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)
