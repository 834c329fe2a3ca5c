"""Holds pools to their accounts: when one closes, each record sent to it is delivered, owed, dead or dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest

import resilient_exporters as rex

__all__ = ["hold_to_accounts"]


class _Book:
    """What a pool was given, counted where it is given: the pool's own counts have no part in it."""

    def __init__(self, pool: rex.ExporterPool) -> None:
        self.before = {lane.name: lane.accepted for lane in pool.status().exporters}
        self.to_all = 0
        self.to_one = Counter[str]()

    def check(self, pool: rex.ExporterPool) -> None:
        """Fail unless the pool knows of each record."""
        for lane in pool.status().exporters:
            if lane.name in self.before:  # one that joined later was given less
                given = self.before[lane.name] + self.to_all + self.to_one[lane.name]
                assert given == lane.accepted, f"{given} records were sent: {lane}"

    def counting(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same items, counted as they are taken."""
        for item in items:
            self.to_all += 1
            yield item


def hold_to_accounts(patch: pytest.MonkeyPatch) -> None:
    """From now on every new pool is checked when it is closed, as long as `patch` holds."""
    books: WeakKeyDictionary[rex.ExporterPool, _Book] = WeakKeyDictionary()
    kind = rex.ExporterPool
    make, send, send_many = kind.__init__, kind.send, kind.send_many
    save_unsent_data, close = kind.save_unsent_data, kind.close

    def making(pool: rex.ExporterPool, *args: Any, **kwargs: Any) -> None:
        make(pool, *args, **kwargs)
        books[pool] = _Book(pool)

    def sending(*args: Any, **kwargs: Any) -> Any:
        book = books[args[0]]
        try:
            results = send(*args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            book.to_all += 1  # it is kept, and whoever sent it is told to stop
            raise
        book.to_all += 1
        return results

    def sending_many(pool: rex.ExporterPool, items: Iterable[Any], /, **kwargs: Any) -> Any:
        return send_many(pool, books[pool].counting(items), **kwargs)

    def saving(pool: rex.ExporterPool, data: Any, kwargs: dict[str, Any], exporter_name: str) -> None:
        save_unsent_data(pool, data, kwargs, exporter_name)
        books[pool].to_one[exporter_name] += 1

    def closing(pool: rex.ExporterPool, timeout: float = 5.0) -> Any:
        closed = close(pool, timeout)
        books[pool].check(pool)
        return closed

    for name, replacement in {
        "__init__": making,
        "send": sending,
        "send_many": sending_many,
        "save_unsent_data": saving,
        "close": closing,
    }.items():
        patch.setattr(kind, name, replacement)
