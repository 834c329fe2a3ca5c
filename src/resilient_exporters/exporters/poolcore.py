"""What the library does for a pool: its members, their names and lanes, and those of the pools inside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.foreground import Shipment
from resilient_exporters.delivery.lane import Source
from resilient_exporters.exceptions import DataTypeError, ExportError, InvalidConfigError
from resilient_exporters.exporters.binding import Binding, takes_batches
from resilient_exporters.exporters.core import Core
from resilient_exporters.exporters.packing import Packer, private_copy
from resilient_exporters.exporters.signature import check_keywords
from resilient_exporters.records import ExportResult

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["PoolCore"]


class PoolCore(Core):
    """The private side of a pool.

    Lanes are its leaves, exporters that are no pools, each named by its path: `inner/leaf`. The outermost pool has
    the engine that serves them all; the engines of the pools inside rest.

    Attributes:
        members: The exporters by name, in the order in which they were added.
    """

    def __init__(self, exporter: Exporter) -> None:
        super().__init__(exporter)
        self.members: dict[str, Exporter] = {}
        self._moving = threading.RLock()
        """Of the outermost pool: held by whoever adds or removes exporters; `_preparing` while the members change."""

    def claim(self) -> None:
        """A pool takes hold of its file when its engine starts, at the end of its constructor."""

    # Joining

    def checked(self, exporters: Any, base: type[Exporter]) -> list[tuple[str, Exporter]]:
        """The exporters to add with the names they will have; raises before anything is claimed."""
        if exporters is None:
            return []
        if not isinstance(exporters, Iterable) or isinstance(exporters, base | str | bytes):
            raise InvalidConfigError(f"exporters is a list of exporters or None, not {exporters!r}")
        members = list(exporters)
        for i, member in enumerate(members):
            if not isinstance(member, base):
                raise InvalidConfigError(f"{member!r} is no exporter: it must be an instance of a subclass of Exporter")
            self._check(member, members[:i])
        return self._named(members)

    def _check(self, member: Exporter, before: list[Exporter]) -> None:
        if member is self.exporter or any(member is other for other in (*before, *self.members.values())):
            raise InvalidConfigError(f"{member.name} was given twice: an exporter belongs to one pool, once")
        if (pool := member._rex.pool) is not None:
            raise InvalidConfigError(f"{member.name} is in the pool {pool.name}: an exporter belongs to one pool")
        if not isinstance(member._rex, PoolCore):
            try:
                takes_batches(type(member))
            except TypeError as error:
                raise InvalidConfigError(str(error)) from error
        elif member._rex.contains(self.exporter):
            raise InvalidConfigError(f"{member.name} contains {self.name}: a pool cannot be inside itself")

    def contains(self, exporter: Exporter) -> bool:
        """Whether an exporter is in it, at any depth."""
        return any(
            member is exporter or (isinstance(member._rex, PoolCore) and member._rex.contains(exporter))
            for member in self.members.values()
        )

    def _named(self, members: list[Exporter]) -> list[tuple[str, Exporter]]:
        """Give each a name: those that users gave stand, the others are numbered in the order in which they join."""
        taken = {self.name, *self.members}
        for member in members:
            member._rex.take_own_name()
            name = member._rex.given_name
            if name is not None:
                if name in taken:
                    raise InvalidConfigError(f"the name {name!r} is taken in {self.name}: names must differ")
                taken.add(name)
        named = []
        for member in members:
            name = member._rex.given_name or _numbered(member.target_name(), taken)
            taken.add(name)
            named.append((name, member))
        return named

    def add(self, named: list[tuple[str, Exporter]]) -> None:
        """Take exporters in, with what they kept so far."""
        root, prefix = self._root()
        engine = root.engine()
        with root._moving:
            for name, member in named:
                brought = member._rex.join(self.exporter, name)
                with root._preparing:
                    self.members = {**self.members, name: member}
                    root.changed()
                root._serve(engine, f"{prefix}{name}", member, brought)
            root.changed()
        engine.start()

    def remove(self, name: str, *, waits: bool) -> Exporter:
        """Let an exporter, or a pool with all of its exporters, go; it is free again."""
        root, prefix = self._root()
        engine = root.engine()
        with root._moving:
            member = self.members.get(name)
            if member is None:
                has = ", ".join(self.members) or "none"
                raise InvalidConfigError(f"{self.name} has no exporter named {name!r}; it has {has}")
            engine.remove([lane for lane, _ in member._rex.leaves(f"{prefix}{name}")], waits=waits)
            with root._preparing:
                self.members = {other: kept for other, kept in self.members.items() if kept is not member}
                root.changed()
            member._rex.leave()
        return member

    def outermost(self) -> Engine:
        """The engine, of a pool that is in no other: what is owed to absent exporters is that pool's business."""
        if self.pool is not None:
            raise InvalidConfigError(f"{self.name} is in the pool {self.pool.name}: ask the outermost pool for orphans")
        return self.engine()

    def _serve(self, engine: Engine, path: str, member: Exporter, brought: list[Source]) -> None:
        """Add lanes for an exporter, or for all exporters of a pool, that has joined."""
        below = isinstance(member._rex, PoolCore)
        lanes = {source.lane: f"{path}/{source.lane}" if below else path for source in brought}
        if brought and engine.take_over(brought[0].spool, lanes):
            brought = []
        for lane, leaf in member._rex.leaves(path):
            sources = [source for source in brought if lanes[source.lane] == lane]
            engine.add(lane, Binding(leaf, self._transformer(lane), hold=True), sources)

    def _start(self) -> Engine:
        engine = Engine(self.name, self.settings, self.open_spool(), self.clock)
        for name, member in self.members.items():
            self._serve(engine, name, member, [])
        return engine

    def leaves(self, path: str) -> Iterator[tuple[str, Exporter]]:
        for name, member in self.members.items():
            yield from member._rex.leaves(f"{path}/{name}" if path else name)

    def _root(self) -> tuple[PoolCore, str]:
        """The outermost pool, and the path of this one in it."""
        pool = self.pool
        if pool is None:
            return self, ""
        root, prefix = cast(PoolCore, pool._rex)._root()
        return root, f"{prefix}{self.name}/"

    # Sending

    def plan(self) -> list[tuple[Exporter | None, list[str]]]:
        groups: dict[int, tuple[Exporter | None, list[str]]] = {}
        for lane, _ in self.leaves(""):
            transformer = self._transformer(lane)
            owner = transformer if transformer.has_transform() else None
            groups.setdefault(id(owner), (owner, []))[1].append(lane)
        return list(groups.values()) or [(self.exporter if self.exporter.has_transform() else None, [])]

    def _transformer(self, lane: str) -> Exporter:
        """Whose transform applies to a lane: the outermost that has one."""
        exporter, rest = self.exporter, lane
        while isinstance(core := exporter._rex, PoolCore) and not exporter.has_transform():
            name = next(name for name in core.members if rest == name or rest.startswith(f"{name}/"))
            exporter, rest = core.members[name], rest[len(name) + 1 :]
        return exporter

    def is_flat(self) -> bool:
        return bool(self.members) and not any(isinstance(member._rex, PoolCore) for member in self.members.values())

    def strict(self, transformer: Exporter | None) -> bool:
        return transformer is self.exporter

    def gatherer(self) -> Callable[[dict[str, ExportResult]], Any]:
        members = self.members
        return lambda results: _gathered(members, results, "")

    def send_directly(self, data: Any, kwargs: dict[str, Any]) -> list[ExportResult]:
        """The bare calls that a pool inside another one makes: neither transformed nor kept, each on its own copy."""
        if data is None:
            raise DataTypeError("data is None: there is nothing to send")
        root, prefix = self._root()
        leaves = dict(self.leaves(""))
        lanes = root.engine().lanes
        targets = {path: lanes[prefix + path].target for path in leaves}
        check_keywords(kwargs, targets.values())
        results = {path: _directly(leaf, data, targets[path].accepted(kwargs)) for path, leaf in leaves.items()}
        return cast("list[ExportResult]", self.gatherer()(results))

    def _packed(self, packer: Packer, transformer: Exporter | None, data: Any, lanes: list[str]) -> Shipment:
        if transformer is self.exporter:  # the pool's own transform: its errors are the caller's
            return packer.pack(self.exporter.transform(private_copy(data)), lanes)
        return super()._packed(packer, transformer, data, lanes)

    # What is kept

    def check_name(self, name: str) -> None:
        if name != self.name and not any(name == lane or lane.startswith(f"{name}/") for lane, _ in self.leaves("")):
            has = ", ".join(self.members) or "none"
            raise InvalidConfigError(f"{self.name} has no exporter named {name!r}; it has {has}")

    def lanes_named(self, engine: Engine, name: str) -> list[str]:
        self.check_name(name)
        return [lane for lane in engine.lanes if name in (self.name, lane) or lane.startswith(f"{name}/")]

    # Life

    def change_mode(self, **settings: int) -> None:
        """Assign settings that decide whether the pool works in the background."""
        before = self.settings.background
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self.changed()
        if self.settings.background and not before and self._engine is not None:
            self._engine.all_tried()

    def close(self, timeout: float) -> None:
        try:
            super().close(timeout)
        finally:
            if self.ours() and self.pool is None and (self._engine is None or self._engine.ended):
                for member in self._own_members():
                    member._rex.leave()

    def disconnect(self) -> None:
        for member in self._own_members():
            member._rex.disconnect()

    def _own_members(self) -> list[Exporter]:
        """Those that have not gone on to another pool since this one was closed."""
        return [member for member in self.members.values() if member._rex.belongs_to(self.exporter)]


