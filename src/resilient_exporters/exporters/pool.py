"""`ExporterPool`: one `send` for many exporters, one stored copy for those that could not take it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.lane import Source
from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.exporters.binding import Binding
from resilient_exporters.exporters.exporter import _MISSING, Exporter, _data_from
from resilient_exporters.policies import Limits, Retry
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.interface import Spool

__all__ = ["ExporterPool"]

_POOL_NAME = "exporterpool"


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

    Raises:
        InvalidConfigError: An argument is wrong.
        SpoolInUse: Another live pool holds the file.
    """

    _alone: ClassVar[bool] = False

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
        safety: str = "process",
        limits: Limits | None = None,
        retry: Retry | None = None,
        connectivity: Callable[[], bool] | None = None,
        reexport_time: float = 1.0,
    ) -> None:
        private = self._private
        settings = private.settings
        self._members: dict[str, Exporter] = {}
        self._prefix = ""
        settings.num_threads = _checked_threads(num_threads)
        settings.waits = _checked_flag("wait_for_result", wait_for_result)
        self._configure(private, transform, use_memory, manual_reexport, tmp_file, save_unsent_data, name)
        settings.sync = _checked_safety(safety) == "power"
        settings.limits = limits or settings.limits
        settings.retry = retry or settings.retry
        settings.connectivity = connectivity
        settings.budget = float(reexport_time)
        members = self._checked_members(exporters)
        self._engine()
        for member_name, member in members:
            self._join(member_name, member)

    def target_name(self) -> str:
        return _POOL_NAME

    # Settings

    @property
    def num_threads(self) -> int:
        """How many exporters are served side by side."""
        return self._private.settings.num_threads

    @num_threads.setter
    def num_threads(self, number: int) -> None:
        self._private.settings.num_threads = _checked_threads(number)

    @property
    def wait_for_result(self) -> bool:
        """Whether `send` waits for results when there is more than one thread."""
        return self._private.settings.waits

    @wait_for_result.setter
    def wait_for_result(self, wait: bool) -> None:
        self._private.settings.waits = _checked_flag("wait_for_result", wait)

    # Exporters

    @property
    def exporters(self) -> dict[str, Exporter]:
        """The exporters by name, in the order in which they were added; a dictionary of the caller's own."""
        return dict(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Exporter]:
        return iter(list(self._members.values()))

    def __bool__(self) -> bool:
        return True

    def add_exporter(self, exporter: Exporter) -> None:
        """Add an exporter; from now on the pool runs its transform and keeps what it does not take.

        Raises:
            InvalidConfigError: It is no exporter, is in a live pool already, or its name is taken.
        """
        self._engine()
        for name, member in self._checked_members([exporter]):
            self._join(name, member)

    def _checked_members(self, exporters: Any) -> list[tuple[str, Exporter]]:
        """The exporters with the names they will have; raises before anything is claimed."""
        if exporters is None:
            return []
        if not isinstance(exporters, Iterable) or isinstance(exporters, Exporter | str | bytes):
            raise InvalidConfigError(f"exporters is a list of exporters or None, not {exporters!r}")
        members = list(exporters)
        for i, member in enumerate(members):
            self._check_member(member, members[:i])
        return self._named(members)

    def _check_member(self, member: object, before: list[Exporter]) -> None:
        if not isinstance(member, Exporter):
            raise InvalidConfigError(f"{member!r} is no exporter: it must be an instance of a subclass of Exporter")
        if member is self or any(member is other for other in (*before, *self._members.values())):
            raise InvalidConfigError(f"{member.name} was given twice: an exporter belongs to one pool, once")
        if (owner := member._owner()) is not None:
            raise InvalidConfigError(f"{member.name} is in the pool {owner.name} already: an exporter belongs to one pool")
        if isinstance(member, ExporterPool):
            if member._contains(self):
                raise InvalidConfigError(f"{member.name} contains {self.name}: a pool cannot be inside itself")
        else:
            type(member)._takes_batches()

    def _contains(self, pool: Exporter) -> bool:
        return any(m is pool or (isinstance(m, ExporterPool) and m._contains(pool)) for m in self._members.values())

    def _named(self, members: list[Exporter]) -> list[tuple[str, Exporter]]:
        """Give each a name: those that users gave stand, the others are numbered in the order in which they join."""
        taken = {self.name, *self._members}
        for member in members:
            name = member._private.name
            if name is not None:
                if name in taken:
                    raise InvalidConfigError(f"the name {name!r} is taken in {self.name}: names must differ")
                taken.add(name)
        named = []
        for member in members:
            name = member._private.name or _numbered(member.target_name(), taken)
            taken.add(name)
            named.append((name, member))
        return named

    def _join(self, name: str, member: Exporter) -> None:
        """Take an exporter in, with what it kept so far."""
        brought = member._hand_over()
        member._private.owner = weakref.ref(self)
        member._private.joined_name = name
        member._private.closed = False
        self._members[name] = member
        root, prefix = self._root()
        engine = root._private.engine
        if engine is not None:
            root._serve(engine, f"{prefix}{name}", member, brought)

    def _serve(self, engine: Engine, path: str, member: Exporter, brought: list[Source]) -> None:
        """Add lanes for an exporter, or for all exporters of a pool, that has joined."""
        leaves = dict(member._leaves(path))
        moved: set[int] = set()
        for spool in {id(source.spool): source.spool for source in brought}.values():
            renamed = {s.lane: _lane_path(path, member, s.lane) for s in brought if s.spool is spool}
            if engine.bring(spool, lambda lane, renamed=renamed: renamed[lane]):  # type: ignore[misc]  # mypy: defaults
                moved.add(id(spool))
        for lane, leaf in leaves.items():
            sources = [s for s in brought if id(s.spool) not in moved and _lane_path(path, member, s.lane) == lane]
            engine.add(lane, Binding(leaf, self._transformer(lane), hold=True), sources)

    def _leaves(self, path: str) -> Iterator[tuple[str, Exporter]]:
        for name, member in self._members.items():
            yield from member._leaves(f"{path}/{name}" if path else name)

    def _root(self) -> tuple[ExporterPool, str]:
        """The outermost pool, and the path of this one in it."""
        owner = self._owner()
        if owner is None:
            return self, ""
        root, prefix = cast(ExporterPool, owner)._root()
        return root, f"{prefix}{self.name}/"

    def _transformer(self, path: str) -> Exporter:
        """Whose transform applies to a lane: the outermost that has one."""
        pool: Exporter = self
        rest = path
        while isinstance(pool, ExporterPool) and not pool._transforms():
            name = next(n for n in pool._members if rest == n or rest.startswith(f"{n}/"))
            pool, rest = pool._members[name], rest[len(name) + 1 :]
        return pool

    # Sending

    def send(self, data: Any = _MISSING, /, **kwargs: Any) -> list[ExportResult]:  # type: ignore[override]  # one per exporter
        """Send a record to every exporter, whatever happens to the others.

        When it returns, each exporter has the record or it is kept for that exporter.

        Args:
            data: Anything but None. With `use_memory=False` it must be of the types that can be written to a file.
            kwargs: Keyword arguments; each goes to the exporters that take it, and is kept with the record.

        Returns:
            One result per exporter, in order. None in background mode (`num_threads` > 1, `wait_for_result=False`).

        Raises:
            DataTypeError: The data cannot be kept; no exporter saw it.
            TypeError: A keyword argument that no exporter takes.
            SpoolError: No exporter took the record and it could not be kept: trying again is safe.
            PoolClosed: After `close`, or in a forked child.
        """
        if data is _MISSING:
            data = _data_from(kwargs)
        if self._owner() is not None:
            return [member.send(data, **kwargs) for member in self._members.values()]
        results = self._send_through(data, kwargs)
        # Background mode answers None, by contract; the annotation is that of the mode that waits.
        return cast("list[ExportResult]", None) if results is None else self._gathered(results, "")

    def _plan(self) -> list[tuple[Exporter | None, list[str]]]:
        lanes = [path for path, _ in self._leaves("")]
        if self._transforms():
            return [(self, lanes)]
        groups: dict[int, tuple[Exporter | None, list[str]]] = {}
        for path in lanes:
            transformer = self._transformer(path)
            owner = transformer if transformer._transforms() else None
            groups.setdefault(id(owner), (owner, []))[1].append(path)
        return list(groups.values())

    def _gathered(self, results: dict[str, ExportResult], prefix: str) -> list[ExportResult]:
        """The lanes' results as the tree that the pools are."""
        gathered = []
        for name, member in self._members.items():
            if not isinstance(member, ExporterPool):
                result = results[f"{prefix}{name}"]
                result.exporter = name
                gathered.append(result)
                continue
            inner = member._gathered(results, f"{prefix}{name}/")
            gathered.append(
                ExportResult(
                    inner,
                    all(result.successful for result in inner),
                    error=next((result.error for result in inner if result.error), None),
                    exporter=name,
                    kept=any(result.kept for result in inner),
                )
            )
        return gathered

    def _lanes_named(self, engine: Engine, name: str) -> list[str]:
        if name == self.name:
            return list(engine.lanes)
        lanes = [lane for lane in engine.lanes if lane == name or lane.startswith(f"{name}/")]
        if not lanes:
            raise InvalidConfigError(f"{self.name} has no exporter named {name!r}; it has {', '.join(self._members) or 'none'}")
        return lanes

    # Inside

    def _start(self) -> Engine:
        private = self._private
        engine = Engine(self.name, private.settings, self._open_spool(), private.clock)
        for name, member in self._members.items():
            self._serve(engine, name, member, [])
        return engine

    def _close(self, timeout: float) -> None:
        super()._close(timeout)
        for member in self._members.values():
            member._private.joined_name = member._private.owner = None

    def _disconnect(self) -> None:
        for member in self._members.values():
            member._disconnect()

    def __repr__(self) -> str:
        engine = self._private.engine
        owed = sum(engine.owing().values()) if engine is not None else 0
        return f"<{type(self).__name__} {self.name!r}: {', '.join(self._members) or 'no exporters'}; {owed} owed>"


def _lane_path(path: str, member: Exporter, lane: str) -> str:
    """The lane in the outer pool for a lane that the member had when it was alone."""
    return f"{path}/{lane}" if isinstance(member, ExporterPool) else path


def _numbered(name: str, taken: set[str]) -> str:
    """The name, or the first free `name-2`, `name-3`, ..."""
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _checked_threads(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidConfigError(f"num_threads is an integer of at least 1 (1 = no threads), not {number!r}")
    return number


def _checked_flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidConfigError(f"{what} is True or False, not {value!r}")
    return value


def _checked_safety(safety: object) -> str:
    if safety not in ("process", "power"):
        raise InvalidConfigError(f'safety is "process" or "power", not {safety!r}')
    return str(safety)


_UNUSED = Spool
