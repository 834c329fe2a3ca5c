"""What users may choose about keeping and retrying: frozen values with pure methods."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from resilient_exporters.exceptions import InvalidConfigError

__all__ = ["Limits", "Retry", "Safety", "WhenFull"]

Safety = Literal["process", "power"]
WhenFull = Literal["raise", "block", "drop_oldest", "drop_newest"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Pauses between attempts in the background: full-jitter exponential back-off, without end.

    Args:
        base: Seconds that the first pause lasts at most, above 0.
        cap: Seconds that any pause lasts at most, at least `base`.
    """

    base: float = 0.1
    cap: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.base <= self.cap:
            raise InvalidConfigError(f"Retry: 0 < base <= cap is needed, not base={self.base!r}, cap={self.cap!r}")

    def delay(self, failures: int, random: random.Random = random._inst) -> float:  # type: ignore[attr-defined]
        """Seconds to wait after so many failures in a row, at least 1; drawn evenly from 0 to the bound."""
        return random.uniform(0.0, min(self.cap, self.base * 2.0 ** min(failures - 1, 60)))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, and what happens beyond.

    Args:
        bytes: Budget for everything kept, dead letters and state included; None = the default of the place:
            a quarter of the machine's memory in memory, none on disk.
        when_full: What a `send` does when there is no room: "raise" SpoolFull, "block" until there is, or drop the
            "drop_oldest" or "drop_newest" records, which are counted and announced.
        free_floor: Bytes that stay free on the file system; None = 1 % of it, at most 50 MB.
        ttl: Seconds after which a record that is still owed is dropped; None = never.
    """

    bytes: int | None = None
    when_full: WhenFull = "raise"
    free_floor: int | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        if self.bytes is not None and self.bytes < 1:
            raise InvalidConfigError(f"Limits: bytes is at least 1, not {self.bytes!r}")
        if self.when_full not in ("raise", "block", "drop_oldest", "drop_newest"):
            raise InvalidConfigError(f"Limits: unknown when_full {self.when_full!r}")
        if self.free_floor is not None and self.free_floor < 0:
            raise InvalidConfigError(f"Limits: free_floor is at least 0, not {self.free_floor!r}")
        if self.ttl is not None and not self.ttl > 0:
            raise InvalidConfigError(f"Limits: ttl is above 0 seconds, not {self.ttl!r}")
