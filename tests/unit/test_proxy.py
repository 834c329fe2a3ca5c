"""FaultProxy in front of a small echo server: what each switch does to a connection."""

from __future__ import annotations

import gc
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from resilient_exporters.testing.proxy import FaultProxy


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it gets, and remembers it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got = b""
        self.changed = threading.Condition()

    def wait_for(self, data: bytes) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: data in self.got, 10)


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Echo)
        try:
            while data := self.request.recv(1 << 16):
                with server.changed:
                    server.got += data
                    server.changed.notify_all()
                self.request.sendall(data)
        except ConnectionError:
            return


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.server_address[1]) as made:
        yield made


def client(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=60)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """Send, and read as many bytes back, or fewer when that is the end."""
    connection.sendall(data)
    back = b""
    while len(back) < len(data) and (more := connection.recv(1 << 16)):
        back += more
    return back


def test_passes_everything_both_ways(proxy: FaultProxy) -> None:
    """Without faults, bytes come back as they went, whatever their number."""
    data = bytes(range(256)) * 1000
    with client(proxy) as one, client(proxy) as other:
        assert b"a" == echoed(one, b"a")
        assert data == echoed(other, data)
    assert (2, 0) == (proxy.accepted, proxy.faults)


def test_an_end_passes_as_an_end(proxy: FaultProxy) -> None:
    """A client that is done sending still gets the rest of the reply, and then the end."""
    with client(proxy) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert b"last words" == connection.recv(99)
        assert b"" == connection.recv(99)


def test_refuse(proxy: FaultProxy) -> None:
    """New connections are refused, old ones go on, and the port stays the same afterwards."""
    port = proxy.port
    with client(proxy) as old:
        assert b"w" == echoed(old, b"w")
        proxy.refuse = True
        assert proxy.refuse
        with pytest.raises(ConnectionRefusedError):
            client(proxy)
        assert b"x" == echoed(old, b"x")
    proxy.refuse = False
    assert port == proxy.port
    with client(proxy) as new:
        assert b"y" == echoed(new, b"y")


def test_target_down(proxy: FaultProxy, echo: Echo) -> None:
    """When the server behind it is not there, a client is cut off."""
    echo.server_close()
    with client(proxy) as connection, pytest.raises(ConnectionError):
        echoed(connection, b"x")
        echoed(connection, b"x")


def test_reset_mid_request(proxy: FaultProxy, echo: Echo) -> None:
    """The server gets the first bytes of the request, the client a reset."""
    with client(proxy) as connection:
        proxy.reset_requests(after=3)
        with pytest.raises(ConnectionResetError):
            echoed(connection, b"abcdef")
        echo.wait_for(b"abc")
    assert b"abc" == echo.got
    with client(proxy) as again:
        assert b"abcdef" == echoed(again, b"abcdef")
    assert 1 == proxy.faults


def test_swallow_the_reply(proxy: FaultProxy, echo: Echo) -> None:
    """The server got the request and answered; the client is reset without the answer."""
    with client(proxy) as connection:
        assert b"before" == echoed(connection, b"before")
        proxy.swallow_replies()
        with pytest.raises(ConnectionResetError):
            echoed(connection, b"request")
    assert b"beforerequest" == echo.got
    proxy.wait_for_faults(1)


def test_swallow_the_reply_to_one_request(proxy: FaultProxy, echo: Echo) -> None:
    """Only the reply to a request with certain bytes in it is dropped."""
    proxy.swallow_replies(to=b"commit")
    with client(proxy) as connection:
        assert b"begin" == echoed(connection, b"begin")
        assert b"insert" == echoed(connection, b"insert")
        with pytest.raises(ConnectionResetError):
            echoed(connection, b"commit")
    echo.wait_for(b"commit")


def test_times(proxy: FaultProxy) -> None:
    """A fault hits as many connections as it was told to."""
    proxy.swallow_replies(times=2)
    for _ in range(2):
        with client(proxy) as connection, pytest.raises(ConnectionResetError):
            echoed(connection, b"x")
    with client(proxy) as connection:
        assert b"x" == echoed(connection, b"x")
    assert 2 == proxy.faults


