"""The Python queues that keep records on disk, each behind the same five methods, and what is measured of them."""

from __future__ import annotations

import os
import threading
import time
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from bench.subject import CRASH, POWER, RATE, Figures, Scale, measurement, stream, timed_within

__all__ = ["PEERS", "Peer"]

_BATCH = 100
"""Records that a consumer takes at a time, where the peer lets it."""


class Peer:
    """A queue on disk, with a producer and a consumer in two threads of one process.

    Attributes:
        guarantee: What a returned `put` guarantees.
    """

    guarantee = CRASH

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def fan(cls, folder: Path, sinks: int) -> tuple[list[Peer], list[Peer]]:
        """Where to put each record, and where each sink takes it from: a queue per sink."""
        queues: list[Peer] = [cls(folder / f"queue-{number}") for number in range(sinks)]
        return queues, queues

    def put(self, data: dict[str, Any]) -> None:
        """Keep a record."""
        raise NotImplementedError

    def put_many(self, data: list[dict[str, Any]]) -> None:
        """Keep records, in the fastest way the peer has."""
        for each in data:
            self.put(each)

    def take(self) -> list[Any]:
        """The next items, at most a batch; [] when there are none."""
        raise NotImplementedError

    def done(self) -> None:
        """All that was taken has reached its sink."""

    def line(self, item: Any) -> bytes:
        """An item that was taken, as a line of JSON."""
        return orjson.dumps(item)


class PersistQueueAck(Peer):
    """persist-queue's SQLite queue with acknowledgements."""

    guarantee = POWER

    def __init__(self, folder: Path) -> None:
        persistqueue = import_module("persistqueue")
        self._empty = persistqueue.exceptions.Empty
        self._queue = persistqueue.SQLiteAckQueue(str(folder), multithreading=True)
        self._taken: list[int] = []

    def put(self, data: dict[str, Any]) -> None:
        self._queue.put(data)

    def take(self) -> list[Any]:
        items: list[Any] = []
        try:
            while len(items) < _BATCH:
                item = self._queue.get(block=False, raw=True)
                self._taken.append(item["pqid"])
                items.append(item["data"])
        except self._empty:
            pass  # the end of what there is
        return items

    def done(self) -> None:
        for key in self._taken:
            self._queue.ack(id=key)
        self._taken.clear()
        self._queue.clear_acked_data(keep_latest=0)


class PersistQueueFile(Peer):
    """persist-queue's file queue."""

    def __init__(self, folder: Path) -> None:
        persistqueue = import_module("persistqueue")
        self._empty = persistqueue.Empty
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = persistqueue.Queue(str(folder), tempdir=str(folder))
        self._taken = 0

    def put(self, data: dict[str, Any]) -> None:
        self._queue.put(data)

    def take(self) -> list[Any]:
        items: list[Any] = []
        try:
            while len(items) < _BATCH:
                items.append(self._queue.get(block=False))
        except self._empty:
            pass  # the end of what there is
        self._taken += len(items)
        return items

    def done(self) -> None:
        for _ in range(self._taken):
            self._queue.task_done()
        self._taken = 0


class LiteQueue(Peer):
    """litequeue; producer and consumer have a connection each, since it begins transactions by hand."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        queue = import_module("litequeue").LiteQueue
        self._in, self._out = queue(folder / "queue"), queue(folder / "queue")
        # What a killed process had in hand stays locked until the application frees it.
        for message in list(self._out.list_locked(0)):
            self._out.retry(message.message_id)
        self._taken: list[str] = []

    def put(self, data: dict[str, Any]) -> None:
        self._in.put(orjson.dumps(data).decode())

    def take(self) -> list[Any]:
        messages: list[Any] = []
        while len(messages) < _BATCH and (message := self._out.pop()) is not None:
            messages.append(message)
        self._taken.extend(message.message_id for message in messages)
        return [message.data for message in messages]

    def done(self) -> None:
        for key in self._taken:
            self._out.done(key)
        self._taken.clear()
        self._out.prune()

    def line(self, item: Any) -> bytes:
        line: bytes = item.encode()
        return line


class DiskcacheDeque(Peer):
    """diskcache's Deque: look at a batch, deliver it, then pop it."""

    def __init__(self, folder: Path) -> None:
        self._deque = import_module("diskcache").Deque(directory=str(folder))
        self._taken = 0

    def put(self, data: dict[str, Any]) -> None:
        self._deque.append(data)

    def take(self) -> list[Any]:
        items = list(islice(self._deque, _BATCH))
        self._taken += len(items)
        return items

    def done(self) -> None:
        for _ in range(self._taken):
            self._deque.popleft()
        self._taken = 0


