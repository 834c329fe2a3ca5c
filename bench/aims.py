"""What the benchmark is about: each row that it answers, by topic, with what is to be reached."""

from __future__ import annotations

from bench.rows import Row, figure, over_peers, ratio
from bench.subject import CPU, DISK, RATE, Scale

__all__ = ["topics"]

_WRITE, _WRITE_LINES = "bare.encode+os.write", "bare.os.write of lines"
_SICK = ["one that hangs", "one that is down", "one that takes 100 ms a call", "one that raises nonsense"]


def topics(scale: Scale) -> dict[str, list[Row]]:
    """All rows, by topic."""
    return {
        "Keeping records while the target is down": _keeping(),
        "Bringing them to their targets": _delivering(),
        "One call": _calls(),
        "Rows into PostgreSQL, each exactly once": _rows(),
        "Size and start": _size(scale),
        "Healthy exporters beside sick ones": _isolation(),
        "After an outage": _outage(scale),
        f"After {scale.kills} times `kill -9`": _kills(),
    }


def _keeping() -> list[Row]:
    rows = [
        Row("`send`, beside encode + `os.write`", ratio("ours.send", _WRITE), least=0.9),
        Row("`send`, beside the fastest peer", over_peers("ours.send", "put"), least=4),
        Row("`send_many` of 1000, beside `send`", ratio("ours.send_many", "ours.send"), least=3),
        Row("`send_many` of 1000, beside encode + `os.write`", ratio("ours.send_many", _WRITE)),
        Row(
            "power: `send_many` of 1000, beside encode + write + `fdatasync` per 1000",
            ratio("ours.power send_many", "bare.encode+write+fdatasync per 1000"),
            least=0.85,
        ),
        Row(
            "power: 16 threads calling `send`, beside an `fdatasync` per record",
            ratio("ours.power send, 16 threads", "bare.encode+os.write+fdatasync"),
            least=5,
        ),
        Row("memory: `send`", figure("ours.memory send", RATE), "records/s", least=1_200_000),
    ]
    for exporters, suffix in (("1 exporter", ""), ("10 exporters", " to 10")):
        one, thousand = f"ours.send{suffix}", f"ours.send_many{suffix}"
        rows += [
            Row(f"processor time of a `send`, {exporters}", figure(one, CPU), "us", most=2),
            Row(f"disk beyond payload, `send`, {exporters}", figure(one, DISK), "bytes", most=24),
            Row(f"disk beyond payload, `send_many` of 1000, {exporters}", figure(thousand, DISK), "bytes", most=4),
        ]
    return rows


def _delivering() -> list[Row]:
    rows = [
        Row(
            "draining to an exporter that reads, beside a decode loop",
            ratio("ours.drain, reading", "bare.decode"),
            least=0.6,
        ),
        Row(
            "draining to an exporter that does nothing, beside the fastest peer",
            over_peers("ours.drain", "drain"),
            least=1.5,
        ),
        Row(
            "draining to an exporter of single records, beside a decode loop",
            ratio("ours.drain, single records to 1", "bare.decode"),
        ),
        Row(
            "time for 2 exporters of single records beside time for 1",
            ratio("ours.drain, single records to 1", "ours.drain, single records to 2"),
        ),
        Row("end to end into 1 file, beside the fastest peer", over_peers("ours.files 1", "files 1"), least=3.5),
        Row("end to end into 4 files, beside the fastest peer", over_peers("ours.files 4", "files 4"), least=4),
        *[
            Row(
                f"end to end into {files}, `send_many` of 1000, beside the fastest peer that puts many",
                over_peers(f"ours.files in bulk {count}", f"files in bulk {count}"),
            )
            for count, files in ((1, "1 file"), (4, "4 files"))
        ],
        Row("time for 4 files beside time for 1", ratio("ours.files 1", "ours.files 4"), most=2),
    ]
    for count, files, least in ((1, "1 file", 0.52), (4, "4 files", 0.25)):
        rows += [
            Row(
                f"ready-made lines into {files}, `send_many` of 1000, beside `os.write` of each",
                ratio(f"ours.lines in bulk {count}", _WRITE_LINES),
                least=least,
            ),
            Row(
                f"ready-made lines into {files}, `send` of each, beside `os.write` of each",
                ratio(f"ours.lines {count}", _WRITE_LINES),
            ),
        ]
    return rows


