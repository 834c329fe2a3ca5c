"""The suite finds what is wrong with an exporter: each of these has one defect, and the test named beside it fails."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from resilient_exporters.exceptions import RecordsRefused, TargetDown
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.records import Batch, ExportResult
from resilient_exporters.testing.suite import ExporterSuite

BAD = "bad"
ROOT = Path(__file__).parents[2]


class Target:
    """A list that may be out of reach."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.ids: set[Any] = set()
        self.up = True

    def take(self, record: Any, once: bool = True) -> None:
        if not self.up:
            raise TargetDown("down, by s3cret")
        if record.id not in self.ids or not once:
            self.got.append(record.data)
        self.ids.add(record.id)


class Good(Exporter):
    """As it should be."""

    guarantee: ClassVar[str] = "exact"

    def __init__(self, target: Target, **options: Any) -> None:
        self.target = target
        super().__init__(**options)

    def export(self, batch: Batch, /, *, table: str = "") -> None:
        bad = {i: "bad" for i, record in enumerate(batch) if record.data == BAD}
        for i, record in enumerate(batch):
            if i not in bad:
                self.target.take(record)
        if bad:
            raise RecordsRefused(permanent=bad)


class Doubles(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        for record in batch:
            self.target.take(record, once=False)


class Forgets(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        with suppress(TargetDown):
            super().export(batch)


class Contacts(Good):
    def __init__(self, target: Target, **options: Any) -> None:
        super().__init__(target, **options)
        if not target.up:
            raise TargetDown("not there")


class Boasts(Good):
    guarantee = "always"


class Tells(Good):
    def target_name(self) -> str:
        return "user:s3cret@host"


class Wanders(Good):
    def target_name(self) -> str:
        return f"good-{id(self)}"


class Spoils(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        super().export(batch)
        for record in batch:
            record.data.clear()


class Reverses(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        for record in reversed(list(batch)):
            self.target.take(record)


class Stumbles(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        if any(record.data == BAD for record in batch):
            raise ValueError("bad")
        super().export(batch)


class Swallows(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        for record in batch:
            if record.data == BAD:
                raise RecordsRefused(permanent=dict.fromkeys(range(len(batch)), "bad"))
        super().export(batch)


class ClosesForEver(Good):
    dead = False

    def export(self, batch: Batch, /, *, table: str = "") -> None:
        if self.dead:
            raise TargetDown("closed")
        super().export(batch)

    def close(self) -> None:
        self.dead = True


class OneThread(Good):
    thread: Any = None

    def export(self, batch: Batch, /, *, table: str = "") -> None:
        import threading

        self.thread = self.thread or threading.current_thread()
        if self.thread is not threading.current_thread():
            raise RuntimeError("another thread")
        super().export(batch)


class Deaf(Good):
    def export(self, batch: Batch, /) -> None:  # type: ignore[override]  # that is the defect
        super().export(batch)


class Claims(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        super().export(batch)
        raise RecordsRefused(permanent={len(batch): "one more than there are"})


class Answers(Good):
    def export(self, batch: Batch, /, *, table: str = "") -> None:
        super().export(batch)
        return len(batch)  # type: ignore[return-value]  # that is the defect


class Babbles(Exporter):
    def __init__(self, target: Target) -> None:
        self.target = target
        super().__init__()

    def send(self, data: Any) -> ExportResult:
        return "sent"  # type: ignore[return-value]  # that is the defect


class Lies(Exporter):
    def __init__(self, target: Target) -> None:
        self.target = target
        super().__init__()

    def send(self, data: Any) -> ExportResult:
        return ExportResult(None, True)


class OfTarget(ExporterSuite):
    """The suite, to be run by hand."""

    bad_record = BAD
    keywords = {"table": "t"}
    secrets = ("s3cret",)
    kind: Any = Good

    def set_up(self, folder: Path) -> None:
        super().set_up(folder)
        self.target = Target()

    def make_exporter(self) -> Exporter:
        made: Exporter = self.kind(self.target)
        return made

    def arrived(self) -> list[Any]:
        return self.target.got

    def break_target(self) -> None:
        self.target.up = False

    def heal_target(self) -> None:
        self.target.up = True


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[OfTarget]:
    made = OfTarget()
    made.set_up(tmp_path)
    yield made
    made.tear_down()


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Doubles, "a_failure_after_the_target_has_it"),
        (Doubles, "a_restart_after_a_failure_in_doubt"),
        (Doubles, "an_interrupt_keeps_the_record"),
        (Forgets, "what_a_target_that_is_down_misses_is_delivered_later"),
        (Forgets, "another_process_delivers_what_is_owed"),
        (Contacts, "nothing_is_contacted_before_the_first_send"),
        (Boasts, "it_says_what_it_guarantees"),
        (Tells, "secrets_are_not_shown"),
        (Wanders, "the_name_is_stable"),
        (Spoils, "records_are_not_changed"),
        (Reverses, "many_at_once_arrive"),
        (Stumbles, "a_bad_record_alone"),
        (Stumbles, "a_bad_record_costs_no_good_one"),
        (Swallows, "a_bad_record_costs_no_good_one"),
        (ClosesForEver, "it_may_be_closed_and_used_again"),
        (OneThread, "it_may_be_called_from_any_thread"),
        (Deaf, "keywords_are_taken"),
        (Lies, "what_is_sent_arrives"),
        (Lies, "one_alone_works"),
        (Lies, "it_works_in_the_background"),
        (Lies, "any_error_keeps_the_record"),
        (Lies, "no_exception_is_too_strange"),
        (Claims, "its_answers_make_sense"),
        (Answers, "its_answers_make_sense"),
        (Babbles, "its_answers_make_sense"),
    ],
)
def test_a_defect_is_found(suite: OfTarget, kind: Any, test: str) -> None:
    """An exporter with a defect fails the test that is there for it; one without passes it."""
    suite.kind = kind
    with pytest.raises((AssertionError, TargetDown, TypeError)):
        getattr(suite, f"test_{test}")()
    suite.tear_down()
    (suite.folder / "good").mkdir()
    suite.set_up(suite.folder / "good")
    suite.kind = Good
    if test != "secrets_are_not_shown":  # the target of this one tells its own
        getattr(suite, f"test_{test}")()


def test_a_secret_in_an_error_is_found(suite: OfTarget) -> None:
    """A secret that is only shown when the target is down is found."""
    with pytest.raises(AssertionError, match="secret"):
        suite.test_secrets_are_not_shown()


def test_what_is_not_offered_is_skipped(tmp_path: Path) -> None:
    """Without a way to break the target, or a bad record, these tests are skipped, with the reason."""
    plain = ExporterSuite()
    plain.set_up(tmp_path)
    for test in (
        plain.test_nothing_is_contacted_before_the_first_send,
        plain.test_a_bad_record_alone,
        plain.test_a_lost_reply,
    ):
        with pytest.raises(pytest.skip.Exception, match="suite"):
            test()


def test_what_must_be_written_is_asked_for(tmp_path: Path) -> None:
    """A suite without `make_exporter` does not pass."""
    plain = ExporterSuite()
    plain.set_up(tmp_path)
    with pytest.raises(NotImplementedError):
        plain.test_what_is_sent_arrives()


def test_five_lines_make_a_suite(tmp_path: Path) -> None:
    """The example of the documentation passes, run by pytest as a reader would run it."""
    page = (ROOT / "docs" / "how-to" / "write-an-exporter.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "ExporterSuite" in block)
    (tmp_path / "test_mine.py").write_text(example, encoding="utf-8")
    lines = [line for line in example.partition("class ")[2].splitlines() if line.strip()]
    assert 5 == len(lines)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_mine.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 0 == ran.returncode, ran.stdout
    assert " passed" in ran.stdout
