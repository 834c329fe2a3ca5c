"""Records that targets refused for good: listed, replayed, exported, dropped, and always accounted for."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.exporters.deadletters import DeadLetter
from resilient_exporters.exporters.spoolletters import SpoolLetters
from resilient_exporters.status import LaneStatus

MakePool = Callable[..., rex.ExporterPool]


class Picky(rex.Exporter):
    """Refuses for good what it is told to, as long as it is told to; keeps batches' ids."""

    def __init__(self, name: str, refuses: Callable[[Any], bool] = lambda data: data % 2 == 1, **options: Any) -> None:
        super().__init__(name=name, **options)
        self.refuses = refuses
        self.up = True
        self.got: list[Any] = []
        self.kwargs: list[dict[str, Any]] = []
        self.ids: list[rex.RecordId] = []
        self.times: list[float] = []

    def export(self, batch: rex.Batch, /, **options: Any) -> None:
        if not self.up:
            raise rex.TargetDown("down")
        bad = {at: f"no room for {record.data!r:.20}" for at, record in enumerate(batch) if self.refuses(record.data)}
        for at, record in enumerate(batch):
            if at not in bad:
                self.got.append(record.data)
                self.kwargs.append(options)
                self.ids.append(record.id)
                self.times.append(record.time)
        if bad:
            raise rex.RecordsRefused(permanent=bad)


def lane(pool: rex.Exporter, at: int = 0) -> LaneStatus:
    return pool.status().exporters[at]


def data_of(letters: Any) -> list[Any]:
    return [letter.data for letter in letters]


