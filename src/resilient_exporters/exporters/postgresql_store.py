"""One batch on its way into one PostgreSQL table: what it has is left out, what it refuses is told from the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resilient_exporters.exceptions import DataTypeError, TargetDown, TargetMisconfigured
from resilient_exporters.exporters.lines import as_json
from resilient_exporters.exporters.postgresql_session import Refusal, Session, Stale
from resilient_exporters.exporters.postgresql_table import Row, Table, adding, creating, merged
from resilient_exporters.exporters.postgresql_values import finite
from resilient_exporters.exporters.resolved import Resolved
from resilient_exporters.records import Batch

__all__ = ["Ledger", "Store"]

_log = logging.getLogger("resilient_exporters")

_OVERTAKEN = 5
"""How often in a row somebody else may store records of the same run before this is given up for now."""


class Ledger:
    """What the database is known to have of each run and lane; never more than it really has."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[int, Resolved]] = {}

    def of(self, batch: Batch, session: Session) -> tuple[int, Resolved]:
        """How often the row of a batch's run changed, and the numbers in it."""
        known = self._known.get((batch.run, batch.lane))
        return self.read(batch, session) if known is None else known

    def read(self, batch: Batch, session: Session) -> tuple[int, Resolved]:
        """The same, asked of the database.

        Raises:
            TargetMisconfigured: It has less than it had.
        """
        key = (batch.run, batch.lane)
        known = session.known(f"{batch.run:016x}", batch.lane)
        if known[0] < self._known.get(key, known)[0]:
            raise TargetMisconfigured(
                f"{batch.lane}: the database lacks records that it had; it was replaced, or restored from a backup. "
                "Put the right one back, or start the program again to go on with this one"
            )
        self._known[key] = known
        return known

    def note(self, batch: Batch, version: int, resolved: Resolved) -> None:
        """Take note of a commit."""
        self._known[batch.run, batch.lane] = version, resolved


