"""What an error means for delivery when the driver raises it by itself, so that it has no code of the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.exceptions import ExportError, TargetDown
from resilient_exporters.records import Batch
from tests.servers.postgresql import Database, MakeExporter, binaries, database, exporter_of, server

__all__ = ["binaries", "database", "exporter_of", "server"]
psycopg = pytest.importorskip("psycopg")


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (psycopg.OperationalError("connection socket closed"), TargetDown),
        (psycopg.ProgrammingError("the driver does not understand"), ExportError),
    ],
)
def test_an_error_of_the_driver(
    database: Database,
    exporter_of: MakeExporter,
    batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    meaning: type[Exception],
) -> None:
    """A connection that breaks while the driver waits, and still counts as open, is a target that is down."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    exporter.export(batch({"n": 1}))

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "wait", broken)
        with pytest.raises(ExportError) as caught:
            exporter.export(batch({"n": 2}, first=2))
    assert meaning is type(caught.value)
    exporter.export(batch({"n": 2}, first=2))
    assert [1, 2] == [n for (n,) in database.query("select n from t order by n")]
