"""`ExporterSuite`, the tests that every exporter must pass: subclass it, say how to make one and how to look."""

from __future__ import annotations

from resilient_exporters.testing.suite_delivery import DeliveryTests
from resilient_exporters.testing.suite_network import NetworkTests
from resilient_exporters.testing.suite_trouble import TroubleTests

__all__ = ["ExporterSuite"]


class ExporterSuite(DeliveryTests, TroubleTests, NetworkTests):
    """Tests of one exporter, for pytest; what a subclass does not offer is skipped, with the reason.

    A subclass must write `make_exporter` and `arrived`. An exporter that goes through a network should set `proxy`, in
    a fixture of its own, and connect to `proxy.port`: then its target can break, hang and lose replies.

    Attributes:
        proxy: Stands between exporter and target, or None.
        request: Bytes in a request that stores something: its reply is the one to be lost; b"" = any.
        bad_record: Data that the target refuses for good, among good ones, or None.
        keywords: Keyword arguments that `send` takes and that change nothing of what `arrived` tells.
        secrets: Texts given to the exporter that must never be shown.

    Example:
        >>> class TestMine(ExporterSuite):
        ...     def make_exporter(self):
        ...         return FileExporter(self.folder / "x")
        ...     def arrived(self):
        ...         return [json.loads(line) for line in (self.folder / "x").read_text().splitlines()]
    """
