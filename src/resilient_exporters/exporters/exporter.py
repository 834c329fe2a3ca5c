"""`Exporter`, the base of every exporter: what users call on it, and what its authors write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NoReturn, Self

from resilient_exporters.delivery.receipt import Receipt
from resilient_exporters.delivery.reentry import inside
from resilient_exporters.exceptions import DataTypeError, InvalidConfigError
from resilient_exporters.exporters.checks import checked_flag, checked_name, configure, is_number
from resilient_exporters.exporters.core import Core
from resilient_exporters.exporters.deadletters import DeadLetters
from resilient_exporters.exporters.outermost import (
    data_from,
    export_one,
    outermost_close,
    outermost_send,
    send_alone,
    send_directly,
)
from resilient_exporters.exporters.signature import method_of
from resilient_exporters.exporters.using import Using
from resilient_exporters.policies import Rate, Safety
from resilient_exporters.records import Batch, ExportResult
from resilient_exporters.status import PoolStatus

__all__ = ["MISSING", "Exporter"]

MISSING: Any = object()


class _Made:
    """The core of an exporter, made when first asked for, so that nobody must call `__init__`."""

    def __get__(self, exporter: Exporter, kind: type[Exporter]) -> Core:
        core = exporter.__dict__["_rex"] = exporter._rex_core(exporter)  # found there from now on, without this call
        return core


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
        rate: Most records or bytes that it is handed per second, or None; what exceeds it is queued.

    Raises:
        InvalidConfigError: An argument is wrong.
        SpoolInUse: Another live pool holds `tmp_file`.
    """

    atomic: ClassVar[bool] = False
    """Whether an exception out of `export` means that nothing of the batch was stored."""
    stable_batches: bool = False
    """Whether a batch that may have arrived must be repeated with the same records, because `batch.token` names it."""
    guarantee: ClassVar[str] = "at least once"
    """What its target ends up with: "exact", "window" or "at least once"."""
    batch_records: int = 1000
    """Most records in one batch, at least 1."""
    batch_bytes: int = 1 << 20
    """A batch ends when its payloads reach that many bytes."""
    batch_age: float = 0.0
    """In the background, a batch that is not full waits until its oldest record was accepted so many seconds ago."""
    timeout: float = 30.0
    """Seconds that one attempt may take."""
    rate: Rate | None = None
    """Most records or bytes that it is handed per second."""

    _rex = _Made()
    _rex_core: ClassVar[type[Core]] = Core
    """What does the library's part; a pool has another one."""

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
        rate: Rate | None = None,
    ) -> None:
        if not is_number(timeout) or not timeout > 0:
            raise InvalidConfigError(f"timeout is a number of seconds above 0, not {timeout!r}")
        if rate is not None and not isinstance(rate, Rate):
            raise InvalidConfigError(f"rate is a Rate or None, not {rate!r}")
        self.timeout = float(timeout)
        self.rate = rate if rate is not None else self.rate
        configure(self._rex, transform, use_memory, manual_reexport, tmp_file, save_unsent_data, name)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let an outermost `send` or `close` go through the library, and an inner one be the bare call."""
        super().__init_subclass__(**kwargs)
        if cls._rex_core is not Core:
            return
        for name, wrap in (("send", outermost_send), ("close", outermost_close)):
            function = method_of(cls, name)
            if not hasattr(function, "bare") and function is not getattr(Exporter, name):
                setattr(cls, name, wrap(function))

    # For authors of exporters

    def export(self, batch: Batch, /, *args: Any, **options: Any) -> None:
        """Hand a batch to the target; override this or `send`.

        Called by one thread at a time, not always the same one, never again before it returned. All records of the
        batch belong to one run and were sent with the same keyword arguments: those that the signature names (all with
        `**options`) arrive as keywords. `batch.data` is a list of the data, objects of the exporter's own;
        `batch.records[i].id` never changes, `batch.token` names the batch, `batch.deadline` is when to be done.

        Returning means: the target has all of it. Otherwise raise

        - `TargetDown(retry_after=seconds)` or any other error: nothing is settled, all of it is tried again later;
        - `TargetMisconfigured`: the same, and an alarm: somebody must change something;
        - `RecordsRefused(permanent={index: reason}, later={index: reason})`: the target has all others.

        A send into the same pool from here is kept and waits for nothing. From a thread of the exporter's own it may
        wait for the turn of this very exporter, for as long as `timeout`: so never wait for such a thread here; have
        it send into another pool, or hand over what is to be sent and go on.
        """
        raise TypeError(f"{type(self).__name__} is no exporter yet: it must override `send` or `export`")

    def open(self) -> None:
        """Connect. Called before the first export, and again after a `close`. May raise what `export` may."""

    def probe(self) -> None:
        """Ask cheaply whether the target is there, and raise what `export` may when it is not.

        Called after a failure, before the next batch: it can spare a target that is down the batch.
        """

    def target_name(self) -> str:
        """The name of an unnamed exporter: made from its target, without secrets, the same at each run."""
        return type(self).__name__

    # Names and settings

    @property
    def name(self) -> str:
        """The name under which records are owed to it."""
        return self._rex.name

    @name.setter
    def name(self, name: str) -> None:
        if self._rex.pool is not None:
            raise InvalidConfigError(f"{self.name} is in a pool, where records are owed to its name: name it before")
        self._rex.given_name = checked_name(name)

    @property
    def manual_reexport(self) -> bool:
        """Whether what is kept goes out only when `send_unsent_data` is called."""
        return self._rex.settings.manual

    @manual_reexport.setter
    def manual_reexport(self, manual: bool) -> None:
        self._rex.check_open()
        self._rex.settings.manual = checked_flag("manual_reexport", manual)
        self._rex.changed()

    def transform(self, data: Any) -> Any:
        """Apply the transform given to the constructor.

        Raises:
            DataTypeError: It returned None.
        """
        function = self._rex.function
        if function is None:
            return data
        changed = function(data)
        if changed is None:
            raise DataTypeError(f"the transform of {self.name} returned None: it must return the data")
        return changed

    def has_transform(self) -> bool:
        """Whether it changes data: a transform was given, or the class has one of its own."""
        return self._rex.function is not None or type(self).transform is not Exporter.transform

    # Sending

    if TYPE_CHECKING:

        def send(self, *args: Any, **kwargs: Any) -> ExportResult:
            """As below; declared so that authors may write any parameters after the data."""

    else:

        def send(self, data: Any = MISSING, /, **kwargs: Any) -> ExportResult:
            """Send one record; what the target does not take is kept and sent later.

            Args:
                data: Anything but None. With `use_memory=False` of the types that can be written to a file.
                kwargs: Keyword arguments of this exporter, kept with the record.

            Returns:
                The result; nothing that the target does makes it raise.

            Raises:
                DataTypeError: The data cannot be kept.
                TypeError: A keyword argument is not known.
                SpoolError: The target did not take the record, and it could not be kept.
                PoolClosed: After `close`.
            """
            if data is MISSING:
                data = data_from(kwargs)
            if inside.here.exporter is self:
                return export_one(self, data, kwargs)
            if self._rex.pool is not None:
                return send_directly(self, data, kwargs)
            return send_alone(self, data, kwargs)

    def send_many(self, many: Iterable[Any], /, **kwargs: Any) -> Any:
        """Send many records: kept in few appends, handed to the target in batches, in constant memory.

        Args:
            many: Any iterable of data, however long.
            kwargs: As for `send`; they apply to each record.

        Returns:
            What `send` returns, once for all: `returned` is the number of records that the target took, `successful`
            whether it took all, `kept` whether the others are kept. None in background mode.

        Raises:
            DataTypeError, TypeError, SpoolError, PoolClosed: As `send`; records before the offending one, counted in
                thousands, are sent or kept by then.
        """
        results = self._rex.send_many(many, kwargs)
        return None if results is None else self._rex.gatherer()(results)

    def submit(self, data: Any, /, **kwargs: Any) -> Receipt:
        """Send one record and get a receipt: `receipt.result(timeout)` or `await receipt` gives what `send` returns.

        In background mode the results are there when each exporter has made its first attempt.
        """
        return self._rex.submit(data, kwargs)

    def using(self, *, safety: Safety | None = None, ttl: float | None = None) -> Using:
        """The sending calls with options bound: `pool.using(safety="power", ttl=60).send(data, table="t")`.

        Args:
            safety: "process" or "power", as for the pool.
            ttl: Seconds after which a record that is still owed is dropped and counted, above 0.

        Raises:
            InvalidConfigError: An option is wrong.
        """
        return Using(self, safety, ttl)

    def send_unsent_data(self) -> list[ExportResult]:
        """Try to send what was kept, oldest first; one result per export attempted."""
        return self._rex.send_unsent()

    def has_unsent_data(self) -> bool:
        """Whether anything is kept and still owed."""
        return self._rex.has_unsent()

    def save_unsent_data(self, data: Any, kwargs: dict[str, Any], exporter_name: str) -> None:
        """Keep a record, taken as transformed already, for one exporter.

        Args:
            data: The data.
            kwargs: The keyword arguments to send it with.
            exporter_name: Name of the exporter; the name of the pool itself means all of them.

        Raises:
            InvalidConfigError: There is no exporter of that name.
            DataTypeError: The data cannot be kept.
            SpoolError: There is no room for it.
        """
        self._rex.save(data, kwargs, exporter_name)

    @property
    def use_memory(self) -> bool:
        """Whether what is kept waits in memory; setting it moves what is kept.

        Raises:
            SpoolError: The other place cannot take everything; nothing has changed then.
        """
        return self._rex.memory

    @use_memory.setter
    def use_memory(self, memory: bool) -> None:
        self._rex.set_memory(checked_flag("use_memory", memory))

    def status(self) -> PoolStatus:
        """How each exporter is doing and what is owed: one frozen value, cheap enough for many times a second."""
        return self._rex.status()

    @property
    def dead_letters(self) -> DeadLetters:
        """The records that targets refused for good: to be listed, replayed, exported or dropped."""
        from resilient_exporters.exporters.poolletters import PoolLetters

        return PoolLetters(self._rex)

    # Life

    def sync(self) -> None:
        """Return when everything that is kept is safe against a power cut; in memory nothing ever is."""
        self._rex.sync()

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what can be delivered now.

        Args:
            timeout: Most seconds to wait; None = as long as it takes, which is for ever when a target stays down.

        Returns:
            Whether nothing is left that a present exporter owes.
        """
        return self._rex.flush(timeout)

    if TYPE_CHECKING:

        def close(self, *args: Any, **kwargs: Any) -> None:
            """As below; declared so that authors may leave the time-out away."""

    else:

        def close(self, timeout: float = 5.0) -> None:
            """Deliver in the background what can be delivered within `timeout` seconds, then let go of everything.

            An exporter may override it, without arguments, to drop its connection: it is then also called after an
            export that left the connection doubtful; `open` follows before the next one.
            """
            if not self._rex.closing:
                self._rex.close(timeout)

    def __enter__(self) -> Self:
        self._rex.check_open()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {self._rex.owed()}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: what it keeps and its connection belong to one object"
        )
