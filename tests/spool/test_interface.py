"""One suite for every spool: whatever is done to it, it holds what a ten-line model holds."""

from __future__ import annotations

import io
import itertools
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resilient_exporters.exceptions import PoolClosed
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Slice, Spool, SpoolMoving
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.spool.stream import StreamSpool
from tests.counts import EXAMPLES, SIGNALS
from tests.spool.interruptions import at_line

LANES = ("a", "b", "c")
EVERYTHING = 1 << 30

Opener = Callable[[], Spool]
"""Opens the spool; called again after `close` it opens the same one."""


@contextmanager
def memory() -> Iterator[Opener]:
    yield MemorySpool


@contextmanager
def in_file() -> Iterator[Opener]:
    with tempfile.TemporaryDirectory() as folder:
        yield lambda: FileSpool(Path(folder) / "spool", segment_size=1000)


@contextmanager
def in_bytes() -> Iterator[Opener]:
    file = io.BytesIO()
    yield lambda: StreamSpool(file)


@contextmanager
def in_temporary_file() -> Iterator[Opener]:
    with tempfile.TemporaryFile() as file:
        yield lambda: StreamSpool(file)


KINDS = {"memory": memory, "file": in_file, "bytes": in_bytes, "temporary file": in_temporary_file}
LASTING = {name: kind for name, kind in KINDS.items() if kind is not memory}


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Opens one of all spools."""
    with KINDS[request.param]() as opener:
        yield opener


@pytest.fixture(params=LASTING)
def lasting(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Opens one of the spools that outlive their `close`."""
    with LASTING[request.param]() as opener:
        yield opener


@dataclass
class Kept:
    """A record as the model knows it."""

    payload: bytes
    run: int
    number: int
    time: float
    options: bytes
    flags: int
    expires: float
    lanes: set[str]


@dataclass
class Model:
    """What a spool holds."""

    records: list[Kept] = field(default_factory=list)
    dead: list[tuple[str, bytes, str, int]] = field(default_factory=list)

    def owed(self, lane: str) -> list[Kept]:
        return [record for record in self.records if lane in record.lanes]

    def account(self, lane: str) -> tuple[int, int, float | None]:
        owed = self.owed(lane)
        return len(owed), sum(len(record.payload) for record in owed), owed[0].time if owed else None


def slices(spool: Spool, lane: str, records: int = 1000, size: int = EVERYTHING) -> Iterator[Slice]:
    """All that a lane owes, in slices."""
    after = 0
    while part := spool.read(lane, after, records, size):
        after = part.places[-1]
        yield part


def rows(part: Slice) -> list[tuple[Any, ...]]:
    """A slice record by record, without the places."""
    columns = zip(part.numbers, part.times, part.payloads, strict=True)
    return [(part.run, number, time, payload, part.options, part.flags) for number, time, payload in columns]


def held(spool: Spool, lane: str) -> list[tuple[Any, ...]]:
    return [row for part in slices(spool, lane) for row in rows(part)]


def expected(records: list[Kept]) -> list[tuple[Any, ...]]:
    return [(kept.run, kept.number, kept.time, kept.payload, kept.options, kept.flags) for kept in records]


