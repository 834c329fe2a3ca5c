"""Plain records that have just come into memory: each in one step that needs no lock, to be put into blocks together.

A step here is one call in C, which neither another thread nor a signal interrupts. Who sends a record, and who takes
those that came, agree without a lock about which were taken:

    sender                                        taker, with the store's lock
    1  fresh = the store's `Fresh` of now         a  make another one that of now
    2  fresh.cells += payload, time               b  take what fresh.cells holds
    3  is fresh still the one of now?

If it is, 2 came before a, and b takes the record. If it is not, only the taker knows: see `has`.
"""

from __future__ import annotations

from typing import Any, Final

from resilient_exporters.spool.interface import Payload

__all__ = ["LARGEST", "NOTHING_FRESH", "Fresh"]

LARGEST: Final = 4096
"""Payload bytes of a record that may come this way: so the number of records alone tells that a budget is kept."""
_MOST: Final = 1024
"""Records that come in before they are put into blocks."""
_AT_ONCE: Final = 64
"""Records that may come beyond what was allowed, because so many threads found room for one at the same moment."""


class Fresh:
    """Records of one kind, owed by the same lanes.

    Args:
        lanes: Who owes them.
        room: Bytes that they may take.
        overhead: Bytes that each takes beside its payload.

    Attributes:
        cells: Payload, time, payload, time, ...
        most: Length of `cells` at which nothing more may come in.
        taken: Length of what was taken of `cells`; what came behind it came too late.
    """

    __slots__ = ("cells", "lanes", "most", "taken")

    def __init__(self, lanes: frozenset[str], room: int, overhead: int) -> None:
        self.lanes = lanes
        self.cells: list[Any] = []
        self.most = 2 * max(min(_MOST, room // (LARGEST + overhead) - _AT_ONCE), 0)
        self.taken = 0

    def has(self, payload: Payload) -> bool:
        """Whether a record was taken; one that came too late is taken back. Needs the store's lock.

        Equal objects are as good as each other: of several, as many were taken as do not lie here any more.
        """
        for at in range(self.taken, len(self.cells), 2):
            if self.cells[at] is payload:
                del self.cells[at : at + 2]
                return False
        return True


NOTHING_FRESH: Final = Fresh(frozenset(), 0, 1)
"""While nothing may come in this way."""
