"""Where owed records wait: memory, files, a file object."""

from __future__ import annotations

from .filespool import FileSpool
from .interface import DeadLetter, Fate, Flag, LaneAccount, Opaque, Slice, Spool
from .memory import MemorySpool
from .stream import StreamSpool

__all__ = [
    "DeadLetter",
    "Fate",
    "FileSpool",
    "Flag",
    "LaneAccount",
    "MemorySpool",
    "Opaque",
    "Slice",
    "Spool",
    "StreamSpool",
]