class SpoolMachine(RuleBasedStateMachine):
    """Does the same to a spool and to the model."""

    def __init__(self, kind: Callable[[], AbstractContextManager[Opener]], *, lasting: bool) -> None:
        super().__init__()
        self.lasting = lasting
        self.context = kind()
        self.opener = self.context.__enter__()

    @initialize()
    def open(self) -> None:
        self.spool = self.opener()
        self.model = Model()
        self.next = 1
        self.clock = 100.0

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
        self.context.__exit__(None, None, None)

    @rule(
        payloads=st.lists(st.binary(max_size=40), min_size=1, max_size=5),
        lanes=st.sets(st.sampled_from(LANES), min_size=1),
        options=st.sampled_from([b"", b"", b"table"]),
        flags=st.sampled_from([0, 0, 1]),
        expires=st.sampled_from([0.0, 0.0, 10.0, 20.0]),
        foreign=st.sampled_from([None, None, None, 7, 2**64 - 1]),
        first=st.integers(1, 2**40),
        drawn=st.booleans(),
        sync=st.booleans(),
    )
    def append(
        self, payloads: list[bytes], lanes: set[str], options: bytes, flags: int, expires: float,
        foreign: int | None, first: int, drawn: bool, sync: bool,
    ) -> None:  # fmt: skip
        """Keep records of this run or another one, with numbers drawn by the spool or by the caller."""
        self.clock += 0.25
        number: int | None = first
        if foreign is None:
            number = None
            if drawn:
                number = self.spool.draw()
                assert number == self.next
                payloads = payloads[:1]
            first = self.next
            self.next += len(payloads)
        self.spool.append(
            payloads, frozenset(lanes), time=self.clock, first=number, run=foreign, options=options,
            flags=flags, expires=expires, sync=sync,
        )  # fmt: skip
        run = self.spool.run if foreign is None else foreign
        for index, payload in enumerate(payloads):
            self.model.records.append(
                Kept(payload, run, first + index, self.clock, options, flags, expires, set(lanes))
            )

    @rule(payload=st.binary(max_size=40), lanes=st.sets(st.sampled_from(LANES), min_size=1))
    def append_one(self, payload: bytes, lanes: set[str]) -> None:
        """The quick way keeps a record as the long one does, or has done nothing."""
        self.clock += 0.25
        if not self.spool.append_one(payload, frozenset(lanes), self.clock):
            self.spool.append([payload], frozenset(lanes), time=self.clock)
        self.model.records.append(Kept(payload, self.spool.run, self.next, self.clock, b"", 0, 0.0, set(lanes)))
        self.next += 1

    @rule(lane=st.sampled_from(LANES), records=st.integers(1, 6), size=st.integers(1, 100), skip=st.integers(0, 3))
    def read(self, lane: str, records: int, size: int, skip: int) -> None:
        """A slice is no longer than asked for, or than its size allows, nor goes across a change of options, life."""
        places = [place for part in slices(self.spool, lane) for place in part.places]
        after = ([0, *places])[min(skip, len(places))]
        part = self.spool.read(lane, after, records, size)
        owed = self.model.owed(lane)[min(skip, len(places)) :]
        wanted: list[Kept] = []
        for record in owed[:records]:
            if wanted and (record.run, record.options, record.flags, record.expires) != (
                wanted[0].run, wanted[0].options, wanted[0].flags, wanted[0].expires,
            ):  # fmt: skip
                break
            wanted.append(record)
            if sum(len(record.payload) for record in wanted) >= size:
                break
        assert (part is None) == (not wanted)
        assert (rows(part) if part else []) == expected(wanted[: len(part) if part else 0])
        assert part is None or part.expires == wanted[0].expires

    def picked(self, lane: str, picks: set[int]) -> list[tuple[Slice, int, Kept]]:
        """Some records that a lane owes: slice, index in it, the model's record."""
        owed = iter(self.model.owed(lane))
        all_of_it = [(part, index, next(owed)) for part in slices(self.spool, lane) for index in range(len(part))]
        return [each for number, each in enumerate(all_of_it) if number in picks]

    @rule(
        lane=st.sampled_from(LANES), picks=st.sets(st.integers(0, 20)), fate=st.sampled_from(Fate), again=st.booleans()
    )  # fmt: skip
    def settle(self, lane: str, picks: set[int], fate: Fate, again: bool) -> None:
        """Settle any records of a lane; a second time, and for places nobody owes, nothing happens."""
        picked = self.picked(lane, picks)
        places = [part.places[index] for part, index, _ in picked]
        self.spool.settle(lane, places, fate)
        if again:
            self.spool.settle(lane, places, Fate.DROPPED)
            self.spool.settle(lane, [10**9], fate)
        for _, _, record in picked:
            record.lanes.discard(lane)

    @rule(lane=st.sampled_from(LANES), count=st.integers(1, 50))
    def settle_first(self, lane: str, count: int) -> None:
        """Settle the oldest records, as a lane does."""
        for _, _, record in self.picked(lane, set(range(count))):
            record.lanes.discard(lane)
        for part in list(slices(self.spool, lane)):
            self.spool.settle(lane, part.places[:count], Fate.DELIVERED)
            count -= min(count, len(part))
            if not count:
                break

    @rule(lane=st.sampled_from(LANES), picks=st.sets(st.integers(0, 8)), attempts=st.integers(1, 1000))
    def bury(self, lane: str, picks: set[int], attempts: int) -> None:
        """Records become dead letters, with their data; their lane owes them no longer."""
        for part, index, record in self.picked(lane, picks):
            self.spool.bury(lane, part, {index: f"reason {index} é"}, attempts)
            record.lanes.discard(lane)
            self.model.dead.append((lane, record.payload, f"reason {index} é", attempts))

    @rule(picks=st.sets(st.integers(0, 8), min_size=1))
    def forget(self, picks: set[int]) -> None:
        """Dead letters are dropped by key; unknown keys are ignored."""
        letters = list(self.spool.dead_letters())
        self.spool.forget_dead([*(letters[pick].key for pick in picks if pick < len(letters)), 10**9])
        self.model.dead = [letter for index, letter in enumerate(self.model.dead) if index not in picks]

    @rule(now=st.sampled_from([5.0, 15.0, 25.0]))
    def expire(self, now: float) -> None:
        """Records whose time is over are owed by nobody any more, the others still are."""
        lost: dict[str, int] = {}
        for record in self.model.records:
            if 0 < record.expires < now:
                for lane in record.lanes:
                    lost[lane] = lost.get(lane, 0) + 1
                record.lanes.clear()
        assert {lane: count for lane, count in self.spool.expire(now).items() if count} == lost

    @precondition(lambda self: len(self.model.records) > 5)
    @rule(size=st.integers(1, 300))
    def drop_oldest(self, size: int) -> None:
        """The oldest records go, for all lanes, and their number is told."""
        dropped = {lane: count for lane, count in self.spool.drop_oldest(size).items() if count}
        gone: dict[str, int] = {}
        for record in self.model.records:
            if gone == dropped:
                break
            for lane in record.lanes:
                gone[lane] = gone.get(lane, 0) + 1
            record.lanes.clear()
        assert gone == dropped

    @rule()
    def sync(self) -> None:
        self.spool.sync()

    @rule(lanes=st.sets(st.sampled_from(LANES), min_size=1), batches=st.lists(st.integers(1, 3), max_size=6))
    def undo(self, lanes: set[str], batches: list[int]) -> None:
        """Appends that are taken back leave nothing behind; their numbers are gone, their places are not."""
        place = self.spool.next_place
        self.spool.mark()
        for size in batches:
            self.spool.append([b"undone" * 9] * size, frozenset(lanes), time=1.0)
        assert self.spool.next_place == place + sum(batches)
        self.spool.undo_appends()
        self.spool.undo_appends()
        assert self.spool.next_place == place
        self.next += sum(batches)

    @precondition(lambda self: self.lasting)
    @rule(twice=st.booleans())
    def reopen(self, twice: bool) -> None:
        """What was kept is there when the spool is opened again, under a new run."""
        before = self.spool.run
        self.spool.close()
        if twice:
            self.spool.close()
        self.spool = self.opener()
        assert self.spool.run != before
        self.next = 1

    @invariant()
    def the_spool_holds_what_the_model_holds(self) -> None:
        for lane in LANES:
            assert held(self.spool, lane) == expected(self.model.owed(lane))

    @invariant()
    def accounts_are_right(self) -> None:
        for lane in LANES:
            assert tuple(self.spool.account(lane)) == self.model.account(lane)
        assert set(self.spool.owing()) == {lane for lane in LANES if self.model.owed(lane)}

    @invariant()
    def dead_letters_are_right(self) -> None:
        letters = list(self.spool.dead_letters())
        assert [(each.lane, each.payload, each.reason, each.attempts) for each in letters] == self.model.dead
        assert len({each.key for each in letters}) == len(letters)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spool_does_what_the_model_does(kind: str) -> None:
    """Append, read, settle, bury, forget, expire, drop and reopen in any order: nothing lost, nothing invented."""

    class Machine(SpoolMachine):
        def __init__(self) -> None:
            super().__init__(KINDS[kind], lasting=kind in LASTING)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_an_empty_spool_owes_nothing(opener: Opener) -> None:
    """A new spool answers every question, for lanes that it has never heard of, too."""
    spool = opener()
    assert spool.read("a", 0, 10, 1000) is None
    assert tuple(spool.account("a")) == (0, 0, None)
    assert spool.owing() == ()
    assert list(spool.dead_letters()) == []
    assert spool.expire(1e12) == {}
    assert spool.drop_oldest(1000) == {}
    spool.settle("a", [1, 2, 3], Fate.DELIVERED)
    spool.forget_dead([1])
    spool.sync()
    spool.close()


