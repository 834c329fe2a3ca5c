"""Repairs a stopped spool: what cannot be read is set aside, what can be read stands in whole files afterwards."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.spool.audit import Audit, Auditor, agrees, audit, counted
from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.files import OS, Files, write_all
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.looking import READING, Look, Reading, SegmentFile
from resilient_exporters.spool.numbers import Numbers
from resilient_exporters.spool.placing import LEFTOVER, REWRITING, Placing, translated
from resilient_exporters.spool.recovery import next_damaged
from resilient_exporters.spool.scan import Gap
from resilient_exporters.spool.state import State

__all__ = ["Repaired", "repair"]

# Never reached: a segment that is written again stays one segment.
_ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Args:
        done: A sentence for each thing that was done, in order.
        before: The spool as it was found.
        after: The spool as it is now.
    """

    done: tuple[str, ...]
    before: Audit
    after: Audit


def repair(path: str | os.PathLike[str], *, files: Files = OS, reading: Reading = READING) -> Repaired:
    """Make a stopped spool whole: set aside what is damaged, write anew the segments that it was in.

    Nothing that can be read is thrown away, and ids, order and lanes of the records stay. A crash meanwhile leaves
    the spool as it was or partly repaired; repair it again.

    Args:
        path: What was given as `tmp_file`.
        files: The operating system, for tests.
        reading: The same for looking, for tests.

    Raises:
        InvalidConfigError: There is no spool, a newer version has written it, or it is the content of a file object,
            which opening repairs.
        SpoolInUse: A live pool holds it.
        SpoolError: A file cannot be read or written; there may be no room.
    """
    before = audit(path, files=reading)
    if any(file.kind == "stream" for file in before.files):
        raise InvalidConfigError(
            f"{before.path} is the content of a file object; give it to a pool as tmp_file=open(path, 'r+b'), which "
            f"steps over damage and delivers the rest"
        )
    newer = next((found for found in before.findings if found.kind == "newer"), None)
    if newer is not None:
        raise InvalidConfigError(f"{newer.file} was {newer.text}; repair it with the newer version of this library")
    with contextlib.closing(FileSpool(before.path, files=files, owner="repair")) as spool:
        # Raises when it could not be opened, and so is not held.
        spool.sync()
        # Drops nothing; but what damage opening has met is set aside behind it.
        spool.expire(0.0)
        # Reading it sets aside what is damaged in the file of dead letters, and writes it anew.
        spool.dead_letters()
        work = _Work(before.path, files, reading)
        try:
            work.compare(before)
            work.side_files()
            work.segments()
            work.state()
        except OSError as error:
            raise translated(error, "repairing", before.path) from error
    return Repaired(tuple(work.done), before, audit(path, files=reading))


