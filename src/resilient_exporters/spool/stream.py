"""The stream spool: records, what lanes settled and dead letters, all in one binary file object of the user's."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from resilient_exporters.exceptions import InvalidConfigError, SpoolError, SpoolInUse
from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.dead import (
    FORGOTTEN,
    LETTER,
    pack_forgotten,
    pack_letter,
    unpack_forgotten,
    unpack_letter,
)
from resilient_exporters.spool.files import read_all
from resilient_exporters.spool.frame import FRAME, RECORD_SIZE, Context, Kind
from resilient_exporters.spool.interface import DeadLetter, Fate
from resilient_exporters.spool.ledger import Lane, Ledger
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.logspool import LogSpool, Parts
from resilient_exporters.spool.placing import translated
from resilient_exporters.spool.recovery import judge
from resilient_exporters.spool.room import Room
from resilient_exporters.spool.scan import Scan, scan
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.state import StateFrames, load_states
from resilient_exporters.spool.streamfiles import HANDLE, StreamFiles, StreamPlacing, empty

__all__ = ["StreamSpool"]

logger = logging.getLogger("resilient_exporters")

# Never reached: a stream has one segment.
_ENDLESS = 1 << 62
_held: weakref.WeakKeyDictionary[Any, weakref.ref[StreamSpool]] = weakref.WeakKeyDictionary()
_holding = threading.Lock()


class StreamState:
    """What lanes settled, as frames among those of the records.

    Args:
        log: Where they go.
    """

    size = 0

    def __init__(self, log: Log) -> None:
        self.path = log.placing.path
        self._log = log
        self._frames = StateFrames()
        self._segment: Segment | None = None

    def write(self, name: str, fate: Fate | None, ranges: list[tuple[int, int]], lanes: Mapping[str, Places]) -> None:
        if self._log.live is None:
            return  # nothing is kept, so nobody will ask
        if self._segment is not self._log.live or name not in self._frames.indexes:
            frames = StateFrames()

            def pack(seed: int, offset: int) -> bytes:
                data = b""
                for lane, places in lanes.items():
                    data += frames.lane(lane, places, seed, offset + len(data))
                return data

            self._segment = None
            self._log.append_frames(pack)
            self._frames, self._segment = frames, self._log.live
            return
        self._log.append_frames(lambda seed, offset: self._frames.settled(name, fate, ranges, seed, offset))

    def compact(self, lanes: Mapping[str, Places]) -> bool:
        return False  # the file is emptied as a whole

    def sync(self) -> None:
        """Synced with the records."""

    def close(self) -> None:
        """There is nothing to close."""


class StreamDead:
    """Dead letters as frames among those of the records.

    Args:
        log: Where they go.
    """

    size = 0

    def __init__(self, log: Log) -> None:
        self.path = log.placing.path
        self._log = log
        self._alive: dict[int, tuple[int, int]] = {}
        self._next = 1

    def load(self, content: bytes, found: Scan) -> None:
        """Learn which letters there are."""
        for frame in found.frames:
            if frame.kind != Kind.DEAD:
                continue
            body = content[frame.at + FRAME.size : frame.at + frame.length]
            if frame.meta & 0xFF == FORGOTTEN:
                for key in unpack_forgotten(body):
                    self._alive.pop(key, None)
            elif frame.meta & 0xFF == LETTER:
                key = unpack_letter(body).key
                self._alive[key] = frame.at, frame.length
                self._next = max(self._next, key + 1)

    def __len__(self) -> int:
        return len(self._alive)

    def bytes(self) -> int:
        """What they take in the file."""
        return sum(length for _, length in self._alive.values())

    def add(self, letters: Sequence[DeadLetter]) -> None:
        lengths: list[int] = []

        def pack(seed: int, offset: int) -> bytes:
            data = b""
            for key, letter in enumerate(letters, self._next):
                frame = pack_letter(letter._replace(key=key), seed, offset + len(data))
                lengths.append(len(frame))
                data += frame
            return data

        at = self._log.append_frames(pack)
        # The settlement comes next, and may reach the disk first.
        self._log.files.sync(HANDLE)
        for length in lengths:
            self._alive[self._next] = at, length
            self._next += 1
            at += length

    def letters(self) -> Iterator[DeadLetter]:
        for at, length in list(self._alive.values()):
            frame = read_all(self._log.files, HANDLE, length, at)
            yield unpack_letter(frame[FRAME.size :])

    def forget(self, keys: Iterable[int]) -> None:
        known = [key for key in dict.fromkeys(keys) if key in self._alive]
        if known:
            self._log.append_frames(lambda seed, offset: pack_forgotten(known, seed, offset))
            for key in known:
                del self._alive[key]

    def sync(self) -> None:
        """Synced with the records."""

    def close(self) -> None:
        """There is nothing to close."""


class StreamSpool(LogSpool):
    """Keeps records in a binary file object: it grows until nothing is owed, and is emptied then.

    It is never closed here. How safe records are is up to the object: in a real file they survive the process.

    Args:
        file: Readable, writable, seekable, not in append mode.
        owner: Who holds it, told to others who want it.
        limit_bytes: Bytes that everything together may use, or None.

    Raises:
        InvalidConfigError: It cannot do what is needed, or holds something else.
        SpoolInUse: Another spool holds it.
    """

    def __init__(self, file: BinaryIO, *, owner: str = "", limit_bytes: int | None = None) -> None:
        super().__init__(StreamFiles(file))
        self.owner = owner
        # Records and state share a file, so they share a lock.
        self._books = self._gate
        self._limit = limit_bytes
        self._marked_end = 0
        self._marked_context: Context | None = None
        self._file: BinaryIO | None = None
        self._name = f"file object {getattr(file, 'name', None) or type(file).__name__}"
        _check_able(file, self._name)
        self._hold(file)
        self._file = file
        try:
            self._parts = self._open()
        except SpoolError as error:
            logger.info("spool_not_open path=%r error=%r", self._name, str(error))
        except BaseException:
            self.close()
            raise

    def _hold(self, file: BinaryIO) -> None:
        with _holding:
            holder = _held[file]() if file in _held else None
            if holder is not None and holder._pid == self._pid and not holder._closed:
                owner = f" ({holder.owner})" if holder.owner else ""
                raise SpoolInUse(f"the {self._name} is held by another pool of this process{owner}")
            _held[file] = weakref.ref(self)

    def _open(self) -> Parts:
        log = Log(
            StreamPlacing(self._files, self._name),
            spool=self.run,
            run=self.run,
            segment_size=_ENDLESS,
            room=(room := Room(self._files, "", self._limit, 0)).grant,
            numbers=self._numbers,
        )
        parts = Parts(log, Ledger(log, self._syncer.retire), StreamState(log), dead := StreamDead(log))
        room.used = lambda: _owed_bytes(parts.ledger) + dead.bytes()
        try:
            content = read_all(self._files, HANDLE, self._files.size(HANDLE))
            if judge(content, f"the {self._name}", ours=False):
                self._adopt(parts, content, dead)
        except OSError as error:
            raise translated(error, "opening", self._name) from error
        return parts

    def _adopt(self, parts: Parts, content: bytes, dead: StreamDead) -> None:
        """Take over what is in the file."""
        log, ledger = parts.log, parts.ledger
        found = scan(content)
        segment = Segment.from_scan(self._files, self._name, HANDLE, content, found)
        if segment is None:
            # A preamble and nothing else of use.
            self._count_damage(0, sum(gap.stop - gap.start for gap in found.gaps if not gap.torn))
            return
        segment.gaps = [gap for gap in segment.gaps if not gap.torn]
        if segment.gaps:
            segment.end = max(segment.end, segment.gaps[-1].stop)
            self._count_damage(sum(last - first + 1 for first, last in segment.holes), _bytes_of(segment))
        elif len(content) > segment.end:
            self._files.truncate(HANDLE, segment.end)
        dead.load(content, found)
        states, _ = load_states(content, found)
        log.segments[segment.number] = segment
        log.next_number, log.next_place = segment.number + 1, segment.next
        for name, places in states.items():
            ledger.lanes[name] = Lane(name, places)
            log.next_place = max(log.next_place, places.top + 1)
        ledger.open_balance(segment)
        log.resume(segment)
        if segment.gaps:
            log.leave_behind(segment)
        self._reap(parts)

    def _set_mark(self, parts: Parts) -> None:
        live = parts.log.live
        self._marked_end, self._marked_context = (live.end, live.context) if live is not None else (0, None)

    def _take_back(self, parts: Parts) -> None:
        live = parts.log.live
        if live is not None and self._marked_end:
            self._files.truncate(HANDLE, self._marked_end)
            live.end, live.context = self._marked_end, self._marked_context or live.context
        else:
            empty(self._files)
            parts.log.forget_all()
        # Else a power cut could bring back what was taken, in front of what is appended next.
        self._files.sync(HANDLE)

    def _drop_from(self, parts: Parts, segment: Segment, size: int, lost: dict[str, int]) -> int:
        dropped, last = 0, segment.base - 1
        for place, length in self._kept(parts, segment):
            dropped += length + RECORD_SIZE
            last = place
            if dropped >= size:
                break
        for name in segment.owed():
            self._drop(parts, name, range(segment.base, last + 1), lost)
        return dropped

    @staticmethod
    def _kept(parts: Parts, segment: Segment) -> Iterator[tuple[int, int]]:
        """Place and size of what any lane owes, oldest first."""
        for window in parts.ledger.windows(segment):
            for entry in window.entries:
                lanes = [parts.ledger.lane(name) for name in segment.sets.get(entry.set, ())]
                for place, payload in enumerate(entry.payloads, entry.first):
                    if any(place not in lane.places for lane in lanes):
                        yield place, len(payload)

    def _reclaim(self, parts: Parts) -> bool:
        return self._reap(parts) > 0

    def _reap(self, parts: Parts) -> int:
        """Empty the file when nothing is owed in it."""
        live = parts.log.live
        if live is None or live.end == 0 or not live.is_settled() or len(parts.dead):  # type: ignore[arg-type]
            return 0
        try:
            empty(self._files)
        except OSError as error:
            # It may be empty by half: so it is emptied again before anything is written.
            logger.warning("spool_not_emptied path=%r error=%r", self._name, str(error))
        parts.log.forget_all()
        return 1

    def _report(self, parts: Parts) -> None:
        segments, parts.ledger.found_gaps = parts.ledger.found_gaps, []
        records, parts.ledger.lost = parts.ledger.lost, 0
        self._count_damage(records, sum(map(_bytes_of, segments)))

    def _count_damage(self, records: int, size: int) -> None:
        if records or size:
            self.damage = self.damage[0] + records, self.damage[1] + size
            logger.warning("spool_damaged path=%r records_lost=%d bytes=%d", self._name, records, size)


def _owed_bytes(ledger: Ledger) -> int:
    """What counts for the budget: what is settled takes up room, too, but only until all is."""
    owed = [ledger.balance(name) for name in ledger.names()]
    return max((size + records * RECORD_SIZE for records, size in owed), default=0)


def _bytes_of(segment: Segment) -> int:
    return sum(gap.stop - gap.start for gap in segment.gaps)


def _check_able(file: BinaryIO, name: str) -> None:
    """Refuse file objects that cannot serve."""
    try:
        able = file.readable() and file.writable() and file.seekable()
        binary = isinstance(file.read(0), bytes)
    except (AttributeError, OSError, ValueError) as error:
        raise InvalidConfigError(f"the {name} cannot be used: {error}") from error
    if not able or not binary:
        raise InvalidConfigError(f"the {name} must be binary, readable, writable, seekable: open(path, 'w+b')")
    if _appends(file):
        raise InvalidConfigError(f"the {name} is in append mode, where nothing can be written at a place; use 'r+b'")


def _appends(file: BinaryIO) -> bool:
    if "a" in str(getattr(file, "mode", "")):
        return True
    try:
        import fcntl

        return bool(fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_APPEND)
    except (ImportError, OSError, AttributeError):
        return False  # no such system, or no file behind it
