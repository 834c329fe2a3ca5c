"""The keeper: what happens when there is no room, and the exchange of spools under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters import codec
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keep, Keeper
from resilient_exporters.delivery.lane import Lane, Source, Step
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.exceptions import DataTypeError, PoolClosed, RecordsRefused, SpoolFull
from resilient_exporters.policies import Limits, Retry
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.interface import Fate, Opaque, Spool, SpoolMoving
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.testing.clock import ManualClock
from tests.delivery.targets import PATIENCE, FakeTarget, Verdict, down, engine_of, in_threads, keep, owed, send

T = frozenset({"t"})


class Desk:
    """A keeper with one lane."""

    def __init__(self, limits: Limits | None = None, limit_bytes: int | None = None) -> None:
        self.clock = ManualClock(now=1000.0)
        self.spool = MemorySpool(limit_bytes=limit_bytes)
        self.target = FakeTarget()
        self.lane = Lane("t", self.target, [Source(self.spool, "t")], self.clock, Retry())
        self.keeper = Keeper("pool", self.spool, limits or Limits(), self.clock, lambda: {"t": self.lane})

    def keep(self, data: Any, ttl: float | None = None) -> bool:
        parcel = Parcel(self.spool.run, self.spool.draw(), self.clock.time(), codec.encode(data), b"", 0)
        return self.keeper.keep(parcel, T, Keep(ttl=ttl))


BIG = "x" * 1000
ROOM = 3500
"""Bytes: three big records, not four."""


def fill(desk: Desk) -> None:
    for i in range(3):
        assert desk.keep(f"{i}{BIG}")


def test_full_raises() -> None:
    """Without room, keeping raises, and what was kept stays."""
    desk = Desk(limit_bytes=ROOM)
    fill(desk)
    with pytest.raises(SpoolFull):
        desk.keep(BIG)
    assert 3 == desk.lane.owed()


def test_full_drops_the_newest() -> None:
    """With "drop_newest" the record itself is dropped, and counted."""
    desk = Desk(Limits(when_full="drop_newest"), ROOM)
    fill(desk)
    assert not desk.keep(BIG)
    assert (["0", "1", "2"], 1) == ([one[0] for one in owed(desk.spool)], desk.lane.dropped)


def test_full_behind_a_move_drops_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited for the exchange of spools is treated as anybody else when there is no room then."""
    desk = Desk(Limits(when_full="drop_newest"), ROOM)
    fill(desk)
    append, calls = desk.spool.append, []

    def moving(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise SpoolMoving
        append(*args, **kwargs)

    monkeypatch.setattr(desk.spool, "append", moving)
    assert not desk.keep(BIG)
    assert (2, 1) == (len(calls), desk.lane.dropped)


def test_full_drops_the_oldest() -> None:
    """With "drop_oldest" older ones make room, and are counted."""
    desk = Desk(Limits(when_full="drop_oldest"), ROOM)
    fill(desk)
    assert desk.keep(f"3{BIG}")
    kept = [one[0] for one in owed(desk.spool)]
    assert "3" == kept[-1]
    assert (4, kept) == (len(kept) + desk.lane.dropped, ["0", "1", "2", "3"][-len(kept) :])


def test_a_record_that_never_fits_raises() -> None:
    """A record larger than everything cannot be helped by dropping others for ever."""
    desk = Desk(Limits(when_full="drop_oldest"), ROOM)
    fill(desk)
    with pytest.raises(SpoolFull):
        desk.keep("x" * 10 * ROOM)


def test_full_blocks_until_there_is_room() -> None:
    """With "block" a sender waits until a delivery makes room."""
    desk = Desk(Limits(when_full="block"), ROOM)
    fill(desk)
    kept = threading.Event()

    def sender() -> None:
        assert desk.keep(f"3{BIG}")
        kept.set()

    thread = threading.Thread(target=sender, daemon=True)
    thread.start()
    assert not kept.wait(0.05)
    desk.lane.begin_pass()
    assert Step.MORE is desk.lane.step()
    assert kept.wait(PATIENCE)
    thread.join(PATIENCE)
    assert ["3"] == [one[0] for one in owed(desk.spool)]


def test_a_blocked_sender_learns_of_the_end() -> None:
    """A sender that waits for room when the pool is closed gets PoolClosed."""
    desk = Desk(Limits(when_full="block"), ROOM)
    fill(desk)
    desk.keeper.stop()
    with pytest.raises(PoolClosed):
        desk.keep(BIG)


def test_what_has_outlived_its_time_is_dropped() -> None:
    """A record is dropped and counted when its time to live is over, and not before."""
    desk = Desk()
    desk.keep("short", ttl=10.0)
    desk.keep("long", ttl=100.0)
    desk.keep("for ever")
    desk.clock.advance(9.0)
    desk.keeper.expire()
    assert (3, 0) == (desk.lane.owed(), desk.lane.dropped)
    desk.clock.advance(2.0)
    desk.keeper.expire()
    assert (["long", "for ever"], 1) == (owed(desk.spool), desk.lane.dropped)


# --- exchanging the spool


def owing(count: int = 6, **options: Any) -> tuple[Engine, FakeTarget]:
    """An engine that owes records to a target that is down."""
    target = FakeTarget(down(), **options)
    spool = MemorySpool()
    keep(spool, "x", "y", "z")
    spool.settle("t", [1, 2, 3], Fate.DROPPED)  # so that places differ after each exchange
    engine = engine_of(spool=spool, t=target)
    for i in range(count):
        send(engine, i)
    target.calls.clear()
    return engine, target


def pushed(engine: Engine, target: FakeTarget) -> list[Any]:
    target.judge = lambda data: None
    engine.send_unsent(list(engine.lanes))
    return target.got


@pytest.mark.parametrize("times", [1, 2, 5])
def test_nothing_changes_by_an_exchange(times: int) -> None:
    """Records keep their order, their ids and their owners, however often the spool is exchanged."""
    engine, target = owing()
    before = ids(engine.spool)
    for _ in range(times):
        engine.keeper.switch(MemorySpool())
    assert before == ids(engine.spool)
    assert list(range(6)) == pushed(engine, target)
    assert not engine.owing()


def ids(spool: Spool) -> list[tuple[int, int]]:
    kept = spool.read("t", 0, 1000, 1 << 30)
    assert kept is not None
    return [(kept.run, number) for number in kept.numbers]


def test_records_of_lanes_that_are_gone_come_along() -> None:
    """What is owed to an exporter that is not there is carried over, too."""
    engine, _ = owing(1)
    keep(engine.spool, "orphan", lanes=("gone", "t"))
    keep(engine.spool, "another", lanes=("gone",))
    engine.keeper.switch(MemorySpool())
    assert (["orphan", "another"], [0, "orphan"]) == (owed(engine.spool, "gone"), owed(engine.spool, "t"))


@pytest.mark.parametrize("verdict", [None, "down", "refused", "interrupt"])
def test_an_exchange_while_a_batch_is_under_way(verdict: str | None) -> None:
    """The spool is exchanged during a call: what came of the call is noted where the records are now."""
    engine, target = owing()

    def judge(data: list[Any]) -> Verdict:
        if switches:
            engine.keeper.switch(switches.pop())
            send_more()
        return {
            None: None,
            "down": down()(data),
            "refused": RecordsRefused(permanent={0: "bad"}, later={1: "busy"} if len(data) > 1 else {}),
            "interrupt": KeyboardInterrupt(),
        }[verdict]

    def send_more() -> None:
        keep(engine.spool, "new")

    switches = [MemorySpool()]
    engine.lanes["t"]._slices.limit = 1000
    target.judge = judge
    engine.lanes["t"].begin_pass()
    try:
        engine.lanes["t"].step()
    except KeyboardInterrupt:
        assert "interrupt" == verdict
    lefts: dict[str | None, list[Any]] = {None: ["new"], "refused": [1, "new"]}
    left = lefts.get(verdict, [*range(6), "new"])
    assert left == owed(engine.spool)
    assert left == pushed(engine, target)[-len(left) :]
    assert not engine.owing()
    lane = engine.lanes["t"]
    assert 7 == lane.delivered + lane.dead


def test_a_stable_batch_in_doubt_survives_an_exchange() -> None:
    """A batch in doubt is repeated with the same bounds out of the other spool, and settled there."""
    engine, target = owing(stable=True)
    engine.send_unsent(["t"])
    first = target.calls[-1]
    engine.keeper.switch(MemorySpool())
    keep(engine.spool, "new")
    engine.lanes["t"].begin_pass()
    engine.lanes["t"].step(before=(engine.spool.run, 1))
    engine.keeper.switch(MemorySpool())
    got = pushed(engine, target)
    assert {tuple(first)} == {tuple(call) for call in target.calls if call[0] == first[0]}
    assert [*range(6), "new"] == got
    assert not engine.owing()


def test_a_spool_without_room_changes_nothing() -> None:
    """When the other spool cannot take everything, all stays where it was, and work goes on."""
    engine, target = owing()
    before, small = engine.spool, MemorySpool(limit_bytes=300)
    with pytest.raises(SpoolFull):
        engine.keeper.switch(small)
    assert (before, ()) == (engine.spool, small.owing())
    send(engine, 6)
    assert list(range(7)) == pushed(engine, target)


def test_what_no_codec_can_write_stays_in_memory() -> None:
    """A record that cannot be written to a file refuses the exchange, and all stays where it was."""
    desk = Desk()
    desk.spool.append([Opaque(object())], T, time=1.0)
    file = FileLike()
    with pytest.raises(DataTypeError, match="object"):
        desk.keeper.switch(file)
    assert desk.spool is desk.keeper.spool
    assert 1 == desk.lane.owed()


def FileLike() -> Spool:  # noqa: N802  # stands for a class
    """A spool that is not one in memory, by its type."""

    class Facade:
        def __init__(self) -> None:
            self.inner = MemorySpool()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    made: Any = Facade()
    return made  # type: ignore[no-any-return]  # it does what the protocol asks


def test_to_memory_and_back() -> None:
    """What a file held is settled in the file, too, while it is in memory; what came meanwhile goes behind it."""
    file = FileLike()
    target = FakeTarget(down(), batches=False)
    engine = engine_of(spool=file, t=target)
    for i in range(4):
        send(engine, i)
    engine.keeper.switch(BackedSpool(file))
    target.judge = lambda data: None if data[0] < 2 else down()(data)
    engine.send_unsent(["t"])
    send(engine, 4)
    assert [2, 3] == owed(file)
    engine.keeper.switch_back()
    assert [2, 3, 4] == owed(file)
    assert [0, 1, 2, 3, 4] == pushed(engine, target)
    assert not engine.owing()


def test_exchanges_while_threads_send() -> None:
    """Senders, passes and exchanges at the same time lose and double nothing."""
    calls = [0]

    def flaky(data: list[Any]) -> Verdict:
        calls[0] += 1
        return down()(data) if calls[0] % 5 == 0 else None

    target = FakeTarget(flaky, batch_records=7)
    engine = engine_of(t=target)

    def sender(thread: int) -> Callable[[], None]:
        def job() -> None:
            for i in range(80):
                send(engine, 1000 * thread + i)

        return job

    def exchanger() -> None:
        for _ in range(40):
            engine.keeper.switch(MemorySpool())

    def pusher() -> None:
        for _ in range(40):
            engine.send_unsent(["t"])

    assert [] == in_threads(*(sender(thread) for thread in range(4)), exchanger, pusher)
    pushed(engine, target)
    assert sorted(1000 * thread + i for thread in range(4) for i in range(80)) == sorted(target.got)
    assert not engine.owing()


# --- what an exporter brings along


def test_memory_that_is_brought_is_taken_over() -> None:
    """What an exporter kept in memory is kept by its pool from then on, ids unchanged."""
    desk = Desk()
    brought = MemorySpool()
    keep(brought, 1, 2, lanes=("old",))
    assert desk.keeper.bring(brought, lambda name: "t")
    assert [(brought.run, 1), (brought.run, 2)] == ids(desk.spool)


def test_what_does_not_fit_is_read_in_place() -> None:
    """When the pool has no room for all of it, nothing is lost or doubled: the rest is read where it is."""
    desk = Desk(limit_bytes=ROOM)
    brought = MemorySpool()
    keep(brought, *(f"{i}{BIG}" for i in range(6)))
    assert not desk.keeper.bring(brought, lambda name: name)
    assert list("012345") == [one[0] for spool in (desk.spool, brought) for one in owed(spool)]


def test_what_comes_late_and_finds_no_room_is_counted() -> None:
    """A signal handler's records that find the new place full do not fail the exchange, nor those behind them."""
    desk = Desk(limit_bytes=ROOM)
    fill(desk)
    with desk.keeper._standing_still():
        assert desk.keep(f"late{BIG}")
        assert desk.keep("small")
    assert (["0", "1", "2", "s"], 1) == ([one[0] for one in owed(desk.spool)], desk.lane.dropped)
