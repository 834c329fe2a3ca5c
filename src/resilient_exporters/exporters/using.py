"""A view of an exporter or pool that sends with options of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.receipt import Receipt
from resilient_exporters.exceptions import InvalidConfigError

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["Using"]


class Using:
    """What `using` returns: the sending calls, with options bound, since all keywords belong to the exporters.

    Args:
        exporter: Whose calls they are.
        safety: "process" or "power"; None = as the exporter or pool has it.
        ttl: Seconds after which a record that is still owed is dropped, above 0; None = as the pool has it.

    Raises:
        InvalidConfigError: An option is wrong.
    """

    def __init__(self, exporter: Exporter, safety: Any, ttl: Any) -> None:
        if safety not in (None, "process", "power"):
            raise InvalidConfigError(f'safety is "process" or "power", not {safety!r}')
        if ttl is not None and not (isinstance(ttl, int | float) and ttl > 0):
            raise InvalidConfigError(f"ttl is a number of seconds above 0, not {ttl!r}")
        self._exporter = exporter
        default = exporter._rex.how()
        sync = default.sync if safety is None else safety == "power"
        self._how = Keep(sync, default.ttl if ttl is None else float(ttl))

    def send(self, data: Any, /, **kwargs: Any) -> Any:
        """As `send` of the exporter or pool."""
        core = self._exporter._rex
        results = core.send(data, kwargs, self._how)
        return None if results is None else core.gatherer()(results)

    def send_many(self, many: Iterable[Any], /, **kwargs: Any) -> Any:
        """As `send_many` of the exporter or pool."""
        core = self._exporter._rex
        results = core.send_many(many, kwargs, self._how)
        return None if results is None else core.gatherer()(results)

    def submit(self, data: Any, /, **kwargs: Any) -> Receipt:
        """As `submit` of the exporter or pool."""
        return self._exporter._rex.submit(data, kwargs, self._how)