def test_cut_after_n_bytes(proxy: FaultProxy) -> None:
    """So many bytes of the reply arrive, counted from when it was ordered, then the connection breaks."""
    with client(proxy) as connection:
        assert b"whole" == echoed(connection, b"whole")
        proxy.cut_replies(after=4)
        connection.sendall(b"0123456789")
        with pytest.raises(ConnectionResetError):
            while True:
                assert connection.recv(1 << 16)
    proxy.wait_for_faults(1)


def test_delay_is_a_longer_way_not_a_narrower_one(proxy: FaultProxy) -> None:
    """A round trip takes the delay longer; many chunks on the way at once do not take it each."""
    data = b"x" * (1 << 23)
    with client(proxy) as connection:
        proxy.delay = 0.3
        began = time.monotonic()
        echoed(connection, b"x")
        assert 0.3 <= time.monotonic() - began < 30
        began = time.monotonic()
        assert data == echoed_while_sending(connection, data)
        assert 0.3 <= time.monotonic() - began < 30


def echoed_while_sending(connection: socket.socket, data: bytes) -> bytes:
    """Send much in one thread and read in another, since neither side can hold all of it."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    back = b""
    while len(back) < len(data) and (more := connection.recv(1 << 16)):
        back += more
    sender.join()
    return back


def test_round_trips_are_counted(proxy: FaultProxy) -> None:
    """Each question with its answer counts once, on each connection."""
    for expected in (3, 6):
        with client(proxy) as connection:
            for data in (b"x", b"y" * 1000, b"z"):
                assert data == echoed(connection, data)
        assert expected == proxy.round_trips


def test_trickle(proxy: FaultProxy) -> None:
    """Bytes arrive few at a time."""
    with client(proxy) as connection:
        proxy.trickle = 2
        connection.sendall(b"0123456789")
        pieces: list[bytes] = []
        while b"".join(pieces) != b"0123456789":
            pieces.append(connection.recv(99))
    assert len(pieces) > 1


def test_stalled(proxy: FaultProxy) -> None:
    """Connections stay open and silent; afterwards what was on the way arrives."""
    with client(proxy) as connection:
        assert b"x" == echoed(connection, b"x")
        proxy.stalled = True
        assert proxy.stalled
        connection.sendall(b"late")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(99)
        with client(proxy) as other:
            other.sendall(b"accepted all the same")
        proxy.heal()
        connection.settimeout(60)
        assert b"late" == connection.recv(99)


def test_reset_all(proxy: FaultProxy) -> None:
    """Every connection breaks at once, stalled ones too."""
    with client(proxy) as one, client(proxy) as other:
        assert b"x" == echoed(one, b"x")
        assert b"x" == echoed(other, b"x")
        proxy.stalled = True
        proxy.reset_all()
        for connection in (one, other):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)


def test_heal_disarms(proxy: FaultProxy) -> None:
    """After heal, nothing that was ordered happens any more."""
    proxy.swallow_replies()
    proxy.reset_requests()
    proxy.cut_replies(after=1)
    proxy.delay, proxy.trickle, proxy.stalled, proxy.refuse = 5.0, 1, True, True
    proxy.heal()
    with client(proxy) as connection:
        assert b"x" * 99 == echoed(connection, b"x" * 99)
    assert (0.0, 0, False, False, 0) == (proxy.delay, proxy.trickle, proxy.stalled, proxy.refuse, proxy.faults)


def test_waiting_for_faults_ends(proxy: FaultProxy) -> None:
    """Waiting for a fault that does not happen raises."""
    with pytest.raises(TimeoutError):
        proxy.wait_for_faults(1, timeout=0.01)


@pytest.mark.filterwarnings("error")
def test_close_leaves_nothing(echo: Echo) -> None:
    """Closing resets clients, frees the port, ends the thread, leaves no socket open; twice does no harm."""
    threads = threading.active_count()
    with FaultProxy("127.0.0.1", echo.server_address[1]) as proxy:
        port = proxy.port
        connection = client(proxy)
        assert b"x" == echoed(connection, b"x")
        proxy.stalled = True
        connection.sendall(b"held")
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
    assert not proxy._thread.is_alive()
    assert threading.active_count() <= threads + 1
    del proxy
    gc.collect()
