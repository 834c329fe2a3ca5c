"""After a power cut at any moment, whatever the disk kept of what was not synced: nothing promised is lost."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product

import pytest

from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Payload, Slice
from resilient_exporters.testing.tornfiles import TornFiles

STATES = int(os.environ.get("CI_STATES", "1500"))
PATH = "/disk/spool"
SEGMENT = 700  # bytes; a few records, so that segments are sealed and deleted all the time
PAGE = 256  # bytes; most frames lie across two pages
LANES = ("a", "b")

Id = tuple[int, int]


def open_spool(files: TornFiles) -> FileSpool:
    return FileSpool(PATH, files=files, segment_size=SEGMENT)


@dataclass
class Kept:
    """A record that was appended; moments are numbers of file operations."""

    id: Id
    payload: bytes
    lanes: frozenset[str]
    begun: int
    done: int
    synced: int | None
    settling: dict[str, int] = field(default_factory=dict)
    burying: dict[str, int] = field(default_factory=dict)


class History:
    """Works on a spool and notes from which moment on what must, and what may, be there."""

    def __init__(self, files: TornFiles) -> None:
        self.files = files
        self.spool = open_spool(files)
        self.records: list[Kept] = []
        self.serial = 0

    def append(self, count: int, size: int, lanes: str, *, sync: bool) -> None:
        begun = self.files.operations
        payloads = []
        for _ in range(count):
            self.serial += 1
            payloads.append(b"%d " % self.serial * (1 + size // 4))
        first = self.spool.draw()
        for _ in payloads[1:]:
            self.spool.draw()
        self.spool.append(payloads, frozenset(lanes), time=float(self.serial), first=first, sync=sync)
        done = self.files.operations
        self.records += [
            Kept((self.spool.run, number), payload, frozenset(lanes), begun, done, done if sync else None)
            for number, payload in enumerate(payloads, first)
        ]

    def settle(self, lane: str, skip: int, count: int, *, bury: bool = False) -> None:
        """Settle or bury some of what a lane owes."""
        begun = self.files.operations
        parts = list(slices(self.spool, lane))
        for part in parts:
            chosen = range(skip, min(skip + count, len(part)))
            skip, count = max(0, skip - len(part)), count - len(chosen)
            for at in chosen:
                record = next(each for each in self.records if each.id == (part.run, part.numbers[at]))
                (record.burying if bury else record.settling)[lane] = begun
            if not chosen:
                continue
            if bury:
                self.spool.bury(lane, part, dict.fromkeys(chosen, "refused"), 1)
            else:
                self.spool.settle(lane, [part.places[at] for at in chosen], Fate.DELIVERED)

    def settle_all(self) -> None:
        for lane in LANES:
            self.settle(lane, 0, 1000)

    def sync(self) -> None:
        self.spool.sync()
        for record in self.records:
            if record.synced is None:
                record.synced = self.files.operations

    def reopen(self) -> None:
        self.spool.close()
        self.spool = open_spool(self.files)

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


def random_history(rng: random.Random, steps: int) -> History:
    """Any steps in any order, with records and batches of many sizes."""
    history = History(TornFiles(page=rng.choice([64, 256, 4096])))
    for _ in range(steps):
        match rng.randrange(12):
            case 0 | 1 | 2:
                history.append(1, rng.randrange(60), rng.choice(["a", "b", "ab"]), sync=rng.random() < 0.3)
            case 3 | 4:
                size = rng.choice([10, 100, SEGMENT])
                history.append(rng.randint(1, 8), size, rng.choice(["a", "ab"]), sync=rng.random() < 0.5)
            case 5 | 6 | 7:
                history.settle(rng.choice(LANES), rng.choice([0, 0, 1, 3]), rng.choice([1, 2, 5, 100]))
            case 8:
                history.settle(rng.choice(LANES), rng.choice([0, 2]), 1, bury=True)
            case 9:
                history.sync()
            case 10:
                history.reopen()
            case _:
                history.settle_all()
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
            history.check(state, cut)
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
