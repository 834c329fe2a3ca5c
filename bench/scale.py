"""Fills spools with very many records, opens and drains them, in constant memory: `python -m bench.scale`."""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import resilient_exporters as rex
from bench.machine import described
from bench.memory import resident, risen
from bench.subject import Figures
from bench.table import shown, table

__all__ = ["main"]

_SIZE = 200
"""Bytes of a record as it is kept: 50 million are 10 GB."""
_LOOKS = 20
"""How often a phase tells how it is doing."""

_PREFACE = """\
# Scale: very many records in one spool

What is kept waits in segments, and opening reads the state and the segment that is being written, not the backlog.
So neither memory nor the time to open should grow with the number of records.
`python -m bench.scale` checks that, and wrote this page.

It keeps records of about {size} bytes for a target that is down (`send_many`, in the background, `safety="process"`).
A new process opens the spool and delivers everything to a target that looks at each record and checks the order.

```
python -m bench.scale --records 2_000_000 --output scale.md
python -m bench.scale --records 50_000_000 --folder /somewhere/with/12/GB --output scale.md
```

## Measured
"""


class _Sink(rex.Exporter):
    """A target that is down, or counts what it gets and checks the order."""

    batch_records = 10_000

    def __init__(self, *, up: bool) -> None:
        super().__init__(name="sink")
        self.up = up
        self.count = 0

    def export(self, batch: rex.Batch, /, **options: Any) -> None:
        """Look at each record, as a real exporter does."""
        if not self.up:
            raise rex.TargetDown("down on purpose")
        for taken in batch:
            if taken.data["id"] != self.count:
                raise AssertionError(f"record {taken.data['id']} came as number {self.count}")
            self.count += 1


def _records(count: int) -> Iterator[dict[str, Any]]:
    """Records of that size; tells now and then how many there were."""
    pad = "x" * (_SIZE - 60)
    for number in range(count):
        if number % (count // _LOOKS + 1) == 0:
            _tell("filled", number)
        yield {"id": number, "sensor": "boiler-7", "value": number / 7, "pad": pad}


def _tell(what: str, count: int) -> None:
    print(f"{what}: {count:,}, {resident() / 1e6:.0f} MB resident", file=sys.stderr, flush=True)


def _fill(folder: Path, count: int) -> Figures:
    """Keep records for a target that is down."""
    pool = rex.ExporterPool(
        [_Sink(up=False)], num_threads=2, wait_for_result=False, use_memory=False, tmp_file=folder / "kept"
    )
    began = time.perf_counter()
    rise = risen(lambda: pool.send_many(_records(count)))
    took = time.perf_counter() - began
    owed, size = pool.status().owed, pool.status().spool_bytes
    pool.close(timeout=0.0)
    if count != owed:
        raise AssertionError(f"{owed} of {count} records are owed")
    return {
        "on disk, GB": size / 1e9,
        "filling, records/s": count / took,
        "filling, resident memory rises by, MB": rise,
    }


def _drain(folder: Path, count: int) -> Figures:
    """Open the spool and deliver everything."""
    sink = _Sink(up=True)
    pools: list[rex.ExporterPool] = []

    def open_and_look() -> None:
        pools.append(rex.ExporterPool([sink], use_memory=False, tmp_file=folder / "kept", manual_reexport=True))
        if count != pools[0].status().owed:
            raise AssertionError(f"{pools[0].status().owed} of {count} records are owed")

    def drain() -> None:
        while not pools[0].flush(timeout=10.0):
            _tell("drained", sink.count)

    began = time.perf_counter()
    opening = risen(open_and_look)
    opened = time.perf_counter()
    draining = risen(drain)
    took = time.perf_counter() - opened
    if count != sink.count:
        raise AssertionError(f"{sink.count} of {count} records arrived")
    left = sum(path.stat().st_size for path in folder.iterdir())
    pools[0].close()
    return {
        "opening, and a first `status()`, ms": (opened - began) * 1000,
        "opening, resident memory rises by, MB": opening,
        "draining, records/s": count / took,
        "draining, resident memory rises by, MB": draining,
        "left on disk, MB": left / 1e6,
    }


def _alone(phase: Callable[[Path, int], Figures], folder: Path, count: int) -> Figures:
    """Run a phase in a process of its own, where nothing else weighs on the figures."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(phase, folder, count).result()


def _measured(folder: Path | None, count: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="scale-", dir=folder) as name:
        place = Path(name)
        return {**_alone(_fill, place, count), **_alone(_drain, place, count)}


def _page(found: dict[int, Figures], folder: Path) -> str:
    facts = {
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        **described(folder, ["resilient-exporters", "ormsgpack"]),
    }
    kinds = next(iter(found.values()))
    lines = [[kind, *(shown(figures[kind]) for figures in found.values())] for kind in kinds]
    return "\n".join(
        [
            _PREFACE.format(size=_SIZE),
            *(f"- {what}: {value}" for what, value in facts.items()),
            "",
            table(["", *(f"{count:,} records" for count in found)], lines),
            "",
            "Resident memory is that of the whole process.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each number of records, and write the page."""
    parser = argparse.ArgumentParser(prog="bench.scale", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[50_000_000], help="how many (default: 50 million)")
    parser.add_argument("--folder", type=Path, help="where the spool is made (default: the temporary folder)")
    parser.add_argument("--output", type=Path, help="file for the page")
    options = parser.parse_args(arguments)
    text = _page(
        {count: _measured(options.folder, count) for count in options.records},
        options.folder or Path(tempfile.gettempdir()),
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
