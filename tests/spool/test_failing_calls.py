"""Every file call of every operation fails once: nothing is lost, the accounts balance, the spool goes on."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from resilient_exporters.exceptions import SpoolError, SpoolFull
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Slice
from resilient_exporters.testing.tornfiles import TornFiles

PATH = "/disk/spool"
SEGMENT = 600
LANES = ("a", "b")
AB = frozenset(LANES)


class Failure(NamedTuple):
    """How a call fails."""

    error: int
    taken: int | None = None


FAILURES = {
    "EIO": Failure(errno.EIO),
    "ENOSPC": Failure(errno.ENOSPC),
    "EDQUOT": Failure(errno.EDQUOT),
    "short write": Failure(0, 7),
    "empty write": Failure(0, 1),
    "ENOSPC after some bytes": Failure(errno.ENOSPC, 30),
}
FULL = {errno.ENOSPC, errno.EDQUOT}
READING = {"pread", "open", "size", "close", "siblings"}


def open_spool(files: TornFiles) -> FileSpool:
    return FileSpool(PATH, files=files, segment_size=SEGMENT)


def slices(spool: FileSpool, lane: str) -> Iterator[Slice]:
    after = 0
    while part := spool.read(lane, after, 100, 1 << 20):
        after = part.places[-1]
        yield part


def held(spool: FileSpool, lane: str) -> list[bytes]:
    """The payloads that a lane owes; the account must say the same."""
    found = [bytes(payload) for part in slices(spool, lane) for payload in part.payloads]  # type: ignore[arg-type]
    account = spool.account(lane)
    assert (len(found), sum(map(len, found))) == account[:2]
    assert (account.oldest is None) == (not found)
    return found


def keep(spool: FileSpool, *payloads: bytes, sync: bool = False, expires: float = 0.0) -> None:
    spool.append(payloads, AB, time=1.0, sync=sync, expires=expires)


def keep_quickly(spool: FileSpool, payload: bytes) -> None:
    """By the quick way, and when that leaves it to the long one, by that."""
    if not spool.append_one(payload, AB, 1.0):
        keep(spool, payload)


def settle(spool: FileSpool, lane: str, *payloads: bytes) -> None:
    wanted = set(payloads)
    for part in list(slices(spool, lane)):
        places = [place for place, payload in zip(part.places, part.payloads, strict=True) if payload in wanted]
        spool.settle(lane, places, Fate.DELIVERED)


def prepare(files: TornFiles) -> FileSpool:
    """A spool with sealed segments, a live one, settlements and a dead letter."""
    spool = open_spool(files)
    for number in range(9):
        keep(spool, b"old %d" % number, b"x" * 80, expires=10.0 if number == 3 else 0.0)
    settle(spool, "a", b"old 1")
    settle(spool, "b", b"old 0", b"x" * 80)
    part = next(slices(spool, "a"))
    spool.bury("a", part, {0: "refused"}, 1)
    spool.sync()
    return spool


def settling(spool: FileSpool, lane: str, *payloads: bytes) -> Callable[[], object]:
    """Settle these payloads of a lane; what to read for it is read now."""
    places = [
        place
        for part in slices(spool, lane)
        for place, payload in zip(part.places, part.payloads, strict=True)
        if not payloads or payload in payloads
    ]
    return lambda: spool.settle(lane, places, Fate.DELIVERED)


def burying(spool: FileSpool) -> Callable[[], object]:
    part = next(slices(spool, "b"))
    return lambda: spool.bury("b", part, {0: "refused", 1: "refused"}, 1)


def forgetting(spool: FileSpool) -> Callable[[], object]:
    keys = [letter.key for letter in spool.dead_letters()]
    return lambda: spool.forget_dead(keys)


Plan = Callable[[FileSpool], Callable[[], object]]

# Operations that are done wholly or raise.
WHOLE: dict[str, Plan] = {
    "append": lambda spool: lambda: keep(spool, b"new"),
    "append quickly": lambda spool: lambda: keep_quickly(spool, b"new"),
    "append batch": lambda spool: lambda: keep(spool, b"new 1", b"new 2", b"new 3"),
    "append synced": lambda spool: lambda: keep(spool, b"new", sync=True),
    "append and seal": lambda spool: lambda: keep(spool, b"y" * SEGMENT),
    "append synced and seal": lambda spool: lambda: keep(spool, b"y" * SEGMENT, sync=True),
    "bury": burying,
    "forget": forgetting,
    "sync": lambda spool: spool.sync,
    "dead letters": lambda spool: lambda: list(spool.dead_letters()),
    "read": lambda spool: lambda: list(slices(spool, "a")),
}
# Operations that never raise for lack of room, and may be done in part when the disk cannot be read.
PARTLY: dict[str, Plan] = {
    "settle": lambda spool: settling(spool, "b", b"old 1", b"old 5"),
    "settle all": lambda spool: settling(spool, "a"),
    "expire": lambda spool: lambda: spool.expire(20.0),
    "drop": lambda spool: lambda: spool.drop_oldest(500),
}


Holding = tuple[list[bytes], list[bytes], int]


def holding(spool: FileSpool) -> Holding:
    """What both lanes owe, and the number of dead letters."""
    return held(spool, "a"), held(spool, "b"), len(list(spool.dead_letters()))


def goes_on(spool: FileSpool, files: TornFiles) -> None:
    """The spool can be used, closed and opened, and then holds the same; what it synced survives a power cut."""
    keep(spool, b"later")
    before = holding(spool)
    assert before[0][-1:] == before[1][-1:] == [b"later"]
    settle(spool, "a", b"old 2")
    after = holding(spool)
    assert after == ([payload for payload in before[0] if payload != b"old 2"], *before[1:])
    spool.sync()
    rng = random.Random(1)
    for state in [files.killed(), *(files.random_state(rng) for _ in range(4))]:
        again = open_spool(state)
        assert holding(again) == after
        again.close()
    spool.close()
    again = open_spool(files)
    assert holding(again) == after
    again.close()


def failing(plan: Plan, how: Failure) -> Iterator[tuple[FileSpool, TornFiles, Callable[[], object], bool]]:
    """Prepared spools, for each call of an operation one in which it will fail; what to do; whether it only reads."""
    rehearsal = TornFiles(page=64)
    run = plan(prepare(rehearsal))
    start = len(rehearsal.calls)
    run()
    for number, name in enumerate(rehearsal.calls[start:]):
        reads = name in READING
        if (how.taken is not None and name != "pwrite") or (how.error in FULL and reads):
            continue
        files = TornFiles(page=64)
        spool = prepare(files)
        run = plan(spool)
        files.fail_at(len(files.calls) + number, how.error, taken=how.taken)
        yield spool, files, run, reads


def before_and_after(plan: Plan) -> tuple[Holding, Holding]:
    """What is held before and after an operation in which nothing fails."""
    spool = prepare(TornFiles(page=64))
    before = holding(spool)
    plan(spool)()
    return before, holding(spool)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("operation", WHOLE)
def test_a_call_fails_in_an_operation_that_may_raise(operation: str, failure: str) -> None:
    """The operation is done, or raises the right error and has done nothing."""
    plan, how = WHOLE[operation], FAILURES[failure]
    before, done = before_and_after(plan)
    for spool, files, run, _ in failing(plan, how):
        raised = None
        try:
            run()
        except SpoolError as error:
            raised = error
        assert holding(spool) == (before if raised else done)
        if raised is not None:
            assert isinstance(raised, SpoolFull) == (how.error in FULL)
        goes_on(spool, files)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("operation", PARTLY)
def test_a_call_fails_in_an_operation_that_settles(operation: str, failure: str) -> None:
    """Settling and dropping never raise when the disk cannot be written, and say what they have done."""
    plan, how = PARTLY[operation], FAILURES[failure]
    before, done = before_and_after(plan)
    for spool, files, run, reads in failing(plan, how):
        lost: object = None
        try:
            lost = run()
        except SpoolError:
            assert reads
        found = holding(spool)
        if not reads and operation != "drop":
            assert found == done
        gone: dict[str, int] = {}
        for lane, now, old, new in zip(LANES, found[:2], before[:2], done[:2], strict=True):
            assert set(new) <= set(now) <= set(old)
            gone[lane] = len(old) - len(now)
        if isinstance(lost, dict):
            assert lost == {lane: number for lane, number in gone.items() if number}
        goes_on(spool, files)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_first_append(failure: str) -> None:
    """The very first append, which makes the file, may fail at any call; the next one makes it again."""
    how = FAILURES[failure]
    rehearsal = TornFiles(page=64)
    spool = open_spool(rehearsal)
    start = len(rehearsal.calls)
    keep(spool, b"first", sync=True)
    calls = rehearsal.calls[start:]
    for number in range(len(calls)):
        files = TornFiles(page=64)
        spool = open_spool(files)
        files.fail_at(len(files.calls) + number, how.error, taken=how.taken)
        kept = [b"first"]
        try:
            keep(spool, b"first", sync=True)
        except SpoolError:
            kept = []
        assert held(spool, "a") == kept
        goes_on(spool, files)


@pytest.mark.parametrize("failure", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_failing_opening(failure: str) -> None:
    """A call that fails while the spool is opened delays it: the next use opens it, and everything is there."""
    how = FAILURES[failure]
    origin = TornFiles(page=64)
    spool = prepare(origin)
    before = holding(spool)
    spool.close()
    rehearsal = origin.killed()
    spool = open_spool(rehearsal)
    calls = list(rehearsal.calls)
    spool.close()
    for number, name in enumerate(calls):
        if how.error in FULL and name in READING:
            continue
        files = origin.killed()
        files.fail_at(number, how.error)
        spool = open_spool(files)
        keep(spool, b"first")
        assert holding(spool) == ([*before[0], b"first"], [*before[1], b"first"], before[2])
        goes_on(spool, files)


@pytest.mark.parametrize("failure", ["EIO", "ENOSPC"])
def test_a_failing_close(failure: str) -> None:
    """`close` never raises, and what it could not write costs nothing but repeated settlements."""
    how = FAILURES[failure]
    rehearsal = TornFiles(page=64)
    spool = prepare(rehearsal)
    before, start = holding(spool), len(rehearsal.calls)
    spool.close()
    for number in range(len(rehearsal.calls) - start):
        files = TornFiles(page=64)
        spool = prepare(files)
        files.fail_at(len(files.calls) + number, how.error)
        spool.close()
        spool = open_spool(files)
        assert holding(spool) == before
        spool.close()


def test_a_failed_sync_is_never_trusted() -> None:
    """After a failed sync the system may have dropped the data and call the next sync good: it is written again."""
    files = TornFiles(page=64)
    spool = open_spool(files)
    keep(spool, b"1", sync=True)
    keep(spool, b"2")
    files.fail_at(len(files.calls), errno.EIO)
    with suppress(SpoolError):
        spool.sync()
    assert files.calls[-1] != "pwrite" or "sync" in files.calls
    spool.sync()
    rng = random.Random(1)
    for _ in range(50):
        again = open_spool(files.random_state(rng))
        assert held(again, "a") == [b"1", b"2"]
        again.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_that_stays_full(error: int) -> None:
    """As long as nothing can be written, appends raise and settlements are remembered; then everything goes on."""
    files = TornFiles(page=64)
    spool = prepare(files)
    before = holding(spool)

    class Full(TornFiles):
        """No write succeeds."""

        def pwrite(self, handle: int, data: object, offset: int) -> int:
            raise OSError(error, "full")

    files.__class__ = Full
    for _ in range(3):
        with pytest.raises(SpoolFull):
            keep(spool, b"new")
    with pytest.raises(SpoolFull):
        keep(spool, b"y" * SEGMENT)
    settle(spool, "a", b"old 4")
    settle(spool, "b", b"old 4")
    after = tuple([payload for payload in lane if payload != b"old 4"] for lane in before[:2])
    assert holding(spool)[:2] == after
    files.__class__ = TornFiles
    goes_on(spool, files)
