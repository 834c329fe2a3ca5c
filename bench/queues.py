"""The Python queues that keep records on disk, each behind the same five methods."""

from __future__ import annotations

from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import orjson

from bench.subject import CRASH, POWER

__all__ = ["PEERS", "Peer"]

_BATCH = 100
"""Records that a consumer takes at a time, where the peer lets it."""


class Peer:
    """A queue on disk, with a producer and a consumer in two threads of one process.

    Attributes:
        guarantee: What a returned `put` guarantees.
        package: What it is imported from, when the first queue is made.
    """

    guarantee = CRASH
    package: ClassVar[str]

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
    package = "persistqueue"

    def __init__(self, folder: Path) -> None:
        persistqueue = import_module(self.package)
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

    package = "persistqueue"

    def __init__(self, folder: Path) -> None:
        persistqueue = import_module(self.package)
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

    package = "litequeue"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        queue = import_module(self.package).LiteQueue
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

    package = "diskcache"

    def __init__(self, folder: Path) -> None:
        self._deque = import_module(self.package).Deque(directory=str(folder))
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

    package = "equeue"

    def __init__(self, folder: Path) -> None:
        equeue = import_module(self.package)
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

    package = "rocksq.blocking"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = import_module(self.package).PersistentQueueWithCapacity(str(folder))

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
        rocksq = import_module(self.package)
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
