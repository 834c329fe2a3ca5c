"""`Exporter`, the base of every exporter: what users call on it, and what its authors write."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn, Self

from resilient_exporters import codec
from resilient_exporters.delivery.clock import Clock, SystemClock
from resilient_exporters.delivery.engine import Engine, Settings, Shipment
from resilient_exporters.delivery.lane import Source
from resilient_exporters.delivery.parcel import copied
from resilient_exporters.delivery.process import Birth, refuse_fork
from resilient_exporters.delivery.reentry import inside
from resilient_exporters.exceptions import DataTypeError, InvalidConfigError, PoolClosed, SpoolInUse
from resilient_exporters.exporters.binding import Binding
from resilient_exporters.exporters.location import default_location
from resilient_exporters.exporters.signature import Keywords
from resilient_exporters.records import Batch, ExportResult, Record, RecordId
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.interface import Flag, Opaque, Payload, Spool
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["Exporter"]

_log = logging.getLogger("resilient_exporters")

_MISSING: Any = object()
_EXIT_TIMEOUT = 5.0
"""Seconds that the end of the interpreter waits for background pools."""


@dataclass(slots=True, eq=False)
class _Private:
    """All that the library keeps about one exporter; made when first asked for, so that nobody must call `__init__`.

    Attributes:
        owner: The pool it is in, weakly, or None.
        joined_name: Its name in that pool.
    """

    settings: Settings = field(default_factory=Settings)
    transform: Callable[[Any], Any] | None = None
    memory: bool = True
    tmp_file: str | Path | BinaryIO | None = None
    name: str | None = None
    joined_name: str | None = None
    owner: weakref.ref[Exporter] | None = None
    engine: Engine | None = None
    clock: Clock = field(default_factory=SystemClock)
    finalizer: Any = None
    closed: bool = False
    closing: bool = False
    connected: bool = False
    numbers: int = 0
    born: object = field(default_factory=lambda: Birth.now)


class Exporter:
    """Sends records to one target, and keeps what the target did not take until it does.

    Writing an exporter: subclass, and write one method, either `send(data, **keywords) -> ExportResult` for one
    record or `export(batch, **keywords)` for many. Everything else has a default.

    Args:
        transform: Applied to a private copy of what is sent, once; what it returns is what is sent and kept.
        use_memory: Whether what is kept waits in memory (True) or in a file.
        manual_reexport: Whether what is kept goes out only when `send_unsent_data` is called.
        tmp_file: Path of that file, or an open binary file object; by default a place derived from program and name.
        save_unsent_data: Whether to keep what the target did not take.
        name: Name under which records are owed; by default derived from the target.
        timeout: Seconds that one attempt may take, above 0.

    Raises:
        InvalidConfigError: An argument is wrong.
        SpoolInUse: Another live pool holds `tmp_file`.
    """

    atomic: ClassVar[bool] = False
    """Whether an exception out of `export` means that nothing of the batch was stored."""
    stable_batches: ClassVar[bool] = False
    """Whether a batch that may have arrived must be repeated with the same records, because `batch.token` names it."""
    guarantee: ClassVar[str] = "at least once"
    """What its target ends up with: "exact", "window" or "at least once"."""
    batch_records: int = 1000
    """Most records in one batch, at least 1."""
    batch_bytes: int = 1 << 20
    """A batch ends when its payloads reach that many bytes."""
    timeout: float = 30.0
    """Seconds that one attempt may take."""

    def __init__(
        self,
        transform: Callable[[Any], Any] | None = None,
        use_memory: bool = True,
        manual_reexport: bool = False,
        *,
        tmp_file: str | Path | BinaryIO | None = None,
        save_unsent_data: bool = True,
        name: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        private = self._private
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidConfigError(f"timeout is a number of seconds above 0, not {timeout!r}")
        self.timeout = float(timeout)
        self._configure(private, transform, use_memory, manual_reexport, tmp_file, save_unsent_data, name)
        if not private.memory and tmp_file is not None and type(self)._alone:
            self._engine()

    def _configure(
        self,
        private: _Private,
        transform: Callable[[Any], Any] | None,
        use_memory: bool,
        manual_reexport: bool,
        tmp_file: str | Path | BinaryIO | None,
        save_unsent_data: bool,
        name: str | None,
    ) -> None:
        """Check what exporters and pools have in common, and take it over."""
        if transform is not None and not callable(transform):
            raise InvalidConfigError(f"transform is a function or None, not {transform!r}")
        if name is not None:
            private.name = _checked_name(name)
        private.transform = transform
        private.memory = _checked_flag("use_memory", use_memory)
        private.settings.manual = _checked_flag("manual_reexport", manual_reexport)
        private.settings.saves = _checked_flag("save_unsent_data", save_unsent_data)
        private.tmp_file = _checked_place(tmp_file)

    _alone: ClassVar[bool] = True
    """Whether it has a lane of its own when it is in no pool; a pool has those of its exporters."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let an outermost `send` or `close` go through the library, and an inner one be the bare call."""
        super().__init_subclass__(**kwargs)
        if not cls._alone or "_alone" in cls.__dict__:
            return
        for name, wrap in (("send", _outermost_send), ("close", _outermost_close)):
            function = getattr(cls, name)
            if not hasattr(function, "bare") and function is not getattr(Exporter, name):
                setattr(cls, name, wrap(function))

    @classmethod
    def _takes_batches(cls) -> bool:
        """Whether `export`, and not `send`, is what the most derived class wrote."""
        for kind in cls.__mro__:
            if kind is Exporter:
                break
            if "export" in kind.__dict__:
                return True
            if "send" in kind.__dict__:
                return False
        raise TypeError(f"{cls.__name__} is no exporter yet: it must override `send` or `export`")

    @classmethod
    def _bare_send(cls) -> Callable[..., ExportResult]:
        """The `send` that the author wrote, without the library around it."""
        function: Any = cls.send
        bare: Callable[..., ExportResult] = getattr(function, "bare", function)
        return bare

    # For authors of exporters

    def export(self, batch: Batch, **options: Any) -> None:
        """Hand a batch to the target; override this or `send`.

        Called by one thread at a time, not always the same one, never again before it returned. All records of the
        batch belong to one run and were sent with the same keyword arguments: those that the signature names (all with
        `**options`) arrive as keywords. `batch.records[i].data` is the data, an object of the exporter's own;
        `batch.records[i].id` never changes, `batch.token` names the batch, `batch.deadline` is when to be done.

        Returning means: the target has all of it. Otherwise raise

        - `TargetDown(retry_after=seconds)` or any other error: nothing is settled, all of it is tried again later;
        - `TargetMisconfigured`: the same, and an alarm: somebody must change something;
        - `RecordsRefused(permanent={index: reason}, later={index: reason})`: the target has all others.
        """
        raise TypeError(f"{type(self).__name__} is no exporter yet: it must override `send` or `export`")

    def open(self) -> None:
        """Connect. Called before the first export, and again after a `close`. May raise what `export` may."""

    def probe(self) -> None:
        """Ask cheaply whether the target is there; raise what `export` may when it is not."""

    def target_name(self) -> str:
        """The name of an unnamed exporter: made from its target, without secrets, the same at each run."""
        return type(self).__name__

    # Names and settings

    @property
    def _private(self) -> _Private:
        private = self.__dict__.get("_rex")
        if private is None:
            private = self.__dict__["_rex"] = _Private()
        assert isinstance(private, _Private)
        return private

    @property
    def name(self) -> str:
        """The name under which records are owed to it."""
        private = self._private
        return private.joined_name or private.name or self.target_name()

    @name.setter
    def name(self, name: str) -> None:
        if self._owner() is not None:
            raise InvalidConfigError(f"{self.name} is in a pool, where records are owed to its name: name it before")
        self._private.name = _checked_name(name)

    @property
    def manual_reexport(self) -> bool:
        """Whether what is kept goes out only when `send_unsent_data` is called."""
        return self._private.settings.manual

    @manual_reexport.setter
    def manual_reexport(self, manual: bool) -> None:
        self._private.settings.manual = _checked_flag("manual_reexport", manual)

    def transform(self, data: Any) -> Any:
        """Apply the transform given to the constructor.

        Raises:
            DataTypeError: It returned None.
        """
        function = self._private.transform
        if function is None:
            return data
        changed = function(data)
        if changed is None:
            raise DataTypeError(f"the transform of {self.name} returned None: it must return the data")
        return changed

    def _transforms(self) -> bool:
        """Whether it has a transform of its own."""
        return self._private.transform is not None or type(self).transform is not Exporter.transform

    # Sending

    def send(self, data: Any = _MISSING, /, **kwargs: Any) -> ExportResult:
        """Send one record; what the target does not take is kept and sent later.

        Args:
            data: Anything but None. With `use_memory=False` it must be of the types that can be written to a file.
            kwargs: Keyword arguments of this exporter, kept with the record.

        Returns:
            The result; nothing that the target does makes it raise.

        Raises:
            DataTypeError: The data cannot be kept.
            TypeError: A keyword argument is not known.
            SpoolError: The target did not take the record, and it could not be kept.
            PoolClosed: After `close`.
        """
        if data is _MISSING:
            data = _data_from(kwargs)
        if inside.exporter is self:
            return self._export_one(data, kwargs)
        if self._owner() is not None:
            return self._direct(data, kwargs)
        return self._send_alone(data, kwargs)

    def _send_alone(self, data: Any, kwargs: dict[str, Any]) -> ExportResult:
        results = self._send_through(data, kwargs)
        assert results is not None  # one exporter alone has no background
        return results[self.name]

    def _send_through(self, data: Any, kwargs: dict[str, Any]) -> dict[str, ExportResult] | None:
        """The way of every record: check, transform a private copy, encode, hand to the engine."""
        engine = self._engine()
        reentrant = inside.calls > 0
        with _at_work():
            shipments = self._shipments(engine, data, kwargs)
            return engine.send(shipments, reentrant)

    def _shipments(self, engine: Engine, data: Any, kwargs: dict[str, Any]) -> list[Shipment]:
        if data is None:
            raise DataTypeError("data is None: there is nothing to send")
        self._check_keywords(engine, kwargs)
        packer = _Packer(engine, kwargs, self._private.memory)
        shipments = []
        for transformer, lanes in self._plan():
            if transformer is None:
                shipments.append(packer.pack(data, lanes))
            elif transformer is self and not self._alone:
                shipments.append(packer.pack(self.transform(_private_copy(data)), lanes))
            else:
                shipments.append(packer.pack_for(transformer, data, lanes))
        return shipments

    def _check_keywords(self, engine: Engine, kwargs: dict[str, Any]) -> None:
        bindings = [lane.target for lane in engine.lanes.values()]
        for name in kwargs:
            if bindings and not any(target.accepted({name: None}) for target in bindings):
                raise TypeError(f"send() got an unexpected keyword argument {name!r}: no exporter of {self.name} takes it")

    def _plan(self) -> list[tuple[Exporter | None, list[str]]]:
        """Whose transform applies to which lanes."""
        return [(self if self._transforms() else None, [self.name])]

    def _direct(self, data: Any, kwargs: dict[str, Any]) -> ExportResult:
        """The bare call on an exporter in a pool: neither transformed nor kept."""
        try:
            self._connect()
            return self._export_one(data, kwargs)
        except Exception as error:  # an exporter's failure is its result, here as everywhere
            return ExportResult(None, False, error=error, exporter=self.name)

    def _export_one(self, data: Any, kwargs: dict[str, Any]) -> ExportResult:
        """`export` for one record: what `super().send()` means inside an exporter that takes batches."""
        private, current = self._private, inside.record
        private.numbers += 1
        id = current.id if current is not None else RecordId(0, private.numbers)
        record = Record(id, current.time if current is not None else time.time(), kwargs, lambda: data)
        deadline = private.clock.now() + self.timeout
        self.export(Batch([record], lane=self.name, run=id.run, numbers=[id.number], deadline=deadline), **kwargs)
        return ExportResult(None, True)

    # What is kept

    def send_unsent_data(self) -> list[ExportResult]:
        """Try to send what was kept, oldest first; one result per export attempted."""
        owner = self._owner()
        if owner is not None:
            return owner._send_unsent_of(self.name)
        if inside.calls:
            return []
        with _at_work():
            return self._engine().send_unsent()

    def _send_unsent_of(self, name: str) -> list[ExportResult]:
        owner = self._owner()
        if owner is not None:
            return owner._send_unsent_of(f"{self.name}/{name}")
        if inside.calls:
            return []
        engine = self._engine()
        with _at_work():
            return engine.send_unsent([n for n in engine.lanes if n == name or n.startswith(f"{name}/")])

    def has_unsent_data(self) -> bool:
        """Whether anything is kept and still owed."""
        owner = self._owner()
        if owner is not None:
            return owner._owes(self.name)
        engine = self._private.engine
        if engine is None and not self._private.closed:
            engine = self._engine()
        return engine is not None and bool(engine.owing())

    def _owes(self, name: str) -> bool:
        owner = self._owner()
        if owner is not None:
            return owner._owes(f"{self.name}/{name}")
        return any(n == name or n.startswith(f"{name}/") for n in self._engine().owing())

    def save_unsent_data(self, data: Any, kwargs: dict[str, Any], exporter_name: str) -> None:
        """Keep a record, taken as transformed already, for one exporter.

        Args:
            data: The data.
            kwargs: The keyword arguments to send it with.
            exporter_name: Name of the exporter; the name of the pool itself means all of them.

        Raises:
            InvalidConfigError: There is no exporter of that name.
            DataTypeError: The data cannot be kept.
        """
        owner = self._owner()
        if owner is not None:
            owner.save_unsent_data(data, kwargs, self.name)
            return
        engine = self._engine()
        if data is None:
            raise DataTypeError("data is None: there is nothing to keep")
        lanes = self._lanes_named(engine, exporter_name)
        with _at_work():
            engine.save(_Packer(engine, dict(kwargs or {}), self._private.memory).parcel(data), lanes)

    def _lanes_named(self, engine: Engine, name: str) -> list[str]:
        if name != self.name:
            raise InvalidConfigError(f"{self.name} has no exporter named {name!r}")
        return list(engine.lanes)

    @property
    def use_memory(self) -> bool:
        """Whether what is kept waits in memory; setting it moves what is kept.

        Raises:
            SpoolError: The other place cannot take everything; nothing has changed then.
        """
        return self._private.memory

    @use_memory.setter
    def use_memory(self, memory: bool) -> None:
        private = self._private
        _checked_flag("use_memory", memory)
        if memory == private.memory:
            return
        if private.engine is None and self._owner() is None and not private.closed:
            self._engine()
        engine = private.engine
        if engine is not None:
            engine.check_open()
            with _at_work():
                self._to_memory(engine) if memory else self._to_file(engine)
        private.memory = memory

    def _to_memory(self, engine: Engine) -> None:
        engine.switch(BackedSpool(engine.spool), undo=lambda: None)

    def _to_file(self, engine: Engine) -> None:
        old = engine.spool
        if isinstance(old, BackedSpool):
            engine.switch_back(old.file.undo_appends)
            return
        file = self._open_file()
        try:
            engine.switch(file, undo=file.undo_appends)
        except BaseException:
            file.close()
            raise

    # Life

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what can be delivered now.

        Args:
            timeout: Most seconds to wait; None = as long as it takes, which is for ever when a target stays down.

        Returns:
            Whether nothing is left that a present exporter owes.
        """
        if inside.calls:
            return not self.has_unsent_data()
        engine = self._engine()
        with _at_work():
            return engine.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Deliver in the background what can be delivered within `timeout` seconds, then let go of everything.

        An exporter may override it, without arguments, to drop its connection: it is then also called after an
        export that left the connection doubtful; `open` follows before the next one.
        """
        if not self._private.closing:
            self._close(timeout)

    def _close(self, timeout: float) -> None:
        private = self._private
        if private.born is not Birth.now:
            return
        if self._owner() is None and not private.closed:
            private.closed = True
            engine = private.engine
            if engine is not None:
                _end(engine, timeout, dropped=False)
        self._disconnect()

    def _connect(self) -> None:
        """Call `open` unless the connection is there."""
        private = self._private
        if not private.connected:
            self.open()
            private.connected = True

    def _disconnect(self) -> None:
        """Call the exporter's own `close`."""
        private = self._private
        private.connected, private.closing = False, True
        try:
            self.close()
        finally:
            private.closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        engine = self._private.engine
        owed = sum(engine.owing().values()) if engine is not None else 0
        return f"<{type(self).__name__} {self.name!r}, {owed} owed>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: what it keeps and its connection belong to one object"
        )

    # Inside

    def _leaves(self, path: str) -> Iterator[tuple[str, Exporter]]:
        """The exporters that lanes are for, by path."""
        yield path, self

    def _owner(self) -> Exporter | None:
        """The live pool it is in."""
        reference = self._private.owner
        owner = reference() if reference is not None else None
        return owner if owner is not None and not owner._private.closed else None

    def _engine(self) -> Engine:
        """The engine that delivers for it when it is in no pool, started when first needed."""
        private = self._private
        if private.born is not Birth.now:
            refuse_fork(self.name)
        if private.closed:
            raise PoolClosed(f"{self.name} was closed; make a new one")
        if private.engine is None:
            private.engine = self._start()
            _live.add(private.engine)
            private.finalizer = weakref.finalize(self, _end, private.engine, 0.0, dropped=True)
            private.finalizer.atexit = False
        return private.engine

    def _start(self) -> Engine:
        private = self._private
        binding = Binding(self, self, hold=False)
        engine = Engine(self.name, private.settings, self._open_spool(), private.clock)
        engine.add(self.name, binding)
        return engine

    def _open_spool(self) -> Spool:
        return MemorySpool() if self._private.memory else self._open_file()

    def _open_file(self) -> Any:
        """The file, or file object, that holds what is kept."""
        from resilient_exporters.spool import FileSpool, StreamSpool  # most programs never need them: import in time

        place = self._private.tmp_file
        if place is None:
            try:
                return FileSpool(default_location(self.name), owner=self.name, make_parents=True)
            except SpoolInUse as error:
                raise SpoolInUse(f"{error}; give this one a name of its own (`name=`) or a file (`tmp_file=`)") from error
        if isinstance(place, str | Path):
            return FileSpool(Path(place), owner=self.name)
        return StreamSpool(place, owner=self.name)

    def _hand_over(self) -> list[Source]:
        """What it kept before it joined a pool."""
        private = self._private
        engine, private.engine = private.engine, None
        if engine is None and not private.memory and not private.closed:
            engine, private.engine = self._engine(), None
        if engine is None:
            return []
        private.finalizer.detach()
        spool = engine.release()
        names = list(engine.lanes)
        return [Source(spool, name, brought=True) for name in names if spool.account(name).records]


