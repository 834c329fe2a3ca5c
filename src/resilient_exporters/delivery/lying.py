"""Counts the dead letters that no lane counts: of exporters that are not there, or have just come."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.interface import Spool

__all__ = ["Lying", "letters_in"]


class Lying:
    """By spool and lane, how many dead letters lie there that no lane counts."""

    def __init__(self) -> None:
        self._found: dict[int, Counter[str]] = {}

    def in_spool(self, spool: Spool) -> Counter[str]:
        """By lane, those in a spool; who serves a lane takes its letters out."""
        found = self._found.get(id(spool))
        if found is None:
            found = self._found[id(spool)] = letters_in(spool)
        return found

    def carry(self, old: Spool, new: Spool, before: Counter[str]) -> None:
        """Go on in another spool, into which the letters of the old one were carried.

        Args:
            old: The spool that was given up.
            new: The one that has its letters now.
            before: Those that lay in the new one before.
        """
        self._found[id(new)] = before + self._found.pop(id(old), Counter())


def letters_in(spool: Spool) -> Counter[str]:
    """How many dead letters lie in a spool, by lane."""
    found: Counter[str] = Counter()
    with suppress(SpoolError):  # opening must not fail for what is not needed to deliver
        found.update(letter.lane for letter in spool.dead_letters())
    return found
