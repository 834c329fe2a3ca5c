"""Points 29 to 31: one exporter alone, joining a pool, and writing exporters."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
@pytest.mark.parametrize("use_memory", [True, False])
def test_alone_it_keeps_what_fails(tmp_path: Path, kind: Callable[..., Any], use_memory: bool) -> None:
    """An exporter outside any pool keeps what fails, and sends it before the next record, oldest first."""
    target = kind("t", up=False, use_memory=use_memory, tmp_file=tmp_path / "kept")
    for number in range(3):
        result = target.send(number)
        assert isinstance(result, rex.ExportResult)
        assert ((None, False), True) == (result, result.kept)
    assert target.has_unsent_data()
    assert (tmp_path / "kept").exists() is not use_memory
    target.up = True
    assert (None, True) == target.send(3)
    assert [0, 1, 2, 3] == target.got
    assert not target.has_unsent_data()


def test_alone_a_file_exporter_keeps_what_fails(tmp_path: Path) -> None:
    """`FileExporter("x").send(line)` outside any pool keeps what fails."""
    target = rex.FileExporter(tmp_path / "missing" / "x")
    assert target.send("one").kept
    (tmp_path / "missing").mkdir()
    assert [(None, True)] == target.send_unsent_data()
    assert "one\n" == (tmp_path / "missing" / "x").read_text()


def test_alone_it_has_the_members_of_a_pool(tmp_path: Path) -> None:
    """The members for unsent data, `transform`, `use_memory` and `name` work outside a pool."""
    target = MemoryExporter("t", transform=str, tmp_file=tmp_path / "kept")
    assert ("t", True) == (target.name, target.use_memory)
    assert "5" == target.transform(5)
    target.save_unsent_data("already", {"k": 1}, "t")
    assert target.has_unsent_data()
    assert [(None, True)] == target.send_unsent_data()
    assert (["already"], [{"k": 1}]) == (target.got, target.kwargs)
    with pytest.raises(rex.InvalidConfigError):
        target.save_unsent_data("x", {}, "another")
    target.use_memory = False
    assert not target.use_memory


def test_alone_the_constructor_s_keywords() -> None:
    """All published keywords of the constructor are taken by name."""
    target = MemoryExporter(
        transform=None,
        use_memory=True,
        manual_reexport=True,
        tmp_file=None,
        save_unsent_data=False,
        name="n",
        timeout=5.0,
        up=False,
    )
    assert not target.send(1).kept
    assert not target.has_unsent_data()


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": -1}, {"timeout": "5"}, {"transform": 5}])
def test_alone_the_constructor_s_keywords_are_checked(wrong: dict[str, Any]) -> None:
    """Arguments of a wrong kind or range raise InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        MemoryExporter(**wrong)


def test_alone_by_hand() -> None:
    """With `manual_reexport=True` an exporter alone sends what is kept when told to."""
    target = MemoryExporter(manual_reexport=True, up=False)
    target.send(1)
    target.up = True
    target.send(2)
    target.send_unsent_data()
    assert [2, 1] == target.got


def test_alone_it_reports_what_it_raises() -> None:
    """Outside a pool an exporter's exception is in the result, and the record is kept."""
    error = ValueError("boom")
    target = MemoryExporter(error=error)
    result = target.send(1)
    assert ((None, False), True) == (result, result.kept)
    assert error is result.error
    target.error = None
    target.send_unsent_data()
    assert [1] == target.got


