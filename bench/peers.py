"""What is measured of the Python queues that keep records on disk: keeping, draining, end to end, after an outage."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

from bench.queues import PEERS, Peer
from bench.subject import OUTAGE, RATE, Figures, Scale, measurement, recovered, stream, timed_within

__all__: list[str] = []


def _put(peer: type[Peer], scale: Scale, folder: Path) -> Figures:
    """Put records one at a time."""
    queue = peer(folder / "queue")
    return timed_within(scale.seconds, stream(scale.records), queue.put)[1]


def _fill(queue: Peer, batches: int, seconds: float) -> int:
    """Put batches of 1000; how many records were put in that time."""
    data = list(stream(1000))
    return timed_within(seconds, range(batches), lambda _: queue.put_many(data))[0] * 1000


def _work_off(queue: Peer, count: int, seconds: float, deliver: Callable[[list[Any]], object]) -> tuple[int, float]:
    """Take so many records to a sink; how many arrived in that time, and how long it took."""
    arrived, began = 0, time.perf_counter()
    while arrived < count and time.perf_counter() < began + seconds:
        items = queue.take()
        deliver(items)
        queue.done()
        arrived += len(items)
    return arrived, time.perf_counter() - began


def _drain(peer: type[Peer], scale: Scale, folder: Path) -> Figures:
    """Take a backlog to a sink that does nothing."""
    queue = peer(folder / "queue")
    count = _fill(queue, scale.backlog // 1000, scale.seconds)
    arrived, took = _work_off(queue, count, scale.seconds, lambda items: None)
    return {RATE: arrived / took}


def _back(
    peer: type[Peer], scale: Scale, folder: Path, count: int, deliver: Callable[[Peer, list[Any]], object]
) -> Figures:
    """A backlog waits; the peer's consumer starts at the moment at which the target is back."""
    queue = peer(folder / "queue")
    count = _fill(queue, count // 1000, 2 * scale.patience)
    arrived, took = _work_off(queue, count, scale.patience, lambda items: deliver(queue, items))
    return recovered(count, arrived, took)


class _LineFile:
    """A local file that items are appended to as lines."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def take(self, queue: Peer, items: list[Any]) -> None:
        """Write items that were taken from a queue."""
        os.write(self._fd, b"".join(queue.line(item) + b"\n" for item in items))


def _feed(writers: list[Peer], scale: Scale, bulk: bool) -> None:
    """Put each record into all queues, one at a time or 1000."""

    def put(data: dict[str, Any]) -> None:
        for queue in writers:
            queue.put(data)

    def put_many(data: list[dict[str, Any]]) -> None:
        for queue in writers:
            queue.put_many(data)

    if bulk:
        timed_within(scale.seconds, repeat(list(stream(1000)), scale.records // 1000), put_many)
    else:
        timed_within(scale.seconds, stream(scale.records), put)


def _end_to_end(peer: type[Peer], scale: Scale, folder: Path, sinks: int, bulk: bool) -> Figures:
    """From one producer through a thread per sink into as many local files."""
    writers, readers = peer.fan(folder, sinks)
    counts = [0] * sinks
    fed, stop = threading.Event(), threading.Event()

    def consume(number: int) -> None:
        queue, file = readers[number], _LineFile(folder / f"sink-{number}")
        while not stop.is_set():
            last = fed.is_set()
            items = queue.take()
            if items:
                file.take(queue, items)
                queue.done()
                counts[number] += len(items)
            elif last:
                return
            else:
                time.sleep(0.001)

    threads = [threading.Thread(target=consume, args=[number]) for number in range(sinks)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()

    _feed(writers, scale, bulk)
    fed.set()
    for thread in threads:
        thread.join(max(began + 3 * scale.seconds - time.perf_counter(), 0.0))
    took = time.perf_counter() - began
    count = min(counts)
    stop.set()
    for thread in threads:
        thread.join()
    return {RATE: count / took}


def _register(name: str, peer: type[Peer]) -> None:
    """Register what is measured of one peer."""

    @measurement(f"peers.{name}.put", "Keeping, target down", peer.guarantee)
    def put(scale: Scale, folder: Path) -> Figures:
        return _put(peer, scale, folder)

    @measurement(f"peers.{name}.drain", "Draining", peer.guarantee)
    def drain(scale: Scale, folder: Path) -> Figures:
        return _drain(peer, scale, folder)

    for sinks in (1, 4):

        @measurement(f"peers.{name}.files {sinks}", "End to end, records into local files", peer.guarantee)
        def end_to_end(scale: Scale, folder: Path, sinks: int = sinks) -> Figures:
            return _end_to_end(peer, scale, folder, sinks, bulk=False)

        if peer.put_many is Peer.put_many:
            continue

        @measurement(f"peers.{name}.files in bulk {sinks}", "End to end, records into local files", peer.guarantee)
        def end_to_end_in_bulk(scale: Scale, folder: Path, sinks: int = sinks) -> Figures:
            return _end_to_end(peer, scale, folder, sinks, bulk=True)

    @measurement(f"peers.{name}.outage, batches", OUTAGE, peer.guarantee, once=True)
    def to_nothing(scale: Scale, folder: Path) -> Figures:
        return _back(peer, scale, folder, scale.backlog, lambda queue, items: None)

    @measurement(f"peers.{name}.outage, file", OUTAGE, peer.guarantee, once=True)
    def to_file(scale: Scale, folder: Path) -> Figures:
        return _back(peer, scale, folder, scale.backlog // 10, _LineFile(folder / "sink").take)


for _name, _peer in PEERS.items():
    _register(_name, _peer)
