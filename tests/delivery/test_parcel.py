"""The records of a batch: made late, all at once, each on its own where something is wrong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters import codec
from resilient_exporters.delivery.parcel import batch_of
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.delivery.target import Target
from resilient_exporters.exceptions import SpoolError
from resilient_exporters.records import Batch, RecordId
from resilient_exporters.spool.interface import Flag, Opaque, Payload, Slice
from tests.delivery.targets import FakeTarget

UNDECODABLE = b"\xc1"


def batch(payloads: Sequence[Payload], target: Target | None = None, flags: int = 0) -> Batch:
    count = len(payloads)
    times = [100.0 + index for index in range(count)]
    kept = Slice(7, codec.encode_options({"k": 1}), flags, [*range(1, count + 1)], [*range(11, count + 11)], times)
    kept.payloads.extend(payloads)
    made, _ = batch_of(target or FakeTarget(), "lane", kept, Shared(), deadline=0.0, doubt=False)
    return made


def encoded(*data: Any) -> list[Payload]:
    return [codec.encode(one) for one in data]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many payloads each call of `decode_all` got."""
    counts: list[int] = []
    decode_all = codec.decode_all

    def counting(payloads: Sequence[bytes]) -> list[Any]:
        counts.append(len(payloads))
        return decode_all(payloads)

    monkeypatch.setattr(codec, "decode_all", counting)
    return counts


def test_who_does_not_look_does_not_pay(decoded: list[int]) -> None:
    """Nothing is decoded before a record's data is read; then all is, once."""
    records = batch(encoded(1, 2, 3)).records
    assert [11, 12, 13] == [record.id.number for record in records]
    assert [] == decoded
    assert 2 == records[1].data
    assert [1, 2, 3] == [record.data for record in records]
    assert [3] == decoded


def test_a_record_knows_what_was_sent_with_it() -> None:
    """Id, time and keyword arguments are those of the record, by index, from the end, and in a slice."""
    records = batch(encoded("a", "b", "c")).records
    assert (RecordId(7, 12), 101.0, {"k": 1}) == (records[1].id, records[1].time, records[1].kwargs)
    assert records[1] is records[-2] is records[1:][0]
    assert "Record(0000000000000007-c)" == repr(records[1])
    assert [*records] == [records[0], records[1], records[2]]


@given(st.lists(st.one_of(st.none(), st.integers(), st.text(), st.tuples(st.integers()), st.datetimes()), min_size=1))
def test_the_data_is_what_was_sent(data: list[Any]) -> None:
    """Whatever is in a batch, each record has its own data, of the type that was sent, and the batch has them all."""
    made = batch(encoded(*data))
    assert [repr(one) for one in data] == [repr(one) for one in made.data]
    assert all(one is record.data for one, record in zip(made.data, made.records, strict=True))


def test_what_an_exporter_changes_stays_its_own() -> None:
    """Data that was read is the same object when it is read again, and no other batch sees what became of it."""
    payloads = encoded({"a": 1}, {"a": 2})
    mine, others = batch(payloads), batch(payloads)
    mine.records[0].data["a"] = 9
    assert [{"a": 9}, {"a": 2}] == [record.data for record in mine.records]
    assert [{"a": 1}, {"a": 2}] == [record.data for record in others.records]


def test_one_bad_payload_spoils_no_other_record() -> None:
    """Only the record that cannot be decoded raises, each time; the others have their data, one object each."""
    made = batch([*encoded([1]), UNDECODABLE, *encoded([3])])
    records = made.records
    for _ in range(2):
        with pytest.raises(SpoolError):
            _ = records[1].data
        with pytest.raises(SpoolError):
            _ = made.data
    assert [[1], [3]] == [records[0].data, records[2].data]
    assert records[0].data is records[0].data


def test_one_failing_transform_spoils_no_other_record(decoded: list[int]) -> None:
    """A transform runs record by record, when the record is read, and once."""
    target = FakeTarget()
    seen: list[Any] = []

    def transform(data: Any) -> Any:
        seen.append(data)
        return 10 // data

    target.transform = transform  # type: ignore[method-assign]
    records = batch(encoded(5, 0, 2), target, Flag.RAW).records
    assert 2 == records[0].data == records[0].data
    assert [5] == seen
    with pytest.raises(ZeroDivisionError):
        _ = records[1].data
    assert 5 == records[2].data
    assert [] == decoded


def test_objects_that_are_only_held_in_memory_are_copied() -> None:
    """What no codec can write is copied for the exporter, which gets its own object."""
    held = [object()]
    (record,) = batch([Opaque(held)]).records
    assert held is not record.data
    assert record.data is record.data


def test_threads_that_read_side_by_side_see_the_same_data() -> None:
    """Two threads of an exporter that look at a batch at the same time get the same objects."""
    for _ in range(50):
        records = batch(encoded([1], [2])).records
        together = threading.Barrier(2)
        seen: list[list[Any]] = []

        def look(together: threading.Barrier = together, seen: list[list[Any]] = seen, records: Any = records) -> None:
            together.wait()
            seen.append([record.data for record in records])

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first, second = seen
        assert all(one is other for one, other in zip(first, second, strict=True))


@given(
    st.lists(st.one_of(st.integers(), st.sets(st.integers()), st.just(datetime(2026, 1, 2, tzinfo=UTC))), max_size=5)
)
def test_many_payloads_are_decoded_like_single_ones(data: list[Any]) -> None:
    """With marks in some, all or none of them, `decode_all` gives what `decode` gives."""
    payloads = [codec.encode(one) for one in data]
    assert [codec.decode(payload) for payload in payloads] == codec.decode_all(payloads)


@pytest.mark.parametrize("bad", [b"\xd4\x01t", b"\xc1", b"\x92\x01\xd4\x01s", b""])
def test_a_payload_that_is_none_is_told_from_the_others(bad: bytes) -> None:
    """A mark alone, a mark that is not the first, no value: each is an error, wherever it stands."""
    with pytest.raises(SpoolError):
        codec.decode(bad)
    for payloads in ([bad, codec.encode(1)], [codec.encode((1,)), bad], [codec.encode(1), bad, codec.encode([])]):
        with pytest.raises(SpoolError):
            codec.decode_all(payloads)