def test_a_read_from_any_place_finds_what_is_above_it(opener: Opener) -> None:
    """`after` may be any place, also one that the lane does not owe or that is settled."""
    spool = opener()
    for number in range(12):
        spool.append([b"%d" % number], frozenset("ab" if number % 3 else "b"), time=1.0)
    everything = spool.read("b", 0, 100, EVERYTHING)
    assert everything is not None
    places = everything.places
    spool.settle("b", places[3:6], Fate.DELIVERED)
    for at, place in enumerate(places):
        part = spool.read("b", place, 100, EVERYTHING)
        rest = [index for index in range(at + 1, 12) if not 3 <= index < 6]
        assert (part.payloads if part else []) == [b"%d" % index for index in rest]
        part = spool.read("a", place, 100, EVERYTHING)
        assert (part.payloads if part else []) == [b"%d" % index for index in range(at + 1, 12) if index % 3]
    spool.close()


def test_a_slice_is_the_readers_own(opener: Opener) -> None:
    """Changing a slice changes nothing in the spool."""
    spool = opener()
    spool.append([b"1", b"2"], frozenset("a"), time=1.0)
    part = spool.read("a", 0, 10, EVERYTHING)
    assert part is not None
    part.payloads.clear()
    part.places[:] = [77, 88]
    again = spool.read("a", 0, 10, EVERYTHING)
    assert again is not None
    assert again.payloads == [b"1", b"2"]
    spool.close()


