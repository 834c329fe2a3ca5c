"""What lanes side by side share: the same records are decoded and rendered once, whoever asks first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence, Sized
from typing import Any, TypeVar

from resilient_exporters import codec
from resilient_exporters.spool.block import size_of
from resilient_exporters.spool.interface import Flag, Payload, Slice

__all__ = ["Render", "Shared", "shareable"]

_T = TypeVar("_T")
Render = Callable[[Sequence[Any]], _T]

_MOST = 4 << 20
"""Bytes of payloads whose forms are held: lanes that are a few batches apart still share, and it is no great size."""
_SHORTEST = 16
"""A slice is cut to one of its 16th part, but not to less: what is read and not used is read again."""


class _Forms:
    """What was made of the payloads of one slice."""

    def __init__(self, payloads: Sequence[Payload]) -> None:
        self.payloads = payloads
        self.size = size_of(payloads)
        self._lock = threading.Lock()
        self._made: dict[Render[Any], Any] = {}

    def form(self, render: Render[_T]) -> _T:
        """The outcome of `render`; who asks while another thread makes it waits, which is sooner than making it."""
        with self._lock:
            if render not in self._made:
                self._made[render] = render(_decoded(self.payloads))
            made: _T = self._made[render]
            return made


class Shared:
    """The forms that lanes of one engine made last.

    A form belongs to payloads, not to ids or places: equal payloads have the same form, whoever owes them. Lanes read
    on their own, so their slices rarely end at the same record by chance; `aligned` sees to that.

    Args:
        lanes: The lanes that share; nothing is held for one alone.
    """

    def __init__(self, lanes: Callable[[], Sized] = tuple) -> None:
        self._lanes = lanes
        self._lock = threading.Lock()
        self._forms: OrderedDict[tuple[int, int], _Forms] = OrderedDict()
        self._size = 0

    def aligned(self, kept: Slice) -> int:
        """How many records of a slice to take, so that it is one that another lane has had rendered, or the next is."""
        count = len(kept.payloads)
        if count == 1 or not self._forms:
            return count
        with self._lock:
            forms = self._forms.get(_key(kept))
            if forms is not None:
                known = len(forms.payloads)
                return known if count // _SHORTEST < known < count else count
            first, last = kept.numbers[0], kept.numbers[-1]
            starts = [number for run, number in self._forms if run == kept.run and first < number <= last]
        following = min(starts, default=None)
        return kept.numbers.index(following) if following is not None and following in kept.numbers else count

    def rendered(self, kept: Slice, render: Render[_T]) -> _T:
        """What `render` makes of the data of a slice that is `shareable`."""
        if len(kept.payloads) == 1 or len(self._lanes()) < 2:
            return render(_decoded(kept.payloads))
        return self._forms_of(kept).form(render)

    def _forms_of(self, kept: Slice) -> _Forms:
        key = _key(kept)
        with self._lock:
            forms = self._forms.get(key)
            if forms is None or forms.payloads != kept.payloads:
                self._forget(key)
                forms = self._forms[key] = _Forms(kept.payloads)
                self._size += forms.size
                while self._size > _MOST and len(self._forms) > 1:
                    self._forget(next(iter(self._forms)))
            return forms

    def _forget(self, key: tuple[int, int]) -> None:
        forms = self._forms.pop(key, None)
        self._size -= 0 if forms is None else forms.size


def _key(kept: Slice) -> tuple[int, int]:
    return kept.run, kept.numbers[0]


def shareable(kept: Slice) -> bool:
    """Whether all exporters get the same data: it is encoded, and has been through every transform."""
    return not kept.flags & (Flag.RAW | Flag.BUNDLED) and {*map(type, kept.payloads)} == {bytes}


def _decoded(payloads: Sequence[Payload]) -> list[Any]:
    """The data of encoded payloads."""
    return codec.decode_all(payloads)  # type: ignore[arg-type]  # they are bytes, see `shareable`
