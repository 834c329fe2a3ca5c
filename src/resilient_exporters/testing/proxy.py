"""`FaultProxy`, a TCP proxy that refuses, resets, swallows, delays and cuts on command."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

__all__ = ["FaultProxy"]

_T = TypeVar("_T")
_CHUNK = 1 << 16
"""Bytes read at a time; what a socket buffer holds."""
_LINGER_ZERO = struct.pack("ii" if hasattr(socket, "AF_UNIX") else "hh", 1, 0)
"""Makes a close send RST: to the other side the network broke. Windows has shorts where others have ints."""
_ANSWER = 30.0
"""Seconds that the proxy's thread may take for an order of the test before something is wrong."""


@dataclass(slots=True)
class _Fault:
    """A fault that waits for its moment.

    Args:
        replies: Whether it concerns replies, or else requests.
        after: Bytes that still pass before it happens.
        times: Connections that it still hits.
        to: It is armed by a request that holds these bytes.
    """

    replies: bool
    after: int
    times: int
    to: bytes = b""


class FaultProxy:
    """Stands between a client and a server, and breaks what is between them on command.

    One thread of its own serves all connections. The switches may be set at any time from any thread; `heal` undoes
    them all. A reset is a real one (RST) on both sides.

    Args:
        target_host: Where the server is.
        target_port: Its port.

    Attributes:
        delay: Seconds added to each round trip, half of it on each way; at least 0.
        trickle: Bytes that go through at a time, each way, every millisecond; 0 = all at once.
        faults: How many connections were reset on command so far.
        accepted: How many connections were made so far.
        round_trips: How often a client, having a reply or none yet, has sent something: what `delay` is added to.

    Example:
        >>> with FaultProxy("127.0.0.1", 5432) as proxy:
        ...     proxy.swallow_replies(to=b"COMMIT")
    """

    host = "127.0.0.1"

    def __init__(self, target_host: str, target_port: int) -> None:
        self.delay = 0.0
        self.trickle = 0
        self.faults = 0
        self.accepted = 0
        self.round_trips = 0
        self._target = (target_host, target_port)
        self._port = 0
        self._armed: list[_Fault] = []
        self._connections: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._reserved: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._flowing = asyncio.Event()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    # Life

    def __enter__(self) -> Self:
        self._thread.start()
        self._order(self._begin())
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Reset what is connected, free the port and end the thread; idempotent."""
        if self._loop.is_closed():
            return
        self._order(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER)
        self._loop.close()

    @property
    def port(self) -> int:
        """The port that clients connect to; the same for as long as the proxy lives."""
        return self._port

    # Switches

    @property
    def refuse(self) -> bool:
        """Whether new connections are refused; those that are there go on."""
        return self._listener is None

    @refuse.setter
    def refuse(self, refuse: bool) -> None:
        self._order(self._stop_listening() if refuse else self._listen())

    @property
    def stalled(self) -> bool:
        """Whether nothing goes through although everything stays connected: a half-open connection."""
        return not self._flowing.is_set()

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        self._call(self._flowing.clear if stalled else self._flowing.set)

    def reset_requests(self, *, after: int = 0, times: int = 1) -> None:
        """Reset a connection in the middle of a request.

        Args:
            after: Bytes of requests that still reach the server, from now on, counted on each connection.
            times: How many connections are hit.
        """
        self._arm(_Fault(replies=False, after=after, times=times))

    def swallow_replies(self, *, to: bytes = b"", times: int = 1) -> None:
        """Let a request reach the server, wait for the reply, drop it and reset: the client cannot know what happened.

        Args:
            to: Only the reply that follows a request with these bytes in it; b"" = the next one.
            times: How many connections are hit.
        """
        self._arm(_Fault(replies=True, after=0, times=times, to=to))

    def cut_replies(self, *, after: int, times: int = 1) -> None:
        """Let that many bytes of replies through, from now on, counted on each connection, then reset.

        Args:
            after: Bytes that still reach the client.
            times: How many connections are hit.
        """
        self._arm(_Fault(replies=True, after=after, times=times))

    def reset_all(self) -> None:
        """Reset every connection there is."""
        self._call(self._reset_all)

    def heal(self) -> None:
        """Switch every fault off; connections that are there stay."""
        self.delay = 0.0
        self.trickle = 0
        self._call(self._armed.clear)
        self.stalled = False
        self.refuse = False

    def wait_for_faults(self, count: int, timeout: float = 30.0) -> None:
        """Return when that many connections were reset on command.

        Args:
            count: Faults since the proxy was made.
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: They were not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.faults >= count, timeout):
                raise TimeoutError(f"{self.faults} faults of {count} within {timeout} seconds")

    # In the proxy's thread

    def _order(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have the proxy's thread do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER)

    def _call(self, function: Callable[[], object]) -> None:
        async def work() -> None:
            function()

        self._order(work())

    def _arm(self, fault: _Fault) -> None:
        self._call(lambda: self._armed.append(fault))

    async def _begin(self) -> None:
        self._flowing.set()
        await self._listen()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener, self._reserved = self._reserved or self._bound(), None
            self._listener.listen()
            self._listener.setblocking(False)
            self._port = self._listener.getsockname()[1]
            self._accepting = self._start(self._accept(self._listener))

    def _bound(self) -> socket.socket:
        """A socket that has the port, so that nobody else gets it; connections are refused until it listens."""
        bound = socket.socket()
        if os.name == "posix":  # elsewhere it would let a second one have the port, and it can be had again at once
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.host, self._port))
        return bound

    async def _stop_listening(self) -> None:
        if self._listener is not None and self._accepting is not None:
            listener, self._listener = self._listener, None
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            listener.close()
            self._reserved = self._bound()

    async def _end(self) -> None:
        await self._stop_listening()
        if self._reserved is not None:
            self._reserved.close()
        self._reset_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _reset_all(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            accepted, _ = await self._loop.sock_accept(listener)
            self.accepted += 1
            self._start(self._serve(accepted))

    async def _serve(self, accepted: socket.socket) -> None:
        client = await asyncio.open_connection(sock=accepted, limit=_CHUNK)
        try:
            target = await asyncio.open_connection(*self._target, limit=_CHUNK)
        except (OSError, asyncio.CancelledError):
            _abort(client[1])
            return
        connection = _Connection(self, client, target)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def _due(self, connection: _Connection, replies: bool, size: int) -> tuple[int, _Fault | None]:
        """How many bytes of a chunk may pass, and the fault that then happens."""
        for fault in self._armed:
            if fault.replies == replies and (not fault.to or fault in connection.provoked):
                left = fault.after - connection.passed_since(fault, replies)
                if size > left or (size == left and replies):
                    return left, fault
        return size, None

    def _happened(self, fault: _Fault) -> None:
        fault.times -= 1
        if fault.times <= 0 and fault in self._armed:
            self._armed.remove(fault)
        with self._changed:
            self.faults += 1
            self._changed.notify_all()


class _Connection:
    """One client's connection and the one to the server behind it."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        target: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.provoked: list[_Fault] = []
        self._proxy = proxy
        self._client = client
        self._server = target
        self._passed = {True: 0, False: 0}
        self._asked = False
        self._marks: dict[int, int] = {}

    async def run(self) -> None:
        """Carry bytes both ways until one side is gone."""
        ways = ((self._client[0], self._server[1], False), (self._server[0], self._client[1], True))
        tasks = [asyncio.ensure_future(self._carry(*way)) for way in ways]
        try:
            await asyncio.gather(*tasks)
        except OSError:
            self.reset()
        finally:
            for task in tasks:
                task.cancel()
            for writer in (self._client[1], self._server[1]):
                writer.close()

    def reset(self) -> None:
        """Break it for both sides."""
        _abort(self._client[1])
        _abort(self._server[1])

    def passed_since(self, fault: _Fault, replies: bool) -> int:
        """Bytes that passed since this connection first met a fault."""
        return self._passed[replies] - self._marks.setdefault(id(fault), self._passed[replies])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool) -> None:
        """Read ahead, so that a delay is a longer way and not a narrower one."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)
        sending = asyncio.ensure_future(self._forward(chunks, writer, replies))
        try:
            data = b"start"
            while data and not sending.done():
                data = await reader.read(_CHUNK)
                await chunks.put((self._proxy._loop.time() + self._proxy.delay / 2, data))
            await sending
        finally:
            sending.cancel()

    async def _forward(
        self, chunks: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, replies: bool
    ) -> None:
        proxy = self._proxy
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(due - proxy._loop.time())
            await proxy._flowing.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            proxy.round_trips += self._asked < (not replies)
            self._asked = not replies
            if not replies:
                self.provoked += [f for f in proxy._armed if f.to and f.to in data and f not in self.provoked]
            size, fault = proxy._due(self, replies, len(data))
            await self._write(writer, data[:size])
            self._passed[replies] += size
            if fault is not None:
                self.reset()
                proxy._happened(fault)
                return

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        step = self._proxy.trickle or len(data) or 1
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            if step < len(data):
                await asyncio.sleep(0.001)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    handle = writer.get_extra_info("socket")
    if handle is not None and not writer.transport.is_closing():
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()
