"""Drawing record numbers."""

from __future__ import annotations

import itertools
from collections import deque

__all__ = ["Numbers"]


class Numbers:
    """Draws record numbers, from any thread and from signal handlers, without a lock."""

    def __init__(self) -> None:
        self._counter = itertools.count(1)
        self.next = self._counter.__next__

    def draw(self, count: int) -> int:
        """Take `count` numbers that follow each other; the first."""
        first = self.next()
        while count > 1:
            # One call into C takes them all; where threads run freely, somebody may still have come between.
            last = deque(itertools.islice(self._counter, count - 1), maxlen=1).pop()
            if last == first + count - 1:
                break
            first = self.next()
        return first