class _Packer:
    """Makes parcels of data for one send, each distinct outcome of a transform once."""

    def __init__(self, engine: Engine, kwargs: dict[str, Any], memory: bool) -> None:
        self._engine = engine
        self._kwargs = kwargs
        self._memory = memory
        self._options: bytes | None = b""
        if kwargs:
            try:
                self._options = codec.encode_options(kwargs)
            except DataTypeError:
                if not memory:
                    raise
                self._options = None

    def pack(self, data: Any, lanes: list[str]) -> Shipment:
        return Shipment(self.parcel(data), lanes)

    def pack_for(self, transformer: Exporter, data: Any, lanes: list[str]) -> Shipment:
        """Run an exporter's own transform; when it raises, the record is kept as it came, to be transformed later."""
        try:
            changed = transformer.transform(_private_copy(data))
        except Exception as error:
            return Shipment(self.parcel(data, Flag.RAW), lanes, {lane: error for lane in lanes})
        return self.pack(changed, lanes)

    def parcel(self, data: Any, flags: int = 0) -> Any:
        payload = self._payload(data)
        if self._options is None:
            data = payload.data if isinstance(payload, Opaque) else codec.decode(payload)
            return self._engine.parcel(Opaque((data, copied(self._kwargs))), b"", flags | Flag.BUNDLED)
        return self._engine.parcel(payload, self._options, flags)

    def _payload(self, data: Any) -> Payload:
        """The one private snapshot of a send."""
        try:
            return codec.encode(data)
        except DataTypeError:
            if not self._memory:
                raise
            return Opaque(copied(data))