def _calls() -> list[Row]:
    slow = "ours.send while each call takes 100 ms"
    return [
        *[
            Row(f"a `send` while each target call takes 100 ms: {what}", figure(slow, kind), "us", most=most)
            for what, kind, most in (("median", "median us", 5), ("p99", "p99 us", 50), ("longest", "max us", 5000))
        ],
        Row(
            "foreground: what a pool adds to a healthy exporter's `send`",
            figure("ours.send, foreground", "added us"),
            "us",
            most=4,
        ),
    ]


def _rows() -> list[Row]:
    export, far = "postgresql.export", "postgresql.far away"
    bulk = "postgresql.bare, json", "postgresql.bare, binary copy"
    return [
        Row("batches of 1000, beside an insert per record", ratio(export, "postgresql.bare, one by one"), least=20),
        Row(
            "batches of 1000, beside the fastest bulk way of the bare driver",
            lambda found: found(export) / max([found(way) for way in bulk]),
            least=0.8,
        ),
        Row("`send_many` of 1000 over a round trip of 50 ms: the first", figure(far, "first ms"), "ms", most=500),
        Row("`send_many` of 1000 over a round trip of 50 ms: the next", figure(far, "then ms"), "ms", most=500),
    ]


def _size(scale: Scale) -> list[Row]:
    small, large = "footprint.backlog", "footprint.large backlog"
    return [
        *[
            Row(
                f"opening with {count:,} records: first record out",
                figure(name, "first record out ms"),
                "ms",
                most=most,
            )
            for name, count, most in ((small, scale.backlog, 30), (large, scale.large, 150))
        ],
        Row(f"resident memory while {scale.large:,} records drain: rise", figure(large, "rise MB"), "MB", most=40),
        Row(
            "memory spool: resident memory per 200-byte record",
            figure("footprint.memory spool", "bytes/record"),
            "bytes",
            most=320,
        ),
        Row("`import resilient_exporters`", figure("footprint.import", "import ms"), "ms", most=80),
        Row("client libraries that the import loads", figure("footprint.import", "client libraries"), "", most=0),
    ]


def _isolation() -> list[Row]:
    alone, crowded = "isolation.alone", "isolation.beside all four of them"
    return [
        *[
            Row(f"rate of three, beside {other}, beside alone", ratio(f"isolation.beside {other}", alone), least=0.9)
            for other in [*_SICK, "all four of them"]
        ],
        *[
            Row(f"`send` beside all four of them, beside alone: {what}", ratio(crowded, alone, f"`send`, {what} us"))
            for what in ("median", "p99")
        ],
        Row("resident memory meanwhile, alone: rise", figure(alone, "rise MB"), "MB"),
        Row("resident memory meanwhile, beside all four of them: rise", figure(crowded, "rise MB"), "MB"),
    ]


def _outage(scale: Scale) -> list[Row]:
    rows = []
    for ours, theirs, count, target in (
        ("outage.batch exporter", "outage, batches", scale.backlog, "a batch exporter"),
        ("outage.file", "outage, file", scale.backlog // 10, "a file"),
    ):
        rows += [
            Row(f"{count:,} records through to {target} after", figure(ours, "seconds"), "s"),
            Row(f"records a second to {target}, beside the fastest peer", over_peers(ours, theirs)),
        ]
    return rows


def _kills() -> list[Row]:
    file, database = "kills.ours to a file", "kills.ours to SQLite"
    return [
        Row("to a file: lost", figure(file, "lost"), "records", most=0),
        Row("to a file (at least once): twice", figure(file, "twice"), "records"),
        Row("to SQLite: lost", figure(database, "lost"), "records", most=0),
        Row("to SQLite (exactly once): twice", figure(database, "twice"), "records", most=0),
    ]
