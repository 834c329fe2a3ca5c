"""The benchmark's own arithmetic: ratios within a round, medians over rounds, aims reached or missed, failures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# The benchmark lies beside the package, not in it, and is never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.rounds import run_rounds
from bench.rows import ROWS, Failed, NotRun, Outcome, Round, Row, needs
from bench.subject import RATE, REGISTRY, SCALES, Figures, Measurement, Scale, measurement, record, stream, timed
from bench.table import aims, details, shown, spread

RATIO = Row("ours beside bare", lambda found: found("ours.send") / found("bare.write"), least=0.9)


def rates(**by_name: float) -> dict[str, Outcome]:
    return {name.replace("_", "."): {RATE: rate} for name, rate in by_name.items()}


def cells(table: str, line: int = 0) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[line + 2].strip("|").split("|")]


def test_record_is_200_bytes_of_8_fields() -> None:
    """Each record has 8 fields and 200 bytes as compact JSON, whichever of them is taken."""
    for data in [*stream(1000), record(200_000_000)]:
        assert len(data) == 8
        assert len(json.dumps(data, separators=(",", ":"))) == 200


def test_stream_gives_as_many_as_asked() -> None:
    """A stream longer than the records that were made goes round."""
    assert len(list(stream(2500))) == 2500


def test_timed_counts_per_record() -> None:
    """A loop is run once, and its rate is that of the records named, not of the loop."""
    runs: list[int] = []
    figures = timed(1000, lambda: runs.append(1))
    assert runs == [1]
    assert figures[RATE] > 1000


def test_ratio_is_made_within_each_round() -> None:
    """The median is taken of the rounds' ratios: a slow round slows both sides and does not show."""
    rounds = [
        rates(ours_send=100, bare_write=100),
        rates(ours_send=10, bare_write=20),
        rates(ours_send=30, bare_write=20),
    ]
    assert cells(aims([RATIO], rounds, {}))[1:4] == ["1 (0.5 to 1.5) x", "at least 0.9", "reached"]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("a", lambda found: found("ours.send"), least=10), "reached"),
        (Row("a", lambda found: found("ours.send"), least=10.5), "**missed**"),
        (Row("a", lambda found: found("ours.send"), most=10), "reached"),
        (Row("a", lambda found: found("ours.send"), most=9.5), "**missed**"),
        (Row("a", lambda found: found("ours.send")), ""),
    ],
)
def test_verdict(row: Row, verdict: str) -> None:
    """A value on the aim reaches it, one beyond misses it, and a row without an aim has no verdict."""
    assert cells(aims([row], [rates(ours_send=10)], {}))[3] == verdict


def test_aim_of_zero_is_an_aim() -> None:
    """One lost record misses the aim of none."""
    row = Row("lost", lambda found: found("kills.ours", "lost"), "", most=0)
    assert cells(aims([row], [{"kills.ours": {"lost": 1.0}}], {}))[1:4] == ["1", "at most 0", "**missed**"]
    assert cells(aims([row], [{"kills.ours": {"lost": 0.0}}], {}))[1:4] == ["0", "at most 0", "reached"]


def test_failure_is_told_with_its_reason() -> None:
    """A subject that fails in every round shows as failed, and the rows after it are there."""
    rounds = [{**rates(bare_write=5), "ours.send": "ValueError: no"}]
    other = Row("other", lambda found: found("bare.write"))
    table = aims([RATIO, other], rounds, {})
    assert cells(table)[1:4] == ["failed: ours.send: ValueError: no", "at least 0.9", "**failed**"]
    assert cells(table, 1)[:2] == ["other", "5 x"]


def test_failure_in_one_round_is_not_passed_over() -> None:
    """A row whose value is there in some rounds says how often it was not, and why."""
    rounds = [rates(ours_send=10, bare_write=10), {**rates(bare_write=10), "ours.send": "killed"}]
    assert cells(aims([RATIO], rounds, {}))[3] == "reached; 1 rounds failed: ours.send: killed"


def test_row_that_was_not_measured_is_left_out() -> None:
    """Rows whose measurements were not asked for do not show."""
    assert len(aims([RATIO], [rates(bare_write=1)], {}).splitlines()) == 2


def test_guarantee_is_that_of_our_side() -> None:
    """The last cell of a ratio says what the call guarantees that stands above the line."""
    table = aims([RATIO], [rates(ours_send=1, bare_write=1)], {"ours.send": "crash", "bare.write": "nothing"})
    assert cells(table)[4] == "crash"


