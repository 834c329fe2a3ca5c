"""What users may choose about keeping and retrying: frozen values with pure methods."""

from __future__ import annotations

import os
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, get_args

from resilient_exporters.exceptions import InvalidConfigError

__all__ = ["Limits", "Rate", "Retry", "Safety", "WhenFull"]

Safety = Literal["process", "power"]
"""What kept records survive when the call returns: the death of the process, or also a power cut."""
WhenFull = Literal["raise", "block", "drop_oldest", "drop_newest"]
"""What a `send` does when there is no room."""

_dice = Random()
_DOUBLINGS = 60
"""The bound of a pause stops doubling here: far beyond any cap, and far below the largest float."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Pauses between attempts in the background: full-jitter exponential back-off, without end.

    Args:
        base: Seconds that the first pause lasts at most, above 0.
        cap: Seconds that any pause lasts at most, at least `base`.

    Raises:
        InvalidConfigError: A value is out of its range.

    Example:
        >>> Retry(base=0.5, cap=8).bound(4)
        4.0
    """

    base: float = 0.1
    cap: float = 30.0

    def __post_init__(self) -> None:
        if not (_is_number(self.base) and _is_number(self.cap) and 0 < self.base <= self.cap < float("inf")):
            raise InvalidConfigError(f"Retry: 0 < base <= cap is needed, not base={self.base!r}, cap={self.cap!r}")

    def bound(self, failures: int) -> float:
        """Seconds that the pause after so many failures in a row lasts at most; `failures` is at least 1."""
        return min(float(self.cap), self.base * 2.0 ** min(failures - 1, _DOUBLINGS))

    def delay(self, failures: int, rng: Random = _dice) -> float:
        """Seconds to wait after so many failures in a row: drawn evenly from 0 to the bound.

        Jitter over the full width keeps many senders from coming back at the same moment.
        """
        return rng.uniform(0.0, self.bound(failures))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, and what happens beyond.

    Args:
        bytes: Budget for everything kept, dead letters and state included; None = the default of the place:
            a quarter of the machine's memory in memory, none on disk.
        when_full: What a `send` does when there is no room: "raise" SpoolFull, "block" until there is, or drop the
            "drop_oldest" or "drop_newest" records, which are counted and announced.
        free_floor: Bytes that stay free on the file system; None = 1 % of it, at most 50 MB.
        ttl: Seconds after which a record that is still owed is dropped, above 0; None = never.

    Raises:
        InvalidConfigError: A value is out of its range.
    """

    bytes: int | None = None
    when_full: WhenFull = "raise"
    free_floor: int | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        if self.bytes is not None and not (_is_int(self.bytes) and self.bytes >= 1):
            raise InvalidConfigError(f"Limits: bytes is an integer of at least 1, not {self.bytes!r}")
        if self.when_full not in get_args(WhenFull):
            raise InvalidConfigError(f"Limits: when_full is one of {get_args(WhenFull)}, not {self.when_full!r}")
        if self.free_floor is not None and not (_is_int(self.free_floor) and self.free_floor >= 0):
            raise InvalidConfigError(f"Limits: free_floor is an integer of at least 0, not {self.free_floor!r}")
        if self.ttl is not None and not (_is_number(self.ttl) and self.ttl > 0):
            raise InvalidConfigError(f"Limits: ttl is above 0 seconds, not {self.ttl!r}")

    def in_memory(self) -> int | None:
        """Budget in bytes for what is kept in memory; None where the machine does not tell how much it has."""
        return self.bytes if self.bytes is not None else _quarter_of_memory()


@dataclass(frozen=True, slots=True)
class Rate:
    """How much an exporter may be handed per second; at least one of the two is given.

    Args:
        records: Records per second, above 0; None = any number.
        bytes: Bytes per second of data as it is kept, above 0; None = any number.

    Raises:
        InvalidConfigError: A value is out of its range, or none is given.
    """

    records: float | None = None
    bytes: float | None = None

    def __post_init__(self) -> None:
        if self.records is None and self.bytes is None:
            raise InvalidConfigError("Rate: give records=, bytes= or both, per second")
        for name, value in (("records", self.records), ("bytes", self.bytes)):
            if value is not None and not (_is_number(value) and 0 < value < float("inf")):
                raise InvalidConfigError(f"Rate: {name} is a number per second above 0, not {value!r}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


def _quarter_of_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return None