class _Work:
    """The steps of a repair, on a spool that is held and that nobody reads or writes meanwhile."""

    def __init__(self, path: str, files: Files, reading: Reading) -> None:
        self.path = path
        self.files = files
        self.reading = reading
        self.done: list[str] = []

    def _name(self, suffix: str) -> str:
        return os.path.basename(self.path) + suffix

    def compare(self, before: Audit) -> None:
        """Tell what opening has done, by the files that there were and are."""
        were = {file.name: file.size for file in before.files}
        are = {self._name(suffix): size for suffix, size in Look(self.path, self.reading).sizes.items()}
        for name in sorted({*were, *are}):
            kind = name[len(self._name("")) :]
            if name not in were and kind.startswith(".damaged."):
                self.done.append(f"set aside what could not be used: {are[name]} bytes in {name}")
            elif name not in were and kind[1:].isdigit():
                self.done.append(f"sealed the live segment as {name}")
            elif name not in are and kind[1:].isdigit():
                self.done.append(f"removed {name}, of which nothing was owed or could be used")
            elif name not in are and LEFTOVER.fullmatch(kind):
                self.done.append(f"deleted the leftover {name}")
            elif not kind and name in are and are[name] < were.get(name, 0):
                self.done.append(f"cut off {were[name] - are[name]} bytes behind the last whole frame of {name}")

    # ---------------------------------------------------------------- setting aside

    def _set_aside(self, suffix: str, segment: int | None, content: bytes, gaps: Iterable[Gap]) -> None:
        """Copy stretches of a file to a new sibling, safe against a power cut: the file is written anew next."""
        pieces = []
        for gap in gaps:
            where = {
                "file": self.path + suffix,
                "segment": segment,
                "offset": gap.start,
                "length": gap.stop - gap.start,
            }
            pieces += [json.dumps(where).encode(), b"\n", content[gap.start : gap.stop], b"\n"]
        if not pieces:
            return
        target = next_damaged(self.files, self.path)
        handle = self.files.open(target, create=True)
        try:
            write_all(self.files, handle, b"".join(pieces), 0)
            self.files.sync(handle)
        finally:
            self.files.close(handle)
        self.files.sync_dir(os.path.dirname(self.path))
        size = sum(len(piece) for piece in pieces)
        self.done.append(
            f"set aside what could not be used of {self._name(suffix)}: {size} bytes in {os.path.basename(target)}"
        )

    def side_files(self) -> None:
        """Set aside what is damaged in the state file, which is written anew; opening does so for dead letters."""
        side = Look(self.path, self.reading).side_file(".state")
        if side is not None:
            self._set_aside(".state", None, side.content, [gap for gap in side.found.gaps if not gap.torn])

    # ---------------------------------------------------------------- segments

    def segments(self) -> None:
        """Write anew each segment that is not whole."""
        for file in Look(self.path, self.reading).segments(deep=True):
            segment, footer = file.segment, file.footer
            if segment is None or (file.suffix == "" and not file.gaps and file.version is not None):
                continue
            if file.gaps or file.version is None or footer is None or not agrees(footer, segment):
                known = {*footer.gaps} if footer is not None else set()
                self._set_aside(file.suffix, segment.number, file.content, [g for g in file.gaps if g not in known])
                self._write_anew(file)

    def _write_anew(self, file: SegmentFile) -> None:
        """Put a file with the same records, at the same places, where a segment is; nothing else is in it."""
        path = self.path + file.suffix
        copy = f"{path}{REWRITING}"
        log = self._copied(file, copy)
        live = log.live
        if live is None or live.handle is None:
            self.files.unlink(path)
            self.done.append(f"removed {self._name(file.suffix)}: no record in it could be read")
        else:
            try:
                live.next = max(
                    live.next, file.footer.next if file.footer else 0, file.segment.next if file.segment else 0
                )
                write_all(self.files, live.handle, live.footer(), live.end)
                self.files.sync(live.handle)
            finally:
                self.files.close(live.handle)
            self.files.rename(copy, path)
            records = sum(tally.records for tally in live.counts.values())
            self.done.append(
                f"wrote {self._name(file.suffix)} anew, with what could be read: {counted(records, 'record')}"
            )
        self.files.sync_dir(os.path.dirname(self.path))

    def _copied(self, file: SegmentFile, path: str) -> Log:
        """A log of one live segment at `path` that holds the records of a file."""
        segment = file.segment
        assert segment is not None
        log = Log(
            Placing(self.files, path),
            spool=segment.context.spool,
            run=segment.context.run,
            segment_size=_ENDLESS,
            room=lambda need: need,
            numbers=Numbers(),
        )
        log.next_number = segment.number
        for entry in file.entries():
            log.next_place = entry.first
            lanes, time = segment.sets[entry.set], entry.times[0]
            log.append(entry.payloads, lanes, time, entry.number, entry.run, entry.options, entry.flags, entry.expires)
        return log

    # ---------------------------------------------------------------- state

    def state(self) -> None:
        """Write the state anew if it is not whole, or if records are lost, which nobody owes from now on."""
        look = Look(self.path, self.reading)
        auditor = Auditor(look, deep=True)
        seen = auditor.run()
        if not auditor.missing and not any(found.file == self._name(".state") for found in seen.findings):
            return
        if look.spool is None:
            return
        lanes = {lane.name: look.states.get(lane.name, Places()) for lane in seen.lanes}
        for first, last in auditor.missing:
            for places in lanes.values():
                places.add(first, last)
        state = State(self.files, f"{self.path}.state", look.spool)
        try:
            state.write("", Fate.DROPPED, [], lanes)
            state.sync()
        finally:
            state.close()
        self.done.append(f"wrote {self._name('.state')} anew")
        lost = sum(last - first + 1 for first, last in auditor.missing)
        if lost:
            self.done.append(f"noted as dropped what is nowhere: {counted(lost, 'record')}")
