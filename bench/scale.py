"""Fills a spool with very many records and drains it, in constant memory: `python -m bench.scale`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import resilient_exporters as rex
from bench.machine import described
from resilient_exporters.exceptions import TargetDown

__all__ = ["main"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOKS = 20
"""How often a phase tells how it is doing."""


class _Sink(rex.Exporter):
    """A target that is down, or counts what it gets and checks the order.

    Attributes:
        up: Whether it takes anything.
        got: Records that it took.
        most: The most resident bytes seen while it took them.
    """

    batch_records = 10_000

    def __init__(self, *, up: bool) -> None:
        super().__init__(name="sink")
        self.up = up
        self.got = 0
        self.most = 0

    def export(self, batch: rex.Batch, /, **options: Any) -> None:
        """Look at each record, as a real exporter does."""
        if not self.up:
            raise TargetDown("down on purpose")
        for record in batch:
            if record.data["id"] != self.got:
                raise AssertionError(f"record {record.data['id']} came as number {self.got}")
            self.got += 1
        self.most = max(self.most, _resident())


def _resident() -> int:
    """Bytes of memory in use by this process now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _records(count: int, size: int) -> Iterator[dict[str, Any]]:
    """Records that take about `size` bytes when kept."""
    pad = "x" * max(size - 60, 0)
    for number in range(count):
        yield {"id": number, "sensor": "boiler-7", "value": number / 7, "pad": pad}


def _told(records: Iterator[dict[str, Any]], count: int, phase: str) -> Iterator[dict[str, Any]]:
    """The same records; tells now and then how many there were."""
    began = time.perf_counter()
    step = max(count // _LOOKS, 1)
    for number, record in enumerate(records):
        if number and number % step == 0:
            rate = number / (time.perf_counter() - began)
            print(f"  {phase}: {number:,} records, {rate:,.0f}/s, {_resident() / 1e6:.0f} MB resident", file=sys.stderr)
        yield record


def _fill(place: Path, count: int, size: int) -> dict[str, Any]:
    """Keep records for a target that is down."""
    pool = rex.ExporterPool(
        [_Sink(up=False)],
        num_threads=2,
        wait_for_result=False,
        use_memory=False,
        tmp_file=place,
        name="scale",
        retry=rex.Retry(base=3600.0, cap=3600.0),
    )
    before = _resident()
    began = time.perf_counter()
    pool.send_many(_told(_records(count, size), count, "filling"))
    took = time.perf_counter() - began
    status = pool.status()
    if count != status.owed:
        raise AssertionError(f"{status.owed} of {count} records are owed")
    pool.close(timeout=0.0)
    return {
        "seconds": took,
        "records a second": count / took,
        "bytes on disk": status.spool_bytes,
        "resident before": before,
        "resident at the end": _resident(),
        "resident at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _open(place: Path, up: bool) -> tuple[rex.ExporterPool, _Sink, dict[str, Any]]:
    """Open the spool; what that took."""
    before = _resident()
    sink = _Sink(up=up)
    began = time.perf_counter()
    pool = rex.ExporterPool([sink], use_memory=False, tmp_file=place, name="scale", manual_reexport=True)
    opened = time.perf_counter()
    owed = pool.status().owed
    asked = time.perf_counter()
    figures = {
        "open, seconds": opened - began,
        "first status, seconds": asked - opened,
        "owed": owed,
        "resident before": before,
        "resident after": _resident(),
    }
    return pool, sink, figures


def _drain(place: Path, count: int) -> dict[str, Any]:
    """Open the spool and deliver everything."""
    pool, sink, figures = _open(place, up=True)
    began = time.perf_counter()
    while not pool.flush(timeout=10.0):
        rate = sink.got / (time.perf_counter() - began)
        print(f"  draining: {sink.got:,} records, {rate:,.0f}/s, {_resident() / 1e6:.0f} MB resident", file=sys.stderr)
    took = time.perf_counter() - began
    if count != sink.got:
        raise AssertionError(f"{sink.got} of {count} records arrived")
    left = sum(path.stat().st_size for path in place.parent.iterdir())
    pool.close()
    return figures | {
        "seconds": took,
        "records a second": count / took,
        "bytes left on disk": left,
        "resident at most": sink.most,
    }


def _in_a_process_of_its_own(phase: str, place: Path, count: int, size: int) -> dict[str, Any]:
    """Run a phase where nothing else weighs on the figures."""
    import subprocess

    command = [sys.executable, "-m", "bench.scale", "--phase", phase, "--records", str(count), "--bytes", str(size)]
    done = subprocess.run([*command, "--folder", str(place.parent)], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _print(title: str, figures: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name, value in figures.items():
        resident = name.startswith(("resident", "bytes"))
        text = f"{value / 1e6:,.1f} MB" if resident else f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        print(f"  {name:<24} {text:>16}")


def main(arguments: list[str] | None = None) -> None:
    """Fill, open, drain; each in a process of its own, so that memory is what the phase itself takes."""
    parser = argparse.ArgumentParser(prog="bench.scale", description=__doc__)
    parser.add_argument("--records", type=int, default=50_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=190, help="size of a kept record (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the spool is made (default: the temporary folder)")
    parser.add_argument("--phase", choices=["fill", "open", "drain"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.phase:
        place = options.folder / "kept"
        if options.phase == "fill":
            figures = _fill(place, options.records, options.bytes)
        elif options.phase == "drain":
            figures = _drain(place, options.records)
        else:
            pool, _, figures = _open(place, up=False)
            pool.close()
        print(json.dumps(figures))
        return
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=options.folder))
    try:
        for name, value in described(folder).items():
            print(f"{name}: {value}")
        for phase, title in (("fill", "Filling, target down"), ("open", "Opening"), ("drain", "Draining")):
            _print(title, _in_a_process_of_its_own(phase, folder / "kept", options.records, options.bytes))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
