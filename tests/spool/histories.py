"""What is done to a spool in simulated files, and what of it must, and may, be there after a crash."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.interface import Fate, Payload, Slice, Spool
from resilient_exporters.testing.tornfiles import TornFiles

SEGMENT = 700  # bytes; a few records, so that segments are sealed and deleted all the time
LANES = ("a", "b")

Id = tuple[int, int]
Opener = Callable[[TornFiles], Spool]


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
    """Works on a spool in simulated files and notes from which moment on what must, and what may, be there.

    Steps may fail with SpoolError when calls of `files` are made to fail: then they promise nothing.
    """

    def __init__(self, files: TornFiles, opener: Opener) -> None:
        self.files = files
        self.opener = opener
        self.spool = opener(files)
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
        self.spool = self.opener(self.files)

    def record(self, id: Id) -> Kept:
        return next(record for record in self.records if record.id == id)

    def check(self, state: TornFiles, cut: int, *, killed: bool = False) -> None:
        """Open what a power cut, or only a kill, left after `cut` operations, and go on working with it."""
        spool = self.opener(state)
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

    def go_on(self, spool: Spool, state: TornFiles) -> None:
        """Append and settle, then open once more."""
        before = {lane: held(spool, lane) for lane in LANES}
        spool.append([b"new"], frozenset(LANES), time=1.0, sync=True)
        new = (spool.run, 1)
        for lane in LANES:
            assert held(spool, lane) == [*before[lane], (new, b"new")]
        part = next(slices(spool, "a"))
        spool.settle("a", part.places, Fate.DELIVERED)
        spool.close()
        again = self.opener(state)
        assert [*before["a"], (new, b"new")][len(part) :] == held(again, "a")
        assert held(again, "b") == [*before["b"], (new, b"new")]
        again.close()


def slices(spool: Spool, lane: str) -> Iterator[Slice]:
    """All that a lane owes."""
    after = 0
    while part := spool.read(lane, after, 100, 1 << 20):
        after = part.places[-1]
        yield part


def held(spool: Spool, lane: str) -> list[tuple[Id, bytes]]:
    """Ids and payloads of all that a lane owes, in order."""
    return [
        ((part.run, number), payload)
        for part in slices(spool, lane)
        for number, payload in zip(part.numbers, part.payloads, strict=True)
        if isinstance(payload, bytes)
    ]


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


def random_history(rng: random.Random, steps: int, opener: Opener) -> History:
    """Any steps in any order."""
    history = History(TornFiles(page=rng.choice([64, 256, 4096])), opener)
    for _ in range(steps):
        random_step(history, rng)
    return history


def troubled_history(rng: random.Random, steps: int, opener: Opener) -> History:
    """Any steps, while calls fail now and then; at last all is well, and synced."""
    history = History(TornFiles(page=rng.choice([64, 256, 4096])), opener)
    files = history.files
    for _ in range(steps):
        if rng.random() < 0.5:
            error = rng.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT, 0])
            # At least a header: less of one, lost by a power cut, leaves zeros that could be anybody's.
            files.fail_at(len(files.calls) + rng.randrange(15), error, taken=rng.choice([None, 16, 20]))
        with suppress(SpoolError):
            random_step(history, rng)
    files.heal()
    history.sync()
    return history
