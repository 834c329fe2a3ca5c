"""How much a target may be handed now: a token bucket for records and one for bytes, each of one second."""

from __future__ import annotations

import sys

from resilient_exporters.policies import Rate

__all__ = ["Throttle"]

_PORTION = 0.1
"""Part of a full bucket that is worth a batch: so a fast target gets ten batches a second, not one for each record."""
_ROUNDING = 1e-9
"""Tokens below which a lack of them is an error of rounding."""


class _Bucket:
    """Fills at `rate` tokens a second, up to what a second brings, but to one token at least; may go below zero."""

    __slots__ = ("_at", "_level", "_rate", "full")

    def __init__(self, rate: float, now: float) -> None:
        self.full = max(rate, 1.0)
        self._rate = rate
        self._level = self.full
        self._at = now

    def level(self, now: float) -> float:
        """Tokens in it."""
        self._level = min(self.full, self._level + max(now - self._at, 0.0) * self._rate)
        self._at = now
        return self._level

    def take(self, tokens: float, now: float) -> None:
        """Take tokens out, also more than there are."""
        self._level = self.level(now) - tokens

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until so many tokens are in it."""
        lack = tokens - self.level(now)
        return lack / self._rate if lack > _ROUNDING else 0.0


class Throttle:
    """Holds one exporter to its rate. For the driver of its lane only.

    What is larger than a full bucket goes all the same, and is paid back afterwards: the rate holds on average.

    Args:
        rate: What is allowed.
        now: Seconds of a clock that never jumps, as all `now` here.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._records = None if rate.records is None else _Bucket(rate.records, now)
        self._bytes = None if rate.bytes is None else _Bucket(rate.bytes, now)

    def wait(self, now: float) -> float:
        """Seconds until the next batch may go."""
        records = self._records.wait(max(self._records.full * _PORTION, 1.0), now) if self._records else 0.0
        return max(records, self._bytes.wait(self._bytes.full * _PORTION, now) if self._bytes else 0.0)

    def room(self, now: float) -> tuple[int, int]:
        """Most records and bytes of the next batch, each at least 1."""
        records = sys.maxsize if self._records is None else int(self._records.level(now) + _ROUNDING)
        size = sys.maxsize if self._bytes is None else int(self._bytes.level(now) + _ROUNDING)
        return max(records, 1), max(size, 1)

    def fits(self, size: int, now: float) -> bool:
        """Whether one record of so many bytes may go now."""
        records = self._records is None or self._records.wait(1.0, now) == 0.0
        return records and (self._bytes is None or self._bytes.wait(min(size, self._bytes.full), now) == 0.0)

    def take(self, records: int, size: int, now: float) -> None:
        """Count what goes to the target.

        Args:
            records: How many.
            size: Their bytes.
            now: When.
        """
        if self._records is not None:
            self._records.take(records, now)
        if self._bytes is not None:
            self._bytes.take(size, now)
