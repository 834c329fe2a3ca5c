"""How much may still be written: the byte budget and the free space that must stay."""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import SpoolFull
from .files import Files

__all__ = ["Room"]

# Bytes that may be written between two looks at the file system.
STEP = 1 << 20


class Room:
    """Answers whether bytes may be written, asking the system seldom.

    Args:
        files: The operating system.
        directory: Where the spool lives.
        limit: Bytes that the whole spool may use, or None.
        floor: Bytes of the file system that must stay free, or None.

    Attributes:
        used: Tells how many bytes are in use.
    """

    def __init__(self, files: Files, directory: str, limit: int | None, floor: int | None) -> None:
        self.files = files
        self.directory = directory
        self.limit = limit
        self.floor = floor
        self.used: Callable[[], int] = int

    def grant(self, need: int) -> int:
        """How many bytes, at least `need`, may be written until this is asked again.

        Raises:
            SpoolFull: Not even `need`.
        """
        granted = max(STEP, need)
        if self.limit is not None:
            left = self.limit - self.used()
            if need > left:
                raise SpoolFull(f"{need} bytes more would exceed the budget of {self.limit} bytes for what is kept")
            granted = min(granted, left)
        if self.floor is not None:
            left = self.files.free(self.directory)[0] - self.floor
            if need > left:
                raise SpoolFull(f"less than {self.floor} bytes would stay free in {self.directory}")
            granted = min(granted, left)
        return granted