@pytest.fixture(params=["memory", "file", "moved"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where a pool keeps things: memory, a file, or a file that was loaded into memory."""
    return {"use_memory": request.param == "memory", "tmp_file": tmp_path / "kept"}


def settle_place(pool: rex.ExporterPool, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["place"] == "moved":
        pool.use_memory = True


def test_a_letter_tells_everything(make_pool: MakePool, place: dict[str, Any]) -> None:
    """A letter has the exporter, id, data, keywords, reason, times and attempts, and cannot be changed."""
    target = Picky("orders")
    before = datetime.now(UTC).timestamp()
    pool = make_pool([target], **place)
    pool.send(3, table="t")
    (letter,) = pool.dead_letters
    assert ("orders", 3, {"table": "t"}, "no room for 3", 1) == (
        letter.exporter,
        letter.data,
        letter.kwargs,
        letter.reason,
        letter.attempts,
    )
    assert before <= letter.accepted <= letter.time <= datetime.now(UTC).timestamp()
    assert isinstance(letter.id, rex.RecordId)
    with pytest.raises(AttributeError):
        letter.reason = "none"  # type: ignore[misc]  # that is the point
    assert 1 == len(pool.dead_letters) == lane(pool).dead


def test_data_is_made_anew(make_pool: MakePool) -> None:
    """What a caller does to the data of a letter does not reach the letter, also where no codec can write it."""
    lock = threading.Lock()
    target = Picky("orders", lambda data: True)
    pool = make_pool([target])
    pool.send({"a": [1]})
    pool.send([lock], k=lock)
    plain, opaque = pool.dead_letters
    plain.data["a"].append(2)
    assert [{"a": [1]}, [lock], lock] == [plain.data, opaque.data, opaque.kwargs["k"]]


def test_replay_sends_again(make_pool: MakePool, place: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Replayed letters go out once, to the same exporter, with their keywords and new ids; accounts stay balanced."""
    target, other = Picky("orders"), Picky("other", lambda data: False)
    pool = make_pool([target, other], **place)
    for number in range(6):
        pool.send(number, table="t")
    settle_place(pool, request)
    old = {letter.id: letter.accepted for letter in pool.dead_letters}
    accepted = lane(pool).accepted
    target.refuses = lambda data: False
    assert 3 == pool.dead_letters.replay()
    assert (3, 0, accepted) == (lane(pool).owed, lane(pool).dead, lane(pool).accepted)
    pool.send_unsent_data()
    assert [0, 2, 4, 1, 3, 5] == target.got
    assert [0, 1, 2, 3, 4, 5] == other.got
    assert [{"table": "t"}] * 6 == target.kwargs
    assert not {*old} & {*target.ids}
    assert [*old.values()] == target.times[3:]
    assert (6, 0, 0, accepted) == (lane(pool).delivered, lane(pool).owed, lane(pool).dead, lane(pool).accepted)
    assert [] == list(pool.dead_letters)
    assert 0 == pool.dead_letters.replay()


def test_replay_may_fail_again(make_pool: MakePool, place: dict[str, Any]) -> None:
    """A replayed record that is refused again is a dead letter again, one, and the accounts stay balanced."""
    target = Picky("orders")
    pool = make_pool([target], **place)
    pool.send(1)
    for _ in range(3):
        assert 1 == pool.dead_letters.replay()
        assert 0 == len(pool.dead_letters)
        pool.send_unsent_data()
        assert [1] == data_of(pool.dead_letters)
        assert (1, 1) == (lane(pool).dead, lane(pool).accepted)


def test_replay_in_the_background(make_pool: MakePool, place: dict[str, Any]) -> None:
    """In background mode replayed records are delivered without another call."""
    target = Picky("orders")
    pool = make_pool([target], None, 2, False, **place)
    for number in range(10):
        pool.send(number)
    assert pool.flush(60)
    target.refuses = lambda data: False
    assert 5 == pool.dead_letters.replay()
    assert pool.flush(60)
    assert sorted(target.got) == list(range(10))
    assert (10, 0) == (lane(pool).delivered, lane(pool).dead)


def test_drop(make_pool: MakePool, place: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Dropped letters are gone, and count as dropped."""
    pool = make_pool([Picky("orders")], **place)
    for number in range(6):
        pool.send(number)
    settle_place(pool, request)
    accepted = lane(pool).accepted
    assert 1 == pool.dead_letters.drop(reason="for 3")
    assert [1, 5] == data_of(pool.dead_letters)
    assert (2, 1, accepted) == (lane(pool).dead, lane(pool).dropped, lane(pool).accepted)
    assert 2 == pool.dead_letters.drop()
    assert 0 == len(pool.dead_letters)
    assert (0, 3, accepted) == (lane(pool).dead, lane(pool).dropped, lane(pool).accepted)


def test_filters(make_pool: MakePool) -> None:
    """By exporter, text of the reason, and time: seconds or datetime, the end not included; all of them must hold."""
    pool = make_pool([Picky("a"), Picky("b")])
    for number in range(4):
        pool.send(number)
    letters = pool.dead_letters
    assert [1, 1, 3, 3] == data_of(letters.list())
    assert [1, 3] == data_of(letters.list(exporter="a"))
    assert [] == data_of(letters.list(exporter="c"))
    assert [3] == data_of(letters.list("b", "for 3"))
    first = letters.list()[0].time
    assert 4 == len(letters.list(since=first))
    assert 0 == len(letters.list(until=first))
    now = datetime.now(UTC)
    assert 4 == len(letters.list(since=now - timedelta(hours=1), until=now + timedelta(hours=1)))
    assert 0 == len(letters.list(since=now + timedelta(hours=1)))
    assert (2, 2) == (letters.drop("a"), len(letters))


def test_export(make_pool: MakePool, tmp_path: Path) -> None:
    """Letters become lines of JSON behind what the file holds; bytes are base64; what has no form says why."""
    target = Picky("orders", lambda data: True)
    pool = make_pool([target])
    pool.send({"when": datetime(2026, 1, 31, tzinfo=UTC), "raw": b"\x00"}, table="t")
    pool.send(object())
    (tmp_path / "out").write_text('{"older":1}\n')
    assert 2 == pool.dead_letters.export(tmp_path / "out")
    older, plain, strange = map(json.loads, (tmp_path / "out").read_text().splitlines())
    assert {"older": 1} == older
    first = pool.dead_letters.list()[0]
    assert {
        "exporter": "orders",
        "id": str(first.id),
        "time": first.time,
        "accepted": first.accepted,
        "attempts": 1,
        "reason": first.reason,
        "kwargs": {"table": "t"},
        "data": {"when": "2026-01-31T00:00:00+00:00", "raw": "AA=="},
    } == plain
    assert "data" not in strange
    assert "object" in strange["error"]
    assert 2 == len(pool.dead_letters)
    assert 1 == pool.dead_letters.export(str(tmp_path / "other"), reason="when")


def test_an_exporter_alone(tmp_path: Path) -> None:
    """An exporter outside any pool has dead letters, too."""
    target = Picky("orders", use_memory=False, tmp_file=tmp_path / "kept")
    target.send(1)
    assert [1] == data_of(target.dead_letters)
    target.refuses = lambda data: False
    assert 1 == target.dead_letters.replay()
    target.send_unsent_data()
    assert [1] == target.got
    target.close()


def test_nested(make_pool: MakePool) -> None:
    """An exporter in a pool shows its own letters, a pool those of all below it; names are those of `status()`."""
    inner = rex.ExporterPool([Picky("a"), Picky("b")], name="inner")
    lonely = Picky("a")
    pool = make_pool([inner, lonely])
    pool.send(1)
    assert ["a", "inner/a", "inner/b"] == sorted(letter.exporter for letter in pool.dead_letters)
    assert ["inner/a", "inner/b"] == [letter.exporter for letter in inner.dead_letters]
    assert ["inner/b"] == [letter.exporter for letter in inner.exporters["b"].dead_letters]
    assert ["a"] == [letter.exporter for letter in lonely.dead_letters]
    assert 2 == pool.dead_letters.drop(exporter="inner")
    assert 1 == lonely.dead_letters.replay()
    assert [0, 0, 0] == [status.dead for status in pool.status().exporters]


def test_restart(make_pool: MakePool, tmp_path: Path) -> None:
    """The next run finds the letters, counts them, and can replay them; those of absent exporters wait for them."""
    place = {"use_memory": False, "tmp_file": tmp_path / "kept"}
    pool = make_pool([Picky("a"), Picky("b")], **place)
    for number in range(4):
        pool.send(number)
    pool.close()
    target = Picky("a", lambda data: False)
    pool = make_pool([target], **place)
    assert (2, 4) == (lane(pool).dead, len(pool.dead_letters))
    assert 1 == pool.dead_letters.drop("b", "for 1")
    assert 3 == pool.dead_letters.replay()
    pool.send_unsent_data()
    assert [1, 3] == target.got
    assert (2, 0, 2) == (lane(pool).delivered, lane(pool).dead, lane(pool).accepted)
    assert ["b"] == [orphan.name for orphan in pool.status().orphans]
    late = Picky("b", lambda data: False)
    pool.add_exporter(late)
    pool.send_unsent_data()
    assert [3] == late.got
    assert (1, 0) == (lane(pool, 1).delivered, lane(pool, 1).dead)


def test_letters_that_an_exporter_brings(make_pool: MakePool, tmp_path: Path) -> None:
    """Letters of an exporter that joins a pool with its own file, and owes something there, come along."""
    target = Picky("own", use_memory=False, tmp_file=tmp_path / "own")
    target.send(1)
    target.up = False
    target.send(2)
    pool = make_pool([target])
    assert (1, 1, 1) == (len(pool.dead_letters), lane(pool).dead, lane(pool).owed)
    assert 1 == pool.dead_letters.replay()
    target.up, target.refuses = True, lambda data: False
    pool.send_unsent_data()
    assert [1, 2] == sorted(target.got)
    assert (0, 0, 2) == (len(pool.dead_letters), lane(pool).dead, lane(pool).delivered)


def test_after_close(make_pool: MakePool) -> None:
    """A closed pool refuses."""
    pool = make_pool([Picky("a")])
    pool.close()
    for call in (pool.dead_letters.list, pool.dead_letters.replay, pool.dead_letters.drop):
        with pytest.raises(rex.PoolClosed):
            call()


def test_two_replays_at_once(make_pool: MakePool, place: dict[str, Any]) -> None:
    """Threads that replay at once send each letter once between them, while others go on sending."""
    target = Picky("orders", lambda data: True)
    pool = make_pool([target], **place)
    for number in range(40):
        pool.send(number)
    target.up = False
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(pool.dead_letters.replay())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (40, 40, 0) == (sum(counts), lane(pool).owed, lane(pool).dead)
    target.up, target.refuses = True, lambda data: False
    assert pool.flush(30)
    assert list(range(40)) == sorted(target.got)


def test_no_room_to_replay(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the policy for a full spool, a letter that cannot be kept stays a letter."""
    for when_full in ("raise", "drop_newest"):
        target = Picky("orders", lambda data: True)
        pool = make_pool([target], limits=rex.Limits(bytes=4000, when_full=when_full))
        pool.send("x" * 2500)
        with caplog.at_level(logging.CRITICAL, "resilient_exporters"), pytest.raises(rex.SpoolFull):
            pool.dead_letters.replay()
        assert (1, 0, 0, 1) == (lane(pool).dead, lane(pool).owed, lane(pool).dropped, len(pool.dead_letters))


def test_from_inside_an_exporter(make_pool: MakePool) -> None:
    """An exporter that drops its own letters while it runs does not wait for itself."""

    class Tidy(Picky):
        def export(self, batch: rex.Batch, /, **options: Any) -> None:
            self.dead_letters.drop()
            super().export(batch, **options)

    pool = make_pool([Tidy("orders")])
    for number in (1, 3, 5):
        pool.send(number)
    assert [5] == data_of(pool.dead_letters)
    assert (1, 2) == (lane(pool).dead, lane(pool).dropped)


@pytest.mark.parametrize("after", ["keep", "sync"])
def test_a_crash_while_replaying_loses_nothing(
    tmp_path: Path, run_script: Callable[..., str], make_pool: MakePool, after: str
) -> None:
    """A kill between keeping and forgetting leaves the record twice, never not at all."""
    place = {"use_memory": False, "tmp_file": tmp_path / "kept"}
    pool = make_pool([Picky("orders")], **place)
    pool.send(1)
    pool.close()
    run_script(
        f"""
        class Down(rex.Exporter):
            def export(self, batch):
                raise rex.TargetDown("down")

        pool = rex.ExporterPool([Down(name="orders")], use_memory=False, tmp_file="kept")
        keeper, spool = pool._rex.engine().keeper, pool._rex.engine().spool
        keep, sync = keeper.keep, spool.sync
        if {after!r} == "keep":
            keeper.keep = lambda *args: (keep(*args), die())
        else:
            spool.sync = lambda: (sync(), die())
        pool.dead_letters.replay()
        """,
        killed=True,
    )
    target = Picky("orders", lambda data: False)
    pool = make_pool([target], **place)
    assert [1] == data_of(pool.dead_letters)
    pool.send_unsent_data()
    assert [1] == target.got


# --- by the path of a spool


def test_by_path(make_pool: MakePool, tmp_path: Path) -> None:
    """Letters of a stopped spool: listed, exported, dropped, and replayed so that the next run delivers them."""
    place = {"use_memory": False, "tmp_file": tmp_path / "kept"}
    pool = make_pool([Picky("a")], **place)
    for number in range(8):
        pool.send(number, table="t")
    live = list(pool.dead_letters)
    letters = SpoolLetters(tmp_path / "kept")
    assert live == list(letters)
    assert data_of(live) == data_of(letters) == [1, 3, 5, 7]
    for change in (letters.replay, letters.drop):
        with pytest.raises(rex.SpoolInUse):
            change()
    pool.close()
    assert (1, 4) == (letters.export(tmp_path / "out", reason="for 5"), len(letters))
    assert (1, 2) == (letters.drop(reason="for 5"), letters.replay(since=live[2].time, reason="for 7") + 1)
    assert [1, 3] == data_of(letters)
    target = Picky("a", lambda data: False)
    pool = make_pool([target], **place)
    pool.send_unsent_data()
    assert ([7], [{"table": "t"}], 2) == (target.got, target.kwargs, lane(pool).dead)


def test_by_path_of_nothing(tmp_path: Path) -> None:
    """A path without a spool is refused, and nothing is made there."""
    for use in (SpoolLetters(tmp_path / "none").list, SpoolLetters(tmp_path / "none").drop):
        with pytest.raises(rex.InvalidConfigError):
            use()
    assert [] == list(tmp_path.iterdir())


def test_letters_are_equal_by_value(make_pool: MakePool) -> None:
    """Two lists of the same letters are equal, and show no data in their repr."""
    pool = make_pool([Picky("a")])
    pool.send(1)
    first, again = pool.dead_letters.list(), pool.dead_letters.list()
    assert first == again
    assert isinstance(first[0], DeadLetter)
    assert "payload" not in repr(first[0])
