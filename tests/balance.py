"""Holds pools to their accounts: when one closes, each record sent to it is delivered, owed, dead or dropped."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest

import resilient_exporters as rex
from resilient_exporters.exporters.using import Using

__all__ = ["hold_to_accounts"]


class _Book:
    """What a pool was given, counted where it is given: the pool's own counts have no part in it."""

    def __init__(self, pool: rex.ExporterPool) -> None:
        self.before = {lane.name: lane.accepted for lane in pool.status().exporters}
        self.to_all = 0
        self.perhaps = 0
        """Records whose sender was interrupted: nobody has told him whether they were accepted."""
        self.to_one = Counter[str]()

    def check(self, pool: rex.ExporterPool) -> None:
        """Fail unless the pool knows of each record."""
        for lane in pool.status().exporters:
            if lane.name in self.before:  # one that joined later was given less
                given = self.before[lane.name] + self.to_all + self.to_one[lane.name]
                assert given <= lane.accepted <= given + self.perhaps, f"{given} records were sent: {lane}"

    def counting(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same items, counted as they are taken."""
        for item in items:
            self.to_all += 1
            yield item


def hold_to_accounts(patch: pytest.MonkeyPatch) -> None:
    """From now on every new pool is checked when it is closed, as long as `patch` holds.

    What comes into a pool in other ways is not known here: out of a file that it is switched to, by adoption, or
    through a pool inside it.
    """
    books: WeakKeyDictionary[rex.ExporterPool, _Book] = WeakKeyDictionary()

    def book_of(caller: Any) -> _Book | None:
        pool = caller._exporter if isinstance(caller, Using) else caller
        return books.get(pool) if isinstance(pool, rex.ExporterPool) else None

    def making(make: Any, pool: rex.ExporterPool, *args: Any, **kwargs: Any) -> None:
        make(pool, *args, **kwargs)
        books[pool] = _Book(pool)

    def sending(send: Any, caller: Any, *args: Any, **kwargs: Any) -> Any:
        book = book_of(caller)
        if book is None:  # an exporter alone
            return send(caller, *args, **kwargs)
        try:
            results = send(caller, *args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            book.perhaps += 1
            raise
        book.to_all += 1
        return results

    def sending_many(send_many: Any, caller: Any, items: Iterable[Any], /, **kwargs: Any) -> Any:
        book = book_of(caller)
        return send_many(caller, items if book is None else book.counting(items), **kwargs)

    def saving(save: Any, pool: rex.ExporterPool, data: Any, kwargs: dict[str, Any], exporter_name: str) -> None:
        save(pool, data, kwargs, exporter_name)
        if exporter_name == pool.name:
            books[pool].to_all += 1
        else:
            books[pool].to_one[exporter_name] += 1

    def closing(close: Any, pool: rex.ExporterPool, *args: Any, **kwargs: Any) -> None:
        close(pool, *args, **kwargs)
        books[pool].check(pool)

    def wrap(owner: type, name: str, by: Any) -> None:
        bare = getattr(owner, name)
        patch.setattr(owner, name, functools.wraps(bare)(lambda *args, **kwargs: by(bare, *args, **kwargs)))

    wrap(rex.ExporterPool, "__init__", making)
    for owner in (rex.ExporterPool, Using):
        wrap(owner, "send", sending)
        wrap(owner, "submit", sending)
        wrap(owner, "send_many", sending_many)
    wrap(rex.ExporterPool, "save_unsent_data", saving)
    wrap(rex.ExporterPool, "close", closing)
