"""Stands between the library and one exporter, to look on and to fail on command."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from resilient_exporters import codec
from resilient_exporters.exceptions import RecordsRefused
from resilient_exporters.exporters.binding import bare_send, takes_batches
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.signature import Keywords
from resilient_exporters.records import Batch, ExportResult

__all__ = ["Between"]


class Between:
    """Passes each call on to what the exporter's author wrote.

    Args:
        exporter: Whose calls go through here from now on.
        errors: What the next calls raise, one each; after those, none.
        late: Whether they raise when the exporter has done its work, or before it begins.

    Attributes:
        takes_any_keyword: Whether the exporter takes keyword arguments of any name.
        keywords: The keyword arguments of each call.
        ids: The data, encoded, and the id of each record of each call.
        changed: How many records had other data after a call than before.
        nonsense: What the exporter answered that no exporter may, one sentence each.
    """

    def __init__(self, exporter: Exporter, errors: list[BaseException], late: bool) -> None:
        self.keywords: list[dict[str, Any]] = []
        self.ids: list[tuple[bytes, Any]] = []
        self.changed = 0
        self.nonsense: list[str] = []
        self._errors = errors
        self._late = late
        kind, written = type(exporter), vars(exporter)
        if takes_batches(kind):
            self._export = exporter.export
            written["export"] = self.export
        else:
            self._send: Callable[..., ExportResult] = partial(bare_send(kind), exporter)
            written["send"] = self.send
        keywords = Keywords(kind.export if takes_batches(kind) else bare_send(kind), bound=2)
        self.takes_any_keyword = keywords.accepts("no such keyword")

    def export(self, batch: Batch, /, **options: Any) -> None:
        """Pass a batch on."""
        before = [codec.encode(record.data) for record in batch.records]
        self.keywords.append(options)
        self.ids += [(data, record.id) for data, record in zip(before, batch.records, strict=True)]
        self._fail(late=False)
        try:
            returned: object = self._export(batch, **options)
            if returned is not None:
                self.nonsense.append(f"returned {returned!r} from `export`: what it says in this way nobody hears")
        except RecordsRefused as error:
            self._judge(error, len(batch))
            raise
        finally:
            after = [codec.encode(record.data) for record in batch.records]
            self.changed += sum(one != other for one, other in zip(before, after, strict=True))
        self._fail(late=True)

    def send(self, data: Any, /, **options: Any) -> ExportResult:
        """Pass a record on."""
        before = codec.encode(data)
        self.keywords.append(options)
        self._fail(late=False)
        try:
            result: Any = self._send(data, **options)
        except RecordsRefused as error:
            self._judge(error, 1)
            raise
        if not isinstance(result, ExportResult):
            self.nonsense.append(f"returned {result!r} from `send`, which is no ExportResult")
        self.changed += codec.encode(data) != before
        self._fail(late=True)
        return result  # type: ignore[no-any-return]  # whatever it is, the library is to see it

    def _judge(self, error: RecordsRefused, count: int) -> None:
        """Note a refusal that is not about the records of the batch."""
        named = [*error.permanent, *error.later]
        if not named:
            self.nonsense.append("refused no record, and said that it did")
        if not set(named) <= set(range(count)):
            self.nonsense.append(f"refused records {named} of a batch of {count}")
        if len(set(named)) < len(named):
            self.nonsense.append(f"refused records {named} both for good and for now")

    def _fail(self, *, late: bool) -> None:
        if self._errors and late is self._late:
            raise self._errors.pop(0)
