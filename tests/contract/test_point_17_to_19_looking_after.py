"""Points 17 to 19: when what is kept goes out again by itself, and how much time a `send` spends on it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_send_looks_after_what_is_owed(
    make_pool: MakePool, tmp_path: Path, use_memory: bool, threads: int
) -> None:
    """With the target back, the next `send` first sends what is kept, oldest first, each once, to those that owe it."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad], num_threads=threads, use_memory=use_memory, tmp_file=tmp_path / "kept")
    for number in range(5):
        pool.send(number)
    bad.up = True
    assert [(None, True)] * 2 == pool.send(5)
    assert [0, 1, 2, 3, 4, 5] == ok.got == bad.got
    assert not pool.has_unsent_data()


def test_a_large_backlog_goes_out(make_pool: MakePool) -> None:
    """A thousand kept records and the new one go out with one `send`, flat and in order."""
    target = MemoryExporter()
    pool = make_pool([target])
    for number in range(1000):
        pool.save_unsent_data(number, {}, target.name)
    assert [(None, True)] == pool.send(1000)
    assert list(range(1001)) == target.got


@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
def test_a_send_spends_a_bounded_time_on_the_backlog(make_pool: MakePool, kind: Callable[..., Any]) -> None:
    """However large the backlog, a `send` returns after about a second, with some of it delivered and the rest kept."""
    target = kind("t", up=False)
    if kind is MemoryBatchExporter:
        target.batch_records = 10
    pool = make_pool([target], manual_reexport=True)
    for number in range(2000):
        pool.save_unsent_data(number, {}, "t")
    pool.manual_reexport = False
    target.up, target.seconds = True, 0.03
    started = time.monotonic()
    (result,) = pool.send(2000)
    assert time.monotonic() - started < 30
    assert ((None, False), True) == (result, result.kept)
    assert isinstance(result.error, rex.Queued)
    delivered = len(target.got)
    assert 1 <= delivered < 2000
    assert 2000 - delivered == result.error.before
    target.seconds = 0.0
    pool.send_unsent_data()
    assert list(range(2001)) == target.got