def test_alone_an_interrupt_reaches_the_caller() -> None:
    """Outside a pool KeyboardInterrupt reaches the caller after the record was kept."""
    target = MemoryExporter(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        target.send(1)
    assert target.has_unsent_data()
    target.error = None
    target.send_unsent_data()
    assert [1] == target.got


def test_alone_restart(tmp_path: Path) -> None:
    """What an exporter keeps in its file is found by its successor."""
    target = MemoryExporter("t", up=False, use_memory=False, tmp_file=tmp_path / "kept")
    target.send(1)
    del target
    gc.collect()
    successor = MemoryExporter("t", use_memory=False, tmp_file=tmp_path / "kept")
    assert successor.has_unsent_data()
    successor.send(2)
    assert [1, 2] == successor.got


@pytest.mark.parametrize("own_memory", [True, False])
@pytest.mark.parametrize("pool_memory", [True, False])
@pytest.mark.parametrize("later", [True, False])
def test_its_unsent_data_comes_along(
    make_pool: MakePool, tmp_path: Path, own_memory: bool, pool_memory: bool, later: bool
) -> None:
    """An exporter's own unsent data comes along when it joins a pool, in front, with its keywords, and only for it."""
    target, other = (
        MemoryExporter("t", up=False, use_memory=own_memory, tmp_file=tmp_path / "own"),
        MemoryExporter("o"),
    )
    target.send("a", table="x")
    target.send("b")
    pool = make_pool([other] if later else [target, other], use_memory=pool_memory, tmp_file=tmp_path / "pool")
    if later:
        pool.add_exporter(target)
    assert pool.has_unsent_data()
    pool.send("c")
    target.up = True
    pool.send("d")
    assert (["a", "b", "c", "d"], ["c", "d"]) == (target.got, other.got)
    assert [{"table": "x"}, {}, {}, {}] == target.kwargs
    assert not pool.has_unsent_data()


def test_an_own_file_is_drained_also_after_a_restart(make_pool: MakePool, tmp_path: Path) -> None:
    """An exporter that joined with its own file delivers what is left there after a restart, too, once."""

    def build(up: bool) -> tuple[rex.ExporterPool, MemoryExporter]:
        target = MemoryExporter("t", up=up, use_memory=False, tmp_file=tmp_path / "own")
        if not up:
            target.send("a")
        return make_pool([target], use_memory=False, tmp_file=tmp_path / "pool"), target

    pool, _ = build(up=False)
    pool.send("b")
    pool.close()
    pool, target = build(up=True)
    pool.send("c")
    assert ["a", "b", "c"] == target.got
    pool.close()
    pool, target = build(up=True)
    assert not pool.has_unsent_data()


def test_raw_unsent_data_of_its_own_is_transformed_once(make_pool: MakePool) -> None:
    """What an exporter kept alone was transformed by its own `transform`, and the pool's does not touch it."""
    target = MemoryExporter("t", up=False, transform=lambda data: data * 2)
    target.send(1)
    pool = make_pool([target], lambda data: data * 100)
    target.up = True
    pool.send(3)
    assert [2, 300] == target.got


class Bare(rex.Exporter):
    """Never calls `super().__init__()`."""

    def __init__(self, sink: list[Any]) -> None:
        self.sink = sink
        self.up = True

    def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
        if self.up:
            self.sink.append(data)
        return rex.ExportResult(None, self.up)


class Grandchild(Bare):
    """A subclass of a subclass that calls up the chain."""

    def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
        return super().send(f"grand {data}", **kwargs)


class GreatGrandchild(Grandchild):
    """Overrides nothing."""


class Counting:
    """A mixin in front of an exporter."""

    sends = 0

    def send(self, data: Any, **kwargs: Any) -> Any:
        self.sends += 1
        return super().send(data, **kwargs)  # type: ignore[misc]


class Mixed(Counting, Grandchild):
    """A mixin over a subclass of a subclass."""


class MixedBehind(Grandchild, Counting):
    """A mixin behind the exporter, never reached."""


class Slotted(rex.Exporter):
    """Has slots and properties of its own."""

    __slots__ = ("sink", "up")

    def __init__(self, sink: list[Any]) -> None:
        super().__init__()
        self.sink = sink
        self.up = True

    def send(self, data: Any) -> rex.ExportResult:
        if self.up:
            self.sink.append(data)
        return rex.ExportResult(None, self.up)


class EmptySlots(MemoryExporter):
    """A subclass of a fake."""

    def __init__(self, sink: list[Any]) -> None:
        super().__init__()
        self.got = sink


CLASSES: list[tuple[Callable[[list[Any]], Any], str]] = [
    (Bare, "{}"),
    (Grandchild, "grand {}"),
    (GreatGrandchild, "grand {}"),
    (Mixed, "grand {}"),
    (MixedBehind, "grand {}"),
    (Slotted, "{}"),
    (EmptySlots, "{}"),
]


@pytest.mark.parametrize(("make", "text"), CLASSES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("alone", [True, False])
def test_a_plain_subclass_is_a_full_citizen(
    make_pool: MakePool, make: Callable[[list[Any]], Any], text: str, alone: bool
) -> None:
    """Any subclass that only overrides `send` is kept, retried and pooled, and works alone."""
    sink: list[Any] = []
    target = make(sink)
    sender: Any = target if alone else make_pool([target, MemoryExporter("other")])
    target.up = False
    for data in ("a", "b"):
        sender.send(data)
    assert sender.has_unsent_data()
    target.up = True
    sender.send("c")
    assert [text.format(data) for data in ("a", "b", "c")] == sink
    assert not sender.has_unsent_data()
    assert isinstance(target.name, str)
    assert target.name


def test_a_mixin_runs_once_per_attempt(make_pool: MakePool) -> None:
    """`super().send()` inside an attempt is the bare method: nothing is kept or counted twice."""
    target = Mixed([])
    target.up = False
    pool = make_pool([target])
    pool.send(1)
    assert 1 == target.sends
    target.up = True
    pool.send_unsent_data()
    assert (2, ["grand 1"]) == (target.sends, target.sink)


def test_unnamed_subclasses_are_named_by_their_class(make_pool: MakePool) -> None:
    """An exporter that never called `super().__init__()` has a name like all others, unique in its pool."""
    pool = make_pool([Bare([]), Bare([]), Grandchild([])])
    assert ["Bare", "Bare-2", "Grandchild"] == list(pool.exporters)


def test_a_batch_method_alone_is_enough(make_pool: MakePool) -> None:
    """A subclass that only writes the batch method sends single records as well, alone and in a pool."""

    class Batching(rex.Exporter):
        def __init__(self) -> None:
            self.got: list[Any] = []

        def export(self, batch: Any, **options: Any) -> None:
            self.got += [record.data for record in batch.records]

    target, alone = Batching(), Batching()
    assert [(None, True)] == make_pool([target]).send(1)
    assert (None, True) == alone.send(2)
    assert ([1], [2]) == (target.got, alone.got)


def test_a_class_with_neither_method_is_refused() -> None:
    """Overriding neither `send` nor the batch method raises TypeError when it is used; to a pool it is no exporter."""

    class Nothing(rex.Exporter):
        pass

    with pytest.raises(rex.InvalidConfigError, match="Nothing"):
        rex.ExporterPool([Nothing()])
    with pytest.raises(TypeError):
        Nothing().send(1)


def test_methods_may_be_added_to_the_class_later(make_pool: MakePool) -> None:
    """An exporter class made with `type()` works like any other."""

    def send(self: Any, data: Any) -> rex.ExportResult:
        return rex.ExportResult(data, True)

    made = type("Made", (rex.Exporter,), {"send": send})
    assert [(5, True)] == make_pool([made()]).send(5)


def test_an_exporter_may_define_its_own_attributes(make_pool: MakePool) -> None:
    """Attributes with common names in a subclass do not disturb the library."""

    class Cluttered(Bare):
        def __init__(self, sink: list[Any]) -> None:
            super().__init__(sink)
            self.engine = self.pool = self.lane = self.spool = self.lock = self.queue = self.state = "mine"
            self._engine = self._pool = self._lane = self._spool = self._lock = self._queue = self._state = "mine"
            self.timeout_seconds = self.client = self.connection = self._client = self._name = "mine"

    sink: list[Any] = []
    target = Cluttered(sink)
    target.up = False
    pool = make_pool([target])
    pool.send(1)
    target.up = True
    pool.send(2)
    assert [1, 2] == sink
    sink.clear()
    alone = Cluttered(sink)
    alone.send(3)
    assert [3] == sink


def test_a_pool_may_be_subclassed(make_pool: MakePool, tmp_path: Path) -> None:
    """A subclass of the pool that adds to `send` and to the constructor works, alone and inside another pool."""

    class Stamping(rex.ExporterPool):
        def __init__(self, *exporters: rex.Exporter, **options: Any) -> None:
            super().__init__(exporters, **options)
            self.stamped = 0

        def send(self, data: Any, /, **kwargs: Any) -> Any:  # type: ignore[override]  # the pool's own has a default
            self.stamped += 1
            return super().send({"stamp": self.stamped, "data": data}, **kwargs)

    target = MemoryExporter("t", up=False)
    pool = Stamping(target, use_memory=False, tmp_file=tmp_path / "kept", name="stamping")
    pool.send("a")
    target.up = True
    pool.send("b", table="x")
    assert [{"stamp": 1, "data": "a"}, {"stamp": 2, "data": "b"}] == target.got
    pool.close()
    inner = Stamping(MemoryExporter("leaf"), name="inner")
    assert make_pool([inner], name="outer").send("c")[0].successful


def test_exporters_that_compare_equal_are_two(make_pool: MakePool) -> None:
    """Exporters are told apart by identity, whatever their `__eq__`, `__hash__`, `__bool__` and `__len__` say."""

    class Odd(MemoryExporter):
        __hash__ = None  # type: ignore[assignment]  # unhashable on purpose

        def __eq__(self, other: object) -> bool:
            return True

        def __bool__(self) -> bool:
            return False

        def __len__(self) -> int:
            return 0

    a, b = Odd(), Odd(up=False)
    pool = make_pool([a, b])
    pool.send(1)
    b.up = True
    pool.send(2)
    assert [1, 2] == a.got
    assert [1, 2] == b.got


def test_dead_letters_come_along() -> None:
    """The dead letters of an exporter that was alone are the pool's when it joins, in memory too, and are counted."""
    exporter = MemoryBatchExporter("t", refuse=lambda data: data == "bad")
    exporter.send("bad")
    assert 1 == len(exporter.dead_letters)
    with rex.ExporterPool([exporter]) as pool:
        assert ["bad"] == [letter.data for letter in pool.dead_letters]
        assert [1] == [lane.dead for lane in pool.status().exporters]
