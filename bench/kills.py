"""Kills a process again and again while it sends and delivers, and counts what was lost and what came twice."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from bench.peers import PEERS
from bench.subject import CRASH, Figures, Scale, measurement, record

__all__ = ["live"]

_NUMBERS = 1_000_000
"""Numbers that each life has for its records."""
_QUIET = 3.0
"""Seconds without a delivery after which the last life of a peer takes its queue for empty."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class _Notes:
    """What was accepted and what was delivered, in files that survive the process."""

    def __init__(self, folder: Path) -> None:
        self._accepted = os.open(folder / "accepted", _APPEND)
        self._delivered = os.open(folder / "delivered", _APPEND)

    def accept(self, number: int) -> None:
        os.write(self._accepted, b"%d\n" % number)

    def deliver(self, numbers: Iterable[int]) -> None:
        os.write(self._delivered, b"".join(b"%d\n" % number for number in numbers))


def _numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_bytes().split()] if path.exists() else []


# One life


def _send_for_ever(put: Callable[[dict[str, Any]], object], notes: _Notes, first: int) -> None:
    """Send until killed, slowly enough that the slowest peer keeps up."""
    for number in itertools.count(first):
        put(record(number))
        notes.accept(number)
        time.sleep(0.001)


def _live_ours(folder: Path, first: int | None) -> None:
    import resilient_exporters as rex  # here, so that the peers' lives go without it
    from bench.ours import background, flushed

    notes = _Notes(folder)

    class Sink(rex.Exporter):
        def export(self, batch: rex.Batch, **options: Any) -> None:
            notes.deliver(each.data["id"] for each in batch.records)

    pool = background([Sink(name="sink")], folder)
    if first is not None:
        _send_for_ever(pool.send, notes, first)
    flushed(pool)
    pool.close()


def _live_peer(name: str, folder: Path, first: int | None) -> None:
    notes = _Notes(folder)
    queue = PEERS[name](folder / "queue")

    def consume() -> None:
        quiet = time.monotonic() + _QUIET
        while first is not None or time.monotonic() < quiet:
            if items := queue.take():
                notes.deliver(orjson.loads(queue.line(item))["id"] for item in items)
                queue.done()
                quiet = time.monotonic() + _QUIET
            else:
                time.sleep(0.001)

    consumer = threading.Thread(target=consume)
    consumer.start()
    if first is not None:
        _send_for_ever(queue.put, notes, first)
    consumer.join()
    os._exit(0)  # some peers have threads that would not end


def live(subject: str, folder: str, first: str = "") -> None:
    """One life: send from number `first` on until killed; without it, deliver what is left and end."""
    number = int(first) if first else None
    if subject == "ours":
        _live_ours(Path(folder), number)
    else:
        _live_peer(subject, Path(folder), number)


# Many lives


def _start(subject: str, folder: Path, first: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bench.kills", subject, str(folder), first], stderr=subprocess.PIPE)


def _kill_at_work(subject: str, folder: Path, first: int) -> None:
    """Start a life, wait until it is at work, and kill it at some moment."""
    accepted = folder / "accepted"
    before = accepted.stat().st_size if accepted.exists() else 0
    with _start(subject, folder, str(first)) as child:
        ends = time.monotonic() + 60.0
        while not accepted.exists() or accepted.stat().st_size <= before:
            if child.poll() is not None or time.monotonic() > ends:
                child.kill()
                raise RuntimeError(_last_line(child) or "nothing was accepted within 60 s")
            time.sleep(0.005)
        time.sleep(random.uniform(0.0, 0.3))
        child.kill()


def _last_line(child: subprocess.Popen[bytes]) -> str:
    said = child.stderr.read().decode(errors="replace").strip() if child.stderr else ""
    return said.rpartition("\n")[2]


def _many_lives(subject: str, scale: Scale, folder: Path) -> Figures:
    for number in range(scale.kills):
        _kill_at_work(subject, folder, number * _NUMBERS)
    with _start(subject, folder) as child:
        if child.wait(300.0):
            raise RuntimeError(_last_line(child))
    first = record(0)["id"]
    accepted = {first + number for number in _numbers(folder / "accepted")}
    delivered = _numbers(folder / "delivered")
    return {
        "kills": float(scale.kills),
        "accepted": float(len(accepted)),
        "lost": float(len(accepted.difference(delivered))),
        "twice": float(len(delivered) - len(set(delivered))),
    }


def _register(subject: str, guarantee: str) -> None:
    @measurement(f"kills.{subject}", "kill -9 while sending and delivering", guarantee, once=True)
    def kill(scale: Scale, folder: Path) -> Figures:
        """Lives that end by kill -9, and a last one that delivers what is left."""
        return _many_lives(subject, scale, folder)


_register("ours", CRASH)
for _name, _peer in PEERS.items():
    _register(_name, _peer.guarantee)

if __name__ == "__main__":
    live(*sys.argv[1:])