def _private_copy(data: Any) -> Any:
    """An equal object that a transform may change as it likes."""
    try:
        return codec.decode(codec.encode(data))
    except DataTypeError:
        return copied(data)


def _outermost_send(function: Callable[..., Any]) -> Callable[..., Any]:
    """An author's `send` as users call it."""
    keywords = Keywords(function, bound=2)

    @functools.wraps(function)
    def send(self: Exporter, /, *args: Any, **kwargs: Any) -> Any:
        if inside.exporter is self:
            return function(self, *args, **kwargs)
        if self._owner() is not None:
            self._connect()
            return function(self, *args, **kwargs)
        if not args:
            data = _data_from(kwargs, keywords.data)
        else:
            data, *more = args
            if len(more) > len(keywords.order):
                raise TypeError(f"send() takes 1 positional argument, {len(args)} were given")
            kwargs.update(zip(keywords.order, more, strict=False))
        return self._send_alone(data, kwargs)

    send.bare = function  # type: ignore[attr-defined]  # how `_bare_send` finds the author's function
    return send


def _outermost_close(function: Callable[..., Any]) -> Callable[..., Any]:
    """An author's `close` as users call it."""

    @functools.wraps(function)
    def close(self: Exporter, timeout: float = 5.0) -> None:
        if self._private.closing:
            function(self)
        else:
            self._close(timeout)

    close.bare = function  # type: ignore[attr-defined]  # marks it as wrapped
    return close


