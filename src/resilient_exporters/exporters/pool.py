"""`ExporterPool`: one `send` for many exporters, one stored copy for those that could not take it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from resilient_exporters.delivery.reentry import at_work, inside
from resilient_exporters.delivery.shortways import LongWay
from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.exporters.checks import checked_flag, configure
from resilient_exporters.exporters.core import Core
from resilient_exporters.exporters.exporter import MISSING, Exporter
from resilient_exporters.exporters.outermost import data_from
from resilient_exporters.exporters.poolcore import PoolCore
from resilient_exporters.policies import Limits, Retry, Safety
from resilient_exporters.records import ExportResult
from resilient_exporters.status import Event

__all__ = ["ExporterPool"]


class ExporterPool(Exporter):
    """Sends each record to all its exporters, and keeps it, once, for those that did not take it.

    Args:
        exporters: Exporters or pools, in the order of the results; None for none.
        transform: Applied once to a private copy of what is sent; replaces the exporters' own.
        num_threads: How many exporters are served side by side, at least 1; 1 = in the caller's thread.
        wait_for_result: With more than one thread: whether `send` waits for results (True), or keeps the record,
            returns None and delivers in the background (False).
        use_memory: Whether what is kept waits in memory (True) or in a file.
        manual_reexport: Whether what is kept goes out only when `send_unsent_data` is called. Otherwise each `send`
            looks after it first, whenever the targets themselves can be reached; the Internet is not asked.
        tmp_file: Path of that file, or an open binary file object; by default a place derived from program and name.
        save_unsent_data: Whether to keep what an exporter did not take.
        name: Name of the pool; what is kept belongs to it.
        safety: "process": what is kept survives `kill -9`; "power": also a power cut, when the call returns.
        limits: How much is kept, and what happens beyond.
        retry: Pauses between attempts in the background.
        connectivity: Asked, at most once a second, before anything kept is sent; while it says False, that waits.
            `resilient_exporters.has_internet_connection` can be given here.
        reexport_time: Seconds that a `send` in the caller's thread may spend on what is kept.
        observers: Functions that get an `Event` for everything that the log warns of: a target is down or up again,
            records are lost. Each is called in the thread that met it, while that target waits, and must be quick;
            what it sends, into whatever pool, is kept and goes out later; what it raises is logged once. An observer
            that refers to the pool keeps it alive until `close`. Those of a pool inside another pool are not called.

    Raises:
        InvalidConfigError: An argument is wrong.
        SpoolInUse: Another live pool holds the file.
    """

    _rex_core: ClassVar[type[Core]] = PoolCore

    def __init__(
        self,
        exporters: Iterable[Exporter] | None,
        transform: Callable[..., Any] | None = None,
        num_threads: int = 1,
        wait_for_result: bool = True,
        use_memory: bool = True,
        manual_reexport: bool = False,
        *,
        tmp_file: str | Path | BinaryIO | None = None,
        save_unsent_data: bool = True,
        name: str | None = None,
        safety: Safety = "process",
        limits: Limits | None = None,
        retry: Retry | None = None,
        connectivity: Callable[[], bool] | None = None,
        reexport_time: float = 1.0,
        observers: Iterable[Callable[[Event], object]] = (),
    ) -> None:
        core = self._rex
        settings = core.settings
        settings.num_threads = _checked_threads(num_threads)
        settings.waits = checked_flag("wait_for_result", wait_for_result)
        settings.sync = _checked("safety", safety, safety in ("process", "power")) == "power"
        settings.limits = _checked("limits", limits or Limits(), isinstance(limits, Limits | None))
        settings.retry = _checked("retry", retry or Retry(), isinstance(retry, Retry | None))
        settings.connectivity = _checked("connectivity", connectivity, connectivity is None or callable(connectivity))
        settings.budget = _checked("reexport_time", reexport_time, isinstance(reexport_time, int | float))
        settings.observers = _checked_observers(observers)
        configure(core, transform, use_memory, manual_reexport, tmp_file, save_unsent_data, name)
        self._pool.add(self._pool.checked(exporters, Exporter))

    @property
    def _pool(self) -> PoolCore:
        return cast(PoolCore, self._rex)

    def target_name(self) -> str:
        """The one name of all pools that were given none."""
        return "exporterpool"

    @property
    def num_threads(self) -> int:
        """How many exporters are served side by side."""
        return self._rex.settings.num_threads

    @num_threads.setter
    def num_threads(self, number: int) -> None:
        self._rex.check_open()
        self._pool.change_mode(num_threads=_checked_threads(number))

    @property
    def wait_for_result(self) -> bool:
        """Whether `send` waits for results when there is more than one thread."""
        return self._rex.settings.waits

    @wait_for_result.setter
    def wait_for_result(self, wait: bool) -> None:
        self._rex.check_open()
        self._pool.change_mode(waits=checked_flag("wait_for_result", wait))

    @property
    def exporters(self) -> dict[str, Exporter]:
        """The exporters by name, in the order in which they were added; a dictionary of the caller's own."""
        return dict(self._pool.members)

    def __len__(self) -> int:
        return len(self._pool.members)

    def __iter__(self) -> Iterator[Exporter]:
        return iter(self.exporters.values())

    def __bool__(self) -> bool:
        return True

    def add_exporter(self, exporter: Exporter) -> None:
        """Add an exporter; from now on the pool runs its transform and keeps what it does not take.

        Raises:
            InvalidConfigError: It is no exporter, is in a live pool already, or its name is taken.
        """
        self._pool.add(self._pool.checked([exporter], Exporter))

    def remove_exporter(self, name: str) -> Exporter:
        """Take an exporter, or a pool inside this one, out of it: it is free again, its connection stays as it is.

        What it is owed stays with the pool, is listed in `status().orphans`, counts in `has_unsent_data()`, and goes
        out when an exporter of that name is added. So does a record that was on its way to it meanwhile.

        Args:
            name: Its name, as in `exporters`.

        Returns:
            The exporter.

        Raises:
            InvalidConfigError: No exporter here has that name.
            TimeoutError: A call into it has not ended within its `timeout`; it stays in the pool. From inside an
                exporter, a transform or an observer there is no waiting.
            SpoolError: There is no room for what it had kept before it joined; it stays in the pool.
            PoolClosed: After `close`, or in a forked child.
        """
        return self._pool.remove(name, waits=not inside.here.calls)

    def adopt_orphan(self, name: str, exporter_name: str) -> int:
        """Give what is owed to an exporter that is not in the pool any more to one that is.

        The records are kept anew, with new ids, behind what that exporter is owed already, and keep their time: a
        target that keeps accounts of ids, to take each record once, would otherwise take them for others, or for
        records that it has. When the call returns they are safe against a power cut, if what is kept is in a file.
        A crash during the call may leave some of them owed to both names: then they are delivered twice once the
        orphan is adopted, too.

        Args:
            name: Name of the absent exporter, as in `status().orphans`.
            exporter_name: Name of the present one, as in `status().exporters`.

        Returns:
            How many records it was.

        Raises:
            InvalidConfigError: Nothing is owed to `name`, or it is present; or no exporter is named `exporter_name`;
                or this pool is inside another one, which is to be asked then.
            SpoolError: There is no room for all of them; the others stay owed to `name`.
            PoolClosed: After `close`, or in a forked child.
        """
        engine = self._pool.outermost()
        return at_work(lambda: engine.adopt(name, exporter_name))

    def drop_orphan(self, name: str) -> int:
        """Drop what is owed to an exporter that is not in the pool any more.

        Args:
            name: Its name, as in `status().orphans`.

        Returns:
            How many records it was.

        Raises:
            InvalidConfigError: Nothing is owed to that name, or it is present, or this pool is inside another one.
            PoolClosed: After `close`, or in a forked child.
        """
        engine = self._pool.outermost()
        return at_work(lambda: engine.drop(name))

    def send(  # type: ignore[override]  # a pool has one result per exporter
        self, data: Any = MISSING, /, **kwargs: Any
    ) -> list[ExportResult]:
        """Send a record to every exporter, whatever happens to the others.

        When it returns, each exporter has the record or it is kept for that exporter.

        Args:
            data: Anything but None. With `use_memory=False` of the types that can be written to a file.
            kwargs: Keyword arguments; each goes to the exporters that take it, and is kept with the record.

        Returns:
            One result per exporter, in order. None in background mode (`num_threads` > 1, `wait_for_result=False`).

        Raises:
            DataTypeError: The data cannot be kept; no exporter saw it.
            TypeError: A keyword argument that no exporter takes.
            SpoolError: No exporter took the record and it could not be kept: trying again is safe.
            PoolClosed: After `close`, or in a forked child.
        """
        # Background mode answers None, by contract; the annotation is that of the mode that waits.
        if not kwargs:
            try:
                return self._rex.quick(data)  # type: ignore[no-any-return]
            except LongWay:
                pass  # nothing has happened
        return self._send_long(data, kwargs)  # type: ignore[no-any-return]

    def _send_long(self, data: Any, kwargs: dict[str, Any]) -> Any:
        core = self._pool
        if data is MISSING:
            data = data_from(kwargs)
        if core.pool is not None:
            return core.send_directly(data, kwargs)
        results = core.send(data, kwargs)
        return None if results is None else core.gatherer()(results)

    def __repr__(self) -> str:
        members = ", ".join(self._pool.members) or "no exporters"
        return f"<{type(self).__name__} {self.name!r}: {members}; {self._rex.owed()}>"


def _checked(what: str, value: Any, good: bool) -> Any:
    if not good:
        raise InvalidConfigError(f"{what} cannot be {value!r}")
    return value


def _checked_observers(observers: object) -> tuple[Callable[[Event], object], ...]:
    if not isinstance(observers, Iterable):
        raise InvalidConfigError(f"observers is a list of functions, not {observers!r}")
    found = tuple(observers)
    for observer in found:
        if not callable(observer):
            raise InvalidConfigError(f"an observer is a function, not {observer!r}")
    return found


def _checked_threads(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidConfigError(f"num_threads is an integer of at least 1 (1 = no threads), not {number!r}")
    return number