def test_big_payloads_and_big_batches(opener: Opener) -> None:
    """Payloads of every size and batches of thousands come back as they were, in order."""
    spool = opener()
    payloads = [bytes([size % 251]) * size for size in (0, 1, 255, 256, 65535, 65536, 70000, 3)]
    spool.append(payloads, frozenset("a"), time=1.0, options=b"o" * 300)
    spool.append([b"%d" % number for number in range(5000)], frozenset("a"), time=2.0)
    found = [payload for part in slices(spool, "a") for payload in part.payloads]
    assert found == [*payloads, *(b"%d" % number for number in range(5000))]
    spool.close()


def test_a_letter_tells_the_whole_record(opener: Opener) -> None:
    """A dead letter has the id, the times, the options and the flags of its record."""
    spool = opener()
    spool.append([b"1", b"2"], frozenset("ab"), time=123.5, first=40, run=9, options=b"table", flags=1)
    part = spool.read("a", 0, 10, EVERYTHING)
    assert part is not None
    spool.bury("a", part, {1: "too long"}, 3)
    (letter,) = spool.dead_letters()
    assert letter[1:5] == ("a", 9, 41, 123.5)
    assert letter.died > 1.6e9
    assert letter[6:] == (3, "too long", b"table", 1, b"2")
    assert spool.account("a").records == 1
    assert spool.account("b").records == 2
    spool.close()


def test_a_record_is_buried_once(opener: Opener) -> None:
    """Burying what the lane does not owe any more makes no second letter."""
    spool = opener()
    spool.append([b"1"], frozenset("a"), time=1.0)
    part = spool.read("a", 0, 10, EVERYTHING)
    assert part is not None
    spool.bury("a", part, {0: "no"}, 1)
    spool.bury("a", part, {0: "no"}, 2)
    assert [letter.attempts for letter in spool.dead_letters()] == [1]
    spool.close()


def test_what_is_owed_takes_room_and_what_is_settled_gives_it_back(opener: Opener) -> None:
    """`size` grows with what is kept and falls when it is settled and its letters are forgotten."""
    spool = opener()
    for _ in range(50):
        spool.append([b"x" * 100], frozenset("a"), time=1.0)
    full = spool.size()
    assert full >= 5000
    for part in list(slices(spool, "a")):
        spool.settle("a", part.places, Fate.DELIVERED)
    assert spool.size() < full / 2
    spool.close()