@dataclass
class Store:
    """The work of one `export`.

    Every statement is a transaction that stores rows together with the numbers of their records, or nothing. So it
    may be broken off, repeated and taken apart anywhere.

    Attributes:
        permanent: Index -> reason of records that the table will never take.
        later: Index -> reason of those that it may take another time.
    """

    session: Session
    ledger: Ledger
    batch: Batch
    table_name: str
    upsert_on: Sequence[str]
    create: bool
    permanent: dict[int, str] = field(default_factory=dict)
    later: dict[int, str] = field(default_factory=dict)

    def run(self) -> None:
        """Store what can be stored; the rest is in `permanent` and `later` then."""
        try:
            self._store(anew=False)
        except Stale:
            self.permanent.clear()
            self.later.clear()
            self._store(anew=True)

    def _store(self, *, anew: bool) -> None:
        """Store what is pending, by a look at the table that may be an old one."""
        table = self._table(anew)
        rows, lacking = self._fit(table)
        if (lacking or self.permanent) and not anew:
            raise Stale(f"{self.batch.lane}: the table {self.table_name!r} lacks columns")
        if lacking and self.create:
            table = self._grow(table, lacking)
            rows, lacking = self._fit(table)
        self._postpone(table, lacking)
        self.permanent |= table.formed(rows)
        for columns, indexes in table.alike(rows, exactly=bool(self.upsert_on)):
            self._insert(table, columns, {index: rows[index] for index in indexes}, anew)

    # The table

    def _table(self, anew: bool) -> Table:
        table = self.session.table(self.table_name, anew=anew)
        if table is None and not self.create:
            raise TargetMisconfigured(
                f"{self.batch.lane}: there is no table {self.table_name!r}; make it, or allow it with create=True"
            )
        return table or Table("", {})

    def _grow(self, table: Table, lacking: dict[int, Row]) -> Table:
        """Make the table, or those of its columns that rows lack."""
        rows = lacking.values()
        if table.columns:
            sql = adding(table.name, [{k: v for k, v in row.items() if k not in table.columns} for row in rows])
        else:
            sql = creating(self.table_name, rows, self.upsert_on)
        try:
            self.session.define(sql)
        except Refusal as error:
            self.permanent |= dict.fromkeys(lacking, f"its columns cannot be made: {error}")
        return self._table(anew=True)

    # Rows

    def _fit(self, table: Table) -> tuple[dict[int, Row], dict[int, Row]]:
        """Index -> row of those pending records that the table has all columns for, and of those it has not."""
        data = self.batch.data
        pending = self._pending(range(len(data)))
        if self.permanent:
            pending = [index for index in pending if index not in self.permanent]
        if len(pending) < len(data):
            data = [data[index] for index in pending]
        if table.suits(data):
            return dict(zip(pending, data, strict=True)), {}
        fitting: dict[int, Row] = {}
        lacking: dict[int, Row] = {}
        for index, one in zip(pending, data, strict=True):
            try:
                row, missing = table.row(one)
                if missing and self.create:  # a column of which nothing but NULL is known has no type yet
                    row = {name: value for name, value in row.items() if name not in missing or value is not None}
                    missing = [name for name in missing if name in row]
                if not row and not table.columns:
                    raise DataTypeError("data has no values to make a table for")
            except DataTypeError as error:
                self.permanent[index] = str(error)
            else:
                (lacking if missing else fitting)[index] = row
        return fitting, lacking

    def _postpone(self, table: Table, lacking: dict[int, Row]) -> None:
        """Keep rows until the table has columns for them: one strange record must not hold up the others."""
        for index, row in lacking.items():
            column = next(name for name in row if name not in table.columns)
            self.later[index] = f"the table {self.table_name!r} has no column {column!r}"
            if self.session.meets(self.table_name, column):
                _log.warning("column_missing exporter=%s table=%s column=%s", self.batch.lane, self.table_name, column)

    def _pending(self, indexes: Iterable[int]) -> list[int]:
        """Those records that the database has not, as far as is known."""
        if not self.batch.run:
            return list(indexes)
        _, resolved = self.ledger.of(self.batch, self.session)
        numbers = self.batch.numbers
        if min(numbers) > _highest(resolved):
            return list(indexes)
        return [index for index in indexes if numbers[index] not in resolved]

    # Statements

    def _insert(self, table: Table, columns: Sequence[str], rows: dict[int, Row], anew: bool) -> None:
        """Store rows; when they are refused, halve them until it is clear which one is to blame."""
        if time.monotonic() > self.batch.deadline:
            self.later |= dict.fromkeys(rows, "not tried: others were refused, and finding them took all the time")
            return
        try:
            self._commit(table, columns, rows)
        except (Refusal, DataTypeError) as error:
            if not anew:
                raise Stale(f"{self.batch.lane}: {error}") from error  # an old look may be to blame, and not a record
            if len(rows) == 1:
                self.permanent |= dict.fromkeys(rows, str(error))
                return
            indexes = list(rows)
            for half in (indexes[: len(rows) // 2], indexes[len(rows) // 2 :]):
                self._insert(table, columns, {index: rows[index] for index in half}, anew)

    def _commit(self, table: Table, columns: Sequence[str], rows: dict[int, Row]) -> None:
        """Store rows in one transaction, unless somebody else has done it meanwhile."""
        if not self.batch.run:
            self.session.run(table.insert(columns, "none", self.upsert_on), {"rows": self._rendered(rows, rows)})
            return
        pending: Collection[int] = rows
        for _ in range(_OVERTAKEN):
            version, resolved = self.ledger.of(self.batch, self.session)
            numbers = self.batch.numbers
            resolved = _joined(resolved, numbers if len(pending) == len(numbers) else [numbers[i] for i in pending])
            values: dict[str, Any] = {
                "rows": self._rendered(rows, pending),
                "run": f"{self.batch.run:016x}",
                "lane": self.batch.lane,
                "version": version,
                "resolved": resolved.to_bytes(),
            }
            statement = table.insert(columns, "next" if version else "first", self.upsert_on)
            ((claimed,),) = self.session.run(statement, values)
            if claimed:
                self.ledger.note(self.batch, version + 1, resolved)
                return
            self.ledger.read(self.batch, self.session)
            pending = self._pending(rows)
            if not pending:
                return
        raise TargetDown(f"{self.batch.lane}: others store records of the same run all the time")

    def _rendered(self, rows: dict[int, Row], indexes: Collection[int]) -> str:
        sent = merged(rows.values() if indexes is rows else [rows[index] for index in indexes], self.upsert_on)
        text = _json(sent)
        return (_json(list(map(finite, sent))) if b"null" in text else text).decode()


def _json(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return as_json(rows) if len(rows) > 1 else b"[%b]" % as_json(rows[0])


def _highest(resolved: Resolved) -> int:
    return resolved.ranges[-1][1] if resolved.ranges else resolved.floor


def _joined(resolved: Resolved, numbers: Sequence[int]) -> Resolved:
    """The set with these numbers as well; nearly always they are the ones behind its floor."""
    last = resolved.floor + len(numbers)
    if not resolved.ranges and list(numbers) == list(range(resolved.floor + 1, last + 1)):
        return Resolved(last)
    return resolved.add(numbers)