def _data_from(kwargs: dict[str, Any], name: str = "data") -> Any:
    """The data when it was given by name."""
    for key in (name, "data"):
        if key in kwargs:
            return kwargs.pop(key)
    raise TypeError("send() missing 1 required positional argument: 'data'")


@contextmanager
def _at_work() -> Iterator[None]:
    """Marks the thread, so that a send made meanwhile on it waits for no lane."""
    inside.calls += 1
    try:
        yield
    finally:
        inside.calls -= 1


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidConfigError(f"name is a non-empty str, not {name!r}")
    return name


def _checked_flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidConfigError(f"{what} is True or False, not {value!r}")
    return value


def _checked_place(place: Any) -> str | Path | BinaryIO | None:
    """A path made absolute, so that a later change of folder changes nothing; or a file object."""
    if isinstance(place, str | os.PathLike):
        if not os.fspath(place):
            raise InvalidConfigError("tmp_file is empty: give a path")
        return Path(os.path.abspath(os.fspath(place)))
    if place is None or (hasattr(place, "read") and hasattr(place, "write") and hasattr(place, "seek")):
        return place  # type: ignore[no-any-return]  # an object that reads, writes and seeks
    raise InvalidConfigError(f"tmp_file is a path or an open binary file, not {place!r}")


_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def _end(engine: Engine, timeout: float, *, dropped: bool) -> None:
    """Close an engine, and say what is lost with it."""
    if not engine.ours() or engine.closed:
        return
    left = engine.close(timeout)
    if left:
        _log.warning("closed_owing pool=%s records=%d: they were kept in memory only and are lost", engine.name, left)
        if dropped:
            warnings.warn(
                f"{engine.name} was dropped without close() while it owed {left} records in memory", ResourceWarning, 2
            )


@atexit.register
def _end_all() -> None:
    """At the end of the interpreter: background pools deliver what they can, all say what they leave."""
    ends = time.monotonic() + _EXIT_TIMEOUT
    for engine in list(_live):
        _end(engine, max(ends - time.monotonic(), 0.0), dropped=False)


