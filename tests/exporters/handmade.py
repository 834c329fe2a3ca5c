"""Batches made by hand, also for the processes that tests kill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from resilient_exporters.records import Batch, Record, RecordId

__all__ = ["made"]


def made(*data: Any, run: int = 7, first: int = 1, numbers: Sequence[int] | None = None, lane: str = "lane") -> Batch:
    """A batch of these records, numbered from `first` on, with a minute to spare."""
    numbers = list(numbers if numbers is not None else range(first, first + len(data)))
    records = [
        Record(RecordId(run, number), 0.0, {}, partial(_itself, item))
        for number, item in zip(numbers, data, strict=True)
    ]
    return Batch(records, lane=lane, run=run, numbers=numbers, deadline=time.monotonic() + 60)


def _itself(item: Any) -> Any:
    return item