class LmdbQueue(Peer):
    """lmdb-queue with leases of a second, so that what a killed process had in hand comes back soon."""

    def __init__(self, folder: Path) -> None:
        equeue = import_module("equeue")
        self._empty = equeue.QueueEmpty
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = equeue.Queue(folder, map_size=1 << 32, lease_time=1.0, recover_interval=0.5)
        self._taken: list[Any] = []

    def put(self, data: dict[str, Any]) -> None:
        self._queue.put(data)

    def take(self) -> list[Any]:
        try:
            while len(self._taken) < _BATCH:
                self._taken.append(self._queue.get(timeout=0.001))
        except self._empty:
            pass  # the end of what there is
        return [taken.payload for taken in self._taken]

    def done(self) -> None:
        for taken in self._taken:
            taken.ack()
        self._taken.clear()


class Rocksq(Peer):
    """rocksq's queue; taking removes, so a kill loses what is in hand."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = import_module("rocksq.blocking").PersistentQueueWithCapacity(str(folder))

    def put(self, data: dict[str, Any]) -> None:
        self._queue.push([orjson.dumps(data)])

    def put_many(self, data: list[dict[str, Any]]) -> None:
        self._queue.push([orjson.dumps(each) for each in data])

    def take(self) -> list[Any]:
        items: list[Any] = self._queue.pop(_BATCH)
        return items

    def line(self, item: Any) -> bytes:
        line: bytes = item
        return line


class RocksqMpmc(Rocksq):
    """rocksq's MpmcQueue: one queue, a label for each sink."""

    def __init__(self, folder: Path, queue: Any = None, label: str = "sink") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rocksq = import_module("rocksq.blocking")
        self._queue = queue or rocksq.MpmcQueue(str(folder), ttl=86_400)
        self._oldest = import_module("rocksq").StartPosition.Oldest
        self._label = label

    @classmethod
    def fan(cls, folder: Path, sinks: int) -> tuple[list[Peer], list[Peer]]:
        first = cls(folder)
        readers: list[Peer] = [cls(folder, first._queue, f"sink-{number}") for number in range(sinks)]
        return [first], readers

    def put(self, data: dict[str, Any]) -> None:
        self._queue.add([orjson.dumps(data)])

    def put_many(self, data: list[dict[str, Any]]) -> None:
        self._queue.add([orjson.dumps(each) for each in data])

    def take(self) -> list[Any]:
        items: list[Any] = self._queue.next(self._label, self._oldest, _BATCH)[0]
        return items


PEERS: dict[str, type[Peer]] = {
    "persist-queue ack": PersistQueueAck,
    "persist-queue file": PersistQueueFile,
    "litequeue": LiteQueue,
    "diskcache": DiskcacheDeque,
    "lmdb-queue": LmdbQueue,
    "rocksq": Rocksq,
    "rocksq mpmc": RocksqMpmc,
}


def _put(peer: type[Peer], scale: Scale, folder: Path) -> Figures:
    """Put records one at a time."""
    queue = peer(folder / "queue")
    return timed_within(scale.seconds, stream(scale.records), queue.put)[1]


def _drain(peer: type[Peer], scale: Scale, folder: Path) -> Figures:
    """Take a backlog to a sink that does nothing."""
    queue = peer(folder / "queue")
    data = list(stream(1000))
    batches = timed_within(scale.seconds, range(scale.backlog // 1000), lambda _: queue.put_many(data))[0]
    count = 0
    began = time.perf_counter()
    while count < batches * 1000 and time.perf_counter() < began + scale.seconds:
        taken = len(queue.take())
        queue.done()
        count += taken
    return {RATE: count / (time.perf_counter() - began)}


def _end_to_end(peer: type[Peer], scale: Scale, folder: Path, sinks: int) -> Figures:
    """From one producer through a thread per sink into as many local files."""
    writers, readers = peer.fan(folder, sinks)
    counts = [0] * sinks
    fed, stop = threading.Event(), threading.Event()

    def consume(number: int) -> None:
        queue, fd = readers[number], os.open(folder / f"sink-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        while not stop.is_set():
            last = fed.is_set()
            items = queue.take()
            if items:
                os.write(fd, b"".join(queue.line(item) + b"\n" for item in items))
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

    def put(data: dict[str, Any]) -> None:
        for queue in writers:
            queue.put(data)

    timed_within(scale.seconds, stream(scale.records), put)
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
            return _end_to_end(peer, scale, folder, sinks)


for _name, _peer in PEERS.items():
    _register(_name, _peer)
