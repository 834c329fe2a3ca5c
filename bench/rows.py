"""What the benchmark is about: for each aim the figures it is made of, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.subject import CPU, DISK, RATE, Figures

__all__ = ["ROWS", "Failed", "NotRun", "Round", "Row", "needs"]

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


def _figure(name: str, figure: str) -> Callable[[Round], float]:
    return lambda found: found(name, figure)


def _ratio(name: str, base: str) -> Callable[[Round], float]:
    return lambda found: found(name) / found(base)


def _over_peers(name: str, what: str) -> Callable[[Round], float]:
    return lambda found: found(name) / found.fastest_peer(what)


_WRITE = "bare.encode+os.write"
_SLOW = "ours.send while each call takes 100 ms"

ROWS = [
    Row("`send`, target down, beside encode + `os.write`", _ratio("ours.send", _WRITE), least=0.9),
    Row("`send`, target down, beside the fastest peer", _over_peers("ours.send", "put"), least=4),
    Row("`send_many` of 1000, target down, beside `send`", _ratio("ours.send_many", "ours.send"), least=3),
    Row("`send_many` of 1000, target down, beside encode + `os.write`", _ratio("ours.send_many", _WRITE)),
    Row(
        "power: `send_many` of 1000, beside encode + write + `fdatasync` per 1000",
        _ratio("ours.power send_many", "bare.encode+write+fdatasync per 1000"),
        least=0.85,
    ),
    Row(
        "power: 16 threads calling `send`, beside an `fdatasync` per record",
        _ratio("ours.power send, 16 threads", "bare.encode+os.write+fdatasync"),
        least=5,
    ),
    Row(
        "draining to an exporter that reads, beside a decode loop",
        _ratio("ours.drain, reading", "bare.decode"),
        least=0.6,
    ),
    Row(
        "draining to an exporter that does nothing, beside the fastest peer",
        _over_peers("ours.drain", "drain"),
        least=1.5,
    ),
    Row("end to end into 1 file, beside the fastest peer", _over_peers("ours.files 1", "files 1"), least=3.5),
    Row("end to end into 4 files, beside the fastest peer", _over_peers("ours.files 4", "files 4"), least=4),
    Row("time for 4 files beside time for 1", _ratio("ours.files 1", "ours.files 4"), most=2),
    Row(
        "ready-made lines into 1 file, beside `os.write`", _ratio("ours.lines 1", "bare.os.write of lines"), least=0.52
    ),
    Row(
        "ready-made lines into 4 files, beside `os.write`", _ratio("ours.lines 4", "bare.os.write of lines"), least=0.25
    ),
    Row("one `send` while each target call takes 100 ms: median", _figure(_SLOW, "median us"), "us", most=5),
    Row("one `send` while each target call takes 100 ms: p99", _figure(_SLOW, "p99 us"), "us", most=50),
    Row("one `send` while each target call takes 100 ms: longest", _figure(_SLOW, "max us"), "us", most=5000),
    Row(
        "foreground: what a pool adds to a healthy exporter's `send`",
        _figure("ours.send, foreground", "added us"),
        "us",
        most=4,
    ),
    Row("processor time of a `send`, target down, 1 exporter", _figure("ours.send", CPU), "us", most=2),
    Row("processor time of a `send`, target down, 10 exporters", _figure("ours.send to 10", CPU), "us", most=2),
    Row("disk beyond the payload, `send`, 1 exporter", _figure("ours.send", DISK), "bytes", most=24),
    Row("disk beyond the payload, `send`, 10 exporters", _figure("ours.send to 10", DISK), "bytes", most=24),
    Row("disk beyond the payload, `send_many`, 1 exporter", _figure("ours.send_many", DISK), "bytes", most=4),
    Row("disk beyond the payload, `send_many`, 10 exporters", _figure("ours.send_many to 10", DISK), "bytes", most=4),
    Row(
        "opening with 200,000 records: first record out",
        _figure("footprint.open backlog", "first record out ms"),
        "ms",
        most=30,
    ),
    Row(
        "opening with 20 million: first record out",
        _figure("footprint.open large backlog", "first record out ms"),
        "ms",
        most=150,
    ),
    Row("resident memory while 5 GB drain: rise", _figure("footprint.drain of 5 GB", "rise MB"), "MB", most=40),
    Row(
        "memory spool: resident memory per 200-byte record",
        _figure("footprint.memory spool", "bytes/record"),
        "bytes",
        most=320,
    ),
    Row("memory spool: `send`", _figure("ours.memory send", RATE), "records/s", least=1_200_000),
    Row("`import resilient_exporters`", _figure("footprint.import", "import ms"), "ms", most=80),
    Row("client libraries that the import loads", _figure("footprint.import", "client libraries"), "", most=0),
    Row(
        "healthy exporter beside a hanging one, beside alone",
        _ratio("behaviour.beside hanging", "behaviour.alone"),
        least=0.9,
    ),
    Row(
        "healthy exporter beside a dead one, beside alone",
        _ratio("behaviour.beside dead", "behaviour.alone"),
        least=0.9,
    ),
    Row(
        "healthy exporter beside a crawling one, beside alone",
        _ratio("behaviour.beside crawling", "behaviour.alone"),
        least=0.9,
    ),
    Row(
        "healthy exporter beside a raising one, beside alone",
        _ratio("behaviour.beside raising", "behaviour.alone"),
        least=0.9,
    ),
    Row("target is back: 100,000 records through after", _figure("behaviour.target is back", "backlog through s"), "s"),
    Row("records lost over all kills", _figure("kills.ours", "lost"), "", most=0),
    Row("records that came twice over all kills", _figure("kills.ours", "twice"), ""),
]
