"""The benchmark's own arithmetic: ratios within a round, medians over rounds, aims reached or missed, failures."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

# The benchmark lies beside the package, not in it, and is never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.aims import topics
from bench.kills import numbers_of_records, tallied
from bench.page import page
from bench.profile import PROFILES, WHOLE
from bench.rounds import run_rounds
from bench.rows import Failed, NotRun, Outcome, Round, Row, needs
from bench.subject import RATE, REGISTRY, SCALES, Figures, Measurement, Scale, measurement, record, stream, timed
from bench.table import details, judged, profile, shown, spread

MODULES = ("bare", "ours", "footprint", "isolation", "outage", "peers", "kills", "profile", "postgresql")
RATIO = Row("ours beside bare", lambda found: found("ours.send") / found("bare.write"), least=0.9)


def aims(rows: list[Row], rounds: list[dict[str, Outcome]], guarantees: dict[str, str]) -> str:
    return judged({"topic": rows}, rounds, guarantees).removeprefix("### topic\n\n")


def nothing(scale: Scale, folder: Path) -> Figures:
    return {}


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
    assert aims([RATIO], [rates(bare_write=1)], {}) == ""


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


def test_every_row_is_made_of_measurements_that_there_are() -> None:
    """No row waits for a figure of a measurement that nobody makes, and each begins with ours."""
    for module in MODULES:
        import_module(f"bench.{module}")
    for rows in topics(SCALES["full"]).values():
        for row in rows:
            names = needs(row, REGISTRY)
            assert names[0] in REGISTRY
            assert not names[0].startswith(("bare.", "peers."))
            assert set(names) <= set(REGISTRY), row.text


def test_rows_tell_how_much_was_measured() -> None:
    """Counts in the words of a row are those of the scale, so that a quick run does not claim millions."""
    quick = [row.text for rows in topics(SCALES["quick"]).values() for row in rows]
    full = [row.text for rows in topics(SCALES["full"]).values() for row in rows]
    assert "opening with 50,000 records: first record out" in quick
    assert "opening with 31,000,000 records: first record out" in full


def test_details_show_all_figures_of_a_section() -> None:
    """A section has a column for each figure that any of its members has, and a failed member says why."""
    members = [Measurement(name, nothing, "Keeping", "memory") for name in ("a.one", "a.two", "a.not-run")]
    rounds: list[dict[str, Outcome]] = [
        {"a.one": {RATE: 1.0, "ms": 2.0}, "a.two": "broken"},
        {"a.one": {RATE: 3.0, "ms": 2.0}},
    ]
    table = details(members, rounds).partition("\n\n")[2]
    assert cells(table) == ["a.one", "2 (1 to 3)", "2", "memory"]
    assert cells(table, 1) == ["a.two", "failed: broken", "", "memory"]
    assert len(table.splitlines()) == 4


def test_section_with_many_kinds_of_figures_has_a_line_for_each() -> None:
    """A table that would be mostly empty cells goes down instead of across; failures stay in it."""
    members = [Measurement(name, nothing, "Size", "memory") for name in ("a.one", "a.two", "a.three")]
    rounds: list[dict[str, Outcome]] = [
        {"a.one": {"ms": 1.0, "MB": 2.0, "GB": 3.0}, "a.two": {"bytes": 4.0, "us": 5.0}, "a.three": "broken"}
    ]
    table = details(members, rounds).partition("\n\n")[2]
    assert [cells(table, line)[:3] for line in range(6)] == [
        ["a.one", "ms", "1"],
        ["a.one", "MB", "2"],
        ["a.one", "GB", "3"],
        ["a.two", "bytes", "4"],
        ["a.two", "us", "5"],
        ["a.three", "", "failed: broken"],
    ]


def test_profile_shows_each_part_and_its_share() -> None:
    """The parts stand in their order with their share of the whole; without them there is no table."""
    name, (text, of) = next(iter(PROFILES.items()))
    parts: Figures = dict.fromkeys(of, 0.5) | {WHOLE: 4.0}
    said, _, table = profile([{name: parts}, {name: "broken"}]).partition("\n\n")
    assert said == text
    assert [cells(table, line)[:3] for line in range(len(of))] == [[part, "0.5", "12%"] for part in of]
    assert cells(table, len(of))[:3] == [WHOLE, "4", "100%"]
    assert profile([{name: "broken"}]) == f"{text}\n\nfailed: broken"
    assert profile([{}]) == ""


def test_page_tells_date_machine_versions_and_rounds(tmp_path: Path) -> None:
    """A page can be judged by itself: when, where, with what and how often it was measured."""
    members = [Measurement("ours.send", nothing, "Keeping", "crash")]
    text = page({"Keeping": [RATIO]}, members, [rates(ours_send=1, bare_write=1)], tmp_path, SCALES["quick"])
    for fact in (
        "- Date: 20",
        "- Processor: ",
        "- Python: ",
        "- Packages: ",
        "- Rounds: 1",
        "kills 3",
        "## All figures",
    ):
        assert fact in text


def test_tally_of_kills() -> None:
    """Lost is what was accepted and never came; twice counts each time too many; more than accepted is no fault."""
    assert tallied([1, 2, 3, 4], [1, 2, 2, 2, 9]) == {"accepted": 4.0, "lost": 2.0, "twice": 2.0}


def test_line_torn_by_a_kill_is_no_record(tmp_path: Path) -> None:
    """A file that the library was killed at is read back without the torn line, whose record comes again."""
    sink = tmp_path / "sink"
    sink.write_bytes(b'{"id": 1}\n{"id": 2, "no\n{"id": 2}\n')
    assert numbers_of_records(sink) == [1, 2]


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
    assert (filed.run, filed.once) == (run, True)
    assert filed.run(SCALES["quick"], Path()) == {RATE: 10_000.0}
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


@pytest.mark.parametrize(("interrupted", "complete"), [(1, None), (2, 1), (3, 1), (4, 2)])
def test_ctrl_c_ends_with_the_complete_rounds(tmp_path: Path, interrupted: int, complete: int | None) -> None:
    """Who cannot wait gets the rounds that are complete, and the interrupt itself when none is."""
    members = [Measurement(name, nothing, "any", "any") for name in ("bare.unheard-of", "bare.unknown")]
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) > interrupted:
            raise KeyboardInterrupt

    if complete is None:
        with pytest.raises(KeyboardInterrupt):
            run_rounds(members, 5, "quick", tmp_path, tell)
    else:
        assert complete == len(run_rounds(members, 5, "quick", tmp_path, tell))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("footprint.backlog", {"first record out ms", "rise MB"}),
        ("isolation.beside all four of them", {RATE, "`send`, p99 us", "rise MB"}),
        ("outage.file", {"backlog", "arrived", "seconds"}),
        ("kills.ours to SQLite", {"kills", "accepted", "lost", "twice"}),
        *((name, {WHOLE, *parts}) for name, (_, parts) in PROFILES.items()),
    ],
)
def test_library_can_be_measured(tmp_path: Path, name: str, figures: set[str]) -> None:
    """What reaches further into the library than usual calls do runs to its end, and gives the figures of the rows."""
    (outcomes,) = run_rounds([Measurement(name, nothing, "any", "any")], 1, "quick", tmp_path, lambda line: None)
    outcome = outcomes[name]
    assert isinstance(outcome, dict), outcome
    assert figures <= set(outcome)
    assert outcome.get("lost", 0.0) == 0.0
    assert outcome.get("backlog") == outcome.get("arrived")
