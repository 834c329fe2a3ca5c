"""Exporters that collect what they get in a list and fail on command."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Callable
from typing import Any

from resilient_exporters.exceptions import RecordsRefused, TargetDown
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.records import Batch, ExportResult, RecordId

__all__ = ["MemoryBatchExporter", "MemoryExporter"]


class _Desk:
    """Where calls arrive: counts them, holds them back on command, and wakes those who wait for them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.open = threading.Event()
        self.open.set()
        self.calls = 0
        self.running = 0
        self.most_running = 0

    def enter(self, seconds: float) -> None:
        with self.changed:
            self.calls += 1
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.changed.notify_all()
        if seconds:
            time.sleep(seconds)
        self.open.wait()

    def leave(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def wait(self, reached: Callable[[], bool], what: str, timeout: float) -> None:
        with self.changed:
            if not self.changed.wait_for(reached, timeout):
                raise builtins.TimeoutError(f"no {what} within {timeout} seconds")


class _Fake(Exporter):
    """What both fakes share."""

    def __init__(
        self,
        name: str | None,
        up: bool,
        error: BaseException | None,
        refuse: Callable[[Any], bool] | None,
        seconds: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__(name=name, **options)
        self.got: list[Any] = []
        self.kwargs: list[dict[str, Any]] = []
        self.up = up
        self.error = error
        self.refuse = refuse
        self.seconds = seconds
        self._desk = _Desk()

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._desk.calls

    @property
    def most_running(self) -> int:
        """The most calls that ever ran side by side."""
        return self._desk.most_running

    def hang(self) -> None:
        """Let calls that begin from now on hang until `release`."""
        self._desk.open.clear()

    def release(self) -> None:
        """Let hanging calls go on."""
        self._desk.open.set()

    def wait_for_calls(self, count: int, timeout: float = 30.0) -> None:
        """Return when `count` calls have begun.

        Args:
            count: Calls since the exporter was made.
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: They did not begin in time.
        """
        self._desk.wait(lambda: self._desk.calls >= count, f"{count} calls", timeout)

    def wait_for(self, count: int, timeout: float = 30.0) -> None:
        """Return when `count` records have arrived.

        Args:
            count: Records since the exporter was made.
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: They did not arrive in time.
        """
        self._desk.wait(lambda: len(self.got) >= count, f"{count} records", timeout)

    def _refuses(self, data: Any) -> bool:
        return self.refuse is not None and self.refuse(data)


class MemoryExporter(_Fake):
    """An exporter of single records into a list.

    All arguments but `name` and `options` are attributes that may be changed at any time.

    Args:
        name: Name of the exporter.
        up: Whether it takes records; when not, `send` returns `ExportResult(None, False)`.
        error: Raised by each `send` when given.
        refuse: Says for which data `send` returns `ExportResult(None, False)` although it is up.
        seconds: How long each call takes.
        returned: What a successful `send` hands back.
        options: The keyword arguments of `Exporter`.

    Attributes:
        got: The data that arrived, in order.
        kwargs: The keyword arguments that came with them.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        up: bool = True,
        error: BaseException | None = None,
        refuse: Callable[[Any], bool] | None = None,
        seconds: float = 0.0,
        returned: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name, up, error, refuse, seconds, options)
        self.returned = returned

    def send(self, data: Any, /, **kwargs: Any) -> ExportResult:
        """Take one record, or fail as told."""
        self._desk.enter(self.seconds)
        try:
            if self.error is not None:
                raise self.error
            if not self.up or self._refuses(data):
                return ExportResult(None, False)
            self.kwargs.append(kwargs)
            self.got.append(data)
            return ExportResult(self.returned, True)
        finally:
            self._desk.leave()


class MemoryBatchExporter(_Fake):
    """An exporter of batches into a list.

    All arguments but `name` and `options` are attributes that may be changed at any time.

    Args:
        name: Name of the exporter.
        up: Whether it takes records; when not, `open`, `probe` and `export` raise TargetDown.
        error: Raised by each `export` when given: TargetDown, TargetMisconfigured, RecordsRefused, anything.
            With RecordsRefused the records it does not name are taken.
        refuse: Says which data is refused for good.
        seconds: How long each call of `export` takes.
        options: The keyword arguments of `Exporter`.

    Attributes:
        got: The data that arrived, in order.
        kwargs: The keyword arguments that came with them.
        ids: The ids of the records that arrived.
        batches: The data that arrived, one list for each call of `export` that took something.
        opened: How often `open` was called.
        closed: How often `close` was called.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        up: bool = True,
        error: BaseException | None = None,
        refuse: Callable[[Any], bool] | None = None,
        seconds: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(name, up, error, refuse, seconds, options)
        self.ids: list[RecordId] = []
        self.batches: list[list[Any]] = []
        self.opened = 0
        self.closed = 0

    def open(self) -> None:
        """Count the call; fail when down."""
        self.opened += 1
        self.probe()

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def probe(self) -> None:
        """Fail when down."""
        if not self.up:
            raise TargetDown("down on command")

    def export(self, batch: Batch, /, **options: Any) -> None:
        """Take a batch, or fail as told."""
        self._desk.enter(self.seconds)
        try:
            self.probe()
            if self.error is not None and not isinstance(self.error, RecordsRefused):
                raise self.error
            refusal = self.error or self._refusal(batch)
            self._take(batch, options, refusal)
            if refusal is not None:
                raise refusal
        finally:
            self._desk.leave()

    def _refusal(self, batch: Batch) -> RecordsRefused | None:
        refused = {i: "refused on command" for i, data in enumerate(batch.data) if self._refuses(data)}
        return RecordsRefused(permanent=refused) if refused else None

    def _take(self, batch: Batch, options: dict[str, Any], refusal: RecordsRefused | None) -> None:
        refused = {*refusal.permanent, *refusal.later} if refusal is not None else set()
        taken = [record for i, record in enumerate(batch.records) if i not in refused]
        if taken:
            self.batches.append([record.data for record in taken])
        for record in taken:
            self.ids.append(record.id)
            self.kwargs.append(options)
            self.got.append(record.data)
