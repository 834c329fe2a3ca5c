"""Points 1 to 3: what constructors check, that they contact nobody, and how names come about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize("number", [0, -3, 1.5, "2", None])
def test_a_wrong_number_of_threads_is_refused(number: Any) -> None:
    """`num_threads` below 1, or not an integer, raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], num_threads=number)


@pytest.mark.parametrize("kind", [list, tuple, iter, set])
def test_exporters_may_come_in_any_iterable(make_pool: MakePool, kind: Callable[[list[Any]], Any]) -> None:
    """`exporters` may be a list, a tuple, an iterator or a set."""
    target = MemoryExporter("t")
    assert ["t"] == list(make_pool(kind([target])).exporters)


def test_exporters_may_come_from_a_generator(make_pool: MakePool) -> None:
    """`exporters` may be a generator, which is read once."""

    def generate() -> Iterator[rex.Exporter]:
        for name in ("a", "b"):
            yield MemoryExporter(name)

    pool = make_pool(generate())
    assert ["a", "b"] == list(pool.exporters)
    assert 2 == len(pool.send(1))
    assert 2 == len(pool.send(2))


@pytest.mark.parametrize(
    ("thing", "named"), [(42, "42"), ("a string", "a string"), (None, "None"), (MemoryExporter, "MemoryExporter")]
)
def test_what_is_not_an_exporter_is_refused_by_name(make_pool: MakePool, thing: Any, named: str) -> None:
    """Something that is not an exporter raises InvalidConfigError naming it, in the constructor and later."""
    with pytest.raises(rex.InvalidConfigError, match=named):
        rex.ExporterPool([MemoryExporter(), thing])
    pool = make_pool([])
    with pytest.raises(rex.InvalidConfigError, match=named):
        pool.add_exporter(thing)
    assert 0 == len(pool)


@pytest.mark.parametrize("exporters", [42, MemoryExporter()])
def test_exporters_that_cannot_be_iterated_are_refused(exporters: Any) -> None:
    """An `exporters` that is no iterable raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool(exporters)


def test_the_same_name_given_twice_is_refused(make_pool: MakePool) -> None:
    """Two exporters explicitly given the same name raise InvalidConfigError, in the constructor and later."""
    with pytest.raises(rex.InvalidConfigError, match="same"):
        rex.ExporterPool([MemoryExporter("same"), MemoryExporter("same")])
    first = MemoryExporter("same")
    pool = make_pool([first])
    with pytest.raises(rex.InvalidConfigError, match="same"):
        pool.add_exporter(MemoryExporter("same"))
    assert [first] == list(pool)


def test_automatic_names_are_made_unique(make_pool: MakePool) -> None:
    """Unnamed exporters of one kind get names of their own, numbered in the order in which they join."""
    pool = make_pool([MemoryExporter(), MemoryExporter()])
    pool.add_exporter(MemoryExporter())
    assert ["MemoryExporter", "MemoryExporter-2", "MemoryExporter-3"] == list(pool.exporters)
    assert [exporter.name for exporter in pool] == list(pool.exporters)


@pytest.mark.parametrize("given_first", [True, False])
def test_an_automatic_name_gives_way_to_a_given_one(make_pool: MakePool, given_first: bool) -> None:
    """An automatic name never collides with a name that was given."""
    given, automatic = MemoryExporter("MemoryExporter"), MemoryExporter()
    pool = make_pool([given, automatic] if given_first else [automatic, given])
    assert given is pool.exporters["MemoryExporter"]
    assert 2 == len(pool)


class Unreachable(MemoryBatchExporter):
    """Fails at whatever contacts its target."""

    def open(self) -> None:
        super().open()
        raise OSError("nobody there")


def test_no_constructor_contacts_the_target(make_pool: MakePool) -> None:
    """A target that is down does not stop a pool from being built; the first `send` reports it and keeps."""
    target = Unreachable()
    pool = make_pool([target])
    assert (0, 0) == (target.opened, target.calls)
    (result,) = pool.send(1)
    assert [(None, False)] == [result]
    assert (True, True) == (result.kept, isinstance(result.error, Exception))


def test_a_file_on_a_share_that_is_not_mounted_heals(make_pool: MakePool, tmp_path: Path) -> None:
    """A file exporter is built although its folder is missing; what was kept goes out when it is there."""
    share = tmp_path / "share"
    pool = make_pool([rex.FileExporter(share / "out.txt")])
    (result,) = pool.send("early")
    assert [(None, False)] == [result]
    assert result.kept
    assert not share.exists()
    share.mkdir()
    pool.send_unsent_data()
    pool.send("late")
    assert "early\nlate\n" == (share / "out.txt").read_text()


NAMES = """
    others = [rex.ExporterPool([MemoryExporter()], name=f"other{i}") for i in range(int(sys.argv[1]))]
    pool = rex.ExporterPool([MemoryExporter(), rex.FileExporter("a.txt"), rex.FileExporter("b.txt"),
                             rex.FileExporter("a.txt"), MemoryBatchExporter(), MemoryExporter()])
    tell([pool.name, list(pool.exporters)])
