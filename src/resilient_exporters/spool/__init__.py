"""Where owed records wait: memory, files, a file object; the last two load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from resilient_exporters.spool.interface import DeadLetter, Fate, Flag, LaneAccount, Opaque, Slice, Spool
from resilient_exporters.spool.memory import MemorySpool

if TYPE_CHECKING:
    from resilient_exporters.spool.filespool import FileSpool
    from resilient_exporters.spool.stream import StreamSpool

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

_HOMES = {"FileSpool": "filespool", "StreamSpool": "stream"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
