"""The life of a spool over a log: its locks, opening, opening again after an interruption, closing, forking."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, TypeVar

from resilient_exporters.exceptions import PoolClosed, SpoolError
from resilient_exporters.spool.dead import DeadKeeper
from resilient_exporters.spool.files import Files
from resilient_exporters.spool.interface import Fate
from resilient_exporters.spool.ledger import Ledger
from resilient_exporters.spool.locks import if_free
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.numbers import Numbers
from resilient_exporters.spool.placing import translated
from resilient_exporters.spool.state import StateKeeper
from resilient_exporters.spool.syncing import Syncer

__all__ = ["LivingSpool", "Parts"]

logger = logging.getLogger("resilient_exporters")

T = TypeVar("T")

_living: weakref.WeakSet[LivingSpool] = weakref.WeakSet()
_FORKED = (
    "this pool belongs to the parent process; make one pool per process, after the fork, each with its own file: "
    "docs/how-to/prefork.md"
)


class Parts:
    """The parts of an open spool: they come and go together.

    Args:
        log: Guarded by the gate.
        ledger: Guarded by the books, as are the others.
    """

    __slots__ = ("dead", "ledger", "log", "state")

    def __init__(self, log: Log, ledger: Ledger, state: StateKeeper, dead: DeadKeeper) -> None:
        self.log = log
        self.ledger = ledger
        self.state = state
        self.dead = dead

    def used(self) -> int:
        """Bytes in use."""
        return sum(segment.end for segment in self.ledger.segments()) + self.state.size + self.dead.size


class LivingSpool:
    """What all spools over a log have: they are opened, used by one thread at a time, and closed.

    Locks, in the order in which they are taken: the syncer's, `_gate` (appending), `_books` (reading and settling).
    The holder of the books only ever tries the gate, and the holder of the gate the syncer's.
    An exception may be thrown in from outside (Ctrl-C) at any call. So locks are taken by `with` or `if_free`, flags
    are set right before a `try`, and what was cut short makes the spool suspect: the next call reads the files anew.

    Args:
        files: The operating system.
    """

    def __init__(self, files: Files) -> None:
        self.run = secrets.randbits(64)
        self.damage = (0, 0)
        self._files = files
        self._pid = os.getpid()
        self._numbers = Numbers()
        self._gate = threading.RLock()
        # Somebody appends, or nobody may.
        self._busy = False
        self._frozen = False
        # Appends from signal handlers and finalizers inside a call on the same thread.
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._books = threading.RLock()
        # Which thread reads or settles, 0 for none.
        self._reading = 0
        # Settlements from signal handlers and finalizers.
        self._later: deque[tuple[str, Sequence[int], Fate]] = deque()
        self._syncer = Syncer(files, self._gate)
        self._closed = False
        self._parts: Parts | None = None
        self._unwritten = False
        # What memory says is not to be trusted.
        self._suspect = False
        _living.add(self)

    # ---------------------------------------------------------------- for those who derive from it

    def _open(self) -> Parts:
        """Open what is there; called with the gate held and nothing open."""
        raise NotImplementedError

    def _report(self, parts: Parts) -> None:
        """Say what damage was found since the last time, and set it aside."""
        raise NotImplementedError

    def _settle_later(self, parts: Parts) -> None:
        """Do the settlements that came from inside a call on this thread."""
        raise NotImplementedError

    def _drain(self) -> None:
        """Do the appends that came from inside a call on this thread; called with the gate held."""
        raise NotImplementedError

    # ---------------------------------------------------------------- opening, checking

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise PoolClosed(_FORKED)
        if self._closed:
            raise PoolClosed("the spool is closed")

    def _opened(self) -> Parts | None:
        """The parts, or None when they cannot be opened now."""
        self._check()
        if self._parts is None or self._suspect:
            with self._gate, contextlib.suppress(SpoolError):  # nothing can be read then; appending says why
                if not self._busy and not self._inside():
                    return self._ready()
        return self._parts

    def _inside(self) -> bool:
        """Whether this thread is reading or settling: in a signal handler or a finalizer."""
        return self._reading != 0 and self._reading == get_ident()

    def _ready(self) -> Parts:
        """The parts, opened (again) if need be; called with the gate held, not from inside a use of the books."""
        self._check()  # again: it may have been closed while this thread waited for the gate
        if self._suspect:
            with self._books:
                parts = self._parts
                if parts is not None:
                    # Before they are given up: what lanes have settled is written down with each settlement, or later.
                    self._write_state(parts, "", Fate.DELIVERED, [])
                    self._parts = None
                    self._close_parts(parts)
                # The last step: interrupted before it, all of it is done again.
                self._suspect = False
            if_free(self._syncer.lock, self._syncer.close_unused, None)
        if self._parts is None:
            self._parts = self._open()
        return self._parts

    def _using(self, work: Callable[[Parts], T], otherwise: T) -> T:
        """Do `work` with the parts while holding the books.

        Args:
            work: What to do.
            otherwise: What to return where nothing can be opened, or from inside another use on this thread.

        Raises:
            SpoolError: An error of the operating system came up.
        """
        self._opened()
        with self._books:
            # Only now: while this thread waited, they may have been opened again.
            parts = self._parts
            if self._reading or parts is None:
                return otherwise
            self._reading = get_ident()
            try:
                result = work(parts)
                self._settle_later(parts)
                if parts.ledger.found_gaps:
                    self._report(parts)
            except OSError as error:
                raise translated(error, "using", parts.log.placing.path) from error
            except BaseException:
                self._suspect = True
                raise
            finally:
                self._reading = 0
        if self._later:
            # From a signal handler that ran behind the last look.
            self._using(lambda _: None, None)
        if self._waiting:
            with self._gate:
                self._drain()
        return result

    # ---------------------------------------------------------------- what lanes settled

    def _write_state(self, parts: Parts, name: str, fate: Fate | None, ranges: list[tuple[int, int]]) -> bool:
        """Write down what a lane has settled, or with no fate, pinned; False when that has to wait."""
        try:
            parts.state.write(name, fate, ranges, parts.ledger.settled())
        except OSError as error:
            if not self._unwritten:
                logger.warning("spool_state_unwritten path=%r error=%r", parts.state.path, str(error))
            self._unwritten = True
            return False
        self._unwritten = False
        return True

    # ---------------------------------------------------------------- closing

    def close(self) -> None:
        """See `Spool.close`."""
        if self._pid != os.getpid() or self._closed:
            return
        if self._parts is not None:
            self._syncer.try_again(self._parts.log)
        with self._gate, self._books:
            if self._waiting and not self._busy:
                self._drain()
            self._closed = True
            parts, self._parts = self._parts, None
            if parts is not None:
                if self._unwritten:
                    self._write_state(parts, "", Fate.DELIVERED, [])
                self._close_parts(parts)
        with self._syncer.lock:
            self._syncer.close_unused()

    def _close_parts(self, parts: Parts) -> None:
        for segment in parts.ledger.segments():
            self._syncer.abandon(segment)
        for part in (parts.state, parts.dead):
            with contextlib.suppress(OSError):  # all was written; what close reports are old errors
                part.close()

    def _forget(self) -> None:
        """In a forked child: close all files and do nothing else; the parent goes on with them.

        No lock is taken: a thread of the parent may have held it at the fork, and will never let go of it here.
        """
        self._closed = True
        parts, self._parts = self._parts, None
        if parts is not None:
            self._close_parts(parts)
        self._syncer.close_unused()


def _after_fork_in_child() -> None:
    for spool in list(_living):
        spool._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