"""


def test_names_are_the_same_in_each_run(run_script: Callable[..., str]) -> None:
    """The same program gives every unnamed exporter and pool the same name again, whatever else it made before."""
    first, second = json.loads(run_script(NAMES, 0)), json.loads(run_script(NAMES, 7))
    assert first == second
    assert 6 == len(set(first[1]))


def test_names_come_from_the_target(make_pool: MakePool, tmp_path: Path) -> None:
    """Exporters to different targets are told apart by their targets, not by their order."""
    x, y = tmp_path / "x", tmp_path / "y"
    one = make_pool([rex.FileExporter(x), rex.FileExporter(y)], name="one")
    other = make_pool([rex.FileExporter(y), rex.FileExporter(x)], name="other")
    assert sorted(one.exporters) == sorted(other.exporters)
    assert list(one.exporters) == list(reversed(other.exporters))


def test_names_hold_no_secrets(make_pool: MakePool) -> None:
    """Neither name nor repr shows what in a target's address is secret."""
    target = rex.HTTPExporter("http://me:hush@localhost:9/in?token=mum")  # type: ignore[attr-defined,unused-ignore]
    pool = make_pool([target])
    for text in (target.name, repr(target), repr(pool), *pool.exporters):
        assert "hush" not in text
        assert "mum" not in text


def test_names_are_local_to_the_pool(make_pool: MakePool) -> None:
    """Each pool numbers its own unnamed exporters."""
    one = make_pool([MemoryExporter(), MemoryExporter()], name="one")
    other = make_pool([MemoryExporter(), MemoryExporter()], name="other")
    assert list(one.exporters) == list(other.exporters)


def test_a_freed_exporter_is_numbered_anew(make_pool: MakePool) -> None:
    """A name that was made in one pool does not stick: in the next pool it is made by its rules."""
    first, second = MemoryExporter(), MemoryExporter()
    make_pool([first, second], name="one").close()
    assert ["MemoryExporter"] == list(make_pool([second], name="two").exporters)


def test_unnamed_pools_share_one_name(make_pool: MakePool) -> None:
    """All unnamed pools have the same, fixed name."""
    assert "exporterpool" == make_pool([]).name == make_pool([]).name


def test_a_second_pool_at_the_default_place_is_refused_with_advice(make_pool: MakePool) -> None:
    """A second live unnamed pool on disk is refused with the advice to give `name=` or `tmp_file=`."""
    make_pool([MemoryExporter()], use_memory=False)
    with pytest.raises(rex.InvalidConfigError) as refused:
        make_pool([MemoryExporter()], use_memory=False)
    assert "name=" in str(refused.value)
    assert "tmp_file=" in str(refused.value)
    make_pool([MemoryExporter()], use_memory=False, name="another")


def test_an_exporter_may_not_be_named_as_its_pool(make_pool: MakePool) -> None:
    """An exporter with the name of its pool is refused, in the constructor and later."""
    with pytest.raises(rex.InvalidConfigError, match="twin"):
        rex.ExporterPool([MemoryExporter("twin")], name="twin")
    pool = make_pool([], name="twin")
    with pytest.raises(rex.InvalidConfigError, match="twin"):
        pool.add_exporter(MemoryExporter("twin"))
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter("exporterpool")])


def test_an_unnamed_inner_pool_is_numbered_like_an_exporter(make_pool: MakePool) -> None:
    """Unnamed pools in an unnamed pool get names of their own, the same in each run."""

    def build() -> rex.ExporterPool:
        return make_pool([rex.ExporterPool([MemoryExporter()]), rex.ExporterPool([MemoryExporter()])])

    one, other = build(), build()
    assert list(one.exporters) == list(other.exporters)
    assert 2 == len(one)
    assert one.name not in one.exporters


def test_a_constructor_that_fails_claims_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    """After a failed constructor its exporters and its file are free."""
    target = MemoryExporter("t")
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([target, MemoryExporter("t")], use_memory=False, tmp_file=tmp_path / "kept")
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([target], num_threads=0, use_memory=False, tmp_file=tmp_path / "kept")
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([target, 42], use_memory=False, tmp_file=tmp_path / "kept")  # type: ignore[list-item]
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    assert [(None, True)] == pool.send(1)


def test_a_refused_file_claims_no_exporter(make_pool: MakePool, tmp_path: Path) -> None:
    """A constructor that fails at the file leaves the exporters free."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"somebody else's file\n" * 100)
    target = MemoryExporter("t")
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([target], use_memory=False, tmp_file=foreign)
    assert [(None, True)] == make_pool([target]).send(1)


def test_a_refused_exporter_leaves_the_pool_as_it_was(make_pool: MakePool) -> None:
    """An `add_exporter` that fails claims nothing, and the exporter may join under another pool."""
    pool = make_pool([MemoryExporter("t")])
    twin = MemoryExporter("t")
    with pytest.raises(rex.InvalidConfigError):
        pool.add_exporter(twin)
    assert [(None, True)] == make_pool([twin], name="other").send(1)


@pytest.mark.parametrize("name", [5, b"bytes", ["x"]])
def test_a_name_that_is_no_string_is_refused(name: Any) -> None:
    """A `name` that is not a string raises InvalidConfigError for pools and exporters."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([], name=name)
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter(name)])
