"""After a power cut at any moment, whatever the disk kept of what was not synced: nothing promised is lost."""

from __future__ import annotations

import errno
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, product

import pytest

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Payload, Slice
from resilient_exporters.testing.tornfiles import TornFiles

STATES = int(os.environ.get("CI_STATES", "1500"))
PATH = "/disk/spool"
SEGMENT = 700  # bytes; a few records, so that segments are sealed and deleted all the time
PAGE = 256  # bytes; most frames lie across two pages
LANES = ("a", "b")

Id = tuple[int, int]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Damage is reported in the log, here thousands of times."""
    caplog.set_level(logging.CRITICAL, logger="resilient_exporters")


def open_spool(files: TornFiles) -> FileSpool:
    return FileSpool(PATH, files=files, segment_size=SEGMENT)


@dataclass
class Kept:
    """A record that was appended; moments are numbers of file operations."""

    id: Id
    payload: bytes
    lanes: frozenset[str]
    begun: int
    done: int | None = None
    synced: int | None = None
    undone: int | None = None
    settling: dict[str, int] = field(default_factory=dict)
    burying: dict[str, int] = field(default_factory=dict)


class History:
    """Works on a spool and notes from which moment on what must, and what may, be there.

    Steps may fail with SpoolError when calls of `files` are made to fail: then they promise nothing.
    """

    def __init__(self, files: TornFiles) -> None:
        self.files = files
        self.spool = open_spool(files)
        self.records: list[Kept] = []
        self.serial = 0

    def append(self, count: int, size: int, lanes: str, *, sync: bool, expires: float = 0.0) -> None:
        first = self.spool.draw()
        for _ in range(1, count):
            self.spool.draw()
        added = []
        for number in range(first, first + count):
            self.serial += 1
            payload = b"%d " % self.serial * (1 + size // 4)
            added.append(Kept((self.spool.run, number), payload, frozenset(lanes), self.files.operations))
        self.records += added
        self.spool.append(
            [record.payload for record in added], frozenset(lanes), time=1.0, first=first, sync=sync, expires=expires
        )
        for record in added:
            record.done = self.files.operations
            record.synced = record.done if sync else None

    def append_and_undo(self, count: int, *, sync: bool) -> None:
        """Take appends back before anybody relies on them."""
        before = len(self.records)
        self.spool.mark()
        for _ in range(count):
            self.append(2, 100, "ab", sync=sync)
        undone = self.records[before:]
        for record in undone:
            record.done = record.synced = None
        self.spool.undo_appends()
        for record in undone:
            record.undone = self.files.operations

    def settle(self, lane: str, skip: int, count: int, *, bury: bool = False) -> None:
        """Settle or bury some of what a lane owes."""
        for part in list(slices(self.spool, lane)):
            chosen = range(skip, min(skip + count, len(part)))
            skip, count = max(0, skip - len(part)), count - len(chosen)
            for at in chosen:
                record = self.record((part.run, part.numbers[at]))
                (record.burying if bury else record.settling)[lane] = self.files.operations
            if chosen and bury:
                self.spool.bury(lane, part, dict.fromkeys(chosen, "refused"), 1)
            elif chosen:
                self.spool.settle(lane, [part.places[at] for at in chosen], Fate.DELIVERED)

    def settle_all(self) -> None:
        for lane in LANES:
            self.settle(lane, 0, 1000)

    def drop(self, do: Callable[[], object]) -> None:
        """Let the spool drop records, and see which."""
        marked = []
        for record in self.records:  # until it is known which, any of them
            for lane in record.lanes - set(record.settling):
                record.settling[lane] = self.files.operations
                marked.append((record.id, lane))
        do()
        still = {(id, lane) for lane in LANES for id, _ in held(self.spool, lane)}
        for id, lane in still.intersection(marked):
            del self.record(id).settling[lane]

    def forget(self) -> None:
        letters = list(self.spool.dead_letters())[:1]
        for letter in letters:
            self.record((letter.run, letter.number)).settling[letter.lane] = self.files.operations
        self.spool.forget_dead([letter.key for letter in letters])

    def sync(self) -> None:
        self.spool.sync()
        for record in self.records:
            if record.synced is None and record.done is not None:
                record.synced = self.files.operations

    def reopen(self) -> None:
        if self.files.spoiled:
            return  # a failed sync whose data could not be written again yet: only the open spool knows of it
        self.spool.close()
        self.spool = open_spool(self.files)

    def record(self, id: Id) -> Kept:
        return next(record for record in self.records if record.id == id)

    def check(self, state: TornFiles, cut: int, *, killed: bool = False) -> None:
        """Open what a power cut, or only a kill, left after `cut` operations, and go on working with it."""
        spool = open_spool(state)
        try:
            order = {record.id: at for at, record in enumerate(self.records)}
            letters = {(letter.lane, letter.run, letter.number): letter.payload for letter in spool.dead_letters()}
            for lane in LANES:
                found = held(spool, lane)
                ids = [id for id, _ in found]
                assert spool.account(lane).records == len(found)
                assert spool.account(lane).bytes == sum(len(payload) for _, payload in found)
                assert ids == sorted(set(ids), key=order.__getitem__), "in order, and each once"
                for id, payload in found:
                    record = self.records[order[id]]
                    assert payload == record.payload
                    assert lane in record.lanes
                    assert record.begun <= cut
                    assert not (killed and record.undone is not None and record.undone <= cut), "undone"
                self.nothing_lost(lane, cut, set(ids), letters, killed)
            self.go_on(spool, state)
        finally:
            spool.close()

    def nothing_lost(
        self, lane: str, cut: int, owed: set[Id], letters: dict[tuple[str, int, int], Payload], killed: bool
    ) -> None:
        """What was promised before the cut, and not settled before it, is owed or a dead letter."""
        for record in self.records:
            promised = record.done if killed else record.synced
            if promised is None or promised > cut or lane not in record.lanes:
                continue
            if record.settling.get(lane, cut) < cut:
                continue
            letter = letters.get((lane, *record.id))
            assert letter in (None, record.payload)
            buried = record.burying.get(lane, cut) < cut and letter is not None
            assert record.id in owed or buried, f"lost for {lane}: {record}"

    @staticmethod
    def go_on(spool: FileSpool, state: TornFiles) -> None:
        before = {lane: held(spool, lane) for lane in LANES}
        spool.append([b"new"], frozenset(LANES), time=1.0, sync=True)
        new = (spool.run, 1)
        for lane in LANES:
            assert held(spool, lane) == [*before[lane], (new, b"new")]
        part = next(slices(spool, "a"))
        spool.settle("a", part.places, Fate.DELIVERED)
        spool.close()
        again = open_spool(state)
        assert [*before["a"], (new, b"new")][len(part) :] == held(again, "a")
        assert held(again, "b") == [*before["b"], (new, b"new")]
        again.close()


def slices(spool: FileSpool, lane: str) -> Iterator[Slice]:
    after = 0
    while part := spool.read(lane, after, 100, 1 << 20):
        after = part.places[-1]
        yield part


def held(spool: FileSpool, lane: str) -> list[tuple[Id, bytes]]:
    """Ids and payloads of all that a lane owes, in order."""
    return [
        ((part.run, number), payload)
        for part in slices(spool, lane)
        for number, payload in zip(part.numbers, part.payloads, strict=True)
        if isinstance(payload, bytes)
    ]


STEPS: dict[str, Callable[[History], object]] = {
    "append": lambda history: history.append(1, 20, "a", sync=False),
    "append batch": lambda history: history.append(3, 40, "ab", sync=False),
    "append synced": lambda history: history.append(2, 20, "ab", sync=True),
    "append and rotate": lambda history: history.append(1, SEGMENT, "ab", sync=True),
    "settle": lambda history: history.settle("a", 0, 1),
    "settle all": lambda history: history.settle_all(),
    "bury": lambda history: history.settle("a", 0, 1, bury=True),
    "undo": lambda history: history.append_and_undo(1, sync=False),
    "sync": lambda history: history.sync(),
    "reopen": lambda history: history.reopen(),
}


@pytest.mark.parametrize("first", STEPS)
def test_all_short_histories(first: str) -> None:
    """Every sequence of up to three steps, cut before every sync and at the end, in every state the disk may be in."""
    most = max(2, STATES // 250)
    for names in product([first], STEPS, STEPS):
        history = History(TornFiles(page=PAGE))
        for name in names:
            STEPS[name](history)
        for cut in history.files.cuts():
            for state in some(history.files, cut, most, "".join(names)):
                history.check(state, cut)
        history.spool.close()


def some(files: TornFiles, cut: int, most: int, seed: str) -> Iterator[TornFiles]:
    """All states after a cut if there are at most so many; else some of them, drawn at random."""
    states = list(islice(files.states(cut), most + 1))
    if len(states) <= most:
        yield from states
        return
    rng = random.Random(f"{seed} {cut}")
    for _ in range(most):
        yield files.random_state(rng, cut)


def random_step(history: History, rng: random.Random) -> None:
    """Any step, with records and batches of many sizes."""
    match rng.randrange(16):
        case 0 | 1 | 2:
            expires = rng.choice([0.0, 0.0, 10.0])
            lanes = rng.choice(["a", "b", "ab"])
            history.append(1, rng.randrange(60), lanes, sync=rng.random() < 0.3, expires=expires)
        case 3 | 4 | 5:
            size = rng.choice([10, 100, SEGMENT])
            history.append(rng.randint(1, 8), size, rng.choice(["a", "ab"]), sync=rng.random() < 0.5)
        case 6 | 7 | 8:
            history.settle(rng.choice(LANES), rng.choice([0, 0, 1, 3]), rng.choice([1, 2, 5, 100]))
        case 9:
            history.settle(rng.choice(LANES), rng.choice([0, 2]), 1, bury=True)
        case 10:
            history.sync()
        case 11:
            history.reopen()
        case 12:
            history.settle_all()
        case 13:
            history.append_and_undo(rng.randint(1, 4), sync=rng.random() < 0.2)
        case 14:
            history.forget()
        case _ if rng.random() < 0.5:
            history.drop(lambda: history.spool.expire(20.0))
        case _:
            history.drop(lambda: history.spool.drop_oldest(rng.choice([1, 500])))


def random_history(rng: random.Random, steps: int) -> History:
    history = History(TornFiles(page=rng.choice([64, 256, 4096])))
    for _ in range(steps):
        random_step(history, rng)
    return history


def troubled_history(rng: random.Random, steps: int) -> History:
    """Any steps, while calls fail now and then; at last all is well, and synced."""
    history = History(TornFiles(page=rng.choice([64, 256, 4096])))
    files = history.files
    for _ in range(steps):
        if rng.random() < 0.5:
            error = rng.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT, 0])
            files.fail_at(len(files.calls) + rng.randrange(15), error, taken=rng.choice([None, 1, 20]))
        with suppress(SpoolError):
            random_step(history, rng)
    files.heal()
    history.sync()
    return history


@pytest.mark.parametrize("block", range(10))
def test_random_long_histories(block: int) -> None:
    """Long histories of any steps, cut anywhere, in any state, sometimes once more while the spool is opened again."""
    for seed in range(block, STATES // 10, 10):
        rng = random.Random(seed)
        history = random_history(rng, rng.choice([5, 10, 30]))
        for _ in range(10):
            cut = rng.choice([rng.randint(0, history.files.operations), *history.files.cuts()[-3:]])
            state = history.files.random_state(rng, cut)
            while rng.random() < 0.3:
                again = open_spool(state)
                list(slices(again, "a"))
                again.close()
                state = state.random_state(rng, rng.randint(0, state.operations))
            try:
                history.check(state, cut)
            except Exception as error:
                error.add_note(f"seed {seed}, cut {cut}")
                raise
        history.spool.close()


@pytest.mark.parametrize("block", range(10))
def test_random_troubled_histories(block: int) -> None:
    """The same while calls fail: what was promised in spite of that is there, also after syncs that failed."""
    for seed in range(block, STATES // 10, 10):
        rng = random.Random(f"troubled {seed}")
        history = troubled_history(rng, rng.choice([3, 10, 20]))
        for number in range(8):
            cut = history.files.operations if number < 3 else rng.randint(0, history.files.operations)
            killed = rng.random() < 0.3
            state = history.files.killed(cut) if killed else history.files.random_state(rng, cut)
            try:
                history.check(state, cut, killed=killed)
            except Exception as error:
                error.add_note(f"seed {seed}, cut {cut}, killed {killed}")
                raise
        history.spool.close()


@pytest.mark.parametrize("block", range(5))
def test_a_kill_loses_nothing(block: int) -> None:
    """After a kill between any two file operations all records whose `append` had returned are there."""
    for seed in range(block, STATES // 25, 5):
        history = random_history(random.Random(seed), 12)
        for cut in range(history.files.operations + 1):
            history.check(history.files.killed(cut), cut, killed=True)
        history.spool.close()


class LyingFiles(TornFiles):
    """A disk that says that it has saved everything and has saved nothing."""

    def sync(self, handle: int) -> None:
        self._call("sync")


class ForgetfulFiles(TornFiles):
    """A disk that never saves names."""

    def sync_dir(self, path: str) -> None:
        self._call("sync_dir")


@pytest.mark.parametrize("kind", [LyingFiles, ForgetfulFiles])
def test_the_checks_notice_a_loss(kind: type[TornFiles]) -> None:
    """Where a disk breaks its word records are lost, and the checks above say so: else they would prove nothing."""
    files = kind(page=PAGE)
    history = History(files)
    history.append(2, 20, "ab", sync=True)
    with pytest.raises(AssertionError, match="lost"):
        for state in files.states():
            history.check(state, files.operations)
    history.spool.close()
