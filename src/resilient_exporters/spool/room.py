"""How much may still be written: the byte budget and the free space that must stay."""

from __future__ import annotations

from collections.abc import Callable

from resilient_exporters.exceptions import SpoolFull
from resilient_exporters.spool.files import Files

__all__ = ["Room"]

# Bytes that may be written between two looks at the file system.
STEP = 1 << 20
# Bytes that stay free at most when nobody said how many: others on the machine can go on, and somebody can log in.
DEFAULT_FLOOR = 50_000_000


class Room:
    """Answers whether bytes may be written, asking the system seldom.

    Args:
        files: The operating system.
        directory: Where the spool lives.
        limit: Bytes that the whole spool may use, or None.
        floor: Bytes of the file system that must stay free; None = a hundredth of it, at most `DEFAULT_FLOOR`.

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
        if self.floor != 0:
            free, total = self.files.free(self.directory)
            floor = min(total // 100, DEFAULT_FLOOR) if self.floor is None else self.floor
            left = free - floor
            if need > left:
                raise SpoolFull(f"less than {floor} bytes would stay free in {self.directory}")
            granted = min(granted, left)
        return granted