def _gathered(members: dict[str, Exporter], results: dict[str, ExportResult], prefix: str) -> list[ExportResult]:
    """The lanes' results as the tree that the pools are."""
    gathered = []
    for name, member in members.items():
        if isinstance(member._rex, PoolCore):
            gathered.append(_summed(name, _gathered(member._rex.members, results, f"{prefix}{name}/")))
        elif (result := results.get(f"{prefix}{name}")) is not None:  # None: it joined while the record was on its way
            result.exporter = name
            gathered.append(result)
    return gathered


def _directly(leaf: Exporter, data: Any, kwargs: dict[str, Any]) -> ExportResult:
    """One bare call; an exporter's failure is its result."""
    try:
        returned: object = leaf.send(private_copy(data), **kwargs)
    except Exception as error:  # here as everywhere
        return ExportResult(None, False, error=error)
    if not isinstance(returned, ExportResult):
        return ExportResult(None, False, error=ExportError(f"{leaf.name} returned no ExportResult"))
    return ExportResult(returned.returned, returned.successful, error=returned.error)


def _summed(name: str, inner: list[ExportResult]) -> ExportResult:
    """One result for a pool: successful when all of its exporters were."""
    return ExportResult(
        inner,
        all(result.successful for result in inner),
        error=next((result.error for result in inner if result.error), None),
        exporter=name,
        kept=any(result.kept for result in inner),
    )


def _numbered(name: str, taken: set[str]) -> str:
    """The name, or the first free `name-2`, `name-3`, ..."""
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