def test_fastest_peer_passes_over_failed_ones() -> None:
    """The fastest is taken among the peers that have a rate; other measurements do not count."""
    found = Round(
        {"peers.a.put": {RATE: 5.0}, "peers.b.put": "failed", "peers.a.drain": {RATE: 9.0}, "ours.put": {RATE: 99.0}}
    )
    assert found.fastest_peer("put") == 5.0


def test_no_peer_at_all() -> None:
    """When all peers failed that is a failure with a reason; when none was run, there is nothing to say."""
    with pytest.raises(Failed, match="broken"):
        Round({"peers.a.put": "broken"}).fastest_peer("put")
    with pytest.raises(NotRun):
        Round({"ours.put": {RATE: 1.0}}).fastest_peer("put")


def test_needs_names_ours_first_and_all_peers() -> None:
    """A row knows which measurements it is made of."""
    row = Row("a", lambda found: found("ours.send") / found.fastest_peer("put"))
    assert needs(row, ["peers.a.put", "peers.a.drain", "bare.write", "peers.b.put"]) == [
        "ours.send",
        "peers.a.put",
        "peers.b.put",
    ]


def test_every_row_is_made_of_known_modules() -> None:
    """Each aim takes its first figure from the library or from its behaviour."""
    modules = {needs(row, ())[0].partition(".")[0] for row in ROWS}
    assert modules == {"ours", "footprint", "behaviour", "kills"}


def test_details_show_all_figures_of_a_section() -> None:
    """A section has a column for each figure that any of its members has, and a failed member says why."""

    def nothing(scale: Scale, folder: Path) -> Figures:
        return {}

    members = [Measurement(name, nothing, "Keeping", "memory") for name in ("a.one", "a.two", "a.not-run")]
    rounds: list[dict[str, Outcome]] = [
        {"a.one": {RATE: 1.0, "ms": 2.0}, "a.two": "broken"},
        {"a.one": {RATE: 3.0, "ms": 2.0}},
    ]
    table = details(members, rounds).partition("\n\n")[2]
    assert cells(table) == ["a.one", "2 (1 to 3)", "2", "memory"]
    assert cells(table, 1) == ["a.two", "failed: broken", "", "memory"]
    assert len(table.splitlines()) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00123, "0.0012"),
        (0.512, "0.512"),
        (2.0, "2"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234567.0, "1,234,567"),
    ],
)
def test_shown(value: float, text: str) -> None:
    """Three digits are enough below a hundred, and whole numbers above."""
    assert shown(value) == text


def test_spread_of_equal_values_is_one_value() -> None:
    """Minimum and maximum are told only when they can be told apart."""
    assert spread([2.0, 2.0001]) == "2"
    assert spread([1.0, 3.0]) == "2 (1 to 3)"


def test_measurement_registers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decorator leaves the function as it is and files it under its name."""
    monkeypatch.setattr("bench.subject.REGISTRY", {})

    @measurement("a.name", "Section", "memory", once=True)
    def run(scale: Scale, folder: Path) -> Figures:
        return {RATE: float(scale.records)}

    from bench import subject

    filed = subject.REGISTRY["a.name"]
    assert (filed.run, filed.once, filed.large) == (run, True, False)
    assert filed.run(SCALES["quick"], Path()) == {RATE: 5000.0}
    assert "a.name" not in REGISTRY


def test_failing_process_does_not_stop_the_rest(tmp_path: Path) -> None:
    """Each measurement runs in a process of its own: one that fails leaves its last words, and the next one runs."""

    def never(scale: Scale, folder: Path) -> Figures:
        raise AssertionError("measured in this process")

    members = [
        Measurement("bare.unheard-of", never, "Keeping", "memory"),
        Measurement("bare.encode", never, "Keeping", "memory"),
    ]
    told: list[str] = []
    first, second = run_rounds(members, 2, "quick", tmp_path, told.append)
    for outcomes in (first, second):
        encoded = outcomes["bare.encode"]
        assert outcomes["bare.unheard-of"] == "KeyError: 'bare.unheard-of'"
        assert isinstance(encoded, dict)
        assert encoded[RATE] > 0
    assert len(told) == 4
    assert list(tmp_path.iterdir()) == []