def test_a_closed_spool_takes_nothing(opener: Opener) -> None:
    """After `close` nothing can be kept or read; a second `close` does nothing."""
    spool = opener()
    spool.append([b"1"], frozenset("a"), time=1.0)
    spool.close()
    spool.close()
    with pytest.raises(PoolClosed):
        spool.append([b"2"], frozenset("a"), time=1.0)
    with pytest.raises(PoolClosed):
        spool.read("a", 0, 1, 1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_append_inside_an_append_is_kept(kind: str, fresh: bool, batch: int) -> None:
    """A signal handler may append before every single line of an append: both are kept, once, in one of two orders."""
    line, reached = 0, True
    while reached:
        with KINDS[kind]() as opener:
            spool = opener()
            before = [] if fresh else [b"before"]
            for payload in before:
                spool.append([payload], frozenset("a"), time=1.0)
            reached = at_line(
                line,
                type(spool).append.__code__,
                lambda spool=spool: spool.append([b"inner"], frozenset("a"), time=3.0),  # type: ignore[misc]
                lambda spool=spool: spool.append([b"outer"] * batch, frozenset("a"), time=2.0),  # type: ignore[misc]
            )
            found = [row[3] for row in held(spool, "a")]
            outer, inner = [b"outer"] * batch, [b"inner"] * reached
            assert found in ([*before, *outer, *inner], [*before, *inner, *outer])
            assert spool.account("a").records == len(found)
            spool.close()
            if kind in LASTING:
                spool = opener()
                assert [row[3] for row in held(spool, "a")] == found
                spool.close()
        line += 1
    assert line > 10


@pytest.mark.parametrize("kind", KINDS)
def test_an_append_inside_the_quick_way_is_kept(kind: str) -> None:
    """A signal handler may append before every single line of the quick way: both are kept, once."""
    lanes, line, reached = frozenset("a"), 0, True
    while reached:
        with KINDS[kind]() as opener:
            spool = opener()
            spool.append([b"before"], lanes, time=1.0)

            def outer(spool: Spool = spool) -> None:
                if not spool.append_one(b"outer", lanes, 2.0):
                    spool.append([b"outer"], lanes, time=2.0)

            reached = at_line(
                line,
                type(spool).append_one.__code__,
                lambda spool=spool: spool.append([b"inner"], lanes, time=3.0),  # type: ignore[misc]
                outer,
            )
            found = [row[3] for row in held(spool, "a")]
            assert sorted(found) == sorted([b"before", b"outer", *[b"inner"] * reached])
            assert found[0] == b"before"
            assert spool.account("a").records == len(found)
            spool.close()
        line += 1
    assert line > 10


@pytest.mark.parametrize("kind", KINDS)
def test_an_append_inside_anything_else_is_kept(kind: str) -> None:
    """A signal handler may append before every single line of a read, a settle or a bury, too."""

    def settle(spool: Spool, part: Slice) -> None:
        spool.settle("a", [part.places[0], part.places[2]], Fate.DELIVERED)

    def bury(spool: Spool, part: Slice) -> None:
        spool.bury("a", part, {0: "refused", 2: "refused"}, 1)

    def read(spool: Spool, part: Slice) -> None:
        again = spool.read("a", 0, 10, EVERYTHING)
        assert again is not None
        assert again.payloads[:3] == [b"1", b"2", b"3"]

    for work, left in ((settle, [b"2"]), (bury, [b"2"]), (read, [b"1", b"2", b"3"])):
        line, reached = 0, True
        while reached:
            with KINDS[kind]() as opener:
                spool = opener()
                spool.append([b"1", b"2", b"3"], frozenset("ab"), time=1.0)
                part = spool.read("a", 0, 10, EVERYTHING)
                assert part is not None
                reached = at_line(
                    line,
                    getattr(type(spool), work.__name__).__code__,
                    lambda spool=spool: spool.append([b"inner"], frozenset("ab"), time=3.0),  # type: ignore[misc]
                    lambda spool=spool, part=part, work=work: work(spool, part),  # type: ignore[misc]
                )
                assert [row[3] for row in held(spool, "a")] == [*left, *[b"inner"] * reached]
                assert [row[3] for row in held(spool, "b")] == [b"1", b"2", b"3", *[b"inner"] * reached]
                assert spool.account("a").records == len(left) + reached
                assert spool.account("b").records == 3 + reached
                spool.close()
            line += 1
        assert line > 5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("reading", [False, True])
def test_appends_from_real_signal_handlers_are_kept(opener: Opener, reading: bool) -> None:
    """Signals that append while the main thread appends, beside a thread that delivers: nothing is lost or doubled."""
    spool = opener()
    inner, outer, delivered = itertools.count(), 0, list[Any]()
    signalled: list[int] = []
    finished = threading.Event()

    def handler(*_: object) -> None:
        number = next(inner)  # handlers interrupt each other, too
        spool.append([b"inner %d" % number], frozenset("a"), time=1.0)
        signalled.append(number)

    def deliver() -> None:
        over = False
        while not over:
            over = finished.is_set()
            while part := spool.read("a", 0, 50, 1000):
                over = False
                delivered.extend(part.payloads)
                spool.settle("a", part.places, Fate.DELIVERED)

    reader = threading.Thread(target=deliver)
    if reading:
        reader.start()
    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(signalled) < SIGNALS:
            outer += 1
            spool.append([b"outer %d" % outer], frozenset("a"), time=1.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        finished.set()
        if reading:
            reader.join()
    assert spool.account("a").records == (0 if reading else len(signalled) + outer)
    found = delivered if reading else [row[3] for row in held(spool, "a")]
    wanted = [b"inner %d" % number for number in signalled]
    wanted += [b"outer %d" % number for number in range(1, outer + 1)]
    assert sorted(found) == sorted(wanted)
    spool.close()


def test_a_frozen_spool_is_read_and_settled_only(opener: Opener) -> None:
    """While frozen a spool takes no appends and says so; reading and settling go on; thawed, it takes them again."""
    spool = opener()
    spool.append([b"1", b"2"], frozenset("a"), time=1.0)
    spool.freeze()
    with pytest.raises(SpoolMoving):
        spool.append([b"3"], frozenset("a"), time=1.0)
    part = spool.read("a", 0, 1, EVERYTHING)
    assert part is not None
    spool.settle("a", part.places, Fate.DELIVERED)
    spool.thaw()
    spool.append([b"4"], frozenset("a"), time=1.0)
    assert [row[3] for row in held(spool, "a")] == [b"2", b"4"]
    spool.close()


def test_records_outlive_the_spool(lasting: Opener) -> None:
    """What was kept, settled and buried is the same after opening again."""
    spool = lasting()
    for number in range(40):
        spool.append([b"%d" % number], frozenset("ab"), time=float(number))
    part = next(slices(spool, "a"))
    spool.settle("a", part.places[:10], Fate.DELIVERED)
    spool.bury("a", part, {20: "no"}, 1)
    spool.close()
    spool = lasting()
    assert [row[3] for row in held(spool, "a")] == [b"%d" % number for number in range(10, 40) if number != 20]
    assert [row[3] for row in held(spool, "b")] == [b"%d" % number for number in range(40)]
    assert [letter.payload for letter in spool.dead_letters()] == [b"20"]
    spool.close()


def test_a_spool_that_was_dropped_is_not_in_the_way(lasting: Opener) -> None:
    """Dropping the last reference lets go of the file; nothing that was kept is lost."""
    spool: Spool | None = lasting()
    assert spool is not None
    spool.append([b"1"], frozenset("a"), time=1.0)
    spool = None
    again = lasting()
    assert [row[3] for row in held(again, "a")] == [b"1"]
    again.close()


def test_no_two_openings_share_a_run(opener: Opener) -> None:
    """The run is drawn at every opening, so that ids never repeat."""
    runs = set()
    for _ in range(5):
        spool = opener()
        runs.add(spool.run)
        assert 0 <= spool.run < 2**64
        spool.close()
    assert len(runs) == 5
