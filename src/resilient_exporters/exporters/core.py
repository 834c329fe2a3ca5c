"""What the library does for one exporter, kept in one object so that its author may use any attribute name."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from resilient_exporters.delivery.attempt import described
from resilient_exporters.delivery.clock import Clock, SystemClock
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.foreground import Shipment
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.lane import Source
from resilient_exporters.delivery.parcel import Lot
from resilient_exporters.delivery.process import Birth, refuse_fork
from resilient_exporters.delivery.receipt import Receipt
from resilient_exporters.delivery.reentry import at_work, inside
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.shortways import ShortWay, no_short_way
from resilient_exporters.exceptions import DataTypeError, InvalidConfigError, PoolClosed
from resilient_exporters.exporters.binding import Binding
from resilient_exporters.exporters.checks import checked_name
from resilient_exporters.exporters.deadletters import below, is_at
from resilient_exporters.exporters.ending import end, watch
from resilient_exporters.exporters.location import opened
from resilient_exporters.exporters.packing import Packer, chunks
from resilient_exporters.exporters.signature import check_keywords
from resilient_exporters.records import ExportResult, RecordId
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.interface import Spool
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.status import PoolStatus

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["Core"]

_log = logging.getLogger("resilient_exporters")


class Core:
    """The private side of an exporter that is alone: settings, the engine that delivers, the pool it may be in.

    Attributes:
        settings: What the user chose.
        function: The transform given, or None.
        memory: Whether what is kept waits in memory.
        quick: The short way of a plain record, prepared by the record before.
        tmp_file: Where it waits otherwise; None = the default place.
        given_name: The name that the user gave, or None.
        joined_name: Its name in the pool that it is in, or None.
        connected: Whether `open` was called, and no `close` since.
        closing: Whether the exporter's own `close` runs.
        closed: Whether the user closed it.
    """

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = weakref.ref(exporter)
        self.settings = Settings()
        self.function: Callable[[Any], Any] | None = None
        self.memory = True
        self.tmp_file: Path | BinaryIO | None = None
        self.given_name: str | None = None
        self.joined_name: str | None = None
        self.connected = self.closing = self.closed = False
        self.clock: Clock = SystemClock()
        self._pool: weakref.ref[Exporter] | None = None
        self._engine: Engine | None = None
        self._spool: Spool | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._born = Birth.now
        self._numbers = itertools.count(1)
        self._run = 0
        self.quick: ShortWay = no_short_way
        self._route: list[tuple[Exporter | None, list[str]]] | None = None
        self._changes = 0
        self._preparing = threading.RLock()

    def changed(self) -> None:
        """Something that a send depends on has changed: forget what was prepared for the next, or is being prepared."""
        with self._preparing:
            self._changes += 1
            self.quick, self._route = no_short_way, None

    def claim(self) -> None:
        """Take hold of a file that the user named; a pool of its own does so when it starts."""
        if not self.memory and self.tmp_file is not None:
            self._spool = opened(self.tmp_file, self.name, self.settings.limits)

    def next_id(self) -> RecordId:
        """An id for a record that does not come from an engine."""
        if not self._run:
            self._run = int.from_bytes(os.urandom(8), "big") or 1
        return RecordId(self._run, next(self._numbers))

    def lane(self) -> str:
        """The name of its lane, in whatever pool."""
        pool = self.pool
        return self.name if pool is None or not pool._rex.pool else f"{pool._rex.lane()}/{self.name}"

    @property
    def exporter(self) -> Exporter:
        exporter = self._exporter()
        assert exporter is not None  # whoever asks was reached through it
        return exporter

    @property
    def name(self) -> str:
        return self.joined_name or self.given_name or self.exporter.target_name()

    def take_own_name(self) -> None:
        """Take a `name` that the author wrote into the class, as attribute or property, for one that was given."""
        written = next(kind for kind in type(self.exporter).__mro__ if "name" in kind.__dict__)
        if self.given_name is None and "_rex_core" not in written.__dict__:
            self.given_name = checked_name(self.exporter.name)

    # The pool it is in

    @property
    def pool(self) -> Exporter | None:
        """The live pool it is in."""
        pool = self._pool() if self._pool is not None else None
        return pool if pool is not None and not pool._rex.closed else None

    def join(self, pool: Exporter, name: str) -> list[Source]:
        """Belong to a pool from now on; what was kept so far, for the pool to deliver."""
        brought = self._hand_over()
        self.changed()
        self._pool, self.joined_name, self.closed = weakref.ref(pool), name, False
        return brought

    def belongs_to(self, pool: Exporter) -> bool:
        """Whether it has joined that pool, closed or not, and no other since."""
        return self._pool is not None and self._pool() is pool

    def leave(self) -> None:
        """Be free again."""
        self._pool = self.joined_name = None
        self.changed()

    def _hand_over(self) -> list[Source]:
        engine = self._engine
        if engine is None and not self.memory and not self.closed:
            engine = self.engine()
        if engine is None:
            return []
        self._engine = None
        if self._finalizer is not None:
            self._finalizer.detach()
        spool = engine.release()
        lanes = dict.fromkeys([*spool.owing(), *(letter.lane for letter in spool.dead_letters())])
        return [Source(spool, lane, brought=True) for lane in lanes]

    def leaves(self, path: str) -> Iterator[tuple[str, Exporter]]:
        """The exporters that lanes are for, by path."""
        yield path, self.exporter

    # The engine

    def engine(self) -> Engine:
        """The engine that delivers when it is in no pool, started when first needed.

        Raises:
            PoolClosed, PoolForked: It was closed, or belongs to the process that this one was forked from.
        """
        self.check_open()
        if self._engine is None:
            self.take_own_name()
            self._engine = self._start()
            self._finalizer = watch(self.exporter, self._engine)
        return self._engine

    def check_open(self) -> None:
        """Raise PoolClosed after `close`, PoolForked in a forked child."""
        if not self.ours():
            refuse_fork(self.name)
        if self.closed:
            raise PoolClosed(f"{self.name} was closed; make a new one")

    def _start(self) -> Engine:
        exporter = self.exporter
        engine = Engine(self.name, self.settings, self.open_spool(), self.clock)
        engine.add(self.name, Binding(exporter, exporter, hold=False))
        return engine

    def open_spool(self) -> Spool:
        """Where what is kept waits; what `claim` opened already, else opened now."""
        spool, self._spool = self._spool, None
        if self.memory:
            return MemorySpool(limit_bytes=self.settings.limits.in_memory())
        return spool or opened(self.tmp_file, self.name, self.settings.limits)

    # The way of a record

    def send(self, data: Any, kwargs: dict[str, Any], how: Keep | None = None) -> dict[str, ExportResult] | None:
        """Check, transform a private copy, encode, hand to the engine; results by lane, None in the background."""
        engine = self.engine()
        reentrant = inside.here.calls > 0
        results = at_work(lambda: engine.send(self.shipments(engine, data, kwargs), how or self.how(), reentrant))
        if self.quick is no_short_way:
            self._prepare(engine)
        return results

    def _prepare(self, engine: Engine) -> None:
        """Prepare the short way for the records to come, if there is one."""
        changes = self._changes
        route = self.route()
        if len(route) == 1 and route[0][0] is None and self.is_flat() and not self.closed:
            way = engine.short_way(route[0][1], self.how())
            with self._preparing:
                if changes == self._changes:
                    self.quick = way or no_short_way

    def is_flat(self) -> bool:
        """Whether results are just those of the lanes."""
        return True

    def send_many(
        self, many: Iterable[Any], kwargs: dict[str, Any], how: Keep | None = None
    ) -> dict[str, ExportResult] | None:
        """The same for many records; one result by lane for all of them."""
        engine = self.engine()
        reentrant = inside.here.calls > 0
        return at_work(lambda: engine.send_many(self._lots(engine, many, kwargs), how or self.how(), reentrant))

    def submit(self, data: Any, kwargs: dict[str, Any], how: Keep | None = None) -> Receipt:
        """The same as `send`, with a receipt for the results."""
        engine = self.engine()
        reentrant = inside.here.calls > 0
        kept, gather = how or self.how(), self.gatherer()
        return at_work(lambda: engine.submit(self.shipments(engine, data, kwargs), kept, reentrant, gather))

    def how(self) -> Keep:
        """How records are kept when the call does not say."""
        return Keep(self.settings.sync, self.settings.limits.ttl)

    def gatherer(self) -> Callable[[dict[str, ExportResult]], Any]:
        """What makes of the lanes' results what `send` returns; must not keep the exporter alive."""
        name = self.name
        return lambda results: results[name]

    def _lots(self, engine: Engine, many: Iterable[Any], kwargs: dict[str, Any]) -> Iterator[Lot]:
        """The records in lots: transformed, encoded, grouped by lanes and kind."""
        check_keywords(kwargs, [lane.target for lane in engine.lanes.values()])
        packer = Packer(engine, kwargs, self.memory)
        plan = self.route()
        for chunk in chunks(many):
            for transformer, lanes in plan:
                if lanes:
                    change = None if transformer is None else transformer.transform
                    yield from packer.lots(chunk, change, lanes, strict=self.strict(transformer))

    def strict(self, transformer: Exporter | None) -> bool:
        """Whether a transform's errors are the sender's: those of a pool's own are."""
        return False

    def shipments(self, engine: Engine, data: Any, kwargs: dict[str, Any]) -> list[Shipment]:
        """What is to be sent, packed for the lanes that it is for."""
        if data is None:
            raise DataTypeError("data is None: there is nothing to send")
        if kwargs:
            check_keywords(kwargs, [lane.target for lane in engine.lanes.values()])
        packer = Packer(engine, kwargs, self.memory)
        return [self._packed(packer, transformer, data, lanes) for transformer, lanes in self.route()]

    def route(self) -> list[tuple[Exporter | None, list[str]]]:
        """Whose transform applies to which lanes, worked out once."""
        route = self._route
        if route is None:
            with self._preparing:  # whoever comes or goes does so before or after
                route = self._route = self.plan()
        return route

    def _packed(self, packer: Packer, transformer: Exporter | None, data: Any, lanes: list[str]) -> Shipment:
        return packer.pack(data, lanes) if transformer is None else packer.pack_for(transformer, data, lanes)

    def plan(self) -> list[tuple[Exporter | None, list[str]]]:
        """Whose transform applies to which lanes."""
        return [(self.exporter if self.exporter.has_transform() else None, [self.name])]

    # What is kept

    def send_unsent(self, path: str = "") -> list[ExportResult]:
        """Make a pass over what is owed, for the lanes at and below a path."""
        pool = self.pool
        if pool is not None:
            return pool._rex.send_unsent(below(self.name, path))
        engine = self.engine()
        if inside.here.calls:
            return []
        return at_work(lambda: engine.send_unsent([lane for lane in engine.lanes if is_at(lane, path)]))

    def has_unsent(self, path: str = "") -> bool:
        """Whether anything is owed at or below a path."""
        pool = self.pool
        if pool is not None:
            return pool._rex.has_unsent(below(self.name, path))
        engine = self._engine if self.closed else self.engine()
        return engine is not None and any(is_at(lane, path) for lane in engine.owing())

    def save(self, data: Any, kwargs: dict[str, Any], name: str) -> None:
        """Keep a record for the exporter of that name, or for all when it is this one's own."""
        pool = self.pool
        if pool is not None:
            self.check_name(name)
            pool._rex.save(data, kwargs, self.name if name == self.name else below(self.name, name))
            return
        engine = self.engine()
        if data is None:
            raise DataTypeError("data is None: there is nothing to keep")
        lanes = self.lanes_named(engine, name)
        if not lanes:
            raise InvalidConfigError(f"{self.name} has no exporters to keep a record for: add one first")
        at_work(lambda: engine.save(Packer(engine, dict(kwargs or {}), self.memory).parcel(data), lanes))

    def check_name(self, name: str) -> None:
        """Raise unless an exporter of that name is here."""
        if name != self.name:
            raise InvalidConfigError(f"{self.name} has no exporter named {name!r}")

    def lanes_named(self, engine: Engine, name: str) -> list[str]:
        self.check_name(name)
        return list(engine.lanes)

    def set_memory(self, memory: bool) -> None:
        """Move what is kept to memory or to the file."""
        self.check_open()
        if memory == self.memory:
            return
        if self.pool is None:
            engine = self.engine()
            at_work(lambda: self._to_memory(engine) if memory else self._to_file(engine))
        self.memory = memory
        self.changed()

    def _to_memory(self, engine: Engine) -> None:
        engine.keeper.switch(BackedSpool(engine.spool, limit_bytes=self.settings.limits.in_memory()))

    def _to_file(self, engine: Engine) -> None:
        if isinstance(engine.spool, BackedSpool):
            engine.keeper.switch_back()
            return
        file = opened(self.tmp_file, self.name, self.settings.limits)
        try:
            engine.switch_to_file(file)
        except BaseException:
            file.close()
            raise

    # Life

    def ours(self) -> bool:
        """Whether it was made in this process, and not in the one that this was forked from."""
        return self._born is Birth.now

    def sync(self) -> None:
        """Make everything kept safe against a power cut."""
        pool = self.pool
        if pool is not None:
            pool._rex.sync()
        else:
            engine = self.engine()
            at_work(engine.spool.sync)

    def status(self) -> PoolStatus:
        """What a pool tells about itself; inside another pool, that pool's view of its lanes."""
        pool = self.pool
        if pool is not None:
            whole = pool._rex.status()
            lanes = tuple(lane for lane in whole.exporters if is_at(lane.name, self.name))
            return replace(whole, name=self.name, exporters=lanes, orphans=())
        engine = self._engine if self.closed else self.engine()
        return engine.status() if engine is not None else PoolStatus(self.name)

    def flush(self, timeout: float | None) -> bool:
        """Deliver what can be delivered; whether nothing is left."""
        if self.pool is not None or inside.here.calls:
            return not self.has_unsent()
        engine = self.engine()
        return at_work(lambda: engine.flush(timeout))

    def close(self, timeout: float) -> None:
        """Let go of everything, once; in a forked child of nothing."""
        if not self.ours():
            return
        if self.pool is None:  # also when it is closed: an interrupt may have left something to do
            if not self.closed:
                self.closed = True
                self.changed()
            if self._engine is not None:
                end(self._engine, timeout, dropped=False)
            elif self._spool is not None:
                self._spool.close()
        self.disconnect()

    def connect(self) -> None:
        """Call the exporter's `open` unless the connection is there."""
        if not self.connected:
            self.exporter.open()
            self.connected = True

    def disconnect(self) -> None:
        """Call the exporter's own `close`; one that fails holds up nothing."""
        self.connected, self.closing = False, True
        try:
            self.exporter.close()
        except Exception as error:
            _log.warning("exporter_close_failed exporter=%s error=%s", self.name, described(error))
        finally:
            self.closing = False

    def owed(self) -> str:
        """How much is owed, for `repr`; a forked child cannot know."""
        if not self.ours():
            return "made before the fork"
        return f"{sum(self._engine.owing().values()) if self._engine is not None else 0} owed"
