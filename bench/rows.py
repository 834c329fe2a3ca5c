"""What a row of the tables is: the figures of a round that it is made of, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.subject import RATE, Figures

__all__ = ["Failed", "NotRun", "Outcome", "Round", "Row", "figure", "needs", "over_peers", "ratio"]

Outcome = Figures | str
"""Figures, or the reason why there are none."""


class Failed(Exception):
    """A figure is missing because its measurement failed; the message says why."""


class NotRun(Exception):
    """A figure is missing because its measurement was not asked for."""


class Round:
    """What one round found, by measurement."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self._outcomes = outcomes

    def __call__(self, name: str, figure: str = RATE) -> float:
        """One figure of one measurement.

        Raises:
            NotRun: The measurement was not made in this round.
            Failed: It gave no figures.
        """
        if name not in self._outcomes:
            raise NotRun(name)
        outcome = self._outcomes[name]
        if isinstance(outcome, str):
            raise Failed(f"{name}: {outcome}")
        return outcome[figure]

    def fastest_peer(self, what: str) -> float:
        """The highest rate of all peers that survive a kill; those that failed do not count.

        Raises:
            NotRun: No peer was measured.
            Failed: All of them failed.
        """
        names = [name for name in self._outcomes if _is_peer(name, what)]
        if not names:
            raise NotRun(what)
        found = [outcome[RATE] for name in names if not isinstance(outcome := self._outcomes[name], str)]
        if not found:
            raise Failed(f"no peer: {self._outcomes[names[0]]}")
        return max(found)


def _is_peer(name: str, what: str) -> bool:
    return name.startswith("peers.") and name.endswith(f".{what}")


@dataclass(frozen=True)
class Row:
    """One aim.

    Args:
        text: What is measured.
        value: Makes the value of a round from its figures.
        unit: Unit of the value; "x" for a ratio.
        least: The aim is at least this.
        most: The aim is at most this. With neither, the row just tells.
    """

    text: str
    value: Callable[[Round], float]
    unit: str = "x"
    least: float | None = None
    most: float | None = None


class _Asking(Round):
    """A round that notes what it is asked for."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({})
        self._names = list(names)
        self.asked: list[str] = []

    def __call__(self, name: str, figure: str = RATE) -> float:
        self.asked.append(name)
        return 1.0

    def fastest_peer(self, what: str) -> float:
        self.asked.extend(name for name in self._names if _is_peer(name, what))
        return 1.0


def needs(row: Row, names: Iterable[str]) -> list[str]:
    """The measurements that a row is made of, ours first, out of all `names`."""
    asking = _Asking(names)
    row.value(asking)
    return asking.asked


# What a value is made of


def figure(name: str, kind: str) -> Callable[[Round], float]:
    """One figure of one measurement."""
    return lambda found: found(name, kind)


def ratio(name: str, base: str, kind: str = RATE) -> Callable[[Round], float]:
    """A figure beside that of another measurement."""
    return lambda found: found(name, kind) / found(base, kind)


def over_peers(name: str, what: str) -> Callable[[Round], float]:
    """A rate beside that of the fastest peer."""
    return lambda found: found(name) / found.fastest_peer(what)
