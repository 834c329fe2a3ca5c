"""The check of accounts that every test of an exporter runs under can fail."""

from __future__ import annotations

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter


@pytest.mark.parametrize("background", [False, True])
def test_a_record_that_is_not_accounted_for_is_found(background: bool) -> None:
    """A pool that has lost sight of a record does not pass its closing; one that has not, does."""
    pool = rex.ExporterPool([MemoryExporter("m")], num_threads=2, wait_for_result=not background)
    pool.send(1)
    pool.send_many([2, 3])
    pool.save_unsent_data(4, {}, "m")
    assert pool.flush(30)
    pool._rex.engine().lanes["m"].delivered -= 1
    with pytest.raises(AssertionError, match="4 records were sent"):
        pool.close()
    with rex.ExporterPool([MemoryExporter("m")], num_threads=2, wait_for_result=not background) as sound:
        sound.send(1)
