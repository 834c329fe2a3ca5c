"""The values that travel: a record, its id, a batch of records, and the result of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

__all__ = ["Batch", "ExportResult", "Record", "RecordId"]

_T = TypeVar("_T")


class RecordId(NamedTuple):
    """The identity of a record towards targets; it never changes, whatever becomes of the record.

    Args:
        run: 64-bit number drawn at random at each opening of a spool, so that no two runs share ids.
        number: Counts from 1 in a run, in the order in which `send` was entered.
    """

    run: int
    number: int

    def __str__(self) -> str:
        return f"{self.run:016x}-{self.number:x}"


class Record:
    """One record as an exporter gets it: its data, its keyword arguments, its id.

    `data` is made when it is first read, so an exporter that does not look does not pay.

    Attributes:
        data: What was sent, after `transform`; an object of the exporter's own.
        kwargs: The keyword arguments of `send` that the exporter accepts.
        id: Stable identity of the record.
        time: Seconds since the epoch when the record was accepted.
    """

    __slots__ = ("_data", "_id", "_kwargs", "_load", "_time")

    def __init__(self, id: RecordId, time: float, kwargs: Mapping[str, Any], load: Callable[[], Any]) -> None:
        self._id = id
        self._time = time
        self._kwargs = kwargs
        self._load: Callable[[], Any] | None = load
        self._data: Any = None

    @property
    def id(self) -> RecordId:
        return self._id

    @property
    def time(self) -> float:
        return self._time

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self._kwargs

    @property
    def data(self) -> Any:
        if self._load is not None:
            self._data = self._load()
            self._load = None
        return self._data

    def __repr__(self) -> str:
        return f"Record({self.id})"


class Batch(Sequence[Record]):
    """Records for one attempt, all of one run and sent with the same keyword arguments.

    Attributes:
        records: The records, oldest first.
        lane: Name under which the exporter is owed records: part of the key of what a target has resolved.
        run: The run that all records belong to.
        numbers: The records' numbers in that run, one each.
        deadline: `time.monotonic()` by which the attempt should be over.
        doubt: True when an earlier attempt at some of it may have reached the target.

    Args:
        data: Makes what the property of that name has, quicker than record by record; or None.
        rendered: Does what the method of that name does, for all exporters at once; None: for this batch alone.
    """

    __slots__ = ("_data", "_rendered", "deadline", "doubt", "lane", "numbers", "records", "run")

    def __init__(
        self,
        records: Sequence[Record],
        *,
        lane: str,
        run: int,
        numbers: Sequence[int],
        deadline: float,
        doubt: bool = False,
        data: Callable[[], list[Any]] | None = None,
        rendered: Callable[[Callable[[Sequence[Any]], Any]], Any] | None = None,
    ) -> None:
        self.records = records
        self.lane = lane
        self.run = run
        self.numbers = numbers
        self.deadline = deadline
        self.doubt = doubt
        self._data = data
        self._rendered = rendered

    @property
    def data(self) -> list[Any]:
        """What `data` of each record is, in order."""
        return [record.data for record in self.records] if self._data is None else self._data()

    def rendered(self, render: Callable[[Sequence[Any]], _T]) -> _T:
        """What a function makes of the data of all records, made once for all exporters that ask for the same.

        Args:
            render: Gets a list of the data, which it must not change, any part of it. Its outcome depends on that
                alone, and is not changed either: other exporters get the same object.

        Example:
            >>> batch = Batch([Record(RecordId(1, 1), 0.0, {}, lambda: "a")], lane="x", run=1, numbers=[1], deadline=0)
            >>> batch.rendered("".join)
            'a'
        """
        if self._rendered is None:
            return render(self.data)
        made: _T = self._rendered(render)
        return made

    @property
    def token(self) -> str:
        """A name for exactly this batch: the same when it is repeated, never that of another."""
        return f"{self.run:016x}-{self.numbers[0]:x}-{self.numbers[-1]:x}-{len(self.numbers):x}"

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def __repr__(self) -> str:
        return f"Batch({len(self)} records, {self.token})"


class ExportResult(tuple[Any, bool]):
    """What became of one record at one exporter; unpacks as the pair `(returned, successful)`.

    Args:
        returned: Whatever the exporter hands back, or None.
        successful: Whether the target has the record.
        error: Why it has not, or None.
        exporter: Name of the exporter; filled in by the pool.
        kept: Whether the record is kept, to be sent later.
    """

    error: BaseException | None = None
    exporter: str | None = None
    kept: bool = False

    def __new__(
        cls,
        returned: Any = None,
        successful: bool = False,
        *,
        error: BaseException | None = None,
        exporter: str | None = None,
        kept: bool = False,
    ) -> ExportResult:
        self = super().__new__(cls, (returned, successful))
        self.error = error
        self.exporter = exporter
        self.kept = kept
        return self

    def __getnewargs__(self) -> tuple[Any, bool]:
        return (self[0], self[1])

    @property
    def returned(self) -> Any:
        return self[0]

    @property
    def successful(self) -> bool:
        return self[1]

    def __repr__(self) -> str:
        more = "".join(
            f", {name}={value!r}"
            for name, value in (("error", self.error), ("exporter", self.exporter), ("kept", self.kept))
            if value
        )
        return f"ExportResult({self[0]!r}, {self[1]!r}{more})"