def test_reachability_is_never_asked_of_a_third_party(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An offline host serves its local targets: no name is looked up and no socket is opened."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the network was asked")

    for name in ("socket", "getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    pool.send(1)
    target.up = True
    assert [(None, True)] == pool.send(2)
    assert [1, 2] == target.got


class Connectivity:
    """Answers as it is told and counts the questions."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.answer


def test_connectivity_is_asked_first_and_seldom(make_pool: MakePool) -> None:
    """While `connectivity` says no, what is kept waits; it is asked at most once a second."""
    connectivity = Connectivity(False)
    owing, fine = MemoryExporter("owing", up=False), MemoryExporter("fine")
    pool = make_pool([owing, fine], connectivity=connectivity)
    started = time.monotonic()
    pool.send(0)
    owing.up = True
    for number in range(1, 200):
        held, sent = pool.send(number)
        assert ((None, False), (None, True)) == (held, sent)
        assert isinstance(held.error, rex.Queued)
    assert 1 <= connectivity.asked <= 1 + (time.monotonic() - started)
    assert [] == owing.got
    assert list(range(200)) == fine.got
    asked = connectivity.asked
    assert [(None, True)] * 200 == pool.send_unsent_data()
    assert asked == connectivity.asked
    assert list(range(200)) == owing.got


def test_connectivity_that_says_yes_lets_all_pass(make_pool: MakePool) -> None:
    """While `connectivity` says yes, each `send` looks after what is kept."""
    target = MemoryExporter(up=False)
    pool = make_pool([target], connectivity=Connectivity(True))
    pool.send(1)
    target.up = True
    pool.send(2)
    assert [1, 2] == target.got


def test_nothing_owed_nothing_asked(make_pool: MakePool) -> None:
    """As long as nothing is kept, `connectivity` does not hold back a record."""
    target = MemoryExporter()
    pool = make_pool([target], connectivity=Connectivity(False))
    assert [(None, True)] == pool.send(1)


def test_connectivity_holds_back_nothing_new_in_the_background(make_pool: MakePool) -> None:
    """There, too, an exporter that owes nothing is served while `connectivity` says no, and one that does waits."""
    connectivity = Connectivity(False)
    owing, fine = MemoryExporter("owing", up=False), MemoryExporter("fine")
    pool = make_pool([owing, fine], None, 2, False, connectivity=connectivity)
    pool.send(0)
    owing.wait_for_calls(1)
    owing.up = True
    for number in range(1, 20):
        pool.send(number)
    fine.wait_for(20)
    assert (1, []) == (owing.calls, owing.got)
    connectivity.answer = True
    owing.wait_for(20)
    assert list(range(20)) == owing.got


def test_a_connectivity_that_cannot_be_called_is_refused() -> None:
    """A `connectivity` that is not callable raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([], connectivity=True)  # type: ignore[arg-type,call-arg,unused-ignore]


def test_has_internet_connection_is_quick_and_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`has_internet_connection` looks up a route without sending a packet or asking for a name."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    kinds: list[int] = []

    class Noting(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            kinds.append(self.type)

        send = sendto = sendall = refuse

    monkeypatch.setattr(socket, "socket", Noting)
    started = time.monotonic()
    assert rex.has_internet_connection() in (True, False)
    assert time.monotonic() - started < 30
    assert {socket.SOCK_DGRAM} == set(kinds)


def test_the_docstring_says_what_is_meant_by_reachable() -> None:
    """The docstring of the pool says which question is asked by default, and names the other."""
    text = rex.ExporterPool.__doc__ or ""
    assert "connectivity" in text
    assert "target" in text


def test_a_target_that_fails_fast_is_tried_at_each_send(make_pool: MakePool) -> None:
    """A target that fails fast is tried at every `send`."""
    target = MemoryBatchExporter(up=False)
    pool = make_pool([target])
    for number in range(1, 20):
        pool.send(number)
        assert target.calls + target.opened >= number


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
@pytest.mark.usefixtures("paced")
def test_a_target_that_is_slow_to_fail_is_paced(make_pool: MakePool, threads: int, kind: Callable[..., Any]) -> None:
    """After an attempt that took t to fail, the next comes no sooner than 10 t later, however many sends are made."""
    target = kind("slow", seconds=0.05, error=OSError("timed out"))
    pool = make_pool([target, MemoryExporter("other")], num_threads=threads)
    began = time.monotonic()
    pool.send(0)
    number = 0
    while target.calls == 1:
        number += 1
        result = pool.send(number)[0]
        assert result.kept
        assert time.monotonic() - began < 60
    assert time.monotonic() - began >= 0.05 + 0.5
    target.error, target.seconds = None, 0.0
    pool.send_unsent_data()
    assert list(range(number + 1)) == target.got


@pytest.mark.usefixtures("paced")
def test_paced_records_are_queued(make_pool: MakePool) -> None:
    """A record that is held back by the pacing says so, with the last failure as its cause."""
    error = OSError("timed out")
    target = MemoryExporter(seconds=0.3, error=error)
    pool = make_pool([target])
    assert error is pool.send(0)[0].error
    (result,) = pool.send(1)
    assert isinstance(result.error, rex.Queued)
    assert 1 == result.error.before
    assert error is result.error.__cause__
    assert 1 == target.calls


@pytest.mark.usefixtures("paced")
def test_send_unsent_data_always_tries(make_pool: MakePool) -> None:
    """`send_unsent_data` is not paced."""
    target = MemoryExporter(seconds=0.03, up=False)
    pool = make_pool([target])
    pool.send(0)
    for calls in (2, 3, 4):
        pool.send_unsent_data()
        assert calls == target.calls


@pytest.mark.usefixtures("paced")
def test_pacing_one_target_does_not_pace_another(make_pool: MakePool) -> None:
    """A target that is slow to fail costs the others nothing."""
    slow, well = MemoryExporter("slow", seconds=0.1, up=False), MemoryExporter("well")
    pool = make_pool([slow, well])
    pool.send(0)
    started = time.monotonic()
    for number in range(1, 101):
        assert (None, True) == pool.send(number)[1]
    assert slow.calls <= 1 + (time.monotonic() - started)
    assert list(range(101)) == well.got


@pytest.mark.parametrize("use_memory", [True, False])
def test_by_hand_nothing_kept_is_sent_until_told(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """With `manual_reexport=True` kept records wait for `send_unsent_data`; new ones still go out."""
    target = MemoryExporter(up=False)
    pool = make_pool([target], manual_reexport=True, use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.send(0)
    pool.send(1)
    assert 2 == target.calls
    target.up = True
    assert [(None, True)] == pool.send(2)
    assert [2] == target.got
    assert pool.has_unsent_data()
    assert [(None, True)] * 2 == pool.send_unsent_data()
    assert [2, 0, 1] == target.got
    assert not pool.has_unsent_data()


def test_by_hand_in_the_background(make_pool: MakePool) -> None:
    """With `manual_reexport=True` the background, too, makes one attempt at each record and then waits to be told."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], None, 2, False, manual_reexport=True)
    pool.send(0)
    target.wait_for_calls(1)
    target.up = True
    pool.send(1)
    target.wait_for(1)
    assert [1] == target.got
    assert pool.has_unsent_data()
    pool.send_unsent_data()
    target.wait_for(2)
    assert [1, 0] == target.got


@pytest.mark.parametrize("use_memory", [True, False])
def test_by_hand_what_is_kept_on_request_waits(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """In the background, too, `save_unsent_data` keeps a record until it is asked for; new ones go out around it."""
    target = MemoryExporter("t")
    place = {"use_memory": use_memory, "tmp_file": tmp_path / "kept"}
    pool = make_pool([target], None, 2, False, manual_reexport=True, **place)
    pool.save_unsent_data("kept", {}, "t")
    pool.send("new")
    pool.save_unsent_data("kept, too", {}, "t")
    pool.send("newer")
    target.wait_for(2)
    assert ["new", "newer"] == target.got
    pool.send_unsent_data()
    assert ["new", "newer", "kept", "kept, too"] == target.got


@pytest.mark.parametrize("use_memory", [True, False])
def test_by_hand_what_an_exporter_brings_along_waits(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """In the background, too, what an exporter kept before it joined waits until it is asked for."""
    target = MemoryExporter("t", up=False, use_memory=use_memory, tmp_file=tmp_path / "own")
    target.send("own")
    target.up = True
    pool = make_pool([target], None, 2, False, manual_reexport=True)
    pool.send("new")
    target.wait_for(1)
    assert ["new"] == target.got
    pool.send_unsent_data()
    assert ["new", "own"] == target.got


def test_by_hand_what_was_tried_in_the_callers_thread_waits(make_pool: MakePool) -> None:
    """A pool that goes into the background does not try again there what failed before."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], manual_reexport=True)
    pool.send("kept")
    target.up = True
    pool.num_threads, pool.wait_for_result = 2, False
    pool.send("new")
    target.wait_for(1)
    assert ["new"] == target.got
    pool.send_unsent_data()
    assert ["new", "kept"] == target.got
