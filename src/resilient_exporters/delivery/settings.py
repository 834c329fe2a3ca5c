"""What the user of a pool chose, in the form delivery obeys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from resilient_exporters.policies import Limits, Retry
from resilient_exporters.status import Event

__all__ = ["Settings"]


@dataclass(slots=True)
class Settings:
    """Changed by the user, in force from the next call on.

    Args:
        num_threads: Exporters served at once, at least 1.
        waits: Whether `send` waits for results; without effect with one thread.
        manual: Whether what is kept goes out only on request.
        saves: Whether the pool keeps what a target did not take.
        budget: Seconds that a `send` in the caller's thread may spend on older records.
        connectivity: Asked before older records are tried, or None.
        sync: Whether what is kept is safe against a power cut when the call returns.
        retry: Pauses between attempts in the background.
        limits: How much is kept.
        observers: Told of every event.
    """

    num_threads: int = 1
    waits: bool = True
    manual: bool = False
    saves: bool = True
    budget: float = 1.0
    connectivity: Callable[[], bool] | None = None
    sync: bool = False
    retry: Retry = field(default_factory=Retry)
    limits: Limits = field(default_factory=Limits)
    observers: tuple[Callable[[Event], object], ...] = ()

    @property
    def background(self) -> bool:
        """Whether records are kept first and delivered by worker threads."""
        return self.num_threads > 1 and not self.waits
