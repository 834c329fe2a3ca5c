"""A checksum tells with which number it was begun."""

from __future__ import annotations

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.spool.checksum import begun_with


@given(data=st.binary(max_size=5000), begun=st.integers(0, 0xFFFFFFFF))
def test_the_beginning_of_a_checksum(data: bytes, begun: int) -> None:
    """Whatever the data and however long it is."""
    assert begun_with(crc32(data, begun), data) == begun
