"""A program that ends owing records in memory says how many, whether it has set up logging or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PATIENCE = 60.0

OWING = """
class Down(rex.Exporter):
    def send(self, data): raise OSError("down")
pool = rex.ExporterPool([Down()], name="p")
for i in range(7): pool.send(i)
"""


@pytest.mark.parametrize(
    ("setting_up", "said"),
    [
        ("", 1),
        ("logging.basicConfig()", 1),
        ("logging.getLogger('resilient_exporters').propagate = False", 0),
        ("logging.getLogger('resilient_exporters').setLevel(logging.ERROR)", 0),
        ("logging.lastResort = None", 0),
    ],
)
def test_a_loss_at_the_end_is_said_once(setting_up: str, said: int) -> None:
    """A bare script says it on stderr; one with logging says it there, once; one that wants silence has it."""
    script = f"import logging\nimport resilient_exporters as rex\n{setting_up}\n{OWING}"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert said == ran.stderr.count("pool=p records=7"), ran.stderr
